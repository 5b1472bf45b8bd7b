"""The socket under a real Tornado server: handshake, TLS, hostile and slow clients."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tornado
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from jupyter_agents.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    Deflate,
    close_payload,
)
from jupyter_agents.websocket.protocol import Message, SocketTransport, StreamTransport
from tests.websocket.echo import EchoHandler, EchoServer, echo_server
from tests.websocket.test_frames import client_frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEYS = Path(tornado.__file__).parent / "test"
HEAD = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture(params=["socket", "stream"])
def serve(request: pytest.FixtureRequest) -> Any:
    """`echo_server`, on the bare socket and on Tornado's stream: the rules are the same."""
    return partial(echo_server, leaves_stream=request.param == "socket")


class RawClient:
    """A client that may say anything, and reads only when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def shake_hands(
        self, path: str = "/", behind: bytes = b"", **headers: str | None
    ) -> bytes:
        """Ask for a WebSocket, with `behind` in the same packet; give the head of the answer."""
        merged = HEAD | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in merged.items() if value is not None]
        self.say("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode(), behind)
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    async def frame(self) -> tuple[int, bytes]:
        """The first byte and the payload of the next frame."""
        first, size = await asyncio.wait_for(self.reader.readexactly(2), 5)
        assert size < 128, "masked by a server"
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return first, await asyncio.wait_for(self.reader.readexactly(size), 5)

    async def rest(self) -> bytes:
        """All until the server hangs up."""
        return await asyncio.wait_for(self.reader.read(), 5)


@asynccontextmanager
async def raw_client(
    server: EchoServer, path: str = "/", *, receive_buffer: int = 0, **headers: str | None
) -> AsyncIterator[RawClient]:
    """A client whose handshake is done."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
    client = RawClient(reader, writer)
    try:
        assert (await client.shake_hands(path, **headers)).startswith(b"HTTP/1.1 101 ")
        yield client
    finally:
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def unshaken(server: EchoServer) -> AsyncIterator[RawClient]:
    """A client that has only connected."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def end_of(server: EchoServer, index: int = 0) -> tuple[int, str, bool]:
    """How a socket ended, once it did; exactly once."""
    await asyncio.wait_for(server.echoes[index].ended.wait(), 5)
    (end,) = server.echoes[index].ends
    return end


class TestHandshake:
    async def test_tornado_client(self, serve: Any):
        """Texts, binaries, empty and large ones come back, and the close is clean."""
        async with serve() as server:
            client = await websocket_connect(f"ws://127.0.0.1:{server.port}/")
            for message in ("hello", "", "ü" * 40_000, b"\x00\xff", b"", bytes(3_000_000)):
                await client.write_message(message, binary=isinstance(message, bytes))
                assert await client.read_message() == message
            client.close(4002, "bye")
            assert await end_of(server) == (4002, "bye", True)
            assert await client.read_message() is None
            assert client.close_code == 4002

    async def test_accept_key(self, serve: Any):
        """The 101 answers the client's key (RFC 6455 1.3) and names no extension."""
        async with serve() as server, unshaken(server) as client:
            head = await client.shake_hands(Sec_WebSocket_Extensions="permessage-deflate")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
        assert b"extensions" not in head.lower()

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec_WebSocket_Version": "8"}, 426),
            ({"Sec_WebSocket_Version": None}, 426),
            ({"Sec_WebSocket_Key": None}, 400),
            ({"Upgrade": "h2c"}, 400),
            ({"Origin": "http://elsewhere.example"}, 403),
        ],
    )
    async def test_no_websocket(self, serve: Any, headers: dict[str, Any], status: int):
        """What is not a WebSocket of version 13 from here is refused, and nobody hears of it."""
        async with serve() as server, unshaken(server) as client:
            head = await client.shake_hands(**headers)
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert server.echoes == []

    async def test_frames_behind_the_request(self, serve: Any):
        """A client that does not wait for the 101 loses nothing."""
        async with serve() as server, unshaken(server) as client:
            await client.shake_hands(behind=client_frame(b"early") + client_frame(b"bird"))
            assert await client.frame() == (0x81, b"early")
            assert await client.frame() == (0x81, b"bird")

    async def test_nagle_is_off(self, serve: Any):
        """Small answers do not wait for acknowledgements (pitfall 4)."""
        async with serve() as server, raw_client(server) as client:
            client.say(client_frame(b"x"))
            await client.frame()
            sock = server_socket(server)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    async def test_handler_is_let_go(self, serve: Any):
        """An open socket keeps no request handler alive (pitfall 5)."""
        async with serve() as server, raw_client(server) as client:
            client.say(client_frame(b"x"))
            await client.frame()
            del server.echoes[0].protocol  # the echo's own reference is the last
            gc.collect()
            assert len(server.handlers) == 0
            client.say(client_frame(b"y", BINARY))
            server.echoes.clear()

    async def test_handler_does_not_wait_for_the_collector(self, serve: Any):
        """A handshake leaves no ring behind: what was made for it goes with it."""
        gc.collect()
        gc.disable()
        try:
            async with serve() as server, raw_client(server) as client:
                client.say(client_frame(b"x"))
                await client.frame()
                del server.echoes[0].protocol
                server.echoes.clear()
                await asyncio.sleep(0)
                assert len(server.handlers) == 0
        finally:
            gc.enable()

    async def test_open_that_fails(self, serve: Any, caplog: pytest.LogCaptureFixture):
        """An exception in `open` cuts this client, and the receiver hears of the end."""
        async with serve() as server, raw_client(server, "/?open=raise") as client:
            with pytest.raises(ConnectionResetError):
                await client.rest()
            assert await end_of(server) == (1006, "", False)
        assert "ZeroDivisionError" in caplog.text

    async def test_open_that_refuses(self, serve: Any):
        """`close` within `open` sends the close frame and nothing else."""
        async with serve() as server, raw_client(server, "/?open=close") as client:
            assert await client.frame() == (0x88, close_payload(4001, "no"))
            client.say(client_frame(close_payload(4001), CLOSE))
            assert await client.rest() == b""
            assert await end_of(server) == (4001, "", True)

    async def test_old_ways_to_write_are_shut(self, serve: Any):
        """A frame that Tornado builds would not go through the queue."""
        async with serve() as server, raw_client(server):
            protocol = server.echoes[0].protocol
            with pytest.raises(NotImplementedError):
                protocol.write_message("x")
            with pytest.raises(NotImplementedError):
                protocol.write_ping(b"")


def server_socket(server: EchoServer) -> socket.socket:
    """The server's end of the first connection."""
    transport: Any = server.echoes[0].protocol._transport
    return transport._stream.socket if hasattr(transport, "_stream") else transport._socket


class TestHostileClients:
    async def test_oversize_is_told_while_it_is_being_sent(self, serve: Any):
        """1009 on the head; the client reads it although it goes on sending (no reset)."""
        async with serve(max_message_bytes=1000) as server, raw_client(server) as client:
            client.say(client_frame(bytes(500_000), BINARY))
            first, body = await client.frame()
            assert (first, body[:2]) == (0x88, (1009).to_bytes(2, "big"))
            assert await client.rest() == b""
            code, _, was_clean = await end_of(server)
            assert (code, was_clean) == (1009, False)
            assert len(server.echoes[0].errors) == 1

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (client_frame(b"\xff\xfe"), 1007),
            (client_frame(b"\xc3", fin=False) + client_frame(b"(", CONTINUATION), 1007),
            (b"\x81\x01x", 1002),
            (client_frame(b"x", 5), 1002),
            (client_frame(b"\x03\xed", CLOSE), 1002),
        ],
    )
    async def test_broken_rule(self, serve: Any, data: bytes, code: int):
        """The client is told why, then TCP ends; the receiver hears it once."""
        async with serve() as server, raw_client(server) as client:
            client.say(data)
            first, body = await client.frame()
            assert (first, int.from_bytes(body[:2], "big")) == (0x88, code)
            assert await client.rest() == b""
            assert (await end_of(server))[::2] == (code, False)

    async def test_half_open_peer_is_found(self, serve: Any, ms: float):
        """Who never answers a ping is gone within two intervals (T206)."""
        async with (
            serve(ping_interval_s=50 * ms) as server,
            raw_client(server) as silent,
            websocket_client(server) as alive,
        ):
            assert (await silent.frame())[0] == 0x89
            assert await end_of(server) == (1006, "", False)
            await alive.write_message("still here")
            assert await alive.read_message() == "still here"
            assert server.echoes[1].protocol.round_trip_s is not None

    async def test_peer_that_resets(self, serve: Any):
        """A reset is an end like any other."""
        async with serve() as server, raw_client(server) as client:
            client.writer.transport.abort()
            assert await end_of(server) == (1006, "", False)

    async def test_peer_that_hangs_up(self, serve: Any):
        """EOF without a close frame is 1006, behind the messages that came before it."""
        async with serve() as server, raw_client(server) as client:
            client.say(client_frame(b"last") * 20_000)
            client.writer.write_eof()
            assert await end_of(server) == (1006, "", False)
            assert server.echoes[0].messages == 20_000

    async def test_peer_that_never_answers_a_close(self, serve: Any, ms: float):
        """It is cut when its time is up."""
        async with serve(close_timeout_s=50 * ms) as server, raw_client(server) as client:
            server.echoes[0].protocol.close(1001, "stopping")
            assert await client.frame() == (0x88, close_payload(1001, "stopping"))
            assert await end_of(server) == (1006, "", False)
            with pytest.raises(ConnectionResetError):
                await client.rest()

    async def test_flood_of_pings_without_reading(self, serve: Any):
        """A client that pings and never reads costs at most its queue; others go on."""
        async with (
            serve(max_queue_bytes=100_000) as server,
            raw_client(server, receive_buffer=4096) as rude,
            websocket_client(server) as polite,
        ):
            rude.say(client_frame(b"p" * 125, PING) * 80_000)  # 10 MB of pongs
            for _ in range(50):
                await polite.write_message("x")
                assert await polite.read_message() == "x"
                assert server.echoes[0].protocol.queued_bytes < 1_000_000


class TestSlowReader:
    async def test_it_is_closed_and_others_go_on(self, serve: Any, ms: float):
        """Past its limit it gets 1013, read or not, and what waited for it is let go."""
        limit = 200_000
        async with (
            serve(max_queue_bytes=limit, close_timeout_s=100 * ms) as server,
            raw_client(server, receive_buffer=4096),
            websocket_client(server) as reader,
        ):
            slow, fast = (echo.protocol for echo in server.echoes)
            message, most, sent = Message(b"x" * 10_000), 0, 0
            while not slow.is_closing():
                slow.send(message)
                fast.send(message)
                sent += 1
                most = max(most, slow.queued_bytes)
                assert await reader.read_message() == "x" * 10_000
                assert sent < 5_000, "the socket takes everything"
            assert most <= limit + 2 * 10_004
            assert await end_of(server) == (1013, "Client reads too slowly", False)
            assert slow.queued_bytes < limit
            fast.send(message)
            assert await reader.read_message() == "x" * 10_000

    async def test_members_leave_during_a_broadcast(
        self, serve: Any, caplog: pytest.LogCaptureFixture
    ):
        """They hear of their end, the others get everything, the log stays empty (pitfall 8)."""
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(serve())
            stays = await stack.enter_async_context(websocket_client(server))
            leavers = [await stack.enter_async_context(raw_client(server)) for _ in range(10)]
            message = Message(b"x" * 1000)
            for leaver in leavers:
                for echo in server.echoes:
                    echo.protocol.send(message)
                leaver.writer.transport.abort()
            for _ in leavers:
                assert await stays.read_message() == "x" * 1000
            for index in range(1, 11):
                assert await end_of(server, index) == (1006, "", False)
        assert caplog.records == []

    async def test_it_gets_all_when_it_reads_in_time(self, serve: Any):
        """What waits goes on as soon as there is room, in order and whole."""
        async with serve() as server, raw_client(server, receive_buffer=4096) as client:
            protocol = server.echoes[0].protocol
            for i in range(3000):
                protocol.send(Message(b"%06d" % i + b"x" * 1000))
            await asyncio.sleep(0)
            assert protocol.queued_bytes > 0
            for i in range(3000):
                assert (await client.frame())[1][:6] == b"%06d" % i
            assert protocol.queued_bytes == 0

    async def test_newest_state_reaches_it(self, serve: Any):
        """States that it was too slow for are left out, the last one is not."""
        async with (
            serve(max_queue_bytes=100_000) as server,
            raw_client(server, receive_buffer=4096) as client,
        ):
            protocol = server.echoes[0].protocol
            for i in range(2000):
                protocol.send(Message(b"%06d" % i + b"x" * 10_000, replaceable=True))
                await asyncio.sleep(0)
            got = 0
            while (await client.frame())[1][:6] != b"001999":
                got += 1
            assert got < 1900


class TestBackPressure:
    async def test_paused_socket_is_not_read(self, serve: Any, eventually: Any):
        """While paused the client's sends block; resumed, everything comes in order."""
        async with serve(max_queue_bytes=1 << 30) as server, raw_client(server) as client:
            echo = server.echoes[0]
            echo.protocol.pause_reading()
            client.say(client_frame(b"x" * 60_000) * 300)  # 18 MB
            await eventually(lambda: echo.protocol.bytes_in > 0 or client_is_stuck(client))
            for _ in range(20):
                await asyncio.sleep(0)
            assert echo.protocol.bytes_in <= 1 << 17
            assert echo.messages == 0
            assert client_is_stuck(client)
            echo.protocol.resume_reading()
            for _ in range(300):
                assert len((await client.frame())[1]) == 60_000

    async def test_end_of_a_paused_client(self, serve: Any):
        """Its messages come before its end."""
        async with serve() as server, raw_client(server) as client:
            echo = server.echoes[0]
            echo.protocol.pause_reading()
            client.say(client_frame(b"last"), client_frame(b"", CLOSE))
            client.writer.write_eof()
            await client.writer.drain()
            echo.protocol.resume_reading()
            assert await end_of(server) == (1005, "", True)
            assert echo.messages == 1


def client_is_stuck(client: RawClient) -> bool:
    return client.writer.transport.get_write_buffer_size() > 0


class TestCompression:
    async def test_tornado_client_inflates(self, serve: Any):
        """A client with permessage-deflate gets large messages compressed, small ones plain."""
        async with (
            serve(compression=Deflate()) as server,
            websocket_client(server, compression_options={}) as client,
        ):
            for message in ("small", "large " * 5000, "ü" * 3000):
                await client.write_message(message)
                assert await client.read_message() == message
            assert client.protocol._wire_bytes_in < 2000

    async def test_client_without_it_gets_plain_frames(self, serve: Any):
        """Compression is only for who asked."""
        async with (
            serve(compression=Deflate(min_bytes=0)) as server,
            raw_client(server) as client,
        ):
            client.say(client_frame(b"x" * 100))
            assert await client.frame() == (0x81, b"x" * 100)

    async def test_broadcast_is_compressed_once(self, serve: Any, monkeypatch: pytest.MonkeyPatch):
        """However many clients agreed on the same compression."""
        calls = []
        compress = Deflate.compress
        monkeypatch.setattr(
            Deflate, "compress", lambda self, body: calls.append(body) or compress(self, body)
        )
        async with (
            serve(compression=Deflate()) as server,
            websocket_client(server, compression_options={}) as one,
            websocket_client(server, compression_options={}) as two,
        ):
            message = Message(b"x" * 5000)
            for echo in server.echoes:
                echo.protocol.send(message)
            assert await one.read_message() == await two.read_message() == "x" * 5000
        assert len(calls) == 1


@asynccontextmanager
async def websocket_client(
    server: EchoServer, tls: Any = None, **options: Any
) -> AsyncIterator[Any]:
    """Tornado's own client, which answers pings."""
    scheme = "wss" if tls else "ws"
    request = HTTPRequest(f"{scheme}://127.0.0.1:{server.port}/", ssl_options=tls)
    client = await websocket_connect(request, **options)
    try:
        yield client
    finally:
        client.close()
        await client.read_message()


class TestTls:
    @pytest.fixture
    def contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ours.load_cert_chain(KEYS / "test.crt", KEYS / "test.key")
        theirs = ssl.create_default_context()
        theirs.check_hostname = False
        theirs.verify_mode = ssl.CERT_NONE
        return ours, theirs

    async def test_echo(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]):
        """The same over TLS: small, large, and many at once."""
        async with (
            echo_server(tls=contexts[0]) as server,
            websocket_client(server, contexts[1]) as client,
        ):
            for message in ("hello", "ü" * 100_000):
                await client.write_message(message)
                assert await client.read_message() == message
            for i in range(500):
                await client.write_message(str(i))
            assert [await client.read_message() for _ in range(500)] == list(map(str, range(500)))

    async def test_refusal_is_told(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]):
        """A broken rule ends a TLS connection with its code, too."""
        async with echo_server(tls=contexts[0], max_message_bytes=1000) as server:
            url = f"wss://127.0.0.1:{server.port}/"
            client = await websocket_connect(HTTPRequest(url, ssl_options=contexts[1]))
            client.write_message("x" * 1001)
            assert await client.read_message() is None
            assert client.close_code == 1009
            client.close()
            assert (await end_of(server))[0] == 1009

    async def test_slow_reader(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]):
        """Over TLS a backlog drains in order, too."""
        async with (
            echo_server(tls=contexts[0]) as server,
            websocket_client(server, contexts[1]) as client,
        ):
            protocol = server.echoes[0].protocol
            for i in range(300):
                protocol.send(Message(b"%06d" % i + b"x" * 20_000))
            for i in range(300):
                assert (await client.read_message())[:6] == f"{i:06}"


class TestLeavingTheStream:
    """A plain socket is taken from Tornado where nothing speaks against it."""

    async def test_plain_socket_leaves(self):
        """Tornado's stream is gone, and the connection works."""
        async with echo_server() as server, raw_client(server) as client:
            client.say(client_frame(b"x"))
            assert await client.frame() == (0x81, b"x")
            assert type(server.echoes[0].protocol._transport) is SocketTransport

    async def test_setting_keeps_the_stream(self):
        """`leaves_stream=False` is for whoever wants Tornado's."""
        async with echo_server(leaves_stream=False) as server, raw_client(server) as client:
            client.say(client_frame(b"x"))
            assert await client.frame() == (0x81, b"x")
            assert type(server.echoes[0].protocol._transport) is StreamTransport

    async def test_what_open_sends_comes_first(self, monkeypatch: pytest.MonkeyPatch):
        """A backlog from `open` is on the stream, and is not overtaken."""

        def open_and_send(handler: EchoHandler) -> None:
            for i in range(20):
                handler.echo.protocol.send(Message(b"%d" % i * 1_000_000))
            handler.echo.protocol.flush_now()

        monkeypatch.setattr(EchoHandler, "open", open_and_send)
        async with echo_server(max_queue_bytes=1 << 30) as server, unshaken(server) as client:
            await client.shake_hands(behind=client_frame(b"early"))
            for i in range(20):
                assert (await client.frame())[1] == b"%d" % i * 1_000_000
            assert await client.frame() == (0x81, b"early")

    async def test_client_that_hangs_up_during_the_handshake(self):
        """Its message is delivered, and its end is told once."""
        async with echo_server() as server, unshaken(server) as client:
            await client.shake_hands(behind=client_frame(b"early"))
            client.writer.write_eof()
            assert await end_of(server) == (1006, "", False)
            assert server.echoes[0].messages == 1


@pytest.fixture(autouse=True)
def _quiet_tornado(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "tornado.general")
