"""Which signals ask a process to end in order, with what it has done so far written and closed."""

from __future__ import annotations

import signal


def requests_to_end() -> tuple[signal.Signals, ...]:
    """Ctrl-C, a supervisor's SIGTERM, and the SIGHUP of a terminal that is gone, as with an ssh connection.

    Not SIGHUP where it is ignored, which is what ``nohup`` asks for, nor where the system has none.
    """
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return (signal.SIGINT, signal.SIGTERM)
    return (signal.SIGINT, signal.SIGTERM, hangup)
