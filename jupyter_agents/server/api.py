"""The server's own view, for the side bar and for scripts: who serves what, who is connected.

REST below ``{base_url}api/agents`` and a WebSocket that tells changes. Reads what the relay knows;
what only the host knows is asked of it, and an answer that does not come in time is left out.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone
from http.client import responses
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import ensure_async
from tornado.web import HTTPError, RequestHandler, authenticated
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from jupyter_agents.access.credentials import hide_secrets
from jupyter_agents.errors import AgentNotFound
from jupyter_agents.protocol.closing import check_close

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.link.records import ConnectionRecord, Served
    from jupyter_agents.server.door import Door
    from jupyter_agents.server.downlink import Downlink

__all__ = [
    "AgentsHandler",
    "CloseHandler",
    "EventsHandler",
    "InstanceHandler",
    "Observers",
    "ReadonlyHandler",
    "ResetHandler",
    "StopHandler",
    "View",
    "api_routes",
]

# jupyter_server does not annotate its decorators; a test looks at every method for their mark
may_read: Callable[[Any], Any] = authorized("read")
may_write: Callable[[Any], Any] = authorized("write")
may_execute: Callable[[Any], Any] = authorized("execute")

_ASK_S = 2.0
_COALESCE_S = 0.1
_MAX_EVENTS = 200
_INSTANCE = r"/api/agents/([^/]+)/([^/]+)"


class Observers:
    """Who wants to know what happens in the relay, as it happens."""

    def __init__(self) -> None:
        self._listeners: set[Callable[[str, dict[str, Any]], None]] = set()
        self._enders: set[Callable[[], None]] = set()

    def add(
        self, listener: Callable[[str, dict[str, Any]], None], end: Callable[[], None]
    ) -> Callable[[], None]:
        """Tell `listener` of every event from now on, and call `end` when the server stops.

        Returns what takes both away again.
        """
        self._listeners.add(listener)
        self._enders.add(end)

        def remove() -> None:
            self._listeners.discard(listener)
            self._enders.discard(end)

        return remove

    def tell(self, kind: str, facts: dict[str, Any]) -> None:
        """Pass on one event."""
        for listener in list(self._listeners):
            listener(kind, facts)

    def close(self) -> None:
        """The server stops."""
        for end in list(self._enders):
            end()


class View:
    """What the relay and the links know, as JSON-safe data.

    Parameters
    ----------
    door : Door
        The relay and its sockets.
    downlink : Downlink
        The kernels that are linked.
    """

    def __init__(self, door: Door, downlink: Downlink) -> None:
        self._door = door
        self._downlink = downlink

    def find(self, agent: str) -> Served:
        """What is served under this spelling; 404 otherwise."""
        try:
            return self._door.relay.find(agent)
        except AgentNotFound as error:
            raise HTTPError(404, str(error), reason="No such agent") from None

    def hosts(self) -> list[dict[str, Any]]:
        """Every kernel that is linked or left agents behind, with its agents."""
        found = {link.id: self._host(link.about) for link in self._downlink.links.values()}
        for served in self._door.relay.served.values():
            kernel_id = str(served.about.get("kernel_id", ""))
            host = found.setdefault(kernel_id, self._host(served.about))
            host["agents"].append(self.agent(served))
        return list(found.values())

    def agent(self, served: Served) -> dict[str, Any]:
        """One served class and its instances."""
        connections: dict[str, int] = {}
        for record in served.records.values():
            if record.gone is None:
                connections[record.name] = connections.get(record.name, 0) + 1
        names = {**served.instances, **dict.fromkeys(connections)}
        return {
            "agent": served.agent,
            "class": served.class_name,
            "kernel_id": str(served.about.get("kernel_id", "")),
            "state": "live" if served.host is not None else "parked",
            "instances": [
                {
                    "name": name,
                    "state": served.instances.get(name, "asleep"),
                    "connections": connections.get(name, 0),
                }
                for name in names
            ],
        }

    def connections(self, served: Served, name: str) -> list[dict[str, Any]]:
        """The open connections of one instance."""
        records = [r for r in served.records.values() if r.name == name and r.gone is None]
        return [self._connection(record) for record in records]

    def close(self, served: Served, name: str, connection_id: str, code: int, reason: str) -> int:
        """Close the connections of an instance that have this id; returns how many they were.

        Here and not by the host: it works while the kernel is stuck, too.
        """
        records = [r for r in served.records.values() if r.name == name and r.gone is None]
        chosen = [record for record in records if record.id == connection_id]
        for record in chosen:
            record.socket.close(code, reason)
        return len(chosen)

    async def ask(
        self, served: Served, do: str, name: str, more: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Have the host do something with an instance; None when no answer came in time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, Any]] = loop.create_future()

        def answered(answer: dict[str, Any], _: bytes) -> None:
            if not future.done():
                future.set_result(answer)

        question = {**(more or {}), "do": do, "agent": served.agent, "name": name}
        relay = self._door.relay
        pending = relay.ask(served, question, answered, self._door.clock())
        try:
            return await asyncio.wait_for(future, _ASK_S)
        except asyncio.TimeoutError:
            relay.abandon(pending)
            return None

    @staticmethod
    def _host(about: dict[str, Any]) -> dict[str, Any]:
        kernel_id = str(about.get("kernel_id", ""))
        notebook = about.get("notebook")
        return {"id": kernel_id, "kernel_id": kernel_id, "notebook": notebook, "agents": []}

    @staticmethod
    def _connection(record: ConnectionRecord) -> dict[str, Any]:
        socket, asked = (
            getattr(record.socket, "outlet", None),
            json.loads(record.info["request"]),
        )
        since = datetime.fromtimestamp(record.opened_at, timezone.utc)
        counts = ("messages_in", "messages_out", "bytes_in", "bytes_out", "queued_bytes")
        return {
            "id": record.id,
            "user": asked["user"],
            "remote_ip": asked["remote_ip"],
            "since": since.isoformat().replace("+00:00", "Z"),
            **{name: getattr(socket, name, 0) for name in counts},
            "round_trip_s": getattr(socket, "round_trip_s", None),
            "tags": list(record.attached.get("tags") or [record.id]),
            "readonly": bool((record.attached.get("flags") or {}).get("readonly")),
        }


class _Discreet(JupyterHandler):
    """Has what a request showed stay out of the server's log, which has its whole address."""

    async def prepare(self, **options: Any) -> None:
        self.request.uri = hide_secrets(self.request.uri or "")
        await super().prepare(**options)


class _ViewHandler(_Discreet, APIHandler):
    auth_resource = "agents"

    def initialize(self, view: View) -> None:
        self.view = view

    def answer(self, facts: dict[str, Any]) -> None:
        """Finish with JSON; whether it arrives is the client's affair."""
        _ = self.finish(facts)

    def wish(self) -> dict[str, Any]:
        """The body of a request about one connection, by its id."""
        body = self.get_json_body()
        if not isinstance(body, dict) or not isinstance(body.get("id"), str):
            raise HTTPError(400, reason="The body must be an object with a string id")
        return body


class AgentsHandler(_ViewHandler):
    """``GET api/agents``: everything that is served."""

    @authenticated
    @may_read
    def get(self) -> None:
        """``{"hosts": [{"id", "kernel_id", "notebook", "agents": […]}]}``."""
        self.answer({"hosts": self.view.hosts()})


class InstanceHandler(_ViewHandler):
    """``GET api/agents/{agent}/{name}``: one instance, as far as it is known."""

    @authenticated
    @may_read
    async def get(self, agent: str, name: str) -> None:
        """The instance's connections and, where the host answered, its callables and state."""
        served = self.view.find(agent)
        facts: dict[str, Any] = {}
        if served.host is not None:
            answer = await self.view.ask(served, "describe", name)
            if answer is not None and "error" not in answer:
                facts = answer
        self.answer(
            {
                "callables": facts.get("callables"),
                "state_kind": facts.get("state_kind"),
                "fields": facts.get("fields"),
                "started": facts.get("started"),
                "agent": served.agent,
                "class": served.class_name,
                "name": name,
                "state": "live" if served.host is not None else "parked",
                "connections": self.view.connections(served, name),
            }
        )


class CloseHandler(_ViewHandler):
    """``POST api/agents/{agent}/{name}/close``: send one connection away."""

    @authenticated
    @may_execute
    async def post(self, agent: str, name: str) -> None:
        """``{"id", "code"?, "reason"?}`` → ``{"closed": n}``."""
        served = self.view.find(agent)
        body = self.wish()
        code, reason = body.get("code", 1000), body.get("reason", "Closed by hand")
        try:
            check_close(code, reason)
        except (TypeError, ValueError) as error:
            raise HTTPError(400, reason=str(error)) from None
        closed = self.view.close(served, name, body["id"], code, reason)
        if not closed:
            raise HTTPError(404, reason="No such connection")
        self.answer({"closed": closed})


class _AskHandler(_ViewHandler):
    async def ask(
        self, do: str, agent: str, name: str, more: dict[str, Any] | None = None
    ) -> None:
        """Put an action to the host and pass on how it went."""
        served = self.view.find(agent)
        if served.host is None:
            raise HTTPError(503, reason="The agent's kernel is away")
        answer = await self.view.ask(served, do, name, more)
        if answer is None:
            raise HTTPError(504, reason="The kernel did not answer in time")
        if "error" in answer:
            self.set_status(int(answer.get("status", 500)))
            self.answer({"message": str(answer["error"])})
        else:
            self.answer(answer)


class StopHandler(_AskHandler):
    """``POST api/agents/{agent}/{name}/stop``: close its connections and put it to sleep."""

    @authenticated
    @may_execute
    async def post(self, agent: str, name: str) -> None:
        """No body."""
        await self.ask("stop", agent, name)


class ResetHandler(_AskHandler):
    """``POST api/agents/{agent}/{name}/reset``: back to the initial state."""

    @authenticated
    @may_write
    async def post(self, agent: str, name: str) -> None:
        """No body."""
        await self.ask("reset", agent, name)


class ReadonlyHandler(_AskHandler):
    """``POST api/agents/{agent}/{name}/readonly``: one connection may only read, or write again.

    By the host, on the agents' thread: it works while a cell runs.
    """

    @authenticated
    @may_execute
    async def post(self, agent: str, name: str) -> None:
        """``{"id", "readonly"?}`` → ``{}``."""
        body = self.wish()
        readonly = body.get("readonly", True)
        if not isinstance(readonly, bool):
            raise HTTPError(400, reason="readonly must be true or false")
        await self.ask("readonly", agent, name, {"id": body["id"], "readonly": readonly})


class EventsHandler(WebSocketMixin, WebSocketHandler, _Discreet):
    """``api/agents/events``: what there is, then what changes, at most ten frames a second.

    Wire
    ----
    ``{"type": "snapshot", "hosts": […]}`` once, then ``{"type": "changes", "hosts": […], "events":
    [{"kind", …}], "lost": n}``: the whole view again, and the events that led to it; `lost` counts
    those that were more than a frame holds. A frame is sent when the one before has left, so that
    a slow reader misses steps in between and never the end.
    """

    auth_resource = "agents"
    ping_interval = 30.0  # in seconds: Tornado's own pings, not the mixin's
    ping_timeout = 30.0

    def initialize(self, view: View, observers: Observers) -> None:
        """Tornado's constructor."""
        self._view = view
        self._observers = observers
        self._events: list[dict[str, Any]] = []
        self._lost = 0
        self._sender: asyncio.Task[None] | None = None
        self._remove: Callable[[], None] = _nothing

    def set_default_headers(self) -> None:
        """Jupyter's make no sense on a 101."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """JSON: Jupyter's page for people has the server's token in it."""
        _ = self.finish({"message": responses.get(status_code, "Unknown HTTP Error")})

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Sign in, then open."""
        allowed = self.authorizer.is_authorized(self, self.current_user, "read", "agents")
        if not await ensure_async(allowed):
            raise HTTPError(403)
        await super().get(*args, **kwargs)

    def open(self, *args: str, **kwargs: str) -> None:
        """Tell what there is."""
        self.set_nodelay(True)
        self._remove = self._observers.add(self._changed, self._stop)
        self._sender = asyncio.ensure_future(self._send({"type": "snapshot"}))

    def on_message(self, message: str | bytes) -> None:
        """Nothing is asked here."""

    def on_close(self) -> None:
        """Nobody listens any more."""
        self._remove()
        if self._sender is not None:
            self._sender.cancel()

    def _stop(self) -> None:
        self.close(1001, "Server is shutting down")

    def _changed(self, kind: str, facts: dict[str, Any]) -> None:
        if len(self._events) < _MAX_EVENTS:
            self._events.append({"kind": kind, **facts})
        else:
            self._lost += 1
        if self._sender is None or self._sender.done():
            self._sender = asyncio.ensure_future(self._send_changes())

    async def _send_changes(self) -> None:
        while self._events:
            await asyncio.sleep(_COALESCE_S)
            events, self._events = self._events, []
            lost, self._lost = self._lost, 0
            await self._send({"type": "changes", "events": events, "lost": lost})

    async def _send(self, frame: dict[str, Any]) -> None:
        try:
            await self.write_message(json.dumps({**frame, "hosts": self._view.hosts()}))
        except WebSocketClosedError:
            self._events.clear()


def api_routes(
    door: Door, downlink: Downlink, observers: Observers
) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Routes of the API, without the server's base_url."""
    view = View(door, downlink)
    one: dict[str, Any] = {"view": view}
    return [
        (r"/api/agents", AgentsHandler, one),
        (r"/api/agents/events", EventsHandler, {"view": view, "observers": observers}),
        (_INSTANCE, InstanceHandler, one),
        (rf"{_INSTANCE}/close", CloseHandler, one),
        (rf"{_INSTANCE}/stop", StopHandler, one),
        (rf"{_INSTANCE}/reset", ResetHandler, one),
        (rf"{_INSTANCE}/readonly", ReadonlyHandler, one),
    ]


def _nothing() -> None:
    return None
