"""`make gpu-check DEVICE=cpu`: runs the check on the CPU with only what the GPU machine has.

Only the transferred files are copied to a separate folder. The check runs there with the packages of
target_packages.txt and the output of `make gpu-pack` for this environment's Python. If the GPU machine's Python is
installed here, its packages are also unpacked and imported, except for torch, which is not available for it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from benchmarks.images import REPOSITORY
from scripts.gpu_check.pack.__main__ import default_shared, pack, print_rows
from scripts.gpu_check.pack.ros_prefix import find_python
from scripts.gpu_check.pack.source import travelling_files
from scripts.gpu_check.pack.wheels import fetch, pinned, target_packages
from scripts.gpu_check.parts import PARTS

__all__ = ["main", "rehearse"]

_PYTHON_THERE = "3.12"
# Imports of the wheels for that Python, besides torch.
_NEEDED_TO_IMPORT = ("numpy", "opencv-python-headless", "pyyaml", "tqdm", "typing-extensions")
# Run by that Python in the copied tree; the argument is the folder to unpack into.
_IMPORT_ALL = """
import subprocess, sys
from pathlib import Path
from scripts.gpu_check.carried import prepare
environment, problems = prepare(Path(".gpu"), Path(sys.argv[1]))
modules = "apsw, kornia_rs, lz4.frame, rclpy, rosbags.rosbag2, ruamel.yaml, sensor_msgs.msg, feature_frontend_msgs.msg"
code = f"import {modules}; rclpy.init(); rclpy.create_node('alone')"
status = subprocess.run([sys.executable, "-c", code], env=environment).returncode
print(*problems, sep="\\n", end="")
sys.exit(status or bool(problems))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Rehearses; returns the check's exit status, or 1 if the wheels for the other Python cannot be imported."""
    arguments = _parser().parse_args(argv)
    return rehearse(arguments.cache, arguments.shared, arguments.output, arguments.minutes, arguments.parts)


def rehearse(cache: Path, shared: Path, output: Path, minutes: float, parts: Sequence[str]) -> int:
    """Packs, checks the wheels for the other Python, and runs `parts` (all if empty) for `minutes`."""
    begun_s = time.monotonic()
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    work = cache / "rehearsal"
    shutil.rmtree(work, ignore_errors=True)
    status = 0
    if own != _PYTHON_THERE:
        carried = work / f"carried-{_PYTHON_THERE}"
        rows, left_out = pack(carried, cache, shared, _PYTHON_THERE, list(PARTS))
        print_rows(rows, left_out)
        status = _import_wheels(carried, cache, work)
    carried = work / f"carried-{own}"
    pack(carried, cache, shared, own, list(parts) or list(PARTS))
    tree = copy_tree(carried, work / "tree")
    python = machine(cache / f"machine-{own}")
    print(f"gpu-check: ready to rehearse after {time.monotonic() - begun_s:.0f} s", flush=True)
    command = [str(python), "-m", "scripts.gpu_check.run", *parts, "--device", "cpu", "--minutes", f"{minutes}"]
    command += ["--output", str(output.resolve())]
    return subprocess.run(command, cwd=tree, env=bare_environment(python, work), check=False).returncode or status


def copy_tree(carried: Path, tree: Path) -> Path:
    """The transferred files as on the GPU machine: the repository's files without .git, and `carried` as .gpu."""
    for name in travelling_files():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, target, follow_symlinks=False)
    carried.rename(tree / ".gpu")
    return tree


def machine(folder: Path) -> Path:
    """The Python of an environment that contains only the packages of target_packages.txt, as hard links."""
    there = target_packages()
    installed: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        if name in there:
            installed.setdefault(name, distribution)
    lacking = sorted(name for name in installed if not installed[name].files) or sorted({"torch"} - set(installed))
    if lacking:
        msg = (
            f"pip did not install {', '.join(lacking)} here, so that it cannot be copied; rehearse where make setup did"
        )
        raise FileNotFoundError(msg)
    python = folder / "bin" / "python3"
    key = _key(f"{name}=={distribution.version}" for name, distribution in installed.items())
    stamp = folder / "key"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == key:
        return python
    _make_venv(sys._base_executable, folder)  # type: ignore[attr-defined]
    site = next((folder / "lib").glob("python3.*")) / "site-packages"
    for distribution in installed.values():
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and source.is_file():
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    _link(source, target)
    stamp.write_text(key, encoding="ascii")
    return python


def bare_environment(python: Path, work: Path) -> dict[str, str]:
    """Environment of an unconfigured machine; network access fails immediately."""
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    nowhere = "http://127.0.0.1:9"
    return {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
        **{name: os.environ[name] for name in ("OMP_NUM_THREADS", "TMPDIR") if name in os.environ},
    }


def _import_wheels(carried: Path, cache: Path, work: Path) -> int:
    """Imports the packed wheels for the other Python; returns 0 with a message if it is not installed here."""
    found = find_python(_PYTHON_THERE)
    if found is None:
        print(f"gpu-check: there is no Python {_PYTHON_THERE} here: its wheels were not imported", flush=True)
        return 0
    folder = cache / f"machine-{_PYTHON_THERE}"
    versions = pinned("runtime.txt")
    requirements = [f"{name}=={versions[name]}" for name in _NEEDED_TO_IMPORT]
    stamp, key = folder / "key", _key(requirements)
    python = folder / "bin" / "python3"
    if not stamp.is_file() or stamp.read_text(encoding="ascii") != key:
        _make_venv(found[0], folder)
        # Uses this Python's pip, which may be too old for the other one: wheels only need to be unpacked.
        for wheel in fetch(requirements, _PYTHON_THERE, cache / f"wheels-{_PYTHON_THERE}"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder / "lib" / f"python{_PYTHON_THERE}" / "site-packages")
        stamp.write_text(key, encoding="ascii")
    tree = copy_tree(carried, work / f"tree-{_PYTHON_THERE}")
    unpacked = work / f"unpacked-{_PYTHON_THERE}"
    result = subprocess.run(
        [str(python), "-c", _IMPORT_ALL, str(unpacked)], cwd=tree, env=bare_environment(python, work), check=False
    )
    shutil.rmtree(unpacked)
    shutil.rmtree(tree)
    word = "import" if result.returncode == 0 else "do NOT import"
    print(f"gpu-check: the wheels and messages for Python {_PYTHON_THERE} {word}", flush=True)
    return result.returncode


def _make_venv(python: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _key(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu-check", description="Rehearse the check on the CPU.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=3.0, help="of the check itself (default: 3)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the archives")
    parser.add_argument(
        "--cache", type=Path, default=REPOSITORY / ".gpu-cache", metavar="DIR", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--shared", type=Path, default=default_shared(), metavar="DIR", help="(default here: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
