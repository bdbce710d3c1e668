"""Whether `drive_seg run` needs more memory for a larger bag, and whether it runs in less memory than the bag has.

    python benchmarks/bounded_memory.py --gigabytes 2 --limit-mb 512

Writes bags of 1280x720 noise of two sizes for each kind of storage (about 3.5 times --gigabytes at a time in --folder),
runs them with --copy-inputs in processes of their own, and prints the peak resident memory of each. The kernel refuses
those processes more than --limit-mb of private writable memory (RLIMIT_DATA: heap and anonymous mappings; not files,
of which the page cache may keep as much as it likes). A process that reads the larger bag at once under the same limit
is the control: it must fail. Needs Linux and the extra `offline`; no privileges.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT = 1280, 720
FRAME_BYTES = WIDTH * HEIGHT * 3
KINDS = ("mcap", "sqlite3", "mcap cut off", "ros1")
READ_AT_ONCE = "import pathlib, sys; sys.exit(len(pathlib.Path(sys.argv[1]).read_bytes()) == 0)"


@dataclass(frozen=True)
class Run:
    """One process: ``exit_code`` 1 is right for a bag that is cut off."""

    kind: str
    bag_mb: int
    frames: int
    peak_rss_mb: int
    seconds: float
    exit_code: int


def write_bag(folder: Path, kind: str, frames: int) -> Path:
    """A bag of noise, rolled by one byte for each frame."""
    from rosbags.typesys import Stores, get_typestore

    ros1 = kind == "ros1"
    store: Any = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    msgtype = "sensor_msgs/msg/Image"
    noise = np.random.default_rng(0).integers(0, 256, FRAME_BYTES, np.uint8)
    path = folder / ("in.bag" if ros1 else "in")
    with open_writer(path, kind) as writer:
        connection = writer.add_connection("/camera/image_raw", msgtype, typestore=store)
        for number in range(frames):
            stamp = store.types["builtin_interfaces/msg/Time"](1000 + number // 30, number % 30 * 33_000_000)
            header = store.types["std_msgs/msg/Header"](*([number] if ros1 else []), stamp, "camera")
            image = store.types[msgtype](header, HEIGHT, WIDTH, "rgb8", 0, WIDTH * 3, np.roll(noise, number))
            serialize = store.serialize_ros1 if ros1 else store.serialize_cdr
            writer.write(connection, stamp.sec * 10**9 + stamp.nanosec, serialize(image, msgtype))
    if ros1:
        return path
    (file,) = [file for file in path.iterdir() if file.suffix != ".yaml"]
    if kind == "mcap cut off":
        os.truncate(file, file.stat().st_size * 95 // 100)
    return file


def open_writer(path: Path, kind: str) -> Any:
    """The writer of rosbags for this kind."""
    if kind == "ros1":
        from rosbags.rosbag1 import Writer as Writer1

        return Writer1(path)
    from rosbags.rosbag2 import StoragePlugin, Writer

    return Writer(path, version=8, storage_plugin=StoragePlugin[kind.split()[0].upper()])


def limited(command: list[str], limit_mb: int) -> tuple[int, int, str]:
    """(exit code, peak resident MB, stdout) of a process that may have so much private memory.

    The kernel's peak counts what the process was forked from, so this script's own 100 MB are the least it can say.
    """
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit_mb << 20, limit_mb << 20)),
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss >> 10, said


def measure(kind: str, frames: int, limit_mb: int, options: list[str], scratch: Path) -> Run:
    """Write a bag, run it."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        bag = write_bag(folder, kind, frames)
        command = [sys.executable, "-m", "drive_seg", "run", str(bag), "-o", str(folder / "out.mcap")]
        started = time.monotonic()
        code, peak, said = limited([*command, "--copy-inputs", "--json", *options], limit_mb)
        seconds = time.monotonic() - started
        done = json.loads(said.splitlines()[-1])["frames"]["published"] if said else 0
        return Run(kind, bag.stat().st_size >> 20, done, peak, round(seconds, 1), code)


def control(gigabytes: float, limit_mb: int, scratch: Path) -> int:
    """Exit code of a process that reads as much at once."""
    with tempfile.NamedTemporaryFile(dir=scratch) as file:
        os.truncate(file.name, int(gigabytes * 2**30))
        return limited([sys.executable, "-c", READ_AT_ONCE, file.name], limit_mb)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the larger bag; the other has a quarter")
    parser.add_argument("--limit-mb", type=int, default=512, help="private writable memory of each process")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--folder", type=Path, default=None, help="for the bags; the system's temporary folder")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given, options = parser.parse_known_args()  # the rest goes to `drive_seg run`: --backend, --model
    if given.gigabytes * 1024 <= given.limit_mb:
        parser.error(f"--gigabytes must be more than the limit, {given.limit_mb / 1024:g}")
    refused = control(given.gigabytes, given.limit_mb, given.folder)
    print(f"limit {given.limit_mb} MB; a process that reads {given.gigabytes:g} GB at once ends with code {refused}")
    runs = []
    for kind in given.kinds:
        for size in (given.gigabytes / 4, given.gigabytes):
            runs.append(measure(kind, int(size * 2**30 / FRAME_BYTES), given.limit_mb, options, given.folder))
            print("  ".join(f"{name} {value}" for name, value in asdict(runs[-1]).items()), flush=True)
    good = refused != 0 and all(run.frames > 0 and run.exit_code == (run.kind == "mcap cut off") for run in runs)
    if given.json:
        print(json.dumps({"limit_mb": given.limit_mb, "control": refused, "runs": [asdict(run) for run in runs]}))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
