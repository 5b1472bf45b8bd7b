"""The door that clients knock at: one URL for WebSocket and HTTP, in plain Tornado.

Says which agent is meant and what it may know of the request; the relay does the rest. Never reads
a message. Who may enter is `entrance.py`'s. `handlers.py` puts Jupyter's sign-in before it;
`standalone` uses it as it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import sys
from html import escape
from http.client import responses
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tornado.web import (
    HTTPError,
    RequestHandler,
    StaticFileHandler,
    stream_request_body,
)
from tornado.websocket import WebSocketHandler

from jupyter_agents.access.credentials import log_request, read_request, request_summary
from jupyter_agents.errors import AddressError, AgentNotFound
from jupyter_agents.protocol.closing import TRY_AGAIN_LATER, http_status
from jupyter_agents.protocol.names import Address, check_connection_id
from jupyter_agents.server.entrance import Entrance, Refused, TicketHandler
from jupyter_agents.websocket.protocol import AgentWebSocketProtocol

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Mapping

    from jupyter_agents.link.records import PendingRequest, Served
    from jupyter_agents.protocol.http import Request
    from jupyter_agents.server.door import Door

__all__ = ["STATIC", "AgentHandler", "StaticHandler", "agent_routes", "log_request"]

_log = logging.getLogger(__name__)

STATIC = Path(__file__).parents[1] / "static"
_CONSOLE = "agent-console.html"
_as_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_ID_CHARS = 21
_RETRY_AFTER_S = 5
_HOP_BY_HOP = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
# What the SDK answers for ``cors: true``; recording 31.
_CORS = MappingProxyType(
    {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET, POST, HEAD, OPTIONS",
        "Access-Control-Allow-Headers": "*",
        "Access-Control-Max-Age": "86400",
    }
)


@stream_request_body
class AgentHandler(Entrance, WebSocketHandler):
    """``{prefix}/{agent}/{name}[/tail]``: a WebSocket where the request asks for one, HTTP else.

    The body is read only after `admit`, so that a stranger cannot make the server hold one.
    """

    def initialize(self, door: Door) -> None:
        """Tornado's constructor."""
        self.door = door
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._pending: PendingRequest | None = None
        self._reply: asyncio.Future[tuple[dict[str, Any], bytes] | None] | None = None

    # -- Tornado's course of a request ---------------------------------------------------------

    async def prepare(self) -> None:
        """Let in or refuse, before the body is read."""
        await self.admit()
        if self._finished:
            return
        if self.door.is_stopping:
            raise Refused(503, "The server is shutting down")
        self._check_length(int(self.request.headers.get("Content-Length") or 0))

    def data_received(self, chunk: bytes) -> None:
        """A piece of the body; what comes after a refusal is thrown away."""
        if self._finished:
            return
        self._body_bytes += len(chunk)
        try:
            self._check_length(self._body_bytes)
        except Refused:
            self._body.clear()
            self.send_error(413, exc_info=sys.exc_info())
            return
        self._body.append(chunk)

    def _check_length(self, size: int) -> None:
        if size > self.door.max_body_bytes:
            limit = self.door.max_body_bytes
            raise Refused(413, f"The body is longer than the {limit} bytes that are allowed")

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """A WebSocket, a page or the agent's own answer."""
        if self.is_upgrade():
            await self._enter()
        else:
            await self.answer()

    async def answer(self) -> None:
        """Put an HTTP request to its agent and write what comes back."""
        if self._finished:
            return
        served, address, tail = self.locate()
        cors = _cors_headers(served)
        if self.is_preflight():
            self._answer_preflight(cors)
            return
        if not cors or (self.guest is not None and self.guest.by_cookie):
            self.check_origin_header()
        about = {"request": self._request(address, tail).to_dict()}
        reply = await self._ask(served, about, b"".join(self._body))
        if reply is not None:
            if self.wants_page():
                self.keep_guest(self.request.path.removesuffix(tail))
            self._set_headers(cors.items())
            self._respond(served, address, tail, *reply)

    head = answer
    post = answer
    put = answer
    patch = answer
    delete = answer
    options = answer

    def on_connection_close(self) -> None:
        """The client is gone before it was answered."""
        if self.ws_connection is not None:
            super().on_connection_close()
            return
        RequestHandler.on_connection_close(self)
        self._abandon()

    # -- the WebSocket -------------------------------------------------------------------------

    async def _enter(self) -> None:
        self.check_origin_header()
        served, address, tail = self.locate()
        request = self._request(address, tail)
        self._connection_id = _connection_id(request)
        self._served, self._name = served, address.name
        self._check_room()
        asked = request.to_dict()
        if served.options.get("gate"):
            replaced = await self._ask_gate(served, address, asked)
            if replaced is None:
                return
            asked = replaced
        # As text: kept for as long as the socket lives, and seldom looked at.
        self._info = {
            "request": _as_json(asked),
            "extended": request.query.get("_ja") == "1",
            "readonly": self.guest is not None and self.guest.readonly,
        }
        await super().get()

    def _check_room(self) -> None:
        if self.guest is not None and not self.door.gate.has_room(self.guest):
            raise Refused(429, "As many connections as this link allows are open already")

    async def _ask_gate(
        self, served: Served, address: Address, asked: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Return the request with which the agent lets the client in; None when it refused."""
        reply = await self._ask(served, {"gate": True, "request": asked}, b"")
        if reply is None:
            return None
        about, body = reply
        if about.get("pass"):
            return dict(about.get("request") or asked)
        self._respond(served, address, "", about, body)
        return None

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """End the answer; a 101 is all headers, and needs nothing of what is done for bodies."""
        connection: Any = self.request.connection
        if self.get_status() != 101 or connection.stream.closed():
            return super().finish(chunk)
        cookies = getattr(self, "_new_cookie", {}).values()
        lines = [
            f"HTTP/1.1 101 {self._reason}",
            *(f"{name}: {value}" for name, value in self._headers.get_all()),
            *(cookie.output(header="Set-Cookie:") for cookie in cookies),
        ]
        if any("\n" in line or "\r" in line for line in lines):
            raise ValueError("A line break in a header")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        written: Future[None] = connection.stream.write(head)
        self._headers_written = True
        self._log()
        self._finished = True
        self.on_finish()
        return written

    def get_websocket_protocol(self) -> AgentWebSocketProtocol | None:
        """Our own protocol under Tornado's handler; None answers 426."""
        self._socket = self.door.new_socket()
        options = self.door.socket_options
        protocol = AgentWebSocketProtocol.of(self, self._socket, self.door.flusher, options)
        if protocol is not None:
            self._socket.connect(protocol)
        return protocol

    def open(self, *args: str, **kwargs: str) -> None:
        """The 101 is out."""
        if self.guest is not None and not self.door.gate.entered(
            self.guest, self._socket, self._served.agent
        ):
            self.close(TRY_AGAIN_LATER, "As many connections as this link allows are open")
            return
        self._socket.open(self._served, self._name, self._connection_id, self._info)

    # -- asking the agent ----------------------------------------------------------------------

    def locate(self) -> tuple[Served, Address, str]:
        """Return what serves this URL, whom it addresses there, and the tail.

        Raises
        ------
        Refused
            404 naming what is served, or 400 for an address that cannot be one.
        """
        try:
            address, tail = self.place
            served = self.door.relay.find(address.agent)
        except AgentNotFound as error:
            raise self._not_found(error) from None
        except AddressError as error:
            raise Refused(http_status(error), str(error)) from None
        return served, Address(served.agent, address.name), tail

    def _not_found(self, error: AgentNotFound) -> Refused:
        # what else there is, is the business of who signed in only; nobody does for a preflight
        if self.guest is not None or self.is_preflight():
            return Refused(404, "This agent is not here now")
        return Refused(404, str(error), agents=list(error.known))

    def _request(self, address: Address, tail: str) -> Request:
        return read_request(self.request, self.secrets(), address, tail, self.identity())

    async def _ask(
        self, served: Served, about: Mapping[str, Any], body: bytes
    ) -> tuple[dict[str, Any], bytes] | None:
        """Return the host's answer; None when the client went away first."""
        self._reply = asyncio.get_running_loop().create_future()
        now = self.door.clock()
        self._pending = self.door.relay.request(served, about, body, self._answered, now)
        return await self._reply

    def _answered(self, about: dict[str, Any], body: bytes) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result((about, body))

    def _abandon(self) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(None)
            if self._pending is not None:
                self.door.relay.abandon(self._pending)

    # -- writing answers -----------------------------------------------------------------------

    def _respond(
        self, served: Served, address: Address, tail: str, about: dict[str, Any], body: bytes
    ) -> None:
        status = int(about.get("status", 500))
        if about.get("unanswered") and not tail and self.wants_page():
            self._finish_console(address)
        elif "error" in about:
            if status == 503:
                self.set_header("Retry-After", str(_RETRY_AFTER_S))
            self._finish_json(status, {"error": str(about["error"])})
        else:
            self.set_status(status)
            self.clear_header("Content-Type")
            self._set_headers(about.get("headers") or ())
            self._end(body if status not in (204, 304) else None)

    def _set_headers(self, headers: Any) -> None:
        known = self.secrets()
        seen: set[str] = set()
        for name, value in headers:
            folded = name.lower()
            if folded in _HOP_BY_HOP:
                continue
            if folded == "set-cookie" and known.is_own(value.partition("=")[0].strip()):
                continue  # no agent signs anybody in or out of Jupyter
            add = self.add_header if folded in seen or folded == "set-cookie" else self.set_header
            add(name, value)
            seen.add(folded)

    def _answer_preflight(self, cors: Mapping[str, str]) -> None:
        if not cors:
            raise Refused(403, "Forbidden: this agent does not answer other origins")
        self._set_headers(cors.items())
        self.clear_header("Content-Type")
        self._end(None)

    def _finish_json(self, status: int, facts: Mapping[str, Any]) -> None:
        self.set_status(status, responses.get(status, "Unknown"))
        self._end(dict(facts))

    def _finish_console(self, address: Address) -> None:
        page = (STATIC / _CONSOLE).read_text("utf-8")
        for word, value in {
            "base_url": self.door.base_url,
            "agent": address.agent,
            "name": address.name,
        }.items():
            page = page.replace(f"{{{{ {word} }}}}", escape(value))
        self.set_header("Content-Type", "text/html; charset=UTF-8")
        self.set_header("Cache-Control", "no-store")
        self._end(page)

    def _end(self, body: bytes | str | dict[str, Any] | None) -> None:
        # Whether the last bytes arrive is the client's affair; nothing waits for them.
        _ = self.finish(body)

    def compute_etag(self) -> None:
        """No ETag of ours: whether an agent's answer changed is the agent's to say."""

    # -- logs ----------------------------------------------------------------------------------

    def _request_summary(self) -> str:
        return request_summary(self.request)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Tornado's would print the whole request, credentials and all."""
        if isinstance(value, HTTPError):
            super().log_exception(typ, value, tb)
        else:
            _log.error("Uncaught exception %s", self._request_summary(), exc_info=(typ, value, tb))  # type: ignore[arg-type]


class StaticHandler(StaticFileHandler):
    """The JavaScript modules for pages; public, as there is nothing private in them."""

    def set_extra_headers(self, path: str) -> None:
        """Pages of other origins may import them; a browser asks each time if they changed."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        self.set_header("X-Content-Type-Options", "nosniff")
        if not self.get_argument("v", ""):
            self.set_header("Cache-Control", "no-cache")

    def _request_summary(self) -> str:
        return request_summary(self.request)

    def get_content_type(self) -> str:
        """JavaScript is JavaScript whatever this machine's registry says."""
        if self.absolute_path and self.absolute_path.endswith((".js", ".mjs")):
            return "text/javascript"
        return super().get_content_type()

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Only what a page imports: the console page has placeholders and is served filled in."""
        if absolute_path.endswith(".html"):
            raise HTTPError(404)
        return super().validate_absolute_path(root, absolute_path)


def agent_routes(
    door: Door,
    handler: type[AgentHandler] = AgentHandler,
    static_handler: type[StaticFileHandler] = StaticHandler,
    ticket_handler: type[TicketHandler] = TicketHandler,
    *,
    base_url: str | None = None,
) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Return the routes for ``tornado.web.Application``.

    Parameters
    ----------
    door : Door
        What they lead to.
    handler, static_handler, ticket_handler : type
        Subclasses with a sign-in of their own.
    base_url : str or None
        None is the door's; "/" where somebody else puts that before every route.
    """
    base = re.escape(door.base_url if base_url is None else base_url)
    agents = f"{base}(?:/*){re.escape(door.prefix)}/(?:.*)"
    return [
        (agents, handler, {"door": door}),
        (f"{base}agents-static/(.*)", static_handler, {"path": str(STATIC)}),
        (f"{base}api/agents/([^/]+)/([^/]+)/ticket", ticket_handler, {"door": door}),
    ]


def _connection_id(request: Request) -> str:
    given = request.query.get("_pk")
    if not given:
        return secrets.token_urlsafe(_ID_CHARS)[:_ID_CHARS]
    try:
        return check_connection_id(given)
    except AddressError as error:
        raise Refused(400, str(error)) from None


def _cors_headers(served: Served) -> dict[str, str]:
    wish = served.options.get("cors")
    if not wish:
        return {}
    return dict(_CORS) if wish is True else {str(name): str(value) for name, value in wish.items()}
