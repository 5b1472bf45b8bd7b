"""Methods that clients may call. (Skeleton: signatures stand, bodies follow.)"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from jupyter_agents.protocol.messages import MISSING

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class CallableMetadata:
    """What is known of one callable method, all of it JSON-able.

    `parameters`: one dict per parameter that a caller gives, with ``name``, ``type`` ("bool", "int", "float", "str",
    "enum" or "json"), ``required``, and where they apply ``default``, ``choices``, ``min``, ``max``, ``nullable``,
    ``variadic``, ``doc``.
    """

    name: str
    description: str
    streaming: bool
    signature: str
    parameters: tuple[dict[str, Any], ...]


class CallRefused(TypeError):
    """The caller's fault: no such method, or arguments that do not fit. Nothing of the author's has run."""


class Reply(Protocol):
    """One call's way back. Each returns False when the connection is gone or the call is over.

    `chunk` and `done` raise TypeError, having sent nothing, when JSON cannot carry the value.
    """

    def chunk(self, value: Any) -> bool: ...
    def done(self, value: Any = MISSING) -> bool: ...
    def fail(self, text: str, data: Any = None) -> bool: ...
    async def drain(self) -> None: ...


class Sent(Awaitable[bool]):
    """Whether a chunk went out: true or false, and awaitable (waits until the client keeps up)."""

    def __bool__(self) -> bool:
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, bool]:
        raise NotImplementedError


class StreamingResponse:
    """Sends the parts of a streaming method's answer; made by the host per call: ``StreamingResponse(reply)``."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent."""
        raise NotImplementedError

    def send(self, chunk: Any) -> Sent:
        """Send one chunk; `await` it to wait for a slow client."""
        raise NotImplementedError

    def end(self, final: Any = MISSING) -> bool:
        """End the stream, with a final value if one is given."""
        raise NotImplementedError

    def error(self, message: str) -> bool:
        """End the stream with an error."""
        raise NotImplementedError


@overload
def callable_method(method: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def callable_method(
    *, description: str | None = None, streaming: bool | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def callable_method(
    method: Callable[..., Any] | None = None,
    /,
    *,
    description: str | None = None,
    streaming: bool | None = None,
) -> Any:
    """Let clients call a method of an Agent."""
    raise NotImplementedError


def get_callable_methods(cls: type) -> dict[str, CallableMetadata]:
    """Name → metadata of every callable method of a class, inherited ones included."""
    raise NotImplementedError


Failure = BaseException | None


def start_call(
    agent: Any, method: str, args: list[Any], reply: Reply
) -> Coroutine[Any, Any, Failure] | Failure:
    """Run a call as far as it goes without waiting.

    Returns
    -------
    None
        The call is answered.
    BaseException
        The call is answered with an error: this one, for the log. `CallRefused` when it is the caller's fault.
    Coroutine
        The rest of the call, for a task; it returns the error or None, and raises nothing but CancelledError.
    """
    raise NotImplementedError


async def run_call(agent: Any, method: str, args: list[Any], reply: Reply) -> Failure:
    """Run a whole call; return the error it was answered with, or None. Raises nothing but CancelledError."""
    raise NotImplementedError


def belongs_to_base(cls: type, name: str) -> bool:
    """Whether a name is the framework's own (Agent, Stateful, HasTraits, object), even if the author overrides it."""
    raise NotImplementedError
