"""The house budget, so that nobody has to argue: sizes of modules, functions and folders."""

from __future__ import annotations

import ast
import io
import tokenize

import pytest

from tests.sources import PACKAGE, ROOT, modules

MODULE_LINES = 450
FUNCTION_LINES = 60
FOLDER_FILES = 11

MODULES = modules()
BESIDE = sorted(
    [*ROOT.glob("scripts/*.py"), *ROOT.glob("benchmarks/**/*.py"), ROOT / "hatch_build.py"]
)
PYTHON = [m.path for m in MODULES] + BESIDE
BROWSER = sorted(
    [*ROOT.glob("labextension/src/**/*.ts*"), *ROOT.glob(f"{PACKAGE}/widgets/static/*.js")]
)
QUIET = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def shown(path) -> str:
    """The path as a test's name."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON + BROWSER, ids=shown)
def test_module_is_short(path):
    """A module has at most 450 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES


@pytest.mark.parametrize("path", PYTHON, ids=shown)
def test_functions_are_short(path):
    """A function has at most 60 lines of code, docstring, comments and blank lines not counted."""
    long = [
        f"{name}: {n}" for name, n in function_sizes(path.read_text("utf-8")) if n > FUNCTION_LINES
    ]
    assert not long


def function_sizes(source: str) -> list[tuple[str, int]]:
    """Each function's name and number of code lines, inner functions included."""
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in QUIET
        for line in range(token.start[0], token.end[0] + 1)
    }
    sizes = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            if ast.get_docstring(node, clean=False) is not None:
                lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
            sizes.append((node.name, len(lines)))
    return sizes


def test_function_size_counts_code_only():
    """Docstrings, comments and blank lines do not count; every line of a long expression does."""
    source = (
        'def f():\n    """One.\n\n    Two.\n    """\n\n    # why\n    return (1,\n        2)\n'
    )
    assert function_sizes(source) == [("f", 3)]


@pytest.mark.parametrize("room", sorted({m.path.parent for m in MODULES}), ids=shown)
def test_folder_has_few_files(room):
    """A folder has at most eleven modules beside its `__init__`, and no folders of modules."""
    files = [path for path in room.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= FOLDER_FILES
    assert len(room.relative_to(ROOT).parts) <= 2
