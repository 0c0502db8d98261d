"""Runs one command and says what it and all its descendants took, in a process that has no other children.

CPU is what the kernel charged: this process adopts every descendant whose parent has gone (it is their subreaper) and waits for
each, and what a process was charged includes the children that it waited for. So no process is missed however short it lived,
which sampling would. Memory is sampled: resident bytes of all descendants together, pages that they share counted in each.

Reading begins when the first of the log's files is opened, by whomever, and ends when the result is in place: the kernel
tells (inotify), so that no peer is trusted with its own clock.

    python -m benchmarks.peers.measure LOG OUT SECONDS COMMAND ...
"""

import ctypes
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil

_EVERY = 0.2  # seconds
_GRACE = 10.0  # seconds until what outlives the command is ended
_IN_OPEN, _IN_ISDIR, _SET_CHILD_SUBREAPER = 0x20, 0x40000000, 36
_libc = ctypes.CDLL(None, use_errno=True)


class Opened:
    """When the first file of a log was opened."""

    def __init__(self, log: Path):
        self.at: float | None = None
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for folder in (log, log / "parquet"):
            if self._fd < 0 or _libc.inotify_add_watch(self._fd, str(folder).encode(), _IN_OPEN) < 0:
                raise OSError(ctypes.get_errno(), f"cannot watch {folder}")

    def poll(self) -> None:
        """Notes the time if a file has been opened since the last call."""
        try:
            told = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        while told and self.at is None:
            _, mask, _, length = struct.unpack_from("iIII", told)
            name = told[16 : 16 + length].rstrip(b"\0")
            if not mask & _IN_ISDIR and name.endswith((b".avro", b".parquet")):
                self.at = time.time()
            told = told[16 + length :]


def main() -> None:
    log, out, seconds, command = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    if _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit("this kernel has no subreapers")
    opened = Opened(log)
    began = time.time()
    root = subprocess.Popen(command, stdout=sys.stderr).pid
    cpu, peak, status, sampled = 0.0, 0, None, 0.0
    while status is None:
        opened.poll()
        if time.time() - sampled >= _EVERY:
            sampled = time.time()
            peak = max(peak, _resident())
            if sampled - began > seconds:
                _end(signal.SIGKILL)
        pid, code, usage = os.wait4(-1, os.WNOHANG)
        if pid:
            cpu += usage.ru_utime + usage.ru_stime
            status = code if pid == root else None
        else:
            time.sleep(0.01)
    ended = time.time()
    cpu += _rest()
    opened.poll()
    done = out.stat().st_mtime if out.is_file() else ended
    print(json.dumps({
        "status": os.waitstatus_to_exitcode(status), "seconds": ended - began, "starting": (opened.at or began) - began,
        "reading": done - (opened.at or began), "cpu": cpu, "peak": peak}))


def _family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _resident() -> int:
    total = 0
    for process in _family():
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def _rest() -> float:
    """CPU seconds of what is left, which is ended if it does not end by itself."""
    cpu, until, by = 0.0, time.time() + _GRACE, signal.SIGTERM
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return cpu
        if pid:
            cpu += usage.ru_utime + usage.ru_stime
        elif time.time() > until:
            _end(by)
            until, by = time.time() + _GRACE, signal.SIGKILL
        else:
            time.sleep(0.05)


def _end(by: signal.Signals) -> None:
    for process in _family():
        try:
            process.send_signal(by)
        except psutil.Error:
            continue


if __name__ == "__main__":
    main()
