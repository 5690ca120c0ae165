"""Steps: whole front-ends over sequences, and the matchers, the device compared with the CPU."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from benchmarks.images import Frames
from benchmarks.types import Table
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.matchers.factory import make_matcher
from feature_frontend.models.catalog import MATCHER_MODELS
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.runtime.cuda_graphs import make_graph_device
from feature_frontend.types import Features, FrameResult, Matches
from scripts.gpu_check.models import (
    available,
    captured,
    on_cpu,
    on_device,
    settings_for,
    tensor_float32,
    why_no_lightglue,
)
from scripts.gpu_check.real_frames import sequences
from scripts.gpu_check.right.comparing import MatchAgreement, compare_matches, compare_sequences
from scripts.gpu_check.right.execution import speckled
from scripts.gpu_check.right.wording import mark, sides, verdict
from scripts.gpu_check.step import Context, LeftOutError, Outcome
from scripts.gpu_check.timebox import TimeBox
from tests.tolerances import DEVICE, TRACKING

__all__ = ["FRAME_NS", "device_matchers", "device_trackers", "run_sequence"]

FRAME_NS = 100_000_000
_NETWORKS = ("aliked-n16", "silk-vggnp-mu")
_FRAMES, _REHEARSED_FRAMES = 8, 3
_GATES: dict[str, dict[str, float | str]] = {
    "mnn": {},
    "ratio 0.9": {"ratio_threshold": 0.9},
    "double softmax": {"double_softmax_threshold": 0.01},
    "all gates": {"min_similarity": 0.5, "ratio_threshold": 0.95, "double_softmax_threshold": 0.001},
    "lightglue": {"matcher": "lightglue"},
}


def device_trackers(context: Context, box: TimeBox) -> Outcome:
    """`chain` and `persistent` over TUM's and KITTI's frames, also with masks: the device compared with the CPU."""
    networks, missing = available(context, _NETWORKS[1:] if context.is_rehearsal else _NETWORKS)
    frames = sequences(context, _REHEARSED_FRAMES if context.is_rehearsal else _FRAMES, (160, 128))
    rows, data, missed = [], {}, []
    followed = TRACKING.fraction_same_when_padded if context.is_rehearsal else DEVICE.followed_fraction
    bars = {"chain": (DEVICE.fraction, DEVICE.linked_fraction), "persistent": (followed, followed)}
    settings = [
        (tracker, network, name, is_masked)
        for is_masked, network, name, tracker in product((False, True), networks, frames, ("persistent", "chain"))
    ]
    with tensor_float32(convolutions=False, products=False):
        for tracker, network, name, is_masked in box.each(settings, _tracking_name):
            with box.attempt(_tracking_name((tracker, network, name, is_masked))):
                options = settings_for(context, network, tracker=tracker)
                device = Frontend(on_device(options), options)
                cpu = Frontend(_reference(context, network, tracker), options)
                found, expected = (run_sequence(side, frames[name], is_masked=is_masked) for side in (device, cpu))
                least_points, least_links = bars[tracker]
                agreement = compare_sequences(expected, found, least_points=least_points, least_links=least_links)
                setting = _tracking_name((tracker, network, name, is_masked))
                cells = f"{agreement.points:.2%}", f"{agreement.links:.2%}", f"{agreement.ages:.2%}"
                rows.append((setting, str(agreement.images), *cells, mark(agreement.passes)))
                data[setting] = agreement.as_json()
                missed += [] if agreement.passes else [setting]
    note = (
        f"Within {DEVICE.followed_px} px. Points: of an image, the least; matches: of the sequence, both ends. Bars: "
        f"{', '.join(f'{tracker} {own[0]:.0%} and {own[1]:.0%}' for tracker, own in bars.items())}. Mean age: the "
        f"largest difference; bar {DEVICE.age:.0%}."
    )
    columns = ("setting", "images", "points", "matches", "mean age", "")
    table = Table(f"Trackers: {sides(context)}; float32 without TF32", columns, tuple(rows), note)
    return Outcome(not missed, verdict(len(rows), missed, missing), [table], {"results": data, "missing": missing})


def device_matchers(context: Context, box: TimeBox) -> Outcome:
    """Each matcher with the same features, the device compared with the CPU; captured ones also with padding."""
    why_not = why_no_lightglue(context)
    networks, missing = available(context, _NETWORKS)
    if why_not or "aliked-n16" not in networks:
        missing.append(f"lightglue ({why_not or 'no aliked-n16'})")
    rows, data, missed = [], {}, []
    frames = sequences(context, 2, (240, 176))
    # LightGlue supports aliked-n16 only.
    settings = [
        (gate, network, name)
        for gate, network, name in product(_GATES, networks, frames)
        if gate != "lightglue" or (network == "aliked-n16" and not why_not)
    ]
    settings.sort(key=lambda each: (each[2] != next(iter(frames)), each[0] == "lightglue"))
    pairs: dict[tuple[str, str], tuple[Features, Features]] = {}
    with tensor_float32(convolutions=False, products=False):
        for gate, network, name in box.each(settings, lambda each: f"{each[0]}, {each[1]} on {each[2]}"):
            with box.attempt(f"{gate}, {network} on {name}"):
                if (network, name) not in pairs:
                    pairs[network, name] = _two_images(context, network, frames[name])
                for way, agreement in _match(context, gate, network, pairs[network, name]).items():
                    setting = f"{gate}{way}, {network} on {name}"
                    counts = f"{agreement.count0}", f"{agreement.count1}"
                    cells = f"{agreement.fraction:.2%}", f"{agreement.worst_similarity:.1e}", mark(agreement.passes)
                    rows.append((setting, *counts, *cells))
                    data[setting] = agreement.as_json()
                    missed += [] if agreement.passes else [setting]
    note = (
        f"The same features on both sides. Bars: {DEVICE.pair_fraction:.0%} of the pairs in common, "
        f"similarities within {DEVICE.similarity:g}. Captured: as a graph of fixed shapes."
    )
    columns = ("matcher", "pairs", "pairs there", "in common", "worst similarity", "")
    table = Table(f"Matchers: {sides(context)}; float32 without TF32", columns, tuple(rows), note)
    return Outcome(not missed, verdict(len(rows), missed, missing), [table], {"results": data, "missing": missing})


def run_sequence(frontend: Frontend, frames: Frames, *, is_masked: bool = False) -> list[FrameResult]:
    """Processes every frame, starting without a previous one; closes the front-end afterwards."""
    frontend.reset()
    results = []
    for number, image in enumerate(frames.images):
        mask = speckled(image.shape[0], image.shape[1], number) if is_masked else None
        results.append(frontend.process(image, number * FRAME_NS, mask))
    frontend.close()
    return results


def _reference(context: Context, network: str, tracker: str) -> Extractor:
    """On the CPU, with the device's shapes, so that only rounding differs; in a rehearsal, in plain form."""
    extractor = on_cpu(context, network, tracker=tracker)
    return extractor if context.is_rehearsal else captured(extractor, extractor.settings)


def _two_images(context: Context, network: str, frames: Frames) -> tuple[Features, Features]:
    if len(frames) < 2:
        msg = f"{frames.description}: a pair needs two"
        raise LeftOutError(msg)
    extractor = on_cpu(context, network)
    return extractor.extract(frames.at(0)), extractor.extract(frames.at(1))


def _match(context: Context, gate: str, network: str, pair: tuple[Features, Features]) -> dict[str, MatchAgreement]:
    """By execution mode: with the exact number of rows and, if the matcher supports it, captured with padding."""
    settings = settings_for(context, network, **_GATES[gate])
    matcher = make_matcher(settings)
    expected = matcher.match(*pair)
    on_the_device: tuple[Any, Any] = (pair[0].to(context.device), pair[1].to(context.device))
    ways = {"": compare_matches(expected, matcher.match(*on_the_device).to("cpu"))}
    if MATCHER_MODELS[matcher.name].takes_padding:
        ways[", captured"] = compare_matches(expected, _recorded_matches(context, matcher, on_the_device))
    return ways


def _recorded_matches(context: Context, matcher: Any, pair: tuple[Features, Features]) -> Matches:
    graph_device = make_graph_device(torch.device(context.device))
    padded = [_padded(features) for features in pair]
    graph = graph_device.capture(lambda: matcher.padded(*padded[0], *padded[1]))
    with graph_device.active():
        graph.replay()
    graph_device.wait()
    matches: Matches = graph.result.unpadded(matcher.name).to("cpu")
    return matches


def _padded(features: Features) -> tuple[Any, Any]:
    """Descriptors with some rows of padding, and the number of real rows."""
    descriptors = features.descriptors
    room = descriptors.new_full((17, descriptors.shape[1]), 0.1)
    return torch.cat([descriptors, room]), torch.tensor(len(features), device=descriptors.device)


def _tracking_name(setting: tuple[str, str, str, bool]) -> str:
    tracker, network, name, is_masked = setting
    return f"{tracker}, {network} on {name}{', masks' if is_masked else ''}"
