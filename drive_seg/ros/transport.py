"""Process set-up that makes images travel fast: a shared-memory segment they fit into, and a heap that keeps its pages.

Must be called before ``rclpy.init()``. Fast DDS' default segment of 512 KB cannot hold an image, so best-effort
images are lost; glibc returns every freed image to the kernel and pays for its page faults again with the next one.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from drive_seg.heap import keep_freed_memory
from drive_seg.resources import config_file

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Where Fast DDS looks for its profile: the first up to Jazzy, the second from Kilted on."""

_BUILTIN = "FASTDDS_BUILTIN_TRANSPORTS"

SEGMENT_BYTES = 32 << 20
MESSAGE_BYTES = 8 << 20
_SMALLEST_SEGMENT = 4 << 20
_PROCESSES = 4  # camera, this node, a viewer and a recorder each take a segment of /dev/shm

_HEAP_STEP_BYTES = 64 << 20
_HEAP_BLOCK_BYTES = 24 << 20  # larger ones would not come from the heap
_HEAP_BLOCKS = 2


def prepare_process() -> str:
    """Set the DDS profile and the allocator for images; returns one line that says what was done."""
    return f"{choose_profile()}; {tune_malloc()}"


def choose_profile(shared_memory: Path = Path("/dev/shm")) -> str:
    """Point Fast DDS at our profile unless the user chose one, with a segment that ``shared_memory`` can hold."""
    for variable in PROFILE_VARIABLES:
        if variable in os.environ:
            chosen = os.environ[variable]
            for other in PROFILE_VARIABLES:  # this distribution reads only one of them
                os.environ.setdefault(other, chosen)
            return f"DDS profile {chosen} (from {variable})"
    if _BUILTIN in os.environ:  # which a profile with transports of its own would override
        return f"DDS profile left at its default, {_BUILTIN}={os.environ[_BUILTIN]} is set"
    rmw = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    if "fastrtps" not in rmw:
        return f"DDS profile left to {rmw}"
    try:
        free = shutil.disk_usage(shared_memory).free
    except OSError as error:
        return f"DDS profile left at its default, no shared memory: {error}"
    if not os.access(shared_memory, os.W_OK):
        return f"DDS profile left at its default, {shared_memory} cannot be written"
    size = segment_size(free)
    if size is None:
        return f"DDS profile left at its default, only {free >> 20} MB free in {shared_memory}; give it 128 MB or more"
    # There the rmw adds a UDP transport that is bound to this host to those of a profile; later ones have other means.
    udp = not (os.environ.get("ROS_LOCALHOST_ONLY") == "1" and os.environ.get("ROS_DISTRO") == "humble")
    try:
        profile = config_file("fastdds.xml") if size == SEGMENT_BYTES and udp else _adapted_profile(size, udp)
    except OSError as error:
        return (
            f"DDS profile left at its default, as one for the {free >> 20} MB free in {shared_memory} can be written "
            f"neither to the user's cache nor to a temporary folder: {error}; TMPDIR=FOLDER names one"
        )
    for variable in PROFILE_VARIABLES:
        os.environ[variable] = str(profile)
    return f"DDS profile {profile} with a segment of {size >> 20} MB ({free >> 20} MB free in {shared_memory})"


def segment_size(free: int) -> int | None:
    """Bytes of the segment this process may take of ``free`` bytes of shared memory; None when it is not worth one."""
    size = SEGMENT_BYTES
    while size * _PROCESSES > free:
        size //= 2
    return size if size >= _SMALLEST_SEGMENT else None


def _adapted_profile(size: int, udp: bool) -> Path:
    """A copy of the profile with a smaller segment, or without UDP, in the user's cache or else a temporary folder.

    Raises OSError where neither can be written.
    """
    text = config_file("fastdds.xml").read_text(encoding="utf-8")
    text = re.sub(r"(<segment_size>)\d+", rf"\g<1>{size}", text)
    text = re.sub(r"(<maxMessageSize>)\d+", rf"\g<1>{min(MESSAGE_BYTES, size // 2)}", text)
    if not udp:
        text = re.sub(
            r"<transport_descriptor>\s*<transport_id>drive_seg_udp<.*?</transport_descriptor>", "", text, flags=re.S
        )
        text = text.replace("<transport_id>drive_seg_udp</transport_id>", "")
    name = f"fastdds_{size >> 20}mb{'' if udp else '_local'}.xml"
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drive_seg"
        cache.mkdir(parents=True, exist_ok=True)
        return _written(text, cache / name)
    except (OSError, RuntimeError):  # a read-only home or none, as in hardened containers; a full disk
        return _written(text, Path(tempfile.mkdtemp(prefix="drive_seg_")) / name)


def _written(text: str, target: Path) -> Path:
    descriptor, partial = tempfile.mkstemp(dir=target.parent, suffix=".xml")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return Path(partial).replace(target)  # whole or not at all: other processes may be reading it
    except OSError:
        Path(partial).unlink()
        raise


def tune_malloc() -> str:
    """Let glibc keep the memory of freed images, and have some of it at hand."""
    said = keep_freed_memory(_HEAP_STEP_BYTES)
    # Touched once and freed, these pages stay: or else the first frames would pay for their faults.
    blocks = [b"\1" * _HEAP_BLOCK_BYTES for _ in range(_HEAP_BLOCKS)]
    return f"{said}, {sum(map(len, blocks)) >> 20} MB ready"
