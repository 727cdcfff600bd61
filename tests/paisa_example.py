"""The example's broker, importable: its adapter, and a desk at it."""

import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "new_broker"
sys.path += [str(EXAMPLE / "src"), str(EXAMPLE / "tests")]

from desk import PaisaDesk, open_desk  # noqa: E402 - the path comes first
from orderwire_paisa import messages  # noqa: E402
from orderwire_paisa.adapter import PaisaAdapter  # noqa: E402
from orderwire_paisa.stream import StreamingPaisaAdapter  # noqa: E402

__all__ = ["EXAMPLE", "PaisaAdapter", "PaisaDesk", "StreamingPaisaAdapter", "messages", "open_desk"]
