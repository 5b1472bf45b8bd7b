"""What is measured, on whom, and where the processes run meanwhile.

`pinned`: servers and load share one CPU, so that no wake-up crosses CPUs and the ratios of CPU
time repeat. `free`: the scheduler decides, as in life; for times on the wall.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import comm
from benchmarks.load import Load, percentiles
from benchmarks.subjects import Product

if TYPE_CHECKING:
    import multiprocessing.connection
    import socket
    from collections.abc import Callable, Iterator

    from benchmarks.subjects import Subject

Metrics = dict[str, float]
SERVERS = (
    "product", "tornado", "websockets", "aiohttp", "starlette", "picows", "socketio", "workerd", "c"
)  # fmt: skip
TRY_AGAIN_LATER = (1013).to_bytes(2, "big")
SLOW_BYTES = 40 * 1024 * 1024


@dataclass(frozen=True)
class Scenario:
    """One measurement.

    Parameters
    ----------
    name, title : str
        As ``--what`` takes it, and as the tables say it.
    connections : int
        To each subject, all in one room.
    begin : callable
        Takes the load, after it has connected; returns what to repeat and measure.
    who : tuple of str
        The subjects that can do it.
    free : bool
        Where the processes run, unless the command line says otherwise.
    per : str
        What a count means.
    """

    name: str
    title: str
    connections: int
    begin: Callable[[Load], Callable[[list[float]], int]]
    who: tuple[str, ...] = SERVERS
    free: bool = False
    per: str = "message"

    @contextlib.contextmanager
    def ready(self, subject: Subject) -> Iterator[Callable[[float], Metrics]]:
        """Connect; gives what measures for so many seconds, any number of times."""
        load = Load(subject, self.name)
        try:
            load.grow(self.connections)
            step = self.begin(load)
            load.measure(step, 0.1)
            yield lambda seconds: load.measure(step, seconds).metrics()
        finally:
            load.close()
            time.sleep(0.1)


def _without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in SERVERS if name not in names)


def _settled_news(load: Load) -> Callable[[list[float]], int]:
    """Where a compressor remembers earlier messages, their length settles after some."""
    for _ in range(4):
        load.size_of("news")
    return load.fan_out("news")


# -- those that are not a step repeated -------------------------------------------------------


@dataclass(frozen=True)
class Special:
    """A measurement with a course of its own; a subject is started afresh if it wants that."""

    name: str
    title: str
    work: Callable[[Subject, float], Metrics]
    who: tuple[str, ...] = SERVERS
    free: bool = False
    fresh: bool = False
    per: str = "message"

    @contextlib.contextmanager
    def ready(self, subject: Subject) -> Iterator[Callable[[float], Metrics]]:
        """Give what measures; a fresh subject is started for each measurement."""
        yield lambda seconds: self._once(subject, seconds)

    def _once(self, subject: Subject, seconds: float) -> Metrics:
        if isinstance(subject, Product):
            subject.kernel._forget()  # Jupyter hangs up on a channel that answered no ping
        if not self.fresh:
            return self.work(subject, seconds)
        one = type(subject).__new__(type(subject))
        one.__dict__.update(subject.__dict__)
        one.start()
        try:
            return self.work(one, seconds)
        finally:
            one.stop()


def scale(subject: Subject, seconds: float, count: int = 5000) -> Metrics:
    """Open many connections and hold them: how fast, and how much memory each takes."""
    load = Load(subject, "scale")
    try:
        load.grow(100)
        before, cpu, start = subject.rss_kib(), subject.cpu_s(), time.perf_counter()
        load.grow(100 + count)
        wall = time.perf_counter() - start
        used = {role: spent - cpu[role] for role, spent in subject.cpu_s().items()}
        time.sleep(0.3)
        after = subject.rss_kib()
        return {
            "per s": count / wall,
            "cpu us": sum(used.values()) / count * 1e6,
            **{f"{role} us": spent / count * 1e6 for role, spent in used.items()},
            **{f"{role} KiB": (after[role] - before[role]) / count for role in after},
        }
    finally:
        load.close()


def big_state(subject: Subject, seconds: float) -> Metrics:
    """Change one field of a state of 1 MB for 100 clients: whole, dumped by hand, and as a patch."""
    spent: Metrics = {}
    for way, room, command in (
        ("cpu us", "big", "state"), ("dumps us", "big", "dumps"), ("patch us", "big?_ja=1", "state")
    ):  # fmt: skip
        load = Load(subject, room)
        try:
            load.grow(1)
            if way == "patch us":  # a version grows no longer while it is counted by its length
                load.settle("state", 1000)
            load.grow(100)
            step = load.fan_out(command)
            load.measure(step, 0.1)
            spent[way] = load.measure(step, seconds).metrics()["cpu us"]
        finally:
            load.close()
    return {
        **spent,
        "whole : dumps": spent["cpu us"] / spent["dumps us"],
        "patch : dumps": spent["patch us"] / spent["dumps us"],
    }


def slow_member(subject: Subject, seconds: float) -> Metrics:
    """Have 20 members hear 64 KiB broadcasts, without and then with one that never reads."""
    load = Load(subject, "slow")
    slow = Load(subject, "slow")
    try:
        load.grow(20)
        step = load.fan_out("large")
        count = SLOW_BYTES // 65536
        alone = _times(step, count)
        before = subject.rss_kib()
        slow.grow(1)
        most, peak = {**before}, threading.Event()
        watcher = threading.Thread(target=_watch, args=(subject, most, peak))
        watcher.start()
        beside = _times(step, count)
        peak.set()
        watcher.join()
        growth = sum(most[role] - before[role] for role in most) / 1024
        return {
            "p50 us": beside[len(beside) // 2] * 1e6,
            "p50 ratio": beside[len(beside) // 2] / alone[len(alone) // 2],
            "growth MiB": growth,
            "kept": float(not _ends(slow.sockets[0])),
        }
    finally:
        load.close()
        slow.close()


def _times(step: Callable[[list[float]], int], count: int) -> list[float]:
    times: list[float] = []
    for _ in range(count):
        step(times)
    return sorted(times)


def _watch(subject: Subject, most: Metrics, done: threading.Event) -> None:
    while not done.wait(0.02):
        for role, kib in subject.rss_kib().items():
            most[role] = max(most[role], kib)


def _ends(sock: socket.socket) -> bool:
    """Whether the server has given this connection up, once all that it sent is read."""
    sock.settimeout(1)
    tail = b""
    try:
        while data := sock.recv(1 << 20):
            tail = (tail + data)[-127:]
    except TimeoutError:
        return TRY_AGAIN_LATER in tail  # told so, and given time to answer
    except OSError:
        pass
    return True


def beside_crowd(subject: Subject, seconds: float) -> Metrics:
    """Round trips of one connection while a room of 5000 broadcasts without a pause."""
    crowd, one = Load(subject, "crowd"), Load(subject, "one")
    try:
        crowd.grow(5000)
        one.grow(1)
        fan_out = crowd.fan_out()
        alone = crowd.measure(fan_out, seconds).metrics()
        # In a process of its own: beside the crowd's sockets it would wait for this one's Python.
        ours, theirs = multiprocessing.Pipe()
        aside = multiprocessing.get_context("fork").Process(target=_aside, args=(one, theirs))
        aside.start()
        theirs.close()
        ours.recv()
        end, times = time.perf_counter() + seconds, []
        while time.perf_counter() < end:
            fan_out(times)
        ours.send("stop")
        found: list[float] = ours.recv()
        aside.join()
        return {
            **{f"{name} us": value * 1e6 for name, value in percentiles(found).items()},
            "alone us": alone["cpu us"],
        }
    finally:
        crowd.close()
        one.close()


def _aside(load: Load, other: multiprocessing.connection.Connection) -> None:
    """Measure round trips until told to stop; the first is not counted."""
    step = load.round_trips("echo")
    step([])
    times: list[float] = []
    other.send("ready")
    while not other.poll():
        step(times)
    other.send(times)


SPIN = "import time as _t\n_end = _t.monotonic() + {seconds}\nwhile _t.monotonic() < _end: pass"


def busy_cell(subject: Subject, seconds: float, before: str = "") -> Metrics:
    """Round trips while a cell spins in pure Python."""
    assert isinstance(subject, Product)
    load = Load(subject, "busy")
    kernel = subject.kernel
    try:
        load.grow(1)
        step = load.round_trips("echo")
        kernel.run(before or "pass")
        cell = kernel.begin(SPIN.format(seconds=seconds + 1))
        time.sleep(0.3)
        result = load.measure(step, seconds).metrics()
        kernel.wait(cell)
        return result
    finally:
        kernel.run("import sys; sys.setswitchinterval(0.005)")
        load.close()


def eager_busy_cell(subject: Subject, seconds: float) -> Metrics:
    """The same with a switch interval of 0.5 ms."""
    return busy_cell(subject, seconds, "import sys; sys.setswitchinterval(0.0005)")


IDLE = 10_000


def flat(subject: Subject, seconds: float, rooms: tuple[str, ...] = ("idle",) * IDLE) -> Metrics:
    """Round trips without and with 10 000 idle connections."""
    one, others = Load(subject, "flat"), Load(subject, "idle")
    try:
        one.grow(1)
        step = one.round_trips("echo")
        alone = one.measure(step, seconds).metrics()
        before = subject.rss_kib()
        others.visit(list(rooms))
        after = subject.rss_kib()
        among = one.measure(step, seconds).metrics()
        return {
            **among,
            "cpu ratio": among["cpu us"] / alone["cpu us"],
            **{f"{role} KiB": (after[role] - before[role]) / len(rooms) for role in after},
        }
    finally:
        one.close()
        others.close()


def among_agents(subject: Subject, seconds: float) -> Metrics:
    """The same with as many agents, a connection to each."""
    return flat(subject, seconds, tuple(f"agent-{number}" for number in range(IDLE)))


def cell_broadcasts(subject: Subject, seconds: float) -> Metrics:
    """A cell broadcasts in a loop to 10 clients: what it manages, and what arrives."""
    assert isinstance(subject, Product)
    load = Load(subject, "cell")
    count = 20_000
    try:
        load.grow(10)
        whole = load.size_of("all") * count
        cell = subject.kernel.begin(CELL.format(count=count))
        start = time.perf_counter()
        threads = [threading.Thread(target=_drain, args=(s, whole)) for s in load.sockets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - start
        sent_s = float(subject.kernel.wait(cell).text)
        return {"per s": count / sent_s, "deliveries per s": 10 * count / wall, "lost": 0.0}
    finally:
        load.close()


CELL = """
import time
_agent = bench["cell"]
_start = time.perf_counter()
for _ in range({count}):
    _agent.broadcast("x" * 100)
print(time.perf_counter() - _start)
"""


def _drain(sock: socket.socket, left: int) -> None:
    while left:
        left -= len(sock.recv(min(left, 1 << 18)))


CROWDS = (10, 100, 1000, 5000)
SCENARIOS: tuple[Scenario | Special, ...] = (
    Scenario("round-trip", "Round trip, 1 connection", 1, lambda a: a.round_trips("echo")),
    Scenario("round-trip-free", "Round trip, 1 connection", 1,
             lambda a: a.round_trips("echo"), free=True),
    Scenario("echo", "Echo, 16 connections × 16 in flight", 16, lambda a: a.windowed(16, 16)),
    Scenario("echo-1000", "Echo, 1000 connections × 1 in flight", 1000,
             lambda a: a.windowed(1000, 1)),
    Scenario("echo-64k", "Echo of 64 KiB, 4 connections × 4 in flight", 4,
             lambda a: (a.sized(65536), a.windowed(4, 4, "sized"))[1], _without("socketio")),
    Scenario("round-trip-1m", "Round trip of 1 MiB", 1, lambda a: a.sized(1 << 20),
             _without("socketio", "workerd", "c")),
    *(Scenario(f"fan-out-{crowd}", f"Broadcast to {crowd}", crowd, lambda a: a.fan_out(),
               per="delivery") for crowd in CROWDS),
    Scenario("fan-out-burst", "Broadcast to 100, 8 in flight", 100,
             lambda a: a.fan_out(outstanding=8), per="delivery"),
    Scenario("call", "Call and result", 1, lambda a: a.round_trips("call"),
             _without("socketio", "c")),
    Scenario("state", "State of 10 KB changed, told to 100", 100, lambda a: a.fan_out("state"),
             _without("c"), per="delivery"),
    Scenario("fan-out-10k", "Broadcast of 10 KB to 100, compressed or not", 100,
             _settled_news, ("product", "deflate", "tornado", "tornado-deflate"),
             per="delivery"),
    Special("state-1m", "State of 1 MB, one field changed, told to 100", big_state, ("product",),
            per="delivery"),
    Special("scale", "5000 connections opened and held", scale, (*SERVERS, "handler"),
            free=True, fresh=True, per="connection"),
    Special("slow", "64 KiB to 20, beside one that never reads", slow_member, fresh=True,
            per="broadcast"),
    Special("crowd", "Round trip while a room of 5000 broadcasts", beside_crowd,
            ("product", "workerd"), free=True),
    Special("busy", "Round trip while a cell spins", busy_cell, ("product",), free=True),
    Special("busy-eager", "Round trip while a cell spins, switch interval 0.5 ms",
            eager_busy_cell, ("product",), free=True),
    Special("cell", "A cell broadcasts to 10 in a loop", cell_broadcasts, ("product",),
            free=True, per="broadcast"),
    Special("comm", "ipywidgets message and answer", comm.round_trips, ("product",), free=True),
    Special("comm-quick", "ipywidgets message and answer, a client that acknowledges at once",
            comm.quick_round_trips, ("product",), free=True),
    Special("comm-cell", "A cell sends ipywidgets messages to 10 in a loop", comm.cell_sends,
            ("product",), free=True),
    Special("flat-idle", "Round trip among 10 000 idle connections", flat, ("product", "tornado")),
    Special("flat-agents", "Round trip among 10 000 agents", among_agents, ("product",)),
)  # fmt: skip
