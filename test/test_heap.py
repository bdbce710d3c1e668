"""Memory that frames free is used again instead of given back to the system."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

FRAMES = """
import resource, sys, threading
import numpy as np
from drive_seg.heap import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def score():
    for number in range(120):
        if number == 20:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        maps = [np.ones(1280 * 720 * 3, np.uint8) for _ in range(4)]
        del maps
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 100)

thread = threading.Thread(target=score)
thread.start()
thread.join()
"""


def page_faults(mode: str, **variables: str) -> float:
    """Page faults a frame in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FRAMES, mode], env=clean | variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")


@needs_glibc
def test_frames_of_one_size_cost_hardly_a_page_fault() -> None:
    assert page_faults("keep") < 20 < 200 < page_faults("leave")


@needs_glibc
@pytest.mark.parametrize(
    "variable", ["MALLOC_TRIM_THRESHOLD_=131072", "GLIBC_TUNABLES=glibc.malloc.trim_threshold=131072"]
)
def test_what_the_environment_says_of_malloc_stands(variable: str) -> None:
    name, _, value = variable.partition("=")
    assert page_faults("keep", **{name: value}) > 200
