"""Covariances of positions: long along edges, in px of the image, and there for every extractor and tracker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend import Frontend
from feature_frontend.extractors.covariances import POSITION_NOISE, PositionNoise, detected_covariances
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.image.resize import Resize
from feature_frontend.settings import Settings
from feature_frontend.tracking.lucas_kanade import match_templates
from feature_frontend.tracking.state import TrackState, Views
from feature_frontend.tracking.track_table import TrackTable
from feature_frontend.types import Features, Matches
from tests.core.seeded import IDENTITY, seeded_network

Photographs = list[npt.NDArray[np.uint8]]
NOISE = POSITION_NOISE["dotlet"]


def _small(photographs: Photographs) -> Photographs:
    return [np.asarray(cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA), np.uint8) for image in photographs]


def _frontend(extractor: str, **parameters: Any) -> Frontend:
    values = {"compile": False, "max_num_keypoints": 300, "device": "cpu", **parameters}
    if not extractor.startswith("aliked"):
        return Frontend.from_pretrained(extractor=extractor, **values)
    settings = Settings.from_mapping({"extractor": extractor, **values})
    network = seeded_network(extractor)
    from feature_frontend.extractors.networks.aliked_inference import FastAliked

    return Frontend(Extractor(FastAliked(network), IDENTITY, settings, torch.device("cpu"), has_maps=True), settings)


def _check(covariances: torch.Tensor | npt.NDArray[np.float32] | None, count: int) -> None:
    assert covariances is not None
    values = np.asarray(covariances)
    assert (values.shape, values.dtype) == ((count, 3), np.float32)
    xx, xy, yy = values.T.astype(np.float64)
    assert np.isfinite(values).all()
    assert (xx > 0).all()
    assert (xx * yy - xy**2 > 0).all()
    # Between a hundredth of a pixel and the image's size.
    assert 1e-2 < np.sqrt(np.median(xx)) < 10


@pytest.mark.parametrize(
    ("extractor", "parameters"),
    [
        ("dotlet", {"tracker": "chain"}),
        ("dotlet", {"tracker": "persistent"}),
        ("dotlet", {"tracker": "chain", "multi_scale": True}),
        ("silk-vggnp-mu", {"tracker": "chain"}),
        ("silk-vggnp-mu", {"tracker": "persistent"}),
        ("aliked-t16", {"tracker": "chain"}),
        ("aliked-t16", {"tracker": "persistent", "nms_radius": 0}),
        ("sift", {"tracker": "chain", "multi_scale": True}),
    ],
)
def test_every_extractor_and_tracker_has_them(
    photographs: Photographs, extractor: str, parameters: dict[str, Any]
) -> None:
    frontend = _frontend(extractor, **parameters)
    for number, image in enumerate(_small(photographs)):
        result = frontend.process(image, number * 10**8)
        assert len(result.features) > 20
        _check(result.features.covariances, len(result.features))
        _check(result.tracks.covariances, len(result.tracks))
    blank = frontend.process(np.full((240, 320), 90, np.uint8), 10**9)
    assert len(blank.tracks) == 0


def test_they_are_in_px_of_the_image_as_published(photographs: Photographs) -> None:
    frontend = _frontend("dotlet", resize_height=120)
    image = _small(photographs)[0]
    prepared = frontend.extractor.prepare(image)
    assert prepared is not None
    of_network = frontend.extractor.maps(prepared).features.covariances[0]
    features = frontend.extractor.extract(image)
    assert features.covariances is not None
    torch.testing.assert_close(features.covariances, 4.0 * of_network[: len(features)])
    stretched = Resize(100, 400, 200, 200).invert_covariances(torch.tensor([[1.0, 1.0, 1.0]]))
    torch.testing.assert_close(stretched, torch.tensor([[4.0, 1.0, 0.25]]))


def test_of_a_detection_they_are_long_along_a_ridge_and_large_where_scores_are_low() -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    ridge = torch.exp(-((x - 15) ** 2) / 2 - (y - 20) ** 2 / 200)
    blob = torch.exp(-((x - 45) ** 2 + (y - 20) ** 2) / 2)
    keypoints = torch.tensor([[[15.0, 20.0], [45.0, 20.0]]])
    (of_ridge, of_blob), (low_ridge, _) = (
        detected_covariances(level * (ridge + blob)[None, None], keypoints, NOISE)[0] for level in (0.9, 0.2)
    )
    assert of_ridge[2] > 5 * of_ridge[0]
    torch.testing.assert_close(of_blob[0], of_blob[2])
    assert of_blob[1].abs() < 1e-6
    assert of_ridge[2] > 2 * of_blob[2]
    assert (low_ridge > of_ridge)[[0, 2]].all()
    # A map without any difference, and points at its edge.
    flat = detected_covariances(torch.zeros(1, 1, 40, 60), torch.tensor([[[0.0, 0.0], [59.4, 39.4]]]), NOISE)
    assert torch.isfinite(flat).all()
    assert (flat[..., ::2] > 0).all()


def test_of_an_alignment_they_are_long_along_an_edge_and_small_at_a_corner() -> None:
    height, width = 80, 160
    clean = np.full((height, width), 0.2, np.float32)
    clean[:, :40] = 0.8
    clean[:40, 100:] = 0.8
    clean = np.asarray(cv2.GaussianBlur(clean, (0, 0), 1.0), np.float32)
    rng = np.random.default_rng(0)
    views, resize = None, Resize(height, width, height, width)
    for _ in range(2):
        image = torch.from_numpy((clean + rng.normal(0, 0.01, clean.shape)).astype(np.float32))
        views = Views.of(image, resize, None if views is None else views.latest)
    assert views is not None
    points = torch.tensor([[39.5, 40.0], [99.5, 39.5], [20.0, 40.0]])
    every = torch.ones(3, dtype=torch.bool)
    state = replace(TrackState.empty(3, 1, torch.device("cpu")), is_valid=every, points=points, anchors=points)
    found = match_templates(state, views, every, every, points, torch.zeros(3, 2, 2), is_padded=False)
    detected = torch.tensor([[0.5, 0.0, 0.5]]).expand(3, 3)
    edge, corner, flat = found.covariances(detected, NOISE)
    assert found.is_found[:2].all()
    assert edge[2] > 10 * edge[0]
    assert corner[2] < edge[2] / 5
    assert corner[0] < 0.5 / 5
    # Where nothing is found, the detection says where it is.
    assert not found.is_found[2]
    torch.testing.assert_close(flat, NOISE.alone_factor * detected[2])


def test_a_zoom_enlarges_those_of_tracks() -> None:
    points = torch.rand((50, 2), generator=torch.Generator().manual_seed(0)) * 200
    rows = torch.arange(50)

    def features(scale: float) -> Features:
        one = torch.tensor([[0.1, 0.02, 0.2]]).expand(50, 3)
        return Features(scale * points, torch.ones(50), torch.ones(50, 1), 480, 640, "x@0", covariances=one)

    table, found = TrackTable(), []
    for number, scale in enumerate((1.0, 1.0, 1.1)):
        matches = Matches(rows, rows, torch.ones(50), torch.ones(50), "mnn") if number else Matches.empty("mnn")
        found.append(table.update(features(scale), matches, number, zoom_factor=100.0).covariances)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert found[2] is not None
    np.testing.assert_allclose(found[2][0], np.array([0.1, 0.02, 0.2]) * (1 + 100 * np.log(1.1) ** 2), rtol=1e-4)


def test_their_constants_can_be_replaced(photographs: Photographs) -> None:
    frontend = _frontend("dotlet", tracker="chain")
    assert frontend.extractor.position_noise == NOISE
    frontend.extractor.position_noise = PositionNoise(2.0, 0.0, 0.0)
    covariances = frontend.process(_small(photographs)[0], 0).tracks.covariances
    assert covariances is not None
    np.testing.assert_allclose(covariances[:, ::2], 2.0)
