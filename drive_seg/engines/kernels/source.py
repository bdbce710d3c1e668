"""The kernels' source and their compilation to a cubin, by nvcc or NVRTC, kept on disk."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from drive_seg.engines.plan_cache import write_atomically
from drive_seg.errors import EngineError

_log = logging.getLogger(__name__)
_FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)

OPTIONS = ("--std=c++17", "--fmad=false")
"""Besides the architecture. The source says itself where a product may be fused; nothing else may be."""


@dataclass(frozen=True)
class Compiler:
    """Something that makes cubins.

    Attributes:
        identity: changes when another version is installed.
        compile: ``compile(source, options) -> cubin``; raises EngineError with the compiler's own words.
    """

    identity: str
    compile: Callable[[str, tuple[str, ...]], bytes]


def source_text() -> str:
    """All kernels as one text without includes of ours, as NVRTC and pycuda's SourceModule take it."""
    seen: set[str] = set()

    def text(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        own = (_FOLDER / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
        return _INCLUDE.sub(lambda found: text(found[1]), own)

    return text("kernels.cu")


def options_for(capability: tuple[int, int]) -> tuple[str, ...]:
    """Compiler options for a GPU's compute capability, good for nvcc and NVRTC."""
    return (f"--gpu-architecture=sm_{capability[0]}{capability[1]}", *OPTIONS)


def cubin(capability: tuple[int, int], cache_dir: Path | None = None, compiler: Compiler | None = None) -> bytes:
    """The compiled kernels, for ``cuModuleLoadData``.

    Args:
        capability: of the GPU, (9, 0) for sm_90.
        cache_dir: kept there under a name that says source, options and compiler, where it can be written (one that
            came with its plans may not be); None = no cache. Where no compiler is of use, another one's will do.
        compiler: the first of ``find_compilers()`` that takes them when None.

    Raises:
        EngineError: there is no compiler, or none takes them.
    """
    source, options = source_text(), options_for(capability)
    stem = f"kernels-sm{capability[0]}{capability[1]}-{_digest(source, *options)}"
    refusals: list[str] = []
    try:
        compilers = find_compilers() if compiler is None else [compiler]
    except EngineError as error:
        compilers, refusals = [], [str(error)]

    def place(compiler: Compiler) -> list[Path]:
        return [] if cache_dir is None else [cache_dir / f"{stem}-{_digest(compiler.identity)}.cubin"]

    # Before one that does not know this GPU is asked once more.
    code = _first_kept([path for candidate in compilers for path in place(candidate)])
    if code is not None:
        return code
    for candidate in compilers:
        try:
            code = candidate.compile(source, options)
        except EngineError as error:
            refusals.append(str(error))
            continue
        for path in place(candidate):
            _keep(path, code)
        return code
    code = None if cache_dir is None else _first_kept(sorted(cache_dir.glob(f"{stem}-*.cubin")))
    if code is None:
        raise EngineError("; ".join(refusals))
    return code


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _first_kept(paths: Iterable[Path]) -> bytes | None:
    return next((code for code in map(_kept, paths) if code is not None), None)


def _kept(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(path: Path, code: bytes) -> None:
    try:
        write_atomically(path, hashlib.sha256(code).digest() + code)
    except EngineError as error:
        _log.warning("the compiled kernels cannot be kept, and are compiled again next time: %s", error)


def find_compilers() -> list[Compiler]:
    """nvcc from the PATH or CUDA_HOME, then an NVRTC library: a distribution's nvcc may be older than the GPU.

    Raises:
        EngineError: there is neither.
    """
    found, trouble = [], ""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))
    if nvcc is not None:
        found.append(nvcc_compiler(Path(nvcc)))
    library = find_nvrtc()
    if library is not None:
        try:
            found.append(nvrtc_compiler(library))
        except EngineError as error:
            trouble = f" ({error})"
    if not found:
        raise EngineError(
            "the CUDA kernels need a compiler once: put nvcc of a CUDA toolkit on PATH, "
            f"or `pip install nvidia-cuda-nvrtc` (CUDA 12: nvidia-cuda-nvrtc-cu12){trouble}"
        )
    return found


def nvcc_compiler(nvcc: Path) -> Compiler:
    """The CUDA toolkit's compiler; needs a host compiler beside it."""

    def run(source: str, options: tuple[str, ...]) -> bytes:
        with tempfile.TemporaryDirectory(prefix="drive_seg-nvcc-") as folder:
            given, made = Path(folder) / "kernels.cu", Path(folder) / "kernels.cubin"
            given.write_text(source, encoding="utf-8")
            command = [str(nvcc), *options, "--cubin", "--output-file", str(made), str(given)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            except OSError as error:  # of another processor, for one: containers mount what their host has
                raise EngineError(f"{nvcc} cannot be run: {error}") from error
            if done.returncode != 0:
                raise EngineError(f"nvcc could not compile the kernels: {(done.stderr or done.stdout).strip()[-2000:]}")
            return made.read_bytes()

    stat = nvcc.resolve().stat()
    return Compiler(f"{nvcc.resolve()} {stat.st_size} {stat.st_mtime_ns}", run)


def find_nvrtc() -> Path | str | None:
    """NVRTC's library: of a pip wheel (nvidia-cuda-nvrtc), or the system's."""
    for entry in map(Path, sys.path):
        for pattern in ("nvidia/cu*/lib/libnvrtc.so.*", "nvidia/cuda_nvrtc/lib/libnvrtc.so.*"):
            found = sorted(entry.glob(pattern))
            if found:
                return found[-1]
    return ctypes.util.find_library("nvrtc")


def nvrtc_compiler(library: Path | str) -> Compiler:
    """NVIDIA's runtime compiler (NVRTC, 11.1 or newer): needs no toolkit and no host compiler.

    Raises:
        EngineError: the library does not load.
    """
    try:
        nvrtc = ctypes.CDLL(str(library))
    except OSError as error:
        raise EngineError(f"NVRTC does not load: {error}") from error
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))

    def ask(size_of: str, get: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        getattr(nvrtc, size_of)(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, get)(program, text)
        return text.raw

    def run(source: str, options: tuple[str, ...]) -> bytes:
        program = ctypes.c_void_p()
        if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None) != 0:
            raise EngineError("NVRTC could not start on the kernels")
        try:
            given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if nvrtc.nvrtcCompileProgram(program, len(options), given) != 0:
                log = (
                    ask("nvrtcGetProgramLogSize", "nvrtcGetProgramLog", program).rstrip(b"\0").decode(errors="replace")
                )
                raise EngineError(f"NVRTC could not compile the kernels: {log.strip()[-2000:]}")
            return ask("nvrtcGetCUBINSize", "nvrtcGetCUBIN", program)
        finally:
            nvrtc.nvrtcDestroyProgram(ctypes.byref(program))

    return Compiler(f"NVRTC {major.value}.{minor.value}", run)
