"""Everything that an output depends on: the manifest in its `process.json`, and how two of them differ."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import feature_frontend
from feature_frontend.camera.calibration_file import file_and_camera
from feature_frontend.errors import FeatureFrontendError
from feature_frontend.models.weights_file import file_sha256
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.ros.output.run_identity import run_id_of
from feature_frontend.sources import Source
from feature_frontend.sources.datasets.base import DatasetSource
from feature_frontend.sources.image_folder import ImageFolderSource
from feature_frontend.system.files import user_path
from feature_frontend.tools.process.inputs import describe_content
from feature_frontend.tools.process.request import Part, Request

__all__ = ["differences", "environment", "job_of", "of_part", "run_id_for"]

_LIBRARIES = ("torch", "numpy", "opencv-python-headless", "opencv-python", "kornia", "rosbags")


def job_of(
    request: Request, frontend: Frontend, source: Source | None, identity: Mapping[str, object]
) -> dict[str, object]:
    """Everything that the output depends on, normalised by a JSON round trip.

    Args:
        request: What is asked for.
        frontend: Made for it.
        source: The input; None for a remote one that has not been read yet, whose files are all in `identity`.
        identity: Of the input and its version.
    """
    settings = frontend.settings
    files = {"mask_path": settings.mask_path}
    if request.camera_info is not None:
        file, camera = file_and_camera(Path(request.camera_info))
        files[f"camera_info#{camera}" if camera else "camera_info"] = str(file)
    if isinstance(source, ImageFolderSource) and source.times_file is not None:
        files["times"] = str(source.times_file)
    if isinstance(source, ImageFolderSource) and source.camera_file is not None:
        files["camera"] = str(source.camera_file)
    if isinstance(source, DatasetSource):
        files |= {name: str(table) for name, table in source.tables.items()}
    if settings.matcher == "lightglue":
        files["lightglue_weights_path"] = settings.lightglue_weights_path
    job = {
        "input": identity,
        "topic": request.topic,
        "playback": request.playback,
        "frame_id": request.frame_id,
        "namespace": request.namespace,
        "storage": request.format,
        "settings": dataclasses.asdict(settings),
        "extractor": frontend.extractor.identity,
        "device": str(frontend.extractor.device),
        "threads": request.threads,
        "files_sha256": {name: _file_digest(path) for name, path in files.items() if path},
        **environment(),
    }
    return dict(json.loads(json.dumps(job)))


def of_part(job: Mapping[str, object], part: Part) -> dict[str, object]:
    """The job of a piece."""
    return {**job, "piece": dataclasses.asdict(part)}


def environment() -> dict[str, Any]:
    """What the results depend on besides request and input: this package's code, the processor, the libraries."""
    return {
        "code_sha256": _code_digest(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
    }


def run_id_for(job: Mapping[str, object], local: str, source: Source) -> int:
    """The `run_id` of the messages, independent of the input's location and the machine.

    Args:
        job: From `job_of`, of the whole input.
        local: Path of the input on this machine.
        source: Opened there.
    """
    named_by = {name: job[name] for name in ("topic", "playback", "settings", "extractor", "files_sha256")}
    return run_id_of(json.dumps({**named_by, "input": describe_content(local, source)}, sort_keys=True))


def differences(earlier: Mapping[str, Any], job: Mapping[str, Any]) -> list[str]:
    """Names of the entries that differ; "name.inner" for nested mappings."""
    names = []
    for name in dict.fromkeys([*earlier, *job]):
        one, other = earlier.get(name), job.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            names += [f"{name}.{inner}" for inner in differences(one, other)]
        elif one != other:
            names.append(name)
    return names


def _file_digest(path: str) -> str:
    try:
        return file_sha256(user_path(path))
    except OSError as error:
        raise FeatureFrontendError(f"{path} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=1)
def _code_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(feature_frontend.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
