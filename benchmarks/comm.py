"""What a notebook has without agents: ipywidgets messages over the kernel's own channel.

The same server and kernel as the product's, Jupyter's binary protocol (v1), one front end that
speaks to one widget.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING

from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1

from benchmarks.load import Load, read_frames
from benchmarks.subjects import Product, masked

if TYPE_CHECKING:
    from benchmarks.subjects import Subject

WIDGET = """
import ipywidgets
_widget = ipywidgets.Widget()
_widget.on_msg(lambda widget, content, buffers: widget.send(content))
print(_widget.model_id)
"""
LOOP = """
import time
_start = time.perf_counter()
for _number in range({count}):
    _widget.send({{"text": "x" * 100}})
print(time.perf_counter() - _start)
"""
QUIET_S = 2.0


class Channel(Load):
    """The front end's WebSocket to the kernel, as a browser opens it."""

    def __init__(self, product: Product) -> None:
        super().__init__(product, "")
        self._kernel = product.kernel
        self._rest = b""

    def open(self) -> None:
        """Connect."""
        product, path = self.subject, f"/api/kernels/{self._kernel.id}/channels"
        request = (
            f"GET {path}?session_id={uuid.uuid4().hex} HTTP/1.1\r\nHost: 127.0.0.1:{product.port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Protocol: v1.kernel.websocket.jupyter.org\r\n{product.headers}\r\n"
        )
        sock = socket.create_connection(("127.0.0.1", product.port), 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(request.encode())
        while b"\r\n\r\n" not in self._rest:
            self._rest += sock.recv(1 << 16)
        self._rest = self._rest.partition(b"\r\n\r\n")[2]
        self.sockets.append(sock)

    def frame(self, comm_id: str) -> bytes:
        """A custom message to the widget."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "comm_msg", "username": "",
                  "session": "bench", "version": "5.3", "date": "2026-01-01T00:00:00Z"}  # fmt: skip
        data = {"method": "custom", "content": {"text": "x" * 100}}
        parts = [header, {}, {}, {"comm_id": comm_id, "data": data}]
        packed = [json.dumps(part).encode() for part in parts]
        return masked(serialize_msg_to_ws_v1(packed, "shell"), 2)  # type: ignore[arg-type]

    def echo(self, frame: bytes, *, quick: bool) -> None:
        """Send it and wait for the widget's answer."""
        sock = self.sockets[0]
        sock.sendall(frame)
        while True:
            if quick:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self._rest += sock.recv(1 << 16)
            frames, self._rest = read_frames(self._rest)
            if any(b'"comm_msg"' in one and b"xxxx" in one for one in frames):
                return


def round_trips(subject: Subject, seconds: float, *, quick: bool = False) -> dict[str, float]:
    """A message to the widget and its answer, one after the other."""
    assert isinstance(subject, Product)
    channel = Channel(subject)
    channel.open()
    comm_id = subject.kernel.run(WIDGET).text.strip()

    def step(times: list[float]) -> int:
        frame = channel.frame(comm_id)  # a new one: kernels take no signature twice
        start = time.perf_counter()
        channel.echo(frame, quick=quick)
        times.append(time.perf_counter() - start)
        return 1

    try:
        channel.measure(step, 0.3)
        return channel.measure(step, seconds).metrics()
    finally:
        channel.close()


def quick_round_trips(subject: Subject, seconds: float) -> dict[str, float]:
    """The same by a client that acknowledges at once, as no browser does."""
    return round_trips(subject, seconds, quick=True)


def cell_sends(subject: Subject, seconds: float, count: int = 5000) -> dict[str, float]:
    """A cell sends to the widget in a loop while 10 front ends listen."""
    assert isinstance(subject, Product)
    subject.kernel.run(WIDGET)
    channels = [Channel(subject) for _ in range(10)]
    for channel in channels:
        channel.open()
    found: list[tuple[int, float]] = []
    cell = subject.kernel.begin(LOOP.format(count=count))
    before, start = subject.cpu_s(), time.perf_counter()
    threads = [threading.Thread(target=_count, args=(one, found)) for one in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent_s = float(subject.kernel.wait(cell).text.split()[-1])
    arrived = sum(one for one, _ in found)
    wall = max(last for _, last in found) - start
    spent = sum(subject.cpu_s().values()) - sum(before.values())
    for channel in channels:
        channel.close()
    return {
        "per s": count / sent_s,
        "deliveries per s": arrived / wall,
        "lost": 1 - arrived / (10 * count),
        "cpu us": spent / count * 1e6,
    }


def _count(channel: Channel, found: list[tuple[int, float]]) -> None:
    sock, rest, count, last = channel.sockets[0], b"", 0, time.perf_counter()
    sock.settimeout(QUIET_S)
    try:
        while True:
            frames, rest = read_frames(rest + sock.recv(1 << 18))
            arrived = sum(b'"comm_msg"' in one and b"xxxx" in one for one in frames)
            if arrived:
                count, last = count + arrived, time.perf_counter()
    except TimeoutError:
        found.append((count, last))
