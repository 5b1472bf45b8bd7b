"""The wheel in an environment of its own, without Node: JupyterLab shows the side bar."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest
from playwright.sync_api import expect

from scripts.jupyter_process import ROOT, JupyterProcess
from tests.browser.pages import LabPage
from tests.live import RUNNING

pytestmark = pytest.mark.slow

NOT_SOURCE = shutil.ignore_patterns(
    ".*", "node_modules", "lib", "__pycache__", "dist", "tests", "docs", "benchmarks"
)
NO_NODE = "/usr/nowhere"


@pytest.fixture
def wheel(tmp_path):
    """A wheel of these sources with the side bar as `make js` built it, made without Node."""
    if not (ROOT / "jupyter_agents" / "labextension" / "package.json").exists():
        pytest.skip("run `make js`")
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    shutil.copy(ROOT / ".gitignore", source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", str(source)]
    done = subprocess.run(
        command, env={**os.environ, "PATH": NO_NODE}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (source / "dist").glob("*.whl")
    return made


@pytest.fixture
def python(wheel, tmp_path):
    """The Python of a fresh environment with this wheel; what it needs is borrowed."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    executable = home / "bin" / "python"
    install = [executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--ignore-installed", wheel], check=True)
    return executable


class InstalledLab(JupyterProcess):
    """JupyterLab of another Python than this one's."""

    python = ""

    def _command(self):
        arguments = super()._command()
        # Not `jupyter lab`: its script belongs to this Python, and would start it
        return [self.python, "-m", "jupyterlab", *arguments[arguments.index("lab") + 1 :]]


@pytest.fixture
def installed(request, python, tmp_path):
    """A JupyterLab of that environment, which finds neither Node nor these sources."""
    home = tmp_path / "home"
    home.mkdir()
    assets = f"{sysconfig.get_path('data')}/share/jupyter/lab"
    server = InstalledLab(
        home,
        app="lab",
        options=[
            "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
            f"--LabApp.app_dir={assets}",
        ],
        env={"PATH": f"{python.parent}:{NO_NODE}", "PYTHONPATH": ""},
    )
    server.python = str(python)
    request.config.stash.setdefault(RUNNING, []).append(server)
    yield server.start()
    server.stop()
    request.config.stash[RUNNING].remove(server)


def test_installed_wheel_shows_its_side_bar(installed, python, context, tmp_path):
    """What `pip install` brought is all that is needed: server part, side bar, launcher card."""
    where = subprocess.run(
        [python, "-c", "import jupyter_agents; print(jupyter_agents.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(python.parents[1]))
    page = LabPage(installed, context, "installed")
    page.open()
    expect(page.page.locator(".jp-LauncherCard", has_text="Agent Notebook")).to_be_visible()
    page.command("agents:show-panel")
    expect(page.page.locator(".jp-Agents")).to_contain_text("No agents yet.")
    assert page.errors == []
