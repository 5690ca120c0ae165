"""Steps: the networks on the device compared with the authors' outputs, in float32, and the error of other formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import torch

from benchmarks.types import Table
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk
from feature_frontend.extractors.registry import EXTRACTORS
from scripts.gpu_check.models import ALIKED, available, captured, settings_for, tensor_float32
from scripts.gpu_check.real_frames import sequences
from scripts.gpu_check.right.comparing import compare_features
from scripts.gpu_check.right.wording import mark, sides, verdict
from scripts.gpu_check.step import Context, LeftOutError, Outcome
from scripts.gpu_check.timebox import TimeBox
from tests.parity.aliked_reference import ParityResult, image_path, measure
from tests.parity.reduced_precision import measure_precision
from tests.parity.silk_reference import NAMES, measure_silk
from tests.tolerances import DEVICE, PARITY, REDUCED_PRECISION, SILK_PARITY

__all__ = ["aliked_parity", "half_precision", "silk_parity", "silk_seeded"]

# Networks without reference outputs.
_WITHOUT_GOLDEN = ("silk-vggnp-3", "silk-vggnp-2")
_HALVED = ("aliked-n16", "aliked-t16", "silk-vggnp-mu", "dotlet", "aliked-n32", "aliked-n16rot")
_SMALL = ("aliked-t16", "silk-vggnp-mu", "dotlet")
_QUICKEST_FIRST = ("odd", "tum", "kitti")
_PARITY_COLUMNS = ("network", "image", "found", "worst px", "worst score", "worst cosine", "at 0.2", "differ", "")


def aliked_parity(context: Context, box: TimeBox) -> Outcome:
    """The four ALIKED networks, float32 without TF32, compared with the authors' outputs; the CPU's tolerances."""
    with tensor_float32(convolutions=False, products=False):
        rows, left_out = _aliked(context, box)
    note = (
        f"Bars: {PARITY.fraction:.1%} of 500 keypoints within {PARITY.position_px} px, scores within {PARITY.score:g}, "
        f"cosine at least {PARITY.cosine}; at threshold 0.2 at most {PARITY.set_difference} keypoints differ."
    )
    table = Table(
        "ALIKED against the authors' outputs, float32 without TF32", _PARITY_COLUMNS, _parity_cells(rows), note
    )
    missed = [f"{model} on {image}" for model, image, result in rows if not result.passes]
    text = verdict(len(rows), missed, left_out)
    return Outcome(bool(rows) and not missed, text, [table], {"results": _parity_data(rows), "missing": left_out})


def silk_parity(context: Context, box: TimeBox) -> Outcome:
    """SiLK -4, -1 and -mu with the seeded weights compared with the authors' outputs."""
    folder = context.shared / "golden" / "silk"
    names = [
        name for name in NAMES if (folder / f"{name}.npz").is_file() and (folder / f"{name}_seeded.ckpt").is_file()
    ]
    _need(names, f"no reference outputs of SiLK in {folder}")
    with tensor_float32(convolutions=False, products=False):
        results = {}
        for name in box.each(_quickest_first(names)):
            with box.attempt(f"silk-{name}"):
                results[name] = measure_silk(name, context.shared, context.device)
    rows = tuple(
        (
            f"silk-{name}",
            f"{result.worst_logit:.1e}",
            f"{result.found:.1%}",
            f"{result.worst_cosine:.7f}",
            *(f"{result.different[key]}/{result.ties[key]}/{result.pairs[key]}" for key in result.pairs),
            mark(result.passes),
        )
        for name, result in results.items()
    )
    note = (
        f"Bars: logits within {SILK_PARITY.logit:g}, every keypoint within {SILK_PARITY.position_px:g} px, cosine at "
        f"least {PARITY.cosine}, the same pairs but for ties; pairs: differing/ties/all."
    )
    columns = ("network", "worst logit", "found", "worst cosine", "mnn", "ratio 0.9", "double softmax", "")
    missed = [f"silk-{name}" for name, result in results.items() if not result.passes]
    missing = [f"silk-{name}" for name in NAMES if name not in names]
    data = {"results": {name: {**asdict(result), "passes": result.passes} for name, result in results.items()}}
    table = Table("SiLK against the authors' outputs, seeded weights, float32 without TF32", columns, rows, note)
    return Outcome(
        bool(rows) and not missed, verdict(len(rows), missed, missing), [table], {**data, "missing": missing}
    )


def silk_seeded(context: Context, box: TimeBox) -> Outcome:
    """SiLK -3 and -2, without reference outputs: the device compared with the CPU with the same weights."""
    rows, data, missed = [], {}, []
    frames = sequences(context, 1, (96, 80))
    with tensor_float32(convolutions=False, products=False):
        for name, image_name in box.each(list(product(_WITHOUT_GOLDEN, frames)), " on ".join):
            image = frames[image_name].at(0)
            network = seeded_silk(name)
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            with torch.no_grad():
                expected = network(pixels).logits
                found = network.to(context.device)(pixels.to(context.device)).logits.cpu()
            worst = float((found - expected).abs().max())
            plain, shipped = _seeded_sides(context, name)
            agreement = compare_features(plain.extract(image), shipped.extract(image))
            passes = worst <= DEVICE.logit and agreement.passes
            setting = f"{name} on {image_name}"
            rows.append(
                (setting, f"{worst:.1e}", f"{agreement.fraction:.2%}", f"{agreement.least_cosine:.6f}", mark(passes))
            )
            data[setting] = {"worst_logit": worst, **agreement.as_json(), "passes": passes}
            missed += [] if passes else [setting]
    note = (
        f"Bars: logits within {DEVICE.logit:g}; {DEVICE.fraction:.0%} of the keypoints the same, within "
        f"{DEVICE.position_px} px."
    )
    columns = ("network", "worst logit", "the same", "least cosine", "")
    table = Table(f"SiLK with random weights: {sides(context)}", columns, tuple(rows), note)
    return Outcome(not missed, verdict(len(rows), missed, []), [table], {"results": data})


def half_precision(context: Context, box: TimeBox) -> Outcome:
    """float16 and bfloat16 compared with float32, all networks with weights, by `REDUCED_PRECISION`."""
    networks, missing = available(context, _HALVED)
    there = [name for name in ("tum", "kitti") if image_path(name, context.shared).is_file()]
    _need(there, f"no frames in {context.shared / 'data'}")
    rows, data, missed = [], {}, []
    if context.is_rehearsal:
        networks.sort(key=lambda name: name not in _SMALL)
    settings = list(product(networks, REDUCED_PRECISION, there))
    with tensor_float32(convolutions=False, products=False):
        for network, dtype, image in box.each(settings, lambda each: f"{each[0]} {_short(each[1])} {each[2]}"):
            with box.attempt(f"{network} {_short(dtype)} on {image}"):
                result = measure_precision(network, dtype, image, context.shared, context.device)
                setting = f"{network} {_short(dtype)} on {image}"
                rows.append((setting, f"{result.fraction:.1%}", f"{result.cosine:.5f}", mark(result.passes)))
                data[setting] = asdict(result)
                missed += [] if result.passes else [setting]
    bars = "; ".join(
        f"{_short(dtype)} {bar.fraction:.0%} within {bar.position_px} px, median cosine {bar.cosine}"
        for dtype, bar in REDUCED_PRECISION.items()
    )
    columns = ("network", "found", "median cosine", "")
    table = Table("Reduced precision against float32, 1000 keypoints", columns, tuple(rows), f"Bars: {bars}.")
    return Outcome(not missed, verdict(len(rows), missed, missing), [table], {"results": data, "missing": missing})


def seeded_silk(name: str, seed: int = 0) -> Silk:
    """SiLK with random weights and non-trivial batch norms, in evaluation mode on the CPU."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Silk(SILK_CONFIGS[name])
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight.data, module.running_var):
                    assert tensor is not None
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias.data, module.running_mean):
                    assert tensor is not None
                    tensor.normal_(0.0, 0.2)
    return network.eval()


def _seeded_sides(context: Context, name: str) -> tuple[Extractor, Extractor]:
    """The network as in the paper, on the CPU; and as users have it on the device, fused and captured."""
    settings, identity = settings_for(context, name), f"{name}@seeded00"
    plain = Extractor(seeded_silk(name), identity, settings, torch.device("cpu"))
    fused = EXTRACTORS[name].inference(seeded_silk(name))
    extractor = Extractor(fused, identity, settings, torch.device(context.device), has_maps=True)
    return plain, captured(extractor, settings) if context.is_rehearsal else extractor


def _aliked(context: Context, box: TimeBox) -> tuple[list[tuple[str, str, ParityResult]], list[str]]:
    """Every network on every image for which there are files and time; and what is missing."""
    folder = context.shared / "golden" / "aliked"
    models, missing = available(context, ALIKED)
    settings = [
        (model, image)
        for model, image in _diagonally(models, _QUICKEST_FIRST)
        if image_path(image, context.shared).is_file()
        and all((folder / f"{model}_{image}_{mode}.npz").is_file() for mode in ("top500", "thr0.2"))
    ]
    _need(settings, f"no reference outputs of ALIKED in {folder}")
    missing += [
        f"{model} on {image}" for model, image in product(models, _QUICKEST_FIRST) if (model, image) not in settings
    ]
    rows = []
    for model, image in box.each(settings, " on ".join):
        with box.attempt(f"{model} on {image}"):
            rows.append((model, image, measure(model, image, context.shared, context.device)))
    return rows, missing


def _diagonally(models: Sequence[str], images: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs; each model and each image occurs early."""
    return [
        (model, images[(number + turn) % len(images)])
        for turn in range(len(images))
        for number, model in enumerate(models)
    ]


def _quickest_first(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: sum(SILK_CONFIGS[f"silk-{name}"].channels))


def _parity_cells(rows: Sequence[tuple[str, str, ParityResult]]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            model,
            image,
            f"{result.fraction:.1%}",
            f"{result.worst_position_px:.1e}",
            f"{result.worst_score:.1e}",
            f"{result.worst_cosine:.7f}",
            str(result.reference_count),
            str(result.set_difference),
            mark(result.passes),
        )
        for model, image, result in rows
    )


def _parity_data(rows: Sequence[tuple[str, str, ParityResult]]) -> dict[str, Any]:
    return {f"{model} on {image}": {**asdict(result), "passes": result.passes} for model, image, result in rows}


def _need(what: Sequence[Any], text: str) -> None:
    if not what:
        raise LeftOutError(text)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
