"""Writes the reference pages that come from the code: `python docs/generate.py`; a test proves them current."""

from __future__ import annotations

from pathlib import Path

from orderwire.config import Settings

REFERENCE = Path(__file__).resolve().parent / "reference"


def settings_page() -> str:
    """Return the page of all settings, as Markdown."""
    rows = [
        f"| `ORDERWIRE_{name.upper()}` | {_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Environment variables, or lines of a `.env` file in the working folder. All mistakes are listed at start.",
            "Generated from `config.py` by `docs/generate.py`.",
            "",
            "| variable | default | meaning |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _default(value: object) -> str:
    return "(empty)" if value in ("", ()) else f"`{value}`"


PAGES = {REFERENCE / "settings.md": settings_page}


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for path, page in PAGES.items():
        path.write_text(page())


if __name__ == "__main__":
    main()
