"""The kernel's end of the link.

Finds a Jupyter Server, proves itself, and moves frames in batches.

The server's address is in the environment that kernels inherit; else the runtime directory's
sockets are tried, newest first. A lost link is tried again for as long as the kernel lives. Its
other half is `server/downlink.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import mmap
import os
import secrets
import socket
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from jupyter_core.paths import jupyter_runtime_dir

from jupyter_agents.errors import LinkError, LinkLost, LinkRefused, LinkVersionMismatch
from jupyter_agents.link.frames import (
    SEND_BYTES,
    FrameReader,
    Kind,
    pack_object,
    packed,
    unpack_object,
)
from jupyter_agents.link.handshake import KernelHandshake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jupyter_agents.host.host import AgentHost

__all__ = ["KernelUplink", "LostFrames", "Uplink", "kernel_key", "link_candidates"]

LINK_ENV = "JUPYTER_AGENTS_LINK"
MAX_FRAME_BYTES = 64 * 1024 * 1024
WRITE_HIGH_BYTES = 1024 * 1024
HANDSHAKE_S = 5.0
RETRY_S = 0.5
RETRY_LONGEST_S = 5.0

_log = logging.getLogger("jupyter_agents")


def kernel_key() -> bytes | None:
    """The key of this kernel's connection file; None where this process is no Jupyter kernel."""
    kernelapp = sys.modules.get("ipykernel.kernelapp")
    if kernelapp is None or not kernelapp.IPKernelApp.initialized():
        return None
    session = kernelapp.IPKernelApp.instance().session
    return bytes(session.key) or None


def link_candidates() -> list[str]:
    """Addresses of servers that may be ours, likeliest first.

    A socket's path, or ``tcp://HOST:PORT``.
    """
    found = [os.environ[LINK_ENV]] if os.environ.get(LINK_ENV) else []
    sockets: list[tuple[float, str]] = []
    with suppress(OSError):
        for path in Path(jupyter_runtime_dir()).glob("jpagents-*.sock"):
            with suppress(OSError):  # its server has just removed it
                sockets.append((path.stat().st_mtime, str(path)))
    return list(dict.fromkeys([*found, *(path for _, path in sorted(sockets, reverse=True))]))


class Uplink(Protocol):
    """What the host needs of its link: somewhere to put frames."""

    def send_frames(self, frames: list[tuple[int, int, bytes]]) -> None:
        """Send all of these in one write, in order; the list is the uplink's from now on."""

    @property
    def is_full(self) -> bool:
        """Whether frames should wait here."""

    @property
    def marks(self) -> memoryview | None:
        """Memory shared with the server; None where there is none."""

    async def drained(self) -> None:
        """Return when the link has room."""


class LostFrames:
    """Takes the frames of a host that has no link, and counts what clients will miss of them.

    States are not counted: whoever is connected when the link is back is told what holds.
    """

    is_full = False

    def __init__(self) -> None:
        self.messages = 0
        self.replies = 0

    def send_frames(self, frames: list[tuple[int, int, bytes]]) -> None:
        """Count them."""
        for kind, number, _ in frames:
            if kind in (Kind.TEXT, Kind.BINARY):
                self.messages += 1
            elif kind in (Kind.TEXT_MANY, Kind.BINARY_MANY):
                self.messages += number
            elif kind in (Kind.RESPONSE, Kind.ANSWER):
                self.replies += 1

    def tell(self, log: logging.Logger) -> None:
        """Say in one line what was lost, if anything was, and count anew."""
        if self.messages or self.replies:
            log.warning(
                "While there was no link to Jupyter Server, %d messages to clients and %d "
                "answers to requests were lost",
                self.messages,
                self.replies,
            )
        self.messages = self.replies = 0


class KernelUplink:
    """A link that comes back: `connect` once, then it keeps itself up.

    Parameters
    ----------
    host : AgentHost
        Whose frames it moves; everything runs on its loop.
    key : bytes
        The kernel's key.
    about : dict
        For people: ``notebook``, ``pid``.
    candidates : callable
        Where to look; asked again at each try.
    """

    def __init__(
        self,
        host: AgentHost,
        key: bytes,
        about: dict[str, Any] | None = None,
        candidates: Callable[[], Iterable[str]] = link_candidates,
    ) -> None:
        self._host = host
        self._key = key
        self._about = about or {"notebook": os.environ.get("JPY_SESSION_NAME"), "pid": os.getpid()}
        self._candidates = candidates
        self._end: _LinkEnd | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._stopped = False

    async def connect(self) -> bool:
        """Try every candidate once; False when no server knows this kernel.

        Raises
        ------
        LinkVersionMismatch
            When a server was found that speaks another version, and no other took us.
        """
        mismatch: LinkVersionMismatch | None = None
        for address in self._candidates():
            try:
                await self._open(address)
            except LinkVersionMismatch as error:
                mismatch = error
            except (OSError, LinkError, ValueError, asyncio.TimeoutError) as error:
                _log.debug("No link at %s: %s", address, error)
            else:
                return True
        if mismatch is not None:
            raise mismatch
        return False

    async def _open(self, address: str) -> None:
        loop = self._host.loop
        end = _LinkEnd(
            self._host, KernelHandshake(self._key, secrets.token_hex(16), _package()), self._about
        )
        end.on_lost = self._lost
        # in an empty context: the transport must not keep the cell's context alive
        context = contextvars.Context()
        task = context.run(loop.create_task, _dial(loop, end, address))
        transport, _ = await asyncio.wait_for(task, HANDSHAKE_S)
        try:
            await asyncio.wait_for(asyncio.shield(end.ready), HANDSHAKE_S)
        except BaseException:
            transport.abort()
            raise
        if end.is_gone:  # while this coroutine was on its way here
            raise LinkLost(end.server.get("kernel_id", ""))
        self._end = end
        self._host.link_up(end, end.server)

    def _lost(self, end: _LinkEnd) -> None:
        if end is not self._end:
            return
        self._end = None
        self._host.link_down()
        if not self._stopped:
            self._retrying = self._host.loop.create_task(self._retry())

    async def _retry(self) -> None:
        delay, told = RETRY_S, ""
        while not self._stopped:
            await asyncio.sleep(delay)
            try:
                if await self.connect():
                    return
            except Exception as error:
                if str(error) != told:
                    _log.error("The agents cannot be linked to Jupyter Server: %s", error)
                told = str(error)
            delay = min(delay * 1.5, RETRY_LONGEST_S)

    def stop(self) -> None:
        """Hang up for good."""
        self._stopped = True
        if self._retrying is not None:
            self._retrying.cancel()
        if self._end is not None:
            self._end.hang_up()


class _LinkEnd(asyncio.BufferedProtocol):
    """One connection to one server."""

    def __init__(self, host: AgentHost, handshake: KernelHandshake, about: dict[str, Any]) -> None:
        self._host = host
        self._handshake = handshake
        self._about = about
        self._reader = FrameReader(MAX_FRAME_BYTES)
        self._transport: asyncio.Transport | None = None
        self._room = asyncio.Event()
        self._room.set()
        self.is_full = False  # not self._room.is_set()
        self._frames: Callable[[list[tuple[int, int, bytes]]], None] = self._shake_hands
        self.ready: asyncio.Future[None] = host.loop.create_future()
        self.server: dict[str, Any] = {}
        self.marks: memoryview | None = None
        self.on_lost: Callable[[_LinkEnd], None] = lambda end: None

    # -- asyncio's -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = {**self._handshake.hello(), "about": self._about}
        self.send_frames([(Kind.HELLO, 0, pack_object(hello))])

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.space()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            frames = self._reader.filled(nbytes)
            if frames:
                self._frames(frames)
        except LinkError as error:
            self._fail(error)

    def pause_writing(self) -> None:
        self.is_full = True
        self._room.clear()

    def resume_writing(self) -> None:
        self.is_full = False
        self._room.set()
        self._host.link_has_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.is_full = False
        self._room.set()
        if not self.ready.done():
            self.ready.set_exception(LinkRefused("The server hung up during the handshake"))
            self.ready.exception()
        self.on_lost(self)

    # -- ours ----------------------------------------------------------------------------------

    def _shake_hands(self, frames: list[tuple[int, int, bytes]]) -> None:
        for index, (kind, _, payload) in enumerate(frames):
            if kind != Kind.HELLO:
                raise LinkRefused("The server did not begin with a hello")
            answer = self._handshake.receive(unpack_object(payload))
            if answer is not None:
                self.send_frames([(Kind.HELLO, 0, pack_object(answer))])
                continue
            self.server = {
                **(self._handshake.welcome or {}),
                "kernel_id": self._handshake.kernel_id,
            }
            self.marks = _shared_marks(self.server.pop("marks", None))
            self._frames = self._host.frames
            self.ready.set_result(None)
            if frames[index + 1 :]:
                self._host.frames(frames[index + 1 :])
            return

    def _fail(self, error: LinkError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()
        else:
            _log.error("The link to Jupyter Server broke a rule: %s", error)
        self.hang_up()

    def hang_up(self) -> None:
        """Close after what is buffered is out."""
        if self._transport is not None:
            self._transport.close()

    @property
    def is_gone(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def send_frames(self, frames: list[tuple[int, int, bytes]]) -> None:
        """One write for all of them, and one for each that is large."""
        transport = self._transport
        if transport is None:
            return
        for data in packed(frames):
            transport.write(data)

    async def drained(self) -> None:
        """Return when the link has room."""
        await self._room.wait()


async def _dial(loop: asyncio.AbstractEventLoop, end: _LinkEnd, address: str) -> tuple[Any, Any]:
    if address.startswith("tcp://"):
        host, _, port = address[6:].rpartition(":")
        return await loop.create_connection(lambda: end, host, int(port))
    return await loop.create_unix_connection(lambda: end, address)


def _shared_marks(path: str | None) -> memoryview | None:
    """Map what the server reads when this process is dead; None where that cannot be."""
    try:
        with open(path or "", "r+b") as file:  # noqa: PTH123  # mmap wants the descriptor
            return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
    except (OSError, ValueError) as error:
        _log.debug("No memory is shared with the server: %s", error)
        return None


def _package() -> str:
    try:
        return metadata.version("jupyter_agents")
    except metadata.PackageNotFoundError:  # run from its sources
        return "unknown"
