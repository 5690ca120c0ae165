"""`train`: trains a network on unlabelled images, videos or bags; ALIKED and dotlet also on photographs with depth."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from feature_frontend.errors import SettingsError, WeightsError
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.models.weights import ensure_weights, own_weights
from feature_frontend.models.weights_file import fill_network
from feature_frontend.runtime.heap import keep_freed_memory
from feature_frontend.sources import SourceOptions, open_source
from feature_frontend.system.files import print_any_name, user_path
from feature_frontend.tools.common.arguments import Parser, above_zero, finite, natural, positive, without_ros_arguments
from feature_frontend.tools.common.guard import INTERRUPTED, run_tool
from feature_frontend_lab.training.aliked.megadepth import read_megadepth
from feature_frontend_lab.training.aliked.pairs import AlikedPairs
from feature_frontend_lab.training.aliked.posed import PosedPhotographs
from feature_frontend_lab.training.aliked.settings import AlikedSettings
from feature_frontend_lab.training.aliked.tum_rgbd import read_tum_sequence
from feature_frontend_lab.training.distill.pairs import DistillPairs
from feature_frontend_lab.training.distill.settings import DistillSettings
from feature_frontend_lab.training.distributed import Processes, processes
from feature_frontend_lab.training.images import ColorImages, GreyImages, Images, images_in_folder, images_of_source
from feature_frontend_lab.training.residual.pairs import ResidualPairs
from feature_frontend_lab.training.residual.settings import ResidualSettings
from feature_frontend_lab.training.run import CHECKPOINT_NAME, Provenance, RunOptions, RunResult, TrainingRun
from feature_frontend_lab.training.settings import PRECISIONS, SCHEDULES, CommonSettings
from feature_frontend_lab.training.silk.settings import TrainingSettings
from feature_frontend_lab.training.trainer import Trainer, TrainingData
from feature_frontend_lab.training.validation import validation_pairs

__all__ = ["main"]

_PAPER_STEPS = 100_000
_KINDS: tuple[type[CommonSettings], ...] = (TrainingSettings, AlikedSettings, DistillSettings, ResidualSettings)
# The smallest size in SiLK's Table 8; a tenth of ALIKED's pixels.
_CPU_MAP = {TrainingSettings: 82, AlikedSettings: 256, DistillSettings: 256, ResidualSettings: 160}
_HOLD_OUT_EVERY = 10
# Options that correspond to fields of the settings, and those of `--loss-weights`; omitted ones use the defaults.
_LOSS_WEIGHTS = ("reprojection_weight", "peak_weight", "descriptor_weight", "reliability_weight")
_SETTINGS = (
    "model",
    "map_side",
    "batch_size",
    "accumulate",
    "learning_rate",
    "warmup_steps",
    "schedule",
    "precision",
    "seed",
    "average_decay",
    "augmentation",
    "frozen_statistics",
    "rotation_deg",
    "perspective_share",
    "occlusion_tolerance",
    "detected_keypoints",
    "random_keypoints",
    "truth_radius_px",
    "descriptor_temperature",
    "reliability_temperature",
    "teacher",
    "teacher_keypoints",
    "pool",
)

_EPILOG = """\
examples:
  train --model silk-vggnp-mu --images photographs --steps 20000 --schedule cosine --learning-rate 1e-3
  train --model silk-vggnp-mu --bag my_bag --init silk-vggnp-mu.safetensors --minutes 10
  train --model aliked-t16 --images photographs --rgbd rgbd_dataset_freiburg3_long_office_household
  train --model residual-sift --images photographs --minutes 60
  train --model dotlet --images photographs --rgbd rendered --pool 4000 --targets kept --steps 20000 --schedule cosine
  torchrun --nproc-per-node 2 -m feature_frontend train --images photographs
  train --images photographs --resume

Every 10th image is held out for validation, unless --validation-images names others. The folder --output gets
checkpoint.pt, log.jsonl, curves.png and, at the end, NAME.safetensors with its card NAME.md. Ctrl-C saves a
checkpoint; the same command with --resume continues."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0 if the run is complete, 1 after a one-line error, 130 if interrupted."""
    print_any_name()
    keep_freed_memory()
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options = _parser().parse_args(without_ros_arguments(arguments))
    return run_tool(lambda: _run(options, shlex.join(["train", *arguments])))


def _run(options: argparse.Namespace, command: str) -> int:
    with _interrupted_by(signal.SIGINT, signal.SIGTERM) as interrupted, processes(options.device) as group:
        return _train(options, group, interrupted, command)


def _train(options: argparse.Namespace, group: Processes, interrupted: Callable[[], bool], command: str) -> int:
    settings = _settings(options, group)
    output: Path = options.output or Path("training_output") / settings.model
    if not options.resume and not options.dry_run and group.from_first((output / CHECKPOINT_NAME).exists()):
        raise SettingsError(f"{output} holds a run; resume it with --resume, or choose another --output")
    images, held_out = _images(options, type(settings))
    data = _data(options, settings, images)
    initial = _initial_weights(settings.model, options.init) if options.init else None
    pairs = []
    if options.validation_pairs:
        if held_out is None:
            raise SettingsError(
                "no images are held out for validation; name some by --validation-images DIR, or --validation-pairs 0"
            )
        if group.is_first:
            pairs = validation_pairs(held_out, options.validation_pairs, settings.seed, options.validation_short_side)
    trainer = Trainer(settings, data, group, initial, options.workers)
    run = TrainingRun(
        trainer,
        group,
        pairs,
        RunOptions(
            output=None if options.dry_run else output,
            steps=_last_step(options),
            minutes=options.minutes,
            validate_every=options.validate_every,
            save_every_s=options.save_every,
            keypoints=options.validation_keypoints,
            resume=options.resume and not options.dry_run,
        ),
        Provenance(
            data=data.description,
            data_licence=options.data_licence,
            initial=options.init or "",
            validation_data=held_out.description if held_out else "",
            command=command,
        ),
    )
    if group.is_first:
        print(f"training {settings.model} on {group.device}: {data.description}", flush=True)
    if options.dry_run:
        report = run.dry_run()
        if group.is_first:
            print(f"dry run: 2 steps, loss {report.loss:.3f}; nothing was written")
        return 0
    result = run.run(interrupted)
    if group.is_first:
        _print_result(result, output)
    return INTERRUPTED if result.interrupted else 0


def _print_result(result: RunResult, output: Path) -> None:
    if result.interrupted:
        print(f"interrupted after step {result.step}; {output / CHECKPOINT_NAME} is saved, resume with --resume")
        return
    if result.before and result.after:
        after = result.after.as_dict()
        print(f"{'held-out pairs':<22} {'before':>7} {'after':>7}")
        for name, value in result.before.as_dict().items():
            print(f"{name:<22} {value:7.3f} {after[name]:7.3f}")
    if result.best_step == 0:
        print(f"nothing up to step {result.step} was better than the first weights, so these are what is exported")
    print(f"weights of step {result.best_step} of {result.step}: {result.weights}")


def _settings(options: argparse.Namespace, group: Processes) -> CommonSettings:
    kind = next(kind for kind in _KINDS if options.model in kind.MODELS)
    is_cosine = options.schedule == "cosine"
    if is_cosine and options.steps is None:
        raise SettingsError("--schedule cosine needs --steps: it ends at the last step")
    given = {name: value for name in _SETTINGS if (value := getattr(options, name)) is not None}
    if options.loss_weights is not None:
        given.update(zip(_LOSS_WEIGHTS, options.loss_weights, strict=True))
    unknown = [name for name in given if name not in kind.__dataclass_fields__]
    unknown += [
        name for name in ("rgbd", "megadepth") if not issubclass(kind, AlikedSettings) and getattr(options, name)
    ]
    unknown += ["targets"] if kind is not DistillSettings and options.targets is not None else []
    if unknown:
        flags = ", ".join("--" + name.replace("_", "-") for name in unknown)
        raise SettingsError(f"{options.model} is not trained with {flags}; leave that out, or choose another --model")
    if "map_side" not in given and group.device.type != "cuda":
        given["map_side"] = _CPU_MAP[kind]
    return kind(**given, schedule_steps=options.steps if is_cosine else 0)


def _last_step(options: argparse.Namespace) -> int | None:
    steps: int | None = options.steps
    return _PAPER_STEPS if steps is None and options.minutes is None else steps


def _data(options: argparse.Namespace, settings: CommonSettings, images: Images | None) -> TrainingData:
    if isinstance(settings, AlikedSettings):
        photographs: list[PosedPhotographs] = [read_tum_sequence(folder) for folder in options.rgbd]
        photographs += [scene for folder in options.megadepth for scene in read_megadepth(folder)]
        pairs = AlikedPairs(images, photographs, settings)
        return DistillPairs(pairs, settings, options.targets) if isinstance(settings, DistillSettings) else pairs
    # Only ALIKED can train without images, on photographs with depth.
    assert images is not None
    return ResidualPairs(images, settings) if isinstance(settings, ResidualSettings) else images


def _images(options: argparse.Namespace, settings: type[CommonSettings]) -> tuple[Images | None, Images | None]:
    """Images for training and for validation; None if there are none, which is possible with photographs with depth."""
    kind = GreyImages if settings is TrainingSettings else ColorImages
    parts = [images_in_folder(folder, kind) for folder in options.images]
    for location in (*options.bag, *options.video):
        source = open_source(str(location), SourceOptions(topic=options.topic))
        parts.append(images_of_source(source, options.max_frames, kind))
    if not parts and not options.rgbd and not options.megadepth:
        raise SettingsError("there is nothing to train on; expected --images DIR, --bag BAG or --video FILE")
    if options.validation_images is not None:
        return Images.joined(parts) if parts else None, images_in_folder(options.validation_images, kind)
    if not parts:
        return None, None
    # Each source is split separately, so that all kinds of images are held out.
    splits = [part.split(min(_HOLD_OUT_EVERY, len(part))) for part in parts if len(part) > 1]
    if not splits:
        raise SettingsError(
            "one image is not enough: some are held out for validation; name others by --validation-images DIR"
        )
    training, held_out = zip(*splits, strict=True)
    return Images.joined(training), Images.joined(held_out)


def _initial_weights(model: str, init: str) -> dict[str, torch.Tensor]:
    """Tensors of a file, or of published weights, that fit the model."""
    record = EXTRACTORS[model]
    path = user_path(init)
    if os.path.isfile(path):
        found = own_weights(model, path)
    elif init in EXTRACTORS and (published := EXTRACTORS[init].weights) is not None:
        found = ensure_weights(published)
    else:
        raise WeightsError(
            f"--init is {init!r}, which is neither a file nor the name of weights that come with this project"
        )
    network = record.build()
    fill_network(network, found, model, record.rename)
    return network.state_dict()


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Completes the current step on the first signal; a second one stops the run at once."""
    event = threading.Event()

    def interrupt(*_: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        tqdm.write("interrupted; saving a checkpoint after this step", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        yield event.is_set
        return
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield event.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="train",
        description="Train SiLK, ALIKED, residual descriptors or dotlet on unlabelled images; ALIKED and dotlet also "
        "with depth.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("images").add_argument
    add(
        "--images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of images and its subfolders; repeatable",
    )
    add("--bag", type=Path, action="append", default=[], metavar="BAG", help="rosbag2 or ROS 1 bag; repeatable")
    add("--video", type=Path, action="append", default=[], metavar="FILE", help="video; repeatable")
    add("--topic", help="image topic of a bag with several")
    add("--max-frames", type=positive, default=500, metavar="N", help="maximum number of frames per bag or video (500)")
    add("--data-licence", default="not stated", metavar="TEXT", help="licence of the images, for the model card")
    add("--workers", type=natural, default=0, metavar="N", help="data-loading processes; a few on a GPU (0)")

    add = parser.add_argument_group("training").add_argument
    models = [model for kind in _KINDS for model in kind.MODELS]
    add("--model", choices=models, default="silk-vggnp-mu", help="network to train (default: %(default)s)")
    add("--init", metavar="WEIGHTS", help="initial weights: a file, or a published name (default: random)")
    add(
        "--map-size",
        dest="map_side",
        type=positive,
        metavar="N",
        help="side of the network's maps, px (SiLK 146, 82 on a CPU; ALIKED 800, 256; dotlet 256; residual 240, 160)",
    )
    add("--batch-size", type=positive, metavar="N", help="pairs per process and batch (SiLK 1, ALIKED 2, others 4)")
    add("--accumulate", type=positive, metavar="N", help="batches per step (ALIKED 6, others 1)")
    add("--learning-rate", type=finite, metavar="X", help="of Adam (SiLK 1e-4, dotlet 2e-3, others 1e-3)")
    add("--warmup-steps", type=natural, default=0, metavar="N", help="steps to reach the learning rate (0)")
    add("--schedule", choices=SCHEDULES, default="constant", help="cosine: to 0 at --steps")
    add("--average-decay", type=finite, default=0.999, metavar="X", help="decay of the exported average (0.999)")
    add(
        "--augmentation", type=finite, metavar="P", help="fraction of augmented views (ALIKED, dotlet 0.5; others 0.95)"
    )
    add(
        "--frozen-statistics",
        action="store_true",
        help="with --init: keep the batch-norm statistics, as in inference; for the last steps of a training",
    )
    add("--precision", choices=PRECISIONS, default="float32", help="precision of the network (float32)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--seed", type=natural, default=0, metavar="N", help="random seed (0)")

    add = parser.add_argument_group("ALIKED and dotlet only").add_argument
    add(
        "--rgbd", type=Path, action="append", default=[], metavar="DIR", help="sequence in TUM RGB-D format; repeatable"
    )
    add("--megadepth", type=Path, action="append", default=[], metavar="DIR", help="MegaDepth, with scene_info/")
    add("--rotation-deg", type=finite, metavar="X", help="maximum rotation of warped views (30)")
    add(
        "--perspective-share",
        type=finite,
        metavar="P",
        help="fraction of pairs with depth; the others are warped images (0.5)",
    )
    add("--occlusion-tolerance", type=finite, metavar="X", help="relative depth difference of an occluded point (0.05)")
    add("--detected-keypoints", type=positive, metavar="N", help="per view (400)")
    add("--random-keypoints", type=natural, metavar="N", help="per view (400)")
    add("--truth-radius-px", type=finite, metavar="PX", help="distance below which a match is correct (5)")
    add("--descriptor-temperature", type=finite, metavar="X", help="t_des (0.1)")
    add("--reliability-temperature", type=finite, metavar="X", help="t_rel (1)")
    add(
        "--loss-weights",
        type=finite,
        nargs=4,
        metavar=("RP", "PK", "DS", "RE"),
        help="weights of the losses: reprojection, dispersity peak, sparse NRE, reliability (1 0.5 5 1)",
    )

    _add_distillation(parser)

    add = parser.add_argument_group("run").add_argument
    add("--output", type=Path, metavar="DIR", help="output folder (default: training_output/MODEL)")
    add("--steps", type=positive, metavar="N", help=f"last step (without --minutes: {_PAPER_STEPS})")
    add("--minutes", type=above_zero, metavar="M", help="stop after this time")
    add("--resume", action="store_true", help="resume the run in --output")
    add("--dry-run", action="store_true", help="run two steps as a check; writes nothing")
    add(
        "--validate-every",
        type=positive,
        default=1000,
        metavar="N",
        help="steps between validations, which also save (1000)",
    )
    add("--save-every", type=above_zero, default=300.0, metavar="S", help="seconds between other checkpoints (300)")
    add("--validation-images", type=Path, metavar="DIR", help="validation images (default: every 10th image)")
    add("--validation-pairs", type=natural, default=40, metavar="N", help="validation pairs; 0: no validation (40)")
    add("--validation-short-side", type=positive, default=240, metavar="PX", help="of validation images (240)")
    add("--validation-keypoints", type=positive, default=1000, metavar="N", help="per validation image (1000)")
    return parser


def _add_distillation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("dotlet only: distillation").add_argument
    add("--teacher", metavar="NAME", help="ALIKED model to learn from (aliked-n16)")
    add("--teacher-keypoints", type=positive, metavar="N", help="per view (200)")
    add("--pool", type=natural, metavar="N", help="number of different pairs, reused in turn; 0: always new (0)")
    add("--targets", type=Path, metavar="DIR", help="cache of the teacher's output for the pool; saves time on a CPU")


if __name__ == "__main__":
    raise SystemExit(main())
