"""The command `brokersim`: two brokers on the desk, for paper trading and for tests."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from brokersim import playing
from brokersim.running import LOOPBACK, Options, PortTakenError, Running, running
from brokersim.state import StateError
from brokersim.world import Settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exit code 1 if a port is taken, the state unusable or a line no day of orders; 2 for wrong arguments.
    """
    given = _parser().parse_args(arguments)
    if given.command == "play":
        _play(given.seed)
        return
    try:
        asyncio.run(_serve(_options(given)))
    except (PortTakenError, StateError) as error:
        sys.exit(f"brokersim: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="brokersim", description="Simulated Zerodha and Jainam brokers.")
    commands = parser.add_subparsers(required=True, dest="command", metavar="command")
    serve = commands.add_parser("serve", help="serve both brokers until interrupted")
    serve.add_argument("--kite-port", type=_port, default=8101, help="Kite REST and WebSocket (0: any)")
    serve.add_argument("--xts-port", type=_port, default=8102, help="XTS REST and Socket.IO (0: any)")
    serve.add_argument("--control-port", type=_port, default=8100, help="control API, loopback only (0: any)")
    serve.add_argument("--host", default=LOOPBACK, help="address of the brokers")
    serve.add_argument("--seed", type=int, default=1, help="chance of the market")
    serve.add_argument("--reply-ms", type=_milliseconds, default=30, help="time to answer a call")
    serve.add_argument("--push-ms", type=_milliseconds, default=20, help="time from an event to its push")
    serve.add_argument("--kite-postback-url", default="", help="where app demokite's postbacks go")
    serve.add_argument("--kite-redirect-url", default="", help="where app demokite's login returns to")
    serve.add_argument("--state", type=Path, metavar="FILE", help="keep the books over restarts in this file")
    played = commands.add_parser("play", help="play days of orders, one a line, in compressed time")
    played.add_argument("--seed", type=int, default=1, help="chance of the market")
    return parser


def _play(seed: int) -> None:
    try:
        for line in playing.play(sys.stdin, seed=seed):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    except playing.LineError as error:
        sys.exit(f"brokersim: {error}")
    except BrokenPipeError:
        sys.stderr.close()  # who asked has gone
        sys.exit(1)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port")
    return port


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 60_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 60000")
    return value


def _options(given: argparse.Namespace) -> Options:
    settings = Settings(reply_delay=given.reply_ms / 1000, push_delay=given.push_ms / 1000)
    return Options(
        host=given.host,
        kite_port=given.kite_port,
        xts_port=given.xts_port,
        control_port=given.control_port,
        seed=given.seed,
        kite_postback_url=given.kite_postback_url,
        kite_redirect_url=given.kite_redirect_url,
        state=given.state,
        settings=settings,
    )


async def _serve(options: Options) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with running(options) as sim:
        sys.stdout.write(_ready_line(sim))
        sys.stdout.flush()
        await stopped.wait()


def _ready_line(sim: Running) -> str:
    ready = {
        "kite": sim.kite_url,
        "xts": sim.xts_url,
        "control": sim.control_url,
        "kite_port": sim.kite_port,
        "xts_port": sim.xts_port,
        "control_port": sim.control_port,
    }
    return json.dumps(ready) + "\n"


if __name__ == "__main__":
    main()
