"""The suites `node`, `memory` and `soak`, run for a few small frames with the real node."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from benchmarks.suites import memory, node, soak
from benchmarks.types import Options, SuiteResult
from feature_frontend.errors import FeatureFrontendError
from tests.campaign import Campaign
from tests.conftest import REPOSITORY

_OPTIONS = {"sizes": ((160, 120),), "keypoints": (100,), "images": REPOSITORY / "tests" / "data" / "tum_fr2_desk"}


def _log(_line: str) -> None:
    """Nobody reads it."""


def _cells(result: SuiteResult, table: int) -> dict[str, dict[str, str]]:
    """A table's cells by row and column."""
    shown = result.tables[table]
    return {row[0]: dict(zip(shown.columns[1:], row[1:], strict=True)) for row in shown.rows}


@pytest.mark.slow
def test_node_suite_measures_latency_parts_and_drops(campaign: Campaign) -> None:
    campaign.only("three rates of the node; the other suites run the same processes")
    result = node.run(Options(**_OPTIONS, rounds=4, warmup=1, duration_s=1.0), _log)
    latency = result.data["latency"]
    assert latency["keypoints"] == 100
    assert latency["until_features"]["count"] == 4
    assert 0 < latency["until_features"]["median_ms"] <= latency["until_all"]["median_ms"]
    assert latency["network"]["median_ms"] > 0
    assert latency["cpu_ms_per_frame"] > 0
    parts = {part["name"]: part["samples_ms"] for part in result.data["breakdown"]}
    assert len(parts) == 6
    assert all(sample > 0 for samples in parts.values() for sample in samples)
    assert [rate["hz"] for rate in result.data["rates"]] == [10, 30, 60]
    for rate in result.data["rates"]:
        assert rate["offered"] == rate["hz"]
        assert rate["received"] == rate["processed"] + rate["dropped"] <= rate["offered"]
        assert rate["processed"] > 0
        assert rate["cpu_cores"] > 0
    assert list(_cells(result, 2)) == ["10 Hz", "30 Hz", "60 Hz"]


@pytest.mark.slow
def test_memory_suite_reads_the_node() -> None:
    result = memory.run(Options(**_OPTIONS, frames=30), _log)
    samples = result.data["samples"]
    assert [sample["frame"] for sample in samples] == list(range(1, 31))
    assert all(50 < sample["rss"] < 20_000 for sample in samples)
    resident = _cells(result, 0)["resident"]
    assert resident["growth"] == f"{result.data['growth']:+.2%}"
    assert resident["bar"] == ("met" if result.data["growth"] < memory.BAR else "MISSED")


@pytest.mark.slow
def test_soak_suite_accounts_for_every_image(campaign: Campaign) -> None:
    campaign.only("a soak of the node")
    result = soak.run(Options(**_OPTIONS, duration_s=3.0), _log)
    account = result.data["account"]
    assert account["offered"] == 90
    assert account["processed"] > 0
    assert account["refused"] == 0
    assert account["lost"] >= 0
    assert sum(account["reasons"].values()) == account["dropped"]
    assert result.data["latency"]["count"] == account["processed"]
    assert len(result.data["rss_mib"]) >= 3
    assert _cells(result, 0)["processed"]["images"] == str(account["processed"])


def test_growth_is_judged_after_warm_up() -> None:
    steady = [50.0] * 10 + [100.0] * 90
    assert memory.growth(steady) == 0
    assert memory.growth([*steady[:90], *[102.0] * 10]) == pytest.approx(0.02)
    # A single reading says nothing.
    assert memory.growth([*steady[:95], 500.0, *steady[96:]]) == 0


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(FeatureFrontendError, match=r"5 frames .* at least 20.*--frames"):
        memory.run(Options(frames=5), _log)


def test_the_network_is_the_shipped_one_unless_another_is_named() -> None:
    assert node.network_of(Options()) == "silk-vggnp-mu"
    assert node.network_of(Options(extractors=("aliked-t16",))) == "aliked-t16"


@pytest.mark.slow
def test_a_node_that_cannot_start_is_reported_with_what_it_printed() -> None:
    options = Options(**_OPTIONS, rounds=1, device="cuda:99")
    with pytest.raises(FeatureFrontendError, match="cuda:99"):
        node.run(options, _log)
