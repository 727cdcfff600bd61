"""The service as a child process of the host: started, started again when it ends, gone when the host is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from orderwire.config import MountSettings

PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before the service is started again; the last one counts from then on."""

LASTED: Final = 30.0
"""Seconds after which it had started well: the next pause is the first again."""


def command(settings: MountSettings) -> list[str]:
    """Return what runs the service."""
    return [str(settings.python or sys.executable), "-m", "orderwire", "serve", "--make"]


class ServiceChild:
    """One child at a time. Its standard input is a pipe whose end tells it that the host is gone."""

    def __init__(
        self,
        settings: MountSettings,
        *,
        run: Sequence[str] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._run = list(run) or command(settings)
        self._now = now
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._ends = 0
        self._not_before = 0.0
        self.said = ""
        """Why it was last gone, in words for the operator; whoever hears from it again empties it."""

    @property
    def pid(self) -> int:
        """Its process id, 0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    @property
    def starts_in(self) -> float:
        """Seconds until it may be started again."""
        return max(0.0, self._not_before - self._now())

    def ensure(self) -> None:
        """Start it where it does not run and may be started. Never raises: `said` tells."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._ended(code)
        if self.starts_in > 0:
            return
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own service
                self._run,
                stdin=subprocess.PIPE,
                env=self._settings.child_environment(),
                start_new_session=True,
            )
        except OSError as error:
            self._failed(f"{self._run[0]} cannot be run: {error.strerror or error}")
            return
        self._began = self._now()

    def stop(self, patience: float = 10.0) -> None:
        """End it, as the end of the host does."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ended(self, code: int) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
        if self._now() - self._began >= LASTED:
            self._ends = 0
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}; its own log says why"
        self._failed(f"the service {how}")

    def _failed(self, why: str) -> None:
        pause = PAUSES[min(self._ends, len(PAUSES) - 1)]
        self._ends += 1
        self._not_before = self._now() + pause
        self.said = why
