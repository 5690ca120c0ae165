"""Where pip looks for packages on this machine, and how it gets there: its settings, read as pip reads them."""

from __future__ import annotations

import configparser
import os
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PipSettings", "read_pip_settings"]

_PYPI = "https://pypi.org/simple"
_SYSTEM = Path("/etc")
_SECTIONS = ("global", "install")  # the later one wins
_FALSE = {"", "0", "false", "no", "off", "n", "f"}


@dataclass(frozen=True)
class PipSettings:
    """What concerns downloads.

    Attributes:
        indexes: Addresses of simple indexes (PEP 503), in the order in which they are asked.
        find_links: Folders, wheels or pages with links to wheels.
        proxy: Address of a proxy; empty: the environment's.
        certificates: File or folder of certificates; empty: the system's.
    """

    indexes: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    proxy: str = ""
    certificates: str = ""


def read_pip_settings() -> PipSettings:
    """The settings in force: variables `PIP_*` before `$PIP_CONFIG_FILE`, the environment's, the user's, the system's.

    A file that cannot be read is passed over.
    """
    sections: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for path in _files():
        # A parser of its own for each: one that has given up on a file keeps half of it, values that are no texts too.
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeError):
            continue
        for section in parser.sections():
            sections.setdefault(section, {}).update(
                {key.replace("_", "-"): value for key, value in parser.items(section)}
            )
    found: dict[str, str] = {}
    for section in _SECTIONS:
        found |= sections[section]
    prefix = "PIP_"
    found |= {
        name[len(prefix) :].lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith(prefix) and value
    }
    uses_index = found.get("no-index", "").strip().lower() in _FALSE
    indexes = [found.get("index-url", _PYPI).strip(), *found.get("extra-index-url", "").split()] if uses_index else []
    return PipSettings(
        tuple(dict.fromkeys(indexes)),
        tuple(found.get("find-links", "").split()),
        found.get("proxy", ""),
        os.path.expanduser(found.get("cert", "")),
    )


def _files() -> list[Path]:
    """Files of settings, the weakest first."""
    named = os.environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    system = [Path(folder) / "pip" for folder in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if folder]
    home = Path(os.path.expanduser("~"))
    user = [home / ".pip", Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"]
    folders = [*system, _SYSTEM, *([] if named else user), Path(sys.prefix)]
    return [*(folder / "pip.conf" for folder in folders), *([Path(named)] if named else [])]
