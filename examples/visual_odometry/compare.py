#!/usr/bin/env python3
"""Compares the `path` of a visual odometry with ground truth: subscribes to it, aligns, prints, draws.

    python examples/visual_odometry/compare.py --truth poses.txt --rate 10 --picture path.png

Ends when no path has arrived for a while after the first one. The truth is a file in KITTI's format: one line per image
with the 3x4 camera-to-world matrix; images are identified by stamp and rate. The alignment is a similarity (Umeyama
1991), as a single camera does not determine scale.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

__all__ = ["Comparison", "align", "compare", "draw"]

FloatArray = npt.NDArray[np.float64]
# From ROS axes (x forward, y left, z up) to optical axes (x right, y down, z forward).
_TO_OPTICAL = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
_VIEWS = (("from above", 0, 2, 1), ("from the side", 2, 1, -1))


@dataclass(frozen=True)
class Comparison:
    """Errors of an estimated path.

    Attributes:
        truth: (N, 3) true positions, m.
        estimate: (N, 3) estimated positions after alignment, m.
        ate_m: Root mean square distance between the two.
        length_m: Length of the true path.
        rotation_deg: (N - 1,) error of each later pose's rotation relative to the first pose.
        step_rotation_deg: (N - 1,) the same relative to the previous pose.
    """

    truth: FloatArray
    estimate: FloatArray
    ate_m: float
    length_m: float
    rotation_deg: FloatArray
    step_rotation_deg: FloatArray

    def __str__(self) -> str:
        """A summary in two lines."""
        return (
            f"{len(self.truth)} poses over {self.length_m:.2f} m: ATE {self.ate_m:.3f} m, "
            f"{100 * self.ate_m / self.length_m:.2f} % of the path\n"
            f"rotation off by {self.rotation_deg[-1]:.2f} degrees from the first pose to the last, "
            f"{np.median(self.step_rotation_deg):.3f} from pose to pose (median)"
        )


def align(source: FloatArray, target: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Scale, rotation (3, 3) and translation (3,) that align points (N, 3) with others, row by row."""
    mean0, mean1 = source.mean(axis=0), target.mean(axis=0)
    u, strengths, vt = np.linalg.svd((target - mean1).T @ (source - mean0) / len(source))
    mirror = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u * mirror @ vt
    scale = float((strengths * mirror).sum() / ((source - mean0) ** 2).sum(axis=1).mean())
    return scale, rotation, mean1 - scale * rotation @ mean0


def compare(poses: FloatArray, truth: FloatArray) -> Comparison:
    """Compares poses (N, 4, 4) with the true ones (N, 4, 4), both camera-to-world in optical axes."""
    scale, rotation, shift = align(poses[:, :3, 3], truth[:, :3, 3])
    estimate = scale * poses[:, :3, 3] @ rotation.T + shift
    positions = truth[:, :3, 3]
    off = np.linalg.norm(estimate - positions, axis=1)
    return Comparison(
        truth=positions,
        estimate=estimate,
        ate_m=float(np.sqrt((off**2).mean())),
        length_m=float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()),
        rotation_deg=np.array([_turn_off(poses[[0, i]], truth[[0, i]]) for i in range(1, len(poses))]),
        step_rotation_deg=np.array([_turn_off(poses[[i - 1, i]], truth[[i - 1, i]]) for i in range(1, len(poses))]),
    )


def _turn_off(pair: FloatArray, true_pair: FloatArray) -> float:
    turn, true_turn = (two[0, :3, :3].T @ two[1, :3, :3] for two in (pair, true_pair))
    return float(np.degrees(np.linalg.norm(cv2.Rodrigues(turn.T @ true_turn)[0])))


def draw(comparison: Comparison, title: str) -> Figure:
    """Both paths from above (x right, z up) and from the side, as a figure of matplotlib."""
    figure = Figure((9.6, 5), layout="constrained")
    figure.suptitle(title)
    for axes, (name, right, up, sign) in zip(figure.subplots(1, 2), _VIEWS, strict=True):
        for path, label, color in (
            (comparison.truth, "ground truth", "0.5"),
            (comparison.estimate, "from the tracks, aligned", "tab:blue"),
        ):
            axes.plot(path[:, right], sign * path[:, up], "o-", color=color, label=label)
        axes.set(title=name, xlabel="m", ylabel="m")
        axes.axis("equal")
        axes.grid(visible=True, color="0.9")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _receive(idle_s: float) -> list[tuple[int, FloatArray]]:
    """Stamps in ns and poses of the latest path, after `idle_s` without a new one or Ctrl-C."""
    import rclpy
    from nav_msgs.msg import Path as PathMessage
    from rclpy.executors import ExternalShutdownException

    rclpy.init()
    node = rclpy.create_node("compare")
    paths: list[PathMessage] = []
    last_s = math.inf

    def take(message: PathMessage) -> None:
        nonlocal last_s
        paths[:], last_s = [message], time.monotonic()

    node.create_subscription(PathMessage, "path", take, 10)
    print("waiting for a path", flush=True)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        while time.monotonic() - last_s < idle_s:
            rclpy.spin_once(node, timeout_sec=0.1)
    rclpy.try_shutdown()
    if not paths:
        sys.exit("interrupted before a path arrived")
    return [_stamped(pose) for pose in paths[0].poses]


def _stamped(message: object) -> tuple[int, FloatArray]:
    stamp, position, turn = message.header.stamp, message.pose.position, message.pose.orientation
    axis = np.array([turn.x, turn.y, turn.z])
    length = float(np.linalg.norm(axis))
    angle = 2 * math.atan2(length, turn.w)
    pose = np.eye(4)
    pose[:3, :3] = _TO_OPTICAL @ cv2.Rodrigues(axis * (angle / length if length else 0.0))[0]
    pose[:3, 3] = _TO_OPTICAL @ [position.x, position.y, position.z]
    return stamp.sec * 1_000_000_000 + stamp.nanosec, pose


def main() -> None:
    """Runs until the path ends, or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, help="KITTI's poses, one line for each image")
    parser.add_argument("--rate", type=float, default=10.0, help="images a second by their stamps (default 10)")
    parser.add_argument("--first-stamp", type=float, default=0.0, metavar="S", help="of the truth's first line")
    parser.add_argument("--idle", type=float, default=10.0, metavar="S", help="end after S seconds of silence")
    parser.add_argument("--picture", type=Path, help="draw both paths into this file")
    parser.add_argument("--title", default="Visual odometry from tracks", help="of the picture")
    options = parser.parse_args()
    rows = np.loadtxt(options.truth).reshape(-1, 3, 4)
    truth = np.concatenate([rows, np.tile([[[0.0, 0, 0, 1]]], (len(rows), 1, 1))], axis=1)
    path = _receive(options.idle)
    numbers = [round((stamp_ns / 1e9 - options.first_stamp) * options.rate) for stamp_ns, _ in path]
    comparison = compare(np.array([pose for _, pose in path]), truth[numbers])
    print(comparison)
    if options.picture is not None:
        draw(comparison, options.title).savefig(options.picture)


if __name__ == "__main__":
    main()
