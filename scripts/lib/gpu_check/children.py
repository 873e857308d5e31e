"""Whatever happens, no process of a run is left behind."""

import contextlib
import ctypes
import os
import pathlib
import signal
import time

PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 10


def adopt_orphans():
    """Processes whose parent ends become ours, and not those of the system."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_all():
    """Kills all that is ours, and what becomes ours by that. Returns the names of those that ran."""
    killed = {}
    end = time.monotonic() + PATIENCE
    reap()
    while (ours := children()) and time.monotonic() < end:
        for pid in ours:
            killed.setdefault(pid, name(pid))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.01)
    return list(killed.values())


def name(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def reap():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def children():
    own = os.getpid()
    pids = (int(folder.name) for folder in pathlib.Path("/proc").iterdir() if folder.name.isdigit())
    return [pid for pid in pids if parent(pid) == own]


def parent(pid):
    try:
        # The name before it is in brackets and may hold anything.
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None
