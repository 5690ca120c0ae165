#!/usr/bin/env python3
"""Writes the digest of the base image into docker/Dockerfile, so that each build has the same base: `make docker-pin`.

It asks the image's registry (the OCI distribution API) for what the tag stands for today. The digest is that of the
manifest that was read, not of what a header says. Ends with 1, the Dockerfile as it was, where the registry cannot be
asked or answers something else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

_DOCKERFILE = Path(__file__).with_name("Dockerfile")
_ARGUMENT = re.compile(r"^ARG CUDA_IMAGE=(\S+)$", re.MULTILINE)
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
# A manifest has some kB; the specification lets registries refuse more than 4 MiB.
_LARGEST = 4 << 20
_PLATFORM = "linux/amd64"
_TIMEOUT_S = 30


class RegistryError(Exception):
    """The registry could not be asked, or its answer is none."""


class Image(NamedTuple):
    """A reference taken apart.

    Attributes:
        registry: Base address of its API.
        repository: Such as "nvidia/cuda".
        tag: Such as "13.0.2-runtime-ubuntu24.04".
        name: The reference as it was written, without a digest.
    """

    registry: str
    repository: str
    tag: str
    name: str


def parse_image(reference: str) -> Image:
    """Takes a reference such as "nvidia/cuda:13.0.2" or "localhost:5000/base:1@sha256:..." apart, as Docker does.

    Raises:
        RegistryError: It has no tag.
    """
    name = reference.partition("@")[0]
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, path = (first, rest) if is_host else ("registry-1.docker.io", name)
    repository, colon, tag = path.rpartition(":")
    if not colon:
        msg = f"the base image is {reference!r}; expected a tag, as in nvidia/cuda:13.0.2-runtime-ubuntu24.04"
        raise RegistryError(msg)
    if not is_host and "/" not in repository:
        repository = f"library/{repository}"
    # What Docker itself reaches without TLS.
    scheme = "http" if host.partition(":")[0] in {"localhost", "127.0.0.1"} else "https"
    return Image(f"{scheme}://{host}", repository, tag, name)


def digest_of(image: Image) -> str:
    """What the tag stands for: "sha256:..." of its manifest, or of its index of manifests by platform.

    Raises:
        RegistryError: With the reason.
    """
    address = f"{image.registry}/v2/{image.repository}/manifests/{urllib.parse.quote(image.tag)}"
    headers = {"Accept": ", ".join(_INDEXES + _MANIFESTS)}
    try:
        body = _get(address, headers)
    except urllib.error.HTTPError as error:
        challenge = error.headers.get("WWW-Authenticate", "")
        if error.code != 401 or not challenge.lower().startswith("bearer "):
            msg = f"{address} answered {error.code} {error.reason}"
            raise RegistryError(msg) from None
        headers["Authorization"] = f"Bearer {_token(challenge)}"
        body = _get(address, headers)
    _check_manifest(body, address)
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _token(challenge: str) -> str:
    """What an anonymous reader needs, from where a registry's challenge says."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm", "")
    if not realm.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        msg = f"the registry sends for a token to {realm!r}; expected an https address"
        raise RegistryError(msg)
    fields.pop("error", None)
    answer = json.loads(_get(f"{realm}?{urllib.parse.urlencode(fields)}", {}))
    token = answer.get("token") or answer.get("access_token")
    if not isinstance(token, str):
        msg = f"{realm} gave no token"
        raise RegistryError(msg)
    return token


def _get(address: str, headers: dict[str, str]) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT_S) as answer:
        body: bytes = answer.read(_LARGEST + 1)
    if len(body) > _LARGEST:
        msg = f"{address} sent more than {_LARGEST} bytes; a manifest is smaller"
        raise RegistryError(msg)
    return body


def _check_manifest(body: bytes, address: str) -> None:
    manifest = json.loads(body)
    kind = manifest.get("mediaType") if isinstance(manifest, dict) else None
    if kind not in _INDEXES + _MANIFESTS:
        msg = f"{address} sent {kind!r}; expected the manifest of an image"
        raise RegistryError(msg)
    if kind in _INDEXES:
        platforms = [entry.get("platform", {}) for entry in manifest.get("manifests", [])]
        names = {f"{each.get('os')}/{each.get('architecture')}" for each in platforms}
        if _PLATFORM not in names:
            msg = f"the image is for {', '.join(sorted(names)) or 'no platform'}; expected {_PLATFORM}"
            raise RegistryError(msg)


def pin(dockerfile: Path) -> str:
    """Writes NAME:TAG@DIGEST in the place of the base image; returns it.

    Raises:
        RegistryError: Nothing was written.
    """
    text = dockerfile.read_text(encoding="utf-8")
    found = _ARGUMENT.search(text)
    if found is None:
        msg = f"{dockerfile} has no line 'ARG CUDA_IMAGE=...'"
        raise RegistryError(msg)
    image = parse_image(found[1])
    try:
        pinned = f"{image.name}@{digest_of(image)}"
    except (OSError, HTTPException, ValueError, AttributeError) as error:
        msg = f"{image.registry} could not be asked for {image.name}: {error}"
        raise RegistryError(msg) from None
    dockerfile.write_text(text[: found.start(1)] + pinned + text[found.end(1) :], encoding="utf-8")
    return pinned


def main() -> int:
    """Pins, and says what was written or why nothing was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dockerfile", nargs="?", type=Path, default=_DOCKERFILE)
    file = parser.parse_args().dockerfile
    try:
        print(f"{file}: the base image is {pin(file)}")
    except (OSError, RegistryError) as error:
        print(f"docker-pin: error: {error}; {file} stays as it is", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
