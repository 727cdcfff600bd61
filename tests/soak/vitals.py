"""What a process uses, by its own account and the system's (Linux)."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from orderwire.service import Service

UNITS = {
    "memory": "MiB",
    "files": "open files",
    "threads": "threads",
    "tasks": "tasks on the feed loop",
    "depth": "events in the queue",
}
"""What is watched, and in what it is counted."""


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
                    "threads": len(list(Path("/proc/self/task").iterdir())),
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


def memory() -> int:
    """Return the bytes of anonymous memory this process occupies: what it asked for and has not given back."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not say what memory is used")


def tidy() -> None:
    """Collect garbage and hand free pages back, so that memory is told as it is used and not as it once was."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
