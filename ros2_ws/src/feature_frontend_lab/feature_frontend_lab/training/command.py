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

from feature_frontend.errors import FeatureFrontendError, SettingsError, WeightsError
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.models.weights import ensure_weights, own_weights
from feature_frontend.models.weights_file import fill_network
from feature_frontend.runtime.heap import keep_freed_memory
from feature_frontend.sources import SourceOptions, open_source
from feature_frontend.system.files import print_any_name, user_path
from feature_frontend.tools.common.arguments import Parser, above_zero, finite, natural, positive, without_ros_arguments
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
checkpoint; type the same command with --resume to go on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0 if the run is complete, 1 after a one-line error, 130 if interrupted."""
    print_any_name()
    keep_freed_memory()
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options = _parser().parse_args(without_ros_arguments(arguments))
    try:
        with _interrupted_by(signal.SIGINT, signal.SIGTERM) as interrupted, processes(options.device) as group:
            return _train(options, group, interrupted, shlex.join(["train", *arguments]))
    except FeatureFrontendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _train(options: argparse.Namespace, group: Processes, interrupted: Callable[[], bool], command: str) -> int:
    settings = _settings(options, group)
    output: Path = options.output or Path("training_output") / settings.model
    if not options.resume and not options.dry_run and group.from_first((output / CHECKPOINT_NAME).exists()):
        raise SettingsError(f"{output} holds a run; go on with it by --resume, or choose another --output")
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
        _tell(result, output)
    return 130 if result.interrupted else 0


def _tell(result: RunResult, output: Path) -> None:
    if result.interrupted:
        print(f"interrupted after step {result.step}; {output / CHECKPOINT_NAME} is saved, go on with --resume")
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
        description="Train SiLK, ALIKED, residual descriptors or dotlet on any images without labels; ALIKED and "
        "dotlet also with depth.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = parser.add_argument_group("images")
    data.add_argument(
        "--images", type=Path, action="append", default=[], metavar="DIR", help="folder, with those below; repeatable"
    )
    data.add_argument(
        "--bag", type=Path, action="append", default=[], metavar="BAG", help="rosbag2 or ROS 1 bag; repeatable"
    )
    data.add_argument("--video", type=Path, action="append", default=[], metavar="FILE", help="video; repeatable")
    data.add_argument("--topic", help="image topic of the bag, where it has several")
    data.add_argument(
        "--max-frames", type=positive, default=500, metavar="N", help="frames kept of each bag and video (500)"
    )
    data.add_argument(
        "--data-licence", default="not stated", metavar="TEXT", help="terms of the images, for the model card"
    )
    data.add_argument(
        "--workers", type=natural, default=0, metavar="N", help="processes that prepare images; a few on a GPU (0)"
    )

    result = parser.add_argument_group("training")
    models = [model for kind in _KINDS for model in kind.MODELS]
    result.add_argument("--model", choices=models, default="silk-vggnp-mu", help="default: silk-vggnp-mu")
    result.add_argument("--init", metavar="WEIGHTS", help="file or name of weights to begin with; default: random ones")
    result.add_argument(
        "--map-size",
        dest="map_side",
        type=positive,
        metavar="N",
        help="side of the network's maps, px (SiLK 146, 82 on a CPU; ALIKED 800, 256; dotlet 256; residual 240, 160)",
    )
    result.add_argument(
        "--batch-size", type=positive, metavar="N", help="pairs in each process (SiLK 1, ALIKED 2, others 4)"
    )
    result.add_argument("--accumulate", type=positive, metavar="N", help="batches for each step (ALIKED 6, others 1)")
    result.add_argument(
        "--learning-rate", type=finite, metavar="X", help="Adam's (SiLK 1e-4, dotlet 2e-3, others 1e-3)"
    )
    result.add_argument("--warmup-steps", type=natural, default=0, metavar="N", help="steps up to that rate (0)")
    result.add_argument("--schedule", choices=SCHEDULES, default="constant", help="cosine goes down to 0 at --steps")
    result.add_argument(
        "--average-decay", type=finite, default=0.999, metavar="X", help="of the exported average (0.999)"
    )
    result.add_argument(
        "--augmentation",
        type=finite,
        metavar="P",
        help="fraction of augmented views (ALIKED and dotlet 0.5, others 0.95)",
    )
    result.add_argument(
        "--frozen-statistics",
        action="store_true",
        help="with --init: batch norm keeps its statistics, as it does in use; for the last steps of a training",
    )
    result.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the network (float32)")
    result.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    result.add_argument("--seed", type=natural, default=0, metavar="N", help="(0)")

    aliked = parser.add_argument_group("ALIKED and dotlet only")
    aliked.add_argument(
        "--rgbd", type=Path, action="append", default=[], metavar="DIR", help="sequence as of TUM RGB-D; repeatable"
    )
    aliked.add_argument(
        "--megadepth", type=Path, action="append", default=[], metavar="DIR", help="MegaDepth with scene_info/"
    )
    aliked.add_argument("--rotation-deg", type=finite, metavar="X", help="largest rotation of warped views (30)")
    aliked.add_argument(
        "--perspective-share",
        type=finite,
        metavar="P",
        help="fraction of pairs with depth; the others are warped images (0.5)",
    )
    aliked.add_argument(
        "--occlusion-tolerance", type=finite, metavar="X", help="relative difference of depth of what is hidden (0.05)"
    )
    aliked.add_argument("--detected-keypoints", type=positive, metavar="N", help="in each view (400)")
    aliked.add_argument("--random-keypoints", type=natural, metavar="N", help="in each view (400)")
    aliked.add_argument("--truth-radius-px", type=finite, metavar="PX", help="of true matches (5)")
    aliked.add_argument("--descriptor-temperature", type=finite, metavar="X", help="t_des (0.1)")
    aliked.add_argument("--reliability-temperature", type=finite, metavar="X", help="t_rel (1)")
    aliked.add_argument(
        "--loss-weights",
        type=finite,
        nargs=4,
        metavar=("RP", "PK", "DS", "RE"),
        help="of reprojection, dispersity peak, sparse NRE and reliability (1 0.5 5 1)",
    )

    _add_distillation(parser)

    run = parser.add_argument_group("run")
    run.add_argument("--output", type=Path, metavar="DIR", help="default: training_output/MODEL")
    run.add_argument("--steps", type=positive, metavar="N", help=f"last step (without --minutes: {_PAPER_STEPS})")
    run.add_argument("--minutes", type=above_zero, metavar="M", help="end after this time")
    run.add_argument("--resume", action="store_true", help="go on with the run in --output")
    run.add_argument("--dry-run", action="store_true", help="two steps to see whether all fits; writes nothing")
    run.add_argument("--validate-every", type=positive, default=1000, metavar="N", help="steps; also saves (1000)")
    run.add_argument(
        "--save-every", type=above_zero, default=300.0, metavar="S", help="seconds between checkpoints besides (300)"
    )
    run.add_argument("--validation-images", type=Path, metavar="DIR", help="default: every 10th image is held out")
    run.add_argument("--validation-pairs", type=natural, default=40, metavar="N", help="0 does not validate (40)")
    run.add_argument("--validation-short-side", type=positive, default=240, metavar="PX", help="of its images (240)")
    run.add_argument("--validation-keypoints", type=positive, default=1000, metavar="N", help="in each image (1000)")
    return parser


def _add_distillation(parser: argparse.ArgumentParser) -> None:
    distill = parser.add_argument_group("dotlet only: distillation")
    distill.add_argument("--teacher", metavar="NAME", help="the ALIKED to learn from (aliked-n16)")
    distill.add_argument("--teacher-keypoints", type=positive, metavar="N", help="in each view (200)")
    distill.add_argument("--pool", type=natural, metavar="N", help="different pairs, which return; 0: always new (0)")
    distill.add_argument(
        "--targets", type=Path, metavar="DIR", help="keep there what the teacher says of the pool; saves time on a CPU"
    )


if __name__ == "__main__":
    raise SystemExit(main())
