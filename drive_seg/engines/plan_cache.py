"""Compiled engines ("plans") on disk: found by everything that they depend on, checked before use, built once.

A file is ``magic, digest of the rest, length of the description, description (JSON), plan``. It is written beside its
place and renamed, so that a reader sees the old file, the new one or none, never a part. Whatever does not check out
is as good as absent.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drive_seg.errors import EngineError

_MAGIC = b"drive_seg plan 1\n"
_HEADER = struct.Struct(f"<{len(_MAGIC)}s32s")
_LENGTH = struct.Struct("<Q")
_LONGEST_NAME = 40
"""Characters of a model's name in that of a file."""


@dataclass(frozen=True)
class PlanKey:
    """Everything that a plan depends on; two that differ in one of these never share a file.

    Attributes:
        model: the model's name, for people who look into the folder.
        onnx_sha256: of the graph's file.
        recipe: version of what we do to the graph and ask of the builder, see ``build.RECIPE``.
        tensorrt: its version.
        gpu, capability, multiprocessors: name of the device, its compute capability, ``9.0``, and how many
            multiprocessors it has: kernels are chosen for so many, and parts of one name differ in them.
        precision: ``fp32``, ``fp16`` or ``int8``.
        width, height: network size; a plan serves this size only.
        batch: most images at once.
        workspace_mb: memory that the builder's choices may need.
    """

    model: str
    onnx_sha256: str
    recipe: int
    tensorrt: str
    gpu: str
    capability: str
    multiprocessors: int
    precision: str
    width: int
    height: int
    batch: int
    workspace_mb: int

    @property
    def digest(self) -> str:
        """A short name for all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]

    @property
    def text(self) -> str:
        """For people: ``default 640x384 x1 fp16, TensorRT 10.3.0, NVIDIA H100 (9.0), 3f9c...``."""
        return (
            f"{self.model} {self.width}x{self.height} x{self.batch} {self.precision}, TensorRT {self.tensorrt}, "
            f"{self.gpu} ({self.capability}), {self.digest[:8]}"
        )


@dataclass(frozen=True)
class Plan:
    """A plan that may be used: its bytes, and what was found out when it was built (gate figures, seconds)."""

    key: PlanKey
    data: bytes
    notes: dict[str, Any]


class PlanCache:
    """The plans in ``folder``, which is made when the first one is stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: PlanKey) -> Path:
        """Where the plan of ``key`` is, or would be."""
        name = re.sub(r"[^\w.-]", "_", key.model)[:_LONGEST_NAME]  # a sidecar may say "../x"; the digest has all of it
        return self.folder / f"{name}-{key.precision}-{key.width}x{key.height}x{key.batch}-{key.digest}.engine"

    def load(self, key: PlanKey) -> Plan | None:
        """The plan of ``key``; None where there is none that is whole, unchanged and really of this key."""
        try:
            content = self.path(key).read_bytes()
        except OSError:
            return None
        if len(content) < _HEADER.size:
            return None
        magic, digest = _HEADER.unpack_from(content)
        body = content[_HEADER.size :]
        if magic != _MAGIC or hashlib.sha256(body).digest() != digest:
            return None
        (length,) = _LENGTH.unpack_from(body)
        start = _LENGTH.size + length
        description = json.loads(body[_LENGTH.size : start])
        if description["key"] != asdict(key):  # a renamed file
            return None
        return Plan(key, body[start:], description["notes"])

    def store(self, plan: Plan) -> Path:
        """Keep a plan; a crash at any moment leaves the former state or the new one.

        Raises:
            EngineError: the folder cannot be written.
        """
        description = json.dumps({"key": asdict(plan.key), "notes": plan.notes}, sort_keys=True).encode()
        body = _LENGTH.pack(len(description)) + description + plan.data
        path = self.path(plan.key)
        write_atomically(path, _HEADER.pack(_MAGIC, hashlib.sha256(body).digest()) + body)
        return path

    def forget(self, key: PlanKey) -> None:
        """Remove the plan of ``key``, if there is one.

        Raises:
            EngineError: the folder cannot be written.
        """
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            raise EngineError(f"cannot remove {self.path(key)}: {error}; set engine_cache_dir") from error

    def timing_path(self, key: PlanKey) -> Path:
        """Where measured kernel times are kept: they hold for one TensorRT on one kind of GPU, for any network."""
        kind = f"{key.tensorrt} {key.gpu} {key.capability} {key.multiprocessors}"
        what = hashlib.sha256(kind.encode()).hexdigest()[:12]
        return self.folder / f"timing-{what}.cache"

    @contextmanager
    def locked(self, key: PlanKey) -> Iterator[bool]:
        """Hold the right to build ``key``; yields False when another process holds it.

        The lock is the kernel's (``flock``): it ends with the process that holds it, however that ends.

        Raises:
            EngineError: the folder cannot be written.
        """
        path = self.path(key).with_suffix(".lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as error:
            raise EngineError(f"the engine cache {self.folder} cannot be written: {error}; set engine_cache_dir") from (
                error
            )
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by a file with ``content``, on the disk before it gets its name.

    Raises:
        EngineError: it cannot be written.
    """
    # Not by tempfile, whose files are for their owner alone: who builds is not always who runs.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        with suppress(OSError):  # its folder may be what is wrong
            partial.unlink()
        if not isinstance(error, OSError):
            raise
        raise EngineError(f"cannot write {path}: {error}; set engine_cache_dir to a folder with room") from error
