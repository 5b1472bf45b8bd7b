"""Methods that clients may call: marked, described, bound to their arguments, and run.

Promises that no body runs before its arguments fit, and that every call is answered once. Must not
know frames or sockets: a `Reply` carries the answer. `protocol.agent_side` reads the calls.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import closing
from types import GeneratorType
from typing import Any, NamedTuple, Protocol, TypeVar, overload

from traitlets import HasTraits

from jupyter_agents.protocol.arguments import (
    ArgumentError,
    Arguments,
    form_field,
    signature_of,
    signature_text,
)
from jupyter_agents.protocol.closing import rpc_text
from jupyter_agents.protocol.messages import (
    METHOD_MISSING,
    METHOD_NOT_CALLABLE,
    MISSING,
    decode,
    encode,
)

__all__ = [
    "CallRefused",
    "CallableMetadata",
    "Reply",
    "Sent",
    "StreamingResponse",
    "as_json",
    "belongs_to_base",
    "callable_method",
    "get_callable_methods",
    "is_callable_method",
    "run_call",
    "start_call",
]

F = TypeVar("F", bound=Callable[..., Any])
Failure = BaseException | None

_MARK = "__callable_method__"
_FRAMEWORK = ("jupyter_agents.host.", "jupyter_agents.instance.")
_PLAIN = frozenset({type(None), bool, int, float, str, list, dict})
_UNFINISHED = (Awaitable, AsyncIterator, GeneratorType)  # slow to ask about
_TURN_S = 0.005  # how long a stream may keep the loop before others get a turn


# ── Marking and describing ───────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class CallableMetadata:
    """What is known of one callable method; all of it is JSON-able.

    Attributes
    ----------
    name : str
        As clients call it.
    description : str
        As given, or the docstring's first line.
    streaming : bool
        Whether it answers in chunks.
    signature : str
        For people; without ``self`` and the stream.
    parameters : tuple of dict
        For forms, one per argument; see `protocol.arguments.form_field`.
    """

    name: str
    description: str
    streaming: bool
    signature: str
    parameters: tuple[dict[str, Any], ...]


@overload
def callable_method(method: F, /) -> F: ...
@overload
def callable_method(
    *, description: str | None = None, streaming: bool | None = None
) -> Callable[[F], F]: ...
def callable_method(
    method: Any = None, /, *, description: str | None = None, streaming: bool | None = None
) -> Any:
    """Let clients call a method of an Agent, by its name and with JSON arguments.

    Parameters
    ----------
    description : str, optional
        For people and tools; otherwise the docstring's first line.
    streaming : bool, optional
        True passes a `StreamingResponse` as the first argument. Not needed where that is
        annotated, nor for generators: what they yield are the chunks.

    Notes
    -----
    Arguments are checked and converted by their annotations before the body runs: numbers, text,
    enums, dataclasses, ``datetime``, ``msgspec.Struct``, typed containers,
    ``Annotated[int, msgspec.Meta(ge=0)]``. What is not annotated, or with a type that JSON knows
    nothing of, arrives as decoded.

    Wire
    ----
    ``{"type": "rpc", "id": str, "method": str, "args": list}``; the SDK's ``@callable()``.
    """
    if method is None:
        return lambda found: _mark(found, description, streaming)
    return _mark(method, description, streaming)


def _mark(method: F, description: str | None, streaming: bool | None) -> F:
    function = _function_of(method)
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"callable_method marks methods, not {method!r}; give texts by name")
    setattr(function, _MARK, _Mark(description, streaming))
    return method


@dataclasses.dataclass(slots=True)
class _Mark:
    """What `callable_method` leaves on a function."""

    description: str | None
    streaming: bool | None
    plan: _Plan | None = None


def get_callable_methods(cls: type) -> dict[str, CallableMetadata]:
    """Return name → metadata of what clients may call on instances of `cls`.

    Inherited methods count, and the nearest override decides: one that is not marked takes the
    method away.
    """
    found = {}
    for name in dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base)):
        try:
            plan = _find(cls, name)
        except CallRefused:
            continue
        found[name] = dataclasses.replace(plan.metadata, name=name)
    return found


def is_callable_method(attribute: object) -> bool:
    """Whether a class attribute is marked by `callable_method`."""
    return isinstance(getattr(_function_of(attribute), _MARK, None), _Mark)


def belongs_to_base(cls: type, name: str) -> bool:
    """Whether `name` is the framework's own (of Agent, HasTraits or object), overridden or not."""
    names = vars(cls).get("_names_of_base")
    if names is None:
        names = frozenset(name for base in cls.__mro__ for name in _framework_names(base))
        cls._names_of_base = names  # type: ignore[attr-defined]  # asked at every call
    return name in names


def _framework_names(cls: type) -> set[str]:
    # Not traitlets by module: a class made with type() by its metaclass says traitlets as well.
    if cls in HasTraits.__mro__ or cls.__module__.startswith(_FRAMEWORK):
        return {*vars(cls), *getattr(cls, "__annotations__", ())}
    return set()


def _function_of(attribute: Any) -> Any:
    return attribute.__func__ if isinstance(attribute, (staticmethod, classmethod)) else attribute


# ── Planning the calls of a method ───────────────────────────────────────────────────────


class CallRefused(TypeError):
    """The caller's fault: no such method, or arguments that do not fit. The body has not run."""


class _Plan(NamedTuple):
    """How calls of one method go; made once per function, at its first use."""

    metadata: CallableMetadata
    takes_stream: bool
    arguments: Arguments


def _find(cls: type, name: str) -> _Plan:
    """Return the plan of a marked method, or refuse in the SDK's words."""
    found = cls.__dict__.get("_looked_up", {}).get(name)
    if found is None or getattr(cls, name, None) is not found[0]:  # somebody replaced it
        found = _look_up(cls, name)
    function, has_self = found
    mark = getattr(function, _MARK, None)
    if not isinstance(mark, _Mark):
        raise CallRefused(METHOD_NOT_CALLABLE.format(name))
    if mark.plan is None:
        mark.plan = _plan(function, mark, has_self=has_self)
    return mark.plan


def _look_up(cls: type, name: str) -> tuple[Callable[..., Any], bool]:
    """Return a method's function, and whether it takes the agent; kept for the next call."""
    if name.startswith("_") or belongs_to_base(cls, name):
        raise CallRefused(METHOD_MISSING.format(name))
    attribute = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    function = _function_of(attribute)
    if not callable(function):
        raise CallRefused(METHOD_MISSING.format(name))
    found = function, not isinstance(attribute, staticmethod)
    if not isinstance(attribute, classmethod):  # which is another object each time it is asked for
        cls._looked_up = {**cls.__dict__.get("_looked_up", {}), name: found}  # type: ignore[attr-defined]
    return found


def _plan(function: Callable[..., Any], mark: _Mark, *, has_self: bool) -> _Plan:
    target, signature = inspect.unwrap(function), signature_of(function)
    given = list(signature.parameters.values())[has_self:]
    generates = inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target)
    takes_stream = bool(given) and (
        given[0].annotation in (StreamingResponse, "StreamingResponse")
        or bool(mark.streaming and not generates)
    )
    given = given[takes_stream:]
    metadata = CallableMetadata(
        function.__name__,
        mark.description or (inspect.getdoc(target) or "").partition("\n")[0],
        takes_stream or generates or bool(mark.streaming),
        signature_text(given, signature.return_annotation),
        tuple(form_field(p) for p in given if p.kind <= p.VAR_POSITIONAL),
    )
    return _Plan(metadata, takes_stream, Arguments.of(given))


# ── Answering ────────────────────────────────────────────────────────────────────────────


class Reply(Protocol):
    """One call's way back; what is false afterwards did not go out: client gone, or call over.

    They raise TypeError, having sent nothing, when JSON cannot carry a value.
    """

    def chunk(self, value: Any) -> bool:
        """Send one part of a stream."""
        ...

    def done(self, value: Any = MISSING) -> bool:
        """Answer, and end the call."""
        ...

    def fail(self, text: str, data: Any = None) -> bool:
        """Answer with an error, and end the call."""
        ...

    async def drain(self) -> None:
        """Wait while the client is slower than the stream; at once when it is gone."""
        ...


class Sent(Awaitable[bool]):
    """Whether a chunk went out, as a truth value; `await` it to wait for a slow client first."""

    __slots__ = ("_ok", "_reply")

    def __init__(self, ok: bool, reply: Reply) -> None:
        self._ok = ok
        self._reply = reply

    def __bool__(self) -> bool:
        return self._ok

    def __await__(self) -> Generator[Any, None, bool]:
        if self._ok:
            yield from self._reply.drain().__await__()
        return self._ok

    def __repr__(self) -> str:
        return f"<Sent {self._ok}>"


class StreamingResponse:
    """The way back of a streaming method, passed as its first argument.

    A method that returns without `end` ends the stream; what it returns is then the final value.

    Wire
    ----
    Chunks are ``{"type": "rpc", "id": str, "success": true, "result": any, "done": false}``, the
    end has ``"done": true`` and no ``result`` without a final value.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._is_open = True

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent: ended, or the client is known to be gone."""
        return not self._is_open

    def send(self, chunk: Any) -> Sent:
        """Send one chunk; false when closed. TypeError for what JSON cannot carry."""
        if self._is_open:
            self._is_open = self._reply.chunk(chunk)
        return Sent(self._is_open, self._reply)

    def end(self, final: Any = MISSING) -> bool:
        """End the stream, with a final value if one is given; False when it was closed already."""
        if not self._is_open:
            return False
        sent = self._reply.done(final)
        self._is_open = False
        return sent

    def error(self, message: str, data: Any = None) -> bool:
        """End the stream with an error; False when it was closed already."""
        if not self._is_open:
            return False
        sent = self._reply.fail(str(message), data)
        self._is_open = False
        return sent


# ── Running ──────────────────────────────────────────────────────────────────────────────


def start_call(
    agent: Any, method: str, args: list[Any], reply: Reply
) -> Coroutine[Any, Any, Failure] | Failure:
    """Run a call as far as it goes without waiting.

    Returns
    -------
    None
        It is answered.
    BaseException
        It is answered with this error, which is for the log; `CallRefused` is the caller's fault.
    Coroutine
        The rest of it, for a task: returns the error or None, raises nothing but CancelledError.

    Thread
    ------
    The agents' thread, with the call's context set.
    """
    stream = StreamingResponse(reply)
    try:
        plan = _find(type(agent), method)
        values = _bound(plan, method, args)
        run = getattr(agent, method)
        value = run(stream, *values) if plan.takes_stream else run(*values)
        if type(value) not in _PLAIN and isinstance(value, _UNFINISHED):
            return _finish(value, stream)
        _answer(value, stream)
    except BaseException as error:  # a method that calls sys.exit() ends its call, not the thread
        return _fail(error, stream)
    return None


def _bound(plan: _Plan, method: str, args: list[Any]) -> list[Any]:
    try:
        return plan.arguments.bind(method, args)
    except ArgumentError as error:
        raise CallRefused(str(error)) from None


async def run_call(agent: Any, method: str, args: list[Any], reply: Reply) -> Failure:
    """Run a whole call; return what `start_call` and its coroutine say."""
    outcome = start_call(agent, method, args, reply)
    return await outcome if isinstance(outcome, Coroutine) else outcome


async def _finish(value: Any, stream: StreamingResponse) -> Failure:
    try:
        if isinstance(value, Awaitable):
            value = await value
        if isinstance(value, GeneratorType):
            value = _each(value)
        if isinstance(value, AsyncIterator):
            await _send_all(value, stream)
            value = None
        _answer(value, stream)
    except (asyncio.CancelledError, GeneratorExit) as error:
        _fail(error, stream)
        raise
    except BaseException as error:
        return _fail(error, stream)
    return None


async def _each(items: Generator[Any, Any, Any]) -> AsyncIterator[Any]:
    with closing(items):
        for item in items:
            yield item


async def _send_all(items: AsyncIterator[Any], stream: StreamingResponse) -> None:
    """Send what a generator yields; close it when the client is gone, as nobody reads on."""
    turn_ends = time.monotonic() + _TURN_S
    try:
        async for item in items:
            if not await stream.send(item):
                return
            if time.monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + _TURN_S
    finally:
        if hasattr(items, "aclose"):
            await items.aclose()


def _answer(value: Any, stream: StreamingResponse) -> None:
    stream.end(MISSING if value is None else value)


def _fail(error: BaseException, stream: StreamingResponse) -> BaseException:
    """Answer with an error, unless the call is answered already; return it for the log."""
    if isinstance(error, asyncio.CancelledError):
        stream.error("Call cancelled")
        return error
    text, data = rpc_text(error)
    if data is not None and not _is_json(data):
        data = None  # no reason to leave the caller waiting
    stream.error(text, data)
    return error


def as_json(value: object) -> Any:
    """A value as a client reads it, in plain Python; TypeError for what JSON cannot carry."""
    return None if value is MISSING else decode(encode(value))


def _is_json(value: object) -> bool:
    try:
        encode(value)
    except TypeError:
        return False
    return True
