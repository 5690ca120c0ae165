"""Exported ONNX files: the same results as ours at any size and batch, what they say of themselves, and errors."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from feature_frontend.errors import ImageError, MatchingError, SettingsError
from feature_frontend.extractors import automatic
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk
from feature_frontend.models.catalog import WEIGHTS
from feature_frontend.settings import ExtractionSettings
from feature_frontend_lab.export import onnx_command
from feature_frontend_lab.export.command import main
from feature_frontend_lab.export.onnx_model.file import OPSET, PIXELS, export_extractor
from feature_frontend_lab.export.onnx_model.reader import OnnxExtractor, OnnxFeatures, OnnxMatcher, compare
from feature_frontend_lab.training.checkpoint import save_weights
from tests.campaign import Campaign
from tests.conftest import NEEDS_TORCH_FOR_PTH
from tests.core.seeded import save_lightglue, seeded_dotlet, seeded_network, seeded_silk
from tests.tolerances import ONNX_PARITY

onnx = pytest.importorskip("onnx", reason="needs onnx, which the extra onnx installs")
pytest.importorskip("onnxruntime", reason="needs onnxruntime, which the extra onnx installs")

Images = list[npt.NDArray[np.uint8]]
_BUDGET = 300
_SEEDED = {"aliked-t16": seeded_network, "dotlet": seeded_dotlet}
_PUBLISHED = ("aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32")


@dataclass(frozen=True)
class _Exported:
    """A file, its settings, and our own extractor."""

    path: Path
    settings: ExtractionSettings
    own: Extractor


def _export(folder: Path, name: str, weights: Path | None = None, **further: Any) -> _Exported:
    values = {"compile": False, "device": "cpu", "min_grey_range": 0, "max_num_keypoints": _BUDGET, **further}
    settings = ExtractionSettings(extractor=name, weights_path=str(weights or ""), **values)
    path = folder / f"{name}.onnx"
    export_extractor(settings, path)
    return _Exported(path, settings, Extractor.from_pretrained(settings))


@pytest.fixture(scope="module", params=["aliked-t16", "dotlet", "silk-vggnp-mu"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Exported:
    """Random weights, or those that ship."""
    folder = tmp_path_factory.mktemp("onnx")
    if request.param not in _SEEDED:
        return _export(folder, request.param)
    weights = folder / "weights.safetensors"
    save_weights(weights, _SEEDED[request.param]().state_dict())
    return _export(folder, request.param, weights)


def _crops(photographs: Images, height: int, width: int, *, is_grey: bool) -> Images:
    crops = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in photographs]
    return [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) if is_grey else crop for crop in crops]


def _check(exported: _Exported, images: Images) -> None:
    """The file finds what we find."""
    others = OnnxExtractor(exported.path, threads=1).extract_batch(images)
    for features, other in zip(exported.own.extract_batch(images), others, strict=True):
        own = OnnxFeatures(features.keypoints.numpy(), features.scores.numpy(), features.descriptors.numpy())
        assert len(own.keypoints) > 20
        for agreement in (compare(own, other), compare(other, own)):
            assert agreement.missing <= ONNX_PARITY.missing * agreement.count
            assert agreement.position_px <= ONNX_PARITY.position_px
            assert agreement.score <= ONNX_PARITY.score
            assert agreement.cosine >= ONNX_PARITY.cosine


@pytest.mark.parametrize(("height", "width", "batch"), [(96, 128, 1), (101, 77, 3), (32, 40, 2)])
def test_it_finds_the_same(exported: _Exported, height: int, width: int, batch: int, photographs: Images) -> None:
    is_grey = exported.settings.extractor != "aliked-t16"
    _check(exported, _crops(photographs[:batch], height, width, is_grey=is_grey))


def test_the_file_says_what_it_is(exported: _Exported) -> None:
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": OPSET}
    said = {prop.key: prop.value for prop in model.metadata_props}
    assert f"{said['extractor']}@{said['weights_sha256'][:8]}" == exported.own.identity
    assert said["max_num_keypoints"] == str(_BUDGET)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    channels = 3 if said["channels"] == "RGB" else 1
    assert shapes == {
        "image": ["N", channels, "H", "W"],
        "keypoints": ["N", _BUDGET, 2],
        "scores": ["N", _BUDGET],
        "descriptors": ["N", _BUDGET, exported.own.descriptor_dim],
    }


def test_fewer_keypoints_than_the_budget_are_padded(exported: _Exported, photographs: Images) -> None:
    is_grey = exported.settings.extractor != "aliked-t16"
    (image,) = _crops(photographs[:1], 32, 33, is_grey=is_grey)
    extractor = OnnxExtractor(exported.path, threads=1)
    planes = image.reshape(1, 32, 33, -1).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    keypoints, scores, descriptors = extractor.run(planes)
    (valid,) = extractor.extract_batch([image])
    assert keypoints.shape[1] == _BUDGET
    assert len(valid.scores) == len(exported.own.extract(image))
    if is_grey and exported.settings.extractor == "dotlet":
        assert len(valid.scores) < _BUDGET
    assert (scores[0, len(valid.scores) :] == 0).all()
    assert np.isfinite(keypoints).all()
    assert np.isfinite(descriptors).all()
    assert (keypoints >= 0).all()
    assert (keypoints <= [32, 31]).all()


def test_wrong_images_are_refused(exported: _Exported) -> None:
    extractor = OnnxExtractor(exported.path, threads=1)
    is_grey = exported.settings.extractor != "aliked-t16"
    other_colours = np.zeros((64, 64, 3) if is_grey else (64, 64), np.uint8)
    right = np.zeros((64, 64) if is_grey else (64, 64, 3), np.uint8)
    for images in ([other_colours], [right, right[:40]], []):
        with pytest.raises(ImageError, match=r"(have shapes \(\d|there are no images).*from 32x32 px"):
            extractor.extract_batch(images)
    with pytest.raises(ImageError, match=r"31x64 px"):
        extractor.extract_batch([right[:, :31]])
    with pytest.raises(ImageError, match=r"float64"):
        extractor.extract_batch([right / 1.0])


def _write(path: Path, op_type: str, domain: str = "", **metadata: str) -> Path:
    """A model with a single operator."""
    value = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node(op_type, ["x"], ["y"], domain=domain)], "g", *zip(value))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(domain, 1 if domain else OPSET)])
    model.ir_version = 8
    onnx.helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())
    return path


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x08 no model")
    said = {"producer": "feature_frontend", "weights_sha256": "0" * 64}
    cases = {
        tmp_path / "missing.onnx": "there is no file",
        damaged: "cannot run",
        _write(tmp_path / "operator.onnx", "Foo", "com.example"): "Foo",
        _write(tmp_path / "foreign.onnx", "Abs"): "does not say",
        _write(tmp_path / "kind.onnx", "Abs", **said, kind="matcher", extractors="aliked-n16"): "expected an",
        _write(tmp_path / "unknown.onnx", "Abs", **said, kind="detector"): "does not say",
    }
    whole = {
        **{"extractor": "dotlet", "channels": "grey", "keypoints": PIXELS, "minimum_size": "32", "nms_radius": "2"},
        **{"border": "2", "max_num_keypoints": "9", "detection_threshold": "1e-05"},
    }
    OnnxExtractor(_write(tmp_path / "whole.onnx", "Abs", **said, **whole, kind="extractor"))
    for name in whole:
        without = {other: value for other, value in whole.items() if other != name}
        for value, expected in (({}, "nothing"), ({name: "-1x"}, "'-1x'")):
            path = _write(tmp_path / f"{name}{len(value)}.onnx", "Abs", **said, **without, **value, kind="extractor")
            cases[path] = f"says {expected} for {name} in its metadata"
    for path, expected in cases.items():
        with pytest.raises(SettingsError, match=expected) as caught:
            OnnxExtractor(path)
        assert str(path) in str(caught.value)


def test_what_cannot_be_exported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"sift .*aliked-n16"):
        export_extractor(ExtractionSettings(extractor="sift"), tmp_path / "sift.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SettingsError, match=r"pip install onnx"):
        export_extractor(ExtractionSettings(extractor="silk-vggnp-mu"), tmp_path / "silk.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_and_checks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "resolve_device", lambda _name: torch.device("cpu"))
    path = tmp_path / "new" / "silk.onnx"
    silk = ("onnx", "--extractor", "silk-vggnp-mu")
    assert main([*silk, "--max-num-keypoints", "100", "--nms-radius", "1", "--output", str(path)]) == 0
    assert "the same as silk-vggnp-mu@" in capsys.readouterr().out
    assert main([*silk, "--output", str(path)]) == 1
    assert "exists already" in capsys.readouterr().err
    photograph = Path(__file__).parents[1] / "data" / "tum_fr2_desk"
    assert main(["onnx", "--check", str(path), "--images", str(min(photograph.glob("*.jpg")))]) == 0
    assert "640x480 px, batch of 1: 100 keypoints" in capsys.readouterr().out
    # With other weights than the file's.
    weights = tmp_path / "other.safetensors"
    save_weights(weights, Silk(SILK_CONFIGS["silk-vggnp-mu"]).state_dict())
    assert main(["onnx", "--check", str(path), "--weights-path", str(weights)]) == 1
    assert "--weights-path" in capsys.readouterr().err
    # A file that computes something else.
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("descriptor_outer.bias"))
    changed = onnx.numpy_helper.to_array(bias) + 1
    bias.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), bias.name))
    onnx.save(model, path)
    assert main(["onnx", "--check", str(path)]) == 1
    assert "NOT the same" in capsys.readouterr().out
    # The default extractor is whichever "auto" stands for.
    monkeypatch.chdir(tmp_path)
    assert main(["onnx", "--max-num-keypoints", "50"]) == 0
    assert "dotlet.onnx: the same as dotlet@" in capsys.readouterr().out
    # Without onnxruntime, the file is written all the same.
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main([*silk, "--output", str(tmp_path / "unchecked.onnx")]) == 0
    assert "not checked" in capsys.readouterr().out


def test_keypoints_that_only_one_side_has_count_as_missing() -> None:
    def features(*columns: float) -> OnnxFeatures:
        keypoints = np.array([(x, 5.0) for x in columns], np.float32).reshape(-1, 2)
        return OnnxFeatures(keypoints, np.ones(len(columns), np.float32), np.ones((len(columns), 1), np.float32))

    for one, other, missing in (((), (), 0), ((1, 2), (), 2), ((), (1, 2), 2), ((1,), (1, 9), 1), ((1, 3, 5), (1,), 2)):
        assert compare(features(*one), features(*other)).missing == missing


def test_nothing_is_compared_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dotlet = ("onnx", "--extractor", "dotlet")
    deep = tmp_path / "deep.png"
    cv2.imwrite(str(deep), np.zeros((64, 64), np.uint16))
    # Before anything is written.
    for arguments, expected in (
        ((*dotlet, "--images", "none.png"), "none.png: it cannot be read: No such file"),
        ((*dotlet, "--images", "deep.png"), "deep.png has samples of uint16; expected 8 bits"),
        ((*dotlet, "--lightglue-weights-path", "x"), "--lightglue-weights-path has no effect on an extractor"),
        (("onnx", "--matcher", "lightglue", "--for-opencv"), "--for-opencv has no effect on --matcher lightglue"),
        (("onnx", "--matcher", "lightglue", "--border", "3"), "--border has no effect on --matcher lightglue"),
        ((*dotlet, "--check", "x.onnx"), "--extractor has no effect on --check, which compares the file as it is"),
        (("onnx", "--check", "x.onnx", "--output", "y.onnx"), "--output has no effect on --check"),
    ):
        assert main([*arguments]) == 1
        captured = capsys.readouterr()
        assert (expected in captured.err, captured.err.count("\n"), captured.out) == (True, 1, ""), captured.err
        assert [path.name for path in tmp_path.iterdir()] == ["deep.png"]
    assert main([*dotlet, "--detection-threshold", "1", "--max-num-keypoints", "50"]) == 1
    assert (
        "find no keypoint on these images, so nothing is compared; name others by --images" in capsys.readouterr().err
    )
    cv2.imwrite("small.png", np.zeros((20, 40), np.uint8))
    assert main(["onnx", "--check", "dotlet.onnx", "--images", "small.png"]) == 1
    assert "small.png is 40x20 px; expected at least 32x32" in capsys.readouterr().err
    (tmp_path / "dotlet.onnx").unlink()

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    # Without --output.
    monkeypatch.setattr(onnx_command, "_check", interrupt)
    assert main([*dotlet]) == 130
    assert capsys.readouterr().err == "interrupted; dotlet.onnx is written, not checked\n"
    (tmp_path / "dotlet.onnx").unlink()
    monkeypatch.setattr(onnx_command, "export_extractor", interrupt)
    assert main([*dotlet]) == 130
    assert capsys.readouterr().err == "interrupted; nothing is written\n"


@pytest.mark.skipif(not hasattr(cv2, "ALIKED"), reason="needs OpenCV 5 with cv2.ALIKED")
def test_opencv_reads_it(tmp_path: Path, photographs: Images) -> None:
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, seeded_network().state_dict())
    values: Any = {"compile": False, "device": "cpu", "max_num_keypoints": 100}
    settings = ExtractionSettings(extractor="aliked-t16", weights_path=str(weights), **values)
    path = tmp_path / "aliked-t16.onnx"
    export_extractor(settings, path, for_opencv=True)
    (image,) = _crops(photographs[:1], 96, 128, is_grey=False)
    params = cv2.ALIKED.Params()
    params.inputSize = (128, 96)
    points, descriptors = cv2.ALIKED.create(str(path), params).detectAndCompute(image[:, :, ::-1].copy(), None)
    features = Extractor.from_pretrained(settings).extract(image)
    own = OnnxFeatures(features.keypoints.numpy(), features.scores.numpy(), features.descriptors.numpy())
    positions = np.array([point.pt for point in points], np.float32)
    for other in (
        OnnxFeatures(positions, np.array([point.response for point in points], np.float32), descriptors),
        OnnxExtractor(path, threads=1).extract_batch([image])[0],
    ):
        agreement = compare(own, other)
        assert agreement.count == 100
        assert agreement.missing <= 1
        assert agreement.position_px <= ONNX_PARITY.position_px
        assert agreement.cosine >= ONNX_PARITY.cosine


@NEEDS_TORCH_FOR_PTH
def test_lightglue_matches_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("kornia", reason="needs kornia (pip install kornia==0.9.0; make benchmark does)")
    weights, path = tmp_path / "lightglue.pth", tmp_path / "lightglue.onnx"
    save_lightglue(weights)
    options = ("onnx", "--matcher", "lightglue", "--lightglue-weights-path", str(weights), "--output", str(path))
    assert main([*options]) == 0
    assert "0 of 200 points matched otherwise" in capsys.readouterr().out
    matcher = OnnxMatcher(path, threads=1)
    rng = np.random.default_rng(1)
    few, many = (
        OnnxFeatures(
            rng.uniform(0, 99, (count, 2)).astype(np.float32),
            np.ones(count, np.float32),
            rng.normal(size=(count, 128)).astype(np.float32),
        )
        for count in (1, 70)
    )
    for one, other in ((few, many), (many, few)):
        matches, scores = matcher.match(one, (100, 100), other, (100, 100))
        assert matches.shape == scores.shape == (len(one.scores),)
        assert ((matches >= -1) & (matches < len(other.scores))).all()
        assert ((scores > 0) == (matches >= 0)).all()
    empty = OnnxFeatures(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, 128), np.float32))
    with pytest.raises(MatchingError, match=r"descriptors1 have shape \(0, 128\)"):
        matcher.match(few, (100, 100), empty, (100, 100))


@pytest.mark.slow
def test_every_extractor_on_photographs(
    tmp_path: Path, photographs: Images, shared: Path, weights_dir: str, campaign: Campaign
) -> None:
    campaign.only("every extractor at three sizes in batches of 1 and 3")
    street = [cv2.imread(str(path)) for path in sorted((shared / "data" / "kitti00").glob("*.png"))[:3]]
    sequences = [photographs, [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in street]]
    names = [*_PUBLISHED, *SILK_CONFIGS, "dotlet"]
    for name in names:
        weights = None
        if name not in WEIGHTS:
            weights = tmp_path / f"{name}.safetensors"
            save_weights(weights, seeded_silk(name).state_dict())
        exported = _export(tmp_path, name, weights, max_num_keypoints=1000, weights_dir=weights_dir)
        for images in sequences:
            height, width = images[0].shape[:2]
            for size in ((height, width), (height * 2 // 3 + 1, width // 2 + 3), (97, 163)):
                crops = _crops(images, *size, is_grey=not name.startswith("aliked"))
                _check(exported, crops[:1])
                _check(exported, crops)
