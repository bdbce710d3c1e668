"""The command line. Each command is a module of ``drive_seg.commands``; what it needs is imported when it runs."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from drive_seg import __version__
from drive_seg.commands import benchmark, build_engine, demo, evaluate, info, network, run, sim
from drive_seg.commands.options import Debug, debug_wanted
from drive_seg.errors import DriveSegError, pip_install, printable
from drive_seg.signals import requests_to_end
from drive_seg.standard_streams import flush, occupy, outlive_terminal

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a system says whose disk, quota or largest file is full, most often of what stdout was sent to."""
_OUT_OF_REACH = (errno.ENAMETOOLONG, errno.EACCES)
"""What a system says that cannot even look whether there is such a file: of the name that the user gave."""
_NO_TEMPORARY_FOLDER = "No usable temporary directory"
"""What Python's tempfile says, as in a container whose root is read-only."""
_INTERRUPTED = 128 + signal.SIGINT
"""What typer makes, without a word, of a Ctrl-C that no command took; older ones say ``Aborted`` and end with 1."""

if tuple(map(int, typer.__version__.split(".")[:2])) < (0, 9):  # as in Ubuntu 22.04 and Debian 12
    sys.exit(f"drive_seg: error: typer {typer.__version__} is too old; install it with: {pip_install('typer>=0.9')}")


def _typed(command: Callable[..., None]) -> Callable[..., None]:
    """The command with annotations that are no strings: those tell typer 0.9.0, which Ubuntu 24.04 has, nothing."""
    command.__signature__ = inspect.signature(command, eval_str=True)  # type: ignore[attr-defined]
    return command


app = typer.Typer(
    name="drive_seg",
    help="Real-time panoptic segmentation of road scenes for ROS 2.",
    epilog="Start with: drive_seg demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", rich_help_panel="Run", epilog=demo.EXAMPLES)(_typed(demo.demo))
app.command("run", rich_help_panel="Run", epilog=run.EXAMPLES)(_typed(run.run))
app.command("sim", rich_help_panel="Run", epilog=sim.EXAMPLES)(_typed(sim.sim))
app.command("evaluate", rich_help_panel="Measure", epilog=evaluate.EXAMPLES)(_typed(evaluate.evaluate))
app.command("benchmark", rich_help_panel="Measure", epilog=benchmark.EXAMPLES)(_typed(benchmark.benchmark))
app.command("info", rich_help_panel="Measure", epilog=info.EXAMPLES)(_typed(info.info))
app.command("build-engine", rich_help_panel="Network", epilog=build_engine.EXAMPLES)(_typed(build_engine.build_engine))
app.command("train", rich_help_panel="Network", epilog=network.TRAIN_EXAMPLES)(_typed(network.train))
app.command("export", rich_help_panel="Network", epilog=network.EXPORT_EXAMPLES)(_typed(network.export))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"drive_seg {__version__}")
        raise typer.Exit


@app.callback()
@_typed
def _common(
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del debug, version  # both act in their callbacks


def main() -> None:
    """The console script: 0 done, 1 the work failed (one line on stderr), 2 bad usage."""
    occupy()
    outlive_terminal()
    # The other requests to end are taken like Ctrl-C: what is being written is closed in order.
    for number in set(requests_to_end()) - {signal.SIGINT}:  # a shell has its background jobs ignore this one
        signal.signal(number, signal.default_int_handler)
    # NumPy's OpenBLAS and SciPy's would each reserve 40 MB and start a thread per core, and no matrix here needs one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        try:
            app()
        finally:
            flush()
    except SystemExit as ended:
        if ended.code != _INTERRUPTED:
            raise
        _fail("interrupted")
    except DriveSegError as error:
        _fail(str(error))
    except BrokenPipeError:  # as after `| head`, whose user has seen enough
        sys.exit(1)
    except OSError as error:
        if error.errno in _OUT_OF_REACH and error.filename:
            _fail(f"cannot open {os.fsdecode(error.filename)}: {error.strerror}")
        if (error.strerror or "").startswith(_NO_TEMPORARY_FOLDER):
            _fail(f"{error.strerror}; TMPDIR=FOLDER names one that can be written")
        if error.errno not in _FULL:
            _fail_inside(error)
        _fail(f"cannot write{f' {error.filename}' if error.filename else ''}: {error.strerror}")
    except Exception as error:  # noqa: BLE001 - a bug of ours; users get a line, --debug the rest
        _fail_inside(error)


def _fail_inside(error: Exception) -> None:
    _fail(f"internal error: {type(error).__name__}: {error} (--debug shows where)")


def _fail(message: str) -> None:
    if debug_wanted():
        raise
    print(f"drive_seg: error: {printable(message)}", file=sys.stderr)
    sys.exit(1)
