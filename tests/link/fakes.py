"""Hosts and sockets that only remember what they were told, for the pure rooms' tests."""

from __future__ import annotations

import struct
from typing import Any

from jupyter_agents.link.frames import (
    Kind,
    pack_numbers,
    pack_object,
    pack_with_object,
    unpack_object,
    unpack_with_object,
)
from jupyter_agents.link.records import RelayLimits
from jupyter_agents.link.relay import Relay

Sent = tuple[str, int, Any]


def head(kind: int, number: int, payload_bytes: int) -> bytes:
    """Nine bytes that go before a payload of so many bytes."""
    return struct.pack(">IBI", payload_bytes + 5, kind, number)


class FakeSocket:
    """A client's socket."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.outlet = self

    def send(self, message: Any) -> None:
        self.calls.append(("send", message))

    send_now = send

    def close(self, code: int, reason: str) -> None:
        self.calls.append(("close", code, reason))

    def pause(self) -> None:
        self.calls.append(("pause",))

    def resume(self) -> None:
        self.calls.append(("resume",))

    def take(self) -> list[tuple[Any, ...]]:
        """What happened since the last look."""
        calls, self.calls = self.calls, []
        return calls


class FakeHost:
    """A host's link, with what it would say as methods."""

    def __init__(self, relay: Relay, name: str = "k1", notebook: str | None = None) -> None:
        self._relay = relay
        self.id = name
        self.about: dict[str, Any] = {"kernel_id": name}
        if notebook is not None:
            self.about["notebook"] = notebook
        self.full = False
        self.ledger = None
        self.frames: list[Sent] = []

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.frames.append((Kind(kind).name, number, _readable(kind, payload)))

    def take(self) -> list[Sent]:
        """What was sent since the last look."""
        frames, self.frames = self.frames, []
        return frames

    def says(self, kind: int, number: int, payload: bytes | dict[str, Any] = b"") -> None:
        """One frame of this host arrives."""
        packed = payload if isinstance(payload, bytes) else pack_object(payload)
        self._relay.host_frame(self, (kind, number, packed))

    def serve(
        self, class_name: str = "ChatRoom", agent: str = "chat-room", **more: Any
    ) -> dict[str, Any]:
        """Serve a class; returns what the relay answered."""
        wish = {"agent": agent, "class": class_name, "spellings": [agent, class_name], **more}
        before = len(self.frames)
        self.says(Kind.SERVE, 0, wish)
        [answer] = [f for f in self.frames[before:] if f[0] == "SERVED"]
        self.frames.remove(answer)
        return dict(answer[2])

    def accept(self, number: int, **more: Any) -> None:
        """`on_connect` ended well."""
        self.says(Kind.ATTACH, number, {"accepted": True, **more})

    def broadcast(self, kind: int, text: bytes, *numbers: int) -> None:
        self.says(kind, len(numbers), pack_numbers(numbers) + text)

    def close(self, number: int, code: int, reason: str = "") -> None:
        self.says(Kind.CLOSE, number, struct.pack(">H", code) + reason.encode())

    def respond(self, number: int, about: dict[str, Any], body: bytes = b"") -> None:
        self.says(Kind.RESPONSE, number, pack_with_object(about, body))


def _readable(kind: int, payload: bytes) -> Any:
    if kind in (Kind.OPEN, Kind.SERVED, Kind.TAKEN, Kind.ASK):
        return unpack_object(payload)
    if kind == Kind.REQUEST:
        return unpack_with_object(payload)
    if kind == Kind.CLOSED:
        code, was_clean = struct.unpack_from(">HB", payload)
        return (code, payload[3:].decode(), bool(was_clean))
    return payload


class Scene:
    """A relay with its events, wrapping each message as ``(payload, binary, replaceable)``."""

    def __init__(self, **limits: Any) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.wrapped = 0
        self.relay = Relay(self._wrap, RelayLimits(**limits), self._event)

    def _event(self, kind: str, facts: dict[str, Any]) -> None:
        self.events.append((kind, facts))

    def _wrap(self, payload: bytes, binary: bool, replaceable: bool) -> Any:
        self.wrapped += 1
        return (payload, binary, replaceable)

    def host(self, name: str = "k1", notebook: str | None = None) -> FakeHost:
        return FakeHost(self.relay, name, notebook)

    def open(self, name: str = "lobby", agent: str = "chat-room", **more: Any) -> Any:
        """A client connects; returns its record, whose socket is a FakeSocket."""
        served = self.relay.find(agent)
        connection_id, now = more.pop("id", "me"), more.pop("now", 0.0)
        return self.relay.open(served, name, connection_id, FakeSocket(), more, now)
