"""The evaluation's documents: links lead somewhere, commands are the program's, and blocks run."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from orderwire import cli
from orderwire.config import Settings

ROOT = Path(__file__).parents[1]
HOWTOS = [ROOT / "docs/howto" / name for name in ("deploy.md", "roll-out.md", "roll-back.md")]
PAGES = sorted([*(ROOT / "docs/evaluation").glob("*.md"), *HOWTOS])
TEXTS = {page: page.read_text() for page in PAGES}
BLOCKS = re.compile(r"```sh\n.*?```", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", TEXTS[page]):
        assert (page.parent / target).exists(), target


def commands(text):
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    inline = re.findall(r"`(orderwire [^`]+)`", text.replace("\n", " "))
    lines = [line for line in [*blocks, *inline] if line.startswith("orderwire ")]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    for _program, *words in commands(TEXTS[page]):
        command = get_command(cli.app)
        rest = list(words)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        assert not hasattr(command, "commands"), f"no such command: {words}"
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


def test_the_deployment_guides_settings_exist():
    block = re.search(r"```ini\n(.*?)```", TEXTS[ROOT / "docs/howto/deploy.md"], re.DOTALL)[1]
    reference = (ROOT / "docs/reference/settings.md").read_text()

    for line in block.splitlines():
        name, _, value = line.partition("=")
        assert f"`{name}`" in reference
        field = (
            "use_event_driven_orders" if name.startswith("USE") else name.removeprefix("ORDERWIRE_").lower()
        )
        Settings.__pydantic_validator__.validate_assignment(Settings.model_construct(), field, value)


def in_blocks(page):
    """The commands of a page that stand in blocks of their own: those a reader copies."""
    return [words for _program, *words in commands("\n".join(BLOCKS.findall(TEXTS[page])))]


def test_the_deployment_guides_commands_run(tmp_path):
    lines = in_blocks(ROOT / "docs/howto/deploy.md")

    for words in lines:
        given = [word.replace("orderwire-data", str(tmp_path / "data")) for word in words]
        told = CliRunner().invoke(cli.app, given)
        assert told.exit_code == 0, (words, told.output, told.exception)
    assert len(lines) == 4


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "deploy.md" and in_blocks(page)],
    ids=lambda page: page.name,
)
def test_a_pages_commands_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORDERWIRE_DATA_DIR", str(tmp_path / "data"))
    made = CliRunner().invoke(cli.app, ["init", "--later"])
    assert made.exit_code == 0, made.output

    for words in in_blocks(page):
        told = CliRunner().invoke(cli.app, words, input="y\n")
        assert told.exit_code == 0, (words, told.output, told.exception)
