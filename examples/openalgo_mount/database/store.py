"""The host's memory: one user, one broker login, one API key, in a file of its own."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from threading import Lock
from typing import Any

_LOCK = Lock()


def _path() -> Path:
    return Path(os.environ.get("HOST_FOLDER", "host-data")) / "host.json"


def read() -> dict[str, Any]:
    path = _path()
    with _LOCK:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = {"user": "trader", "password": "trader", "api_key": secrets.token_hex(32)}
            path.write_text(json.dumps(made))
        return json.loads(path.read_text())


def write(**changes: Any) -> None:
    held = read() | changes
    with _LOCK:
        fresh = _path().with_suffix(".new")
        fresh.write_text(json.dumps(held))
        fresh.replace(_path())
