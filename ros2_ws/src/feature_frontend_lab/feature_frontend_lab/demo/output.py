"""The demo's output folder, which a rerun may empty of what the demo made, and of nothing else."""

from __future__ import annotations

from pathlib import Path

from feature_frontend.errors import DemoError

__all__ = ["Output"]

MARKER = ".made_by_feature_frontend_demo"
# What a run leaves: files, and folders with the patterns of what is in them.
FILES = ("tracks.png", "tracks.mp4", "summary.json", "summary.txt")
FOLDERS = {
    "sequence": ("*.png", "camera.yaml", "poses.txt"),
    "bag": ("metadata.yaml", "bag.db3", "bag.db3-journal", "bag.mcap"),
    "logs": ("node.log", "player.log", "recorder.log"),
}


class Output:
    """Paths of what a run leaves.

    Args:
        folder: Where; made if it does not exist.

    Raises:
        DemoError: The folder holds something and was not made by the demo, or cannot be made or emptied.
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
            msg = f"the output folder {folder} cannot be prepared: {error}; choose another with --output"
            raise DemoError(msg) from error

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()) and not (self.folder / MARKER).is_file():
            msg = (
                f"the output folder {self.folder} holds files that the demo did not make; "
                "choose another with --output, or empty it"
            )
            raise DemoError(msg)
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
            msg = f"{folder} holds {foreign[0]!r}, which the demo did not make; move it elsewhere"
            raise DemoError(msg)
        folder.rmdir()
