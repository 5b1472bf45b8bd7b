"""What every test may count on: a unit of time, coroutines as tests, and no leaks."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

# Tests count time in milliseconds of a calm machine; a slow one sets the factor.
MS = 0.001 * float(os.environ.get("JUPYTER_AGENTS_TESTS_TIME_FACTOR", "1"))

# The clock of a machine that others use says nothing about an example.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

MARK_OF_FOLDER = {
    "browser": "browser",
    "conformance": "node",
    "js": "node",
    "processes": "processes",
}

# A loop's default executor and the libraries' own pools outlive a test by design.
LASTING_THREADS = ("asyncio_", "ThreadPoolExecutor", "pytest_timeout", "Tornado resolver", "IO")


@pytest.fixture
def ms() -> float:
    """One millisecond of a calm machine, in seconds: the unit of every limit."""
    return MS


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    """``await eventually(lambda: …)``: wait until it is true, and fail naming what never came.

    For facts that nothing announces; where there is an event, await the event.
    """

    async def wait(condition: Callable[[], Any], limit_s: float = 5000 * MS) -> Any:
        deadline = time.monotonic() + limit_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"Not within {limit_s:g} s: {inspect.getsource(condition).strip()}")
            await asyncio.sleep(1 * MS)
        return value

    return wait


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, so that a forgotten mark slows nobody's quick run.

    Browser tests come last: while Playwright lives, its loop holds this thread, and no other can.
    """
    for item in items:
        if mark := MARK_OF_FOLDER.get(_folder(item)):
            item.add_marker(mark)
    items.sort(key=lambda item: _folder(item) == "browser")


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine on a fresh loop; pytest-jupyter's own keep their loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    if "jp_asyncio_loop" in pyfuncitem.fixturenames:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(_run_and_find_tasks(pyfuncitem.obj(**arguments)))
    return True


async def _run_and_find_tasks(test: Awaitable[Any]) -> None:
    await test
    deadline = time.monotonic() + 1000 * MS
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        if time.monotonic() > deadline:
            pytest.fail(f"Tasks still running after the test: {sorted(map(repr, left))}")
        await asyncio.sleep(1 * MS)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if _is_leak(thread, before)]
    for thread in left:
        thread.join(timeout=1000 * MS)
    left = [thread for thread in left if thread.is_alive()]
    assert not left, f"threads still running after the test: {left}"


def _is_leak(thread: threading.Thread, before: set[threading.Thread]) -> bool:
    return thread not in before and not thread.name.startswith(LASTING_THREADS)
