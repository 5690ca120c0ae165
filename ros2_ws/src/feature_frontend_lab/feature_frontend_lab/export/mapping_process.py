"""The process that runs COLMAP's mapper: `python -m feature_frontend_lab.export.mapping_process REQUEST`.

The only module that imports pycolmap. The library searches for minutes without noticing Ctrl-C, replaces the handlers
of signals, and ends the process at some errors; a process of its own can be ended, and can end, at any time.

REQUEST is a JSON object: `database`, `images` (folder, or null), `output` (folder), `constant_cameras` (ids), and
`mapper` (options of the class `IncrementalMapperOptions`). Each line on stdout is a JSON object: `images`, a number of
images that are newly registered; at the end `models`, the fields of `MappedModel` for each model in `output`, or
`error`, a sentence.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["main"]


def main(request: str) -> int:
    """Runs the mapper; returns 0 if it has run."""
    # Nothing that a library prints may get between the lines of the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_the_asking_process, daemon=True).start()

    def answer(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    asked = json.loads(request)
    try:
        last = _mapped(asked, answer)
    except Exception as error:
        last = {"error": f"{type(error).__name__}: {error}"}
    answer(last)
    return 1 if "error" in last else 0


def _end_with_the_asking_process() -> None:
    """Waits until the process that holds the other end of stdin is gone."""
    # Not by sys.stdin, whose lock a reading thread would hold when the interpreter ends, which aborts the process.
    while os.read(0, 1):
        pass
    os._exit(1)


def _mapped(asked: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value
    options = pycolmap.IncrementalPipelineOptions()
    if not hasattr(options, "constant_cameras"):
        return {"error": f"pycolmap {pycolmap.__version__} cannot keep calibrations fixed; expected 3.13 or newer"}
    options.constant_cameras = set(asked["constant_cameras"])
    options.extract_colors = asked["images"] is not None
    for name, value in asked["mapper"].items():
        setattr(options.mapper, name, value)
    found = pycolmap.incremental_mapping(
        asked["database"],
        asked["images"] or asked["output"],
        asked["output"],
        options,
        initial_image_pair_callback=lambda: answer({"images": 2}),
        next_image_callback=lambda: answer({"images": 1}),
    )
    return {"models": [_fields(found[number]) for number in sorted(found)]}


def _fields(model: Any) -> dict[str, Any]:
    images = [image for image in model.images.values() if image.has_pose]
    return {
        "positions": {image.name: image.projection_center().tolist() for image in images},
        "points": model.num_points3D(),
        "error_px": model.compute_mean_reprojection_error(),
        "cameras": {str(camera_id): camera.params.tolist() for camera_id, camera in model.cameras.items()},
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
