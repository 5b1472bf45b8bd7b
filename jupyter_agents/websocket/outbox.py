"""What waits to be written to sockets; when it goes is `flusher`'s business.

A message's frame is built once whatever the number of sockets; each socket has its own bounded
queue of frames (the bound is kept by `conversation`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from jupyter_agents.websocket.frames import BINARY, TEXT, encode_frame, encode_frames

if TYPE_CHECKING:
    from jupyter_agents.websocket.frames import Deflate

__all__ = ["Bundle", "Message", "Outbox", "Transport"]


class ReplaceableFrame(bytes):
    """A frame that a later one of its kind makes pointless; an `Outbox` knows it by its type."""

    __slots__ = ()


class Message:
    """One outgoing message; its frame is built once, whatever the number of sockets it goes to.

    Parameters
    ----------
    payload : bytes
        UTF-8 text, or anything when `binary`.
    binary : bool
        Sent with opcode 2 instead of 1.
    replaceable : bool
        A later replaceable message makes this one pointless (a state): a full queue drops it.
    """

    __slots__ = ("_deflated", "binary", "frame", "payload", "replaceable")

    count = 1
    """How many messages it is."""

    def __init__(self, payload: bytes, binary: bool = False, replaceable: bool = False) -> None:
        self.payload = payload
        self.binary = binary
        self.replaceable = replaceable
        frame = encode_frame(payload, BINARY if binary else TEXT)
        self.frame = ReplaceableFrame(frame) if replaceable else frame
        """The uncompressed frame."""
        self._deflated: dict[Deflate, bytes] | None = None

    def frame_for(self, deflate: Deflate | None) -> bytes:
        """The frame for a socket that agreed on `deflate`: one for all that agreed on the same.

        A message below `Deflate.min_bytes` travels uncompressed.
        """
        if deflate is None or len(self.payload) < deflate.min_bytes:
            return self.frame
        if self._deflated is None:
            self._deflated = {}
        frame = self._deflated.get(deflate)
        if frame is None:
            body, opcode = deflate.compress(self.payload), BINARY if self.binary else TEXT
            frame = encode_frame(body, opcode, rsv1=True)
            frame = self._deflated[deflate] = (
                ReplaceableFrame(frame) if self.replaceable else frame
            )
        return frame


class Bundle:
    """Several messages to the same sockets, joined once whatever the number of sockets.

    Parameters
    ----------
    payloads : list of bytes
        In order.
    binary : bool
        Of all of them, as `Message`'s.
    """

    __slots__ = ("_deflated", "binary", "count", "frame", "payloads")

    replaceable = False

    def __init__(self, payloads: list[bytes], binary: bool = False) -> None:
        self.payloads = payloads
        self.binary = binary
        self.count = len(payloads)
        self.frame = encode_frames(payloads, BINARY if binary else TEXT)
        """Their uncompressed frames, one behind the other."""
        self._deflated: dict[Deflate, bytes] | None = None

    def frame_for(self, deflate: Deflate | None) -> bytes:
        """Their frames for a socket that agreed on `deflate`, as `Message.frame_for`."""
        if deflate is None:
            return self.frame
        if self._deflated is None:
            self._deflated = {}
        frames = self._deflated.get(deflate)
        if frames is None:
            messages = [Message(payload, self.binary) for payload in self.payloads]
            frames = b"".join([message.frame_for(deflate) for message in messages])
            self._deflated[deflate] = frames
        return frames


class Outbox:
    """The frames that one socket has yet to write, in order, and how many bytes they are.

    Attributes
    ----------
    frames : list of bytes
        To add one without a call, add its length to `size_bytes`, too.
    size_bytes : int
        Of all frames in it.
    """

    __slots__ = ("frames", "size_bytes")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.size_bytes = 0

    def append(self, frame: bytes) -> None:
        """Add a frame behind all others."""
        self.frames.append(frame)
        self.size_bytes += len(frame)

    def push_front(self, frame: bytes) -> None:
        """Add a control frame before all others; RFC 6455 lets it come between any two frames."""
        self.frames.insert(0, frame)
        self.size_bytes += len(frame)

    def take(self, max_bytes: int) -> bytes:
        """Remove and join the first frames up to `max_bytes`, at least one; b"" if there is none.

        A frame that is taken alone is not copied.
        """
        frames = self.frames
        if self.size_bytes <= max_bytes:
            self.size_bytes = 0
            if len(frames) == 1:
                return frames.pop()
            self.frames = []
            return b"".join(frames)
        count, size = 1, len(frames[0])
        while count < len(frames) and size + len(frames[count]) <= max_bytes:
            size += len(frames[count])
            count += 1
        data = frames[0] if count == 1 else b"".join(frames[:count])
        del frames[:count]
        self.size_bytes -= size
        return data

    def drop_stale(self, *, all_of_them: bool) -> None:
        """Drop every replaceable frame but the newest; all when a newer one is about to come."""
        frames = self.frames
        keep = None
        if not all_of_them:
            keep = next((f for f in reversed(frames) if type(f) is ReplaceableFrame), None)
        self.frames = [f for f in frames if type(f) is not ReplaceableFrame or f is keep]
        self.size_bytes = sum(map(len, self.frames))

    def clear(self) -> None:
        """Forget everything."""
        self.frames = []
        self.size_bytes = 0


class Transport(Protocol):
    """The few things a WebSocket needs; none of them raises. It starts paused."""

    def write(self, data: bytes) -> int:
        """Give how many bytes the operating system took; the rest is kept, `drained` will tell.

        Must not be called between a short count and `drained`.
        """

    def pause(self) -> None:
        """Stop reading; at most one read that is under way still arrives."""

    def resume(self) -> None:
        """Begin to read, or read on."""

    def shut_down_writing(self) -> None:
        """Tell the peer that nothing follows, and read on: unread data would be a reset."""

    def close(self) -> None:
        """Close; everything must have been written."""

    def abort(self) -> None:
        """Reset the connection, so that the kernel drops what the peer did not read, too."""
