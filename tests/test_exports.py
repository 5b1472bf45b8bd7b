"""The public names: all there, all documented, none that shadows Python's own."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect

import pytest

import jupyter_agents
from tests.sources import modules

PUBLIC = sorted(jupyter_agents.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there_and_documented(name):
    """Every promised name can be fetched and says in a docstring what it is."""
    value = getattr(jupyter_agents, name)
    assert value.__name__ == name
    assert (inspect.getdoc(value) or "").strip()


def test_names_are_sorted_and_single():
    """`__all__` is sorted and names nothing twice."""
    assert list(jupyter_agents.__all__) == sorted(set(jupyter_agents.__all__))


def test_star_import_shadows_no_builtin():
    """`from jupyter_agents import *` leaves Python's own names alone, `callable` above all."""
    assert not set(PUBLIC) & set(dir(builtins))
    assert jupyter_agents.callable is jupyter_agents.callable_method


def test_dir_lists_what_can_be_fetched():
    """Completion offers every public name, and everything it offers exists."""
    offered = dir(jupyter_agents)
    assert set(PUBLIC) < set(offered)
    assert all(hasattr(jupyter_agents, name) for name in offered)


def test_unknown_name_is_an_attribute_error():
    """A name that is not there is an AttributeError that names it."""
    with pytest.raises(AttributeError, match="'Agnet'"):
        jupyter_agents.Agnet  # noqa: B018


def test_checker_sees_the_same_names_as_the_interpreter():
    """The imports written for type checkers name exactly `__all__`, each from its real home."""
    (package,) = (m for m in modules() if m.name == "")
    seen = {}
    for node in ast.walk(package.tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for statement in node.body:
                if isinstance(statement, ast.ImportFrom):
                    seen |= {alias.name: statement.module for alias in statement.names}
    seen = {n: home for n, home in seen.items() if (home or "").startswith("jupyter_agents")}
    assert sorted(seen) == PUBLIC
    for name, home in seen.items():
        assert getattr(jupyter_agents, name) is getattr(importlib.import_module(home), name)


def test_version_is_the_packages():
    """`__version__` is the version in pyproject.toml."""
    from tests.sources import ROOT

    assert f'\nversion = "{jupyter_agents.__version__}"\n' in (ROOT / "pyproject.toml").read_text()
