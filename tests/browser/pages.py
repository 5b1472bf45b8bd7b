"""JupyterLab in a real browser, as the tests drive it: by Lab's commands, never by keystrokes.

Keystrokes race with Lab's start and its auto-indent; commands do not. Before anything runs, the
page waits until the kernel has answered: a dialog would open otherwise and wait for ever.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import nbformat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import BrowserContext, Locator

    from scripts.jupyter_process import JupyterProcess

SCREENSHOTS = Path(__file__).parent / "screenshots"

KERNEL_IS_READY = """
async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.revealed;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
}
"""
CURRENT_IS_NOTEBOOK = """
(path) => window.jupyterapp?.shell.currentWidget?.sessionContext?.path === path
"""


class LabPage:
    """One tab with JupyterLab.

    Parameters
    ----------
    server : JupyterProcess
        The Lab that it shows.
    context : BrowserContext
        Cookies and storage of its own.
    name : str
        Prefix of its screenshots: the test's name.
    """

    def __init__(self, server: JupyterProcess, context: BrowserContext, name: str) -> None:
        self.server = server
        self.name = name
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, tree: str = "") -> None:
        """Load Lab in a fresh workspace and wait until its plugins have started."""
        workspace = f"lab/workspaces/{uuid.uuid4().hex}"
        path = f"{workspace}/tree/{quote(tree)}" if tree else workspace
        self.page.goto(f"{self.server.url}{path}?token={self.server.token}")
        self.page.wait_for_function("() => window.jupyterapp !== undefined")
        self.page.evaluate("async () => { await window.jupyterapp.restored; }")

    def reload(self) -> None:
        """Load the page again, as F5 does; what Lab restores, it restores."""
        self.page.reload()
        self.page.wait_for_function("() => window.jupyterapp !== undefined")
        self.page.evaluate("async () => { await window.jupyterapp.restored; }")

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Execute one of Lab's commands and wait for its end."""
        self.page.evaluate(
            "async ([name, args]) => { await window.jupyterapp.commands.execute(name, args); }",
            [name, arguments or {}],
        )

    def begin(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Execute one of Lab's commands without waiting for its end."""
        self.page.evaluate(
            "([name, args]) => { void window.jupyterapp.commands.execute(name, args); }",
            [name, arguments or {}],
        )

    def screenshot(self, label: str = "") -> Path:
        """Save what the tab shows in the git-ignored folder `screenshots`, and return where."""
        SCREENSHOTS.mkdir(exist_ok=True)
        name = re.sub(r"[^\w.-]+", "-", "-".join(filter(None, [self.name, label])))
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path


class NotebookPage(LabPage):
    """One tab with a notebook whose kernel is ready."""

    path = ""

    def open_notebook(self, cells: Sequence[str], path: str = "") -> NotebookPage:
        """Write the cells as a notebook below the server's root and open it."""
        self.path = path or f"{uuid.uuid4().hex[:8]}.ipynb"
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        file = self.server.notebooks / self.path
        file.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, file)
        self.open(self.path)
        self.wait_for_kernel()
        return self

    def wait_for_kernel(self) -> None:
        """Wait until the notebook is shown and its kernel has answered."""
        self.page.wait_for_function(CURRENT_IS_NOTEBOOK, arg=self.path)
        self.page.evaluate(KERNEL_IS_READY)

    def run_all(self) -> None:
        """Run every cell and wait until all have ended."""
        self.command("notebook:run-all-cells")

    def begin_all(self) -> None:
        """Start to run every cell, to act while they run."""
        self.begin("notebook:run-all-cells")

    def run(self, index: int) -> None:
        """Run one cell and wait until it has ended."""
        self.page.evaluate(
            "(at) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = at; }",
            index,
        )
        self.command("notebook:run-cell")

    def restart(self) -> None:
        """Restart the kernel without the question that the menu asks."""
        self.page.evaluate(
            "async () => {"
            " await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart();"
            "}"
        )
        self.wait_for_kernel()

    def cell(self, index: int) -> Locator:
        """The cell at a place, counted from 0."""
        return self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{index}']")

    def output(self, index: int) -> Locator:
        """What a cell shows below its code."""
        return self.cell(index).locator(".jp-OutputArea-output")

    def close(self) -> None:
        """End the notebook's kernel; the tab goes with its context."""
        for session in self.server.request("GET", "api/sessions"):
            if session["path"] == self.path:
                self.server.request("DELETE", f"api/sessions/{session['id']}")
