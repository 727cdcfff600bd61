"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "orderwire"
MODULES = sorted(SOURCE.rglob("*.py"))

AIRLOCKS = {
    "engine.py",
    "feeds/loop.py",
    "feeds/supervisor.py",
    "brokers/registry.py",
    "web/app.py",
    "web/follow.py",
    "openalgo/mount.py",
}
CARRIERS = {"store/database.py", "feeds/watched.py"}
"""Hand whatever was raised to the thread or coroutine that it is for; nothing is kept from anybody."""
THREADS = {"engine.py", "feeds/loop.py"}
BROKERS = re.compile(r"zerodha|jainam|kite|symphony|\bxts\b", re.IGNORECASE)
NAMES_NO_BROKER = ("core", "feeds", "store", "engine.py", "monitoring", "pilot")


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_environment_is_read_only_in_config(path):
    found = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    ]

    assert not found or name_of(path) == "config.py"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_threads_start_only_in_the_engine_and_the_feed_loop(path):
    started = {"threading.Thread", "Thread", "ThreadPoolExecutor", "futures.ThreadPoolExecutor"} & set(
        calls(path)
    )

    assert not started or name_of(path) in THREADS


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_an_airlock_catches_everything(path):
    broad = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
        and not any(isinstance(n, ast.Raise) and n.exc is None for n in ast.walk(node))
    ]

    assert not broad or name_of(path) in AIRLOCKS | CARRIERS


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_cannot_be_decoded_is_caught_as_all_that_decoding_raises(path):
    """Bytes that are no UTF-8 are not msgspec's error: who catches its error alone is brought down by them."""
    caught = [
        ast.unparse(node.type)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and node.type is not None
    ]

    assert not [each for each in caught if re.search(r"\bDecodeError|MsgspecError", each)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_types_are_met_in_one_place_or_while_modules_are_loaded(path):
    """Two threads that make msgspec meet a type at once end the process (decoding.py)."""
    tree = ast.parse(path.read_text())
    loading = {
        id(part)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for part in ast.walk(node)
    }
    met = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and re.fullmatch(r"(msgspec\.)?(convert|(json|msgpack)\.(decode|Decoder))", ast.unparse(node.func))
        and id(node) not in loading
        and (len(node.args) > 1 or node.keywords or ast.unparse(node.func).endswith("Decoder"))
    ]
    ours = [each for each in met if each.startswith("convert(") or each.endswith("type=dict[str, Any])")]
    imported = {
        name.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "msgspec"
        for name in node.names
    }

    assert "convert" not in imported
    assert met == ours or name_of(path) == "decoding.py"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_brokers_name_stays_in_its_own_folder(path):
    if name_of(path).split("/")[0] not in NAMES_NO_BROKER:
        return
    code = ast.unparse(_without_docstrings(ast.parse(path.read_text())))

    assert not BROKERS.search(code)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_mutable_lives_at_module_level(path):
    mutable = [
        ast.unparse(node.value)[:60]
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func)
        in {"list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict"}
    ]

    assert not mutable


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_tls_is_always_verified(path):
    text = path.read_text()

    assert not re.search(r"verify\s*=\s*False|CERT_NONE|check_hostname\s*=\s*False", text)


def test_no_file_names_a_package_index_or_this_machine():
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout.decode()
    files = [ROOT / name for name in tracked.split("\0") if name]
    pattern = re.compile(
        r"https?://[^\s\"']*/simple/|registry\.npm" + r"js\.org|pythonhosted\." + "org|/work/" + "main"
    )
    offenders = [path for path in files if path.is_file() and pattern.search(path.read_text(errors="ignore"))]

    assert offenders == []


def _without_docstrings(tree: ast.Module) -> ast.Module:
    class Strip(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
            literal = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
            return None if literal else node

    return ast.fix_missing_locations(Strip().visit(tree))
