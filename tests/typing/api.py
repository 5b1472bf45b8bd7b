"""Code that only mypy runs: what an author writes keeps its types under ``mypy --strict``.

A line whose error is expected says so with ``type: ignore``; mypy reports one that is not needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from traitlets import Float
from typing_extensions import assert_type

from jupyter_agents.host.callables import (
    CallableMetadata,
    Sent,
    StreamingResponse,
    callable_method,
    get_callable_methods,
)
from jupyter_agents.host.state import Stateful
from jupyter_agents.host.storage import Storage, StoredInstance, open_storage


class Room(Stateful):
    """Every form of the decorator."""

    initial_state = {"n": 0}

    @callable_method
    def add(self, a: int, b: int = 1) -> int:
        """Bare."""
        return a + b

    @callable_method(description="Later.")
    async def later(self, text: str, *, loud: bool = False) -> str:
        """With arguments."""
        return text.upper() if loud else text

    @callable_method
    async def count(self, n: int) -> AsyncIterator[int]:
        """Count by a generator."""
        for i in range(n):
            yield i

    @callable_method(streaming=True)
    def stream(self, stream: StreamingResponse, n: int) -> None:
        """Send by the explicit form."""
        sent: Sent = stream.send(n)
        assert_type(bool(sent), bool)
        assert_type(stream.end(), bool)

    @staticmethod
    @callable_method
    def fixed(a: int) -> int:
        """Below @staticmethod."""
        return a


class Thermostat(Stateful):
    """Typed state."""

    target = Float(20.0).tag(sync=True)


def methods_keep_their_signatures(room: Room) -> None:
    """The decorator gives back the very function it was given."""
    assert_type(room.add(1), int)
    assert_type(room.add(a=1, b=2), int)
    coming: Coroutine[Any, Any, str] = room.later("a", loud=True)
    coming.close()
    assert_type(room.count(3), AsyncIterator[int])
    assert_type(Room.fixed(1), int)
    bound: Callable[[int, int], int] = room.add
    unbound: Callable[[Room, int], int] = Room.add
    bound(1, 2), unbound(room, 1)
    room.add("1")  # type: ignore[arg-type]
    room.add()  # type: ignore[call-arg]
    room.later(text=1)  # type: ignore[arg-type,unused-coroutine]
    room.add.nothing  # type: ignore[attr-defined]  # noqa: B018


def only_functions_are_marked() -> None:
    """What cannot be called cannot be marked; options are given by name."""
    callable_method("description")  # type: ignore[call-overload]
    callable_method(lambda self: 1, streaming=True)  # type: ignore[call-overload]


def metadata_is_typed() -> None:
    """Names lead to metadata."""
    assert_type(get_callable_methods(Room), dict[str, CallableMetadata])
    assert_type(get_callable_methods(Room)["add"].parameters, tuple[dict[str, Any], ...])


async def sending_can_be_awaited(stream: StreamingResponse) -> None:
    """`await stream.send(x)` is a bool, and so is the truth of what `send` returns."""
    assert_type(await stream.send(1), bool)
    if stream.send(2):
        stream.error("no")


def instances_are_of_their_class() -> None:
    """The metaclass does not hide the class from the checker."""
    assert_type(Room(), Room)
    assert_type(Thermostat(target=1.0).target, float)
    Thermostat().target = "warm"  # type: ignore[assignment]
    Room().state = {}  # type: ignore[misc]
    assert_type(Room().private_state, Any)


def storages_are_storages(own: Storage) -> None:
    """Whatever `open_storage` is given, a Storage comes out."""
    assert_type(open_storage("memory"), Storage)
    assert_type(open_storage(own).load("room", "a"), StoredInstance)
    open_storage(3)  # type: ignore[arg-type]
