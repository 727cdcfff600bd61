"""What a process uses, by its own account and the system's (Linux)."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from orderwire.service import Service
from orderwire.web.app import PING_EVERY

UNITS = {
    "memory": "MiB",
    "files": "open files",
    "threads": "threads",
    "tasks": "tasks on the feed loop",
    "depth": "events in the queue",
}
"""What is watched, and in what it is counted."""

LATE = 10.0
"""Seconds by which a busy machine may wake a thread too late."""


class Vitals:
    """Writes lines of what the service's process uses into `path`. One thread."""

    def __init__(self, service: Service, path: Path) -> None:
        self._service = service
        self._file = path.open("a", buffering=1)
        self._begun = time.monotonic()

    def write(self, kind: str, **facts: Any) -> None:
        """Write one line: `kind` says at which point of the story, `facts` go with it."""
        statistics = self._service.engine.statistics()
        self._file.write(
            json.dumps(
                {
                    "kind": kind,
                    "seconds": round(time.monotonic() - self._begun, 3),
                    "memory": memory() / 2**20,
                    "bytes": memory(),
                    "files": len(list(Path("/proc/self/fd").iterdir())) - 1,
                    "threads": threads(),
                    "tasks": self._tasks(),
                    "depth": statistics.depth,
                    "blocks": sys.getallocatedblocks(),
                    "delivered": statistics.delivered,
                    "dead_lettered": statistics.dead_lettered,
                    "clients": len(self._service.realtime.audience),
                    "disk": sum(
                        file.stat().st_size for file in self._service.settings.data_dir.glob("*.db*")
                    ),
                    **facts,
                }
            )
            + "\n"
        )

    def _tasks(self) -> int:
        return self._service.loop.submit(_tasks()).result(30) - 1


async def _tasks() -> int:
    return len(asyncio.all_tasks())


def threads() -> int:
    """Count the threads, but for those that wait to ping a client: Engine.IO's end when they next look after it left."""
    waiting = {thread.native_id for thread in threading.enumerate() if thread.name.endswith("(_send_ping)")}
    return sum(_age(task) > PING_EVERY + LATE for task in waiting if task) + sum(
        int(task.name) not in waiting for task in Path("/proc/self/task").iterdir()
    )


def _age(task: int) -> float:
    """Return the seconds a thread of this process lives already; 0 of one that ended."""
    try:
        told = Path(f"/proc/self/task/{task}/stat").read_text()
    except OSError:
        return 0.0
    begun = int(told.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - begun


def memory() -> int:
    """Return the bytes of anonymous memory this process occupies: what it asked for and has not given back."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not say what memory is used")


class _MallInfo(ctypes.Structure):
    """What glibc's mallinfo2 tells, over all its arenas; see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def held() -> int | None:
    """Return the bytes that are allocated, by Python's allocator and by C's; None where C's is not glibc.

    What the system has given the process wavers by megabytes with how its pages are shared out; this does not, so a
    leak of a byte for each event is plain in it.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = _MallInfo
    info = libc.mallinfo2()
    return int(info.uordblks + info.hblkhd + _held_by_python())


def pages() -> int:
    """Return the bytes SQLite holds, most of it pages; 0 where it is not the system's library.

    A reader keeps pages until it next looks: megabytes come and go that say nothing of a leak.
    """
    try:
        sqlite = ctypes.CDLL("libsqlite3.so.0")
    except OSError:
        return 0
    sqlite.sqlite3_memory_used.restype = ctypes.c_int64
    return int(sqlite.sqlite3_memory_used())


def _held_by_python() -> int:
    """Read CPython's own account of its small blocks, which it writes to the standard error only."""
    with tempfile.TemporaryFile() as told:
        real = os.dup(2)
        try:
            os.dup2(told.fileno(), 2)
            sys._debugmallocstats()
        finally:
            os.dup2(real, 2)
            os.close(real)
        told.seek(0)
        text = told.read().decode(errors="replace")
    return int(re.search(r"# bytes in allocated blocks\s*=\s*([\d,]+)", text).group(1).replace(",", ""))


def tidy() -> None:
    """Collect garbage and hand free pages back, so that memory is told as it is used and not as it once was."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
