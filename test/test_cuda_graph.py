"""CUDA graphs: captured, launched and given up, with a driver in C that counts and fails as it is told."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from drive_seg.engines.cuda_graph import CudaGraph
from drive_seg.errors import EngineError

DRIVER = """
#include <stddef.h>
int fail_begin, fail_end, fail_make, fail_launch, graphs, executables, launches, capturing, mode;
void *launched_on, *captured_on;
int cuStreamBeginCapture_v2(void *s, int m)
{ if (fail_begin) return 901; captured_on = s; mode = m; capturing = 1; return 0; }
int cuStreamEndCapture(void *s, void **g)
{ if (s != captured_on || !capturing) return 400;
  capturing = 0; *g = NULL; if (fail_end) return fail_end; graphs++; *g = &graphs; return 0; }
int cuGraphInstantiateWithFlags(void **e, void *g, unsigned long long f)
{ if (fail_make || g != &graphs || f) return 801; executables++; *e = &executables; return 0; }
int cuGraphLaunch(void *e, void *s)
{ if (fail_launch || e != &executables) return 719; launched_on = s; launches++; return 0; }
int cuGraphDestroy(void *g) { if (!g) return 1; graphs--; return 0; }
int cuGraphExecDestroy(void *e) { executables--; return 0; }
"""
STREAM = 0x7F00_1234_5678


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    (tmp_path / "cuda.c").write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "cuda.c"], check=True, capture_output=True)
    return library


class State:
    """The driver's variables."""

    def __init__(self, driver: Path) -> None:
        self._library = ctypes.CDLL(str(driver))

    def __getitem__(self, name: str) -> int:
        return ctypes.c_int.in_dll(self._library, name).value

    def __setitem__(self, name: str, value: int) -> None:
        ctypes.c_int.in_dll(self._library, name).value = value

    def address(self, name: str) -> int | None:
        return ctypes.c_void_p.in_dll(self._library, name).value


def test_work_is_captured_once_and_launched_often(driver: Path) -> None:
    state, seen = State(driver), []
    graph = CudaGraph(STREAM, lambda: seen.append(state["capturing"]), str(driver))
    assert seen == [1] and state["mode"] == 1 and state.address("captured_on") == STREAM
    assert (state["graphs"], state["executables"]) == (0, 1), "only what is launched is kept"
    for _ in range(3):
        graph.launch(STREAM + 8)
    assert state["launches"] == 3 and state.address("launched_on") == STREAM + 8 and seen == [1]
    graph.close()
    graph.close()
    assert state["executables"] == 0


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        ("fail_begin", 1, r"begin a capture .*901"),
        ("fail_end", 900, r"capture this work .*900"),
        ("fail_make", 1, "make it"),
    ],
)
def test_what_cannot_be_captured_leaves_nothing(failure: str, code: int, message: str, driver: Path) -> None:
    state = State(driver)
    state[failure] = code
    with pytest.raises(EngineError, match=message):
        CudaGraph(STREAM, lambda: None, str(driver))
    assert (state["graphs"], state["executables"], state["capturing"]) == (0, 0, 0)


@pytest.mark.parametrize("invalidated", [0, 901])
@pytest.mark.parametrize("failure", [EngineError, RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_ends_the_capture(failure: type[BaseException], invalidated: int, driver: Path) -> None:
    state = State(driver)
    state["fail_end"] = invalidated

    def enqueue() -> None:
        raise failure("TensorRT could not start a batch of 1")

    with pytest.raises(failure, match="could not start"):
        CudaGraph(STREAM, enqueue, str(driver))
    assert (state["graphs"], state["capturing"]) == (0, 0)


def test_a_launch_that_fails_is_an_error(driver: Path) -> None:
    graph = CudaGraph(STREAM, lambda: None, str(driver))
    State(driver)["fail_launch"] = 1
    with pytest.raises(EngineError, match=r"launch it .*719"):
        graph.launch(STREAM)
