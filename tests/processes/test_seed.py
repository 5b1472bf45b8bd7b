"""The main job on real input.

A cell serves a class, and WebSocket clients talk to it through Jupyter Server.
"""

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
        connection.send(json.dumps({"hello": connection.id, "uri": connection.uri, "query":
        dict(ctx.query)}))

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
    """What a hook prints appears under the serving cell, also when other cells ran since."""
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
    """T197: sockets stay open over a restart; what was sent meanwhile arrives afterwards."""

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


FAILING = CELL.replace('print("got", message)', 'raise ValueError("what went wrong")')


def test_error_of_a_hook_is_shown_under_the_serving_cell(kernel):
    """A hook that raises: its traceback is under the cell, with agent and hook.

    The client sees nothing.
    """
    request = kernel.begin(FAILING)
    kernel.wait(request)
    kernel.run("print('another cell')")

    async def talk():
        async with websockets.connect(address(kernel.server, "e")) as client:
            await receive(client, 3)
            await client.send("ping")
            call = {"type": "rpc", "id": "1", "method": "shout", "args": ["x"]}
            await client.send(json.dumps(call))
            (reply,) = await receive(client, 1)
            assert reply["result"] == "X"

    asyncio.run(talk())
    deadline = time.monotonic() + 10
    while "Traceback" not in kernel.outputs(request).text and time.monotonic() < deadline:
        pass
    text = kernel.outputs(request).text
    assert "ChatRoom 'e': on_message: ValueError: what went wrong" in text
    assert "Traceback" in text
    kernel.run("room.stop()")


def test_second_kernel_is_told_who_serves(room):
    """Two kernels, one class name.

    The second is refused with the first one's name, or takes it over.
    """
    other = room.server.kernel()
    try:
        refused = other.run(CELL, check=False)
        assert "ChatRoom is served already, by " in refused.error
        assert "takeover=True" in refused.error
        other.run(CELL.replace('storage="memory"', 'storage="memory", takeover=True'))

        async def talk():
            async with websockets.connect(address(room.server, "t")) as client:
                await receive(client, 3)

        asyncio.run(talk())
        assert "t" in other.run("print(room.instances)").text
        other.run("room.stop()")
    finally:
        other.shutdown()


def test_unservable_classes_say_what_to_do(kernel):
    """A class that cannot be served gives a sentence that says what to do."""
    text = kernel.run("from jupyter_agents import serve\nserve(int)", check=False).error
    assert "derives from Agent, not int" in text


@pytest.mark.slow
def test_busy_agents_keep_their_kernel(start_server):
    """Agent traffic is kernel activity.

    A culled server leaves a kernel whose agents are talked to.
    """
    server = start_server(
        options=[
            "--MappingKernelManager.cull_idle_timeout=7",
            "--MappingKernelManager.cull_interval=1",
        ]
    )
    kernel = server.kernel()
    idle = server.kernel()
    kernel.run(CELL)
    idle.run("1")
    kernel._forget()
    idle._forget()

    async def chat():
        async with websockets.connect(address(server, "c")) as client:
            await receive(client, 3)
            for _ in range(24):
                await client.send("still here")
                await receive(client, 2)
                await asyncio.sleep(0.5)

    asyncio.run(chat())
    alive = [found["id"] for found in server.request("GET", "api/kernels")]
    assert kernel.id in alive
    assert idle.id not in alive
