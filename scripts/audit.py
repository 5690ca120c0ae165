"""`make audit`: lists installed packages with their licences and known vulnerabilities.

Writes into audit_output/:

    sbom.json             packages installed by set-up, in CycloneDX format (cyclonedx-py)
    licences.md           package, version, licence; licences with conditions on redistribution first
    vulnerabilities.json  pip-audit's result; only if a database answered

Exit status: 0 no known vulnerability; 1 at least one; 3 no database was reachable, or it does not know a package that
requirements/ names, so the result is incomplete; 2 a tool could not be installed or run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parent.parent
_OUTPUT = REPOSITORY / "audit_output"
_TOOLS = REPOSITORY / ".setup" / "audit"
# In order of preference. PyPI also serves OSV's records of its packages, but index mirrors always answer "unknown".
SERVICES = ("osv", "pypi")
_COPYLEFT = re.compile(
    r"\b(A?GPL|GNU (Affero )?General Public|LGPL|GNU Lesser|MPL|Mozilla|EPL|CDDL|EUPL)", re.IGNORECASE
)


class ToolError(Exception):
    """A tool could not be installed or run."""


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def _install_tools() -> Path:
    """The folder of the tools' executables, in a separate environment with locked versions."""
    python = _TOOLS / "bin" / "python"
    if not python.exists():
        # The base interpreter of .venv, so that no package of .venv is visible.
        made = _run([getattr(sys, "_base_executable", sys.executable), "-m", "venv", _TOOLS])
        if made.returncode:
            msg = f"making {_TOOLS} failed:\n{made.stderr.strip()}"
            raise ToolError(msg)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    lock = REPOSITORY / "requirements" / "lock" / "audit.txt"
    installed = _run([python, "-m", "pip", "install", *options, "-r", lock])
    if installed.returncode:
        msg = f"installing {lock.relative_to(REPOSITORY)} failed:\n{installed.stderr.strip()[-2000:]}"
        raise ToolError(msg)
    return python.parent


def _write_sbom(tools: Path, file: Path) -> dict[str, Any]:
    options = ["--output-format", "JSON", "--output-reproducible", "--output-file", str(file)]
    made = _run([tools / "cyclonedx-py", "environment", *options, sys.executable])
    if made.returncode:
        msg = f"cyclonedx-py failed:\n{made.stderr.strip()[-2000:]}"
        raise ToolError(msg)
    sbom: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return sbom


def canonical(name: str) -> str:
    """A package's normalised name, as compared by indexes."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(sbom: dict[str, Any]) -> dict[str, str]:
    """Public versions of packages that came from an index, by canonical name.

    The wheels of ROS also register their Python module under a name that they do not have on PyPI (`rclpy` for
    `ros-rclpy`). Databases know a local version (2.13.0+cpu) by its public part.
    """
    found = {canonical(each["name"]): each["version"].partition("+")[0] for each in sbom["components"]}
    own = {"feature-frontend", "feature-frontend-msgs"}
    return {name: version for name, version in sorted(found.items()) if f"ros-{name}" not in found and name not in own}


def licences(sbom: dict[str, Any], share: Path) -> dict[str, tuple[str, str]]:
    """(version, licence) by canonical name; for ROS packages, from `share/PACKAGE/package.xml`."""
    found = {}
    for component in sbom["components"]:
        name = canonical(component["name"])
        given = [
            each.get("expression") or each["license"].get("id") or each["license"].get("name", "")
            for each in component.get("licenses", [])
        ]
        manifest = share / name.removeprefix("ros-").replace("-", "_") / "package.xml"
        if not given and manifest.is_file():
            given = [element.text or "" for element in ElementTree.parse(manifest).getroot().iter("license")]
        words = "; ".join(each.removeprefix("License :: ").removeprefix("OSI Approved :: ").strip() for each in given)
        # Some packages give the full licence text as its name.
        found[name] = (component["version"], " ".join(words.split())[:120] or "not stated")
    return found


def licence_table(found: dict[str, tuple[str, str]]) -> str:
    """The list in Markdown; licences with conditions on redistribution, and unknown ones, come first."""

    def rank(item: tuple[str, tuple[str, str]]) -> tuple[int, str]:
        return (0 if is_copyleft(item[1][1]) else 1 if item[1][1] == "not stated" else 2, item[0])

    rows = [f"| {name} | {version} | {licence} |" for name, (version, licence) in sorted(found.items(), key=rank)]
    return "\n".join(["| package | version | licence |", "|---|---|---|", *rows]) + "\n"


def is_copyleft(licence: str) -> bool:
    """Whether a licence has conditions on redistribution."""
    return _COPYLEFT.search(licence) is not None


def named_in_requirements(folder: Path) -> set[str]:
    """Canonical names of the packages in requirements/."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt")))
    return {canonical(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}


def vulnerabilities(answer: dict[str, Any]) -> list[str]:
    """One line per known vulnerability."""
    return [
        f"{each['name']} {each['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}"
        for each in answer["dependencies"]
        for known in each.get("vulns", [])
    ]


def not_audited(answer: dict[str, Any]) -> list[str]:
    """Names unknown to the database. pip-audit counts them as "no known vulnerabilities"."""
    return sorted(canonical(each["name"]) for each in answer["dependencies"] if "skip_reason" in each)


def _ask(tools: Path, service: str, listed: Path) -> dict[str, Any] | str:
    """pip-audit's result, or the reason why there is none."""
    options = ["--progress-spinner", "off", "--format", "json", "--no-deps", "--disable-pip", "--timeout", "15"]
    asked = _run([tools / "pip-audit", "--vulnerability-service", service, *options, "--requirement", listed])
    try:
        answer: dict[str, Any] = json.loads(asked.stdout)
    except json.JSONDecodeError:
        lines = asked.stderr.strip().splitlines()
        return lines[-1][:300] if lines else f"pip-audit ended with {asked.returncode}"
    if len(not_audited(answer)) == len(answer["dependencies"]):
        return "it knows none of the packages (as mirrors of PyPI answer)"
    return answer


def audit(tools: Path, found: dict[str, str]) -> int:
    """Asks the databases in turn until one answers; prints the result and returns the exit status."""
    listed = _OUTPUT / "packages.txt"
    listed.write_text("".join(f"{name}=={version}\n" for name, version in found.items()), encoding="utf-8")
    file = _OUTPUT / "vulnerabilities.json"
    file.unlink(missing_ok=True)
    for service in SERVICES:
        answer = _ask(tools, service, listed)
        if not isinstance(answer, str):
            break
        print(f"audit: the database {service} was not reached: {answer}")
    else:
        print(f"audit: NOT CHECKED for known vulnerabilities: {len(found)} packages, no database was reached")
        return 3
    file.write_text(json.dumps(answer, indent=1), encoding="utf-8")
    known, unknown = vulnerabilities(answer), not_audited(answer)
    for line in known:
        print(f"audit: {line}")
    if unknown:
        print(f"audit: not known to {service}, so not checked: {', '.join(unknown)}")
    checked = len(found) - len(unknown)
    print(f"audit: {checked} of {len(found)} packages checked by {service}, {len(known)} vulnerabilities")
    if known:
        return 1
    return 3 if named_in_requirements(REPOSITORY / "requirements").intersection(unknown) else 0


def main() -> int:
    """Runs all three steps; everything that works offline is written regardless of the database."""
    _OUTPUT.mkdir(exist_ok=True)
    try:
        tools = _install_tools()
        sbom = _write_sbom(tools, _OUTPUT / "sbom.json")
    except ToolError as error:
        print(f"audit: error: {error}", file=sys.stderr)
        return 2
    found = licences(sbom, Path(sys.prefix) / "share")
    (_OUTPUT / "licences.md").write_text(licence_table(found), encoding="utf-8")
    copyleft = [f"{name} ({licence})" for name, (_, licence) in found.items() if is_copyleft(licence)]
    print(f"audit: {len(found)} packages in audit_output/sbom.json, their licences in audit_output/licences.md")
    print(f"audit: licences with conditions on distribution: {'; '.join(copyleft) or 'none'}")
    return audit(tools, packages(sbom))


if __name__ == "__main__":
    sys.exit(main())
