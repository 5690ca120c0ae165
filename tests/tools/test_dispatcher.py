"""`feature_frontend TOOL`: the tools by name."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend import __main__ as dispatcher
from feature_frontend.__main__ import LAB_TOOLS, TOOLS, main


def test_every_tool_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*TOOLS, *LAB_TOOLS):
        if name in TOOLS:
            assert callable(importlib.import_module(TOOLS[name][0]).main)
        if name == "frontend":
            continue  # rclpy, not argparse, reads the node's arguments
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert "usage:" in capsys.readouterr().out


def test_without_a_name_the_tools_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(printed.count(f"\n  {name} ") == 2 for name in (*TOOLS, *LAB_TOOLS))


def test_an_unknown_name_lists_the_tools(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rviz"]) == 2
    assert re.search("'rviz'.* frontend, play", capsys.readouterr().err)


def test_without_the_lab_its_tools_say_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "entry_points", lambda group: [])
    assert main(["evaluate", "--help"]) == 1
    said = capsys.readouterr().err
    assert "'evaluate' is a tool of the package feature_frontend_lab, which is not installed" in said
    assert "pip install" in said


def test_a_tool_of_another_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text("def main(argv=None):\n    print('hello', argv)\n    return 3\n")
    metadata = tmp_path / "greeting-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: greeting\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[feature_frontend.tools]\ngreet = greeting:main\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from feature_frontend.__main__ import main; "
        "main(['--help']); sys.exit(main(['greet', 'you']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "greet       of greeting" in ended.stdout
    assert "hello ['you']" in ended.stdout
