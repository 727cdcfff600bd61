"""Runs the simulated brokers: binds the three ports, keeps time flowing, stops cleanly."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from brokersim import control
from brokersim.kite import app as kite
from brokersim.proxy import Proxies
from brokersim.state import Keeper
from brokersim.world import Settings, World
from brokersim.xts import app as xts

LOOPBACK: Final = "127.0.0.1"
_FAREWELL: Final = 0.3


class PortTakenError(OSError):
    """A port could not be bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where to listen and how to behave. Port 0 lets the system choose; the control API is on loopback only.

    `state` is the file that keeps the brokers' books over restarts; without it everything is in memory.
    """

    host: str = LOOPBACK
    kite_port: int = 0
    xts_port: int = 0
    control_port: int = 0
    seed: int = 1
    kite_postback_url: str = ""
    kite_redirect_url: str = ""
    state: Path | None = None
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The brokers as they listen: host and actual ports, and the world behind them."""

    world: World
    host: str
    kite_port: int
    xts_port: int
    control_port: int

    @property
    def kite_url(self) -> str:
        """Root of Kite's REST, and with ws:// of its WebSocket."""
        return f"http://{self.host}:{self.kite_port}"

    @property
    def xts_url(self) -> str:
        """Root of the XTS host."""
        return f"http://{self.host}:{self.xts_port}"

    @property
    def control_url(self) -> str:
        """Root of the control API."""
        return f"http://{LOOPBACK}:{self.control_port}"


@contextlib.asynccontextmanager
async def running(options: Options | None = None, *, world: World | None = None) -> AsyncIterator[Running]:
    """Run all three hosts until the block ends. Raises PortTakenError, having bound nothing, and StateError.

    A `world` of one's own lets a test reach into the market; its settings are kept.
    """
    options = options or Options()
    world = world or World(seed=options.seed, settings=options.settings)
    kite_app = kite.build_app(world)
    proxies = Proxies(world.faults)
    hosts = (
        (kite_app, options.host, options.kite_port),
        (xts.build_app(world), options.host, options.xts_port),
        (control.build_app(world, kite_app[kite.KITE], proxies), LOOPBACK, options.control_port),
    )
    keeper = _remembering(world, options.state)
    _configure_demo_app(world, options)
    runners: list[web.AppRunner] = []
    async with contextlib.AsyncExitStack() as stack:
        if keeper:
            stack.push_async_callback(keeper.finish)
        stack.push_async_callback(_stop, world, runners)
        stack.push_async_callback(proxies.stop)
        ports = [await _listen(runners, *host) for host in hosts]
        proxies.targets = {"kite": (options.host, ports[0]), "xts": (options.host, ports[1])}
        world.spawn(world.run())
        if keeper:
            keeper.begin()
        yield Running(
            world=world,
            host=options.host,
            kite_port=ports[0],
            xts_port=ports[1],
            control_port=ports[2],
        )


def _remembering(world: World, path: Path | None) -> Keeper | None:
    keeper = Keeper(world, path) if path else None
    if keeper:
        keeper.restore()
    return keeper


def _configure_demo_app(world: World, options: Options) -> None:
    changes = {"postback_url": options.kite_postback_url, "redirect_url": options.kite_redirect_url}
    given = {name: value for name, value in changes.items() if value}
    if given:
        world.users.change_kite_app("demokite", **given)


async def _listen(runners: list[web.AppRunner], app: web.Application, host: str, port: int) -> int:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_FAREWELL, handle_signals=False)
    runners.append(runner)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise PortTakenError(f"cannot listen on {host}:{port}: {reason}") from error
    return int(runner.addresses[0][1])


async def _stop(world: World, runners: list[web.AppRunner]) -> None:
    await world.shut_down()
    await asyncio.gather(*(runner.cleanup() for runner in runners))
