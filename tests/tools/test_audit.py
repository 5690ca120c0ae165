"""`make audit`: what counts as checked. pip-audit itself takes "unknown" for "no known vulnerabilities"."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from scripts import audit
from tests.conftest import REPOSITORY


def component(name: str, version: str, *licences: str) -> dict[str, object]:
    return {"name": name, "version": version, "licenses": [{"license": {"name": each}} for each in licences]}


SBOM = {
    "components": [
        component("PyYAML", "6.0.3", "MIT"),
        component("torch", "2.13.0+cpu"),
        component("ros-rclpy", "7.1.6"),
        component("rclpy", "7.1.5"),
        component("feature_frontend_msgs", "0.1.0"),
        component(
            "docutils",
            "0.23",
            "License :: OSI Approved :: GNU General Public License (GPL)",
            "License :: Public Domain",
        ),
    ]
}


def test_packages_are_asked_for_as_the_index_knows_them() -> None:
    assert audit.packages(SBOM) == {"docutils": "0.23", "pyyaml": "6.0.3", "ros-rclpy": "7.1.6", "torch": "2.13.0"}


def test_licences_of_ros_packages_come_from_their_manifests(tmp_path: Path) -> None:
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "package.xml").write_text("<package><license>Apache License 2.0</license></package>")
    found = audit.licences(SBOM, tmp_path)
    assert found["ros-rclpy"] == ("7.1.6", "Apache License 2.0")
    assert found["torch"] == ("2.13.0+cpu", "not stated")
    lines = audit.licence_table(found).splitlines()
    assert lines[2] == "| docutils | 0.23 | GNU General Public License (GPL); Public Domain |"
    assert lines[3].endswith("| not stated |")


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("GPL-3.0-or-later", True),
        ("LGPLv2+", True),
        ("MPL-2.0 AND MIT", True),
        ("BSD-3-Clause", False),
        ("PSF-2.0", False),
    ],
)
def test_licences_with_conditions_are_distinguished(licence: str, expected: bool) -> None:
    assert audit.is_copyleft(licence) is expected


def fake_pip_audit(folder: Path, answers: dict[str, str]) -> None:
    """An executable that prints what pip-audit's database would make it print; nothing for a database that is away."""
    program = folder / "pip-audit"
    program.write_text(
        f"#!{sys.executable} -I\nimport sys\n"
        f"answer = {answers!r}.get(sys.argv[sys.argv.index('--vulnerability-service') + 1])\n"
        "sys.exit('ConnectionError: no route') if answer is None else print(answer)\n"
    )
    program.chmod(0o755)


def answer(**skipped_or_known: str | list[str]) -> str:
    entries = []
    for name, what in skipped_or_known.items():
        if isinstance(what, str):
            entries.append({"name": name, "skip_reason": what})
        else:
            known = [{"id": each, "fix_versions": ["9"]} for each in what]
            entries.append({"name": name, "version": "1", "vulns": known})
    return json.dumps({"dependencies": entries, "fixes": []})


@pytest.mark.parametrize(
    ("answers", "status", "words"),
    [
        ({}, 3, "NOT CHECKED for known vulnerabilities: 2 packages"),
        ({"pypi": answer(torch="not found", other="not found")}, 3, "NOT CHECKED"),
        ({"osv": answer(torch=[], other=[])}, 0, "2 of 2 packages checked by osv, 0 vulnerabilities"),
        ({"pypi": answer(torch=[], other="not found")}, 0, "not known to pypi, so not checked: other"),
        ({"pypi": answer(torch="not found", other=[])}, 3, "1 of 2 packages checked by pypi"),
        ({"osv": answer(torch=["CVE-1"], other=[])}, 1, "torch 1: CVE-1, mended in 9"),
    ],
    ids=["no network", "mirror", "clean", "one of nobody's", "one of ours", "known"],
)
def test_only_what_a_database_knew_counts_as_checked(
    answers: dict[str, str],
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_pip_audit(tmp_path, answers)
    monkeypatch.setattr(audit, "_OUTPUT", tmp_path)
    (tmp_path / "vulnerabilities.json").write_text("of an earlier run")

    assert audit.audit(tmp_path, {"torch": "2.13.0", "other": "1"}) == status

    printed = capsys.readouterr().out
    assert words in printed
    assert (tmp_path / "vulnerabilities.json").exists() is ("NOT CHECKED" not in printed)


def test_what_requirements_name_is_known() -> None:
    named = audit.named_in_requirements(REPOSITORY / "requirements")
    assert {"torch", "numpy", "ros-rclpy", "pyyaml"} <= named
