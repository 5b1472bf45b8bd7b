"""A real Jupyter Server with our extension, by pytest-jupyter's fixtures, to be star-imported.

Loaded there and not as a plugin: its automatic fixtures would start a server's remains for every
test of the tree.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from pytest_jupyter.jupyter_core import (
    echo_kernel_spec,
    jp_asyncio_loop,
    jp_config_dir,
    jp_data_dir,
    jp_env_config_path,
    jp_env_jupyter_path,
    jp_environ,
    jp_home_dir,
    jp_kernel_dir,
    jp_runtime_dir,
    jp_system_config_path,
    jp_system_jupyter_path,
)
from pytest_jupyter.jupyter_server import (
    jp_argv,
    jp_auth_header,
    jp_base_url,
    jp_configurable_serverapp,
    jp_fetch,
    jp_http_port,
    jp_logging_stream,
    jp_nbconvert_templates,
    jp_root_dir,
    jp_server_cleanup,
    jp_serverapp,
    jp_web_app,
    jp_ws_fetch,
)
from pytest_jupyter.pytest_tornasync import http_server, http_server_client, http_server_port
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from tests.server.fake_host import FakeHost, FakeKernels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tornado.websocket import WebSocketClientConnection

    from jupyter_agents.server.app import AgentsApp

__all__ = [
    "agents",
    "echo_kernel_spec",
    "http_server",
    "http_server_client",
    "http_server_port",
    "jp_argv",
    "jp_asyncio_loop",
    "jp_auth_header",
    "jp_base_url",
    "jp_config_dir",
    "jp_configurable_serverapp",
    "jp_data_dir",
    "jp_env_config_path",
    "jp_env_jupyter_path",
    "jp_environ",
    "jp_fetch",
    "jp_home_dir",
    "jp_http_port",
    "jp_kernel_dir",
    "jp_logging_stream",
    "jp_nbconvert_templates",
    "jp_root_dir",
    "jp_runtime_dir",
    "jp_server_cleanup",
    "jp_server_config",
    "jp_serverapp",
    "jp_system_config_path",
    "jp_system_jupyter_path",
    "jp_web_app",
    "jp_ws_fetch",
    "server_config",
    "visitor",
]

TOKEN = "the-token-of-this-server"


@pytest.fixture
def server_config() -> dict[str, Any]:
    """What a test module or test adds to the server's configuration."""
    return {}


@pytest.fixture
def jp_server_config(server_config: dict[str, Any]) -> dict[str, Any]:
    """Our extension on, sign-in required."""
    config: dict[str, Any] = {
        "ServerApp": {
            "jpserver_extensions": {"jupyter_agents": True, "jupyter_server_terminals": False},
            "allow_unauthenticated_access": False,
        },
        "IdentityProvider": {"token": TOKEN},
    }
    for section, traits in server_config.items():
        config.setdefault(section, {}).update(traits)
    return config


@pytest.fixture
def agents(jp_serverapp: Any) -> AgentsApp:
    """The extension, with fake kernels."""
    app: AgentsApp = jp_serverapp.extension_manager.extension_points["jupyter_agents"].app
    app.downlink.kernels = FakeKernels()
    return app


class Visitor:
    """Someone outside: only the credentials that a test gives."""

    def __init__(self, port: int, client: Any, agents: AgentsApp, base_url: str) -> None:
        self.port, self._client, self._agents, self._base = port, client, agents, base_url
        self.clients: list[WebSocketClientConnection] = []

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def http(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """A response, whatever its status, redirects not followed."""
        return await self._client.fetch(
            self._base + path,
            method=method,
            body=body,
            headers=headers or {},
            allow_nonstandard_methods=True,
            follow_redirects=False,
            raise_error=False,
        )

    async def ws(self, path: str, headers: dict[str, str] | None = None) -> Any:
        """An open WebSocket, or the HTTP status that it was refused with."""
        url = f"ws://127.0.0.1:{self.port}{self._base}{path}"
        try:
            client = await websocket_connect(HTTPRequest(url, headers=headers or {}))
        except HTTPClientError as error:
            return error.code
        self.clients.append(client)
        return client

    async def sign_in(self) -> dict[str, str]:
        """The headers of a browser that has signed in: its cookies, no XSRF word."""
        response = await self.http(f"api/status?token={TOKEN}")
        form = await self.http("login")
        return {"Cookie": "; ".join(_pairs(response) + _pairs(form))}

    async def page(self) -> dict[str, str]:
        """The same, as one of Jupyter's own pages sends it: the XSRF word in a header, too."""
        headers = await self.sign_in()
        word = next(p for p in headers["Cookie"].split("; ") if p.startswith("_xsrf="))
        return {**headers, "X-XSRFToken": word.partition("=")[2]}

    @contextlib.asynccontextmanager
    async def host(self, **options: Any) -> AsyncIterator[FakeHost]:
        """A fake kernel on the real link that serves ``chat-room``."""
        host = await FakeHost.connect(self._agents.downlink.address)
        try:
            await host.prove()
            await host.serve(**options)
            yield host
        finally:
            await host.close()


def _pairs(response: Any) -> list[str]:
    """The cookies that a response set, as a browser sends them back."""
    return [header.partition(";")[0] for header in response.headers.get_list("Set-Cookie")]


@pytest.fixture
def visitor(
    agents: AgentsApp, http_server_client: Any, jp_http_port: int, jp_base_url: str
) -> Iterator[Visitor]:
    """Someone who wants in; what is still open is closed afterwards."""
    visitor = Visitor(jp_http_port, http_server_client, agents, jp_base_url)
    yield visitor
    for client in visitor.clients:
        client.close()
