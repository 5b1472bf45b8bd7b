"""Agents without a Jupyter Server.

The same relay and handlers in this process, on loopback, with a token.

`serve` starts it by itself where no Jupyter Server is found (VS Code, plain IPython, a script).
`agent_handlers` puts agents into a Tornado application of your own. `LocalLink` is the link
without a socket; the test harness uses it, too.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_agents.link.marks import MARK_BYTES, Marks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jupyter_agents.host.agent import Agent
    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.host.storage import Storage
    from jupyter_agents.link.relay import Relay
    from jupyter_agents.server.door import Door

__all__ = ["LocalLink", "StandaloneServer", "agent_handlers", "door_and_host", "start"]


_MARKS = 1024


class LocalLink:
    """Relay and host on one loop.

    Frames as tuples, no bytes copied, one delivery per turn each way.

    Parameters
    ----------
    relay : Relay
        The server's side.
    host : AgentHost
        The kernel's side; both run on the host's loop.
    about : dict, optional
        As a kernel would say about itself.
    """

    full = False
    is_full = False

    def __init__(self, relay: Relay, host: AgentHost, about: dict[str, Any] | None = None) -> None:
        self.id = "local"
        marks = Marks(bytearray(MARK_BYTES * _MARKS))
        self.ledger: Marks | None = marks
        self.marks = marks.numbers
        self.about = about or {"kernel_id": "local"}
        self._relay = relay
        self._host = host
        self._to_host: list[tuple[int, int, bytes]] = []
        self._is_up = False

    def connect(self, server: dict[str, Any] | None = None) -> None:
        """Join the two."""
        self._is_up = True
        self._host.link_up(self, server or {"server_id": "local"})

    def break_off(self, now: float) -> None:
        """Part them, as when a kernel dies: what was under way is lost, the relay parks."""
        self._is_up = False
        self._to_host.clear()
        self._host.link_down()
        self._relay.host_left(self, now)

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """From the relay to the host, with the next turn of the loop."""
        if not self._to_host:
            self._host.loop.call_soon(self._deliver)
        self._to_host.append((kind, number, payload))

    def _deliver(self) -> None:
        frames, self._to_host = self._to_host, []
        if self._is_up:
            self._host.frames(frames)

    def send_frames(self, frames: list[tuple[int, int, bytes]]) -> None:
        """From the host to the relay, now."""
        self._relay.fan_out.hold()
        try:
            for frame in frames:
                if self._is_up:
                    self._relay.host_frame(self, frame)
        finally:
            self._relay.fan_out.release()

    @property
    def is_busy(self) -> bool:
        """Whether frames are on their way."""
        return bool(self._to_host)

    async def drained(self) -> None:
        """Return at once: nothing is buffered here."""


class StandaloneServer:
    """Serves one host's agents in this process.

    While it runs, a note in Jupyter's runtime directory says where, readable by its owner only:
    `client.discovery` looks there when no host is named.

    Parameters
    ----------
    host : AgentHost
        Runs on the loop that the server shares.
    token : str, optional
        What clients must show as ``?token=`` or in their Authorization header; made up by default.
    """

    def __init__(self, host: AgentHost, token: str | None = None) -> None:
        from jupyter_agents.server.door import Door
        from jupyter_agents.server.limits import Limits

        self.token = secrets.token_urlsafe(24) if token is None else token
        self.door = Door(Limits(), token=self.token)
        self.link = LocalLink(self.door.relay, host)
        self._host = host
        self._http: Any = None
        self._ticking: Any = None
        self._note: Path | None = None
        self.url = ""

    def listen(self, port: int = 0, address: str = "127.0.0.1") -> None:
        """Open the port; on the host's thread."""
        from tornado.httpserver import HTTPServer
        from tornado.ioloop import PeriodicCallback
        from tornado.netutil import bind_sockets
        from tornado.web import Application

        from jupyter_agents.server.sockets import agent_routes, log_request

        sockets = bind_sockets(port, address)
        self._http = HTTPServer(Application(agent_routes(self.door), log_function=log_request))
        self._http.add_sockets(sockets)
        self.url = f"http://{address}:{sockets[0].getsockname()[1]}/"
        self._ticking = PeriodicCallback(self.door.tick, 1000)
        self._ticking.start()
        self.link.connect(
            {
                "server_id": secrets.token_hex(8),
                "url": self.url,
                "token": self.token,
                "sharing": True,
            }
        )
        self._note = _leave_note({"url": self.url, "token": self.token, "pid": os.getpid()})

    async def stop(self) -> None:
        """Send the clients away and close the port."""
        if self._note is not None:
            self._note.unlink(missing_ok=True)
        self._ticking.stop()
        self._http.stop()
        await self.door.stop()
        await self._http.close_all_connections()


def agent_handlers(
    *classes: type[Agent],
    base_url: str = "/",
    token: str = "",
    storage: str | os.PathLike[str] | Storage | None = "memory",
) -> list[Any]:
    """Routes that serve these classes in a Tornado application of your own, on its loop.

    Parameters
    ----------
    *classes : type
        Agent classes.
    base_url : str
        Where the application's URLs begin.
    token : str
        What clients must show; empty lets everyone in, so put your own sign-in before it.
    storage : str or path or Storage
        As for `serve`; memory by default.

    Returns
    -------
    list
        For ``tornado.web.Application``.

    Thread
    ------
    The one whose loop runs the application; agents run there, too.
    """
    from jupyter_agents.server.sockets import agent_routes

    door, _ = door_and_host(classes, base_url, token, storage)
    return agent_routes(door)


def door_and_host(
    classes: Iterable[type[Agent]],
    base_url: str = "/",
    token: str = "",
    storage: str | os.PathLike[str] | Storage | None = "memory",
) -> tuple[Door, AgentHost]:
    """The two ends of `agent_handlers`, linked on the running loop, for who has to stop them."""
    import asyncio

    from jupyter_agents.host.host import AgentHost, Hosted
    from jupyter_agents.host.storage import open_storage
    from jupyter_agents.protocol.names import spellings
    from jupyter_agents.server.door import Door
    from jupyter_agents.server.limits import Limits

    host = AgentHost(asyncio.get_event_loop())
    door = Door(Limits(), base_url, token=token)
    LocalLink(door.relay, host).connect()
    kept = open_storage(storage)
    for cls in classes:
        names = spellings(cls.__name__)
        host.take(Hosted(cls, names[0], names, kept))
    host.end_turn()
    return door, host


def start(host: AgentHost) -> StandaloneServer:
    """Start serving a host's agents on a loopback port, and say where."""
    server: StandaloneServer = host.submit(_listen, host).result(10)
    print(  # noqa: T201 - the person at the prompt needs the address
        f"No Jupyter Server serves this process, so its agents are at {server.url}agents/ "
        f"(token {server.token})"
    )
    return server


def _leave_note(about: dict[str, Any]) -> Path | None:
    """Write a file that only this user can read; agents work without it, too."""
    from jupyter_core.paths import jupyter_runtime_dir

    path = Path(jupyter_runtime_dir(), f"jpagents-{os.getpid()}-{secrets.token_hex(4)}.json")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(about, file)
        return path
    return None


def _listen(host: AgentHost) -> StandaloneServer:
    server = StandaloneServer(host)
    server.listen()
    return server
