"""The server's end of the links to kernels: a Unix socket, a handshake, frames to and fro.

Promises that only a kernel of this server gets in, that what a kernel sends closes no link but its
own, and that frames of one turn leave in few writes. Its other half is `host/uplink.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from contextlib import suppress
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jupyter_agents.errors import LinkError, LinkRefused
from jupyter_agents.link.chores import Chores
from jupyter_agents.link.frames import (
    SEND_BYTES,
    Frame,
    FrameReader,
    Kind,
    pack_object,
    packed,
    unpack_object,
)
from jupyter_agents.link.handshake import ServerHandshake
from jupyter_agents.server.places import SharedMarks, bind_unix, remove, socket_path, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_agents.link.marks import Marks
    from jupyter_agents.server.door import Door
    from jupyter_agents.server.limits import Limits

__all__ = ["ENVIRONMENT", "Downlink", "HostLink", "Kernels"]

_log = logging.getLogger(__name__)

ENVIRONMENT = "JUPYTER_AGENTS_LINK"
"""Where kernels find the link: a path, or ``tcp://127.0.0.1:PORT``."""

_HELLO_BYTES = 16 * 1024


class Kernels(Protocol):
    """What the links need to know of the server's kernels."""

    def find_key(self, fingerprint: str) -> tuple[bytes, str] | None:
        """The key and id of the kernel that has this fingerprint."""

    async def about(self, kernel_id: str) -> dict[str, Any]:
        """For people: ``notebook``, when the kernel has one."""

    async def may_return(self, about: Mapping[str, Any]) -> bool:
        """Whether the kernel, or another one for its notebook, may still serve again."""

    def touch(self, kernel_id: str, *, traffic: bool) -> None:
        """Clients talk to the kernel (`traffic`), or are connected to it and silent."""


class HostLink(asyncio.BufferedProtocol):
    """One kernel's link; a HostPort for the relay."""

    def __init__(self, downlink: Downlink) -> None:
        self._downlink = downlink
        self._relay = downlink.door.relay
        self._after_read = downlink.door.flusher.after_read
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(_HELLO_BYTES, buffer_bytes=_HELLO_BYTES)
        self._handshake: ServerHandshake | None = downlink.new_handshake()
        self._transport: asyncio.Transport | None = None
        self._out: list[Frame] = []
        self._is_scheduled = False
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.id = ""
        self.about: dict[str, Any] = {}
        self.full = False
        self.ledger: Marks | None = None
        self._shared: SharedMarks | None = None
        self._frames = 0
        self.chores = Chores(self.send)

    # -- asyncio's side ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A process connected; who it is, it has to prove."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        _tune(transport)
        if not self._downlink.admit(self):
            self.close()
            return
        limit = self._downlink.limits.handshake_timeout_s
        self._deadline = self._loop.call_later(limit, self._took_too_long)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._reader.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came: take the frames that are whole now."""
        try:
            frames = self._reader.filled(nbytes)
            if self._handshake is None:
                self._take(frames)
            else:
                self._greet(frames)
        except LinkError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The link is gone."""
        self._transport = None
        self._out.clear()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._shared is not None:
            self._shared.hide()
        if self._handshake is None and self._reader.pending_bytes:
            _log.warning("Kernel %s was cut off in the middle of a message: it is lost", self.id)
        self._downlink.left(self)

    def pause_writing(self) -> None:
        """The kernel reads more slowly than its clients write: have them wait."""
        self.full = True
        self._relay.host_full(self, True)

    def resume_writing(self) -> None:
        """It caught up."""
        self.full = False
        self._relay.host_full(self, False)

    @property
    def frames(self) -> int:
        """How many there were, both ways, those that are queued included."""
        return self._frames + len(self._out)

    @property
    def round_trip_s(self) -> float | None:
        """How long the kernel took to answer the latest probe, or has not answered it by now."""
        return self.chores.round_trip_s(self._loop.time())

    # -- frames in -----------------------------------------------------------------------------

    def _take(self, frames: list[Frame]) -> None:
        self._frames += len(frames)
        if self.chores.is_probing:
            self.chores.heard(frames, self._loop.time())
        if self._shared is not None:
            self._shared.hide()  # it speaks, so it has mapped them
            self._shared = None
        if len(frames) == 1:
            self._hand_on(frames)
            return
        flusher, fan_out = self._downlink.door.flusher, self._relay.fan_out
        flusher.hold()
        fan_out.hold()
        try:
            self._hand_on(frames)
        finally:
            try:
                fan_out.release()
            finally:
                flusher.release()  # or no socket of this server would be written any more

    def _hand_on(self, frames: list[Frame]) -> None:
        take = self._relay.host_frame
        for frame in frames:
            try:
                take(self, frame)
            except LinkError:
                raise
            except Exception:
                # One frame's trouble must not cost the kernel's other agents their link.
                _log.exception("A frame of kind %d from kernel %s failed", frame[0], self.id)

    def _greet(self, frames: list[Frame]) -> None:
        for kind, _, payload in frames:
            if kind != Kind.HELLO or self._task is not None:
                raise LinkRefused("The kernel spoke before the handshake was over")
            self._hear(unpack_object(payload))

    def _hear(self, word: dict[str, Any]) -> None:
        handshake = self._handshake
        assert handshake is not None
        answer = handshake.receive(word, self._downlink.welcome())
        if not handshake.done:
            self._say(answer)
            return
        self._task = self._loop.create_task(self._enter(handshake.kernel_id, answer))

    async def _enter(self, kernel_id: str, answer: dict[str, Any]) -> None:
        try:
            about = await self._downlink.kernels.about(kernel_id)
        except Exception:
            _log.exception("What kernel %s belongs to is not known", kernel_id)
            about = {}
        if self._transport is None:
            return
        self.id, self.about = kernel_id, {"kernel_id": kernel_id, **about}
        self._downlink.entered(self)
        if self._deadline is not None:
            self._deadline.cancel()
        limits = self._downlink.limits
        self._transport.set_write_buffer_limits(*limits.link_water())
        self._reader = FrameReader(limits.frame_bytes())
        self._handshake = None
        self._say({"welcome": {**answer["welcome"], **self.about, **self._share()}})

    def _share(self) -> dict[str, str]:
        try:
            self._shared = SharedMarks(self._downlink.runtime_dir)
        except OSError as error:
            _log.warning("No memory can be shared with kernel %s: %s", self.id, error)
            return {}
        self.ledger = self._shared.marks
        return {"marks": str(self._shared.path)}

    def _took_too_long(self) -> None:
        self._fail(LinkRefused("The handshake took too long"))

    def _fail(self, error: LinkError) -> None:
        if self._handshake is not None:
            _log.warning("A kernel's link was refused: %s", error)
            self._say(self._handshake.refusal(error))
        else:
            _log.error("The link to kernel %s is closed: %s", self.id, error)
        self.close()

    # -- frames out ----------------------------------------------------------------------------

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Queue one frame; it leaves with all that the same read, or turn of the loop, brings."""
        if self._transport is None:
            return
        self._out.append((kind, number, payload))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._after_read(self._write)

    def _say(self, word: dict[str, Any]) -> None:
        self.send(Kind.HELLO, 0, pack_object(word))
        self._write()

    def _write(self) -> None:
        self._is_scheduled = False
        frames, self._out = self._out, []
        transport = self._transport
        if transport is None or not frames:
            return
        self._frames += len(frames)
        for data in packed(frames):
            transport.write(data)

    def close(self) -> None:
        """Hang up, after what is queued."""
        if self._transport is not None:
            self._write()
            self._transport.close()

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()


class Downlink:
    """Listens for kernels and keeps their links.

    Parameters
    ----------
    door : Door
        Whose relay the frames go to.
    limits : Limits
        Read as links come.
    kernels : Kernels
        The server's kernels.
    runtime_dir : path
        Where the socket is put, and where stale ones are swept.
    welcome : callable
        Makes what each kernel is told at the end of the handshake.
    package : str
        Our version, for the sentence when versions differ.
    """

    def __init__(
        self,
        door: Door,
        limits: Limits,
        kernels: Kernels,
        runtime_dir: str | Path,
        welcome: Callable[[], dict[str, Any]],
        package: str,
    ) -> None:
        self.door = door
        self.limits = limits
        self.kernels = kernels
        self.welcome = welcome
        self.links: dict[str, HostLink] = {}
        self.address = ""
        # One empty context for all links: nothing leaks into them from whoever started the server.
        self.context = Context()
        self._package = package
        self.runtime_dir = Path(runtime_dir)
        self._strangers: set[HostLink] = set()
        self._seen: dict[str, int] = {}
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    # -- listening -----------------------------------------------------------------------------

    def bind(self) -> str:
        """Bind the socket, so that kernels started from now on find it; returns its address."""
        sweep(self.runtime_dir)
        if hasattr(socket, "AF_UNIX"):
            self._path = socket_path(self.runtime_dir)
            self._socket = bind_unix(self._path)
            self.address = str(self._path)
        else:
            self._socket = socket.create_server(("127.0.0.1", 0))
            self._socket.setblocking(False)
            self.address = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        os.environ[ENVIRONMENT] = self.address
        return self.address

    async def start(self) -> None:
        """Take in kernels; those that knocked since `bind` first."""
        if self._socket is None:
            self.bind()
        # A task copies the context it is made in, and the transports copy the task's.
        self._server = await self.context.copy().run(asyncio.ensure_future, self._listen())

    async def _listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        assert self._socket is not None
        if self._path is not None:
            return await loop.create_unix_server(lambda: HostLink(self), sock=self._socket)
        return await loop.create_server(lambda: HostLink(self), sock=self._socket)

    async def stop(self) -> None:
        """Hang up, and leave nothing behind."""
        if os.environ.get(ENVIRONMENT) == self.address:
            del os.environ[ENVIRONMENT]
        if self._server is not None:
            # asyncio loses a connection that was accepted and is no link yet when this closes
            for listening in self._server.sockets:
                with suppress(NotImplementedError):  # Windows' own loop
                    asyncio.get_running_loop().remove_reader(listening)
            for _ in range(3):
                await asyncio.sleep(0)
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        if self._path is not None:
            remove(self._path)
        for link in [*self.links.values(), *self._strangers]:
            link.close()
        # connection_lost comes with the loop's next turn
        await asyncio.sleep(0)
        for link in [*self.links.values(), *self._strangers]:
            link.abort()
        await asyncio.sleep(0)

    # -- told by links -------------------------------------------------------------------------

    def new_handshake(self) -> ServerHandshake:
        """A handshake with a nonce of its own."""
        return ServerHandshake(self.kernels.find_key, secrets.token_hex(32), self._package)

    def admit(self, link: HostLink) -> bool:
        """Whether one more stranger may try to prove itself."""
        if len(self._strangers) >= self.limits.max_handshakes:
            _log.warning("Too many kernels are shaking hands at once; one was turned away")
            return False
        self._strangers.add(link)
        return True

    def entered(self, link: HostLink) -> None:
        """A kernel proved itself; an older link of the same kernel is dead, known or not."""
        self._strangers.discard(link)
        before = self.links.get(link.id)
        self.links[link.id] = link
        if before is not None:
            self.door.relay.host_left(before, self.door.clock())
            before.abort()
        _log.info("Kernel %s is linked", link.id)

    def left(self, link: HostLink) -> None:
        """A link is gone."""
        self._strangers.discard(link)
        if self.links.get(link.id) is not link:
            return
        del self.links[link.id]
        self._seen.pop(link.id, None)
        self.door.relay.host_left(link, self.door.clock())
        _log.info("The link to kernel %s is gone", link.id)

    # -- now and then --------------------------------------------------------------------------

    def report_activity(self) -> None:
        """Tell Jupyter which kernels are at work, so that it culls none; call it now and then."""
        for kernel_id, link in self.links.items():
            frames = link.frames - link.chores.frames
            traffic = frames != self._seen.get(kernel_id)
            self._seen[kernel_id] = frames
            served = self.door.relay.served.values()
            if traffic or any(one.records for one in served if one.host is link):
                self.kernels.touch(kernel_id, traffic=traffic)

    def probe(self) -> None:
        """Measure how long each kernel takes to answer; call it now and then."""
        now = asyncio.get_running_loop().time()
        for link in self.links.values():
            link.chores.probe(now)

    def tally(self, every_s: float) -> None:
        """Have every kernel tell what its agents do; call it every second or so."""
        for link in self.links.values():
            link.chores.tally(every_s)

    async def forget_gone(self) -> None:
        """Close what waits for kernels that Jupyter has shut down for good."""
        served = self.door.relay.served.values()
        parked = {str(one.about.get("kernel_id")): one.about for one in served if one.host is None}
        for kernel_id, about in parked.items():
            if not await self.kernels.may_return(about):
                self.door.relay.forget_host(kernel_id)


def _tune(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
