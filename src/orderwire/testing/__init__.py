"""What a broker-integration developer tests with: the adapter contract and in-memory stand-ins for the service."""

from orderwire.testing.contract import AdapterContract, Check
from orderwire.testing.desk import BrokerDesk, FakeClock, RecordingPublisher, open_tools, unlimited
from orderwire.testing.line import Line, Request, Response, cut, instead, replayed, rewritten, silent

__all__ = [
    "AdapterContract",
    "BrokerDesk",
    "Check",
    "FakeClock",
    "Line",
    "RecordingPublisher",
    "Request",
    "Response",
    "cut",
    "instead",
    "open_tools",
    "replayed",
    "rewritten",
    "silent",
    "unlimited",
]
