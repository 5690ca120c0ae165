"""Statements of the documents about the code are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from feature_frontend.__main__ import LAB_TOOLS, TOOLS
from feature_frontend.settings import PARAMETERS
from feature_frontend.tools.parameters import markdown_tables, yaml_file
from tests.conftest import REPOSITORY

_DOCUMENTS = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
_MAX_README_BYTES = 10_000
_MAX_README_COLUMNS = 120


def _read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_the_readme_is_read_in_a_minute() -> None:
    readme = _read("README.md")
    assert len(readme.encode()) <= _MAX_README_BYTES
    assert [line for line in readme.splitlines() if len(line) > _MAX_README_COLUMNS] == []


def test_the_parameters_page_has_the_tables() -> None:
    begin, end = "<!-- parameters: made by `feature_frontend parameters` -->\n", "<!-- end of parameters -->"
    tables = _read("docs/parameters.md").split(begin)[1].split(end)[0]
    assert tables.strip() == markdown_tables()
    rows = re.findall(r"^\| `(\w+)` \|", tables.split("## Renamed")[0], re.MULTILINE)
    assert sorted(rows) == sorted(PARAMETERS)


def test_the_tools_page_names_every_tool() -> None:
    page = _read("docs/tools.md")
    assert all(f"| `{tool}` |" in page for tool in {*TOOLS, *LAB_TOOLS})


def _anchors(document: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        page = (document.parent / path) if path else document
        assert page.exists(), f"{document.name} links to {target}"
        assert not anchor or anchor in _anchors(page), f"{document.name} links to {target}"


def test_every_convention_is_pinned() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    rows = (REPOSITORY / "docs" / "conventions.md").read_text(encoding="utf-8").count("\n| ") - 1
    assert len(set(re.findall(r"def (test_convention_\w+)", tests))) >= rows


def test_the_parameter_file_to_start_from_has_every_parameter() -> None:
    lines = yaml_file().splitlines()
    assert [line.split(":")[0].strip() for line in lines if line.startswith("    ") and "#" not in line] == list(
        PARAMETERS
    )
