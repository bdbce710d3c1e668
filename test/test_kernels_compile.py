"""The kernels through NVIDIA's compilers, which need no GPU: no spills, few registers; and the cache of cubins."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from drive_seg.engines import kernels
from drive_seg.engines.kernels import source
from drive_seg.errors import EngineError

NVCC = shutil.which("nvcc")
NVRTC = source.find_nvrtc()
NAMES = {kernel.name for kernel in kernels.FRAME_KERNELS}
MOST_REGISTERS = 65536 // (3 * 256)  # three blocks of 256 threads share the 64 K registers of a multiprocessor


@pytest.mark.skipif(NVCC is None, reason="nvcc is not on PATH")
@pytest.mark.parametrize("capability", [(7, 5), (8, 7), (9, 0)], ids=["Turing", "Orin", "Hopper"])
def test_kernels_neither_spill_nor_crowd_a_multiprocessor(capability: tuple[int, int], tmp_path: Path) -> None:
    given = tmp_path / "kernels.cu"
    given.write_text(kernels.source_text())
    options = [*source.options_for(capability), "--cubin", "--Werror=all-warnings", "-Xptxas=-v"]
    command = [str(NVCC), *options, "-o", str(tmp_path / "out.cubin"), str(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if re.search(r"[Uu]nsupported gpu architecture|not defined for option 'gpu-architecture'", done.stderr):
        pytest.skip(f"this nvcc no longer or not yet compiles for {options[0]}")
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.findall(
        r"Function properties for (\w+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r"\s+ptxas info\s+: Used (\d+) registers",
        done.stderr,
    )
    assert {name for name, *_ in found} == NAMES
    for name, stack, stores, loads, registers in found:
        assert (stack, stores, loads) == ("0", "0", "0"), f"{name} spills: {stores} stored, {loads} loaded"
        assert int(registers) <= MOST_REGISTERS, f"{name} takes {registers} registers"


@pytest.mark.skipif(NVRTC is None, reason="NVRTC is not installed (pip install nvidia-cuda-nvrtc)")
def test_nvrtc_takes_the_source() -> None:
    assert NVRTC is not None
    code = kernels.cubin((8, 7), compiler=source.nvrtc_compiler(NVRTC))
    assert code.startswith(b"\x7fELF")
    for name in NAMES:
        assert name.encode() in code


def test_source_needs_nothing_but_itself() -> None:
    text = kernels.source_text()
    assert re.findall(r"#include\s+(\S+)", text) == ["<stdint.h>"]  # not seen by NVRTC
    for name in NAMES:
        assert len(re.findall(rf"extern \"C\" __global__ void __launch_bounds__\(256, \d\) {name}\(", text)) == 1


class Fake:
    """A compiler that notes what it was given."""

    def __init__(self, identity: str = "1") -> None:
        self.calls: list[tuple[str, ...]] = []
        self.compiler = source.Compiler(identity, self._compile)

    def _compile(self, text: str, options: tuple[str, ...]) -> bytes:
        self.calls.append(options)
        return b"code for " + options[0].encode()


def test_a_cubin_is_made_once_per_gpu_and_compiler(tmp_path: Path) -> None:
    fake, newer = Fake(), Fake("2")
    for _ in range(2):
        assert kernels.cubin((9, 0), tmp_path, fake.compiler) == b"code for --gpu-architecture=sm_90"
        assert kernels.cubin((8, 7), tmp_path, fake.compiler) == b"code for --gpu-architecture=sm_87"
    kernels.cubin((9, 0), tmp_path, newer.compiler)
    assert len(fake.calls) == 2
    assert len(newer.calls) == 1
    assert len(list(tmp_path.iterdir())) == 3, "temporary files stayed behind"


def test_a_compiler_is_needed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where an image is made with a CUDA toolkit and runs without one."""
    kernels.cubin((9, 0), tmp_path / "cache", Fake().compiler)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(source, "find_nvrtc", lambda: None)
    assert kernels.cubin((9, 0), tmp_path / "cache") == b"code for --gpu-architecture=sm_90"
    with pytest.raises(EngineError, match="need a compiler once"):
        kernels.cubin((8, 7), tmp_path / "cache")
    monkeypatch.setattr(source, "source_text", lambda: "a newer release")
    with pytest.raises(EngineError, match="need a compiler once"):
        kernels.cubin((9, 0), tmp_path / "cache")


def test_a_folder_that_cannot_be_written_costs_a_compilation_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where an image brings the plans, and is mounted read-only."""
    fake = Fake()
    (tmp_path / "file").write_text("no folder")
    assert kernels.cubin((9, 0), tmp_path / "file" / "cache", fake.compiler) == b"code for --gpu-architecture=sm_90"
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 400])
def test_a_damaged_file_is_made_again(damage: bytes, tmp_path: Path) -> None:
    fake = Fake()
    good = kernels.cubin((9, 0), tmp_path, fake.compiler)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(damage)
    assert kernels.cubin((9, 0), tmp_path, fake.compiler) == good
    assert len(fake.calls) == 2
    assert kernels.cubin((9, 0), tmp_path, fake.compiler) == good
    assert len(fake.calls) == 2


@pytest.mark.skipif(NVCC is None, reason="nvcc is not on PATH")
def test_nvccs_complaint_reaches_the_user() -> None:
    with pytest.raises(EngineError, match=r"nvcc could not compile the kernels: .*gpu"):
        source.nvcc_compiler(Path(str(NVCC))).compile("", source.options_for((1, 0)))


def test_no_compiler_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(source, "find_nvrtc", lambda: None)
    with pytest.raises(EngineError, match="pip install nvidia-cuda-nvrtc"):
        source.find_compilers()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF of another processor", "nvcc cannot be run: .*[Ee]xec format error"),
        (b"#!/bin/sh\nprintf 'unbekanntes Ger\\344t' >&2; exit 1\n", "nvcc could not compile the kernels: unbekanntes"),
    ],
)
def test_an_nvcc_that_is_of_no_use_is_an_error_like_none(
    content: bytes, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvcc").write_bytes(content)
    (tmp_path / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(source, "find_nvrtc", lambda: None)
    with pytest.raises(EngineError, match=message):
        kernels.cubin((9, 0))


def test_where_nvcc_does_not_know_the_gpu_nvrtc_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Ubuntu 22.04's nvcc and any GPU since 2022."""
    asked = tmp_path / "asked"
    (tmp_path / "nvcc").write_text(f"#!/bin/sh\necho . >> {asked}\necho Unsupported gpu architecture >&2; exit 1\n")
    (tmp_path / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    newer = Fake()
    monkeypatch.setattr(source, "find_nvrtc", lambda: "libnvrtc.so.13")
    monkeypatch.setattr(source, "nvrtc_compiler", lambda library: newer.compiler)
    for _ in range(2):
        assert kernels.cubin((9, 0), tmp_path / "cache") == b"code for --gpu-architecture=sm_90"
    assert len(newer.calls) == 1 and asked.read_text().count(".") == 1, "both are asked once"

    def refuse(text: str, options: tuple[str, ...]) -> bytes:
        raise EngineError("NVRTC could not compile the kernels: neither")

    monkeypatch.setattr(source, "nvrtc_compiler", lambda library: source.Compiler("1", refuse))
    with pytest.raises(EngineError, match=r"nvcc could not .*Unsupported gpu architecture; NVRTC could not .*neither"):
        kernels.cubin((9, 0))


def test_an_nvrtc_that_does_not_load_is_an_error_like_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "nvidia" / "cu13" / "lib" / "libnvrtc.so.13"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"cut short")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=r"NVRTC does not load: .*libnvrtc\.so\.13"):
        kernels.cubin((9, 0))
