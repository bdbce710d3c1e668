"""What is started before ROS is known to be there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CALL = """
import signal, sys
from drive_seg import executables
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs in the background may have inherited another
sys.exit(executables.{}())
"""


@pytest.mark.parametrize("name", ["segmentation_node", "sim_camera"])
def test_without_ros_an_executable_ends_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "rclpy.py").write_text("raise ModuleNotFoundError('no rclpy here', name='rclpy')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", CALL.format(name)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{name}: error: {name} needs the package 'rclpy'") and "setup.bash" in line


def test_without_ros_the_demo_says_that_rclpy_is_missing(tmp_path: Path) -> None:
    script = """
import sys
sys.modules.update(dict.fromkeys(["rclpy", "diagnostic_msgs", "sensor_msgs", "vision_msgs"]))  # cannot be imported
sys.argv = ["drive_seg", "demo"]
from drive_seg.cli import main
main()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("drive_seg: error: the demo needs the package 'rclpy'")
    assert "setup.bash" in line and "make venv" in line


@pytest.mark.parametrize(
    "loading",
    [
        "time.sleep(60)",
        "try: time.sleep(60)\nexcept BaseException as error: raise ImportError('initialization failed') from error",
    ],
    ids=["a module", "an extension"],
)
def test_an_executable_that_is_interrupted_while_it_loads_ends_in_silence(loading: str, tmp_path: Path) -> None:
    (tmp_path / "rclpy.py").write_text(f"import time\nprint('loading', flush=True)\n{loading}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", CALL.format("segmentation_node")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None and node.stderr is not None
        assert node.stdout.readline() == "loading\n"
        time.sleep(0.05)
        node.send_signal(signal.SIGINT)
        assert node.stderr.read() == "" and node.wait(timeout=20) == 0


def test_a_command_that_is_interrupted_while_it_loads_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", CALL.format("command_line")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stderr is not None
        assert run.stdout.readline() == "loading\n"
        run.send_signal(signal.SIGINT)
        assert run.stderr.read() == "drive_seg: error: interrupted\n" and run.wait(timeout=20) == 1
