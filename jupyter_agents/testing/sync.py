"""The harness without ``await``, for plain pytest: its loop runs on a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_agents.host.thread import AgentThread
from jupyter_agents.testing.harness import AgentHarness, HarnessClient

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SyncClient", "SyncHarness"]


class _Sync:
    """Every coroutine method of the wrapped object becomes a plain one."""

    def __init__(self, wrapped: Any, run: Callable[..., Any]) -> None:
        self._wrapped = wrapped
        self._run = run

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if not callable(found) or inspect.isclass(found):
            return found
        return partial(self._run, found)

    def __repr__(self) -> str:
        return f"<sync {self._wrapped!r}>"


class SyncClient(_Sync):
    """`HarnessClient` without ``await``.

    ``send``, ``receive``, ``call``, ``state``, ``close`` …
    """


class SyncHarness(_Sync):
    """`AgentHarness` without ``await``.

    A context manager, and what the fixture `agent_harness` gives.

    Parameters
    ----------
    *args, **kwargs
        As `AgentHarness`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._thread = AgentThread("agent-harness")
        super().__init__(AgentHarness(*args, **kwargs), self._run_here)

    def __enter__(self) -> SyncHarness:
        self._run_here(self._wrapped.__aenter__)
        return self

    def __exit__(self, *error: object) -> None:
        self._run_here(self._wrapped.__aexit__, *error)
        self._thread.stop()

    def _run_here(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            result = function(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        result = asyncio.run_coroutine_threadsafe(call(), self._thread.loop).result()
        return SyncClient(result, self._run_here) if isinstance(result, HarnessClient) else result
