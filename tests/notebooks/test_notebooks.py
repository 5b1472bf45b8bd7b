"""The tutorials run from top to bottom, with a Jupyter Server and without, and are kept clean."""

from __future__ import annotations

import ast
from itertools import pairwise
from typing import Any

import nbformat
import pytest

from scripts.demo import cells
from scripts.jupyter_process import ROOT
from tests.live import jupyter_server_process, kernel, pytest_runtest_makereport  # noqa: F401
from tests.lone_kernel import LIMIT_S, no_jupyter, run  # noqa: F401

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# A cell with this tag is meant to show what was logged; any other has nothing on stderr.
SHOWS_LOG = "shows-log"

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# The first is quick and shows most, so every run has it; the others start a kernel each.
first_in_every_run = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.stem == "00_hello" else pytest.mark.processes)
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)


def printed_errors(notebook: Any) -> list[str]:
    """What cells without the tag SHOWS_LOG wrote to stderr."""
    return [
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code" and SHOWS_LOG not in cell.metadata.get("tags", ())
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]


@first_in_every_run
def test_notebook_runs_without_a_server(path, no_jupyter):  # noqa: F811
    """Every notebook runs where there is no Jupyter Server, and no cell complains."""
    notebook = nbformat.read(path, 4)
    run(notebook, no_jupyter)
    assert printed_errors(notebook) == []


@each
@pytest.mark.processes
def test_notebook_runs_behind_jupyter(path, kernel):  # noqa: F811
    """Every notebook runs in a kernel of a Jupyter Server with a base_url and a token."""
    for code in cells(path):
        kernel.run(code, limit_s=LIMIT_S)


@each
def test_notebook_is_kept_clean(path):
    """A notebook has no outputs, no counts and no traces of who ran it."""
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}


@each
def test_notebook_checks_what_it_says(path):
    """Every notebook asserts something, so that a wrong answer fails the run."""
    trees = [ast.parse(code) for code in cells(path)]
    assert any(isinstance(node, ast.Assert) for tree in trees for node in ast.walk(tree))


def test_no_two_notebooks_serve_one_name():
    """Two open notebooks do not quarrel: a class name belongs to one of them."""
    owners: dict[str, set[str]] = {}
    for path in NOTEBOOKS:
        for code in cells(path):
            for name in served_in(code):
                owners.setdefault(name, set()).add(path.stem)
    assert len(owners) > len(NOTEBOOKS)
    assert {name: stems for name, stems in owners.items() if len(stems) > 1} == {}


def served_in(code: str) -> list[str]:
    """The classes that a cell serves, by name."""
    return [
        call.args[0].id
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "serve"
        and isinstance(call.args[0], ast.Name)
    ]


def test_notebooks_lead_from_one_to_the_next():
    """Every notebook but the last ends with a link to the next one."""
    for path, following in pairwise(NOTEBOOKS):
        last = nbformat.read(path, 4).cells[-1]
        assert f"]({following.name})" in last.source, path.name
