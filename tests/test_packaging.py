"""What is built and what an install switches on, with and without Node.

Builds in a copy of the source tree, so that what lies about here neither helps nor suffers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.sources import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

COLOURS = re.compile(r"\x1b\[\d+m")
SHARE = "jupyter_agents-0.1.0.data/data"
SIDE_BAR = f"{SHARE}/share/jupyter/labextensions/jupyter-agents"
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "node_modules", "lib", "__pycache__", "dist", "tests", "docs", "benchmarks"
)


@pytest.fixture
def tree(tmp_path):
    """A copy of the sources, without what was built."""
    copy = tmp_path / "source"
    shutil.copytree(ROOT, copy, ignore=NOT_SOURCE)
    shutil.rmtree(copy / "jupyter_agents" / "labextension", ignore_errors=True)
    shutil.copy(ROOT / ".gitignore", copy)
    return copy


@pytest.fixture
def built_tree(tree):
    """The same with a side bar as `make js` leaves it."""
    assets = tree / "jupyter_agents" / "labextension"
    (assets / "static").mkdir(parents=True)
    (assets / "package.json").write_text(
        '{"name": "jupyter-agents", "version": "0.1.0", "jupyterlab":'
        ' {"extension": true, "_build": {"load": "static/remoteEntry.js"}}}'
    )
    shutil.copy(tree / "labextension" / "install.json", assets)  # as jupyter-builder does
    (assets / "static" / "remoteEntry.js").write_text("// built\n")
    return tree


def build(tree: Path, kind: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Build in the tree, on a machine without Node."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", str(tree)]
    without_node = {**os.environ, "PATH": "/nowhere", **env}
    return subprocess.run(command, env=without_node, capture_output=True, text=True, check=False)


def wheel_of(tree: Path) -> Path:
    """The wheel that a build has left."""
    (wheel,) = (tree / "dist").glob("*.whl")
    return wheel


def names_in(wheel: Path) -> set[str]:
    """The files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_carries_everything_that_runs(built_tree):
    """The wheel has the package with its static files, the side bar once, and the switch."""
    done = build(built_tree, "wheel")
    assert done.returncode == 0, done.stdout + done.stderr
    names = names_in(wheel_of(built_tree))
    assert {
        "jupyter_agents/__init__.py",
        "jupyter_agents/py.typed",
        "jupyter_agents/static/agent-client.js",
        "jupyter_agents/static/agent-console.html",
        f"{SHARE}/etc/jupyter/jupyter_server_config.d/jupyter_agents.json",
        f"{SIDE_BAR}/package.json",
        f"{SIDE_BAR}/install.json",
        f"{SIDE_BAR}/static/remoteEntry.js",
    } <= names
    assert not [n for n in names if n.startswith(("jupyter_agents/labextension", "tests", "lab"))]


def test_build_without_node_leaves_out_the_side_bar_and_says_so(tree):
    """Without assets and Node a wheel is built all the same; what is missing is named."""
    done = build(tree, "wheel")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without its JupyterLab side bar" in done.stdout + done.stderr
    assert not [name for name in names_in(wheel_of(tree)) if "labextensions" in name]


def test_side_bar_can_be_required(tree):
    """Where a release must not lack the side bar, the build fails and says what to do."""
    done = build(tree, "wheel", JUPYTER_AGENTS_REQUIRE_LABEXTENSION="1")
    assert done.returncode != 0
    assert "run `make js`" in done.stdout + done.stderr


def test_sdist_always_has_the_side_bar(tree, built_tree):
    """An sdist carries the built assets, so that installing from it needs no Node."""
    done = build(built_tree, "sdist")
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = (built_tree / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {
        "jupyter_agents/labextension/static/remoteEntry.js",
        "labextension/src/index.ts",
    } <= names
    shutil.rmtree(tree / "jupyter_agents" / "labextension")
    assert build(tree, "sdist").returncode != 0


def test_installed_wheel_switches_itself_on_and_off(built_tree, tmp_path):
    """`pip install` enables server extension and side bar; `pip uninstall` removes both."""
    assert build(built_tree, "wheel").returncode == 0
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))

    def lines(*arguments: str) -> list[str]:
        command = [str(home / "bin" / "python"), "-m", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env={"HOME": str(tmp_path)}, capture_output=True, check=False
        )
        printed = (done.stdout + done.stderr).decode().splitlines()
        return [COLOURS.sub("", line).strip() for line in printed if "agents" in line]

    wheel = str(wheel_of(built_tree))
    lines("pip", "install", "--no-deps", "--no-index", "--ignore-installed", wheel)
    assert "jupyter_agents 0.1.0 OK" in lines("jupyter_server.extension.serverextension", "list")
    assert lines("jupyterlab.labextensions", "list") == [
        "jupyter-agents v0.1.0 enabled OK (python, jupyter_agents)"
    ]
    lines("pip", "uninstall", "--yes", "jupyter_agents")
    assert lines("jupyterlab.labextensions", "list") == []
    assert not list(home.glob("etc/jupyter/jupyter_server_config.d/jupyter_agents.json"))
