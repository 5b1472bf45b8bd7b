"""The door in a plain Tornado application on a free port, with clients for it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import websocket_connect

from jupyter_agents.access.credentials import log_request
from jupyter_agents.server.door import Door
from jupyter_agents.server.limits import Limits
from jupyter_agents.server.sockets import agent_routes
from tests.server.fake_host import LIMIT_S, LocalHost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tornado.websocket import WebSocketClientConnection


class PlainServer:
    """One server, its relay and a host in the same process."""

    def __init__(self, door: Door, port: int) -> None:
        self.door = door
        self.relay = door.relay
        self.host = LocalHost(door.relay)
        self.port = port
        self._clients: list[WebSocketClientConnection] = []

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    async def ws(self, path: str, **headers: str) -> WebSocketClientConnection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = HTTPRequest(self.url(path, "ws"), headers=named)
        client = await asyncio.wait_for(websocket_connect(request), LIMIT_S)
        self._clients.append(client)
        return client

    async def http(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> HTTPResponse:
        request = HTTPRequest(
            self.url(path),
            method=method,
            body=body,
            headers=headers or {},
            allow_nonstandard_methods=True,
            follow_redirects=False,
            request_timeout=LIMIT_S,
            **more,
        )
        return await AsyncHTTPClient().fetch(request, raise_error=False)

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()


@asynccontextmanager
async def plain_server(
    *, base_url: str = "/", prefix: str = "agents", token: str = "", **limits: Any
) -> AsyncIterator[PlainServer]:
    """A running door; everything is closed behind it."""
    door = Door(Limits(**limits), base_url, prefix=prefix, token=token)
    sock, port = bind_unused_port()
    server = HTTPServer(Application(agent_routes(door), log_function=log_request))
    server.add_socket(sock)
    plain = PlainServer(door, port)
    try:
        yield plain
    finally:
        await door.stop()
        plain.close_clients()
        server.stop()
        await server.close_all_connections()
