"""A real JupyterLab, a real Chromium, and a fresh tab and notebook for each test."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

from scripts.jupyter_process import ROOT, JupyterProcess
from tests.browser.pages import LabPage, NotebookPage
from tests.live import RUNNING, pytest_runtest_makereport  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext

LIMIT_MS = 20_000
VIEWPORT = {"width": 1400, "height": 900}

# Chromium would look for its maker's hosts at every start; the tests need none of them.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JupyterProcess]:
    """One JupyterLab for all browser tests, with directories, port and token of its own."""
    home = tmp_path_factory.mktemp("lab")
    server = JupyterProcess(
        home,
        app="lab",
        options=[
            "--LabApp.expose_app_in_browser=True",
            "--JupyterNotebookApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
            f"--LabApp.extra_labextensions_path={_side_bar(home)}",
        ],
    )
    request.config.stash.setdefault(RUNNING, []).append(server)
    yield server.start()
    server.stop()
    request.config.stash[RUNNING].remove(server)


def _side_bar(home: Path) -> Path:
    """A folder with the side bar as `make js` last built it here, ahead of any installed one."""
    folder = home / "labextensions"
    folder.mkdir()
    (folder / "jupyter-agents").symlink_to(ROOT / "jupyter_agents" / "labextension")
    return folder


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One Chromium for all browser tests; ``CHROMIUM`` names another one."""
    names = (os.environ.get("CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail("No Chromium found: apt-get install chromium, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """Cookies and storage for one test."""
    fresh = chromium.new_context(viewport=VIEWPORT, accept_downloads=False)
    fresh.set_default_timeout(LIMIT_MS)
    fresh.grant_permissions(["clipboard-read", "clipboard-write"])
    yield fresh
    fresh.close()


@pytest.fixture
def lab_page(
    request: pytest.FixtureRequest, lab: JupyterProcess, context: BrowserContext
) -> Iterator[LabPage]:
    """A tab with JupyterLab and nothing open in it."""
    page = LabPage(lab, context, request.node.name)
    page.open()
    page.page.locator(".jp-Launcher").wait_for()
    yield page
    _look_back(request, page)


@pytest.fixture
def notebook(
    request: pytest.FixtureRequest, lab: JupyterProcess, context: BrowserContext
) -> Iterator[Callable[..., NotebookPage]]:
    """``notebook("x = 1", "x")``: a tab with a notebook of these cells, its kernel ready."""
    opened: list[NotebookPage] = []

    def open_notebook(*cells: str, path: str = "") -> NotebookPage:
        page = NotebookPage(lab, context, request.node.name)
        opened.append(page)
        return page.open_notebook(cells, path)

    yield open_notebook
    for page in opened:
        _look_back(request, page)
        page.close()


def _look_back(request: pytest.FixtureRequest, page: LabPage) -> None:
    if request.node.stash.get(FAILED, False):
        page.screenshot("failed")


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_exception_interact(node: Any) -> None:
    """Remember a failure, so that its fixtures take a picture before they close the tab."""
    if isinstance(node, pytest.Item):
        node.stash[FAILED] = True
