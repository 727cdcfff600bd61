"""A client that goes before it is answered is no error of the simulators."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web
from aiohttp.client_exceptions import ClientConnectionResetError
from aiohttp.test_utils import TestServer

from brokersim.kite.app import _envelope
from brokersim.xts.app import _nginx
from xts_harness import story


@pytest.mark.parametrize("middleware", [_envelope, _nginx])
@story
async def test_a_client_that_goes_while_it_is_answered_is_not_logged(middleware, caplog):
    ended = asyncio.Event()

    async def answer(request):
        request.transport.abort()  # as when the client's reset has come
        socket = web.WebSocketResponse()
        try:
            await socket.prepare(request)
        except ClientConnectionResetError:
            ended.set()
            raise
        return socket

    application = web.Application(middlewares=[middleware])
    application.router.add_get("/", answer)
    with caplog.at_level(logging.ERROR):
        async with TestServer(application) as server:
            _, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            await asyncio.wait_for(ended.wait(), 30)
            writer.close()

    assert not caplog.records, caplog.text
