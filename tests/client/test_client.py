"""What a client's user calls: `jupyter_agents.client.client`."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
from typing import Any

import pytest

from jupyter_agents.client.client import AgentClient, connect
from jupyter_agents.client.transport import HandshakeRefused
from jupyter_agents.errors import (
    AddressError,
    AgentNotFound,
    CallAborted,
    CallFailed,
    CallTimeout,
    ConnectionClosed,
    ConnectionReadonly,
    StateRejected,
)
from jupyter_agents.protocol.backoff import ReconnectPolicy
from tests.client.fakes import FakeServer, settle


async def open_client(server: FakeServer, **options: Any) -> AgentClient:
    """A client that is connected and greeted without a state."""
    client = server.client(**options)
    await server.opened(client)
    return client


async def quit_client(client: AgentClient) -> None:
    """Close, and leave nothing running."""
    client.close()
    await client.wait_closed()


# ── Connecting ───────────────────────────────────────────────────────────────────────────────


async def test_connect_waits_for_identity_and_state(server: FakeServer) -> None:
    """Both ways to connect give a client that knows its state (T130)."""

    async def greet() -> None:
        await settle()
        server.line.greet(state={"n": 1})

    for way in ("with", "await"):
        greeter = asyncio.ensure_future(greet())
        if way == "with":
            async with server.client() as client:
                assert client.state == {"n": 1}
        else:
            client = await server.client()
            assert client.state == {"n": 1}
            await quit_client(client)
        await greeter
        assert client.ready_state == "closed"


async def test_connect_has_the_arguments_of_the_client(server: FakeServer) -> None:
    """`connect` makes an `AgentClient`, and tools see its arguments."""
    client = connect("room", host="localhost")
    assert isinstance(client, AgentClient)
    assert list(inspect.signature(connect).parameters) == list(
        inspect.signature(AgentClient).parameters
    )
    assert "Give a client" in str(connect.__doc__)
    assert not hasattr(connect, "call")


async def test_connect_sends_id_and_extension_in_the_query(server: FakeServer) -> None:
    """The URL carries the connection's id and asks for our extension; the SDK's way does not."""
    client = await open_client(server, query={"a": 1, "none": None})
    assert server.line.query == {"_pk": client.id, "_ja": "1", "a": "1"}
    assert server.line.url.startswith("ws://localhost:8888/agents/room/lobby?")
    plain = await open_client(server, extended=False, id="me")
    assert server.line.query == {"_pk": "me"}
    await quit_client(client)
    await quit_client(plain)


async def test_connect_shows_the_token_in_a_header_only(server: FakeServer) -> None:
    """A token is in no URL, in no repr, and yields to the user's own Authorization header."""
    client = await open_client(server, token="s3cret", headers={"X-A": "b"})
    assert server.line.headers == {"X-A": "b", "Authorization": "token s3cret"}
    assert "s3cret" not in server.line.url + repr(client)
    await quit_client(client)
    other = await open_client(server, token="s3cret", headers={"authorization": "Bearer x"})
    assert server.line.headers == {"authorization": "Bearer x"}
    await quit_client(other)


async def test_connect_asks_providers_at_every_connection(server: FakeServer) -> None:
    """Query functions, plain or coroutine, are asked anew for each attempt (T127)."""
    asked: list[int] = []

    async def query() -> dict[str, int]:
        asked.append(len(asked))
        return {"ticket": asked[-1]}

    client = await open_client(server, query=query, headers=lambda: {"X-N": len(asked)})
    assert (server.line.query["ticket"], server.line.headers) == ("0", {"X-N": "1"})
    client.reconnect()
    await settle()
    assert server.line.query["ticket"] == "1"
    await quit_client(client)


async def test_connect_keeps_its_id_across_reconnects(server: FakeServer) -> None:
    """One client object is one connection to the agent, however often its socket changes."""
    client = await open_client(server)
    client.reconnect()
    await settle()
    first, second = server.connections
    assert first.query["_pk"] == second.query["_pk"] == client.id
    await quit_client(client)


@pytest.mark.parametrize("wrong", ["", "x" * 257])
def test_id_that_a_server_refuses_is_refused_here(wrong: str) -> None:
    """A connection id has 1 to 256 characters."""
    with pytest.raises(AddressError):
        AgentClient("room", host="localhost", id=wrong)


async def test_connect_gives_up_in_time(server: FakeServer) -> None:
    """An agent that says nothing is not waited for without end, and nothing stays behind."""
    with pytest.raises(TimeoutError, match=r"room/lobby was not ready within 0\.01 s"):
        await server.client(open_timeout=0.01)
    assert server.line.closed == (1000, "")


async def test_connect_can_wait_for_the_socket_only(server: FakeServer) -> None:
    """For agents that never say who they are, being connected is enough."""
    async with server.client(wait_for="open") as client:
        assert client.ready_state == "open"
        assert not client.identified


async def test_connect_to_an_unknown_agent_names_the_known(server: FakeServer) -> None:
    """A 404 of ours becomes `AgentNotFound` with what is served, at once."""
    server.refusal = HandshakeRefused(404, b'{"error": "no", "agents": ["chat", "clock"]}')
    with pytest.raises(AgentNotFound, match=r"room.*chat, clock"):
        await server.client()
    assert server.attempts == 1


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (403, b"", "token"),
        (403, b'{"error": "Forbidden"}', "Forbidden: .*token"),
        (404, b"<html>", "extension"),
        (404, b'{"error": "no such room"}', "WebSocket: no such room$"),
        (401, b"[]", "token"),
        (302, b"", "login"),
        (409, b"", "WebSocket$"),
    ],
)
async def test_connect_that_is_refused_says_what_to_do(
    server: FakeServer, status: int, body: bytes, hint: str
) -> None:
    """A refusal at the first attempt is final, and its sentence says what to change."""
    server.refusal = HandshakeRefused(status, body)
    client = server.client()
    with pytest.raises(HandshakeRefused, match=hint):
        await client
    assert client.connection_error is not None
    with pytest.raises(HandshakeRefused):
        await client.ready
    assert server.clock.pending() == []


async def test_connect_survives_a_server_that_is_not_up_yet(server: FakeServer) -> None:
    """A refused connection is tried again: the server may be starting."""
    server.refusal = ConnectionRefusedError(111, "Connection refused")
    client = server.client()
    client.start()
    await settle()
    server.refusal = None
    await server.clock.advance(3)
    server.line.greet()
    await client.ready
    await quit_client(client)


# ── Calls ────────────────────────────────────────────────────────────────────────────────────


async def test_call_gives_the_result(server: FakeServer) -> None:
    """A call is sent at once and gives what the method returned."""
    client = await open_client(server)
    call = client.call("add", [1, 2])
    (frame,) = server.line.frames("rpc")
    assert (frame["method"], frame["args"], frame["deadline_ms"]) == ("add", [1, 2], 30000)
    server.line.answer(result=3)
    assert await call == 3
    await quit_client(client)


async def test_call_takes_any_sequence_but_text(server: FakeServer) -> None:
    """A forgotten pair of brackets is named, not taken apart letter by letter."""
    client = await open_client(server)
    with pytest.raises(TypeError, match="list of arguments"):
        client.call("shout", "hi")
    with pytest.raises(TypeError, match="list of arguments"):
        client.call("add", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="object"):
        client.call("add", [object()])
    assert server.line.frames() == []
    await quit_client(client)


async def test_call_fails_with_the_agents_error(server: FakeServer) -> None:
    """The agent's sentence is the error's."""
    client = await open_client(server)
    call = client.call("add")
    server.line.answer(success=False, error="no")
    with pytest.raises(CallFailed, match=r"^no$"):
        await call
    await quit_client(client)


async def test_close_fails_calls_at_once(server: FakeServer) -> None:
    """A call in flight ends in the very moment of a close on purpose (T109)."""
    client = await open_client(server)
    call = client.call("slow")
    client.close()
    assert call.done()
    with pytest.raises(CallAborted) as caught:
        await call
    assert caught.value.transmitted
    await client.wait_closed()


async def test_drop_fails_what_was_sent(server: FakeServer) -> None:
    """A transmitted call cannot be answered after a drop, though the client comes back (T110)."""
    client = await open_client(server)
    call = client.call("slow")
    server.line.drop()
    with pytest.raises(CallAborted, match="Connection closed") as caught:
        await call
    assert caught.value.transmitted
    assert client.ready_state == "connecting"
    await quit_client(client)


async def test_call_made_while_away_waits(server: FakeServer) -> None:
    """A call made while disconnected survives another drop and succeeds in the end (T111)."""
    client = await open_client(server)
    server.line.drop()
    call = client.call("add", [1])
    server.refusal = ConnectionRefusedError("down")
    await server.clock.advance(3)
    assert server.attempts == 2
    assert not call.done()
    server.refusal = None
    await server.clock.advance(10)
    server.line.answer(result="late")
    assert await call == "late"
    await quit_client(client)


async def test_call_times_out(server: FakeServer) -> None:
    """The client's time limit names method and seconds, and the agent learns of it (T112)."""
    client = await open_client(server, timeout=0.3)
    call = client.call("slow")
    await server.clock.advance(0.29)
    assert not call.done()
    await server.clock.advance(0.01)
    with pytest.raises(CallTimeout, match=r"slow did not answer within 0\.3 s"):
        await call
    assert [frame["type"] for frame in server.line.frames()] == ["rpc", "rpc_cancel"]
    await quit_client(client)


async def test_call_with_timeout_0_waits_for_ever(server: FakeServer) -> None:
    """A call's own limit wins over the client's; 0 is none (T113)."""
    client = await open_client(server, timeout=0.3)
    patient, hasty = client.call("a", timeout=0), client.call("b", timeout=0.1)
    await server.clock.advance(0.1)
    assert hasty.done()
    await server.clock.advance(1000)
    server.line.answer(0, result=1)
    assert await patient == 1
    assert "deadline_ms" not in server.line.frames("rpc")[0]
    with pytest.raises(CallTimeout):
        await hasty
    await quit_client(client)


async def test_stream_has_no_time_limit(server: FakeServer) -> None:
    """A stream may take longer than a call (T114)."""
    client = await open_client(server, timeout=0.3)
    stream = client.stream("count")
    await server.clock.advance(1000)
    server.line.answer(result=1, done=False, seq=0)
    server.line.answer(result="end")
    assert [chunk async for chunk in stream] == [1]
    assert stream.result == "end"
    await quit_client(client)


async def test_late_answer_is_a_warning(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer to a call that has timed out is named in the log and harms nothing (T115)."""
    client = await open_client(server, timeout=0.3)
    call = client.call("slow")
    await server.clock.advance(1)
    with caplog.at_level(logging.WARNING, "jupyter_agents.client"):
        server.line.answer(result=1)
    assert "slow" in caplog.text
    with pytest.raises(CallTimeout):
        await call
    await quit_client(client)


@pytest.mark.parametrize("code", [1008, 4000, 4999])
async def test_final_close_stops_the_client(server: FakeServer, code: int) -> None:
    """A final code: no reconnect, the error says why, one callback, later calls fail (T116)."""
    heard: list[ConnectionClosed] = []
    client = await open_client(server, on_connection_error=heard.append)
    server.line.drop(code, "Unauthorized")
    await server.clock.advance(1000)
    assert server.attempts == 1
    assert client.connection_error is heard[0]
    assert (heard[0].code, heard[0].reason, heard[0].final) == (code, "Unauthorized", True)
    assert len(heard) == 1
    with pytest.raises(CallAborted):
        await client.call("a")
    with pytest.raises(CallAborted):
        await client.set_state(1)
    with pytest.raises(CallAborted):
        client.stream("a")
    with pytest.raises(ConnectionClosed, match="Unauthorized"):
        await client.ready
    with pytest.raises(ConnectionClosed):
        await client.recv()


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 1013, 3000])
async def test_other_closes_are_not_final(server: FakeServer, code: int) -> None:
    """Every other code, even 1000, makes the client come back."""
    client = await open_client(server)
    server.line.drop(code)
    await server.clock.advance(11)
    assert server.attempts == 2
    assert client.connection_error is None
    await quit_client(client)


async def test_task_cancel_cancels_the_call(server: FakeServer) -> None:
    """Cancelling whoever awaits a call, or the call itself, cancels the method (T207)."""
    client = await open_client(server)

    async def wait() -> None:
        await client.call("a")

    task = asyncio.ensure_future(wait())
    await settle()
    task.cancel()
    client.call("b").cancel()
    await settle()
    frames = server.line.frames()
    assert [frame["type"] for frame in frames] == ["rpc", "rpc", "rpc_cancel", "rpc_cancel"]
    assert [frame["id"] for frame in frames[2:]] == [frame["id"] for frame in frames[:2]]
    server.line.answer(0, success=False, error="cancelled")
    await quit_client(client)


async def test_cancel_of_a_waiting_call_sends_nothing(server: FakeServer) -> None:
    """What never left need not be called back."""
    client = server.client()
    client.call("a").cancel()
    await settle()
    await server.opened(client)
    assert server.line.frames() == []
    await quit_client(client)


# ── Streams ──────────────────────────────────────────────────────────────────────────────────


async def test_stream_gives_chunks_then_ends(server: FakeServer) -> None:
    """Chunks come in order; the final value is at hand afterwards (T095)."""
    client = await open_client(server)
    stream = client.stream("count", [3])
    for n in range(3):
        server.line.answer(result=n, done=False, seq=n)
    server.line.answer(result="done")
    assert [chunk async for chunk in stream] == [0, 1, 2]
    assert stream.result == "done"
    await quit_client(client)


async def test_stream_that_fails_gives_its_chunks_first(server: FakeServer) -> None:
    """An error comes after the chunks that were sent before it (T097)."""
    client = await open_client(server)
    stream = client.stream("count")
    server.line.answer(result=0, done=False, seq=0)
    server.line.answer(success=False, error="broke")
    assert await anext(stream) == 0
    with pytest.raises(CallFailed, match="broke"):
        await anext(stream)
    await quit_client(client)


async def test_stream_fails_with_the_connection(server: FakeServer) -> None:
    """A drop ends a stream: what it missed cannot come again."""
    client = await open_client(server)
    stream = client.stream("count")
    server.line.drop()
    with pytest.raises(CallAborted):
        await anext(stream)
    await quit_client(client)


async def test_leaving_a_stream_cancels_it(server: FakeServer) -> None:
    """Leaving the block, or just the loop, tells the agent to stop."""
    client = await open_client(server)
    async with client.stream("a") as stream:
        server.line.answer(result=0, done=False, seq=0)
        async for _ in stream:
            break
    assert len(server.line.frames("rpc_cancel")) == 1
    server_side = server.line
    walking_away = client.stream("b")
    server_side.answer(result=0, done=False, seq=0)
    async for _ in walking_away:
        break
    del walking_away
    gc.collect()
    await settle()
    assert len(server.line.frames("rpc_cancel")) == 2
    await quit_client(client)


async def test_cancelled_reader_cancels_its_stream(server: FakeServer) -> None:
    """Cancelling the task that reads a stream cancels the method."""
    client = await open_client(server)
    stream = client.stream("a")
    reader = asyncio.ensure_future(anext(stream))
    await settle()
    reader.cancel()
    await settle()
    assert len(server.line.frames("rpc_cancel")) == 1
    assert [chunk async for chunk in stream] == []
    await quit_client(client)


async def test_stream_that_is_not_read_fails_at_its_limit(server: FakeServer) -> None:
    """A reader who falls too far behind loses the stream, not a chunk unnoticed."""
    client = await open_client(server, max_received=2)
    stream = client.stream("a")
    for n in range(4):
        server.line.answer(result=n, done=False, seq=n)
    assert len(server.line.frames("rpc_cancel")) == 1
    assert [await anext(stream), await anext(stream)] == [0, 1]
    with pytest.raises(CallAborted, match="2 chunks behind"):
        await anext(stream)
    await quit_client(client)


# ── State ────────────────────────────────────────────────────────────────────────────────────


async def test_state_follows_the_server(server: FakeServer) -> None:
    """None at first, then what is written here, then what the server says (T122, T074)."""
    heard: list[Any] = []
    client = server.client(on_state_update=lambda state, source: heard.append((state, source)))
    assert client.state is None
    await server.opened(client, state={"n": 0})
    write = client.set_state({"n": 1})
    assert client.state == {"n": 1}
    frame = server.line.frames("cf_agent_state")[0]
    server.line.say({"type": "cf_agent_state_ack", "write": frame["write"], "version": 2})
    assert await write == {"n": 1}
    server.line.say({"type": "cf_agent_state", "state": {"n": 9}, "version": 3})
    assert client.state == {"n": 9}
    assert heard == [({"n": 0}, "server"), ({"n": 1}, "client"), ({"n": 9}, "server")]
    await quit_client(client)


async def test_set_state_that_is_refused_rolls_back(server: FakeServer) -> None:
    """The writer gets the reason, and its copy the server's state (T204)."""
    errors: list[str] = []
    client = server.client(on_state_update_error=errors.append)
    await server.opened(client, state=1)
    write = client.set_state(-1)
    frame = server.line.frames("cf_agent_state")[0]
    refusal = {"error": "too small", "write": frame["write"], "state": 1, "version": 1}
    server.line.say({"type": "cf_agent_state_error", **refusal})
    with pytest.raises(StateRejected, match="too small"):
        await write
    assert (client.state, errors) == (1, ["too small"])
    await quit_client(client)


async def test_set_state_of_a_readonly_client(server: FakeServer) -> None:
    """A readonly connection is told so by an error of its own."""
    client = server.client()
    await server.opened(client, state=1)
    write = client.set_state(2)
    frame = server.line.frames("cf_agent_state")[0]
    refusal = {"error": "Connection is readonly", "write": frame["write"], "state": 1}
    server.line.say({"type": "cf_agent_state_error", **refusal, "version": 1})
    with pytest.raises(ConnectionReadonly):
        await write
    await quit_client(client)


async def test_set_state_by_a_function_tries_again(server: FakeServer) -> None:
    """A function is computed anew on the state that came first, and its value is the result."""
    client = server.client()
    await server.opened(client, state={"n": 1})
    write = client.set_state(lambda state: {"n": state["n"] + 1})
    first = server.line.frames("cf_agent_state")[0]
    assert (first["state"], first["base"]) == ({"n": 2}, 1)
    refusal = {"error": "stale", "write": first["write"], "state": {"n": 5}, "version": 2}
    server.line.say({"type": "cf_agent_state_error", **refusal})
    second = server.line.frames("cf_agent_state")[1]
    assert (second["state"], second["base"]) == ({"n": 6}, 2)
    server.line.say({"type": "cf_agent_state_ack", "write": second["write"], "version": 3})
    assert await write == {"n": 6}
    await quit_client(client)


async def test_set_state_gives_what_the_agent_made_of_it(server: FakeServer) -> None:
    """Where the agent settled on another value, that is the result and the state."""
    client = server.client()
    await server.opened(client, state=1)
    write = client.set_state(500)
    frame = server.line.frames("cf_agent_state")[0]
    ack = {"write": frame["write"], "version": 2, "state": 100}
    server.line.say({"type": "cf_agent_state_ack", **ack})
    assert await write == client.state == 100
    await quit_client(client)


async def test_set_state_that_nobody_answers_is_rolled_back(server: FakeServer) -> None:
    """A write has a time limit, too; if it held after all, the client asks what holds."""
    client = server.client(timeout=5)
    await server.opened(client, state=1)
    write = client.set_state(2)
    frame = server.line.frames("cf_agent_state")[0]
    await server.clock.advance(5)
    with pytest.raises(CallTimeout, match="set_state"):
        await write
    assert client.state == 1
    server.line.say({"type": "cf_agent_state_ack", "write": frame["write"], "version": 2})
    assert len(server.line.frames("cf_agent_state_get")) == 1
    await quit_client(client)


async def test_set_state_while_away_is_refused_if_stale(server: FakeServer) -> None:
    """An offline write does not overwrite what came meanwhile (T203)."""
    client = server.client()
    await server.opened(client, state=1)
    server.line.drop()
    write = client.set_state(2)
    assert client.state == 2
    await server.clock.advance(10)
    frame = server.line.frames("cf_agent_state")[0]
    assert frame["base"] == 1
    refusal = {"error": "The state has changed", "write": frame["write"], "state": 7, "version": 4}
    server.line.say({"type": "cf_agent_state_error", **refusal})
    with pytest.raises(StateRejected, match="has changed"):
        await write
    assert client.state == 7
    await quit_client(client)


async def test_set_state_of_the_impossible_raises(server: FakeServer) -> None:
    """What JSON cannot carry raises where it is written, as does a function's own error."""
    client = server.client()
    await server.opened(client, state=1)
    with pytest.raises(TypeError, match="object"):
        client.set_state(object())
    with pytest.raises(ZeroDivisionError):
        client.set_state(lambda state: state / 0)
    assert client.state == 1
    await quit_client(client)


async def test_plain_client_writes_as_the_sdks(server: FakeServer) -> None:
    """Without our extension a write is over once it is sent."""
    client = server.client(extended=False)
    await server.opened(client, state=1)
    assert await client.set_state(2) == 2
    assert server.line.frames() == [{"type": "cf_agent_state", "state": 2}]
    await quit_client(client)


# ── Messages ─────────────────────────────────────────────────────────────────────────────────


async def test_send_takes_text_bytes_and_json(server: FakeServer) -> None:
    """Text and binary stay what they are."""
    client = await open_client(server)
    assert all([client.send("a"), client.send(b"b"), client.send_json({"c": 1})])
    assert server.line.sent == ["a", b"b", '{"c":1}']
    await quit_client(client)


async def test_send_after_close_says_no(server: FakeServer) -> None:
    """A closed client takes nothing, and does not raise."""
    client = await open_client(server)
    await quit_client(client)
    assert client.send("a") is False


async def test_send_says_no_when_the_socket_is_full(server: FakeServer) -> None:
    """A server that does not read fills the socket; then nothing more is taken."""
    policy = ReconnectPolicy(max_queued_bytes=100)
    client = await open_client(server, reconnect=policy)
    server.line.buffered = 101
    assert client.send("a") is False
    for attempt in (client.call("a"), client.set_state(1)):
        with pytest.raises(CallAborted, match="socket is full") as caught:
            await attempt
        assert not caught.value.transmitted
    assert client.state is None
    server.line.buffered = 100
    assert client.send("a") is True
    await quit_client(client)


async def test_buffered_amount_counts_what_waits(server: FakeServer) -> None:
    """Text and binary count, before the connection and in the socket (T133)."""
    client = server.client()
    client.send("abc")
    client.send(b"de")
    assert client.buffered_amount == 5
    await server.opened(client)
    server.line.buffered = 7
    assert client.buffered_amount == 7
    await quit_client(client)


async def test_drain_takes_messages_back(server: FakeServer) -> None:
    """Draining gives back what waits and leaves nothing to send (T134)."""
    client = server.client()
    client.send("a")
    assert client.drain_queued_messages() == ["a"]
    assert client.drain_queued_messages() == []
    await server.opened(client)
    assert server.line.sent == []
    await quit_client(client)


async def test_messages_wait_for_a_reader(server: FakeServer) -> None:
    """What the agent says right after connecting is not lost for who reads a little later."""
    client = await open_client(server)
    server.line.say("welcome")
    server.line.say(b"\x00")
    assert [await client.recv(), await client.recv()] == ["welcome", b"\x00"]
    with pytest.raises(TimeoutError, match="no message within"):
        await client.recv(timeout=0.001)
    await quit_client(client)


async def test_iteration_ends_with_close(server: FakeServer) -> None:
    """Iterating gives the messages in order and ends when the client is closed here."""
    client = await open_client(server)
    for text in "abc":
        server.line.say(text)
    client.close()
    assert [message async for message in client] == ["a", "b", "c"]
    await client.wait_closed()


async def test_iteration_goes_on_after_a_reconnect(server: FakeServer) -> None:
    """A drop is no end: messages of the next connection come to the same reader."""
    client = await open_client(server)
    server.line.say("a")
    server.line.drop()
    await server.clock.advance(10)
    server.line.greet()
    server.line.say("b")
    client.close()
    assert [message async for message in client] == ["a", "b"]
    await client.wait_closed()


async def test_iteration_raises_when_the_client_was_sent_away(server: FakeServer) -> None:
    """After a final code iterating gives what came, then the reason."""
    client = await open_client(server)
    server.line.say("a")
    server.line.drop(4001, "Unauthorized")
    messages = aiter(client)
    assert await anext(messages) == "a"
    with pytest.raises(ConnectionClosed, match="Unauthorized"):
        await anext(messages)


async def test_messages_beyond_the_limit_drop_the_oldest(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A slow reader gets the newest, and the log says so once."""
    client = await open_client(server, max_received=2)
    server.line.say("a")
    assert await client.recv() == "a"
    for text in "bcde":
        server.line.say(text)
    assert [await client.recv(), await client.recv()] == ["d", "e"]
    assert caplog.text.count("dropped") == 1
    await quit_client(client)


async def test_messages_with_a_listener_do_not_pile_up(server: FakeServer) -> None:
    """Where a listener takes the messages, none are kept, unless someone reads as well."""
    heard: list[Any] = []
    client = await open_client(server, on_message=heard.append)
    server.line.say("a")
    with pytest.raises(TimeoutError):
        await client.recv(timeout=0.001)
    server.line.say("b")
    assert await client.recv() == "b"
    assert heard == ["a", "b"]
    await quit_client(client)


# ── Going elsewhere ──────────────────────────────────────────────────────────────────────────


async def test_new_address_is_gone_to_at_once(server: FakeServer) -> None:
    """Another instance: what waited is rejected, the old state is gone, and off it goes (T120)."""
    client = server.client()
    await server.opened(client, state=1)
    old = server.line
    call = client.call("a")
    client.update_properties(name="other")
    with pytest.raises(CallAborted, match="address changed"):
        await call
    assert (client.state, client.name, old.closed) == (None, "other", (1000, ""))
    await settle()
    assert server.line.url.startswith("ws://localhost:8888/agents/room/other")
    assert server.line.sent == []
    await quit_client(client)


async def test_new_address_rejects_what_was_queued(server: FakeServer) -> None:
    """Calls that waited for the old address are never sent to the new one (T120)."""
    client = await open_client(server)
    server.line.drop()
    call = client.call("a")
    client.update_properties(agent="Clock")
    with pytest.raises(CallAborted) as caught:
        await call
    assert not caught.value.transmitted
    await settle()
    assert server.line.url.startswith("ws://localhost:8888/agents/clock/lobby")
    assert server.line.sent == []
    await quit_client(client)


async def test_new_credentials_keep_what_waits(server: FakeServer) -> None:
    """Only the credentials change: what waits is carried over to the next connection (T121)."""
    client = await open_client(server, token="old")
    server.line.drop()
    call = client.call("a")
    client.update_properties(token="new", query={"v": 2})
    await server.clock.advance(10)
    assert server.line.headers["Authorization"] == "token new"
    assert server.line.query["v"] == "2"
    server.line.answer(result=1)
    assert await call == 1
    await quit_client(client)


async def test_new_address_clears_the_error(server: FakeServer) -> None:
    """What one address refused, another may allow (T119)."""
    client = await open_client(server)
    server.line.drop(4001)
    client.update_properties(name="other")
    assert client.connection_error is None
    await settle()
    server.line.greet("other")
    await client.ready
    await quit_client(client)


async def test_new_address_does_not_reopen_what_was_closed(server: FakeServer) -> None:
    """Who closed the client decides when it opens again."""
    client = await open_client(server)
    await quit_client(client)
    client.update_properties(name="other")
    await settle()
    assert server.attempts == 1


async def test_wrong_address_changes_nothing(server: FakeServer) -> None:
    """A refused change leaves the client where it was."""
    client = await open_client(server)
    with pytest.raises(AddressError):
        client.update_properties(path="/x")
    with pytest.raises(TypeError, match="colour"):
        client.update_properties(colour="red")
    assert (client.name, client.ready_state) == ("lobby", "open")
    await quit_client(client)


async def test_suspended_and_resumed_are_told(server: FakeServer) -> None:
    """A client hears that the agent's kernel is away and back; a new connection knows nothing."""
    heard: list[str] = []
    client = await open_client(
        server,
        on_suspended=lambda: heard.append("suspended"),
        on_resumed=lambda: heard.append("resumed"),
    )
    assert not client.suspended
    server.line.say({"type": "cf_agent_suspended"})
    assert (heard, client.suspended) == (["suspended"], True)
    server.line.say({"type": "cf_agent_resumed"})
    assert (heard, client.suspended) == (["suspended", "resumed"], False)
    server.line.say({"type": "cf_agent_suspended"})
    server.line.drop()
    await server.clock.advance(10)
    assert not client.suspended
    await quit_client(client)
