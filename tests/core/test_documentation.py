"""What the documents say of the code is what the code says."""

from __future__ import annotations

import re

from feature_frontend.__main__ import TOOLS
from feature_frontend.settings import PARAMETERS
from feature_frontend.tools.parameters import markdown_table, yaml_file
from tests.conftest import REPOSITORY

_README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_the_table_of_parameters() -> None:
    begin, end = "<!-- parameters: made by `feature_frontend parameters` -->\n", "<!-- end of parameters -->"
    table = _README.split(begin)[1].split(end)[0]
    assert table.strip() == markdown_table()


def test_the_readme_names_every_tool() -> None:
    assert all(f"| `{tool}` |" in _README for tool in TOOLS)


def test_links_in_the_documents_lead_somewhere() -> None:
    documents = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
    assert len(documents) > 5
    for document in documents:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_convention_is_pinned() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    rows = (REPOSITORY / "docs" / "conventions.md").read_text(encoding="utf-8").count("\n| ") - 1
    assert len(set(re.findall(r"def (test_convention_\w+)", tests))) >= rows


def test_the_parameter_file_to_start_from_has_every_parameter() -> None:
    lines = yaml_file().splitlines()
    assert [line.split(":")[0].strip() for line in lines if line.startswith("    ") and "#" not in line] == list(
        PARAMETERS
    )
