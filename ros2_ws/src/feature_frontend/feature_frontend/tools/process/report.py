"""What has become of all inputs: printed, and kept as JSON beside the outputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.system.files import new_file
from feature_frontend.tools.common.arguments import INCOMPLETE
from feature_frontend.tools.process.remote import RemoteFolder, is_url, local_path
from feature_frontend.tools.process.request import Outcome, Request

__all__ = ["REPORT_NAME", "Report"]

REPORT_NAME = "report.json"


@dataclass(frozen=True)
class Report:
    """The outcomes of requests.

    Attributes:
        requests: What was asked for.
        results: What came of each: its outcome, or why it failed.
        took_s: Wall-clock time of all, s.
    """

    requests: Sequence[Request]
    results: Sequence[Outcome | FeatureFrontendError]
    took_s: float

    @property
    def exit_status(self) -> int:
        """0; 1 if an input has failed; `INCOMPLETE` if part of one is lost."""
        if not all(isinstance(result, Outcome) for result in self.results):
            return 1
        return INCOMPLETE if any(result.missing for result in self.results if isinstance(result, Outcome)) else 0

    @property
    def images(self) -> int:
        """Number of images of all inputs that have not failed."""
        return sum(result.images["received"] for result in self.results if isinstance(result, Outcome))

    def print(self) -> None:
        """Prints it, with the failures and losses on stderr."""
        for request, result in zip(self.requests, self.results, strict=True):
            if isinstance(result, Outcome):
                print(_summary(request, result), flush=True)
                for sentence in result.missing:
                    print(f"incomplete: {sentence}", file=sys.stderr)
            else:
                about = f"{request.source}: " if len(self.requests) > 1 else ""
                print(f"error: {about}{result}", file=sys.stderr)
        if len(self.requests) > 1:
            failed = sum(isinstance(result, FeatureFrontendError) for result in self.results)
            failures = f"; {failed} failed" if failed else ""
            print(f"{self.images} images of {len(self.requests)} sources in {self.took_s:.1f} s{failures}", flush=True)

    def write(self, output: str) -> None:
        """Writes it to the folder or URL of all outputs.

        Raises:
            FeatureFrontendError: It cannot be written.
        """
        inputs = [self._entry(request, result) for request, result in zip(self.requests, self.results, strict=True)]
        content = {"took_s": round(self.took_s, 3), "images": self.images, "inputs": inputs}
        text = (json.dumps(content, indent=2) + "\n").encode()
        location = local_path(output)
        if is_url(location):
            RemoteFolder(location).write(REPORT_NAME, text)
            return
        try:
            Path(location).mkdir(parents=True, exist_ok=True)
            with new_file(Path(location) / REPORT_NAME) as file:
                file.write(text)
        except OSError as error:
            msg = (
                f"{Path(location) / REPORT_NAME} cannot be written: {error.strerror or error}; the outputs are complete"
            )
            raise FeatureFrontendError(msg) from error

    def _entry(self, request: Request, result: Outcome | FeatureFrontendError) -> dict[str, object]:
        entry: dict[str, object] = {"source": request.source, "output": request.output}
        if isinstance(result, FeatureFrontendError):
            return {**entry, "state": "failed", "error": str(result)}
        state = "was finished" if result.was_finished else "done"
        details = {"sha256": result.sha256, "images": result.images, "missing": result.missing, "again": result.again}
        return {**entry, "state": state, **details, **({"joins": result.joins} if result.joins else {})}


def _summary(request: Request, outcome: Outcome) -> str:
    images = outcome.images
    counts = f"{images['received']} images, {images['processed']} processed, {images['refused']} refused"
    if outcome.was_finished:
        counts = f"was finished before, by the same command ({counts}); --overwrite makes it again"
    if outcome.again:
        counts = f"{counts}; made again, for it differed in {', '.join(outcome.again)}"
    if outcome.joins:
        counts = f"{counts}; {outcome.joins['joined']} of {outcome.joins['crossing']} tracks joined at the cuts"
    return f"{outcome.output}: {counts}\nsha256 {outcome.sha256}"
