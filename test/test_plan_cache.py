"""Compiled engines on disk: found by all they depend on, never used when damaged, built once by many processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drive_seg.engines import kernels
from drive_seg.engines.build import Job, Made, obtain
from drive_seg.engines.gate import Agreement
from drive_seg.engines.kernels.source import Compiler
from drive_seg.engines.plan_cache import Plan, PlanCache, PlanKey
from drive_seg.errors import EngineError
from drive_seg.model import load_model
from drive_seg.resources import find_model

KEY = PlanKey("net", "ab" * 32, 1, "10.3.0", "NVIDIA Test", "9.0", 132, "fp16", 640, 384, 1, 2048)
GOOD = Agreement(8, 1.0, 0.0, 0.0, 0.0)

# A process that wants the plan: it says when it starts to build, takes its time, and prints what it got.
BUILDER = """
import sys, time
from pathlib import Path
from drive_seg.engines.build import Job, Made, obtain
from drive_seg.engines.gate import Agreement
from drive_seg.engines.plan_cache import PlanCache, PlanKey
from drive_seg.model import load_model
from drive_seg.resources import find_model

folder, seconds, mark = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
key = PlanKey("net", "ab" * 32, 1, "10.3.0", "NVIDIA Test", "9.0", 132, "fp16", 640, 384, 1, 2048)

def make(job, progress, cancelled):
    print("building", flush=True)
    time.sleep(seconds)
    return Made(mark.encode() * 100_000, b"timing", Agreement(8, 1.0, 0.0, 0.0, 0.0))

job = Job(load_model(find_model("default")), key, 0)
plan = obtain(job, PlanCache(folder), make)
print("got", plan.data[:1].decode(), len(plan.data), flush=True)
"""


def job() -> Job:
    return Job(load_model(find_model("default")), KEY, 0)


def want(folder: Path, seconds: float, mark: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(folder), str(seconds), mark]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_plan_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "deep" / "cache")
    assert cache.load(KEY) is None
    path = cache.store(Plan(KEY, b"plan" * 1000, {"seconds": 1.5}))
    assert cache.load(KEY) == Plan(KEY, b"plan" * 1000, {"seconds": 1.5})
    assert [file.name for file in path.parent.iterdir()] == [path.name], "temporary files are left"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(PlanKey)])
def test_every_part_of_the_key_counts(field: str, tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.store(Plan(KEY, b"plan", {}))
    value = getattr(KEY, field)
    other = dataclasses.replace(KEY, **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert cache.load(other) is None
    # Neither is a plan used under a name that is not its own.
    cache.path(KEY).rename(cache.path(other))
    assert cache.load(other) is None


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlanCache, Path, bytes]:
    cache = PlanCache(tmp_path_factory.mktemp("damaged"))
    path = cache.store(Plan(KEY, bytes(range(200)), {}))
    return cache, path, path.read_bytes()


@settings(deadline=None)
@given(cut=st.integers(1, 800), place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_damaged_plan_is_as_good_as_none(
    cut: int, place: int, flip: int, stored: tuple[PlanCache, Path, bytes]
) -> None:
    cache, path, whole = stored
    place %= len(whole)
    for content in (
        whole[: max(0, len(whole) - cut)],
        whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :],
        whole + b"more",
        *(whole[:length] for length in (0, 1, 17, 48, 49, 56)),  # within the header, and just behind it
    ):
        path.write_bytes(content)
        assert cache.load(KEY) is None
    path.write_bytes(whole)
    assert cache.load(KEY) is not None


def test_a_damaged_plan_is_built_again(tmp_path: Path) -> None:
    cache, built = PlanCache(tmp_path), []

    def make(job: Job, progress: object, cancelled: object) -> Made:
        built.append(job.timing)
        return Made(b"plan", b"times", GOOD)

    assert obtain(job(), cache, make).data == b"plan"
    assert obtain(job(), cache, make).data == b"plan"
    assert built == [b""], "the second call is served from the cache"
    cache.path(KEY).write_bytes(cache.path(KEY).read_bytes()[:-1])
    obtain(job(), cache, make)
    obtain(job(), cache, make, rebuild=True)
    assert built == [b"", b"times", b"times"], "later builds are given the timing cache"
    obtain(job(), cache, lambda *_: Made(b"plan", b"", GOOD), rebuild=True)
    obtain(job(), cache, make, rebuild=True)
    assert built[-1] == b"times", "which stays where a build has none to give"


def test_kernel_times_that_cannot_be_kept_cost_no_engine(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.timing_path(KEY).mkdir(parents=True)
    assert obtain(job(), cache, lambda *_: Made(b"plan", b"times", GOOD)).data == b"plan"
    assert cache.load(KEY) is not None


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_whom_the_umask_lets_may_read_what_another_user_has_built(umask: int, mode: int, tmp_path: Path) -> None:
    former = os.umask(umask)
    try:
        obtain(job(), PlanCache(tmp_path), lambda *_: Made(b"plan", b"timing", GOOD))
        kernels.cubin((9, 0), tmp_path, Compiler("1", lambda source, options: b"cubin"))
    finally:
        os.umask(former)
    kept = {path.suffix: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert kept == dict.fromkeys((".engine", ".cache", ".lock", ".cubin"), mode)


def test_an_engine_that_disagrees_is_refused_with_figures_and_not_stored(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    bad = Agreement(8, 0.42, 30.0, float("nan"), 0.1)
    with pytest.raises(EngineError, match=r"8 frames.*equal labels 42\.00.* < 99\.50%.*confidence.*heat") as refused:
        obtain(job(), cache, lambda *_: Made(b"plan", b"", bad))
    assert "offsets" not in str(refused.value), "what is met is not complained of"
    assert cache.load(KEY) is None


def test_the_kernel_times_of_an_engine_that_is_refused_are_kept(tmp_path: Path) -> None:
    """They are most of a build, and true; whoever tries another reference or precision would measure them again."""
    cache, former = PlanCache(tmp_path), []

    def make(job: Job, *_: object) -> Made:
        former.append(job.timing)
        return Made(b"plan", b"times", Agreement(8, 0.42, 30.0, 1.0, 0.1))

    for _ in range(2):
        with pytest.raises(EngineError, match="refused"):
            obtain(job(), cache, make)
    assert former == [b"", b"times"]


def test_a_failed_build_leaves_the_former_plan(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    obtain(job(), cache, lambda *_: Made(b"old", b"", GOOD))

    def fail(*_: object) -> Made:
        raise EngineError("no tactic")

    with pytest.raises(EngineError, match="no tactic"):
        obtain(job(), cache, fail, rebuild=True)
    assert obtain(job(), cache, fail).data == b"old"


def test_of_many_processes_one_builds_and_all_get_its_plan(tmp_path: Path) -> None:
    processes = [want(tmp_path, 0.5, mark) for mark in "abcd"]
    said = [process.communicate(timeout=60)[0].split("\n")[:-1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum("building" in lines for lines in said) == 1
    assert len({lines[-1] for lines in said}) == 1 and said[0][-1].endswith(" 100000")


def test_a_killed_builder_is_succeeded_by_the_next(tmp_path: Path) -> None:
    first = want(tmp_path, 60.0, "a")
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    second = want(tmp_path, 0.0, "b")
    time.sleep(0.3)
    assert second.poll() is None, "it waits while the first one lives"
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=60)[0] == "building\ngot b 100000\n"


def test_waiting_for_another_process_can_be_cancelled(tmp_path: Path) -> None:
    said: list[str] = []
    cache = PlanCache(tmp_path)

    def make(*_: object) -> Made:
        raise AssertionError("it is not this one's turn")

    with cache.locked(KEY) as mine:
        assert mine
        with pytest.raises(EngineError, match="cancelled"):
            obtain(job(), cache, make, lambda phase, *_: said.append(phase), lambda: bool(said))
    assert said == ["waiting for another process that builds it"]


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(EngineError, match="engine_cache_dir"):
        obtain(job(), PlanCache(file / "cache"), lambda *_: Made(b"", b"", GOOD))
    with pytest.raises(EngineError, match="engine_cache_dir"):
        PlanCache(file / "cache").store(Plan(KEY, b"", {}))


def test_what_cannot_be_put_in_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.path(KEY).mkdir()
    with pytest.raises(EngineError, match="engine_cache_dir"):
        cache.store(Plan(KEY, b"plan", {}))
    assert list(tmp_path.iterdir()) == [cache.path(KEY)]


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, OSError])
def test_what_stops_a_writer_stays_what_it_is_and_leaves_no_file_open(
    stopped: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, files = PlanCache(tmp_path), Path("/proc/self/fd")
    before = len(list(files.iterdir()))
    cache.store(Plan(KEY, b"plan", {}))
    synced = os.fsync

    def stop(file: int) -> None:
        synced(file)
        raise stopped

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt if stopped is KeyboardInterrupt else EngineError):
        cache.store(Plan(KEY, b"another", {}))
    assert len(list(files.iterdir())) <= before and list(tmp_path.iterdir()) == [cache.path(KEY)]
    found = cache.load(KEY)
    assert found is not None and found.data == b"plan"


def test_a_plan_that_cannot_be_removed_says_what_to_set(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    cache.path(KEY).mkdir()
    with pytest.raises(EngineError, match="engine_cache_dir"):
        cache.forget(KEY)


def test_a_plan_that_is_not_there_can_be_forgotten(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "cache")
    cache.forget(KEY)
    cache.store(Plan(KEY, b"plan", {}))
    cache.forget(KEY)
    assert cache.load(KEY) is None


def test_kernel_times_are_kept_by_gpu_and_tensorrt_and_shared_by_networks(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    path = cache.timing_path(KEY)
    for other in ({"gpu": "NVIDIA Other"}, {"capability": "8.6"}, {"tensorrt": "11.0.0"}):
        assert cache.timing_path(dataclasses.replace(KEY, **other)) != path
    same = dataclasses.replace(KEY, model="other", precision="int8", width=320, batch=6)
    assert cache.timing_path(same) == path


def test_what_another_process_finished_just_now_is_not_built_again(tmp_path: Path) -> None:
    class Late(PlanCache):
        """The other process stores its plan and lets go between our look and our turn."""

        looks = 0

        def load(self, key: PlanKey) -> Plan | None:
            self.looks += 1
            return Plan(key, b"theirs", {}) if self.looks > 1 else None

    assert obtain(job(), Late(tmp_path), lambda *_: pytest.fail("built again")).data == b"theirs"


@pytest.mark.parametrize("name", ["../../up", "/tmp/elsewhere", "a/b", "nul\0", "x" * 400, "\ud800"])
def test_a_model_s_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    """It is whatever its sidecar says."""
    cache = PlanCache(tmp_path / "cache")
    key = dataclasses.replace(KEY, model=name)
    assert cache.store(Plan(key, b"plan", {})).resolve().parent == tmp_path / "cache"
    assert cache.load(key) == Plan(key, b"plan", {}) and cache.load(KEY) is None
    with cache.locked(key) as mine:
        assert mine
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
