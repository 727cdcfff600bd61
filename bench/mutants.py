"""Breaks the core in a thousand small ways and counts how many the tests of the core notice: `make mutants`.

    python bench/mutants.py [--module lifecycle] [--most 200] [--jobs 2] [--write]

A mutant is one function of `src/orderwire/core/` with one thing changed: a comparison turned or its border moved, `and`
for `or`, a condition denied, an arithmetic sign, a number one larger, True for False, a word altered, `max` for `min`,
a returned value left out. It is killed when a test of `tests/core` that reaches the changed line fails. Sentences for
people, annotations and docstrings are not changed. What survives is listed, with the line as it was and became.

The tests are collected once; each mutant is a fork of that process whose function gets the changed code.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import platform
import random
import resource
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "src" / "orderwire" / "core"
PAGE = ROOT / "docs" / "reference" / "mutants.md"
MOST_SECONDS = 20
"""CPU seconds a mutant may take: beyond, it hangs, and that is noticed too."""

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
SIGNS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
}
CALLS = {"max": "min", "min": "max", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    module: str
    function: str
    """Qualified name of the outermost function that is changed."""
    line: int
    was: str
    becomes: str
    number: int
    """Which change of the module it is; `changed_tree` finds it again."""

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line}: `{self.was}` → `{self.becomes}`"


class Mutator(ast.NodeTransformer):
    """Finds every change there is to a module, or makes the one that was asked for."""

    def __init__(self, wanted: int | None = None) -> None:
        self.wanted, self.count = wanted, 0
        self.found: list[tuple[str, int, str, str]] = []
        self._path: list[str] = []
        self._functions = 0

    def _offer(self, node: ast.AST, other: ast.AST) -> ast.AST:
        """Count a possible change; make it when it is the one asked for."""
        if not self._functions:
            return node
        number, self.count = self.count, self.count + 1
        where = ".".join(self._path)
        self.found.append((where, node.lineno, ast.unparse(node), ast.unparse(other)))
        return ast.copy_location(other, node) if number == self.wanted else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._path.append(node.name)
        node.body = [self.visit(part) for part in node.body]
        self._path.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outermost = not self._functions
        if outermost:
            self._path.append(node.name)
        self._functions += 1
        node.body = [part if _is_docstring(part) else self.visit(part) for part in node.body]
        self._functions -= 1
        if outermost:
            self._path.pop()
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        for place, operator in enumerate(node.ops):
            turned = [*node.ops[:place], COMPARISONS[type(operator)](), *node.ops[place + 1 :]]
            node = self._offer(node, ast.Compare(node.left, turned, node.comparators))
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return self._offer(node, ast.BoolOp(other, node.values))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return self._offer(node, node.operand) if isinstance(node.op, ast.Not | ast.USub) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        other = SIGNS.get(type(node.op))
        return self._offer(node, ast.BinOp(node.left, other(), node.right)) if other else node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        node.test = self._denied(node.test)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        node.test = self._denied(node.test)
        return node

    def _denied(self, test: ast.expr) -> ast.AST:
        if isinstance(test, ast.Name | ast.Attribute | ast.Call):  # comparisons are turned already
            return self._offer(test, ast.UnaryOp(ast.Not(), test))
        return test

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in CALLS or any(isinstance(part, ast.Starred) for part in node.args):
            return node
        return self._offer(node, ast.Call(ast.Name(CALLS[name], ast.Load()), node.args, node.keywords))

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        nothing = node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None)
        return node if nothing else self._offer(node, ast.Return(ast.Constant(None)))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = node.value
        if isinstance(value, bool):
            return self._offer(node, ast.Constant(not value))
        if isinstance(value, int | float):
            return self._offer(node, ast.Constant(value + 1))
        if isinstance(value, str) and " " not in value:
            return self._offer(node, ast.Constant(value + "X" if value else "X"))
        return node


def _is_docstring(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


def mutants_of(module: str) -> list[Mutant]:
    finder = Mutator()
    finder.visit(ast.parse((CORE / f"{module}.py").read_text()))
    return [Mutant(module, *where, number) for number, where in enumerate(finder.found)]


def put_in_place(mutant: Mutant) -> None:
    """Give the function in this process the changed code."""
    path = CORE / f"{mutant.module}.py"
    tree = Mutator(mutant.number).visit(ast.parse(path.read_text()))
    whole = compile(ast.fix_missing_locations(tree), str(path), "exec")
    thing: object = importlib.import_module(f"orderwire.core.{mutant.module}")
    *owners, name = mutant.function.split(".")
    for owner in owners:
        thing = getattr(thing, owner)
    function = vars(thing)[name]
    if isinstance(function, property):
        function = function.fget
    function = getattr(function, "__func__", getattr(function, "__wrapped__", function))
    function.__code__ = next(code for code in _codes(whole) if code.co_qualname == mutant.function)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield part
            yield from _codes(part)


class Round:
    """A pytest plugin: instead of running the tests once it runs them for every mutant, each in a fork."""

    def __init__(self, mutants: list[Mutant], *, jobs: int, minutes: float) -> None:
        self.mutants, self.jobs, self.minutes = mutants, jobs, minutes
        self.tried: list[Mutant] = []
        self.survivors: list[Mutant] = []
        self.unreached = 0
        self._reach: dict[tuple[str, int], set[int]] = {}
        self._seconds: list[float] = []

    def pytest_sessionstart(self) -> None:
        from hypothesis import settings  # after pytest, which wants to see it imported

        settings.register_profile("mutants", derandomize=True, database=None, max_examples=50, deadline=None)
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._look(session)
        running: dict[int, Mutant] = {}
        began, done = time.monotonic(), 0
        waiting = list(self.mutants)
        while waiting or running:
            if self.minutes and time.monotonic() - began > self.minutes * 60:
                waiting.clear()
            while waiting and len(running) < self.jobs:
                mutant = waiting.pop(0)
                running[self._fork(session, mutant)] = mutant
                self.tried.append(mutant)
            if not running:
                break
            pid, status = os.wait()
            mutant, done = running.pop(pid), done + 1
            if status == 0:
                self.survivors.append(mutant)
            left = (time.monotonic() - began) / done * (len(self.mutants) - done)
            print(
                f"\r{done:,} of {len(self.mutants):,}, {len(self.survivors)} survived, {left:.0f} s left ",
                end="",
                file=sys.stderr,
                flush=True,
            )
        print(file=sys.stderr)
        return True

    def _look(self, session: pytest.Session) -> None:
        """Run each test once as it is: it must pass, and tells which lines it reaches and how long it takes."""
        folder = str(CORE)
        for number, item in enumerate(session.items):
            lines: set[tuple[str, int]] = set()

            def each_line(frame: types.FrameType, _event: str, _: object, lines: set = lines) -> object:
                lines.add((frame.f_code.co_filename, frame.f_lineno))
                return each_line

            def each_call(
                frame: types.FrameType, _event: str, _: object, each_line: object = each_line
            ) -> object:
                return each_line if frame.f_code.co_filename.startswith(folder) else None

            began = time.process_time()
            sys.settrace(each_call)
            reports = runtestprotocol(item, log=False, nextitem=None)
            sys.settrace(None)
            self._seconds.append(time.process_time() - began)
            if any(report.failed for report in reports):
                raise pytest.UsageError(f"{item.nodeid} fails without any mutant")
            for file, line in lines:
                self._reach.setdefault((Path(file).stem, line), set()).add(number)

    def _fork(self, session: pytest.Session, mutant: Mutant) -> int:
        reaching = self._reach.get((mutant.module, mutant.line), set())
        self.unreached += not reaching
        pid = os.fork()
        if pid:
            return pid
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.alarm(15 * MOST_SECONDS)  # one that waits for ever uses no processor
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
            put_in_place(mutant)
            for number in sorted(reaching, key=self._seconds.__getitem__):
                reports = runtestprotocol(session.items[number], log=False, nextitem=None)
                if any(report.failed for report in reports):
                    os._exit(1)
        except BaseException:  # noqa: BLE001 - whatever a mutant does, it was noticed
            os._exit(1)
        os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", action="append", help="only these modules of core/ (default: all)")
    parser.add_argument("--most", type=int, default=0, help="only so many, drawn by --seed (default: all)")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many, however many are left")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--gate", type=float, default=90.0, help="fail below this score in percent")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    asked = parser.parse_args()
    os.chdir(ROOT)
    modules = asked.module or sorted(path.stem for path in CORE.glob("*.py") if path.stem != "__init__")
    everything = [mutant for module in modules for mutant in mutants_of(module)]
    drawn = random.Random(asked.seed).sample(everything, min(asked.most or len(everything), len(everything)))
    plugin = Round(drawn, jobs=asked.jobs, minutes=asked.minutes)
    arguments = ["tests/core", "-p", "no:randomly", "-p", "no:xdist", "-o", "timeout=0"]
    if (ended := pytest.main([*arguments, "-p", "no:terminal", "-s"], plugins=[plugin])) not in {0, 5}:
        print(f"pytest ended with {ended!r}", file=sys.stderr)
        return 2
    score = 100 * (1 - len(plugin.survivors) / max(len(plugin.tried), 1))
    page = _page(plugin, everything, score, asked)
    print(page)
    if asked.write:
        PAGE.write_text(page)
    return 0 if score >= asked.gate else 1


def _page(plugin: Round, everything: list[Mutant], score: float, asked: argparse.Namespace) -> str:
    drawn = plugin.tried
    alive = Counter(mutant.module for mutant in plugin.survivors)
    rows = [
        f"| `{module}` | {count} | {count - alive[module]} | {100 * (1 - alive[module] / count):.1f} % |"
        for module, count in sorted(Counter(mutant.module for mutant in drawn).items())
    ]
    survivors = [
        f"* `{m.function}` {m}" for m in sorted(plugin.survivors, key=lambda m: (m.module, m.number))
    ]
    drawn_how = "all of them" if len(drawn) == len(everything) else f"drawn with seed {asked.seed}"
    return "\n".join(
        [
            "# Mutants of the core",
            "",
            "What the tests notice when the core is broken on purpose: `make mutants` (`bench/mutants.py` says how).",
            (
                f"Python {platform.python_version()}. {len(drawn):,} mutants of {len(everything):,}, {drawn_how}; "
                f"**{score:.1f} % killed** (gate {asked.gate:.0f} %)."
            ),
            "",
            "| module | mutants | killed | score |",
            "|---|--:|--:|--:|",
            *rows,
            "",
            "## Survivors",
            "",
            f"{len(survivors)} survived, {plugin.unreached} of them on lines no test reaches.",
            "",
            *survivors,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
