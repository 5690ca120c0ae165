"""Hooks of mkdocs.yml: pages from the top of the repository, and links to files that are not part of the site.

README.md becomes the start page; ARCHITECTURE.md and others become pages. A link to a source file has no target on the
site, so only its text is kept; `tests/docs/test_documents.py` checks that the file exists.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_REPOSITORY = Path(__file__).resolve().parent.parent
_PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from the top of the repository."""
    for source, page in _PAGES.items():
        files.append(File.generated(config, page, content=(_REPOSITORY / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Converts links written for the repository to links of the site."""
    site_path = page.file.src_path
    home = {page: source for source, page in _PAGES.items()}.get(site_path, f"docs/{site_path}")

    def replace(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(home), path))
        inside = _PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if inside is None or files.get_file_from_path(inside) is None:
            return text
        relative = posixpath.relpath(inside, posixpath.dirname(site_path) or ".")
        return f"{image}[{text}]({relative}{'#' + anchor if anchor else ''})"

    return _LINK.sub(replace, markdown)
