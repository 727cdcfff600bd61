"""The built pages: which hashed file stands for which name, and whether they have been built at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orderwire.decoding import convert, decode
from orderwire.errors import UNDECODABLE, ConfigurationError

BUILD: Final = Path(__file__).parent / "static" / "build"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """One build of the pages. `version` changes with every build that differs."""

    version: str
    files: Mapping[str, str] = field(default_factory=dict)

    def path(self, name: str) -> str:
        """Return the path below `static/` of a built file, e.g. of `app.js`. Raises KeyError."""
        return f"build/{self.files[name]}"


def load_assets(build: Path = BUILD) -> Assets:
    """Read the manifest that frontend/build.mjs wrote. Raises ConfigurationError when there is none."""
    try:
        manifest = decode((build / "manifest.json").read_bytes(), dict[str, object])
        return Assets(version=str(manifest["version"]), files=convert(manifest["files"], dict[str, str]))
    except (OSError, KeyError, *UNDECODABLE) as error:
        raise ConfigurationError("The pages are not built: run `make pages`.") from error
