"""Truncated, damaged and incomplete bags: no intact image is lost without a report."""

import random
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs the Python package rosbags")

from feature_frontend.errors import SourceError
from feature_frontend.sources.bag import BagImage, BagSource
from feature_frontend.sources.base import LostImages, UnreadableFrame
from feature_frontend.sources.registry import missing_of
from tests.campaign import Campaign
from tests.core.bag_damage import IMAGE, STORE, STORE1, Files, Recording, damage, recordings, whole_images, write_files


def delivered(path: Path) -> tuple[list[bytes], list[str]]:
    """The images that a bag gives, serialized again, and what it says is missing; of one that is refused, that."""
    try:
        source = BagSource(path, "/cam/image_raw")
        found = [image for image, _ in source.messages()]
    except SourceError as error:
        return [], [str(error)]
    images = []
    lost = LostImages()
    for image in found:
        if isinstance(image, UnreadableFrame):
            lost.note(image.reason)
        if isinstance(image, BagImage):
            serialize = STORE1.serialize_ros1 if hasattr(image.message.header, "seq") else STORE.serialize_cdr
            images.append(bytes(serialize(image.message, IMAGE)))
    return images, missing_of(source, lost)


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    chance = random.Random(0)
    made = []
    for images, size in ((10, 1000), (20, 60_000)):
        made += recordings(tmp_path_factory.mktemp("bags"), images, size, chance)
    return made


def test_all_images_of_whole_bags(bags: list[Recording], tmp_path: Path) -> None:
    for bag in bags:
        images, missing = delivered(write_files(tmp_path / "bag", bag.files))
        assert (bag.name, images, missing) == (bag.name, bag.images, [])
        assert whole_images(bag, bag.files) == set(range(len(bag.images)))


def test_no_image_that_is_whole_is_lost_without_a_word(
    bags: list[Recording], tmp_path: Path, campaign: Campaign
) -> None:
    chance = random.Random(campaign.seed)
    count = campaign.count(3000, "damaged bags")
    fewer = with_word = 0
    for number in range(count):
        bag = bags[number % len(bags)]
        kind, files = damage(bag, chance)
        path = write_files(tmp_path / "bag", files)
        images, missing = delivered(path)
        lost = {n for n in whole_images(bag, files) if bag.images[n] not in images}
        assert not lost or missing, f"{bag.name}, {kind}: images {lost} are whole and not read"
        # A bag that has lost images in the middle of its files must say so, too, where the loss can be seen.
        fewer += len(images) < len(bag.images)
        with_word += len(images) < len(bag.images) and bool(missing)
        unchanged = {name: (path.parent if path.is_file() else path).joinpath(name).read_bytes() for name in files}
        assert unchanged == files
        assert {file.name for file in (path.parent if path.is_file() else path).iterdir()} == set(files)
    campaign.report(f"{fewer} of them with fewer images, {with_word} of these say what is missing")


@pytest.mark.parametrize(
    "name", ["mcap-none.mcap", "unchunked.mcap", "checksums.mcap", "without_index.mcap", "ros1-none.bag"]
)
def test_every_prefix_gives_the_images_that_are_whole_in_it(bags: list[Recording], tmp_path: Path, name: str) -> None:
    bag = next(bag for bag in bags if name in bag.files)
    content = bag.files[name]
    for size in range(0, len(content), 97):
        files: Files = {name: content[:size]}
        images, missing = delivered(write_files(tmp_path / "bag", files))
        whole = whole_images(bag, files)
        assert [image for n, image in enumerate(bag.images) if n in whole] == images, f"{size} of {len(content)} bytes"
        assert missing
