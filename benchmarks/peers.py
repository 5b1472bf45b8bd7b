"""The peers, each a server of its own kind that does what the benchmarks' agent does.

    python -m benchmarks.peers KIND         # prints its port

A text comes back; of a binary message only the length counts: 1 broadcasts 100 bytes to everybody,
2 counts up in a state of 10 KB and tells it to everybody, 3 broadcasts 64 KiB, 4 10 KB of JSON. A
call is answered.
Each is written as its own documentation would have it, with Nagle's algorithm off.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

TEXT = "x" * 100
LARGE = "x" * 65536
ROWS = [
    {"id": number, "name": f"item number {number}", "done": False, "note": "y" * 40}
    for number in range(100)
]
NEWS = json.dumps(ROWS)
CALL = '{"type":"rpc","id":"c1","method":"add","args":[1,2]}'


class State:
    """What the peers have instead of an agent's state."""

    def __init__(self) -> None:
        self.count = 100_000_000

    def news(self, command: bytes) -> str:
        """What a binary message makes everybody hear."""
        if len(command) != 2:
            return {1: TEXT, 3: LARGE, 4: NEWS}[len(command)]
        self.count += 1
        state = {"count": self.count, "rows": ROWS}
        return json.dumps({"type": "cf_agent_state", "state": state}, separators=(",", ":"))


def answer(text: str) -> str:
    """The echo of a text, or the result of a call."""
    if not text.startswith('{"type":"rpc"'):
        return text
    call = json.loads(text)
    result = {"result": sum(call["args"]), "done": True}
    return json.dumps({"type": "rpc", "id": call["id"], "success": True, **result})


def listener() -> socket.socket:
    """A listening socket; its port is what the benchmarks read."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sock.setblocking(False)
    return sock


def ready(sock: socket.socket) -> None:
    """Say where we listen."""
    print(sock.getsockname()[1], flush=True)


def tornado_handler(*, deflates: bool = False) -> Any:
    """Tornado's WebSocketHandler, by the book."""
    from tornado.websocket import WebSocketHandler

    members: set[Any] = set()
    state = State()

    class Echo(WebSocketHandler):
        def open(self) -> None:
            members.add(self)
            self.set_nodelay(True)

        def on_message(self, message: str | bytes) -> None:
            if isinstance(message, str):
                self.write_message(answer(message))
                return
            news = state.news(message)
            for member in members:
                member.write_message(news)

        def on_close(self) -> None:
            members.discard(self)

        def get_compression_options(self) -> dict[str, Any] | None:
            return {} if deflates else None

    return Echo


async def tornado_deflate() -> None:
    """Plain Tornado with permessage-deflate."""
    await tornado(deflates=True)


async def tornado(*, deflates: bool = False) -> None:
    """Plain Tornado."""
    from tornado.httpserver import HTTPServer
    from tornado.web import Application

    server = HTTPServer(
        Application(
            [("/.*", tornado_handler(deflates=deflates))], log_function=lambda handler: None
        )
    )
    sock = listener()
    server.add_socket(sock)
    ready(sock)
    await asyncio.Event().wait()


async def websockets() -> None:
    """The `websockets` library."""
    import websockets as library

    state = State()
    members: set[Any] = set()

    async def talk(connection: Any) -> None:
        members.add(connection)
        try:
            async for message in connection:
                if isinstance(message, str):
                    await connection.send(answer(message))
                else:
                    library.broadcast(members, state.news(message))
        except library.ConnectionClosed:
            pass
        finally:
            members.discard(connection)

    sock = listener()
    limits = {"max_size": 2**26, "ping_interval": None}
    async with library.serve(talk, sock=sock, compression=None, **limits):
        ready(sock)
        await asyncio.Event().wait()


async def starlette() -> None:
    """Starlette on uvicorn, with uvloop and httptools where they are there."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    state = State()
    members: set[WebSocket] = set()

    async def talk(connection: WebSocket) -> None:
        await connection.accept()
        members.add(connection)
        try:
            while (message := await connection.receive())["type"] != "websocket.disconnect":
                if (text := message.get("text")) is not None:
                    await connection.send_text(answer(text))
                    continue
                news = state.news(message["bytes"])
                for member in list(members):
                    await member.send_text(news)
        finally:
            members.discard(connection)

    sock = listener()
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/{path:path}", talk)]), log_level="error",
        access_log=False, ws_per_message_deflate=False, ws_ping_interval=None,
        ws_max_size=2**26,
    )  # fmt: skip
    ready(sock)
    await uvicorn.Server(config).serve(sockets=[sock])


async def picows() -> None:
    """picows, on uvloop where it is there."""
    import picows as library

    state = State()
    members: set[Any] = set()

    class Echo(library.WSListener):  # type: ignore[misc]
        def on_ws_connected(self, transport: Any) -> None:
            members.add(transport)

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == library.WSMsgType.TEXT:
                text = frame.get_payload_as_utf8_text()
                transport.send(library.WSMsgType.TEXT, answer(text).encode())
            elif frame.msg_type == library.WSMsgType.BINARY:
                news = state.news(frame.get_payload_as_bytes()).encode()
                for member in members:
                    member.send(library.WSMsgType.TEXT, news)
            elif frame.msg_type == library.WSMsgType.CLOSE:
                transport.disconnect()

        def on_ws_disconnected(self, transport: Any) -> None:
            members.discard(transport)

    sock = listener()
    server = await library.ws_create_server(lambda request: Echo(), sock=sock)
    ready(sock)
    await server.serve_forever()


async def aiohttp() -> None:
    """aiohttp, on uvloop where it is there."""
    from aiohttp import WSMsgType, web

    state = State()
    members: set[Any] = set()

    async def talk(request: Any) -> Any:
        connection = web.WebSocketResponse(compress=False, max_msg_size=2**26)
        await connection.prepare(request)
        members.add(connection)
        try:
            async for message in connection:
                if message.type == WSMsgType.TEXT:
                    await connection.send_str(answer(message.data))
                    continue
                news = state.news(message.data)
                for member in list(members):
                    await member.send_str(news)
        finally:
            members.discard(connection)
        return connection

    app = web.Application()
    app.router.add_get("/{path:.*}", talk)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    sock = listener()
    await web.SockSite(runner, sock).start()
    ready(sock)
    await asyncio.Event().wait()


async def socketio() -> None:
    """python-socketio on uvicorn; its messages are events."""
    import socketio as library
    import uvicorn

    state = State()
    server = library.AsyncServer(
        async_mode="asgi", ping_interval=3600, http_compression=False, cors_allowed_origins=[]
    )

    async def m(sid: str, text: str) -> None:
        await server.emit("m", answer(text), to=sid)

    async def b(sid: str, command: str) -> None:
        await server.emit("m", state.news(command.encode()))

    server.on("m", m)
    server.on("b", b)
    sock = listener()
    config = uvicorn.Config(
        library.ASGIApp(server), log_level="error", access_log=False,
        ws_per_message_deflate=False, ws_ping_interval=None,
    )  # fmt: skip
    ready(sock)
    await uvicorn.Server(config).serve(sockets=[sock])


def _load_jupyter_server_extension(app: Any) -> None:
    """Tornado's handler inside Jupyter Server, signed in as ours is: what a set-up costs there."""
    from jupyter_server.auth.decorator import ws_authenticated
    from jupyter_server.base.handlers import JupyterHandler
    from jupyter_server.base.websocket import WebSocketMixin

    echo = tornado_handler()

    class Handler(WebSocketMixin, echo, JupyterHandler):  # type: ignore[misc,valid-type]
        def set_default_headers(self) -> None: ...

        @ws_authenticated
        async def get(self, *args: Any, **kwargs: Any) -> None:
            await super().get()

        def open(self, *args: Any) -> None:
            echo.open(self)

        def get_compression_options(self) -> None:
            return None

    app.web_app.add_handlers(".*$", [(f"{app.base_url}echo/(.*)", Handler)])


KINDS = {
    one.__name__: one
    for one in (tornado, tornado_deflate, websockets, aiohttp, starlette, picows, socketio)
}


def main() -> None:
    """Serve until killed."""
    kind = sys.argv[1]
    if kind in ("aiohttp", "starlette", "picows", "socketio"):
        try:
            import uvloop
        except ImportError:
            pass
        else:
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(KINDS[kind]())


if __name__ == "__main__":
    main()
