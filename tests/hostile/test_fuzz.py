"""Random nonsense at every door: over HTTP, as a client, as a kernel, as a server."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agents import Agent, callable_method
from jupyter_agents.link.frames import Kind, pack_object, pack_with_object
from jupyter_agents.server.door import Door
from jupyter_agents.server.downlink import Downlink
from jupyter_agents.server.limits import Limits
from jupyter_agents.testing import AgentHarness
from tests.hostile.conftest import LIMIT_S, Server, bystander, short
from tests.server.fake_host import FakeHost, FakeKernels

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)

# -- HTTP --------------------------------------------------------------------------------------

paths = st.lists(
    st.sampled_from(
        ["agents", "target", "Target", "x", "..", ".", "%2e%2e", "%00", "%ff", "", "~"]
    )
    | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#?")),
    max_size=6,
).map(lambda parts: "/" + "/".join(parts))
queries = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=40)
names = st.sampled_from(
    ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Origin", "Cookie",
     "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Content-Length", "Authorization",
     "Transfer-Encoding", "Host", "X-Odd", "Accept-Encoding", "Range", "If-None-Match"]
)  # fmt: skip
contents = st.sampled_from(
    ["websocket", "Upgrade", "13", "8", "AAAAAAAAAAAAAAAAAAAAAA==", "chunked", "0", "-1", "5",
     "permessage-deflate; server_max_window_bits=99", "token x", "http://evil", "a=b; c", "\x00"]
) | st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=30)  # fmt: skip
requests = st.tuples(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "BREW"]),
    paths,
    queries,
    st.lists(st.tuples(names, contents), max_size=8),
    st.binary(max_size=20),
)


@pytest.fixture(scope="module")
def target():
    """One server for all requests."""
    server = Server()
    yield server
    log = server.end()
    assert "Traceback" not in log, log


@short
@given(st.lists(requests, min_size=1, max_size=10))
def test_requests(target, wanted):
    """Whatever is asked, the answer is no 5xx, the log has no traceback, and others go on."""
    asyncio.run(_ask(target, wanted))


async def _ask(server, wanted):
    async with bystander(server):
        for method, path, query, headers, body in wanted:
            lines = [f"{method} {path}?{query} HTTP/1.1", *(f"{n}: {v}" for n, v in headers)]
            raw = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(raw)
            writer.write_eof()
            with suppress(ConnectionError):
                answer = await asyncio.wait_for(reader.read(), LIMIT_S)
                assert not answer.startswith(b"HTTP/1.1 5"), (raw, answer)
            writer.close()


# -- a client ----------------------------------------------------------------------------------

ours = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["rpc", "cf_agent_state", "cf_agent_identity", "cf_agent_cancel", "cf_agent_patch",
             "cf_agent_state_error", "cf_agent_suspended", "cf_agent_mcp_servers"]
        )
    },
    optional={
        key: values | st.sampled_from(["echo", "1", "state", "on_message", "_seat"])
        for key in ("id", "method", "args", "state", "version", "base", "patch", "timeout")
    },
).map(json.dumps)  # fmt: skip
messages = st.lists(ours | st.text(max_size=50) | st.binary(max_size=50), max_size=20)


class Echo(Agent):
    initial_state = {"n": 0}

    def on_message(self, connection, message):
        connection.send(message)

    @callable_method
    def echo(self, value):
        return value


@short
@given(messages, st.booleans())
def test_clients(sent, extended):
    """A client that says anything at all is closed at most; the agent answers another one."""
    asyncio.run(_talk(sent, extended))


async def _talk(sent, extended):
    async with AgentHarness() as harness:
        await harness.serve(Echo)
        calm = await harness.connect(Echo)
        odd = await harness.connect(Echo, extended=extended)
        for message in sent:
            if odd.closed is None:
                await odd.send(message)
        await calm.send("still there")
        while await calm.receive() != "still there":
            pass
        assert await calm.call("echo", 1) == 1
        json.dumps(harness.agent(Echo).state)


# -- a kernel, and a server --------------------------------------------------------------------

words = values | st.fixed_dictionaries(
    {"agent": st.sampled_from(["other", "calm", "", "\x00"])},
    optional={
        "class": values,
        "spellings": values,
        "takeover": st.just(False),
        "options": values,
        "name": values,
        "state": values,
        "error": values,
        "session": values,
        "autostart": values,
        "arrived": values,
        "unsettled": values,
        "id": values,
        "request": values,
        "attached": values,
    },
)
payloads = (
    st.binary(max_size=60)
    | words.map(pack_object)
    | st.tuples(words, st.binary(max_size=10)).map(lambda both: pack_with_object(*both))
)
frames = st.lists(
    st.tuples(
        st.sampled_from([int(kind) for kind in Kind]) | st.integers(0, 255),
        st.sampled_from([0, 2, 3, 7]) | st.integers(0, 2**32 - 1),
        payloads,
    ),
    max_size=30,
)


class Socket:
    """A client of the calm kernel."""

    def __init__(self):
        self.sent = []
        self.closed = None
        self.outlet = self

    def send(self, message):
        self.sent.append(message)

    send_now = send

    def close(self, code, reason):
        self.closed = code

    def pause(self):
        pass

    def resume(self):
        pass


@short
@given(frames, st.binary(max_size=40), st.booleans())
def test_kernels(tmp_path_factory, said, rest, proved):
    """A kernel, or a stranger, that says anything at all loses its own link at most."""
    asyncio.run(_tell(tmp_path_factory.mktemp("r"), said, rest, proved))


async def _tell(folder, said, rest, proved):
    limits, kernels = Limits(), FakeKernels(calm=b"calm", odd=b"odd")
    link = Downlink(Door(limits), limits, kernels, folder, lambda: {"server_id": "s"}, "0.1.0")
    await link.start()
    calm, odd = [await FakeHost.connect(link.address) for _ in range(2)]
    try:
        await calm.prove(b"calm")
        await calm.serve("Calm", "calm")
        socket, relay = Socket(), link.door.relay
        record = relay.open(relay.find("calm"), "x", "id", socket, {"request": "{}"}, 0.0)
        assert (await calm.expect(Kind.OPEN))[0] == record.number
        if proved:
            await odd.prove(b"odd")
        for kind, number, payload in said:
            odd.send(kind, number, payload)
        odd.writer.write(rest)
        with suppress(ConnectionError):
            await odd.writer.drain()
        odd.writer.close()
        await _until(lambda: "odd" not in link.links)
        relay.take(record, Kind.TEXT, b"still there?")
        assert await calm.expect(Kind.TEXT) == (record.number, b"still there?")
        calm.text(record.number, "yes")
        await _until(lambda: socket.sent)
        assert socket.closed is None
    finally:
        await calm.close()
        await odd.close()
        await link.stop()


async def _until(condition):
    deadline = asyncio.get_running_loop().time() + LIMIT_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


@short
@given(frames.map(lambda all_: [one for one in all_ if one[1] != 1]))
def test_servers(said):
    """A kernel to which its server says anything at all goes on with the connections it has."""
    asyncio.run(_hear(said))


async def _hear(said):
    async with AgentHarness() as harness:
        await harness.serve(Echo)
        calm = await harness.connect(Echo)
        assert calm.record.number == 1
        harness.host.frames(said)
        await calm.send("still there")
        while await calm.receive() != "still there":
            pass
        assert await calm.call("echo", 1) == 1
