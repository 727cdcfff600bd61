"""What every part of the host shares: one Socket.IO object, CSRF, a limiter without default limits, one bus."""

from __future__ import annotations

from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_socketio import SocketIO
from flask_wtf.csrf import CSRFProtect
from utils.event_bus import EventBus

socketio = SocketIO(async_mode="threading", manage_session=False)
csrf = CSRFProtect()
limiter = Limiter(get_remote_address, storage_uri="memory://")
bus = EventBus()
