"""The demo's command line and sequence of steps."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from feature_frontend.camera.calibration_file import read_calibration_file
from feature_frontend.errors import DemoError
from feature_frontend.sources import SourceOptions, open_source
from feature_frontend.sources.webcam import is_webcam
from feature_frontend.system.files import print_any_name
from feature_frontend.tools.common.arguments import Parser, add_parameters, positive
from feature_frontend.tools.common.guard import INTERRUPTED, run_tool
from feature_frontend_lab.demo.analysis import Summary, summarize
from feature_frontend_lab.demo.pictures import draw_pictures
from feature_frontend_lab.demo.recording import Recording, read_recording
from feature_frontend_lab.demo.report import as_json, as_sentence, as_text, problems
from feature_frontend_lab.demo.run import PlayOptions, Session
from feature_frontend_lab.demo.sequence import CAMERA_FILE, RenderedSequence, render_sequence

__all__ = ["Output", "main"]

MARKER = ".made_by_feature_frontend_demo"
# Output of a run: files, and folders with the patterns of their contents.
FILES = ("tracks.png", "tracks.mp4", "summary.json", "summary.txt")
FOLDERS = {
    "sequence": ("*.png", "camera.yaml", "poses.txt"),
    "bag": ("metadata.yaml", "bag.db3", "bag.db3-journal", "bag.mcap"),
    "logs": ("node.log", "player.log", "recorder.log"),
}


class Output:
    """Paths of a run's output.

    Args:
        folder: Output folder; created if it does not exist.

    Raises:
        DemoError: The folder contains files and was not made by the demo, or cannot be created or emptied.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.strip = folder / "tracks.png"
        self.video = folder / "tracks.mp4"
        self.summary_json = folder / "summary.json"
        self.summary_text = folder / "summary.txt"
        self.sequence = folder / "sequence"
        self.bag = folder / "bag"
        self.logs = folder / "logs"
        try:
            self._prepare()
        except OSError as error:
            raise DemoError(
                f"the output folder {folder} cannot be prepared: {error}; choose another with --output"
            ) from error

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()) and not (self.folder / MARKER).is_file():
            raise DemoError(
                f"the output folder {self.folder} holds files that the demo did not make; "
                "choose another with --output, or empty it"
            )
        (self.folder / MARKER).touch()
        for name in FILES:
            (self.folder / name).unlink(missing_ok=True)
        for name, patterns in FOLDERS.items():
            self._remove(self.folder / name, patterns)
        self.logs.mkdir()

    @staticmethod
    def _remove(folder: Path, patterns: tuple[str, ...]) -> None:
        if not folder.is_dir():
            return
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink()
        foreign = sorted(path.name for path in folder.iterdir())
        if foreign:
            raise DemoError(f"{folder} holds {foreign[0]!r}, which the demo did not make; move it elsewhere")
        folder.rmdir()


DEFAULT_FRAMES = 60
_PARAMETERS = ("extractor", "tracker", "device", "max_num_keypoints")
REQUIRED_MODULES = ("rclpy", "feature_frontend_msgs", "rosbags")
_DESCRIPTION = "Plays a sequence through the node, in separate ROS 2 processes, then reports and draws the results."
_EPILOG = """\
Without --source, the demo renders a sequence and evaluates against its known geometry and poses. With --source, it
plays your images, video or bag, and checks matches against the epipolar geometry.

Writes to the output folder: tracks.png, tracks.mp4, bag/ (rosbag2 of all topics), summary.txt, summary.json, logs/."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 1 and prints one line if something failed or a figure is out of range."""
    print_any_name()
    options = _parser().parse_args(list(sys.argv[1:] if argv is None else argv))
    return run_tool(lambda: _demo(options), _say_interrupted)


def _say_interrupted() -> int:
    print("interrupted; all processes are stopped", file=sys.stderr)
    return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="demo", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("demo_output"), metavar="FOLDER", help="default: demo_output")
    add("--source", metavar="PATH", help="folder of images, video or bag to play instead of the rendered sequence")
    add("--camera-info", type=Path, metavar="YAML", help="calibration file of --source")
    add("--topic", metavar="NAME", help="image topic of a bag with several")
    add("--frames", type=positive, metavar="N", help=f"play N frames (default: {DEFAULT_FRAMES} rendered ones, or all)")
    add_parameters(parser, _PARAMETERS)
    return parser


def _demo(options: argparse.Namespace) -> int:
    _require_ros()
    expected = _check(options)
    output = Output(options.output)
    parameters = {name: getattr(options, name) for name in _PARAMETERS}
    # Reliable and without drops: the demo shows every frame and need not keep up with a camera.
    parameters |= {"queue_policy": "every_frame", "image_qos": "reliable", "output_depth": 0}
    # Compilation takes longer than the demo.
    parameters["compile"] = "false"
    sequence: RenderedSequence | None = None
    with Session(output.bag, output.logs, parameters) as session:
        if options.source is None:
            sequence = _render(output, session, expected or DEFAULT_FRAMES)
            play = PlayOptions(str(sequence.folder), sequence.folder / CAMERA_FILE, None, None)
        else:
            play = PlayOptions(options.source, options.camera_info, options.frames, options.topic)
        node, rate_hz = _play(session, play, expected)
    recording = read_recording(output.bag)
    summary = summarize(recording, sequence)
    context = {
        "sequence": "rendered hall, known geometry" if sequence is not None else str(options.source),
        "node": node or summary.extractor,
        "speed": f"{rate_hz:.1f} frames/s, one at a time, recording included",
    }
    _draw(output, recording, summary)
    output.summary_json.write_text(as_json(summary, context), encoding="utf-8")
    output.summary_text.write_text(as_text(summary, context), encoding="utf-8")
    print(f"\n{as_text(summary, context)}")
    print(f"left in {output.folder}: tracks.png, tracks.mp4, bag/, summary.txt, summary.json", flush=True)
    found = problems(summary, expected if sequence is not None else None)
    if found:
        raise DemoError("; ".join(found))
    return 0


def _require_ros() -> None:
    missing = [name for name in REQUIRED_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"the Python modules {', '.join(missing)} are not found; type `make setup`, then `source env.sh`"
        )


def _check(options: argparse.Namespace) -> int | None:
    """Checks the preconditions before starting anything; returns the number of frames to expect, None if unknown."""
    if options.source is None:
        for name in ("camera_info", "topic"):
            if getattr(options, name) is not None:
                raise DemoError(
                    f"--{name.replace('_', '-')} {getattr(options, name)} belongs to a --source; none was given"
                )
        return int(options.frames or DEFAULT_FRAMES)
    if options.camera_info is not None:
        read_calibration_file(options.camera_info)
    if is_webcam(options.source):
        # Not opened here: only one program at a time can use a camera, and the player needs it.
        if options.frames is None:
            raise DemoError(f"--source {options.source} has no end; say how many images to take with --frames N")
        return int(options.frames)
    count = open_source(options.source, SourceOptions(topic=options.topic)).frame_count
    return options.frames if count is None else min(count, options.frames or count)


def _render(output: Output, session: Session, count: int) -> RenderedSequence:
    with _progress(f"rendering {count} frames", count) as bar:

        def on_image() -> None:
            bar.update()
            session.check()

        return render_sequence(output.sequence, count, on_image=on_image)


def _play(session: Session, options: PlayOptions, expected: int | None) -> tuple[str, float]:
    """Plays the sequence; returns the node's description of itself and the throughput in frames/s."""
    counts: list[tuple[float, int]] = []
    with _progress("playing through the node", expected) as bar:

        def on_status(count: int) -> None:
            bar.update(count - (counts[-1][1] if counts else 0))
            counts.append((time.monotonic(), count))

        node = session.play(options, on_status)
    took_s = counts[-1][0] - counts[0][0] if counts else 0.0
    return node, (counts[-1][1] - counts[0][1]) / took_s if took_s else float("nan")


def _draw(output: Output, recording: Recording, summary: Summary) -> None:
    heading = f"Feature Frontend: {summary.extractor.partition('@')[0]} tracks", as_sentence(summary)
    with _progress("drawing", summary.frames) as bar:
        draw_pictures(output.bag, recording, output.strip, output.video, heading, on_frame=bar.update)


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[tqdm[NoReturn]]:
    """A progress bar on a terminal; otherwise, one line at the end."""
    started_s = time.monotonic()
    with tqdm(total=total, desc=what, unit=" frames", disable=None, leave=False) as bar:
        yield bar
    print(f"{what}: {time.monotonic() - started_s:.1f} s", file=sys.stderr, flush=True)
