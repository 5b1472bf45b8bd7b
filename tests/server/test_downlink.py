"""The server's end of the links: who gets in, what frames can do, what is left behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import socket
import stat
import weakref
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from jupyter_agents.errors import LinkRefused, LinkVersionMismatch
from jupyter_agents.link import handshake
from jupyter_agents.link.frames import Kind, pack_object
from jupyter_agents.server import downlink as module
from jupyter_agents.server.door import Door
from jupyter_agents.server.downlink import ENVIRONMENT, Downlink, HostLink, sweep
from jupyter_agents.server.limits import Limits
from tests.link.fakes import head
from tests.server.fake_host import KERNEL, KEY, LIMIT_S, NONCE, FakeHost, FakeKernels, linked

needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


@asynccontextmanager
async def downlink_of(folder, kernels=None, **limits):
    """A listening downlink; it is stopped behind."""
    given = Limits(**limits)
    link = Downlink(
        Door(given, "/user/x/"),
        given,
        kernels or FakeKernels(),
        folder,
        lambda: {"server_id": "s1", "base_url": "/user/x/"},
        "0.1.0",
    )
    await link.start()
    try:
        yield link
    finally:
        await link.stop()


@pytest.fixture
def folder(tmp_path_factory):
    """A runtime directory whose path is short enough for a socket."""
    return tmp_path_factory.mktemp("r")


# -- where kernels find it ---------------------------------------------------------------------


@needs_unix
async def test_socket_is_found_and_private(folder):
    """The socket lies in the runtime directory, is only ours, and stands in the environment."""
    async with downlink_of(folder) as link:
        [path] = folder.glob("jpagents-*.sock")
        assert link.address == str(path) == os.environ[ENVIRONMENT]
        assert path.name.startswith(f"jpagents-{os.getpid()}-")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    assert ENVIRONMENT not in os.environ


@needs_unix
async def test_too_long_a_path_moves(tmp_path):
    """Where the runtime directory's path is too long for a socket, a private folder takes it."""
    deep = tmp_path / ("d" * 100)
    async with downlink_of(deep) as link:
        folder = Path(link.address).parent
        assert not link.address.startswith(str(tmp_path))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        async with linked(link.address) as host:
            assert host.welcome["kernel_id"] == KERNEL
    assert not folder.exists()


async def test_loopback_where_there_are_no_unix_sockets(folder, monkeypatch):
    """Without Unix sockets the link listens on 127.0.0.1 and shakes hands in the same way."""
    monkeypatch.delattr(module.socket, "AF_UNIX", raising=False)
    async with downlink_of(folder) as link:
        assert link.address.startswith("tcp://127.0.0.1:")
        assert not list(folder.iterdir())
        async with linked(link.address) as host:
            assert await host.serve() == {"agent": "chat-room"}


@needs_unix
async def test_kernel_may_knock_before_the_loop_runs(folder):
    """A kernel that connects between bind and start waits, and is let in."""
    limits = Limits()
    link = Downlink(Door(limits), limits, FakeKernels(), folder, dict, "0.1.0")
    address = link.bind()
    host = await FakeHost.connect(address)
    proving = asyncio.ensure_future(host.prove())
    await link.start()
    assert (await proving)["kernel_id"] == KERNEL
    await host.close()
    await link.stop()


@needs_unix
async def test_another_servers_address_is_left_alone(folder, monkeypatch):
    """Stopping removes the environment's address only when it is ours."""
    async with downlink_of(folder):
        monkeypatch.setenv(ENVIRONMENT, "/somebody/else.sock")
    assert os.environ[ENVIRONMENT] == "/somebody/else.sock"


@needs_unix
@pytest.mark.parametrize("turns", range(5))
async def test_who_comes_while_it_stops_is_hung_up_on(folder, turns):
    """However far it has got, a connection that was taken is closed with the rest."""
    async with downlink_of(folder) as link:
        knocking = socket.socket(socket.AF_UNIX)
        knocking.settimeout(LIMIT_S)
        knocking.connect(link.address)
        for _ in range(turns):
            await asyncio.sleep(0)
    with knocking, suppress(ConnectionResetError):
        while await asyncio.to_thread(knocking.recv, 1024):
            pass
    gc.collect()  # what was left open warns


@needs_unix
async def test_sweep_removes_the_dead_only(folder):
    """Sockets of killed servers go; a living server's, and other files, stay."""
    dead = folder / "jpagents-1-dead.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(dead))
    other = folder / "kernel-1.json"
    other.write_text("{}")
    async with downlink_of(folder) as link:
        assert not dead.exists()
        sweep(folder)
        assert list(folder.glob("*.sock")) == [Path(link.address)]
        assert other.exists()


# -- the handshake -----------------------------------------------------------------------------


async def test_kernel_is_welcomed(folder):
    """A kernel that knows its key learns what it needs to know of the server."""
    async with downlink_of(folder) as link, linked(link.address) as host:
        assert Path(host.welcome.pop("marks")).name.endswith(".marks")
        assert host.welcome == {
            "server_id": "s1",
            "base_url": "/user/x/",
            "kernel_id": KERNEL,
            "notebook": "work/chat.ipynb",
        }
        assert list(link.links) == [KERNEL]


async def test_unknown_kernel_is_refused(folder, caplog):
    """A kernel that this server does not manage is told so and hung up on."""
    async with downlink_of(folder) as link:
        host = await FakeHost.connect(link.address)
        with pytest.raises(LinkRefused, match="does not manage that kernel"):
            await host.prove(b"another key")
        await host.hung_up()
        await host.close()
        assert not link.links
    assert "another key" not in caplog.text


async def test_wrong_proof_is_refused(folder):
    """Knowing the fingerprint is not enough: without the key there is no proof."""
    async with downlink_of(folder) as link:
        host = await FakeHost.connect(link.address)
        hello = handshake.KernelHandshake(KEY, NONCE, "0.1.0").hello()
        host.say(Kind.HELLO, hello)
        await host.expect(Kind.HELLO)
        host.say(Kind.HELLO, {"proof": "0" * 64})
        _, payload = await host.expect(Kind.HELLO)
        assert b"did not prove" in payload
        await host.hung_up()
        await host.close()
        assert not link.links


async def test_replayed_hello_fails(folder):
    """Every conversation has its own nonce, so a recorded proof is worth nothing."""
    async with downlink_of(folder) as link:
        recorded = []
        host = await FakeHost.connect(link.address)
        say = host.say
        host.say = lambda kind, word, number=0: (recorded.append(word), say(kind, word, number))
        await host.prove()
        await host.close()

        thief = await FakeHost.connect(link.address)
        thief.say(Kind.HELLO, recorded[0])
        await thief.expect(Kind.HELLO)
        thief.say(Kind.HELLO, recorded[1])
        _, payload = await thief.expect(Kind.HELLO)
        assert b"did not prove" in payload
        await thief.hung_up()
        await thief.close()


async def test_other_version_is_told(folder, monkeypatch):
    """A kernel of another version learns both versions, and what to do."""
    async with downlink_of(folder) as link:
        host = await FakeHost.connect(link.address)
        hello = {**handshake.KernelHandshake(KEY, NONCE, "9").hello(), "version": "999"}
        host.say(Kind.HELLO, hello)
        _, payload = await host.expect(Kind.HELLO)
        assert b"999" in payload
        assert b"install the same" in payload
        with pytest.raises(LinkVersionMismatch):
            handshake.KernelHandshake(KEY, NONCE, "9").receive({"version": "999"})
        await host.hung_up()
        await host.close()


@pytest.mark.parametrize(
    "bytes_sent",
    [
        head(Kind.SERVE, 0, 2) + b"{}",
        head(Kind.TEXT, 1, 2) + b"hi",
        head(Kind.HELLO, 0, 4) + b"null",
        head(Kind.HELLO, 0, 3) + b"\xff\xff\xff",
        head(Kind.HELLO, 0, 2) + b"{}",
        head(Kind.HELLO, 0, 1_000_000),
        b"\x00\x00\x00\x00" + b"x" * 10,
        b"GET / HTTP/1.1\r\n\r\n",
        pack_object({}) * 10,
    ],
)
async def test_strangers_are_hung_up_on(folder, bytes_sent):
    """Anything but a hello, or a hello longer than one can be, ends the link at once."""
    async with downlink_of(folder) as link:
        host = await FakeHost.connect(link.address)
        host.writer.write(bytes_sent)
        await host.hung_up()
        await host.close()
        assert not link.links
        assert not link._strangers


async def test_speaking_too_early_is_refused(folder):
    """Frames that come behind the proof, before the welcome, end the link."""
    async with downlink_of(folder) as link:
        host = await FakeHost.connect(link.address)
        proof = handshake.KernelHandshake(KEY, NONCE, "0.1.0")
        host.say(Kind.HELLO, proof.hello())
        _, payload = await host.expect(Kind.HELLO)
        answer = proof.receive(json.loads(payload))
        host.say(Kind.HELLO, answer)
        host.offer()
        _, payload = await host.expect(Kind.HELLO)
        assert b"before the handshake was over" in payload
        await host.hung_up()
        await host.close()
        assert not link.door.relay.served


async def test_silent_stranger_is_hung_up_on(folder):
    """Who connects and says nothing is gone when the time is up."""
    async with downlink_of(folder, handshake_timeout_s=0.1) as link:
        host = await FakeHost.connect(link.address)
        _, payload = await host.expect(Kind.HELLO)
        assert b"took too long" in payload
        await host.hung_up()
        await host.close()


async def test_welcomed_kernel_may_be_silent(folder, eventually, ms):
    """The handshake's time limit ends with the handshake."""
    async with downlink_of(folder, handshake_timeout_s=0.1) as link, linked(link.address) as host:
        await asyncio.sleep(200 * ms)
        assert await host.serve() == {"agent": "chat-room"}


async def test_number_of_strangers_is_limited(folder, eventually):
    """One stranger too many is hung up on; those before, and later ones, are served."""
    async with downlink_of(folder, max_handshakes=2) as link:
        silent = [await FakeHost.connect(link.address) for _ in range(2)]
        await eventually(lambda: len(link._strangers) == 2)
        late = await FakeHost.connect(link.address)
        await late.hung_up()
        assert (await silent[0].prove())["kernel_id"] == KERNEL
        async with linked(link.address):
            pass
        for host in (*silent, late):
            await host.close()


# -- frames ------------------------------------------------------------------------------------


async def test_frames_reach_the_relay_and_come_back(folder):
    """A class that is served over the link is found, and what the relay sends arrives in order."""
    async with downlink_of(folder) as link, linked(link.address) as host:
        await host.serve()
        served = link.door.relay.find("chat-room")
        assert served.where == "work/chat.ipynb"
        assert served.about == {"kernel_id": KERNEL, "notebook": "work/chat.ipynb"}
        port = served.host
        for number in range(1000):
            port.send(Kind.TEXT, number, b"x" * (number % 7))
        port.send(Kind.BINARY, 1, b"y" * 300_000)
        port.send(Kind.CLOSED, 2)
        for number in range(1000):
            assert await host.frame() == (Kind.TEXT, number, b"x" * (number % 7))
        assert await host.frame() == (Kind.BINARY, 1, b"y" * 300_000)
        assert await host.frame() == (Kind.CLOSED, 2, b"")


async def test_listener_is_held(folder, monkeypatch):
    """The listening server is held while it is needed: uvloop closes one that nobody holds."""
    held = []

    class Listener:
        sockets = ()

        def close(self):
            pass

    async def listen(link):
        listener = Listener()
        held.append(weakref.ref(listener))
        return listener

    monkeypatch.setattr(Downlink, "_listen", listen)
    async with downlink_of(folder) as link:
        gc.collect()
        assert held[0]() is not None
        link._socket.close()


async def test_frames_of_one_turn_leave_together(folder, monkeypatch):
    """What is sent in one turn of the loop is one write."""
    async with downlink_of(folder) as link, linked(link.address) as host:
        port = link.links[KERNEL]
        writes = []
        monkeypatch.setattr(port, "_transport", _Spy(port._transport, writes))
        for number in range(100):
            port.send(Kind.TEXT, number, b"hello")
        for number in range(100):
            assert (await host.frame())[1] == number
        assert len(writes) == 1


class _Spy:
    """A transport that counts what is written."""

    def __init__(self, transport, writes):
        self._transport, self._writes = transport, writes

    def write(self, data):
        self._writes.append(len(data))
        self._transport.write(data)

    def __getattr__(self, name):
        return getattr(self._transport, name)


@pytest.mark.parametrize(
    "frame",
    [
        (99, 0, b""),
        (Kind.SERVE, 0, b"[]"),
        (Kind.SERVE, 0, b"{}"),
        (Kind.TEXT_MANY, 100, b"short"),
        (Kind.HELLO, 0, b"{}"),
    ],
)
async def test_nonsense_closes_that_link_only(folder, frame, caplog):
    """A frame that makes no sense costs its kernel the link; the other kernel notices nothing."""
    kernels = FakeKernels(one=b"key one", two=b"key two")
    async with (
        downlink_of(folder, kernels) as link,
        linked(link.address, b"key one") as bad,
        linked(link.address, b"key two") as good,
    ):
        await bad.serve("Bad", "bad")
        await good.serve("Good", "good")
        bad.send(*frame)
        await bad.hung_up()
        assert list(link.links) == ["two"]
        assert link.door.relay.find("bad").host is None
        link.door.relay.find("good").host.send(Kind.TEXT, 7, b"still here")
        assert await good.expect(Kind.TEXT) == (7, b"still here")
    assert "key one" not in caplog.text


async def test_trouble_with_one_frame_is_logged(folder, monkeypatch, caplog):
    """An error of ours while a frame is handled is logged, and the link goes on."""
    async with downlink_of(folder) as link, linked(link.address) as host:
        relay, seen = link.door.relay, []
        real = relay.host_frame

        def fails_once(port, frame):
            seen.append(frame)
            if len(seen) == 1:
                raise RuntimeError("a bug of ours")
            real(port, frame)

        monkeypatch.setattr(relay, "host_frame", fails_once)
        host.offer("First", "first")
        assert await host.serve("Second", "second") == {"agent": "second"}
    assert "a bug of ours" in caplog.text


async def test_trouble_after_a_read_stops_no_writing(folder, monkeypatch):
    """An error of ours while broadcasts are sent costs that link, not the server's sockets."""

    class Written:
        def flush_now(self):
            written.set()

        def abort(self):
            pass

    def fail():
        raise RuntimeError("a bug of ours")

    async with downlink_of(folder) as link, linked(link.address):
        [port] = link.links.values()
        written = asyncio.Event()
        monkeypatch.setattr(link.door.relay.fan_out, "release", fail)
        with pytest.raises(RuntimeError, match="a bug"):
            port._take([(int(Kind.PROBE), 0, b"")] * 2)
        monkeypatch.undo()
        link.door.flusher.mark(Written())
        await asyncio.wait_for(written.wait(), LIMIT_S)


async def test_frame_longer_than_allowed(folder):
    """A frame past the limit ends the link before it is read."""
    small = {"max_link_frame_bytes": 2**21, "max_message_bytes": 9, "max_http_body_bytes": 9}
    async with downlink_of(folder, **small) as link, linked(link.address) as host:
        host.writer.write(head(Kind.TEXT, 1, 2**22 + 1))
        await host.hung_up()
        assert not link.links


async def test_slow_kernel_has_its_clients_wait(folder, eventually):
    """When a kernel does not read, the link fills and its sockets pause; then they go on."""
    water = {"link_high_bytes": 100_000, "link_low_bytes": 1000}
    async with downlink_of(folder, **water) as link, linked(link.address) as host:
        await host.serve()
        host._reader._limit = 1  # asyncio's reader stops reading past twice its limit
        port = link.links[KERNEL]
        socket_ = _FakeSocket()
        served = link.door.relay.find("chat-room")
        link.door.relay.open(served, "x", "id", socket_, {}, 0.0)
        await host.expect(Kind.OPEN)
        host._task.cancel()
        await eventually(lambda: host._task.done())
        sent = 0
        while not port.full:
            port.send(Kind.BINARY, 1, b"z" * 50_000)
            sent += 1
            await asyncio.sleep(0)
            assert sent < 1000
        assert socket_.calls == ["pause"]
        host._task = asyncio.create_task(host._read())
        await eventually(lambda: not port.full)
        assert socket_.calls == ["pause", "resume"]
        for _ in range(sent):
            await host.expect(Kind.BINARY)


class _FakeSocket:
    def __init__(self):
        self.calls = []
        self.outlet = self

    def pause(self):
        self.calls.append("pause")

    def resume(self):
        self.calls.append("resume")

    def close(self, code, reason):
        self.calls.append(("close", code))

    def send(self, message):
        self.calls.append(("send", message.payload))

    send_now = send


# -- coming and going --------------------------------------------------------------------------


async def test_second_link_of_a_kernel_replaces_the_first(folder):
    """A kernel that links again is served over the new link; the old one is cut."""
    async with downlink_of(folder) as link, linked(link.address) as old:
        await old.serve()
        async with linked(link.address) as new:
            await old.hung_up()
            assert link.door.relay.find("chat-room").host is None
            await new.serve()
            assert link.door.relay.find("chat-room").host is link.links[KERNEL]
            link.links[KERNEL].send(Kind.TEXT, 3, b"to the new one")
            assert await new.expect(Kind.TEXT) == (3, b"to the new one")


async def test_lost_link_parks(folder, eventually):
    """When a kernel's process is gone, what it served waits for it."""
    async with downlink_of(folder) as link:
        async with linked(link.address) as host:
            await host.serve()
        await eventually(lambda: not link.links)
        assert link.door.relay.find("chat-room").parked_at is not None


async def test_sending_to_a_lost_link_is_harmless(folder, eventually):
    """A frame for a link that is gone goes nowhere."""
    async with downlink_of(folder) as link:
        async with linked(link.address):
            port = link.links[KERNEL]
        await eventually(lambda: not link.links)
        port.send(Kind.TEXT, 1, b"x")
        assert port._out == []


async def test_kernel_that_is_gone_for_good(folder, eventually):
    """When Jupyter has no such kernel any more, what it left parked is dropped."""
    kernels = FakeKernels()
    async with downlink_of(folder, kernels) as link:
        async with linked(link.address) as host:
            await host.serve()
        await eventually(lambda: not link.links)
        await link.forget_gone()
        assert link.door.relay.find("chat-room").host is None
        kernels.keys.clear()
        await link.forget_gone()
        assert not link.door.relay.served


async def test_traffic_is_activity(folder):
    """Kernels whose agents are talked to, or have clients, are reported; silent ones are not."""
    kernels = FakeKernels()
    async with downlink_of(folder, kernels) as link, linked(link.address) as host:
        await host.serve()
        link.report_activity()
        kernels.touched.clear()
        link.report_activity()
        assert kernels.touched == []
        link.links[KERNEL].send(Kind.TEXT, 1, b"x")
        link.report_activity()
        assert kernels.touched == [(KERNEL, True)]
        relay = link.door.relay
        relay.open(relay.find("chat-room"), "x", "id", _FakeSocket(), {}, 0.0)
        link.report_activity()
        kernels.touched.clear()
        link.report_activity()
        assert kernels.touched == [(KERNEL, False)]


async def test_chores_are_no_traffic(folder):
    """A probe and its answer keep no idle kernel from being culled; the answer is measured."""
    kernels = FakeKernels()
    async with downlink_of(folder, kernels) as link, linked(link.address) as host:
        await host.serve()
        port = link.links[KERNEL]
        assert port.round_trip_s is None
        before = port.frames - port.chores.frames
        link.probe()
        link.tally(1.0)
        assert await host.expect(Kind.PROBE) == (0, b"")
        assert await host.expect(Kind.TALLY) == (0, b'{"every_s":1.0}')
        assert port.round_trip_s >= 0
        host.send(Kind.PROBE, 0)
        await host.serve("Counter", "counter")  # what follows the answer has arrived
        assert not port.chores.is_probing
        assert 0 < port.round_trip_s < LIMIT_S
        assert port.frames - port.chores.frames == before + 2  # SERVE and SERVED
        link.report_activity()
        kernels.touched.clear()
        link.probe()
        link.report_activity()
        assert kernels.touched == []


async def test_notebook_that_is_not_known(folder, caplog):
    """A kernel without a session, or trouble to find it, does not keep the kernel out."""
    kernels = FakeKernels()

    async def fails(kernel_id):
        raise RuntimeError("no database")

    kernels.about = fails
    async with downlink_of(folder, kernels) as link, linked(link.address) as host:
        assert host.welcome["kernel_id"] == KERNEL
        assert "notebook" not in host.welcome


async def test_links_run_in_an_empty_context(folder, monkeypatch):
    """Nothing of the starter's context is visible where frames are handled."""
    variable = contextvars.ContextVar("variable", default="empty")
    variable.set("of the starter")
    seen = []
    real = HostLink._take

    def look(self, frames):
        seen.append(variable.get())
        real(self, frames)

    monkeypatch.setattr(HostLink, "_take", look)
    async with downlink_of(folder) as link, linked(link.address) as host:
        await host.serve()
    assert set(seen) == {"empty"}


async def test_stop_hangs_up(folder):
    """A stopping server closes every link, and can be stopped before it started."""
    async with downlink_of(folder) as link, linked(link.address) as host:
        stranger = await FakeHost.connect(link.address)
        await host.serve()
        await link.stop()
        await host.hung_up()
        await stranger.hung_up()
        await stranger.close()
        assert not link.links
    limits = Limits()
    idle = Downlink(Door(limits), limits, FakeKernels(), folder, dict, "0.1.0")
    idle.bind()
    await idle.stop()
    assert not list(folder.glob("jpagents-*"))
