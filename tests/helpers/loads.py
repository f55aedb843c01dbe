"""Processes that keep a core busy, and /proc and /sys trees, for tests of what watches the machine."""

import contextlib
import os
import signal
import subprocess
import sys
import time

BUSY = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
end = time.time() + 30
while time.time() < end:
    pass
"""
# Ends at once, so that what it starts is nobody's child: not part of what the test's own process started.
STARTER = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)
"""


@contextlib.contextmanager
def child(core):
    """A child of this process that keeps a core busy; gives its id once it is at work."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(core)])
    try:
        time.sleep(0.5)
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def stranger(core):
    """The same, started by somebody else."""
    command = [sys.executable, "-c", STARTER, BUSY, str(core)]
    pid = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    try:
        time.sleep(0.5)
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def put(root, **files):
    """Write files below a root: `put(root, **{"proc/stat": text})`."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n")
