"""Argument lists generated from the tools' parsers: valid, invalid and nonsensical ones."""

from __future__ import annotations

import argparse
import importlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

__all__ = ["World", "argument_list", "make_world"]

_PARSERS = {
    "play": "feature_frontend.tools.play",
    "record": "feature_frontend.tools.record",
    "process": "feature_frontend.tools.process.command",
    "demo": "feature_frontend_lab.demo.command",
    "evaluate": "feature_frontend_lab.evaluation.commands.evaluate",
    "export": "feature_frontend_lab.export.command",
    "vins": "feature_frontend.ros.adapters.vins",
    "rtabmap": "feature_frontend.ros.adapters.rtabmap",
    "train": "feature_frontend_lab.training.command",
    "weights": "feature_frontend.tools.weights",
    "doctor": "feature_frontend.tools.doctor.command",
    "parameters": "feature_frontend.tools.parameters",
}
# Little work, unless what is made up says otherwise: of an option that is given twice, the last one counts.
_LITTLE = ["--count", "1", "--methods", "orb", "--keypoints", "20"]
_BEFORE = {
    ("play",): ["--wait-timeout", "0.2", "--rate", "100"],
    ("process",): ["--extractor", "sift", "--max-num-keypoints", "20"],
    ("evaluate", "homography"): [*_LITTLE, "--homographies", "1", "--short-side", "64"],
    ("evaluate", "robustness"): [*_LITTLE, "--short-side", "64"],
    ("evaluate", "tracks"): ["--compare", "chain", "--set", "extractor=sift", "--count", "2"],
    ("evaluate", "pairs"): ["--methods", "orb", "--keypoints", "20"],
    ("export", "colmap"): ["--extractor", "sift", "--max-num-keypoints", "20"],
}
# The last word: no processes, no training, and the graph of this machine is left alone.
_AFTER = {("demo",): ["--source", "nowhere"], ("train",): ["--images", "nowhere"], ("doctor",): ["--no-graph"]}
_NUMBERS = [
    *("0", "1", "2", "-1", "3.5", "-0.0", "1e400", "-1e400", "nan", "inf", "1e-320", "0x10", "1_0", " 7 ", "٣", "1e3"),
    *("2147483647", "2147483648", "4294967296", "18446744073709551616", "9" * 40, "9" * 5000, "true", "None"),
]
_WORDS = [
    *("", " ", "-", "--", "~", "~nosuchuser/x", "a" * 5000, "a/" * 2500, "f\udcfcr", "\ud800", "\u202etxt", "ö"),
    *("<script>alert(1)</script>", "`id`", "$(id)", "%s%n{0}", "a\nb", "\x1b[31m", "=", "a=b", "a==", ",", "[", "{}"),
    *(
        "/dev/null",
        "/dev/full",
        "/proc/self/mem",
        "/proc/1/root",
        "webcam:99",
        "webcam:99999999999999999999",
        "http://x/",
    ),
    *("sift", "orb", "aliked-t16", "silk-vggnp-mu", "cpu", "cpu:7", "cuda:-1", "cuda:99", "meta", "mps", "/x/", "a//b"),
]
_ROS = (
    *(["-r", "x:=:="], ["-r", "image:=/a b"], ["-p", "x"], ["-p", "x:=[1,"], ["--params-file", "/nowhere.yaml"]),
    *(["--zzz"], ["-r"], ["-r", "__ns:=/robot"], ["--log-level", "xx"], ["-r", f"__ns:=/{'a' * 400}"], ["-e"], []),
    *(["-r", f"image:={'a' * 400}"], ["-p", "x:=\udcfc"], ["-r", "__node:=a b"], ["--disable-rosout-logs"]),
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """Files that arguments may name.

    Attributes:
        images: A folder of three small images, with poses and a calibration.
        hostile: Paths to a pipe, a folder, binary files, a broken YAML file, and so on.
        outputs: A folder for new files.
    """

    images: Path
    hostile: list[str]
    outputs: Path


def make_world(folder: Path) -> World:
    """Makes the files."""
    images = folder / "images"
    images.mkdir()
    chance = np.random.default_rng(0)
    for index in range(3):
        small = (chance.random((12, 16)) * 255).astype(np.uint8)
        cv2.imwrite(str(images / f"{index}.png"), cv2.resize(small, (96, 72), interpolation=cv2.INTER_NEAREST))
    os.mkfifo(folder / "pipe.png")
    (folder / "random.png").write_bytes(chance.bytes(3000))
    (folder / "empty.yaml").write_bytes(b"")
    (folder / "broken.yaml").write_text("a: [1, {\n - \0", encoding="utf-8")
    (folder / "deep.yaml").write_text("[" * 3000, encoding="utf-8")
    (folder / "zero.yaml").write_text('/**:\n  ros__parameters:\n    weights_path: "a\\0b"\n', encoding="utf-8")
    (folder / "random.db3").write_bytes(chance.bytes(3000))
    (folder / "random.mp4").write_bytes(chance.bytes(3000))
    (folder / "nothing").mkdir()
    (folder / "closed").symlink_to(folder / "closed")
    names = "pipe.png random.png empty.yaml broken.yaml deep.yaml zero.yaml random.db3 random.mp4 nothing closed no"
    outputs = folder / "outputs"
    outputs.mkdir()
    return World(images, [str(folder / name) for name in names.split()], outputs)


def argument_list(chance: random.Random, world: World) -> list[str]:
    """One list: a tool and what follows its name."""
    tool = chance.choice(list(_PARSERS))
    parser = importlib.import_module(_PARSERS[tool])._parser()
    commands, parser = _command(chance, parser)
    path = (tool, *commands)
    made_up = [argument for action in parser._actions for argument in _of_action(chance, action, world)]
    arguments = [*_BEFORE.get(path, []), *made_up]
    if chance.random() < 0.1:
        arguments.insert(chance.randrange(len(arguments) + 1), chance.choice(["--zzz", "--", "--help", "-h", "-", ""]))
    arguments += _AFTER.get(path, [])
    if chance.random() < 0.2:
        arguments += ["--ros-args", *chance.choice(_ROS)]
    return [tool, *commands, *arguments]


def _command(chance: random.Random, parser: argparse.ArgumentParser) -> tuple[list[str], argparse.ArgumentParser]:
    """Which of the parser's subcommands, if it has any, and its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            if chance.random() < 0.03:
                return [chance.choice(_WORDS)], parser
            name = chance.choice(list(action.choices))
            return [name], action.choices[name]
    return [], parser


def _of_action(chance: random.Random, action: argparse.Action, world: World) -> Iterator[str]:
    if isinstance(action, (argparse._SubParsersAction, argparse._HelpAction)):
        return
    is_needed = action.required or (not action.option_strings and action.nargs not in {"*", "?"})
    if chance.random() > (0.97 if is_needed else 0.1):
        return
    if action.option_strings:
        yield chance.choice(action.option_strings)
    if action.nargs == 0:
        return
    count = action.nargs if isinstance(action.nargs, int) else chance.randint(1, 2) if action.nargs in {"+", "*"} else 1
    for _ in range(count):
        yield _value(chance, action, world)


def _value(chance: random.Random, action: argparse.Action, world: World) -> str:
    if chance.random() < 0.25:
        return chance.choice([*_WORDS, *_NUMBERS, *world.hostile])
    if action.choices:
        return str(chance.choice(list(action.choices)))
    if action.dest in {"source", "sources", "images"}:
        return str(world.images)
    if action.dest == "output":
        return str(world.outputs / f"{chance.randrange(10**9)}")
    if action.type is not None and not isinstance(action.type, type(Path)):
        return chance.choice(["1", "2", "0.5", *_NUMBERS])
    return chance.choice([*_WORDS, *world.hostile])
