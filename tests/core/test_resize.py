"""Coordinate conventions (docs/conventions.md), and the maps with their inverses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from feature_frontend.image.preprocessing import images_to_batch, resize_tensor
from feature_frontend.image.resize import Resize, network_size, padding_to_multiple


def test_convention_resize_maps_image_edges_onto_image_edges() -> None:
    resize = Resize(480, 640, 240, 320)
    corners = torch.tensor([[-0.5, -0.5], [639.5, 479.5], [0.5, 0.5]])
    expected = torch.tensor([[-0.5, -0.5], [319.5, 239.5], [0.0, 0.0]])
    torch.testing.assert_close(resize.apply(corners), expected)
    torch.testing.assert_close(resize.invert(expected), corners)


def test_convention_a_resized_blob_lies_where_resize_says() -> None:
    image = np.zeros((120, 160), np.uint8)
    centre = np.array([97.0, 41.0])
    rows, columns = np.mgrid[:120, :160]
    image[:] = 255 * np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / (2 * 5.0**2))
    for height, width in ((60, 80), (90, 120), (180, 240)):
        resize = Resize(120, 160, height, width)
        small = resize_tensor(images_to_batch([image], torch.device("cpu")), resize)[0, 0].numpy()
        moments = cv2.moments(small)
        found = torch.tensor([[moments["m10"], moments["m01"]]]) / moments["m00"]
        torch.testing.assert_close(resize.invert(found)[0], torch.tensor([97.0, 41.0]), atol=0.05, rtol=0)


def test_padding_is_centred_and_removed_again() -> None:
    padding = padding_to_multiple(313, 519, 32)
    assert (padding.left, padding.right, padding.top, padding.bottom) == (12, 13, 3, 4)
    images = torch.rand((1, 2, 313, 519), generator=torch.Generator().manual_seed(0))
    padded = padding.pad(images)
    assert padded.shape == (1, 2, 320, 544)
    assert torch.equal(padding.crop(padded), images)
    assert torch.equal(padded[..., 0, 0], images[..., 0, 0])
    points = torch.tensor([[10.0, 20.0]])
    x, y = padding.apply(points)[0].int().tolist()
    assert torch.equal(padded[..., y, x], images[..., 20, 10])
    torch.testing.assert_close(padding.invert(padding.apply(points)), points)


@pytest.mark.parametrize(
    ("height", "width", "resize_height", "max_pixels", "expected"),
    [
        (480, 640, 0, 10**7, (480, 640)),
        (480, 640, 240, 10**7, (240, 320)),
        (480, 640, 960, 10**7, (960, 1280)),
        (3000, 4000, 0, 2_100_000, (1254, 1673)),
        (3000, 4000, 2000, 2_100_000, (1254, 1673)),
        (40, 4000, 0, 2_100_000, (40, 4000)),
        (40, 4000, 0, 10_000, (32, 1000)),
    ],
)
def test_convention_sizes_are_height_then_width(
    height: int, width: int, resize_height: int, max_pixels: int, expected: tuple[int, int]
) -> None:
    resize = network_size(height, width, resize_height=resize_height, max_pixels=max_pixels, minimum=32)
    assert (resize.height1, resize.width1) == expected
    assert (resize.height0, resize.width0) == (height, width)


def test_convention_colour_is_rgb_in_zero_to_one() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 1] = (255, 51, 0)
    tensor = images_to_batch([image], torch.device("cpu"))
    assert tensor.shape == (1, 3, 2, 3)
    torch.testing.assert_close(tensor[0, :, 0, 1], torch.tensor([1.0, 0.2, 0.0]))
