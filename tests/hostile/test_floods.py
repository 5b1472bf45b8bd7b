"""Too much of everything, over real sockets: memory stays, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import zlib
from contextlib import AsyncExitStack

import pytest

from tests.hostile.conftest import EXAMPLES, LIMIT_S, MIB, bystander

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TINY = 1000 * EXAMPLES


def upgrade(name, extensions=""):
    """The request for a WebSocket, as raw bytes."""
    return (
        f"GET /agents/target/{name} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{extensions}\r\n"
    ).encode()


async def raw(server, name, extensions=""):
    """A raw connection after its upgrade."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(upgrade(name, extensions))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
    assert b" 101 " in head, head
    return reader, writer


def frame(payload, first=0x82):
    """One masked frame, with a mask of zeros."""
    return struct.pack(">BBQ", first, 0x80 | 127, len(payload)) + b"\0\0\0\0" + payload


async def close_code(reader):
    """The code of the close frame that ends the conversation."""
    rest = await asyncio.wait_for(reader.read(), LIMIT_S)
    at = rest.rindex(b"\x88")
    return int.from_bytes(rest[at + 2 : at + 4], "big")


@linux
async def test_compression_bombs(attacked):
    """A small message that would grow to 256 MiB closes its client, after a megabyte or so."""
    server = attacked(max_message_bytes=MIB, compression=True)
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(bytes(256 * MIB)) + packer.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert len(bomb) < MIB
    async with bystander(server):
        before = server.memory
        offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        for index in range(5):
            reader, writer = await raw(server, f"bomb{index}", offer)
            writer.write(frame(bomb, 0xC2))
            assert await close_code(reader) == 1009
            writer.close()
        assert server.memory - before < 24 * MIB


@linux
async def test_frames_that_are_promised_and_never_come(attacked):
    """Two hundred clients announce 32 MiB each and send a byte: nothing is set aside for them."""
    server = attacked()
    async with bystander(server):
        before = server.memory
        writers = []
        for index in range(200):
            _, writer = await raw(server, f"promise{index}")
            writer.write(struct.pack(">BBQ", 0x82, 0xFF, 32 * MIB) + b"\0\0\0\0x")
            await writer.drain()
            writers.append(writer)
        assert server.memory - before < 40 * MIB
        for writer in writers:
            writer.close()


@linux
async def test_slow_handshakes(attacked):
    """Five hundred requests that never end hold a little memory, and nobody up."""
    server = attacked()
    async with bystander(server):
        before = server.memory
        writers = []
        for index in range(500):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(upgrade(f"slow{index}")[: 20 + index % 60])
            await writer.drain()
            writers.append(writer)
        async with server.connect("quick") as socket:
            assert "identity" in await asyncio.wait_for(socket.recv(), LIMIT_S)
        assert server.memory - before < 40 * MIB
        for writer in writers:
            writer.close()


async def test_headers_without_end(attacked):
    """A request whose headers go on and on is cut off."""
    server = attacked()
    async with bystander(server):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(upgrade("long")[:-2] + b"X-Long: " + b"a" * (2 * MIB))
        try:
            answer = await asyncio.wait_for(reader.read(), LIMIT_S)
        except ConnectionError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
        writer.close()


@linux
async def test_many_tiny_frames(attacked):
    """A flood of one-byte messages arrives whole; its sender waits, nobody else does."""
    server = attacked()
    async with bystander(server):
        before = server.memory
        reader, writer = await raw(server, "flood")
        chunk = b"\x82\x81\0\0\0\0x" * 1000
        for _ in range(TINY // 1000):
            writer.write(chunk)
            await writer.drain()
        call = json.dumps({"type": "rpc", "id": "1", "method": "counted", "args": []})
        writer.write(frame(call.encode(), 0x81))
        found = b""
        while b'"rpc"' not in found:
            found += await asyncio.wait_for(reader.read(65536), LIMIT_S)
        assert f'"result":{TINY}'.encode() in found
        assert server.memory - before < 32 * MIB
        writer.close()


async def test_fragments_without_end(attacked):
    """A message in ever more fragments is closed with 1009 at the limit, empty ones or not."""
    server = attacked(max_message_bytes=MIB)
    async with bystander(server):
        reader, writer = await raw(server, "fragments")
        writer.write(b"\x02\x80\0\0\0\0")
        piece = struct.pack(">BBH", 0x00, 0x80 | 126, 4096) + b"\0\0\0\0" + bytes(4096)
        for _ in range(300):
            writer.write(piece)
        assert await close_code(reader) == 1009
        writer.close()


@linux
@pytest.mark.parametrize(
    "text",
    [
        '{"type":"rpc","id":"1","method":"size","args":[' + "[" * 200_000 + "]" * 200_000 + "]}",
        '{"type":"cf_agent_state","state":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}",
        '{"type":"rpc","id":"1","method":"size","args":[' + "9" * 1_000_000 + "]}",
        '{"type":"cf_agent_state","state":1e999999}',
        '{"type":"rpc","id":"1","method":"size","args":["\\ud800"]}',
        '{"type":"rpc","id":"1","method":"__init__","args":[]}',
        "{" * 1_000_000,
    ],
    ids=["deep call", "deep state", "long number", "infinity", "lone half", "private", "braces"],
)
async def test_json_that_is_a_trap(attacked, text):
    """Deep, endless or odd JSON is answered, or is a message like any other."""
    server = attacked()
    async with bystander(server):
        before = server.memory
        async with server.connect("trap") as socket:
            await socket.send(text)
            await socket.send("ping after")
            while await asyncio.wait_for(socket.recv(), LIMIT_S) != "ping after":
                pass
        async with server.connect("trap") as socket:  # its state is still one that can be told
            assert json.loads(await socket.recv())["type"] == "cf_agent_identity"
            json.loads(await socket.recv())
        assert server.memory - before < 64 * MIB


@linux
async def test_huge_json(attacked):
    """Ten megabytes in a call are answered; past the limit the client is closed with 1009."""
    server = attacked(max_message_bytes=12 * MIB)
    async with bystander(server):
        call = {"type": "rpc", "id": "1", "method": "size", "args": [["x" * 10] * 700_000]}
        async with server.connect("huge") as socket:
            await socket.send(json.dumps(call, separators=(",", ":")))
            found = ""
            while '"rpc"' not in found:
                found = await asyncio.wait_for(socket.recv(), LIMIT_S)
            assert json.loads(found)["result"] == 700_000
        reader, writer = await raw(server, "huger")
        writer.write(frame(b"x" * (12 * MIB + 1)))
        assert await close_code(reader) == 1009
        writer.close()


@linux
async def test_client_that_never_reads(attacked):
    """One that asks and never listens is cut off, and costs no more than its limit."""
    server = attacked(outbound_bytes=MIB, close_timeout_s=0.2)
    async with bystander(server):
        before = server.memory
        _, writer = await raw(server, "deaf")
        question = frame(b"ping" + b"x" * 60_000, 0x81)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ask_on(writer, question), LIMIT_S)
        assert server.memory - before < 24 * MIB
        writer.close()


async def ask_on(writer, question):
    """Ask again and again."""
    while True:
        writer.write(question)
        await writer.drain()


@linux
async def test_one_stuck_client_among_two_hundred(attacked):
    """T205: the others get every broadcast; the stuck one is cut, and its agent told why."""
    server = attacked(outbound_bytes=MIB // 4, close_timeout_s=0.2)
    async with AsyncExitStack() as stack:
        rest = [await stack.enter_async_context(server.connect("room")) for _ in range(199)]
        stuck = await asyncio.to_thread(deaf, server, "room?_pk=stuck")
        for number in range(40):
            text = f"all {number} {'x' * 100_000}"
            await rest[0].send(text)
            await asyncio.wait_for(asyncio.gather(*(hear(one, text) for one in rest)), LIMIT_S)
        code, reason = await asyncio.wait_for(how_it_left(rest[0], "stuck"), LIMIT_S)
        stuck.close()
    assert (code, reason) == (1013, "Client reads too slowly")


def deaf(server, name):
    """A socket after its upgrade that takes next to nothing and is never read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    client.sendall(upgrade(name))
    assert client.recv(12) == b"HTTP/1.1 101"
    return client


async def hear(client, text):
    """Return when this broadcast came; only the greeting may come before it."""
    while not (heard := await client.recv()).startswith("all"):
        pass
    assert heard == text


async def how_it_left(client, connection_id):
    """Code and reason, as its agent heard them."""
    while True:
        call = {"type": "rpc", "id": "1", "method": "gone", "args": [connection_id]}
        await client.send(json.dumps(call))
        while (answer := json.loads(await client.recv())).get("type") != "rpc":
            pass
        if (result := answer.get("result")) is not None:
            return result
