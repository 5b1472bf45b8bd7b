"""The load: plain sockets and ready-made frames, in a process apart from every server.

It has to be cheaper than what it measures: frames are masked once, what comes back is only
counted by its length (after the first message of each kind was read in full), and all waiting is
one epoll. The tables show its own CPU time per message beside the servers'; what it reaches
against the C server is its limit.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.subjects import Subject

BATCH = 64
LIMIT_S = 30.0
_CHUNK = 1 << 16
_UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n{headers}\r\n"
)


class LoadError(RuntimeError):
    """A server did not do what it should have."""


@dataclass
class Sample:
    """What one subject did in one stretch of one scenario."""

    count: int
    wall_s: float
    cpu_s: dict[str, float]
    own_s: float
    times_s: list[float] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """Microseconds per message, messages per second, and percentiles of the times."""
        per = 1e6 / self.count
        found = {f"{role} us": spent * per for role, spent in self.cpu_s.items()}
        found["cpu us"] = sum(self.cpu_s.values()) * per
        found["load us"] = self.own_s * per
        found["per s"] = self.count / self.wall_s
        if self.times_s:
            found |= {f"{name} us": s * 1e6 for name, s in percentiles(self.times_s).items()}
        return found


def percentiles(times_s: list[float]) -> dict[str, float]:
    """The middle, the last but one in a hundred, and the longest."""
    times = sorted(times_s)
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    return {"p50": p50, "p99": p99, "max": times[-1]}


def read_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole frames' payloads at the beginning of what a server sent, and the rest."""
    frames, at = [], 0
    while len(data) - at >= 2:
        size, start = data[at + 1] & 127, at + 2
        if size >= 126:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : start], "big")
        if start + size > len(data):
            break
        frames.append(data[start : start + size])
        at = start + size
    return frames, data[at:]


class Load:
    """The connections to one subject.

    Parameters
    ----------
    subject : Subject
        Running.
    room : str
        Which agent they talk to, where there are several.
    """

    def __init__(self, subject: Subject, room: str) -> None:
        self.subject = subject
        self.room = room
        self.sockets: list[socket.socket] = []

    # -- connecting ----------------------------------------------------------------------------

    def grow(self, count: int) -> None:
        """Have this many connections, each greeted and heard an echo of its first message."""
        self.visit([self.room] * (count - len(self.sockets)))

    def visit(self, rooms: list[str]) -> None:
        """Have one more connection to each of these."""
        for begin in range(0, len(rooms), BATCH):
            self._connect(rooms[begin : begin + BATCH])

    def _connect(self, rooms: list[str]) -> None:
        subject = self.subject
        fresh = []
        for room in rooms:
            request = _UPGRADE.format(
                path=subject.path(room), port=subject.port, headers=subject.headers
            ).encode()
            sock = socket.create_connection(("127.0.0.1", subject.port), LIMIT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(request)
            fresh.append(sock)
        hello = subject.first + subject.message("hello, anybody there?")
        rests = []
        for sock in fresh:
            rests.append(_upgraded(sock))
            sock.sendall(hello)  # all of them speak, then all are heard: nobody is waited for
        for sock, rest in zip(fresh, rests, strict=True):
            _await(sock, rest, subject.hello)
        self.sockets += fresh

    def close(self) -> None:
        """Hang up."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()

    def size_of(self, command: str, marker: bytes = b"") -> int:
        """How many bytes each member gets for one command, learned by sending it once."""
        sock = self.sockets[0]
        sock.sendall(self.subject.commands[command])
        received = b""
        while True:
            received += _received(sock)
            frames, rest = read_frames(received)
            if frames and not rest and marker in frames[-1]:
                break
        for other in self.sockets[1:]:
            left = len(received)
            while command not in ("echo", "call", "sized") and left:
                left -= len(other.recv(left))
        return len(received)

    def settle(self, command: str, times: int) -> None:
        """Send one command so often, and hear the answer each time."""
        for _ in range(times):
            self.size_of(command)

    # -- measuring -----------------------------------------------------------------------------

    def measure(self, step: Callable[[list[float]], int], seconds: float) -> Sample:
        """Repeat a step for so long; it returns how many messages it moved."""
        times: list[float] = []
        before, own, start = self.subject.cpu_s(), time.process_time(), time.perf_counter()
        count = 0
        while (wall := time.perf_counter() - start) < seconds:
            count += step(times)
        own = time.process_time() - own
        after = self.subject.cpu_s()
        cpu = {role: after[role] - before[role] for role in after}
        return Sample(count, wall, cpu, own, times)

    def round_trips(self, command: str) -> Callable[[list[float]], int]:
        """One message in flight, on one connection."""
        sock, frame = self.sockets[0], self.subject.commands[command]
        size, clock = self.size_of(command), time.perf_counter

        def step(times: list[float]) -> int:
            for _ in range(20):
                start = clock()
                sock.sendall(frame)
                left = size
                while left:
                    left -= len(sock.recv(left))
                times.append(clock() - start)
            return 20

        return step

    def sized(self, payload: int) -> Callable[[list[float]], int]:
        """The same with a text of so many bytes."""
        self.subject.commands["sized"] = self.subject.message("x" * payload)
        return self.round_trips("sized")

    def windowed(self, width: int, depth: int, command: str = "echo") -> Callable[..., int]:
        """`depth` messages in flight on each of `width` connections, for 50 ms."""
        frame, size = self.subject.commands[command], self.size_of(command)
        frames = [frame * count for count in range(depth + 1)]
        socks = {sock.fileno(): sock for sock in self.sockets[:width]}
        clock = time.perf_counter

        def step(times: list[float]) -> int:
            count, end = 0, clock() + 0.05
            got = dict.fromkeys(socks, 0)
            out = {fd: deque([(clock(), depth)]) for fd in socks}
            poll = select.epoll()
            for fd, sock in socks.items():
                poll.register(fd, select.EPOLLIN)
                sock.sendall(frames[depth])
            busy = len(socks)
            while busy:
                for fd, _ in poll.poll(LIMIT_S):
                    done, got[fd] = divmod(got[fd] + len(os.read(fd, _CHUNK)), size)
                    if not done:
                        continue
                    now = clock()
                    count += done
                    _settle(out[fd], done, now, times)
                    if now < end:
                        socks[fd].sendall(frames[done])
                        out[fd].append((now, done))
                    elif not out[fd]:
                        busy -= 1
            poll.close()
            return count

        return step

    def fan_out(self, command: str = "all", outstanding: int = 1) -> Callable[..., int]:
        """One connection asks for broadcasts, `outstanding` at a time; everybody gets them."""
        frame = self.subject.commands[command]
        size = self.size_of(command)
        socks = self.sockets
        poll = select.epoll()
        for sock in socks:
            poll.register(sock.fileno(), select.EPOLLIN)
        clock, whole, rounds = time.perf_counter, size * len(socks), 4 * outstanding - 3

        def step(times: list[float]) -> int:
            received, done, begun = 0, 0, outstanding
            starts = deque([clock()] * outstanding)
            socks[0].sendall(frame * outstanding)
            while done < rounds:
                events = poll.poll(LIMIT_S, 512)
                if not events:
                    raise LoadError(f"{self.subject.name} delivered {received} of {whole} bytes")
                for fd, _ in events:
                    received += len(os.read(fd, _CHUNK))
                for _ in range(received // whole - done):
                    done += 1
                    times.append(clock() - starts.popleft())
                    if begun < rounds:
                        begun += 1
                        starts.append(clock())
                        socks[0].sendall(frame)
            return rounds * len(socks)

        return step


def _settle(out: deque[tuple[float, int]], done: int, now: float, times: list[float]) -> None:
    # one time per batch, not per message: the load is not to be what takes the time
    while done:
        start, count = out[0]
        if count > done:
            out[0] = (start, count - done)
            return
        out.popleft()
        times.append(now - start)
        done -= count


def _received(sock: socket.socket) -> bytes:
    data = sock.recv(_CHUNK)
    if not data:
        raise LoadError("the server hung up")
    return data


def _upgraded(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        head += _received(sock)
    answer, _, rest = head.partition(b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 101"):
        raise LoadError(answer.decode("latin-1").splitlines()[0])
    return rest


def _await(sock: socket.socket, rest: bytes, wanted: bytes) -> None:
    while True:
        frames, rest = read_frames(rest)
        if any(wanted in frame for frame in frames):
            return
        rest += _received(sock)
