"""`feature_frontend TOOL`: the tools by name."""

from __future__ import annotations

import importlib

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend.__main__ import TOOLS, main


def test_every_tool_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name, (module, _) in TOOLS.items():
        assert callable(importlib.import_module(module).main)
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
    assert all(printed.count(f"\n  {name} ") == 2 for name in TOOLS)


def test_an_unknown_name_lists_the_tools(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rviz"]) == 2
    assert "no tool is called 'rviz'; expected one of frontend, play" in capsys.readouterr().err
