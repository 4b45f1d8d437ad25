"""data -> rewards -> rl -> stages -> launch: a folder imports those to its left; nothing imports launch; light folders stay light."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from repository import FOLDERS, ROOT, modules

LIGHT = ("data", "rewards")
HEAVY = {"torch", "transformers", "trl", "datasets"}


def _named(node: ast.AST) -> list[str]:
    """The modules that one import statement names; `from omnistage import rl` counts as omnistage.rl."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _imports(path: Path) -> list[str]:
    return [name for node in ast.walk(ast.parse(path.read_text())) for name in _named(node)]


def _run_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported: all but the bodies of functions and of `if TYPE_CHECKING`."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        guarded = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for field in ("orelse", "finalbody") if guarded else ("body", "orelse", "finalbody"):
            yield from _run_on_import(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from _run_on_import(handler.body)


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_only_to_the_left(folder: str) -> None:
    allowed = FOLDERS[: FOLDERS.index(folder) + 1]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        for name in _imports(path)
        if name.split(".")[0] == "omnistage" and name.split(".")[1] not in allowed
    ]
    assert not wrong, f"{folder}/ may import {', '.join(allowed)}: {wrong}"


def test_no_relative_import() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules(*FOLDERS, "tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not wrong


@pytest.mark.parametrize("folder", LIGHT)
def test_light_folders_import_nothing_heavy_at_module_level(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
        for path in modules(folder)
        for node in _run_on_import(ast.parse(path.read_text()).body)
        for name in _named(node)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong, f"import it inside the function that needs it: {wrong}"


def test_the_walk_sees_what_runs_on_import_and_nothing_else() -> None:
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import hidden_for_types
else:
    import seen_in_else
try:
    import seen_in_try
except ImportError:
    import seen_in_handler
class A:
    import seen_in_class
    def method(self):
        import hidden_in_method
def function():
    import hidden_in_function
with open("x"):
    import seen_in_with
"""
    seen = {name for node in _run_on_import(ast.parse(source).body) for name in _named(node)}
    assert seen == {"typing.TYPE_CHECKING", "seen_in_else", "seen_in_try", "seen_in_handler", "seen_in_class", "seen_in_with"}
