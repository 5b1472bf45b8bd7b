"""Hosts without a kernel: one on the real link, one in the same process."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from jupyter_agents.link.frames import (
    FrameReader,
    Kind,
    pack_numbers,
    pack_object,
    pack_with_object,
    packed,
    unpack_object,
    unpack_with_object,
)
from jupyter_agents.link.handshake import KernelHandshake, fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from jupyter_agents.link.relay import Relay

KEY = b"the key of a kernel's connection file"
KERNEL = "5ea8f6a2-kernel"
NONCE = "n" * 32
LIMIT_S = 5.0


class FakeKernels:
    """What a server knows of its kernels, as a dict of keys."""

    def __init__(self, **keys: bytes) -> None:
        self.keys = keys or {KERNEL: KEY}
        self.touched: list[tuple[str, bool]] = []
        self.notebook = "work/chat.ipynb"

    def find_key(self, given: str) -> tuple[bytes, str] | None:
        found = [(key, name) for name, key in self.keys.items() if fingerprint(key) == given]
        return found[0] if found else None

    async def about(self, kernel_id: str) -> dict[str, Any]:
        return {"notebook": self.notebook}

    async def may_return(self, about: Mapping[str, Any]) -> bool:
        return about["kernel_id"] in self.keys

    def touch(self, kernel_id: str, *, traffic: bool) -> None:
        self.touched.append((kernel_id, traffic))


class Speaks:
    """What either host says; a subclass says how it leaves."""

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        raise NotImplementedError

    def say(self, kind: int, word: dict[str, Any], number: int = 0) -> None:
        self.send(kind, number, pack_object(word))

    def offer(self, class_name: str = "ChatRoom", *more: str, **options: Any) -> None:
        takeover = options.pop("takeover", False)
        agent = more[0] if more else "chat-room"
        self.say(
            Kind.SERVE,
            {
                "agent": agent,
                "class": class_name,
                "spellings": list(dict.fromkeys([agent, *more[1:], class_name])),
                "takeover": takeover,
                "options": options,
            },
        )

    def text(self, number: int, text: str) -> None:
        self.send(Kind.TEXT, number, text.encode())

    def broadcast(self, text: str, *numbers: int) -> None:
        payload = pack_numbers(numbers) + text.encode()
        self.send(Kind.TEXT_MANY, len(numbers), payload)

    def shut(self, number: int, code: int, reason: str = "") -> None:
        self.send(Kind.CLOSE, number, struct.pack(">H", code) + reason.encode())

    def respond(
        self, number: int, body: bytes = b"", status: int = 200, headers: Any = (), **about: Any
    ) -> None:
        word = {"status": status, "headers": list(headers), **about}
        self.send(Kind.RESPONSE, number, pack_with_object(word, body))

    def let_in(self, number: int, request: dict[str, Any] | None = None) -> None:
        word = {"pass": True} if request is None else {"pass": True, "request": request}
        self.send(Kind.RESPONSE, number, pack_with_object(word, b""))


class Hears:
    """Frames that came, to be awaited one after the other."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()

    async def frame(self) -> tuple[int, int, bytes]:
        """The next frame, whatever it is."""
        return await asyncio.wait_for(self.arrived.get(), LIMIT_S)

    async def expect(self, kind: int) -> tuple[int, bytes]:
        """The next frame, which must be of this kind: its number and payload."""
        got, number, payload = await self.frame()
        assert got == kind, f"{Kind(got).name} came instead of {Kind(kind).name}: {payload!r}"
        return number, payload

    async def expect_open(self) -> tuple[int, dict[str, Any]]:
        number, payload = await self.expect(Kind.OPEN)
        word = unpack_object(payload)
        return number, {**word, "request": json.loads(word["request"])}

    async def expect_request(self) -> tuple[int, dict[str, Any], bytes]:
        number, payload = await self.expect(Kind.REQUEST)
        about, body = unpack_with_object(payload)
        return number, about, body

    async def expect_closed(self) -> tuple[int, int, bool, str]:
        number, payload = await self.expect(Kind.CLOSED)
        code, was_clean = struct.unpack_from(">HB", payload)
        return number, code, bool(was_clean), payload[3:].decode()

    def is_quiet(self) -> bool:
        return self.arrived.empty()


class LocalHost(Speaks, Hears):
    """A host in this process: a HostPort whose frames wait in a queue."""

    def __init__(self, relay: Relay, host_id: str = KERNEL) -> None:
        super().__init__()
        self.relay = relay
        self.id = host_id
        self.about = {"kernel_id": host_id, "notebook": "chat.ipynb"}
        self.full = False
        self.ledger = None
        self.port = _Port(self)

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.relay.host_frame(self.port, (kind, number, payload))

    async def serve(self, *names: str, **options: Any) -> None:
        self.offer(*names, **options)
        await self.expect(Kind.SERVED)


class _Port:
    """The relay's end of a LocalHost."""

    def __init__(self, host: LocalHost) -> None:
        self.id, self.about, self.full, self.ledger = host.id, host.about, False, None
        self._host = host

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self._host.arrived.put_nowait((kind, number, payload))


class FakeHost(Speaks, Hears):
    """A kernel's end of the real link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader, self.writer = reader, writer
        self._frames = FrameReader(64 * 1024 * 1024)
        self._task: asyncio.Task[None] | None = None
        self.welcome: dict[str, Any] = {}
        self.is_closed = asyncio.Event()

    @classmethod
    async def connect(cls, address: str) -> FakeHost:
        if address.startswith("tcp://"):
            name, _, port = address.removeprefix("tcp://").partition(":")
            streams = await asyncio.open_connection(name, int(port))
        else:
            streams = await asyncio.open_unix_connection(address)
        host = cls(*streams)
        host._task = asyncio.create_task(host._read())
        return host

    async def prove(self, key: bytes = KEY, package: str = "0.1.0") -> dict[str, Any]:
        """Shake hands; returns the welcome, raises what KernelHandshake raises."""
        handshake = KernelHandshake(key, NONCE, package)
        word: dict[str, Any] | None = handshake.hello()
        while word is not None:
            self.say(Kind.HELLO, word)
            _, payload = await self.expect(Kind.HELLO)
            word = handshake.receive(json.loads(payload))
        assert handshake.welcome is not None
        self.welcome = handshake.welcome
        return self.welcome

    async def serve(self, *names: str, **options: Any) -> dict[str, Any]:
        self.offer(*names, **options)
        _, payload = await self.expect(Kind.SERVED)
        return unpack_object(payload)

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.writer.writelines(packed([(kind, number, payload)]))

    async def hung_up(self) -> None:
        """Wait until the server has closed the link."""
        await asyncio.wait_for(self.is_closed.wait(), LIMIT_S)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    async def _read(self) -> None:
        try:
            while chunk := await self._reader.read(256 * 1024):
                for frame in self._frames.feed(chunk):
                    self.arrived.put_nowait(frame)
        except ConnectionError:
            pass
        self.is_closed.set()


@asynccontextmanager
async def linked(address: str, key: bytes = KEY) -> AsyncIterator[FakeHost]:
    """A fake kernel that has shaken hands."""
    host = await FakeHost.connect(address)
    try:
        await host.prove(key)
        yield host
    finally:
        await host.close()
