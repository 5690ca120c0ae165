"""The message files and docs/messages.md agree: every field is documented and commented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "ros2_ws" / "src" / "feature_frontend_msgs"
INTERFACES = sorted([*PACKAGE.glob("msg/*.msg"), *PACKAGE.glob("srv/*.srv")])
FIELD = re.compile(r"^(?P<type>[\w/]+(\[\])?)\s+(?P<name>[\w]+)(=\d+)?(?P<rest>.*)$")


def fields(path: Path) -> list[re.Match[str]]:
    """The fields and constants of an interface file, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [match for line in lines if not line.startswith("#") and (match := FIELD.match(line))]


def section(name: str) -> str:
    """The part of the document about one interface."""
    document = (REPOSITORY / "docs" / "messages.md").read_text(encoding="utf-8")
    sections = {part.split(":")[0]: part for part in document.split("\n## ")}
    assert name in sections, f"docs/messages.md has no section on {name}"
    return sections[name]


def test_there_are_interfaces() -> None:
    assert [path.stem for path in INTERFACES] == ["Features", "FrameStatus", "Matches", "Tracks", "MatchFrames"]


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.stem)
def test_every_field_is_commented(path: Path) -> None:
    for field in fields(path):
        assert "#" in field["rest"], f"{path.name}: {field['name']} has no comment"


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.stem)
def test_every_field_is_in_the_document_with_its_type(path: Path) -> None:
    text = section(path.stem)
    for field in fields(path):
        assert f"`{field['name']}`" in text, f"docs/messages.md does not name {path.stem}.{field['name']}"
        is_constant = field["name"].isupper()
        if not is_constant:
            row = next(line for line in text.splitlines() if line.startswith("|") and f"`{field['name']}`" in line)
            assert f"`{field['type']}`" in row, f"docs/messages.md gives {path.stem}.{field['name']} another type"


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.stem)
def test_lists_are_flat(path: Path) -> None:
    for field in fields(path):
        if field["type"].endswith("[]"):
            assert re.fullmatch(r"(float32|float64|uint8|uint32|uint64)\[\]", field["type"]), (
                f"{path.name}: {field['name']}"
            )
