"""The container without Docker: its restrictions, the node's operation under them, and the pinned base image."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY

_DOCKER = REPOSITORY / "docker"
_START_S = 120
# Runs a command as compose.yaml does: read-only but for tmpfs at WRITABLE, mounted as Docker does it; no capabilities.
_READ_ONLY = r"""
root=$1; shift
mount --make-rprivate /
mount --rbind / "$root"
mount -t tmpfs tmpfs "$root/home"
mkdir -p "$root/home/frontend/.cache"
for place in $WRITABLE; do mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$root$place"; done
for folder in $NEEDED; do mkdir -p "$root$folder"; mount --rbind "$folder" "$root$folder"; done
awk -v root="$root" '$5 == root || index($5, root "/") == 1 {print $5}' /proc/self/mountinfo | while read -r mounted; do
  case " $WRITABLE /proc /sys /dev " in *" ${mounted#"$root"} "*) continue ;; esac
  case ${mounted#"$root"} in /proc/* | /sys/* | /dev/*) continue ;; esac
  mount -o remount,bind,ro "$mounted"
done
exec chroot "$root" setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def service() -> dict[str, Any]:
    compose = yaml.safe_load((_DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = compose["services"]["frontend"]
    return found


def writable_places() -> list[str]:
    """What compose.yaml mounts into the container to be written to."""
    mounts = [volume.rpartition("}")[2] for volume in service()["volumes"]]
    volumes = [mount.split(":")[1] for mount in mounts if not mount.endswith(":ro")]
    return [*volumes, *(place.partition(":")[0] for place in service()["tmpfs"])]


def image_environment() -> dict[str, str]:
    text = (_DOCKER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return dict(word.split("=", 1) for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE) for word in line.split())


def test_container_may_do_nothing_but_its_work() -> None:
    frontend = service()
    assert frontend["read_only"] is True
    assert frontend["cap_drop"] == ["ALL"]
    assert "cap_add" not in frontend
    assert "privileged" not in frontend
    assert "no-new-privileges:true" in frontend["security_opt"]
    # Logs fill memory otherwise.
    assert all("size=" in place for place in frontend["tmpfs"])
    users = re.findall(r"^USER (\S+)$", (_DOCKER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert users == ["${USER_UID}"]
    assert writable_places() == ["/home/frontend/.cache", "/tmp"]


def _can_mount() -> bool:
    try:
        command = ["unshare", "--mount", "sh", "-c", "mount --make-rprivate / && command -v setpriv chroot awk"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _wait_for_line(process: subprocess.Popen[bytes], words: bytes) -> bytes:
    """What the process prints until `words` are in it, it ends, or time is up."""
    assert process.stdout is not None
    text, end_s = b"", time.monotonic() + _START_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while words not in text and selector.select(end_s - time.monotonic()):
            part = os.read(process.stdout.fileno(), 65536)
            text += part
            if not part:
                break
    return text


@pytest.mark.skipif(not _can_mount(), reason="needs the right to mount (root) and unshare, to make all read-only")
def test_node_starts_where_all_but_the_mounts_is_read_only(tmp_path: Path, domain_id: int) -> None:
    pytest.importorskip("feature_frontend_msgs.msg", reason="needs feature_frontend_msgs, built by make setup")
    paths = [path for name in ("PYTHONPATH", "LD_LIBRARY_PATH") for path in os.environ.get(name, "").split(":")]
    needed = {Path(path) for path in [REPOSITORY, sys.prefix, sys.base_prefix, *paths] if path and Path(path).is_dir()}
    hidden = [str(path) for path in sorted(needed) if {"tmp", "home"} & set(path.parts[1:2])]
    places = writable_places()
    environment = {
        **os.environ,
        **{name: value for name, value in image_environment().items() if name in {"ROS_LOG_DIR", "CUDA_CACHE_PATH"}},
        "HOME": "/home/frontend",
        "WRITABLE": " ".join(places),
        "NEEDED": " ".join(hidden),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for name in ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TMPDIR", "ROS_HOME"):
        environment.pop(name, None)
    root = tmp_path / "root"
    root.mkdir()
    # The cache of weights and of compiled code, and the logs, beside what must not be.
    tried = [*places, "/home/frontend", "/", str(REPOSITORY)]
    attempts = f"for place in {' '.join(tried)}; do (: >$place/mark) 2>&- && echo wrote $place; done; "
    node = (
        f"exec {sys.executable} -m feature_frontend frontend --ros-args -p extractor:=silk-vggnp-mu -p compile:=false"
    )
    command = ["unshare", "--mount", "bash", "-euc", _READ_ONLY, "bash", str(root), "sh", "-c", attempts + node]
    process = subprocess.Popen(command, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output = _wait_for_line(process, b"waiting for images").decode()
        assert "ready: silk-vggnp-mu" in output, output
        assert re.findall(r"^wrote (.*)$", output, re.MULTILINE) == places
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE), status
        logs = Path(f"/proc/{process.pid}/root{environment['ROS_LOG_DIR']}")
        assert list(logs.iterdir())
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output + rest.decode()
    assert "Read-only" not in output + rest.decode()


# The registry.

_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


class Registry:
    """A registry's HTTP API on this machine, for one repository that wants an anonymous token.

    Attributes:
        manifest: What is sent for the tag `1.0`.
        seen: Paths asked for.
    """

    def __init__(self) -> None:
        self.manifest = json.dumps(
            {"mediaType": _INDEX_TYPE, "manifests": [{"platform": {"os": "linux", "architecture": "amd64"}}]}
        ).encode()
        self.seen: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.seen.append(self.path)
                if self.path == "/token?service=here&scope=repository%3Alibrary%2Fbase%3Apull":
                    self.answer(200, b'{"token": "abc"}')
                elif self.path != "/v2/library/base/manifests/1.0":
                    self.answer(404, b"{}")
                elif self.headers.get("Authorization") != "Bearer abc":
                    self.answer(401, b"{}")
                else:
                    assert _INDEX_TYPE in self.headers["Accept"]
                    self.answer(200, registry.manifest)

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                challenge = 'Bearer realm="{}/token",service="here",scope="repository:library/base:pull"'
                if status == 401:
                    self.send_header("WWW-Authenticate", challenge.format(f"http://{registry.host}"))
                self.send_header("Content-Length", str(len(body)))
                # What is not believed.
                self.send_header("Docker-Content-Digest", "sha256:" + "0" * 64)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    yield server
    server.close()


@pytest.fixture(scope="module")
def pinning() -> Any:
    specification = importlib.util.spec_from_file_location("pin_base_image", _DOCKER / "pin_base_image.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def dockerfile(folder: Path, image: str) -> Path:
    text = (_DOCKER / "Dockerfile").read_text(encoding="utf-8")
    text, count = re.subn(r"^ARG CUDA_IMAGE=.*$", f"ARG CUDA_IMAGE={image}", text, flags=re.MULTILINE)
    assert count == 1
    file = folder / "Dockerfile"
    file.write_text(text, encoding="utf-8")
    return file


def test_base_image_is_pinned_to_what_was_read_and_only_that_line_changes(
    registry: Registry, pinning: Any, tmp_path: Path
) -> None:
    name = f"{registry.host}/library/base:1.0"
    for old in (name, f"{name}@sha256:{'1' * 64}"):
        file = dockerfile(tmp_path, old)
        before = file.read_text(encoding="utf-8")
        pinned = pinning.pin(file)
        assert pinned == f"{name}@sha256:{hashlib.sha256(registry.manifest).hexdigest()}"
        assert file.read_text(encoding="utf-8") == before.replace(f"CUDA_IMAGE={old}\n", f"CUDA_IMAGE={pinned}\n")
    assert registry.seen[1].startswith("/token")


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (b"<html>log in</html>", "could not be asked"),
        (b"[]", "expected the manifest of an image"),
        (b'{"errors": []}', "expected the manifest of an image"),
        (b'{"mediaType": "%s", "manifests": []}' % _INDEX_TYPE.encode(), "expected linux/amd64"),
        (b'{"mediaType": "%s", "manifests": [7]}' % _INDEX_TYPE.encode(), "could not be asked"),
        (b" " * (5 << 20), "a manifest is smaller"),
    ],
    ids=["portal", "list", "error", "no platform", "numbers", "large"],
)
def test_wrong_manifest_pins_nothing(
    registry: Registry, pinning: Any, tmp_path: Path, manifest: bytes, reason: str
) -> None:
    registry.manifest = manifest
    file = dockerfile(tmp_path, f"{registry.host}/library/base:1.0")
    before = file.read_text(encoding="utf-8")
    with pytest.raises(pinning.RegistryError, match=reason):
        pinning.pin(file)
    assert file.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("reference", ["127.0.0.1:9/base:1.0", "127.0.0.1:9/base"])
def test_without_a_registry_or_a_tag_the_command_says_so(pinning: Any, tmp_path: Path, reference: str) -> None:
    file = dockerfile(tmp_path, reference)
    with pytest.raises(pinning.RegistryError, match=r"could not be asked for 127|expected a tag"):
        pinning.pin(file)


def test_unknown_tag_is_said(registry: Registry, pinning: Any, tmp_path: Path) -> None:
    with pytest.raises(pinning.RegistryError, match=r"manifests/2\.0 answered 404"):
        pinning.pin(dockerfile(tmp_path, f"{registry.host}/library/base:2.0"))


def test_docker_hub_is_the_default_registry(pinning: Any) -> None:
    image = pinning.parse_image("nvidia/cuda:13.0.2-runtime-ubuntu24.04@sha256:abc")
    assert image[:3] == ("https://registry-1.docker.io", "nvidia/cuda", "13.0.2-runtime-ubuntu24.04")
    assert pinning.parse_image("ubuntu:24.04").repository == "library/ubuntu"
    assert pinning.parse_image("localhost:5000/a/b:1").registry == "http://localhost:5000"
