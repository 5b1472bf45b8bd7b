"""Calls are answered by their ids, overlap, stream and can be cancelled."""

from __future__ import annotations

import asyncio
import json

import pytest

from jupyter_agents import (
    Agent,
    CallFailed,
    PublicError,
    StreamingResponse,
    callable_method,
    get_current_agent,
)
from jupyter_agents.testing import AgentHarness


class Worker(Agent):
    initial_state = {"n": 0}

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()
        self.cancelled = 0

    @callable_method
    def add(self, a: int, b: int) -> int:
        return a + b

    @callable_method
    async def wait(self, answer):
        await self.gate.wait()
        return answer

    @callable_method
    def nothing(self):
        return None

    @callable_method
    def fail(self):
        raise ValueError("went wrong")

    @callable_method
    def fail_in_public(self):
        raise PublicError("look", data={"at": 1})

    @callable_method
    async def count(self, n: int):
        for i in range(n):
            yield i
            await asyncio.sleep(0)

    @callable_method(streaming=True)
    def explicit(self, stream: StreamingResponse, n: int):
        for i in range(n):
            stream.send(i)
        stream.end(n)
        assert stream.send("late") is False or not stream.send("late")

    @callable_method
    def bump(self):
        self.set_state({"n": self.state["n"] + 1})
        return self.state["n"]

    @callable_method
    async def who(self):
        current = get_current_agent()
        in_thread = await asyncio.to_thread(get_current_agent)
        return [current.agent.name, current.connection.id, in_thread.connection.id]

    @callable_method
    async def endless(self):
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def hidden(self):
        return "hidden"


async def test_results_and_errors():
    """T090–T094: results, no value, the exception's text, and the two sentences of the SDK."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x")
        assert await client.call("add", 1, 2) == 3
        assert await client.call("nothing") is None
        for method, sentence in [
            ("fail", "went wrong"),
            ("missing", "Method missing does not exist"),
            ("hidden", "Method hidden is not callable"),
            ("_seat", "Method _seat does not exist"),
            ("set_state", "Method set_state does not exist"),
        ]:
            with pytest.raises(CallFailed) as raised:
                await client.call(method)
            assert str(raised.value) == sentence


async def test_public_error_is_an_answer_and_no_failure(caplog):
    """What an author tells the caller on purpose is one line of information in the log."""
    caplog.set_level("INFO")
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x")
        with pytest.raises(CallFailed):
            await client.call("fail_in_public")
    [record] = [record for record in caplog.records if "look" in record.getMessage()]
    assert record.levelname == "INFO"
    assert record.exc_info is None
    assert record.getMessage() == "Worker 'x': fail_in_public: PublicError: look"


async def test_public_error_carries_data():
    """A PublicError's data reaches the client."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x")
        with pytest.raises(CallFailed, match="look") as raised:
            await client.call("fail_in_public")
        assert raised.value.data == {"at": 1}


async def test_wrong_argument_is_named_before_the_body_runs():
    """T213: the error names the parameter."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x")
        with pytest.raises(CallFailed, match="b"):
            await client.call("add", 1, "two")
        with pytest.raises(CallFailed, match="b"):
            await client.call("add", 1)


async def test_streams():
    """T095: an async generator streams by itself, the explicit form ends with a value."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x")
        assert await client.call("count", 3) == [0, 1, 2]
        replies = await client.replies("explicit", 2)
        assert [(r.result, r.done) for r in replies] == [(0, False), (1, False), (2, True)]


async def test_later_short_call_answers_first():
    """T101, T102: calls of one connection overlap, each answer has its id."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x")
        slow = asyncio.ensure_future(client.call("wait", "slow"))
        await asyncio.sleep(0)
        assert await client.call("add", 1, 1) == 2
        assert not slow.done()
        harness.agent(Worker, "x").gate.set()
        assert await slow == "slow"


async def test_state_frame_precedes_the_reply():
    """WIRE 4: in a call that changes the state, the state comes before the answer."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x")
        seen = len(client.frames)
        assert await client.call("bump") == 1
        kinds = [json.loads(frame)["type"] for frame in client.frames[seen:]]
        assert kinds == ["cf_agent_state", "rpc"]


async def test_current_agent_follows_into_threads():
    """`get_current_agent` knows agent and connection, in ``to_thread`` too; outside nothing."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x", connection_id="A")
        assert await client.call("who") == ["x", "A", "A"]
        assert get_current_agent() == (None, None, None, None)


async def test_disconnect_lets_the_call_run_to_its_end():
    """T038, T108: the caller is gone, the method ends, nothing is raised."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x")
        frame = {"type": "rpc", "id": "1", "method": "wait", "args": [1]}
        await client.send_json(frame)
        await harness.idle()
        await client.vanish()
        harness.agent(Worker, "x").gate.set()
        await harness.idle()
        assert not harness.host.tasks


async def test_negotiated_client_cancels():
    """T207: a cancel frame is a CancelledError in the method.

    An SDK client's is its own message.
    """
    async with AgentHarness(Worker) as harness:
        ours = await harness.connect(Worker, "x", extended=True)
        await ours.send_json({"type": "rpc", "id": "1", "method": "endless", "args": []})
        await harness.idle()
        sdk = await harness.connect(Worker, "x")
        await sdk.send_json({"type": "rpc_cancel", "id": "1"})
        await harness.idle()
        assert harness.agent(Worker, "x").cancelled == 0
        await ours.send_json({"type": "rpc_cancel", "id": "1"})
        await harness.idle()
        assert harness.agent(Worker, "x").cancelled == 1


async def test_deadline_ends_the_call():
    """A deadline sent with the call cancels it and answers with an error."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x", extended=True)
        frame = {"type": "rpc", "id": "1", "method": "endless", "args": [], "deadline_ms": 1}
        await client.send_json(frame)
        await client._until(lambda: "1" in client._replies, 5, "the answer")
        assert "did not end within 1 ms" in client._replies["1"][0].error
        await harness.idle()
        assert harness.agent(Worker, "x").cancelled == 1


async def test_class_may_cancel_on_disconnect():
    """`cancel_on_disconnect`: the caller's going is a CancelledError in its calls."""

    class Impatient(Worker):
        cancel_on_disconnect = True

    async with AgentHarness(Impatient) as harness:
        client = await harness.connect(Impatient, "x")
        await client.send_json({"type": "rpc", "id": "1", "method": "endless", "args": []})
        await harness.idle()
        agent = harness.agent(Impatient, "x")
        await client.vanish()
        await harness.idle()
        assert agent.cancelled == 1


async def test_malformed_call_with_an_id_is_answered():
    """T212: our answer is an error where the SDK is silent.

    The frame still reaches `on_message`.
    """
    heard = []

    class Listener(Agent):
        def on_message(self, connection, message):
            heard.append(message)

    async with AgentHarness(Listener) as harness:
        client = await harness.connect(Listener, "x")
        await client.send_json({"type": "rpc", "id": "1", "args": []})
        await client._until(lambda: "1" in client._replies, 5, "the answer")
        assert client._replies["1"][0].success is False
        assert len(heard) == 1


async def test_error_in_a_call_is_logged_for_the_author(caplog):
    """T214: the client gets the message only, the log has agent, method and traceback."""
    async with AgentHarness(Worker) as harness:
        client = await harness.connect(Worker, "x")
        with pytest.raises(CallFailed):
            await client.call("fail")
        record = next(r for r in caplog.records if "went wrong" in r.getMessage())
        assert "Worker 'x': fail" in record.getMessage()
        assert record.exc_info is not None
