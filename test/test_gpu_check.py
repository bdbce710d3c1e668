"""``tools/gpu_check.sh`` without a GPU: where it puts what, with Pythons that only write down what they were asked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "gpu_check.sh"
PYTHON = """#!/bin/bash
echo "$*" >> "$ASKED"
all=$*
out=
while [ $# -gt 0 ]; do
    if [ "$1" = --out ]; then out=$2; fi
    shift
done
case $out in
    *.npz) echo arrays > "$out" ;;
    ?*) echo "a case" >> "$out/tensorrt.json" ;;
esac
echo "said"
if [[ -n ${BREAKS:-} && $all == *benchmark* ]]; then exit 1; fi
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with nothing but the script and the models' sidecars."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    root = tmp_path / "root"
    (root / "tools").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "models" / "default.yaml").write_text("name: default\n")
    shutil.copy(SCRIPT, root / "tools")
    python = root / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    (root / "tmp").mkdir()
    return root


def check(root: Path, *arguments: str, out: str = "", **variables: str) -> str:
    """Run it; what the Pythons were asked."""
    asked = root / "asked"
    asked.unlink(missing_ok=True)
    paths = {"PYTHON": str(root / "python"), "ASKED": str(asked), "TMPDIR": str(root / "tmp")}
    own = {"REFERENCE_PYTHON": "", "TORCH_PYTHON": "", "DRIVE_SEG_DATA": "", "OUT": out}
    ended = subprocess.run(
        [str(root / "tools" / "gpu_check.sh"), *arguments],
        env={**os.environ, **own, **paths, **variables},
        cwd=root.parent,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not ended.stderr
    return asked.read_text()


@pytest.mark.parametrize("out", ["", "results/here", "{}/absolute"])
def test_results_go_where_they_are_wanted_and_arrays_do_not(out: str, root: Path, tmp_path: Path) -> None:
    asked = check(root, out=out.format(tmp_path))
    folder = root / (out.format(tmp_path) or "out/gpu")
    assert {path.name for path in folder.iterdir()} == {"tests.log", "benchmark.log", "tensorrt.json"}
    assert f"--out {folder}" in asked
    assert "test/test_gpu.py test/test_kernels_gpu.py" in asked
    arrays = list(root.parent.rglob("*.npz"))
    assert sorted(path.name for path in arrays) == ["reference_default.npz", "reference_simulator.npz"]
    assert all(path.is_relative_to(root / "tmp") for path in arrays)


def test_parts_add_up_even_where_each_has_a_folder_of_its_own(root: Path, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    asked = check(root, "tests", "-k", "Parity", out=str(first))
    assert "-k Parity test/test_gpu.py" in asked and "benchmark" not in asked
    asked = check(root, "benchmark", out=str(second), SIZES="640x384", PRECISIONS="fp16")
    assert "--sizes 640x384 --precisions fp16" in asked
    assert "-m pytest" not in asked and "engines.reference" not in asked
    check(root, "benchmark", out=str(third))
    assert (third / "tensorrt.json").read_text() == "a case\n" * 2
    assert (third / "tests.log").read_text() == "said\n" and (third / "benchmark.log").read_text() == "said\n" * 2
    check(root, "tests")
    assert (root / "out" / "gpu" / "tests.log").read_text() == "said\n" * 2
    assert (root / "out" / "gpu" / "tensorrt.json").read_text() == "a case\n" * 2


def test_a_folder_of_an_earlier_run_takes_nothing_of_later_ones_away(root: Path, tmp_path: Path) -> None:
    first, kept = tmp_path / "first", root / "out" / "gpu"
    check(root, "benchmark", out=str(first))
    check(root, "benchmark")
    check(root, "tests", out=str(first))
    assert (kept / "tensorrt.json").read_text() == "a case\n" * 2
    check(root, "benchmark", out=str(first))
    assert (first / "tensorrt.json").read_text() == (kept / "tensorrt.json").read_text() == "a case\n" * 3
    assert (first / "benchmark.log").read_text() == "said\n" * 3
    assert (first / "tensorrt.json~").read_text() == "a case\n", "what it had is not thrown away either"


@pytest.mark.parametrize("arguments", [["test"], ["-k", "Parity"], ["--help"], ["benchmark", "--sizes", "640x384"]])
def test_what_it_does_not_know_starts_no_run_of_hours(arguments: list[str], root: Path) -> None:
    ended = subprocess.run(
        [str(root / "tools" / "gpu_check.sh"), *arguments],
        env={**os.environ, "PYTHON": str(root / "python"), "ASKED": str(root / "asked")},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2 and "gpu_check.sh tests [ARGUMENTS]" in ended.stderr
    assert not (root / "asked").exists() and not (root / "out").exists()


def test_the_python_with_torch_is_the_one_on_the_path_here(root: Path) -> None:
    """The Python with TensorRT may come with a PATH of its own, on which the same name is another."""
    other = root / "bin" / "python_of_torch"
    other.parent.mkdir()
    shutil.copy(root / "python", other)
    path = f"{other.parent}{os.pathsep}{os.environ['PATH']}"
    asked = check(root, "benchmark", PATH=path, TORCH_PYTHON="python_of_torch")
    assert f"--torch-python {other} " in asked
    asked = check(root, "benchmark", PATH=path, TORCH_PYTHON="not_there")
    assert "--torch-python not_there " in asked


def test_what_was_measured_before_a_failure_is_kept(root: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="results in"):
        check(root, out=str(tmp_path / "first"), BREAKS="1")
    for folder in (tmp_path / "first", root / "out" / "gpu"):
        assert {path.name for path in folder.iterdir()} == {"tests.log", "benchmark.log", "tensorrt.json"}


def test_tests_that_cannot_be_run_cost_no_benchmark(root: Path, tmp_path: Path) -> None:
    asked = root / "asked"
    paths = {"PYTHON": str(root / "python"), "ASKED": str(asked), "TMPDIR": str(root / "tmp")}
    own = {"REFERENCE_PYTHON": "/bin/false", "TORCH_PYTHON": "", "OUT": "", "DRIVE_SEG_DATA": ""}
    ended = subprocess.run(
        [str(root / "tools" / "gpu_check.sh")],
        env={**os.environ, **own, **paths},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1 and "no tests without" in ended.stdout
    assert "-m pytest" not in asked.read_text() and "benchmark --backend tensorrt --full" in asked.read_text()


def test_what_pytest_says_of_a_run_that_ctrl_c_ends_is_in_the_log(root: Path) -> None:
    """Why tests failed is in its last lines; Ctrl-C reaches the whole foreground group, also what writes the log."""
    trap = "trap 'sleep 0.3; echo why; exit 2' INT; echo said; for _ in {1..600}; do sleep 0.1; done"
    (root / "python").write_text(
        PYTHON.replace('echo "said"', f'if [[ $all == *"-m pytest"* ]]; then {trap}; fi\necho "said"')
    )
    own = {"REFERENCE_PYTHON": "", "TORCH_PYTHON": "", "OUT": "", "DRIVE_SEG_DATA": ""}
    paths = {"PYTHON": str(root / "python"), "ASKED": str(root / "asked"), "TMPDIR": str(root / "tmp")}
    run = subprocess.Popen(
        [str(root / "tools" / "gpu_check.sh"), "tests"],
        env={**os.environ, **own, **paths},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # a background job ignores it
    )
    log = root / "out" / "gpu" / "tests.log"
    deadline = time.monotonic() + 60
    while not (log.is_file() and "said" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(timeout=60) == 130
    assert log.read_text() == "said\nwhy\n"
