"""The kernel's end of the link, against the server's own end over a real socket."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import os
import socket
import sys
import types
import weakref
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest

from jupyter_agents import Agent
from jupyter_agents.errors import LinkVersionMismatch
from jupyter_agents.host import uplink as module
from jupyter_agents.host.host import AgentHost, Hosted, HostLimits
from jupyter_agents.host.storage import MemoryStorage
from jupyter_agents.host.uplink import KernelUplink, kernel_key, link_candidates
from jupyter_agents.link.frames import FrameReader, Kind, pack_object
from jupyter_agents.protocol.http import Request
from jupyter_agents.server.door import Door
from jupyter_agents.server.downlink import Downlink
from jupyter_agents.server.limits import Limits
from tests.link.fakes import head
from tests.server.fake_host import KERNEL, KEY, FakeKernels

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")

LIMIT_S = 5.0


class Room(Agent):
    initial_state = {"n": 0}

    def on_message(self, connection, message):
        if message == "many":
            for n in range(100):
                connection.send(str(n))
        elif message == "set":
            self.set_state({"n": self.state["n"] + 1})
        else:
            self.broadcast(message)


class Peer:
    """A client's socket at the relay: what it was sent."""

    def __init__(self):
        self.sent = []
        self.closed = None
        self.is_paused = False
        self.outlet = self

    def send(self, message):
        # one message, or several that one read of the link brought
        self.sent += getattr(message, "payloads", None) or [message.payload]

    send_now = send

    def close(self, code, reason):
        self.closed = code, reason

    def pause(self):
        self.is_paused = True

    def resume(self):
        self.is_paused = False


class Server:
    """A downlink, and clients of it without sockets."""

    def __init__(self, link, door):
        self.link = link
        self.door = door

    @property
    def relay(self):
        return self.door.relay

    def open(self, name="lobby", extended=False):
        request = Request(url=f"http://t/agents/room/{name}", agent="room", name=name)
        info = {"uri": request.url, "request": request.to_dict(), "extended": extended}
        peer = Peer()
        record = self.relay.open(self.relay.find("room"), name, f"c{id(peer)}", peer, info, 0.0)
        return record, peer

    def break_link(self):
        """As a socket does that is cut."""
        self.link.links[KERNEL].abort()


@asynccontextmanager
async def server(folder, server_id="s1", kernels=None):
    """A Jupyter Server's end of the links."""
    limits = Limits()
    door = Door(limits)
    door.relay._wrap = lambda *message: message
    link = Downlink(
        door,
        limits,
        kernels or FakeKernels(),
        folder,
        lambda: {"server_id": server_id, "url": "http://t/"},
        "0.1.0",
    )
    await link.start()
    try:
        yield Server(link, door)
    finally:
        await link.stop()


@asynccontextmanager
async def kernel(*addresses, key=KEY):
    """A host and its uplink; `addresses` may be a list that changes."""
    host = AgentHost(asyncio.get_running_loop(), limits=HostLimits(settle_s=0.01))
    uplink = KernelUplink(host, key, {"pid": 1}, lambda: [str(a) for a in addresses[0]])
    host.uplink_under_test = uplink
    try:
        yield host, uplink
    finally:
        uplink.stop()
        await host.stop()
        await quiet(lambda: uplink._retrying is None or uplink._retrying.done())


@asynccontextmanager
async def linked(folder, cls=Room):
    """A server and a kernel that serves a class."""
    async with server(folder) as there, kernel([there.link.address]) as (host, uplink):
        assert await uplink.connect()
        await host.serve(served(cls))
        yield there, host, uplink


def served(cls=Room, storage=None):
    """A class as `serve` takes it."""
    return Hosted(cls, "room", ("room", cls.__name__), storage or MemoryStorage())


async def quiet(condition):
    """Let the loop turn until it is so."""
    deadline = asyncio.get_running_loop().time() + LIMIT_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "not in time"
        await asyncio.sleep(0.001)


@pytest.fixture
def folder(tmp_path_factory):
    """A runtime directory whose path is short enough for a socket."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def hasty(monkeypatch):
    """A lost link is tried again at once."""
    monkeypatch.setattr(module, "RETRY_S", 0.005)
    monkeypatch.setattr(module, "RETRY_LONGEST_S", 0.02)


# -- getting in --------------------------------------------------------------------------------


async def test_kernel_is_linked_and_serves(folder):
    """Frames go both ways once both sides have proved that they know the kernel's key."""
    async with linked(folder) as (there, host, _):
        assert host.server["server_id"] == "s1"
        assert host.server["kernel_id"] == KERNEL
        record, peer = there.open()
        await quiet(lambda: len(peer.sent) == 2)
        there.relay.take(record, Kind.TEXT, b"hello")
        await quiet(lambda: peer.sent[-1] == b"hello")


async def test_next_candidate_is_tried(folder, tmp_path_factory):
    """Nobody there, a dead socket, a server that does not know us, nonsense: on to the next."""
    strangers = tmp_path_factory.mktemp("q")
    dead, candidates = folder / "jpagents-1-dead.sock", []
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(dead))
    async with (
        server(folder) as there,
        server(strangers, "other", FakeKernels(other=b"another key")) as other,
        kernel(candidates) as (host, uplink),
    ):
        here = [folder / "nobody", dead, "tcp://127.0.0.1:none"]
        candidates += [*here, other.link.address, there.link.address]
        assert await uplink.connect()
        assert host.server["server_id"] == "s1"
        assert not other.link.links


async def test_unknown_kernel_is_told_so(folder):
    """Where no server knows the kernel, `connect` says no, and leaves nothing behind."""
    async with server(folder) as there, kernel([there.link.address], key=b"no") as (host, uplink):
        assert not await uplink.connect()
        assert host.uplink is None
        await quiet(lambda: not there.link._strangers)


async def speaks(folder, words):
    """A server that says these words of its own to every hello."""
    path = folder / "odd.sock"

    async def talk(reader, writer):
        await reader.read(1)
        for word in words:
            writer.write(word)
        await reader.read()
        writer.close()

    return path, await asyncio.start_unix_server(talk, path)


def hello(word):
    payload = pack_object(word)
    return head(Kind.HELLO, 0, len(payload)) + payload


async def test_version_mismatch_names_both(folder, tmp_path_factory):
    """A server of another version is named with both versions; one of ours is taken first."""
    path, odd = await speaks(folder, [hello({"error": "no", "version": "99"})])
    async with odd, server(tmp_path_factory.mktemp("q")) as there:
        async with kernel([path]) as (_, uplink):
            with pytest.raises(LinkVersionMismatch, match=r"link 1, the other side has 99"):
                await uplink.connect()
        async with kernel([path, there.link.address]) as (_, uplink):
            assert await uplink.connect()


@pytest.mark.parametrize(
    "words",
    [
        [],
        [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        [head(Kind.TEXT, 0, 0)],
        [hello({"version": "1", "nonce": "n" * 64, "proof": "0" * 64, "kernel_id": "k"})],
        [hello({"version": "1", "welcome": {}})],
    ],
    ids=["silent", "http", "no hello", "wrong proof", "welcome without proof"],
)
async def test_what_is_no_server_of_ours_is_left(folder, monkeypatch, words):
    """Silence, another protocol, a false proof: no link, and the socket is hung up."""
    monkeypatch.setattr(module, "HANDSHAKE_S", 0.1)
    path, odd = await speaks(folder, words)
    async with odd, kernel([path]) as (host, uplink):
        assert not await uplink.connect()
        assert host.uplink is None


async def test_link_lost_on_the_way_in_is_no_link(folder, monkeypatch):
    """A link that is gone when the welcome is read is not taken for one."""
    async with server(folder) as there, kernel([there.link.address]) as (host, uplink):
        shaken = module._LinkEnd._shake_hands

        def shake(end, frames):
            shaken(end, frames)
            if end.ready.done():
                end._transport.abort()

        monkeypatch.setattr(module._LinkEnd, "_shake_hands", shake)
        assert not await uplink.connect()
        assert host.uplink is None


# -- a link that breaks ------------------------------------------------------------------------


async def test_lost_link_comes_back_with_everything(folder, hasty):
    """After a break the class is served again; the clients stay, and learn what they missed."""
    async with linked(folder) as (there, host, _):
        record, peer = there.open()
        _, ours = there.open(extended=True)
        await quiet(lambda: len(peer.sent) == 2 and len(ours.sent) == 2)
        there.break_link()
        await quiet(lambda: host.uplink is None)
        agent = next(iter(host.classes["room"].instances.values())).agent
        agent.set_state({"n": 7})
        host.end_turn()
        there.relay.take(record, Kind.TEXT, b"sent meanwhile")
        await quiet(lambda: host.uplink is not None)
        await quiet(lambda: b"sent meanwhile" in peer.sent)
        await quiet(lambda: all(b'{"n":7}' in each.sent[-1] for each in (peer, ours)))
        assert peer.closed is None
        assert len(agent.get_connections()) == 2


async def test_server_that_is_replaced_is_found(folder, hasty, tmp_path_factory):
    """The next server, found by another look at the candidates, is served; the old clients end."""
    addresses = []
    async with kernel(addresses) as (host, uplink):
        async with server(folder) as there:
            addresses.append(there.link.address)
            assert await uplink.connect()
            await host.serve(served())
            there.open()
            await quiet(lambda: host.connections)
        async with server(tmp_path_factory.mktemp("q"), "s2") as another:
            addresses[:] = [another.link.address]
            await quiet(lambda: another.relay.served)
            await quiet(lambda: host.server["server_id"] == "s2")
            assert not host.connections


async def test_retry_survives_what_fails(folder, hasty, caplog):
    """A candidate of another version, or none, is tried again; each error is logged once."""
    addresses = []
    async with kernel(addresses) as (host, uplink):
        async with server(folder) as there:
            addresses.append(there.link.address)
            assert await uplink.connect()
        path, odd = await speaks(folder, [hello({"error": "no", "version": "99"})])
        async with odd:
            addresses[:] = [path]
            await quiet(lambda: "link 99" in caplog.text or "has 99" in caplog.text)
            await asyncio.sleep(0.05)
            assert caplog.text.count("cannot be linked") == 1
        async with server(folder) as there:
            addresses[:] = [there.link.address]
            await quiet(lambda: host.uplink is not None)


async def test_stopped_uplink_stays_away(folder, hasty):
    """After `stop` nothing is tried any more."""
    async with linked(folder) as (there, host, uplink):
        uplink.stop()
        await quiet(lambda: not there.link.links)
        await asyncio.sleep(0.05)
        assert host.uplink is None
        assert not there.link.links


async def test_frame_that_breaks_the_rules_ends_the_link_only(folder, hasty, caplog):
    """A frame that is too long closes the link, which comes back."""
    async with linked(folder) as (there, host, _):
        end = host.uplink
        there.link.links[KERNEL]._transport.write(b"\xff" * 9)
        await quiet(lambda: host.uplink not in (end, None))
        assert "broke a rule" in caplog.text


# -- how frames leave --------------------------------------------------------------------------


async def test_frames_of_one_turn_leave_in_one_write(folder):
    """A hundred messages of one hook are one write."""
    async with linked(folder) as (there, host, _):
        record, peer = there.open()
        await quiet(lambda: len(peer.sent) == 2)
        transport, writes = host.uplink._transport, []
        host.uplink._transport = types.SimpleNamespace(
            write=lambda data: (writes.append(len(data)), transport.write(data)),
            is_closing=transport.is_closing,
            close=transport.close,
        )
        there.relay.take(record, Kind.TEXT, b"many")
        await quiet(lambda: len(peer.sent) == 102)
        assert len(writes) == 1
        assert peer.sent[2:] == [str(n).encode() for n in range(100)]
        host.uplink._transport = transport


async def test_full_link_makes_writers_wait(folder, monkeypatch):
    """While the server does not read, frames wait here, in order, and so does `drained`."""
    monkeypatch.setattr(module, "WRITE_HIGH_BYTES", 64 * 1024)
    async with linked(folder) as (there, host, _):
        _, peer = there.open()
        await quiet(lambda: len(peer.sent) == 2)
        agent = next(iter(host.classes["room"].instances.values())).agent
        transport = there.link.links[KERNEL]._transport
        transport.pause_reading()
        sent = 0
        while not host.uplink.is_full:
            agent.broadcast(f"{sent:6}" + "x" * 10_000)
            sent += 1
            host.end_turn()
        posted = asyncio.create_task(asyncio.to_thread(agent.broadcast, "from a cell"))
        await posted
        agent.broadcast("kept")
        host.end_turn()
        drained = asyncio.ensure_future(host.drained())
        await asyncio.sleep(0.01)
        assert not drained.done()
        assert len(peer.sent) < 2 + sent
        transport.resume_reading()
        await asyncio.wait_for(drained, LIMIT_S)
        await quiet(lambda: len(peer.sent) == 2 + sent + 2)
        assert [int(message[:6]) for message in peer.sent[2:-2]] == list(range(sent))
        assert set(peer.sent[-2:]) == {b"kept", b"from a cell"}


async def test_link_lost_while_full_lets_writers_go_on(folder, hasty, monkeypatch):
    """Whoever waited for a link that is gone waits no more."""
    monkeypatch.setattr(module, "WRITE_HIGH_BYTES", 64 * 1024)
    monkeypatch.setattr(module, "RETRY_S", 60.0)
    async with linked(folder) as (there, host, _):
        there.open()
        await quiet(lambda: host.connections)
        agent = next(iter(host.classes["room"].instances.values())).agent
        there.link.links[KERNEL]._transport.pause_reading()
        while not host.uplink.is_full:
            agent.broadcast("x" * 10_000)
            host.end_turn()
        asked = await asyncio.to_thread(host.submit, lambda: agent.state)
        drained = asyncio.ensure_future(host.drained())
        await asyncio.sleep(0.01)
        assert not asked.done()
        there.break_link()
        assert await asyncio.wait_for(asyncio.wrap_future(asked), LIMIT_S) == {"n": 0}
        await asyncio.wait_for(drained, LIMIT_S)


async def test_link_does_not_keep_the_cells_context(folder, monkeypatch):
    """The transport lives in an empty context, so nothing of the cell that made it stays."""

    class Thing:
        pass

    var = ContextVar("var")

    async def connect(uplink):
        var.set(Thing())
        found = weakref.ref(var.get())
        assert await uplink.connect()
        return found

    monkeypatch.setattr(module, "HANDSHAKE_S", 0.2)  # its timer holds the context until then
    async with server(folder) as there, kernel([there.link.address]) as (_, uplink):
        found = await asyncio.create_task(connect(uplink))
        await quiet(lambda: gc.collect() >= 0 and found() is None)


# -- where to look -----------------------------------------------------------------------------


def test_candidates_environment_first_then_newest(tmp_path, monkeypatch):
    """The address that the kernel inherited, then the sockets that lie there, newest first."""
    monkeypatch.setattr(module, "jupyter_runtime_dir", lambda: str(tmp_path))
    monkeypatch.delenv(module.LINK_ENV, raising=False)
    assert link_candidates() == []
    for age, name in enumerate(["new", "mid", "old"]):
        path = tmp_path / f"jpagents-{name}.sock"
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "kernel-1.json").touch()
    paths = [str(tmp_path / f"jpagents-{name}.sock") for name in ("new", "mid", "old")]
    assert link_candidates() == paths
    monkeypatch.setenv(module.LINK_ENV, paths[1])
    assert link_candidates() == [paths[1], paths[0], paths[2]]
    monkeypatch.setattr(module, "jupyter_runtime_dir", lambda: str(tmp_path / "none"))
    assert link_candidates() == [paths[1]]


def test_candidate_that_has_just_gone_hides_no_other(tmp_path, monkeypatch):
    """A socket whose server removed it meanwhile is left out alone."""
    monkeypatch.setattr(module, "jupyter_runtime_dir", lambda: str(tmp_path))
    monkeypatch.delenv(module.LINK_ENV, raising=False)
    there = tmp_path / "jpagents-there.sock"
    there.touch()
    (tmp_path / "jpagents-gone.sock").symlink_to(tmp_path / "nothing")
    assert link_candidates() == [str(there)]


def test_key_is_the_kernels(monkeypatch):
    """In a kernel the key of its connection file; elsewhere, or without a key, None."""
    app = types.SimpleNamespace(session=types.SimpleNamespace(key=b"k"))
    kernelapp = types.SimpleNamespace(
        IPKernelApp=types.SimpleNamespace(initialized=lambda: True, instance=lambda: app)
    )
    monkeypatch.delitem(sys.modules, "ipykernel.kernelapp", raising=False)
    assert kernel_key() is None
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernelapp)
    assert kernel_key() == b"k"
    app.session.key = b""
    assert kernel_key() is None


async def test_package_run_from_its_sources_links_too(folder, monkeypatch):
    """Where the package is not installed its version is unknown, which is no obstacle."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "version", missing)
    async with server(folder) as there, kernel([there.link.address]) as (_, uplink):
        assert await uplink.connect()


def test_frames_are_read_by_the_links_own_reader():
    """What the tests above write is what the link speaks."""
    frames = FrameReader(1000).feed(hello({"a": 1}))
    assert [kind for kind, _, _ in frames] == [Kind.HELLO]
