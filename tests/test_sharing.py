"""Links from the author's side, through a real host, link and door in one process."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import pytest

from jupyter_agents import sharing
from jupyter_agents.client.client import connect
from jupyter_agents.errors import CallFailed, ConnectionClosed, ShareError
from jupyter_agents.host.agent import Agent
from jupyter_agents.host.callables import callable_method
from jupyter_agents.host.handle import handle_for
from jupyter_agents.host.host import AgentHost, Hosted
from jupyter_agents.host.namespace import AgentNamespace
from jupyter_agents.host.storage import MemoryStorage
from jupyter_agents.sharing import Share, seconds_of
from jupyter_agents.standalone import StandaloneServer

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Room(Agent):
    """Lets links in, and tells everybody who they are."""

    access = "link"
    initial_state = 0

    @callable_method
    def whoami(self):
        from jupyter_agents import get_current_agent

        connection = get_current_agent().connection
        return {**connection.user, "now_readonly": connection.readonly, "uri": connection.uri}

    @callable_method
    def add(self, n: int):
        self.set_state(self.state + n)

    @callable_method
    def hand_over_the_pen(self):
        for connection in self.get_connections():
            self.set_connection_readonly(connection, False)

    def on_request(self, request):
        return dict(request.user)


class Strict(Agent):
    """Takes no links."""


@pytest.fixture
def runtime_dir(tmp_path, monkeypatch):
    """A runtime directory of the test's own."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))


class World:
    """A server that stands alone, and the namespaces of what it serves."""

    async def start(self, *classes):
        self.host = AgentHost(asyncio.get_running_loop())
        self.server = StandaloneServer(self.host)
        self.server.listen()
        for cls in classes:
            name = cls.__name__.lower()
            await self.host.serve(Hosted(cls, name, (name, cls.__name__), MemoryStorage()))
        return self

    def ns(self, cls):
        return AgentNamespace(self.host, self.host.find(cls))

    async def share(self, cls=Room, name="lobby", **options):
        """As from a cell: on another thread."""
        return await asyncio.to_thread(self.ns(cls).share, name, **options)


def in_a_world(test):
    """Run a test with Room and Strict served."""

    async def run(runtime_dir):
        world = await World().start(Room, Strict)
        try:
            await test(world)
        finally:
            await world.server.stop()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def guest(share, name="lobby", **options):
    """A client that has the link and nothing else."""
    parts = urlsplit(share.url)
    query = {"share": parts.query.partition("=")[2]}
    host = f"{parts.scheme}://{parts.netloc}"
    return connect("room", name, host=host, token="", query=query, **options)


@in_a_world
async def test_a_guest_comes_in_by_the_link(world):
    """Without the token, as a guest; and the agent never sees the link."""
    share = await world.share(label="Ann")
    async with guest(share) as client:
        me = await client.call("whoami")
        assert me["kind"] == "share"
        assert me["share"] == share.id
        assert me["display_name"] == "Ann"
        assert "share=" not in me["uri"]
        assert "jas." not in str(me)
        await client.call("add", [3])
        assert client.state == 3


@in_a_world
async def test_a_read_only_link(world):
    """Its guest reads, hears and calls; it cannot change the state, and the agent knows."""
    share = await world.share(readonly=True)
    async with guest(share) as client:
        assert (await client.call("whoami"))["now_readonly"] is True
        with pytest.raises(CallFailed, match="readonly"):
            await client.call("add", [1])
        await world_state(world, 5)
        await client.call("whoami")  # what was told before has arrived
        assert client.state == 5


async def world_state(world, value):
    """The author changes the state in a cell."""
    handle = await asyncio.to_thread(handle_for, world.host, world.host.find(Room), "lobby")
    await asyncio.to_thread(handle.set_state, value)


@in_a_world
async def test_the_author_may_hand_over_the_pen(world):
    """What a read-only guest may do is the author's to say: later, explicitly."""
    share = await world.share(readonly=True)
    async with guest(share) as client:
        await client.call("hand_over_the_pen")
        await client.call("add", [2])
        assert client.state == 2


@in_a_world
async def test_revoking_sends_guests_away_for_good(world):
    """The guest's connection closes with a final code, and nobody comes by that link again."""
    share = await world.share()
    async with guest(share) as client:
        await client.call("whoami")
        await asyncio.to_thread(share.revoke)
        with pytest.raises(ConnectionClosed) as end:
            await client.recv(5)
        assert (end.value.code, end.value.reason) == (4001, "This link was revoked")
        assert end.value.final
    assert await asyncio.to_thread(world.ns(Room).shares) == []


@in_a_world
async def test_links_are_listed_with_who_is_there(world):
    """`shares` tells the links that are good, by instance, with their open connections."""
    share = await world.share(max_connections=2)
    await world.share(name="office")
    async with guest(share) as client:
        await client.call("whoami")
        [listed] = await asyncio.to_thread(world.ns(Room).shares, "lobby")
        assert (listed.id, listed.connections, listed.max_connections) == (share.id, 1, 2)
        assert listed.url is None
        assert len(await asyncio.to_thread(world.ns(Room).shares)) == 2


@in_a_world
async def test_a_handle_shares_its_instance(world):
    """`handle.share(…)` is `ns.share(name, …)`, where the agent has no `share` of its own."""
    handle = await asyncio.to_thread(handle_for, world.host, world.host.find(Room), "attic")
    share = await asyncio.to_thread(handle.share, "30m", readonly=True)
    assert (share.agent, share.name, share.readonly) == ("room", "attic", True)


class Sharer(Agent):
    """Has a method of that name."""

    access = "link"

    def share(self):
        return "mine"


async def test_an_agents_own_share_goes_first(runtime_dir):
    """A class's method is what a handle calls."""
    world = await World().start(Sharer)
    handle = await asyncio.to_thread(handle_for, world.host, world.host.find(Sharer), "x")
    assert await asyncio.to_thread(handle.share) == "mine"
    await world.server.stop()


@in_a_world
async def test_a_class_must_say_that_it_takes_links(world):
    """Without ``access = "link"`` the cell is told what to write."""
    with pytest.raises(ShareError, match='access = "link"'):
        await world.share(Strict)


@in_a_world
async def test_an_odd_wish_costs_nothing(world):
    """What no link can be is refused in words, and the agents go on."""
    for wish in ({"max_connections": "many"}, {"max_connections": 0}, {"name": ""}):
        with pytest.raises(ShareError):
            await world.share(**wish)
    assert await world.share()


@in_a_world
async def test_hooks_do_not_wait_for_the_server(world):
    """On the agents' thread sharing would wait for itself: it says what to do instead."""
    with pytest.raises(ShareError, match="to_thread"):
        world.ns(Room).share("lobby")


@in_a_world
async def test_without_a_server_there_are_no_links(world):
    """A link that is down, or a server that is too old, is said at once."""
    world.host.server.pop("sharing")
    with pytest.raises(ShareError, match="older"):
        await world.share()
    world.server.link.break_off(0.0)
    with pytest.raises(ShareError, match="away"):
        await world.share()
    world.server.link.connect({"sharing": True})


@in_a_world
async def test_a_stuck_agents_thread_is_said(world):
    """A cell hears a ShareError in the end, and nothing is shared behind its back."""
    ns, share = world.ns(Room), []

    def ask():
        with pytest.raises(ShareError, match="busy"):
            ns.share("lobby")
        share.append(True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "ASK_S", 0.01)
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()  # on the agents' thread: it is busy
    assert share
    assert await asyncio.to_thread(ns.shares) == []


@in_a_world
async def test_an_answer_for_nobody_is_dropped(world):
    """A late or made-up answer does no harm."""
    world.host.sharing.answered(99, b"{}")


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [
        ("2h", 7200),
        ("90 min", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        ("7d", 604_800),
        ("2 weeks", 1_209_600),
        ("45s", 45),
        (60, 60),
        (0.5, 0.5),
        (timedelta(hours=1), 3600),
        (NOW + timedelta(minutes=5), 300),
    ],
)
def test_a_length_of_time(expires, seconds):
    """People say it in words, numbers or dates."""
    assert seconds_of(expires, NOW) == seconds


@pytest.mark.parametrize(
    "expires",
    ["", "soon", "2", "h", "2h!", "-2h", None, True, [], "2x", float("inf"), float("nan")],
)
def test_what_is_no_length_of_time(expires):
    """Anything else is refused with examples."""
    with pytest.raises(ValueError, match="2h"):
        seconds_of(expires, NOW)


FACTS = {
    "id": "0123",
    "agent": "room",
    "name": "<b>",
    "expires": 2_000_000_000,
    "readonly": True,
    "max_connections": 3,
    "label": "A&B",
    "connections": 0,
    "secret": "jas.s",
}


def test_a_link_shows_itself():
    """In a notebook as link and QR code; as text without what opens the door."""
    share = Share(FACTS, "https://h.example/agents/room/x", None)
    html = share._repr_html_()
    assert 'href="https://h.example/agents/room/x?share=jas.s"' in html
    assert "<svg" in html
    assert "&lt;b&gt;" in html
    assert "A&amp;B" in html
    assert "this machine only" not in html
    assert "jas.s" not in repr(share)
    assert "read-only" in repr(share)
    assert share.ws_url == "wss://h.example/agents/room/x?share=jas.s"


@pytest.mark.parametrize("host", ["localhost:8888", "127.0.0.1:1", "[::1]:8888"])
def test_a_link_for_this_machine_says_so(host):
    """An address that nobody else can reach is told with what to set."""
    assert "custom_display_url" in Share(FACTS, f"http://{host}/x", None)._repr_html_()


def test_a_listed_link_has_no_code():
    """The server keeps no secrets, so only what `share` returned can be shown."""
    share = Share({**FACTS, "secret": None}, "http://h/x", None)
    assert share.url is share.ws_url is None
    assert "<svg" not in share._repr_html_()
    with pytest.raises(ValueError, match="listed"):
        share.qr()


def test_the_code_says_the_link():
    """The QR code has the very link: segno makes the same one of it."""
    import segno

    share = Share(FACTS, "https://h.example/agents/room/x", None)
    again = segno.make(share.url, error="l", micro=False)
    assert share.qr(3) == again.svg_inline(scale=3, border=4, dark="#000", light="#fff")
