"""Options and progress bar shared by the evaluation tools, most of them by those that use photographs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from feature_frontend.errors import SettingsError
from feature_frontend.system.text import quoted
from feature_frontend.tools.common.arguments import INCOMPLETE, natural, positive
from feature_frontend_lab.evaluation.homography.baselines import (
    LIGHTGLUE,
    METHODS,
    MULTI_SCALE,
    MethodOptions,
    MethodProtocol,
    load_methods,
)

__all__ = [
    "add_image_arguments",
    "add_method_arguments",
    "add_output_argument",
    "methods_of",
    "pairs_progress",
    "report_missing",
]

# The smallest side that a network accepts; and a size above which images take seconds each.
_LEAST_SIDE, _MOST_SIDE = 32, 8192


class _Sequence(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def missing(self) -> Sequence[str]: ...


def add_image_arguments(command: argparse.ArgumentParser, count: int, short_side: int, seed: int) -> None:
    """Adds the options that select photographs, with these defaults."""
    command.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of photographs")
    command.add_argument(
        "--count", type=positive, default=count, metavar="N", help="maximum number of images (default: %(default)s)"
    )
    command.add_argument("--seed", type=natural, default=seed, metavar="N", help="random seed (default: %(default)s)")
    command.add_argument(
        "--short-side",
        type=_short_side,
        default=short_side,
        metavar="PX",
        help="resize images to this shorter side; 0 keeps the size (default: %(default)s)",
    )


def add_method_arguments(command: argparse.ArgumentParser, methods: Sequence[str]) -> None:
    """Adds the options for the methods (default: `methods`), their weights and the report folder."""
    command.add_argument(
        "--methods",
        nargs="+",
        default=list(methods),
        metavar="NAME",
        help=f"methods to compare: {', '.join(METHODS)}; NAME{MULTI_SCALE}: an extractor with multi_scale; "
        f"NAME{LIGHTGLUE}: an ALIKED network matched by LightGlue; NAME@LABEL: NAME again, with other weights "
        f"(default: {' '.join(methods)})",
    )
    command.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=PATH",
        help="weights file to use for a network instead of the published ones",
    )
    command.add_argument("--weights-dir", default="", metavar="DIR", help="folder searched first for published weights")
    command.add_argument("--device", default="auto", help="device for networks (default: %(default)s)")
    add_output_argument(command)


def add_output_argument(command: argparse.ArgumentParser) -> None:
    """Adds the option that names the folder of the report."""
    command.add_argument(
        "--output",
        type=Path,
        default=Path("evaluation_output"),
        metavar="DIR",
        help="output folder for the report (default: %(default)s)",
    )


def methods_of(arguments: argparse.Namespace) -> Mapping[str, MethodProtocol]:
    """Loads the requested methods.

    Raises:
        FeatureFrontendError: A method is not available.
    """
    options = MethodOptions(seed=arguments.seed, device=arguments.device, weights_dir=arguments.weights_dir)
    return load_methods(arguments.methods, options, _weights(arguments.weights))


@contextmanager
def pairs_progress(total: int | None, name: str = "pairs", unit: str = " pairs") -> Iterator[Callable[[str], None]]:
    """A bar over so many pairs, or what `unit` says; what to call after each, with the name of its method."""
    with tqdm(total=total, desc=name, unit=unit, disable=None, leave=False) as progress:

        def advance(method: str) -> None:
            progress.set_postfix_str(method, refresh=False)
            progress.update()

        yield advance


def report_missing(sequences: Iterable[_Sequence]) -> int:
    """Reports lost images of the sequences; returns the exit status."""
    missing = [f"{sequence.name}: {sentence}" for sequence in sequences for sentence in sequence.missing]
    for sentence in missing:
        print(f"incomplete: {sentence}", file=sys.stderr)
    return INCOMPLETE if missing else 0


def _short_side(text: str) -> int:
    value = natural(text)
    if value and not _LEAST_SIDE <= value <= _MOST_SIDE:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is neither 0 nor a number of pixels from {_LEAST_SIDE} to {_MOST_SIDE}"
        )
    return value


def _weights(entries: Sequence[str]) -> dict[str, str]:
    weights = {}
    for entry in entries:
        name, separator, path = entry.partition("=")
        if not (name and separator and path):
            raise SettingsError(f"--weights is {entry!r}; expected NAME=PATH, as in silk-vggnp-mu=model.safetensors")
        weights[name] = path
    return weights
