"""The command line of drive_seg in tests: here, or in a process of its own where that is what is looked at."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from drive_seg import cli

Done = subprocess.CompletedProcess[str]


def drive_seg(*arguments: object, code: int = 0) -> Done:
    """What the console script says and ends with, run in this process: nothing is imported anew."""
    given = ["drive_seg", *map(str, arguments)]
    out, said = io.StringIO(), io.StringIO()
    found, before = 0, {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(said):
        patch.setattr(sys, "argv", given)
        patch.setenv("OPENBLAS_NUM_THREADS", os.environ.get("OPENBLAS_NUM_THREADS", "1"))
        patch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")  # glibc's own, and told: the heap of the tests stays as it is
        try:
            cli.main()
        except SystemExit as ended:
            found = int(ended.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return _checked(Done(given, found, out.getvalue(), said.getvalue()), code)


def drive_seg_process(*arguments: object, code: int = 0) -> Done:
    """The same in a process of its own, as users run it."""
    return python("-m", "drive_seg", *arguments, code=code)


def python(*arguments: object, code: int = 0) -> Done:
    """What another Python says and ends with."""
    command = [sys.executable, *map(str, arguments)]
    return _checked(subprocess.run(command, capture_output=True, text=True, timeout=300, check=False), code)


def interrupted(*arguments: object, once: Path) -> Done:
    """What a command says that gets Ctrl-C when a file is there."""
    command = [sys.executable, "-m", "drive_seg", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that: this one is to be interrupted.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    end = time.monotonic() + 60
    while not once.exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    return _checked(Done(command, process.returncode, out, said), 1)


def _checked(done: Done, code: int) -> Done:
    assert done.returncode == code, f"{done.args}: {done.stdout}\n{done.stderr}"
    return done


def errors(done: Done) -> list[str]:
    """The lines of stderr that say what failed."""
    return [line for line in done.stderr.splitlines() if "error:" in line]


def last_object(done: Done) -> dict[str, Any]:
    """The object of ``--json``."""
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found
