"""External names in reports: displayed as they are, but harmless in a browser or terminal."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from feature_frontend_lab.evaluation.commands.evaluate import main
from feature_frontend_lab.evaluation.reports.writing import file_names, markdown_code, markdown_table, markdown_text
from feature_frontend_lab.training.export import ModelCard, write_model
from tests.conftest import REPOSITORY

# As a folder's name: HTML, a link, a cell, a byte that is no UTF-8, and what a terminal would obey.
NAME = "<script>alert(1)<|script>[x](javascript:y)`|\udcfc\x1b[31m & co"
_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"


def _is_harmless(text: str) -> bool:
    return not re.search(r"<script|\x1b|(?<!\\)\[x(?<!\\)\]\(", text)


def test_markdown() -> None:
    assert markdown_text("tum_fr2_desk, 2 < 3") == "tum_fr2_desk, 2 &lt; 3"
    assert markdown_text(NAME).startswith(
        "&lt;script&gt;alert(1)&lt;\\|script&gt;\\[x\\](javascript:y)\\`\\|\\\\xfc\\\\x1b"
    )
    assert markdown_text("a\n# b") == "a # b"
    assert markdown_code("a`b``c|d") == "``` a`b``c\\|d ```"
    table = markdown_table(["method", "x"], [[NAME, "1"], ["plain", "2"]])
    assert _is_harmless(table)
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()] == [3, 3, 3, 3]


def test_reports_of_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = tmp_path / NAME, tmp_path / "out"
    folder.mkdir()
    for file in sorted(_PHOTOGRAPHS.glob("*.jpg"))[:2]:
        shutil.copy(file, folder)
    arguments = ["--compare", "chain", "--set", "extractor=sift", "--set", "resize_height=120", "--output", str(output)]
    assert main(["tracks", str(folder), *arguments]) == 0
    printed = capsys.readouterr().out
    files = sorted(output.iterdir())
    markdown, page = ((output / f"tracks{suffix}").read_text(encoding="utf-8") for suffix in (".md", ".html"))
    for text in (printed, markdown):
        assert _is_harmless(text)
    assert "<script" not in page
    assert "\x1b" not in page
    assert all("script" in text for text in (printed, markdown, page))
    assert all(re.fullmatch(r"[\w.+=-]+", file.name, re.ASCII) for file in files)


def test_the_card_of_a_trained_model(tmp_path: Path) -> None:
    settings = {"batch_size": 1, "accumulate": 1}
    names = {"data": NAME, "data_licence": NAME, "initial": NAME, "validation_data": NAME, "command": f"train {NAME}"}
    numbers = {"parameters": 1, "step": 1, "hours": 1.0, "processes": 1}
    metrics = {"before": {"repeatability": 0.4}, "after": {"repeatability": 0.5}}
    rest = {"model": "silk", "architecture": "SiLK", "device": "cpu", "commit": "", "torch_version": "2"}
    card = ModelCard(**names, **numbers, **metrics, **rest, settings=settings)
    write_model(tmp_path, card, {})
    text = (tmp_path / f"{card.model}.md").read_text(encoding="utf-8")
    outside_code = re.sub(r"(`+) .*? \1", "", text)
    assert _is_harmless(outside_code)
    assert "\x1b" not in text


def test_names_that_look_alike_get_files_of_their_own() -> None:
    names = ["chain+x=1/2", "chain+x=1 2", "chain+x=1_2_2", "chain+x=1:2", "y" * 150, "y" * 151]
    files = file_names(names)
    assert list(files) == names
    assert len(set(files.values())) == len(names)
    assert all(re.fullmatch(r"[\w.+=-]+", file) for file in files.values())
