from __future__ import annotations

import asyncio
import dataclasses
import datetime  # noqa: TC003  # annotations of callables are read at run time
import functools
import gc
import inspect
from typing import Annotated, Any

import msgspec
import pytest

from jupyter_agents.errors import PublicError
from jupyter_agents.host.callables import (
    CallableMetadata,
    CallRefused,
    Sent,
    StreamingResponse,
    belongs_to_base,
    callable_method,
    get_callable_methods,
    is_callable_method,
    run_call,
    start_call,
)
from jupyter_agents.host.state import Stateful
from jupyter_agents.protocol.messages import MISSING, decode, encode


class FakeReply:
    """Writes down what a host would send; `leave()` is the client closing its socket."""

    def __init__(self, lives=10_000):
        self.frames = []
        self.drained = 0
        self.is_over = False
        self.lives = lives
        self.may_drain = asyncio.Event()
        self.may_drain.set()

    def chunk(self, value):
        if self.is_over or self.lives <= 0:
            return False
        self.frames.append(("chunk", decode(encode(value))))
        self.lives -= 1
        return True

    def done(self, value=MISSING):
        return self.end("done", *(() if value is MISSING else (decode(encode(value)),)))

    def fail(self, text, data=None):
        return self.end("fail", text, *(() if data is None else (decode(encode(data)),)))

    def end(self, *frame):
        if self.is_over or self.lives <= 0:
            return False
        self.is_over = True
        self.frames.append(frame)
        return True

    async def drain(self):
        self.drained += 1
        await self.may_drain.wait()

    def leave(self):
        self.lives = 0


def call(agent, method, *args):
    """What a client hears when nothing has to be waited for."""
    reply = FakeReply()
    outcome = start_call(agent, method, list(args), reply)
    assert not inspect.iscoroutine(outcome)
    assert len(reply.frames) == 1
    return reply.frames[0]


async def run(agent, method, *args, reply=None):
    """Everything a client hears, and what `run_call` returns for the log."""
    reply = reply or FakeReply()
    outcome = await run_call(agent, method, list(args), reply)
    return reply.frames, outcome


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Room(Stateful):
    """An agent's class as far as calls go."""

    initial_state: Any = None
    not_a_method = 7

    @callable_method
    def add(self, a: int, b: int = 1) -> int:
        """Add two numbers.

        And more about it.
        """
        return a + b

    @callable_method
    async def later(self, value):
        await asyncio.sleep(0)
        return value

    @callable_method
    def nothing(self):
        pass

    @callable_method
    def fail(self, text):
        raise ValueError(text)

    @callable_method
    async def fail_later(self, text):
        await asyncio.sleep(0)
        raise KeyError(text)

    def undecorated(self):
        raise AssertionError("not for clients")

    def _private(self):
        raise AssertionError("not for clients")


# ── Which methods ────────────────────────────────────────────────────────────────────────


def test_metadata_of_a_method():
    """A method's name, first docstring line, signature and parameters are told (R2)."""
    assert get_callable_methods(Room)["add"] == CallableMetadata(
        name="add",
        description="Add two numbers.",
        streaming=False,
        signature="(a: int, b: int = 1) -> int",
        parameters=(
            {"name": "a", "type": "int", "required": True},
            {"name": "b", "type": "int", "required": False, "default": 1},
        ),
    )


def test_metadata_is_json():
    """All of it can be sent to a page."""
    for metadata in get_callable_methods(Room).values():
        assert decode(encode(metadata))["name"] == metadata.name


def test_description_may_be_given():
    """`description=` wins over the docstring; without both it is empty."""

    class Agent(Stateful):
        @callable_method(description="Given.")
        def a(self):
            """Not this."""

        @callable_method
        def b(self): ...

    found = get_callable_methods(Agent)
    assert [found[name].description for name in "ab"] == ["Given.", ""]


def test_children_and_parents_methods_are_listed():
    """Parents' methods count, the override wins, undecorated ones are not there (T107)."""

    class Child(Room):
        @callable_method(description="Child's.")
        def add(self, a: str) -> str:
            return a

        @callable_method
        def own(self): ...

        def later(self, value):
            return "taken back"

        def undecorated_too(self): ...

    found = get_callable_methods(Child)
    assert list(found) == ["add", "nothing", "fail", "fail_later", "own"]
    assert found["add"].description == "Child's."
    assert get_callable_methods(Room)["add"].description == "Add two numbers."


async def test_method_that_was_replaced_is_found_anew():
    """What is remembered of a call is not believed when the class has changed, or its parent."""

    class Parent(Stateful):
        @callable_method
        def work(self, a: int):
            return a

    class Child(Parent):
        pass

    async def answer(*args):
        reply = FakeReply()
        await run_call(Child(), "work", list(args), reply)
        return reply.frames[-1]

    assert [await answer(1), await answer(1)] == [("done", 1)] * 2
    Parent.work = callable_method(lambda self: "parent's")
    assert await answer() == ("done", "parent's")
    Child.work = callable_method(lambda self, a, b: a + b)
    assert await answer(1, 2) == ("done", 3)
    Child.work = lambda self: "not marked"
    assert await answer() == ("fail", "Method work is not callable")
    Child.work = 5
    assert await answer() == ("fail", "Method work does not exist")
    Child.work = classmethod(callable_method(lambda cls: cls.__name__))
    assert [await answer(), await answer()] == [("done", "Child")] * 2


def test_undecorated_override_takes_the_method_away():
    """A child that overrides without the mark has closed the method."""

    class Child(Room):
        def add(self, a, b):
            return a + b

    assert call(Child(), "add", 1, 2) == ("fail", "Method add is not callable")


def test_mixin_methods_count():
    """Callables may come from a plain class."""

    class Mixin:
        @callable_method
        def hello(self) -> str:
            return "hi"

    class Agent(Mixin, Stateful):
        pass

    assert call(Agent(), "hello") == ("done", "hi")


def test_method_added_to_the_class_later_counts():
    """A cell may put a method on a class that is served already."""

    class Agent(Stateful):
        pass

    assert call(Agent(), "shout", "a") == ("fail", "Method shout does not exist")
    Agent.shout = callable_method(lambda self, text: text.upper())
    assert call(Agent(), "shout", "a") == ("done", "A")
    del Agent.shout
    assert call(Agent(), "shout", "a") == ("fail", "Method shout does not exist")


def test_same_function_under_two_names():
    """An alias is listed by the name clients use."""

    class Agent(Stateful):
        @callable_method
        def first(self): ...

        second = first

    assert {n: m.name for n, m in get_callable_methods(Agent).items()} == {
        "first": "first",
        "second": "second",
    }


def test_static_and_class_methods_can_be_called():
    """The mark goes above or below @staticmethod and @classmethod."""

    class Agent(Stateful):
        @callable_method
        @staticmethod
        def above(a: int) -> int:
            return a

        @staticmethod
        @callable_method
        def below(a: int) -> int:
            return a

        @classmethod
        @callable_method
        def name_of(cls, a: int) -> str:
            return cls.__name__ * a

    for name in ("above", "below"):
        assert call(Agent(), name, 1) == ("done", 1)
        assert get_callable_methods(Agent)[name].signature == "(a: int) -> int"
    assert call(Agent(), "name_of", 2) == ("done", "AgentAgent")
    assert get_callable_methods(Agent)["name_of"].signature == "(a: int) -> str"


def test_wrapped_methods_keep_mark_and_signature():
    """Another decorator on either side changes nothing, if it uses functools.wraps."""

    def loud(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs).upper()

        return wrapper

    class Agent(Stateful):
        @loud
        @callable_method
        def inside(self, text: str) -> str:
            return text

        @callable_method
        @loud
        def outside(self, text: str) -> str:
            return text

    for name in ("inside", "outside"):
        assert call(Agent(), name, "a") == ("done", "A")
        assert call(Agent(), name, 1)[0] == "fail"
        assert get_callable_methods(Agent)[name].signature == "(text: str) -> str"


@pytest.mark.parametrize("thing", ["a description", 3, Room])
def test_only_methods_can_be_marked(thing):
    """A text given by position, or a class, is a mistake that is said at once."""
    with pytest.raises(TypeError, match="callable_method marks methods"):
        callable_method(thing)


def test_marks_are_recognised():
    """`is_callable_method` looks through static and class methods."""
    assert is_callable_method(vars(Room)["add"])
    assert is_callable_method(staticmethod(Room.add))
    assert not is_callable_method(vars(Room)["undecorated"])
    assert not is_callable_method(7)


# ── Which calls are refused ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "method",
    [
        "nope",
        "",
        "_private",
        "__init__",
        "__class__",
        "__proto__",
        "not_a_method",
        "set_state",
        "state",
        "on_state_changed",
        "observe",
        "trait_names",
        "_state_fields",
        "initial_state",
    ],
)
def test_what_does_not_exist(method):
    """Unknown, private and non-methods, and all of the base class: the SDK's sentence (T094)."""
    assert call(Room(), method) == ("fail", f"Method {method} does not exist")


def test_undecorated_method_is_not_callable():
    """A method without the mark gets the SDK's other sentence, and does not run (T094)."""
    assert call(Room(), "undecorated") == ("fail", "Method undecorated is not callable")


def test_overridden_base_name_still_does_not_exist():
    """A hook is not callable, whoever wrote it."""

    class Child(Room):
        def on_state_changed(self, state, source):
            raise AssertionError("not for clients")

    assert call(Child(), "on_state_changed") == (
        "fail",
        "Method on_state_changed does not exist",
    )
    assert belongs_to_base(Child, "on_state_changed")
    assert not belongs_to_base(Child, "add")


def test_base_names_are_each_classes_own():
    """What belongs to the base of one class does not of another."""

    class Plain:
        def set_state(self): ...

    assert belongs_to_base(Room, "set_state")
    assert not belongs_to_base(Plain, "set_state")


def test_refused_calls_are_the_callers_fault():
    """`start_call` returns CallRefused where nothing of the author's has run, else the error."""
    assert isinstance(start_call(Room(), "nope", [], FakeReply()), CallRefused)
    assert isinstance(start_call(Room(), "add", [], FakeReply()), CallRefused)
    error = start_call(Room(), "fail", ["x"], FakeReply())
    assert isinstance(error, ValueError)
    assert error.__traceback__ is not None


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "add() is missing argument 'a'"),
        ([1, 2, 3], "add() takes at most 2 ('a', 'b'), 3 given"),
        (["1"], "add() argument 'a': Expected `int`, got `str`"),
        ([1, None], "add() argument 'b': Expected `int`, got `null`"),
        ([True], "add() argument 'a': Expected `int`, got `bool`"),
        ([1.5], "add() argument 'a': Expected `int`, got `float`"),
    ],
)
def test_arguments_that_do_not_fit(args, text):
    """The error names the parameter (T213)."""
    assert call(Room(), "add", *args) == ("fail", text)


def test_body_does_not_run_with_wrong_arguments():
    """Arguments are checked before the body (T213), the later ones too."""
    ran = []

    class Agent(Stateful):
        @callable_method
        def act(self, a: int, b: int):
            ran.append(a)

    assert call(Agent(), "act", 1, "x")[0] == "fail"
    assert ran == []


def test_type_error_of_the_body_is_the_authors():
    """A TypeError from inside is not mistaken for wrong arguments."""

    class Agent(Stateful):
        @callable_method
        def act(self):
            return self.act("surplus")

    error = start_call(Agent(), "act", [], FakeReply())
    assert isinstance(error, TypeError)
    assert not isinstance(error, CallRefused)


def test_arguments_are_converted():
    """JSON becomes what the annotations say, and goes back as JSON."""

    class Agent(Stateful):
        @callable_method
        def move(self, point: Point, when: datetime.datetime, by: float) -> Point:
            assert type(by) is float
            assert when.year == 2026
            return Point(point.x + int(by), point.y)

    assert call(Agent(), "move", {"x": 1}, "2026-11-22T00:00:00Z", 2) == ("done", {"x": 3, "y": 0})


def test_wrong_part_of_an_argument_is_named_by_its_path():
    """The path begins with the parameter's name."""

    class Agent(Stateful):
        @callable_method
        def move(self, points: list[Point]): ...

    assert call(Agent(), "move", [{"x": 1}, {"x": "1"}]) == (
        "fail",
        "move() argument 'points': Expected `int`, got `str` - at `points[1].x`",
    )


def test_instance_attribute_may_stand_in():
    """What shadows the method on the instance is called, as in Python."""
    room = Room()
    room.add = lambda a, b=0: "stand-in"
    assert call(room, "add", 1) == ("done", "stand-in")


# ── Results ──────────────────────────────────────────────────────────────────────────────


def test_sync_result():
    """A plain method is answered at once, without a task (T090)."""
    assert call(Room(), "add", 1, 2) == ("done", 3)


async def test_async_result():
    """An async method's result comes when it is there (T091)."""
    assert await run(Room(), "later", [1]) == ([("done", [1])], None)


async def test_async_method_is_started_at_once():
    """What runs before the first await of a coroutine waits for the task, not for a frame."""
    outcome = start_call(Room(), "later", [1], reply := FakeReply())
    assert inspect.iscoroutine(outcome)
    assert reply.frames == []
    assert await outcome is None
    assert reply.frames == [("done", 1)]


async def test_no_result():
    """None is success without a result, also from an async method (T092)."""
    assert call(Room(), "nothing") == ("done",)
    assert await run(Room(), "later", None) == ([("done",)], None)


@pytest.mark.parametrize("value", [0, False, "", [], {}])
def test_falsy_results_are_results(value):
    """Only None counts as no result."""

    class Agent(Stateful):
        @callable_method
        def give(self):
            return value

    assert call(Agent(), "give") == ("done", value)


def test_no_args_is_empty_args():
    """A call without arguments is bound to defaults (T103)."""

    class Agent(Stateful):
        @callable_method
        def give(self, a=1, *rest, b=2):
            return [a, *rest, b]

    assert call(Agent(), "give") == ("done", [1, 2])
    assert call(Agent(), "give", 5, 6, 7) == ("done", [5, 6, 7, 2])


async def test_result_that_json_cannot_carry():
    """The error names the type; the caller does not wait forever."""

    class Agent(Stateful):
        @callable_method
        def give(self):
            return {"a": object()}

        @callable_method
        async def give_later(self):
            return object()

    (kind, text) = call(Agent(), "give")
    assert kind == "fail"
    assert "object" in text
    (frames, error) = await run(Agent(), "give_later")
    assert frames[0][0] == "fail"
    assert isinstance(error, TypeError)


async def test_awaitable_result_of_a_plain_method():
    """A plain method may return a task or future."""

    class Agent(Stateful):
        @callable_method
        def give(self):
            return asyncio.ensure_future(asyncio.sleep(0, "later"))

    assert await run(Agent(), "give") == ([("done", "later")], None)


# ── Errors ───────────────────────────────────────────────────────────────────────────────


async def test_error_text_is_the_message():
    """The exception's message reaches the caller, never a traceback (T093)."""
    assert call(Room(), "fail", "kaput") == ("fail", "kaput")
    frames, error = await run(Room(), "fail_later", "kaput")
    assert isinstance(error, KeyError)
    assert frames[0][0] == "fail"
    assert "Traceback" not in frames[0][1]


def test_public_error_carries_data():
    """`PublicError` tells the caller more, as far as JSON can."""

    class Agent(Stateful):
        @callable_method
        def act(self, data):
            raise PublicError("no", {"data": object() if data == "bad" else data})

    assert call(Agent(), "act", 1) == ("fail", "no", {"data": 1})
    assert call(Agent(), "act", "bad") == ("fail", "no")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_exit_ends_the_call_not_the_thread(error):
    """`sys.exit()` in a method is an error of that call."""

    class Agent(Stateful):
        @callable_method
        def act(self):
            raise error

    reply = FakeReply()
    assert start_call(Agent(), "act", [], reply) is error
    assert reply.frames[0][0] == "fail"


async def test_exit_in_an_async_method_ends_the_call_not_the_loop():
    """The same behind an await: a task that raised SystemExit would stop the agents' thread."""

    class Agent(Stateful):
        @callable_method
        async def act(self):
            await asyncio.sleep(0)
            raise SystemExit(3)

    frames, error = await run(Agent(), "act")
    assert frames[0][0] == "fail"
    assert isinstance(error, SystemExit)


async def test_cancelled_call_is_answered_and_stays_cancelled():
    """CancelledError reaches the method, the caller hears of it, the task is cancelled (T207)."""
    seen = []

    class Agent(Stateful):
        @callable_method
        async def wait(self):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    reply = FakeReply()
    task = asyncio.create_task(run_call(Agent(), "wait", [], reply))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]
    assert reply.frames == [("fail", "Call cancelled")]


async def test_method_may_answer_in_spite_of_cancellation():
    """A method that catches the cancellation answers as it likes."""

    class Agent(Stateful):
        @callable_method
        async def wait(self):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "saved"

    reply = FakeReply()
    task = asyncio.create_task(run_call(Agent(), "wait", [], reply))
    await asyncio.sleep(0)
    task.cancel()
    assert await task is None
    assert reply.frames == [("done", "saved")]


async def test_calls_overlap():
    """A short call answers before an earlier long one (T101, T102)."""
    gate = asyncio.Event()

    class Agent(Stateful):
        @callable_method
        async def slow(self):
            await gate.wait()
            return "slow"

        @callable_method
        async def fast(self):
            gate.set()
            return "fast"

    reply = FakeReply()
    order = []
    reply.end = lambda *frame: order.append(frame) or True
    agent = Agent()
    await asyncio.gather(run_call(agent, "slow", [], reply), run_call(agent, "fast", [], reply))
    assert order == [("done", "fast"), ("done", "slow")]


async def test_client_that_left_does_not_harm_the_method():
    """The method runs to its end, the answer is dropped quietly, an error is still told (T038)."""
    ran = []

    class Agent(Stateful):
        @callable_method
        async def work(self, fail):
            await asyncio.sleep(0)
            ran.append("to the end")
            if fail:
                raise ValueError("late")

    reply = FakeReply(lives=0)
    assert await run(Agent(), "work", False, reply=reply) == ([], None)
    frames, error = await run(Agent(), "work", True, reply=reply)
    assert frames == []
    assert str(error) == "late"
    assert ran == ["to the end"] * 2


# ── Streams, the explicit form ───────────────────────────────────────────────────────────


class Streams(Stateful):
    """Methods that get a StreamingResponse."""

    @callable_method
    def count(self, stream: StreamingResponse, n: int):
        for i in range(n):
            stream.send(i)
        stream.end(n)

    @callable_method(streaming=True)
    async def pauses(self, stream, n: int):
        for i in range(n):
            await asyncio.sleep(0)
            stream.send(i)
        stream.end()

    @callable_method
    def raises(self, stream: StreamingResponse, n: int):
        for i in range(n):
            stream.send(i)
        raise ValueError("stream boom")

    @callable_method
    def tells(self, stream: StreamingResponse):
        stream.send("one")
        stream.error("explicit error")

    @callable_method
    def forgets(self, stream: StreamingResponse, final: Any = None):
        stream.send("only")
        return final


def test_streaming_methods_say_so():
    """Annotated and declared ones are streaming; the stream is no parameter of the caller's."""
    found = get_callable_methods(Streams)
    assert all(metadata.streaming for metadata in found.values())
    assert [p["name"] for p in found["count"].parameters] == ["n"]
    assert found["pauses"].signature == "(n: int)"
    assert not get_callable_methods(Room)["add"].streaming


async def test_chunks_then_final_value():
    """Chunks come in order, then the final value (T095)."""
    frames, error = await run(Streams(), "count", 5)
    assert frames == [*[("chunk", i) for i in range(5)], ("done", 5)]
    assert error is None


async def test_stream_with_pauses():
    """A stream that awaits in between keeps its order; no final value, no result (T096)."""
    assert (await run(Streams(), "pauses", 3))[0] == [
        ("chunk", 0),
        ("chunk", 1),
        ("chunk", 2),
        ("done",),
    ]


@pytest.mark.parametrize("n", [0, 1])
async def test_stream_that_raises(n):
    """The chunks before it, if any, then the error (T097, T098)."""
    frames, error = await run(Streams(), "raises", n)
    assert frames == [*[("chunk", i) for i in range(n)], ("fail", "stream boom")]
    assert isinstance(error, ValueError)


async def test_stream_error():
    """`stream.error` ends the stream with an error (T099)."""
    frames, error = await run(Streams(), "tells")
    assert frames == [("chunk", "one"), ("fail", "explicit error")]
    assert error is None


async def test_stream_that_is_not_ended_ends():
    """Returning without `end()` ends the stream; what is returned is the final value."""
    assert (await run(Streams(), "forgets"))[0] == [("chunk", "only"), ("done",)]
    assert (await run(Streams(), "forgets", 7))[0] == [("chunk", "only"), ("done", 7)]


def test_only_the_first_end_counts():
    """A second end, error or send answers False and sends nothing (T100)."""
    stream = StreamingResponse(reply := FakeReply())
    assert stream.end("first") is True
    assert stream.is_closed
    assert stream.end("second") is False
    assert stream.error("third") is False
    assert not stream.send("fourth")
    assert reply.frames == [("done", "first")]


async def test_error_after_the_end_is_only_logged():
    """The caller has its answer; the error is for the log."""

    class Agent(Stateful):
        @callable_method
        def act(self, stream: StreamingResponse):
            stream.end(1)
            raise ValueError("too late")

    frames, error = await run(Agent(), "act")
    assert frames == [("done", 1)]
    assert str(error) == "too late"


def test_null_may_be_a_final_value():
    """`end(None)` is null, `end()` is nothing."""
    StreamingResponse(reply := FakeReply()).end(None)
    assert reply.frames == [("done", None)]


def test_send_is_false_when_the_client_is_gone():
    """The first send that fails closes the stream (R5)."""
    stream = StreamingResponse(reply := FakeReply())
    assert stream.send(1)
    assert not stream.is_closed
    reply.leave()
    assert not stream.send(2)
    assert stream.is_closed
    assert stream.end() is False


def test_stream_stays_open_when_a_value_cannot_be_sent():
    """After a TypeError of `send` or `end` the method may still answer."""
    stream = StreamingResponse(reply := FakeReply())
    with pytest.raises(TypeError):
        stream.send(object())
    with pytest.raises(TypeError):
        stream.end(object())
    with pytest.raises(TypeError):
        stream.error("no", object())
    assert not stream.is_closed
    assert stream.error("sorry") is True
    assert reply.frames == [("fail", "sorry")]


async def test_unsendable_chunk_fails_the_call():
    """A chunk that JSON cannot carry is the method's error, and the caller's answer."""

    class Agent(Stateful):
        @callable_method
        def act(self, stream: StreamingResponse):
            stream.send(1)
            stream.send(object())

    frames, error = await run(Agent(), "act")
    assert frames[0] == ("chunk", 1)
    assert frames[1][0] == "fail"
    assert isinstance(error, TypeError)


async def test_awaiting_send_waits_for_a_slow_client():
    """`await stream.send(x)` is the back-pressure, and still says whether it went out (R5)."""
    stream = StreamingResponse(reply := FakeReply())
    reply.may_drain.clear()

    async def send():
        return await stream.send(1)

    task = asyncio.create_task(send())
    await asyncio.sleep(0)
    assert not task.done()
    assert reply.frames == [("chunk", 1)]
    reply.may_drain.set()
    assert await task is True
    reply.leave()
    assert await stream.send(2) is False
    assert reply.drained == 1


def test_send_without_await_warns_of_nothing():
    """What `send` returns is no coroutine that wants to be awaited."""
    sent = StreamingResponse(FakeReply()).send(1)
    assert isinstance(sent, Sent)
    assert bool(sent) is True
    assert repr(sent) == "<Sent True>"
    del sent
    gc.collect()  # a coroutine never awaited would warn here, and warnings are errors


def test_streaming_true_without_a_parameter_is_a_plain_method():
    """There is nothing to pass the stream as."""

    class Agent(Stateful):
        @callable_method(streaming=True)
        def act(self):
            return 1

    assert call(Agent(), "act") == ("done", 1)


# ── Streams, generators ──────────────────────────────────────────────────────────────────


class Generators(Stateful):
    """Methods that yield."""

    def __init__(self):
        super().__init__()
        self.closed = []

    @callable_method
    async def count(self, n: int):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    @callable_method
    def plain(self, n: int):
        yield from range(n)

    @callable_method
    async def raises(self, n: int):
        for i in range(n):
            yield i
        raise ValueError("generator boom")

    @callable_method
    async def forever(self):
        i = 0
        try:
            while True:
                yield (i := i + 1)
        finally:
            self.closed.append("async")

    @callable_method
    def plain_forever(self):
        i = 0
        try:
            while True:
                yield (i := i + 1)
        finally:
            self.closed.append("plain")

    @callable_method
    def returns_one(self):
        return self.count(2)

    @callable_method
    async def awaits_one(self):
        return self.plain(2)


def test_generators_are_streaming():
    """Generators say that they stream, and take no stream."""
    found = get_callable_methods(Generators)
    assert [found[n].streaming for n in ("count", "plain", "returns_one")] == [True, True, False]
    assert found["count"].signature == "(n: int)"


@pytest.mark.parametrize("method", ["count", "plain"])
async def test_generator_streams_by_itself(method):
    """Each yield is a chunk; the end has no result (R1b)."""
    assert await run(Generators(), method, 3) == (
        [("chunk", 0), ("chunk", 1), ("chunk", 2), ("done",)],
        None,
    )
    assert (await run(Generators(), method, 0))[0] == [("done",)]


@pytest.mark.parametrize("method", ["returns_one", "awaits_one"])
async def test_returned_generator_streams(method):
    """A method may return a generator of another."""
    assert (await run(Generators(), method))[0] == [("chunk", 0), ("chunk", 1), ("done",)]


async def test_arguments_of_a_generator_are_checked_before_it_runs():
    """A generator's body starts late; its arguments are refused at once."""
    assert call(Generators(), "count", "x")[1] == "count() argument 'n': Expected `int`, got `str`"


async def test_generator_that_raises():
    """The chunks before it, then the error (T097)."""
    frames, error = await run(Generators(), "raises", 1)
    assert frames == [("chunk", 0), ("fail", "generator boom")]
    assert isinstance(error, ValueError)


async def test_generator_with_an_unsendable_chunk():
    """It is closed, and the caller gets the error."""

    class Agent(Stateful):
        @callable_method
        async def act(self):
            try:
                yield object()
            finally:
                closed.append(True)

    closed = []
    frames, error = await run(Agent(), "act")
    assert frames[0][0] == "fail"
    assert isinstance(error, TypeError)
    assert closed == [True]


@pytest.mark.parametrize(("method", "kind"), [("forever", "async"), ("plain_forever", "plain")])
async def test_generator_is_closed_when_the_client_is_gone(method, kind):
    """Nobody reads on, so an endless generator ends, and its `finally` runs at once."""
    agent = Generators()
    frames, error = await run(agent, method, reply=FakeReply(lives=3))
    assert frames == [("chunk", 1), ("chunk", 2), ("chunk", 3)]
    assert error is None
    assert agent.closed == [kind]


@pytest.mark.parametrize(("method", "kind"), [("forever", "async"), ("plain_forever", "plain")])
async def test_endless_generator_leaves_others_their_turn(method, kind):
    """A generator that never awaits does not take the loop for itself, and can be cancelled."""
    agent, reply = Generators(), FakeReply(lives=10**9)
    task = asyncio.create_task(run_call(agent, method, [], reply))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert agent.closed == [kind]
    assert len(reply.frames) > 3
    assert reply.frames[-1] == ("fail", "Call cancelled")


@pytest.mark.parametrize("method", ["forever", "plain_forever"])
async def test_generator_waits_for_a_slow_client(method):
    """Between chunks a generator stops while the client does not keep up."""
    agent, reply = Generators(), FakeReply()
    reply.may_drain.clear()
    task = asyncio.create_task(run_call(agent, method, [], reply))
    for _ in range(5):
        await asyncio.sleep(0)
    assert reply.frames == [("chunk", 1)]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(agent.closed) == 1


async def test_generator_may_have_a_stream_too():
    """Annotated for one, a generator gets it: chunks of both, and a final value."""

    class Agent(Stateful):
        @callable_method
        async def act(self, stream: StreamingResponse):
            yield 1
            stream.send(2)
            stream.end("final")

    assert (await run(Agent(), "act"))[0] == [("chunk", 1), ("chunk", 2), ("done", "final")]


async def test_any_async_iterator_streams():
    """An object with __aiter__ and __anext__ will do; it need not be a generator."""

    class Ticker:
        left = 2

        def __aiter__(self):
            return self

        async def __anext__(self):
            if self.left == 0:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    class Agent(Stateful):
        @callable_method
        def ticks(self):
            return Ticker()

    assert (await run(Agent(), "ticks"))[0] == [("chunk", 1), ("chunk", 0), ("done",)]


# ── Parameters told to forms ─────────────────────────────────────────────────────────────


def test_parameters_tell_bounds_and_docs():
    """`Annotated` carries bounds and a description to the form (see protocol.arguments)."""

    class Agent(Stateful):
        @callable_method
        def warm(
            self, target: Annotated[float, msgspec.Meta(ge=5, le=30, description="°C")] = 20.0
        ): ...

    assert get_callable_methods(Agent)["warm"].parameters == (
        {
            "name": "target",
            "type": "float",
            "required": False,
            "default": 20.0,
            "min": 5,
            "max": 30,
            "doc": "°C",
        },
    )
    assert call(Agent(), "warm", 31)[1] == "warm() argument 'target': Expected `float` <= 30.0"
