"""Holds a seat in a process of its own until it is killed: `python seat_holder.py sockets|FOLDER NAME`."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from orderwire.feeds.seats import FileSeats, Seats, SocketSeats


async def main(where: str, name: str) -> None:
    kind = SocketSeats() if where == "sockets" else FileSeats(Path(where))
    seats = Seats("orderwire at /data/other", process=4242, now=lambda: datetime.now(UTC), kind=kind)
    holder = await seats.take("theirs", [name])
    print("taken" if holder is None else holder.words, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
