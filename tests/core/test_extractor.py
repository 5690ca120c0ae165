"""The extractor's public behaviour: images in, features out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend import Features, load_extractor
from feature_frontend.errors import ImageError, SettingsError, WeightsError
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.networks.aliked import ALIKED_CONFIGS, Aliked
from feature_frontend.runtime.device import resolve_device
from feature_frontend.settings import Settings
from tests.core.seeded import IDENTITY, seeded_extractor, seeded_network
from tests.tolerances import REDUCED_PRECISION

Uint8Array = npt.NDArray[np.uint8]


def _close(first: Features, second: Features) -> None:
    torch.testing.assert_close(first.keypoints, second.keypoints, atol=1e-3, rtol=0)
    torch.testing.assert_close(first.scores, second.scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(first.descriptors, second.descriptors, atol=1e-3, rtol=0)


def test_features_of_a_photograph(photographs: list[Uint8Array]) -> None:
    features = seeded_extractor(Settings(max_num_keypoints=200)).extract(photographs[0])
    assert len(features) == 200
    assert (features.height, features.width, features.extractor) == (480, 640, IDENTITY)
    assert features.keypoints.dtype == features.scores.dtype == torch.float32
    assert features.descriptors.shape == (200, features.descriptor_dim)
    torch.testing.assert_close(features.descriptors.norm(dim=1), torch.ones(200))
    assert 0 <= float(features.scores.min()) <= float(features.scores.max()) <= 1


def test_a_batch_gives_what_single_images_give(photographs: list[Uint8Array]) -> None:
    extractor = seeded_extractor(Settings(max_num_keypoints=100))
    blank = np.full_like(photographs[0], 90)
    grey = np.ascontiguousarray(photographs[2][:, :, 1])
    batch = [photographs[0], blank, photographs[1], grey]
    together = extractor.extract_batch(batch)
    assert [len(features) for features in together] == [100, 0, 100, 100]
    for image, features in zip(batch, together, strict=True):
        _close(features, extractor.extract(image))
    assert extractor.extract_batch([]) == []


def test_grey_is_rgb_with_equal_channels(photographs: list[Uint8Array]) -> None:
    grey = np.ascontiguousarray(photographs[0][:, :, 0])
    extractor = seeded_extractor(Settings(max_num_keypoints=50))
    _close(extractor.extract(grey), extractor.extract(np.repeat(grey[:, :, None], 3, axis=2)))
    _close(extractor.extract(grey), extractor.extract(grey[:, :, None]))


def test_memory_layout_does_not_matter(photographs: list[Uint8Array]) -> None:
    image = photographs[0]
    extractor = seeded_extractor(Settings(max_num_keypoints=50))
    expected = extractor.extract(np.ascontiguousarray(image[::-1, 10:]))
    read_only = image[::-1, 10:]
    read_only.flags.writeable = False
    _close(extractor.extract(read_only), expected)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 65), (40, 500), (127, 32)])
def test_any_size_from_32_px_up(height: int, width: int, photographs: list[Uint8Array]) -> None:
    image = photographs[0][100 : 100 + height, 20 : 20 + width]
    features = seeded_extractor().extract(image)
    assert (features.height, features.width) == (height, width)
    assert len(features) > 0
    assert float(features.keypoints.min()) >= 0
    assert (features.keypoints <= torch.tensor([width - 1.0, height - 1.0])).all()


@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_blank_image_has_no_keypoints(level: int, noise: float) -> None:
    levels = np.random.default_rng(0).normal(level, noise, (480, 640))
    image = np.clip(levels, 0, 255).astype(np.uint8)
    features = seeded_extractor().extract(image)
    assert len(features) == 0
    assert features.descriptors.shape == (0, 64)
    if noise:
        assert len(seeded_extractor(Settings(min_grey_range=0)).extract(image)) > 0


def test_a_dim_photograph_is_not_blank(photographs: list[Uint8Array]) -> None:
    dim = (photographs[0] // 12).astype(np.uint8)
    assert int(dim.max()) - int(dim.min()) <= 22
    assert len(seeded_extractor().extract(dim)) > 0


def test_published_networks_find_nothing_in_a_blank_image(weights_dir: str) -> None:
    extractor = load_extractor("aliked-n32", weights_dir=weights_dir, device="cpu")
    noise = np.random.default_rng(0).normal(128, 1.5, (240, 320))
    assert len(extractor.extract(np.clip(noise, 122, 133).astype(np.uint8))) == 0


def test_resizing_keeps_the_coordinates_of_the_image(weights_dir: str, photographs: list[Uint8Array]) -> None:
    image = photographs[0]
    native = load_extractor("aliked-t16", weights_dir=weights_dir, device="cpu", max_num_keypoints=1000).extract(image)
    for options in ({"resize_height": 360}, {"max_pixels": 360 * 480}):
        extractor = load_extractor(
            "aliked-t16", weights_dir=weights_dir, device="cpu", max_num_keypoints=300, **options
        )
        smaller = extractor.extract(image)
        assert (smaller.height, smaller.width) == (480, 640)
        nearest = torch.cdist(smaller.keypoints, native.keypoints).min(dim=1)
        near = nearest.values < 3
        # Most points of the small image are also points of the large one, and without a common shift.
        assert float(near.float().mean()) > 0.5
        shift = (smaller.keypoints - native.keypoints[nearest.indices])[near].median(dim=0).values
        assert float(shift.abs().max()) < 0.25


@pytest.mark.parametrize(
    "options", [{}, {"resize_height": 120}, {"resize_height": 960, "max_pixels": 200_000}, {"max_pixels": 100_000}]
)
def test_a_share_of_pixels_is_one_of_those_that_the_settings_give(options: dict[str, int]) -> None:
    extractor = seeded_extractor(Settings(**options))
    usual = extractor._resize(480, 640)
    extractor.pixel_fraction = 0.5
    smaller = extractor._resize(480, 640)
    assert smaller.height1 * smaller.width1 == pytest.approx(0.5 * usual.height1 * usual.width1, rel=0.02)
    assert smaller.width1 / smaller.height1 == pytest.approx(640 / 480, rel=0.01)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((480, 640), np.float32), "an array of float32"),
        (np.zeros((480, 640, 4), np.uint8), r"shape \(480, 640, 4\)"),
        (np.zeros((480,), np.uint8), r"shape \(480,\)"),
        (np.zeros((31, 640), np.uint8), "640x31 px.* at least 32x32"),
        (np.zeros((0, 0), np.uint8), "0x0 px"),
        (None, "a NoneType"),
    ],
)
def test_impossible_images_are_refused(image: Uint8Array, expected: str) -> None:
    with pytest.raises(ImageError, match=expected):
        seeded_extractor().extract(image)


def test_a_batch_of_several_sizes_is_refused() -> None:
    images = [np.zeros((40, 40), np.uint8), np.zeros((40, 50), np.uint8)]
    with pytest.raises(ImageError, match="40x40, 50x40"):
        seeded_extractor().extract_batch(images)


@pytest.mark.parametrize("dtype", list(REDUCED_PRECISION), ids=str)
def test_half_precision_finds_what_float32_finds(
    dtype: torch.dtype, weights_dir: str, photographs: list[Uint8Array]
) -> None:
    name = str(dtype).removeprefix("torch.")
    options = {"weights_dir": weights_dir, "device": "cpu", "max_num_keypoints": 1000}
    image = photographs[0][100:340, 100:420]
    full = load_extractor("aliked-t16", **options).extract(image)
    half = load_extractor("aliked-t16", precision=name, **options).extract(image)
    assert half.keypoints.dtype == torch.float32
    assert half.descriptors.dtype == dtype
    bars = REDUCED_PRECISION[dtype]
    # The weakest keypoints change at the budget's edge; those are not what precision is about.
    strong = full.keypoints[: len(full) // 2]
    nearest = torch.cdist(strong, half.keypoints).min(dim=1)
    found = nearest.values <= bars.position_px
    assert float(found.float().mean()) >= bars.fraction
    cosines = (full.descriptors[: len(strong)] * half.descriptors.float()[nearest.indices]).sum(dim=1)[found]
    assert float(cosines.median()) >= bars.cosine


def test_no_global_state_is_touched(photographs: list[Uint8Array]) -> None:
    random_state, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
    grad, threads = torch.is_grad_enabled(), torch.get_num_threads()
    extractor = seeded_extractor()
    random_state = torch.random.get_rng_state()
    extractor.extract(photographs[0])
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()) == (dtype, grad, threads)


def test_gradients_reach_the_network_through_keypoints_and_descriptors() -> None:
    network = seeded_network()
    images = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    from feature_frontend.extractors.base import DetectionOptions

    (found,) = network.extract(images, DetectionOptions(20, 0.0, 2, 0))
    (found.keypoints.sum() + found.scores.sum() + found.descriptors.sum()).backward()
    for name in ("score_head.0.weight", "block1.conv1.weight", "block3.conv1.offset_conv.weight"):
        gradient = network.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_configurations_are_those_of_table_2() -> None:
    for name, config in ALIKED_CONFIGS.items():
        network = Aliked(config)
        channels, dim = ((8, 16, 32, 64), 64) if name == "aliked-t16" else ((16, 32, 64, 128), 128)
        assert config.channels == channels
        assert network.descriptor_dim == dim
        assert network.desc_head.num_positions == int(name.removesuffix("rot")[-2:])


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(SettingsError, match=r"'aliked-x'.* aliked-t16, aliked-n16"):
        load_extractor("aliked-x")
    with pytest.raises(SettingsError, match=r"top_k.*max_num_keypoints"):
        load_extractor("aliked-t16", top_k=5)
    with pytest.raises(SettingsError, match=r"ratio_threshold"):
        load_extractor("aliked-t16", ratio_threshold=0.5)


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in (
        "cuda:99",
        "cpu:0",
        "cpu:7",
        "cuda:-1",
        "cuda:",
        "cuda:٣",
        "cuda:00",
        "CUDA",
        "cpu\n",
        "xla",
        "mps",
        "meta",
        "",
    ):
        with pytest.raises(SettingsError, match=r"device is .* auto, cpu") as raised:
            resolve_device(name)
        assert repr(name) in str(raised.value)


def test_weights_of_another_network_do_not_load(
    tmp_path: object, weights_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feature_frontend.extractors import extractor as module
    from feature_frontend.extractors.registry import EXTRACTORS, ExtractorRecord

    crossed = ExtractorRecord(EXTRACTORS["aliked-n16"].build, EXTRACTORS["aliked-t16"].weights)
    monkeypatch.setitem(module.EXTRACTORS, "aliked-n16", crossed)
    with pytest.raises(WeightsError, match=r"aliked-t16\.pth .*aliked-n16"):
        Extractor.from_pretrained(Settings(extractor="aliked-n16", weights_dir=weights_dir, device="cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_gives_what_the_cpu_gives(photographs: list[Uint8Array]) -> None:
    on_cpu = seeded_extractor(Settings(max_num_keypoints=100)).extract(photographs[0])
    on_gpu = seeded_extractor(Settings(max_num_keypoints=100), "cuda").extract(photographs[0]).to("cpu")
    nearest = torch.cdist(on_cpu.keypoints, on_gpu.keypoints).min(dim=1)
    assert float((nearest.values < 0.05).float().mean()) > 0.98
