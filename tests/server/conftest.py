"""How tests of this folder that use pytest-jupyter's fixtures run: on that plugin's own loop."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine that asked for Jupyter's loop there; the plugin's own hook is not loaded."""
    loop: AbstractEventLoop | None = pyfuncitem.funcargs.get("jp_asyncio_loop")
    if loop is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    loop.run_until_complete(pyfuncitem.obj(**arguments))
    return True
