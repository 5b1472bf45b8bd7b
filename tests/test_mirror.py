"""Every module has its own test file, where a reader would look for it."""

from __future__ import annotations

import ast

import pytest

from tests.sources import ROOT, modules

WITH_TESTS = [m for m in modules() if m.path.name != "__init__.py"]


@pytest.mark.parametrize("module", WITH_TESTS, ids=lambda m: m.name)
def test_module_has_its_test_file(module):
    """`jupyter_agents/room/module.py` is tested in `tests/room/test_module.py`."""
    *room, name = module.name.split(".")
    path = ROOT.joinpath("tests", *room, f"test_{name}.py")
    assert path.is_file(), f"missing: {path.relative_to(ROOT)}"
    assert any(map(_is_test, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))


def _is_test(node: ast.AST) -> bool:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, functions) and node.name.startswith("test_")
