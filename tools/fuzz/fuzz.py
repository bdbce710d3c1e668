"""Throw damaged images, bags and sidecars at the readers for a while: python tools/fuzz/fuzz.py --seconds 600.

Each target runs in a process of its own with a limit on memory and on the time of one input. With atheris (libFuzzer;
``pip install atheris``, Python 3.11) inputs are chosen by coverage, without it by random damage to valid ones. What
breaks a target is kept in ``--out`` and ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

LIMIT_MB = 2048
ONE_INPUT_S = 60
MAX_LENGTH = 32768
SLICE_S = 60
"""Of a target in one process: atheris keeps every result of a comparison of NumPy arrays, 6 MB a second."""
VALUE = re.compile(rb'"[^"]*"|-?[0-9][0-9.]*|null|\[[^][]*\]|\{[^{}]*\}|\b[a-z_]+\b')
VALUES = [
    b"null",
    b"true",
    b"-1",
    b"0",
    b"7",
    b"1e999",
    b"NaN",
    b"1" * 25,
    b"0.5",
    b'""',
    b'"3001/1"',
    b"[]",
    b"{}",
    b"[[1, 2]]",
]
VALUES += [b"[" * 2000, b"9" * 5000, b'"\\ud800"', b"[null, 1]", b"-Infinity", b"4294967296", b"~", b"- x: [y]"]


def by_coverage(name: str, seconds: int, seed: int, out: Path) -> None:
    """Fuzz in this process with atheris, which ends it."""
    import atheris

    with atheris.instrument_imports(include=["drive_seg"]):
        import targets
    atheris.Setup(
        [
            sys.argv[0],
            str(out / "corpus" / name),
            f"-seed={seed + 1}",
            f"-max_total_time={seconds}",
            f"-timeout={ONE_INPUT_S}",
            f"-rss_limit_mb={LIMIT_MB}",
            f"-max_len={MAX_LENGTH}",
            f"-artifact_prefix={out}/{name}-",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        targets.TARGETS[name],
    )
    atheris.Fuzz()


def by_chance(name: str, seconds: int, seed: int, out: Path) -> None:
    """Fuzz in this process by random damage; prints what libFuzzer prints at its end."""
    import signal

    import targets

    generator = random.Random(seed)
    seeds = [path.read_bytes() for path in sorted((out / "corpus" / name).iterdir())]
    limit = LIMIT_MB << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    end, done, data = time.monotonic() + seconds, 0, b""
    try:
        while time.monotonic() < end:
            data = damaged(generator, generator.choice(seeds))
            signal.alarm(ONE_INPUT_S)
            targets.TARGETS[name](data)
            done += 1
    except BaseException:
        (out / f"{name}-crash").write_bytes(data)
        raise
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"stat::number_of_executed_units: {done}\nstat::peak_rss_mb: {peak}", file=sys.stderr)


def damaged(generator: random.Random, seed: bytes) -> bytes:
    """Some bytes replaced, cut out, doubled or put in; of text, half of the time, some values by others."""
    if seed.isascii() and generator.random() < 0.5:
        share = 1 / max(1, len(VALUE.findall(seed)))
        return VALUE.sub(lambda old: generator.choice(VALUES) if generator.random() < share else old[0], seed)
    data = bytearray(seed)
    for _ in range(generator.randint(1, 8)):
        at = generator.randrange(len(data) + 1)
        length = generator.choice((1, 1, 2, 4, 8, 64))
        same = bytes(data[at : at + length])
        piece = generator.choice((b"\xff" * length, bytes(length), generator.randbytes(length), same))
        data[at : at + generator.choice((0, length))] = piece
    return bytes(data[:MAX_LENGTH])


def main() -> int:
    """Run every target for its share of the time; prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        import atheris  # noqa: F401

        fuzz = by_coverage
    except ImportError:
        fuzz = by_chance
    options.out.mkdir(parents=True, exist_ok=True)
    if options.inside:
        fuzz(options.target, options.seconds, options.seed, options.out)
        return 0
    import targets

    names = [options.target] if options.target else list(targets.TARGETS)
    if options.seconds < len(names):  # nothing would be tried, and nothing found
        parser.error(f"--seconds must be at least {len(names)}, one for each target; got {options.seconds}")
    failed = False
    for name in names:
        corpus = options.out / "corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(targets.seeds(name)):
            (corpus / f"seed{number}").write_bytes(seed)
        command = [sys.executable, __file__, "--inside", "--target", name, "--out", str(options.out)]
        failed |= not run(name, fuzz.__name__, command, options.seconds // len(names))
    return int(failed)


def run(name: str, how: str, command: list[str], seconds: int) -> bool:
    """Fuzz a target, slice by slice; prints a line, and what broke it. Returns whether nothing did."""
    inputs, peak, code, left = 0, 0, 0, seconds
    while left > 0 and not code:
        piece = min(left, SLICE_S)
        left -= piece
        more = ["--seconds", str(piece), "--seed", str(left)]
        done = subprocess.run([*command, *more], capture_output=True, text=True, errors="replace", check=False)
        said = dict(re.findall(r"stat::(number_of_executed_units|peak_rss_mb):\s*(\d+)", done.stderr))
        inputs += int(said.get("number_of_executed_units", 0))
        peak = max(peak, int(said.get("peak_rss_mb", 0)))
        code = done.returncode
    line = {"target": name, "how": how, "exit": code, "inputs": inputs, "peak_rss_mb": peak}
    print(json.dumps(line), flush=True)
    if code:
        print(done.stderr[-3000:], flush=True)
    return not code


if __name__ == "__main__":
    sys.exit(main())
