"""Client ⇄ relay ⇄ host on one loop, no sockets: everything but the wire is the real thing."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any

from jupyter_agents.errors import CallFailed, ConnectionClosed
from jupyter_agents.host.handle import handle_for
from jupyter_agents.host.host import AgentHost, Hosted, HostLimits
from jupyter_agents.host.storage import MemoryStorage
from jupyter_agents.link.frames import Kind
from jupyter_agents.link.relay import Relay
from jupyter_agents.protocol import closing, messages
from jupyter_agents.protocol.http import Request
from jupyter_agents.protocol.names import spellings
from jupyter_agents.standalone import LocalLink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.handle import AgentHandle
    from jupyter_agents.host.storage import Storage
    from jupyter_agents.instance.instance import AgentInstance
    from jupyter_agents.link.records import ConnectionRecord, RelayLimits

__all__ = ["AgentHarness", "HarnessClient", "HttpAnswer"]

LIMIT_S = 5.0


class HttpAnswer:
    """What came back over HTTP."""

    def __init__(self, about: dict[str, Any], body: bytes) -> None:
        self.status = int(about.get("status", 200))
        self.headers = {name.lower(): value for name, value in about.get("headers") or ()}
        self.about = about
        self.body = body

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class HarnessClient:
    """One client; a socket to the relay, and what a test asks of it.

    `frames` has every frame as it came, str or bytes; `receive` gives the agent's own messages
    only.
    """

    def __init__(self, harness: AgentHarness, connection_id: str) -> None:
        self._harness = harness
        self.id = connection_id
        self.record: ConnectionRecord | None = None
        self.frames: list[str | bytes] = []
        self.state: Any = None
        self.state_errors: list[str] = []
        self.identity: messages.IdentityReceived | None = None
        self.closed: ConnectionClosed | None = None
        self.is_paused = False
        self._inbox: deque[str | bytes] = deque()
        self._replies: dict[str, list[messages.RpcReply]] = {}
        self._changed = asyncio.Condition()
        self._call_ids = count(1)

    # -- what the relay needs of a socket ------------------------------------------------------

    def socket_send(self, message: tuple[bytes, bool, bool]) -> None:
        """Take one message from the relay."""
        payload, binary, _ = message
        frame: str | bytes = payload if binary else payload.decode()
        self.frames.append(frame)
        self._sort(frame)
        self._harness.notify(self._changed)

    def socket_close(self, code: int, reason: str) -> None:
        """Be closed by the agent; this client answers at once."""
        if self.closed is None:
            self._end(code, reason, was_clean=True)

    def pause(self) -> None:
        """Note that the relay reads us no more."""
        self.is_paused = True

    def resume(self) -> None:
        """Note that it does again."""
        self.is_paused = False

    def _sort(self, frame: str | bytes) -> None:
        ours = messages.read_server_frame(frame) if isinstance(frame, str) else None
        if ours is None:
            self._inbox.append(frame)
        elif isinstance(ours, messages.StateSent):
            self.state = ours.state
        elif isinstance(ours, messages.StateErrorReceived):
            self.state_errors.append(ours.error)
        elif isinstance(ours, messages.IdentityReceived):
            self.identity = ours
        elif isinstance(ours, messages.RpcReply):
            self._replies.setdefault(ours.id, []).append(ours)

    def _end(self, code: int, reason: str, *, was_clean: bool) -> None:
        final = closing.is_final(code)
        self.closed = ConnectionClosed(code, reason, was_clean=was_clean, final=final)
        assert self.record is not None
        self._harness.relay.closed(self.record, code, reason, was_clean)
        self._harness.notify(self._changed)

    # -- what a test asks ----------------------------------------------------------------------

    async def send(self, message: str | bytes) -> None:
        """Send one message to the agent; ConnectionClosed when the connection is."""
        if self.closed is not None:
            raise self.closed
        assert self.record is not None
        if isinstance(message, str):
            self._harness.relay.take(self.record, Kind.TEXT, message.encode())
        else:
            self._harness.relay.take(self.record, Kind.BINARY, bytes(message))

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON text."""
        await self.send(messages.encode(value).decode())

    async def receive(self, timeout_s: float = LIMIT_S) -> str | bytes:
        """The agent's next message.

        ConnectionClosed when none can come, TimeoutError when none did.
        """
        await self._until(lambda: self._inbox or self.closed, timeout_s, "a message")
        if not self._inbox:
            assert self.closed is not None
            raise self.closed
        return self._inbox.popleft()

    async def receive_json(self, timeout_s: float = LIMIT_S) -> Any:
        """The agent's next message, read as JSON."""
        return json.loads(await self.receive(timeout_s))

    async def expect_nothing(self) -> None:
        """Fail when a message came that nobody received, once the agents are idle."""
        await self._harness.idle()
        assert not self._inbox, f"unexpected messages: {list(self._inbox)}"

    async def call(self, method: str, *args: Any, timeout_s: float = LIMIT_S) -> Any:
        """Call a method; returns its result, or a list of its chunks where it streams.

        CallFailed on an error.
        """
        replies = await self.replies(method, *args, timeout_s=timeout_s)
        last = replies[-1]
        if not last.success:
            raise CallFailed(method, last.error, last.id, last.data)
        if len(replies) > 1:
            return [reply.result for reply in replies if not reply.done]
        return None if last.result is messages.MISSING else last.result

    async def replies(
        self, method: str, *args: Any, timeout_s: float = LIMIT_S
    ) -> list[messages.RpcReply]:
        """Every answer to one call, the last one included."""
        call_id = f"{self.id}-{next(self._call_ids)}"
        frame = {"type": "rpc", "id": call_id, "method": method, "args": list(args)}
        await self.send_json(frame)
        mine = self._replies.setdefault(call_id, [])
        await self._until(
            lambda: (mine and (mine[-1].done or not mine[-1].success)) or self.closed,
            timeout_s,
            f"an answer of {method}",
        )
        if not mine or (mine[-1].success and not mine[-1].done):
            assert self.closed is not None
            raise self.closed
        return mine

    async def set_state(self, state: Any) -> None:
        """Write the state as a client of the SDK does, and wait until the agent has seen it."""
        await self.send_json({"type": "cf_agent_state", "state": state})
        await self._harness.idle()

    async def until_state(self, state: Any, timeout_s: float = LIMIT_S) -> None:
        """Return when this client holds that state."""
        await self._until(lambda: self.state == state, timeout_s, f"the state {state!r}")

    async def until_closed(self, timeout_s: float = LIMIT_S) -> ConnectionClosed:
        """Return how the connection ended."""
        await self._until(lambda: self.closed, timeout_s, "the close")
        assert self.closed is not None
        return self.closed

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close from the client's side."""
        if self.closed is None:
            self._end(code, reason, was_clean=True)
            await self._harness.idle()

    async def vanish(self) -> None:
        """Go without a word: the agent sees 1006."""
        if self.closed is None:
            self._end(closing.ABNORMAL, "", was_clean=False)
            await self._harness.idle()

    async def _until(self, condition: Callable[[], Any], timeout_s: float, what: str) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(condition), timeout_s)
            except (asyncio.TimeoutError, TimeoutError):
                raise TimeoutError(f"{self.id} waited {timeout_s:g} s for {what}") from None


class _ClientSocket:
    """The relay's view of a client: its names for send and close are other ones."""

    def __init__(self, client: HarnessClient) -> None:
        self.outlet = self
        self.send = self.send_now = client.socket_send
        self.close = client.socket_close
        self.pause = client.pause
        self.resume = client.resume


class AgentHarness:
    """Agents and clients in one loop: ``async with AgentHarness() as harness``.

    Parameters
    ----------
    *classes : type
        Agent classes to serve from the start; `connect` serves what is not served yet.
    storage : Storage, optional
        Memory by default; it outlives `restart`.
    limits : HostLimits, optional
        What the host bounds.
    relay_limits : RelayLimits, optional
        What the server's side bounds.
    """

    def __init__(
        self,
        *classes: type[Agent],
        storage: Storage | None = None,
        limits: HostLimits | None = None,
        relay_limits: RelayLimits | None = None,
    ) -> None:
        self._classes = list(classes)
        self.storage: Storage = storage or MemoryStorage()
        self._limits = limits or HostLimits(settle_s=0.01)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.now = 0.0
        self.relay = Relay(
            lambda *message: message, relay_limits, lambda *event: self.events.append(event)
        )
        self.clients: list[HarnessClient] = []
        self._ids = count(1)
        self._notes: set[asyncio.Task[None]] = set()
        self.host: AgentHost
        self.link: LocalLink

    async def __aenter__(self) -> AgentHarness:
        self._boot()
        for cls in self._classes:
            await self.serve(cls)
        return self

    async def __aexit__(self, *error: object) -> None:
        for client in self.clients:
            await client.close()
        await self.host.stop()
        for task in [*self.host.tasks, *self._notes]:
            task.cancel()
        await asyncio.gather(*self.host.tasks, *self._notes, return_exceptions=True)

    def _boot(self) -> None:
        self.host = AgentHost(asyncio.get_running_loop(), limits=self._limits)
        self.link = LocalLink(self.relay, self.host)
        self.link.connect()

    def notify(self, condition: asyncio.Condition) -> None:
        """Wake who waits for a client."""

        async def wake() -> None:
            async with condition:
                condition.notify_all()

        task = asyncio.get_running_loop().create_task(wake())
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    # -- serving -------------------------------------------------------------------------------

    async def serve(self, cls: type[Agent], slug: str | None = None) -> Hosted:
        """Serve a class, or its new code."""
        names = spellings(cls.__name__, slug)
        context = contextvars.copy_context()
        await self.host.serve(Hosted(cls, names[0], names, self.storage, context))
        return self.host.find(cls)

    async def stop_host(self) -> None:
        """The kernel goes away, as in a crash: nothing runs, the clients wait."""
        self.link.break_off(self.now)
        for connection in self.host.connections.values():
            connection.forget_kept()  # the dead begin nothing
            connection.marks, connection.slot = [0], 0
        for task in list(self.host.tasks):
            task.cancel()
        await asyncio.sleep(0)

    async def restart(self, *classes: type[Agent]) -> None:
        """The kernel restarts and the cells run again: all served classes, or these."""
        served = [hosted.cls for hosted in self.host.classes.values()]
        await self.stop_host()
        self._boot()
        for cls in classes or served:
            await self.serve(cls)
        await self.idle()

    def advance(self, seconds: float) -> None:
        """Let time pass on the server's side."""
        self.now += seconds
        self.relay.tick(self.now)

    async def idle(self, rounds: int = 500) -> None:
        """Return when nothing is about to happen; what sleeps in a hook is not waited for."""
        quiet = 0
        for _ in range(rounds):
            await asyncio.sleep(0)
            quiet = 0 if self.host.is_busy or self.link.is_busy else quiet + 1
            if quiet > 5:
                return

    # -- clients -------------------------------------------------------------------------------

    async def connect(
        self,
        agent: type[Agent] | str,
        name: str = "default",
        *,
        connection_id: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        user: Mapping[str, Any] | None = None,
        extended: bool = False,
        wait: bool = True,
    ) -> HarnessClient:
        """A client of an agent instance; served first if the class is not.

        With `wait` (the default) it returns when `on_connect` has ended or the connection is
        closed.
        """
        if isinstance(agent, type) and not self._is_served(agent):
            await self.serve(agent)
        slug = agent if isinstance(agent, str) else self.host.find(agent).agent
        served = self.relay.find(slug)
        client = HarnessClient(self, connection_id or f"client-{next(self._ids)}")
        request = _request(served.agent, name, query, headers, cookies, user)
        info = {"request": json.dumps(request.to_dict()), "extended": extended}
        client.record = self.relay.open(
            served, name, client.id, _ClientSocket(client), info, self.now
        )
        self.clients.append(client)
        if wait:
            await self._until_accepted(client)
        return client

    async def _until_accepted(self, client: HarnessClient) -> None:
        assert client.record is not None
        deadline = asyncio.get_running_loop().time() + LIMIT_S
        while not (client.closed or client.record.attached.get("accepted")):
            if asyncio.get_running_loop().time() > deadline or client.record.host is None:
                return
            await asyncio.sleep(0)
        await self.idle()

    def _is_served(self, cls: type[Agent]) -> bool:
        return any(hosted.cls is cls for hosted in self.host.classes.values())

    async def request(
        self,
        agent: type[Agent] | str,
        name: str = "default",
        path: str = "",
        *,
        method: str = "GET",
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        gate: bool = False,
    ) -> HttpAnswer:
        """Send HTTP to an agent instance; with `gate`, ask whether a socket may open."""
        if isinstance(agent, type) and not self._is_served(agent):
            await self.serve(agent)
        slug = agent if isinstance(agent, str) else self.host.find(agent).agent
        served = self.relay.find(slug)
        asked = _request(served.agent, name, query, headers, None, None)
        asked = asked.replace(method=method, path=path)
        answered: asyncio.Future[HttpAnswer] = asyncio.get_running_loop().create_future()
        self.relay.request(
            served,
            {"request": asked.to_dict(), **({"gate": True} if gate else {})},
            body,
            lambda about, body: answered.set_result(HttpAnswer(about, body)),
            self.now,
        )
        return await asyncio.wait_for(answered, LIMIT_S)

    def instance(self, agent: type[Agent] | str, name: str = "default") -> AgentInstance:
        """The machinery behind an instance, for tests that look inside."""
        return self.host.instance(self.host.find(agent), name)

    def agent(self, agent: type[Agent] | str, name: str = "default") -> Any:
        """The author's object itself."""
        return self.instance(agent, name).agent

    def handle(self, agent: type[Agent] | str, name: str = "default") -> AgentHandle:
        """A handle, as a cell has it."""
        return handle_for(self.host, self.host.find(agent), name)


def _request(
    agent: str,
    name: str,
    query: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
    cookies: Mapping[str, str] | None,
    user: Mapping[str, Any] | None,
) -> Request:
    tail = "&".join(f"{key}={value}" for key, value in (query or {}).items())
    url = f"http://test/agents/{agent}/{name}" + (f"?{tail}" if tail else "")
    return Request(
        url=url,
        query=dict(query or {}),
        headers=dict(headers or {}),
        cookies=dict(cookies or {}),
        user=user,
        agent=agent,
        name=name,
        remote_ip="127.0.0.1",
    )
