"""Checks that need no running node: Python, torch, GPU, NumPy and OpenCV, weights, messages, middleware."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from feature_frontend.errors import SettingsError, WeightsError
from feature_frontend.models.catalog import AUTO, AUTO_EXTRACTORS
from feature_frontend.ros.distribution import named_dds_profile
from feature_frontend.system.files import user_path
from feature_frontend.tools.common.limits import address_space_problem, files_problem
from feature_frontend.tools.doctor.finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from feature_frontend.settings import Settings

__all__ = ["MACHINE_CHECKS", "check_dds", "check_weights", "segment_bytes"]

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 12)
OLDEST_TORCH, OLDEST_NUMPY, OLDEST_OPENCV = (2, 4), (1, 21), (4, 5)
COMPILERS = ("g++", "clang++", "c++")
# Two colour images of 1280x720.
LEAST_SEGMENT_BYTES = 8 << 20
FASTDDS = "rmw_fastrtps_cpp"
SHARED_MEMORY = Path("/dev/shm")


def check_python() -> Iterator[Finding]:
    """Checks whether the project supports this Python."""
    text = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield fail("Python", text, "use Python 3.10, 3.11 or 3.12")
    elif sys.version_info[:2] > NEWEST_PYTHON:
        yield warn("Python", f"{text}: newer than what is tested", "use Python 3.10, 3.11 or 3.12 if anything fails")
    else:
        yield ok("Python", text)


def check_limits() -> Iterator[Finding]:
    """Checks the shell's limits against the needs of torch and the middleware."""
    for problem, name in ((address_space_problem(), "-v unlimited"), (files_problem(), "-n 1024")):
        if problem:
            yield fail("limits", problem, f"ulimit {name}")


def check_torch() -> Iterator[Finding]:
    """Checks that torch is installed, new enough, and fits the GPU and its driver."""
    torch, finding = _imported("torch", OLDEST_TORCH, "make setup, or: pip install torch")
    yield finding
    if torch is None:
        return
    has_gpu = shutil.which("nvidia-smi") is not None
    if torch.version.cuda is None:
        if has_gpu:
            yield warn("GPU", "there is one, but this torch is built without CUDA", "install a torch with CUDA")
        else:
            yield ok("GPU", f"none; the network runs on the CPU ({torch.get_num_threads()} threads)")
        return
    try:
        torch.cuda.init()
        name = torch.cuda.get_device_name()
        # A torch that was not built for this GPU fails only when it computes.
        torch.ones(8, device="cuda").sum().item()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        advice = "update the driver, or install a torch for the CUDA version that `nvidia-smi` shows"
        if has_gpu:
            yield fail("GPU", f"torch for CUDA {torch.version.cuda} cannot use it: {reason}", advice)
        else:
            yield warn("GPU", f"torch for CUDA {torch.version.cuda}, but no driver: {reason}", "the CPU will be used")
        return
    yield ok("GPU", f"{name}, torch for CUDA {torch.version.cuda}")


def check_arrays() -> Iterator[Finding]:
    """Checks that NumPy, OpenCV and torch are binary compatible."""
    numpy, finding = _imported("numpy", OLDEST_NUMPY, "pip install 'numpy>=1.26'")
    yield finding
    if numpy is None:
        return
    array = numpy.zeros((4, 4, 3), numpy.uint8)
    cv2, finding = _imported("cv2", OLDEST_OPENCV, "pip install 'opencv-python-headless>=4.5', or apt python3-opencv")
    if cv2 is not None:
        try:
            cv2.cvtColor(array, cv2.COLOR_BGR2GRAY)
        except Exception as error:
            finding = fail("cv2", f"does not take NumPy {numpy.__version__}: {error}", "install both for one NumPy")
    yield finding
    try:
        importlib.import_module("torch").from_numpy(array)
    except ImportError:
        return  # reported already
    except Exception as error:
        yield fail("torch", f"does not take NumPy {numpy.__version__}: {error}", "install a torch for this NumPy")


def check_compiler() -> Iterator[Finding]:
    """Checks whether networks can be compiled for the CPU."""
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found:
        yield ok("compiler", found)
    else:
        yield warn("compiler", "no C++ compiler: on the CPU the network runs uncompiled", "apt install g++")


def check_messages() -> Iterator[Finding]:
    """Checks whether rclpy and the project's messages work in this shell."""
    try:
        importlib.import_module("rclpy")
        serialize = importlib.import_module("rclpy.serialization").serialize_message
    except ImportError as error:
        yield fail("ROS 2", f"rclpy cannot be imported: {error}", "source env.sh, or /opt/ros/$ROS_DISTRO/setup.bash")
        return
    yield ok("ROS 2", f"rclpy; ROS_DISTRO is {os.environ.get('ROS_DISTRO', 'not set')}")
    try:
        importlib.import_module("diagnostic_msgs.msg")
        messages = importlib.import_module("feature_frontend_msgs.msg")
        serialize(messages.Features())
    except Exception as error:
        advice = "make setup, or colcon build in ros2_ws; then source env.sh"
        yield fail("messages", f"not usable: {type(error).__name__}: {error}", advice)
    else:
        yield ok("messages", f"feature_frontend_msgs from {Path(str(messages.__file__)).parents[1]}")


def check_weights(settings: Settings) -> Iterator[Finding]:
    """Checks that the weights of the chosen network exist and are the published ones."""
    weights_dir, weights_path, fallback = settings.weights_dir, settings.weights_path, settings.fallback_extractor
    try:
        registry = importlib.import_module("feature_frontend.extractors.registry")
        weights = importlib.import_module("feature_frontend.models.weights")
        automatic = importlib.import_module("feature_frontend.extractors.automatic")
    except ImportError:
        return  # torch is missing, reported by its own check
    try:
        extractor = automatic.preferred_extractor(settings)
    except SettingsError as error:
        yield fail("weights", str(error), "set extractor and device for this machine")
        return
    if settings.extractor == AUTO:
        fallback = AUTO_EXTRACTORS[-1]
    try:
        if registry.EXTRACTORS[extractor].library:
            yield ok("weights", f"{extractor} has none: {registry.EXTRACTORS[extractor].library} computes it")
            return
        record = registry.EXTRACTORS[extractor].weights
        if weights_path:
            found = weights.own_weights(extractor, user_path(weights_path))
        elif record is None:
            found = weights.find_own_weights(extractor, weights_dir)
            if found is None:
                advice = (
                    f"feature_frontend train --model {extractor}, and name the file: weights_path; or choose dotlet"
                )
                yield fail("weights", f"none are published for {extractor}", advice)
                return
        if weights_path or record is None:
            yield ok("weights", f"{found.identity}, your own: {found.path}")
            return
        found = weights.find_weights(record, weights_dir)
    except WeightsError as error:
        yield fail("weights", str(error), f"feature_frontend weights fetch {extractor}")
        return
    if found is not None:
        yield ok("weights", f"{found.identity}, verified: {found.path}")
        return
    looked = ", ".join(str(folder) for folder in weights.search_folders(weights_dir))
    advice = f"feature_frontend weights fetch {extractor}"
    if fallback:
        yield warn("weights", f"{extractor} is not in {looked}; it will be downloaded, else {fallback} is used", advice)
    else:
        yield fail("weights", f"{extractor} is not in {looked}, and fallback_extractor is empty", advice)


def check_dds(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Checks whether images over 0.5 MB fit through the middleware's shared memory."""
    middleware = environment.get("RMW_IMPLEMENTATION") or FASTDDS
    where = f"domain {environment.get('ROS_DOMAIN_ID') or 0}"
    if "fastrtps" not in middleware:
        yield ok("middleware", f"{middleware}, {where}; its own settings decide about large images")
        return
    advice = "source env.sh in the shell of the node and of the camera's driver; see docs/large_messages.md"
    profile = named_dds_profile(environment)
    if not profile:
        text = f"Fast DDS, {where}, without a profile: images over 0.5 MB are lost or late"
        yield warn("middleware", text, advice)
        return
    try:
        segment = segment_bytes(Path(profile))
    except (OSError, ElementTree.ParseError) as error:
        yield fail("middleware", f"Fast DDS profile {profile} cannot be read: {error}", advice)
        return
    if segment < LEAST_SEGMENT_BYTES:
        text = f"Fast DDS, {where}, profile {profile}: {_mib(segment)} of shared memory, too little for large images"
        yield warn("middleware", text, advice)
        return
    yield ok("middleware", f"Fast DDS, {where}, {_mib(segment)} of shared memory for each process ({profile})")
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < 2 * segment:
            text = f"{_mib(free)} free in {SHARED_MEMORY}, a node and a camera take {_mib(2 * segment)}"
            yield warn("middleware", text, "`fastdds shm clean`; in Docker: --ipc host, or --shm-size 512m")


def segment_bytes(profile: Path) -> int:
    """Shared-memory segment size in a Fast DDS profile, bytes; 0 if it is not set."""
    sizes = [
        int(element.text or 0)
        for element in ElementTree.parse(profile).getroot().iter()
        if element.tag.rpartition("}")[2] == "segment_size" and (element.text or "").strip().isdigit()
    ]
    return max(sizes, default=0)


MACHINE_CHECKS = (check_python, check_limits, check_torch, check_arrays, check_compiler, check_messages, check_dds)


def _imported(name: str, oldest: tuple[int, int], advice: str) -> tuple[ModuleType | None, Finding]:
    """A module and the finding about it; None if it cannot be used at all."""
    try:
        module = importlib.import_module(name)
    except Exception as error:
        return None, fail(name, f"cannot be imported: {type(error).__name__}: {error}", advice)
    found = re.match(r"(\d+)\.(\d+)", module.__version__)
    if found and tuple(map(int, found.groups())) < oldest:
        return module, fail(name, f"{module.__version__}; {'.'.join(map(str, oldest))} or newer is needed", advice)
    return module, ok(name, module.__version__)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
