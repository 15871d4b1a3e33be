"""Ties a child process to the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_POLL_S = 1.0


def die_with(parent: int) -> None:
    """Get SIGTERM when `parent` (a process id) ends, however it ends; at once if it is gone already."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        # It may have died before the call, and then no signal comes.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
        return
    threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    waiting = threading.Event()
    while os.getppid() == parent:
        waiting.wait(_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
