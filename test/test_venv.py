"""``tools/venv.sh`` in shells and folders as they are found, with a Python that only writes down what it was asked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "venv.sh"
PYTHON = """#!/bin/bash
echo "$* user=${PIP_USER-} elsewhere=${PIP_TARGET-}${PYTHONPATH-}${PYTHONHOME-}" >> "$ASKED"
case "$*" in
    *sys.executable*) echo "$0" ;;
    *version_info*) echo "$SAYS" ;;
    *"${BREAKS:-nothing}"*) echo "ERROR: broken"; exit 1 ;;
    "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *"pip install"*)
        printf '%s\\n' '  Get a.whl (9.5 MB)' 'Get b (2 kB)' 'WARNING: Retrying (Retry(total=4'
        while [ -e "$ASKED.wait" ]; do sleep 0.02; done
        ;;
esac
"""
UNAME = """#!/bin/sh
echo "Linux ${MACHINE:-x86_64}"
"""
MADE = "-m venv --clear"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with nothing but what the script reads, beside a Python and a uname."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    root = tmp_path / "the root"
    (root / "tools" / "vision_msgs").mkdir(parents=True)
    for name in ("setup.py", "setup.cfg", "tools/vision_msgs/setup.py"):
        (root / name).write_text("")
    shutil.copy(SCRIPT, root / "tools")
    (tmp_path / "bin").mkdir()
    for name, text in (("python", PYTHON), ("uname", UNAME)):
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    return root


def start(root: Path, new_session: bool = False, **variables: str) -> subprocess.Popen[str]:
    """Start the script of this tree; no ROS is sourced."""
    programs = root.parent / "bin"
    foreign = ("PIP_", "PYTHON", "ROS_", "_ROS_", "AMENT_")
    given = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    own = {"PYTHON": f"{programs}/python", "ASKED": str(root.parent / "asked"), "SAYS": "3.12"}
    path = f"{programs}:{os.environ['PATH']}"
    return subprocess.Popen(
        [str(root / "tools" / "venv.sh")],
        env={**given, **own, "PATH": path, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that: this one is to be interrupted.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        start_new_session=new_session,
    )


def asked(root: Path) -> str:
    """What the Python was asked so far."""
    path = root.parent / "asked"
    return path.read_text() if path.exists() else ""


def run(root: Path, code: int = 0, **variables: str) -> str:
    """Run it; what it said."""
    process = start(root, **variables)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    return said


def test_what_is_up_to_date_is_left_alone(root: Path) -> None:
    run(root)
    assert run(root) == ""
    assert asked(root).count(MADE) == 1


def test_of_what_pip_says_large_downloads_are_shown_and_that_it_waits(root: Path) -> None:
    said = run(root)
    assert "\n      Get a.whl (9.5 MB)\n      no answer; pip tries again\n" in said
    assert "Get b" not in said
    assert "Get b" in (root / ".venv" / "install.log").read_text()


def test_a_copied_folder_gets_an_environment_of_its_own(root: Path) -> None:
    # The old one's programs name the old folder: they would run its code, or not start where it is gone.
    run(root)
    copy = root.parent / "copy"
    shutil.copytree(root, copy)
    run(copy)
    assert asked(root).count(MADE) == 2


def test_a_folder_by_way_of_a_link_is_the_same_folder(root: Path) -> None:
    run(root)
    link = root.parent / "link"
    link.symlink_to(root)
    assert run(link) == ""


def test_two_at_once_wait_for_each_other(root: Path) -> None:
    if shutil.which("flock") is None:
        pytest.skip("no flock")
    wait = root.parent / "asked.wait"
    wait.touch()
    first = start(root)
    while "pip install" not in asked(root):
        assert first.poll() is None
        time.sleep(0.02)
    second = start(root)
    assert second.stdout is not None
    line = second.stdout.readline()
    wait.unlink()
    assert "another one is at work" in line
    for process in (first, second):
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert asked(root).count(MADE) == 1


def test_what_a_shell_sets_for_pip_and_python_does_not_lead_elsewhere(root: Path) -> None:
    run(root, PIP_USER="1", PIP_TARGET="/there", PYTHONPATH="/elsewhere", PYTHONHOME="/there")
    installs = [line for line in asked(root).splitlines() if "pip install" in line]
    assert installs and all(line.endswith("user=0 elsewhere=") for line in installs), installs


def test_half_of_another_environment_is_not_taken_for_the_old_one(root: Path) -> None:
    run(root)
    run(root, code=1, SAYS="3.13", BREAKS="-m venv")
    run(root)
    assert asked(root).count(MADE) == 3


def test_an_active_environment_is_not_made_out_of_itself(root: Path) -> None:
    venv.create(root / ".venv", symlinks=True, with_pip=False)
    own = root / ".venv" / "bin" / "python3"
    refuses = root.parent / "refuses"
    refuses.mkdir()
    (refuses / "rclpy.py").write_text("raise ImportError\n")
    # A ROS that does not fit is refused, and the message names the Python that was chosen.
    ros = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/opt/ros/jazzy", "PYTHONPATH": str(refuses)}
    said = run(root, code=1, PYTHON=str(own), **ros)
    assert str(root) not in said
    assert os.path.realpath(sys.executable) in said


@pytest.mark.parametrize("part", ["-m venv", "pip install"])
def test_what_fails_ends_with_what_to_do(root: Path, part: str) -> None:
    said = run(root, code=1, BREAKS=part)
    assert "ERROR: broken" in said
    assert "disk" in said.splitlines()[-1]


def test_an_interruption_is_called_one(root: Path) -> None:
    wait = root.parent / "asked.wait"
    wait.touch()
    process = start(root, new_session=True)
    while "pip install" not in asked(root):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("venv: interrupted"), said
    assert "network" not in said
    wait.unlink()
    run(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("folder", [".", ".venv"])
def test_a_folder_of_somebody_else_is_said_to_be_so(root: Path, folder: str) -> None:
    run(root)
    (root / "setup.py").write_text("newer")
    (root / folder).chmod(0o555)
    said = run(root, code=1)
    (root / folder).chmod(0o755)
    assert len(said.splitlines()) == 1
    assert "sudo chown" in said


def test_other_machines_are_told_to_install_ros_and_how_to_go_without(root: Path) -> None:
    said = run(root, code=1, MACHINE="aarch64")
    assert "source /opt/ros/DISTRO/setup.bash && make venv" in said
    assert "-m venv .venv && .venv/bin/pip install '.[offline]'" in said
    assert MADE not in asked(root)


def test_a_python_that_is_not_there_is_named(root: Path) -> None:
    assert "sudo apt install python3.99 python3.99-venv" in run(root, code=1, PYTHON="python3.99")
    said = run(root, code=1, PYTHON="/opt/python3.12")
    assert "/opt/python3.12" in said
    assert "apt" not in said


def test_a_python_that_is_too_old_is_asked_for_no_more_than_its_version(root: Path) -> None:
    assert "is Python 2.7; 3.10 or newer is needed" in run(root, code=1, SAYS="2.7")
    assert len(asked(root).splitlines()) == 1
    for name in ("python3.9", "python2", "python2.7"):  # not there either, and not worth installing
        said = run(root, code=1, PYTHON=name, PATH=f"{root.parent / 'bin'}:/usr/bin:/bin")
        assert "3.10 or newer is needed" in said and "apt" not in said


def test_a_python_newer_than_the_wheels_needs_a_ros_of_its_own(root: Path) -> None:
    assert "wheels exist for Python 3.10 to 3.14" in run(root, code=1, SAYS="3.15")
    assert MADE not in asked(root)
    run(root, SAYS="3.15", ROS_DISTRO="lyrical", AMENT_PREFIX_PATH="/opt/ros/lyrical")
    assert MADE in asked(root)


def test_make_hands_on_a_python_whatever_characters_its_path_has(root: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make")
    shutil.copy(SCRIPT.parent.parent / "Makefile", root)
    python = "/opt/it's here/python3"
    given = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(["make", "venv", f"PYTHON={python}"], env=given, cwd=root, capture_output=True, text=True)
    assert f"venv: there is no Python at {python}\n" in done.stderr
