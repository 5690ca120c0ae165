"""What a run leaves: a JSON file with every sample, the tables as Markdown, one figure."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_versions, machine_slug
from benchmarks.plot import figure_of
from benchmarks.tables import render
from benchmarks.types import Options, SuiteResult
from feature_frontend.errors import SourceError
from feature_frontend_lab.evaluation.reports.plots import png

__all__ = ["SCHEMA", "Run", "as_document", "write_report"]

SCHEMA = 1
_VARIABLES = (
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "KMP_",
    "GOMP_",
    "TORCH",
    "PYTORCH_",
    "CUDA_",
    "FASTDDS_",
    "FASTRTPS_",
    "RMW_",
)


@dataclass(frozen=True)
class Run:
    """A suite's result and its conditions.

    Attributes:
        command: Command line.
        began: Start time with time zone.
        machine: From `describe_machine`.
        options: Options of the run.
        result: Results of the suite.
    """

    command: str
    began: datetime
    machine: dict[str, Any]
    options: Options
    result: SuiteResult

    @property
    def name(self) -> str:
        """Base name of the files, such as "2026-11-21-amd-epyc-2-cores-extract"."""
        words = [f"{self.began:%Y-%m-%d}", machine_slug(self.machine), self.result.name]
        return "-".join([*words, "quick"] if self.options.quick else words)


def as_document(run: Run) -> dict[str, Any]:
    """All fields, in JSON types."""
    return {
        "schema": SCHEMA,
        "suite": run.result.name,
        "began": run.began.isoformat(timespec="seconds"),
        "command": run.command,
        "machine": run.machine,
        "versions": describe_versions(),
        "threads": run.options.threads,
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
        "options": {**asdict(run.options), "images": None if run.options.images is None else str(run.options.images)},
        "tables": [asdict(table) for table in run.result.tables],
        "data": run.result.data,
    }


def write_report(folder: Path, run: Run) -> list[Path]:
    """Writes the files of a run and returns their paths; later runs on the same day get a number.

    Raises:
        SourceError: A file cannot be written.
    """
    document = as_document(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = _free_name(folder, run.name)
        paths = [folder / f"{name}.json", folder / f"{name}.md"]
        paths[0].write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        paths[1].write_text(_markdown(run, document), encoding="utf-8")
        if run.result.plots:
            paths.append(folder / f"{name}.png")
            paths[2].write_bytes(png(figure_of(run.result.plots)))
    except OSError as error:
        msg = f"the results cannot be written into {folder}: {error}; choose another --output"
        raise SourceError(msg) from error
    return paths


def _free_name(folder: Path, name: str) -> str:
    number = 1
    while (folder / f"{name if number == 1 else f'{name}-{number}'}.json").exists():
        number += 1
    return name if number == 1 else f"{name}-{number}"


def _markdown(run: Run, document: dict[str, Any]) -> str:
    machine, versions = run.machine, document["versions"]
    gpu = f", {machine['gpu']} (driver {machine['gpu_driver']})" if machine["gpu"] else ""
    commit = (versions["feature_frontend"] or "no git commit")[:12]
    changes = " with uncommitted changes" if versions["uncommitted_changes"] else ""
    software = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "numpy", "opencv", "kornia"))
    lines = [
        f"# {run.result.name}, {run.began:%Y-%m-%d}",
        "",
        f"{machine['cpu']}, {machine['cores_usable']} cores, {machine['memory_gib']} GiB{gpu}; {run.options.threads} "
        f"threads; other processes used {machine['others_cpu_fraction_during'] or 0:.1%} of the cores meanwhile.  ",
        f"Commit {commit}{changes}; {software}.  ",
        f"`{run.command}`",
    ]
    return "\n".join(lines) + "\n\n" + "\n\n".join(render(table) for table in run.result.tables) + "\n"
