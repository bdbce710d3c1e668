"""The GPU in /diagnostics: the real nvidia-ml-py, and a node over DDS, on a driver that is played in C."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")

CUDA = """
#include <stddef.h>
#include <string.h>
int cuInit(unsigned f) { return 0; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGet(int *d, int n) { *d = n; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strcpy(s, "Fake GPU"); return 0; }
int cuDeviceGetPCIBusId(char *s, int n, int d) { strcpy(s, d ? "0000:41:00.0" : "0000:07:00.0"); return 0; }
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = (size_t)8192 << 20; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = 8; return 0; }
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuGetErrorName(int e, const char **s) { *s = "CUDA_ERROR_FAKE"; return 0; }
"""

NVML = """
#include <stdlib.h>
#include <string.h>
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Load;
enum { NOT_SUPPORTED = 3, NOT_FOUND = 6, LOST = 15 };
static int told(const char *name) { const char *all = getenv("NVML_SILENT"); return !all || !strstr(all, name); }
static int state(void) { return getenv("NVML_LOST") ? LOST : 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
const char *nvmlErrorString(int e) { return "GPU is lost"; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **handle)
{ *handle = (void *)8; return strcmp(pci, "0000:41:00.0") ? NOT_FOUND : 0; }
int nvmlDeviceGetMemoryInfo(void *h, Memory *m)
{ m->total = 8192ull << 20; m->used = 3000ull << 20; m->free = m->total - m->used; return state(); }
int nvmlDeviceGetUtilizationRates(void *h, Load *l)
{ l->gpu = 37; l->memory = 99; return told("load") ? state() : NOT_SUPPORTED; }
int nvmlDeviceGetPowerUsage(void *h, unsigned *mw) { *mw = 61500; return told("power") ? state() : NOT_SUPPORTED; }
int nvmlDeviceGetTemperature(void *h, int sensor, unsigned *c) { *c = sensor ? 0 : 84; return state(); }
static int reasons(unsigned long long *r) { *r = strtoull(getenv("NVML_REASONS"), 0, 16); return state(); }
#ifdef OLD
int nvmlDeviceGetCurrentClocksThrottleReasons(void *h, unsigned long long *r) { return reasons(r); }
#else
int nvmlDeviceGetCurrentClocksEventReasons(void *h, unsigned long long *r) { return reasons(r); }
#endif
"""

LOOK = """
import sys
from drive_seg.engines.gpu_watch import GpuWatch
from drive_seg.errors import EngineError
try:
    print(GpuWatch(int(sys.argv[1])).look())
except EngineError as error:
    print("EngineError:", error)
"""

NODE = """
import dataclasses, sys
import numpy as np
from drive_seg.engines import FunctionEngine
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline
from drive_seg.ros.node import SegmentationNode
from drive_seg.ros.process import run

def network(batch):
    n, h, w, _ = batch.shape
    heat, offsets = (np.zeros((n, c, h // 4, w // 4), np.float32) for c in (3, 2))
    return RawOutputs(np.ones((n, h, w), np.uint8), np.full((n, h, w), 255, np.uint8), heat, offsets)

def opener(config, allocate):
    engine = FunctionEngine(network, (64, 32), 1)
    engine.info = dataclasses.replace(engine.info, on_gpu=sys.argv[1] == "gpu")
    return Pipeline(engine, DRIVING, allocate=allocate)

sys.exit(run(lambda: SegmentationNode(opener=opener), sys.argv[:1] + sys.argv[2:]))
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with libraries of a driver, which processes that are started from here load."""
    build(tmp_path, "libcuda.so.1", CUDA)
    build(tmp_path, "libnvidia-ml.so.1", NVML)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":"))
    monkeypatch.setenv("NVML_REASONS", "0")
    return tmp_path


def build(folder: Path, name: str, source: str, *options: str) -> None:
    (folder / name).write_bytes(compiled(source, *options))


@cache
def compiled(source: str, *options: str) -> bytes:
    """A shared library, compiled once."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "source.c").write_text(source)
            command = ["cc", "-shared", "-fPIC", *options, "-o", f"{folder}/library.so", f"{folder}/source.c"]
            subprocess.run(command, check=True, capture_output=True)
            return Path(folder, "library.so").read_bytes()
    except FileNotFoundError:
        pytest.skip("no C compiler")


def look(gpu_id: int = 1) -> str:
    done = subprocess.run([sys.executable, "-c", LOOK, str(gpu_id)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def state(slowed_by: tuple[str, ...] = (), load: int | None = 37, power: float | None = 61.5) -> str:
    return (
        f"GpuState(memory_used_mb=3000, memory_total_mb=8192, load_percent={load}, temperature_c=84, "
        f"power_w={power}, slowed_by={slowed_by})"
    )


@pytest.mark.parametrize(
    ("reasons", "slowed_by"),
    [
        ("0", ()),
        ("7", ()),  # idle, clocks that were asked for, the power limit
        ("20", ("heat",)),
        ("60", ("heat",)),
        ("c8", ("the hardware", "heat", "the power supply")),
    ],
)
@pytest.mark.parametrize("age", ["new", "old"])
def test_what_the_driver_tells_is_read(
    driver: Path, monkeypatch: pytest.MonkeyPatch, reasons: str, slowed_by: tuple[str, ...], age: str
) -> None:
    if age == "old":
        build(driver, "libnvidia-ml.so.1", NVML, "-DOLD")
    monkeypatch.setenv("NVML_REASONS", reasons)
    assert look() == state(slowed_by)


def test_what_it_does_not_tell_is_left_open_and_a_lost_gpu_is_an_error(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVML_SILENT", "load power")
    assert look() == state(load=None, power=None)
    assert look(0).startswith("EngineError: NVML does not know GPU 0 (0000:07:00.0)")
    monkeypatch.setenv("NVML_LOST", "1")
    assert look().startswith("EngineError: GPU 1: GPU is lost")
    (driver / "libnvidia-ml.so.1").unlink()  # as on many Jetsons
    assert look().startswith("EngineError: NVML does not know GPU 1") and "Library Not Found" in look()


@pytest.mark.parametrize(
    ("where", "variable", "level", "said"),
    [
        ("gpu", "", 0, "Fake GPU"),
        ("gpu", "NVML_REASONS=40", 1, "Fake GPU is slowed down by heat"),
        ("gpu", "NVML_LOST=1", 2, "GPU 1: GPU is lost; the kernel's log has the Xid"),
        ("cpu", "", 0, None),
    ],
)
def test_a_node_that_computes_on_a_gpu_says_how_that_is(
    driver: Path, monkeypatch: pytest.MonkeyPatch, where: str, variable: str, level: int, said: str | None
) -> None:
    for module in ("rclpy", "vision_msgs"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    from peer import Peer

    if variable:
        monkeypatch.setenv(*variable.split("="))
    peer = Peer("-c", NODE, where, "--ros-args", "-p", "gpu_id:=1")
    try:
        peer.until(lambda: peer.values("engine").get("configured") == "true", "the engine in /diagnostics")
        if said is None:
            peer.until(lambda: peer.status("camera front"), "the camera in /diagnostics")
            assert not any("gpu" in status.name for message in peer.diagnostics for status in message.status)
            return
        status = peer.until(lambda: peer.status("gpu 1"), "the GPU in /diagnostics")
        assert (status.level[0], status.message, status.hardware_id) == (level, said, "0000:41:00.0")
        if level < 2:
            wanted = {"name": "Fake GPU", "memory_used_mb": "3000", "memory_total_mb": "8192", "load_percent": "37"}
            wanted |= {"temperature_c": "84", "power_w": "61.500", "slowed_by": "heat" if level else ""}
            assert peer.values("gpu 1") == wanted
    finally:
        peer.close()
