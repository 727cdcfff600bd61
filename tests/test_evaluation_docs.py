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
PAGES = sorted([*(ROOT / "docs/evaluation").glob("*.md"), ROOT / "docs/howto/deploy.md"])
TEXTS = {page: page.read_text() for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", TEXTS[page]):
        assert (page.parent / target).exists(), target


def commands(text):
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    inline = re.findall(r"`(orderwire [^`]+)`", text.replace("\n", " "))
    return [shlex.split(line) for line in [*blocks, *inline] if line.startswith("orderwire ")]


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


def test_the_deployment_guides_commands_run(tmp_path):
    lines = commands("\n".join(re.findall(r"```sh\n.*?```", TEXTS[ROOT / "docs/howto/deploy.md"], re.DOTALL)))

    for _program, *words in lines:
        given = [word.replace("orderwire-data", str(tmp_path / "data")) for word in words]
        told = CliRunner().invoke(cli.app, given)
        assert told.exit_code == 0, (words, told.output, told.exception)
    assert len(lines) == 4
