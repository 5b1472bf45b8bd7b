"""CPU per message of one server process: Tornado's own WebSocket against the two fast transports.

    python -m benchmarks.socket_path [--rounds 5] [--connections 1000]

No Jupyter, no link, no kernel: only the socket path, echoing and broadcasting. Server and clients
share one CPU, so there are no cross-CPU wake-ups; each round runs the variants in turn. Shown are
the medians over the rounds, and the medians of the ratios to Tornado's ``write_message``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import selectors
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

VARIANTS = ("tornado", "stream", "socket")
FRAME = bytes([0x81, 0x80 | 100, 0, 0, 0, 0]) + b"x" * 100
ECHO_BYTES = 102
_LARGE = {
    size: b"\x81\xff%bmask%b" % (size.to_bytes(8, "big"), bytes(size))
    for size in (1 << 16, 1 << 20)
}
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


# The server, in a process of its own


def _handler(variant: str) -> Any:
    from tornado.websocket import WebSocketHandler, WebSocketProtocol

    from jupyter_agents.websocket.protocol import (
        AgentWebSocketProtocol,
        Flusher,
        Message,
        SocketOptions,
    )

    members: set[Any] = set()

    class Tornado(WebSocketHandler):
        def open(self) -> None:
            members.add(self)
            self.set_nodelay(True)

        def on_message(self, message: str | bytes) -> None:
            if isinstance(message, bytes):
                for member in members:
                    member.write_message("x" * 100)
            else:
                self.write_message(message)

        def on_close(self) -> None:
            members.discard(self)

    class Receiver:
        protocol: AgentWebSocketProtocol

        def on_text(self, payload: bytes) -> None:
            self.protocol.send(Message(payload))

        def on_binary(self, payload: bytes) -> None:
            message = Message(b"x" * 100)
            for member in members:
                member.protocol.send(message)

        def on_failed(self, error: Exception) -> None: ...

        def on_closed(self, code: int, reason: str, was_clean: bool) -> None:
            members.discard(self)

    class Fast(WebSocketHandler):
        flusher = Flusher()
        options = SocketOptions(leaves_stream=variant == "socket")

        def get_websocket_protocol(self) -> WebSocketProtocol | None:
            receiver = Receiver()
            protocol = AgentWebSocketProtocol.of(self, receiver, self.flusher, self.options)
            if protocol is not None:
                receiver.protocol = protocol
                members.add(receiver)
            return protocol

    return Tornado if variant == "tornado" else Fast


async def _serve(variant: str) -> None:
    from tornado.httpserver import HTTPServer
    from tornado.testing import bind_unused_port
    from tornado.web import Application

    server = HTTPServer(Application([("/", _handler(variant))], log_function=lambda handler: None))
    sock, port = bind_unused_port()
    server.add_socket(sock)
    print(port, flush=True)
    await asyncio.Event().wait()


# The load, without a loop of its own: it has to be cheaper than any server


class Load:
    """One server process of a variant, and the connections to it."""

    def __init__(self, variant: str, connections: int) -> None:
        command = [sys.executable, "-m", "benchmarks.socket_path", "--serve", variant]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.sockets: list[socket.socket] = []
        self.grow(1)
        before = self.rss_kib()
        self.grow(connections)
        self.kib_per_connection = (self.rss_kib() - before) / max(1, connections - 1)

    def grow(self, connections: int) -> None:
        """Have this many connections."""
        while len(self.sockets) < connections:
            sock = socket.create_connection(("127.0.0.1", self.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(_UPGRADE)
            while not sock.recv(4096).endswith(b"\r\n\r\n"):
                pass
            self.sockets.append(sock)

    def cpu_s(self) -> float:
        """User and system time of the server so far."""
        with open(f"/proc/{self.process.pid}/schedstat") as file:  # noqa: PTH123  # hot
            return int(file.read().split()[0]) / 1e9

    def rss_kib(self) -> int:
        """Resident memory of the server."""
        with open(f"/proc/{self.process.pid}/statm") as file:  # noqa: PTH123  # as above
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def measure(self, work: Any, *args: int) -> tuple[float, float]:
        """Microseconds of server CPU, and of wall time, per message that `work` moved."""
        cpu, start = self.cpu_s(), time.perf_counter()
        count = work(*args)
        wall, used = time.perf_counter() - start, self.cpu_s() - cpu
        return used / count * 1e6, wall / count * 1e6

    def round_trips(self, count: int) -> int:
        """One message in flight on one connection."""
        sock = self.sockets[0]
        for _ in range(count):
            sock.sendall(FRAME)
            _read(sock, ECHO_BYTES)
        return count

    def large(self, count: int, size: int, width: int, depth: int) -> int:
        """The same with messages of `size` bytes, read while more is being sent."""
        sockets = self.sockets[:width]
        for _ in range(count):
            left = dict.fromkeys(sockets, (10 + size) * depth)
            unsent = dict.fromkeys(sockets, memoryview(_LARGE[size] * depth))
            for sock in sockets:
                sock.setblocking(False)
            while left:
                sending = [sock for sock, rest in unsent.items() if rest]
                readable, writable, _ = select.select(list(left), sending, [])
                for sock in writable:
                    unsent[sock] = unsent[sock][sock.send(unsent[sock]) :]
                for sock in readable:
                    left[sock] -= len(sock.recv(1 << 17))
                    if not left[sock]:
                        del left[sock]
            for sock in sockets:
                sock.setblocking(True)
        return count * width * depth

    def pipelined(self, count: int, width: int, depth: int) -> int:
        """`depth` messages in flight on each of `width` connections."""
        for _ in range(count):
            for sock in self.sockets[:width]:
                sock.sendall(FRAME * depth)
            for sock in self.sockets[:width]:
                _read(sock, ECHO_BYTES * depth)
        return count * width * depth

    def broadcasts(self, count: int, outstanding: int) -> int:
        """One connection asks for `outstanding` broadcasts at a time, everybody gets them."""
        with selectors.DefaultSelector() as selector:
            for sock in self.sockets:
                selector.register(sock, selectors.EVENT_READ)
            for _ in range(count):
                self.sockets[0].sendall(bytes([0x82, 0x81, 0, 0, 0, 0, 0]) * outstanding)
                left = ECHO_BYTES * outstanding * len(self.sockets)
                while left:
                    for key, _events in selector.select():
                        left -= len(key.fileobj.recv(1 << 16))  # type: ignore[union-attr]
        return count * outstanding * len(self.sockets)

    def stop(self) -> None:
        """End the server."""
        self.process.kill()
        self.process.communicate()
        for sock in self.sockets:
            sock.close()


def _read(sock: socket.socket, size: int) -> None:
    while size:
        size -= len(sock.recv(size))


def one_round(variant: str, connections: int) -> dict[str, float]:
    """All measurements of one variant."""
    load, result = Load(variant, 100), {}
    load.round_trips(500)
    result["round trip, CPU us"], result["round trip, wall us"] = load.measure(
        load.round_trips, 5000
    )
    result["echo 16x16, CPU us"], _ = load.measure(load.pipelined, 100, 16, 16)
    result["echo 64 KiB 4x4, CPU us"], _ = load.measure(load.large, 20, 1 << 16, 4, 4)
    result["echo 1 MiB, CPU us"], result["echo 1 MiB, wall us"] = load.measure(
        load.large, 40, 1 << 20, 1, 1
    )
    result["broadcast 100, CPU us"], _ = load.measure(load.broadcasts, 100, 1)
    result["broadcast 100, 8 at once, CPU us"], _ = load.measure(load.broadcasts, 30, 8)
    load.stop()
    load = Load(variant, connections)
    result["idle connection, KiB"] = load.kib_per_connection
    result[f"echo {connections}x1, CPU us"], _ = load.measure(load.pipelined, 5, connections, 1)
    result[f"broadcast {connections}, CPU us"], _ = load.measure(load.broadcasts, 10, 1)
    load.stop()
    return result


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(_serve(asked.serve))
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rounds: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for number in range(asked.rounds):
        for variant in VARIANTS if number % 2 else reversed(VARIANTS):
            rounds[variant].append(one_round(variant, asked.connections))
        print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
    print(f"| | {' | '.join(VARIANTS)} | stream : tornado | socket : tornado |")
    print("|---|" + "--:|" * (len(VARIANTS) + 2))
    for name in rounds["tornado"][0]:
        cells = [statistics.median(one[name] for one in rounds[v]) for v in VARIANTS]
        ratios = [
            statistics.median(
                a[name] / b[name] for a, b in zip(rounds[v], rounds["tornado"], strict=True)
            )
            for v in VARIANTS[1:]
        ]
        print(
            f"| {name} | "
            + " | ".join([f"{c:.1f}" for c in cells] + [f"{r:.2f}" for r in ratios])
            + " |"
        )


if __name__ == "__main__":
    main()
