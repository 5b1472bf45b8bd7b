"""The main job on real input: a cell serves a class, and WebSocket clients talk to it through Jupyter Server."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
import websockets

CELL = """
from jupyter_agents import Agent, callable_method, serve

class ChatRoom(Agent):
    initial_state = {"messages": 0}

    def on_connect(self, connection, ctx):
        connection.send(json.dumps({"hello": connection.id, "uri": connection.uri, "query": dict(ctx.query)}))

    def on_message(self, connection, message):
        print("got", message)
        self.set_state({"messages": self.state["messages"] + 1})
        self.broadcast(message)

    def on_close(self, connection, code, reason, was_clean):
        print("closed", code, reason, was_clean)

    @callable_method
    def shout(self, text: str) -> str:
        return text.upper()

import json
room = serve(ChatRoom, storage="memory")
"""


def address(server, name="lobby", query=""):
    """The agent's WebSocket address, with the server's token."""
    base = server.url.replace("http", "ws", 1)
    return f"{base}agents/chat-room/{name}?token={server.token}{query}"


async def receive(socket, count):
    """The next frames: text read as JSON where it is, bytes as they are."""
    frames = []
    for _ in range(count):
        frame = await asyncio.wait_for(socket.recv(), 10)
        try:
            frames.append(json.loads(frame) if isinstance(frame, str) else frame)
        except ValueError:
            frames.append(frame)
    return frames


@pytest.fixture
def room(kernel):
    """A kernel whose cell serves ChatRoom."""
    kernel.run(CELL)
    yield kernel
    kernel.run("room.stop()", check=False)


def test_clients_talk_to_the_agent_of_a_cell(room):
    """Two clients connect, exchange text, binary and a broadcast, call a method and close."""

    async def talk():
        async with websockets.connect(address(room.server, query="&_pk=A&x=1")) as a:
            identity, state, hello = await receive(a, 3)
            assert identity == {
                "type": "cf_agent_identity",
                "name": "lobby",
                "agent": "chat-room",
                "stateFollows": True,
            }
            assert state == {"type": "cf_agent_state", "state": {"messages": 0}}
            assert hello["hello"] == "A"
            assert hello["query"] == {"_pk": "A", "x": "1"}
            assert room.server.token not in hello["uri"]
            async with websockets.connect(address(room.server)) as b:
                await receive(b, 3)
                await a.send("hi")
                assert (await receive(b, 2))[1] == "hi"
                assert (await receive(a, 2))[1] == "hi"
                await b.send(b"\x00\x01")
                assert (await receive(a, 2))[1] == b"\x00\x01"
                call = {"type": "rpc", "id": "1", "method": "shout", "args": ["x"]}
                await a.send(json.dumps(call))
                (reply,) = await receive(a, 1)
                assert reply["result"] == "X"
                await b.close(4100, "bye")
            await a.close()

    asyncio.run(talk())
    printed = room.run("1")
    assert printed.text == "1\n"


def test_agents_answer_while_a_cell_blocks(room):
    """T196: a cell that sleeps for five seconds does not keep a client waiting."""
    request = room.begin("import time; time.sleep(5)")

    async def call():
        async with websockets.connect(address(room.server)) as client:
            await receive(client, 3)
            began = asyncio.get_running_loop().time()
            frame = {"type": "rpc", "id": "1", "method": "shout", "args": ["x"]}
            await client.send(json.dumps(frame))
            (reply,) = await receive(client, 1)
            assert reply["result"] == "X"
            return asyncio.get_running_loop().time() - began

    assert asyncio.run(call()) < 2
    room.interrupt()
    room.wait(request, check=False)


def test_output_of_hooks_lands_under_the_serving_cell(kernel):
    """What a hook prints appears under the cell that served the class, also when other cells ran since."""
    request = kernel.begin(CELL)
    kernel.wait(request)
    kernel.run("print('another cell')")

    async def talk():
        async with websockets.connect(address(kernel.server)) as client:
            await receive(client, 3)
            await client.send("ping")
            await receive(client, 2)

    asyncio.run(talk())
    other = kernel.begin("import time; time.sleep(0.5)")
    kernel.wait(other)
    deadline = time.monotonic() + 10
    while "closed 1000" not in kernel.outputs(request).text and time.monotonic() < deadline:
        pass
    assert "got ping" in kernel.outputs(request).text
    assert "got ping" not in kernel.outputs(other).text
    kernel.run("room.stop()")


def test_clients_stay_while_the_kernel_restarts(room):
    """T197: sockets stay open over a restart, what was sent meanwhile is delivered when the cell runs again."""

    async def talk():
        async with websockets.connect(address(room.server, name="r")) as client:
            await receive(client, 3)
            await asyncio.to_thread(room.restart)
            await client.send("while away")
            await asyncio.to_thread(room.run, CELL)
            frames = await receive(client, 2)
            assert "while away" in frames

    asyncio.run(talk())


def test_cell_run_again_replaces_the_code_under_live_connections(room):
    """T198: running the cell again with a change disconnects nobody, and the new code answers."""

    async def talk():
        async with websockets.connect(address(room.server, name="x")) as client:
            await receive(client, 3)
            await asyncio.to_thread(room.run, CELL.replace("text.upper()", "text + '!'"))
            frame = {"type": "rpc", "id": "1", "method": "shout", "args": ["x"]}
            await client.send(json.dumps(frame))
            (reply,) = await receive(client, 1)
            assert reply["result"] == "x!"

    asyncio.run(talk())
