"""Events and metrics: what an administrator sees, and what not even they do."""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace

import pytest
from jupyter_events import EventLogger
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jupyter_agents.link.frames import Kind
from jupyter_agents.server.door import Door
from jupyter_agents.server.limits import Limits
from jupyter_agents.server.observe import (
    ACTIVITY_EVENTS,
    AGENT_EVENTS,
    CONNECTION_EVENTS,
    OTHERS,
    Events,
    Metrics,
)
from tests.server.fake_host import LIMIT_S, LocalHost
from tests.server.jupyter import *  # noqa: F403
from tests.server.jupyter import TOKEN

RIGHT = {"Authorization": f"token {TOKEN}"}
ROOM = "agents/chat-room/lobby"


# -- events ------------------------------------------------------------------------------------


class Heard(logging.Handler):
    """A handler of the event logger, as an administrator configures one."""

    def __init__(self):
        super().__init__()
        self.events = []

    def emit(self, record):
        capsule = json.loads(self.format(record))
        own = {k: v for k, v in capsule.items() if not k.startswith("__") and v is not None}
        self.events.append((capsule["__schema__"], own))

    def actions(self):
        return [event["action"] for _, event in self.events]


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def events(heard):
    logger = EventLogger()
    logger.register_handler(heard)
    return Events(logger)


async def test_a_visit_is_told(agents, visitor, jp_serverapp, heard, eventually):
    """From the class's serving to its end, each step is one event with our schema."""
    jp_serverapp.event_logger.register_handler(heard)
    async with visitor.host() as host:
        client = await visitor.ws(f"{ROOM}?_pk=me&token={TOKEN}")
        await host.expect_open()
    await eventually(lambda: not agents.downlink.links)
    async with visitor.host() as host:
        number, _ = await host.expect_open()
        await client.write_message("a secret")
        host.say(Kind.ATTACH, {"accepted": True}, number)
        client.close(4000, "another secret")
        await host.expect(Kind.TEXT)
        await host.expect_closed()
        host.say(Kind.WITHDRAW, {"agent": "chat-room"})
        await eventually(lambda: not agents.door.relay.served)
    who = {"agent": "chat-room", "name": "lobby", "id": "me"}
    serve = {"action": "serve", "agent": "chat-room", "class": "ChatRoom"}
    assert heard.events == [
        (AGENT_EVENTS, serve),
        (CONNECTION_EVENTS, {"action": "connect", **who}),
        (AGENT_EVENTS, {"action": "park", "agent": "chat-room", "connections": 1}),
        (AGENT_EVENTS, serve),
        (AGENT_EVENTS, {"action": "resume", "agent": "chat-room", "connections": 1}),
        (CONNECTION_EVENTS, {"action": "disconnect", **who, "code": 4000}),
        (AGENT_EVENTS, {"action": "withdraw", "agent": "chat-room", "code": 1001}),
    ]
    assert "secret" not in repr(heard.events)
    assert TOKEN not in repr(heard.events)


class TestCrowded:
    """A server that keeps next to nothing for an absent kernel."""

    @pytest.fixture
    def server_config(self):
        return {"AgentsApp": {"waiting_bytes": 1}}

    async def test_drop_is_told(self, agents, visitor, jp_serverapp, heard, eventually):
        """Who sends more than may wait is dropped: an event and a count, before its end."""
        jp_serverapp.event_logger.register_handler(heard)
        async with visitor.host() as host:
            client = await visitor.ws(ROOM, RIGHT)
            await host.expect_open()
        await eventually(lambda: not agents.downlink.links)
        await client.write_message("too much")
        assert await client.read_message() is None
        await eventually(lambda: heard.actions()[-1] == "disconnect")
        assert heard.actions() == ["serve", "connect", "park", "drop", "disconnect"]
        assert heard.events[-2][1]["why"] == "too much waits for the kernel"
        assert (await metrics(visitor))["connections_dropped_total"] == {"chat-room": 1}


def test_other_kinds_are_kept_back(events, heard):
    """An event of the relay that has no schema is nobody's."""
    events.emit("instance", {"agent": "chat-room", "name": "lobby", "state": "awake"})
    assert not heard.events


def test_facts_beyond_the_schema_are_kept_back(events, heard):
    """A fact that the relay learns to tell some day is not public by that."""
    facts = {"agent": "a", "name": "n", "id": "i", "code": 1000, "reason": "x", "uri": "y"}
    events.emit("close", facts)
    assert heard.events == [
        (
            CONNECTION_EVENTS,
            {"action": "disconnect", "agent": "a", "name": "n", "id": "i", "code": 1000},
        )
    ]


def test_strangers_failure_is_logged_only(events, heard, caplog):
    """A broken modifier, or an event that breaks its schema, does not reach the relay."""
    events.emit("park", {"agent": "a", "connections": "many"})
    assert not heard.events
    assert [record.message for record in caplog.records] == [
        "The event park could not be recorded"
    ]


async def test_activity_is_asked_for_while_somebody_listens(
    agents, visitor, jp_serverapp, heard, eventually
):
    """Kernels count for whoever listens, are told when that begins and ends, and are heard."""
    tally = {"agent": "chat-room", "action": "call", "count": 3, "name": "lobby"}
    async with visitor.host() as host:
        await agents._tick()
        assert host.is_quiet()
        jp_serverapp.event_logger.register_handler(heard)
        await agents._tick()
        assert await host.expect(Kind.TALLY) == (0, b'{"every_s":1.0}')
        host.say(Kind.TALLY, {"tallies": [{**tally, "method": "add", "args": ["secret"]}]})
        await eventually(lambda: len(heard.events) == 1)
        assert heard.events == [(ACTIVITY_EVENTS, {**tally, "method": "add"})]
        jp_serverapp.event_logger.remove_handler(heard)
        await agents._tick()
        assert await host.expect(Kind.TALLY) == (0, b'{"every_s":0.0}')


@pytest.mark.parametrize("modified", [True, False])
def test_listener_of_the_schema_is_heard(modified):
    """Not only handlers count: who listens to this schema, as Jupyter's event stream does, too."""
    logger = EventLogger()
    events = Events(logger)
    assert not events.is_activity_heard

    async def listen(logger, schema_id, data):
        pass

    logger.add_listener(modified=modified, schema_id=AGENT_EVENTS, listener=listen)
    assert not events.is_activity_heard
    logger.add_listener(modified=modified, schema_id=ACTIVITY_EVENTS, listener=listen)
    assert events.is_activity_heard


@pytest.mark.parametrize(
    "wrong", [{"action": "think"}, {"count": 0}, {"count": "many"}, {"name": None}]
)
def test_kernels_nonsense_is_no_event(events, heard, caplog, wrong):
    """What a kernel says is held against the schema; it is logged and nobody is told."""
    events.emit("tally", {"agent": "a", "action": "state", "name": "n", "count": 1, **wrong})
    assert not heard.events
    assert "could not be recorded" in caplog.text


# -- metrics -----------------------------------------------------------------------------------


def read(text):
    """Our metrics: name → label → value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("jupyter_agents_"):
                assert set(sample.labels) <= {"agent"}
                name = sample.name.removeprefix("jupyter_agents_")
                found.setdefault(name, {})[sample.labels.get("agent", "")] = sample.value
    return found


async def metrics(visitor):
    """What ``/metrics`` says of us."""
    answer = await visitor.http("metrics", headers=RIGHT)
    assert answer.code == 200
    return read(answer.body.decode())


async def test_metrics_follow_the_connections(agents, visitor, eventually):
    """Gauges show what is, counters what was: they stay when the sockets go."""
    async with visitor.host() as host:
        first = await visitor.ws(ROOM, RIGHT)
        number, _ = await host.expect_open()
        await visitor.ws(ROOM, RIGHT)
        await host.expect_open()
        await first.write_message("12345")
        await host.expect(Kind.TEXT)
        host.text(number, "123")
        assert await first.read_message() == "123"
        now = await metrics(visitor)
        assert now["connections"] == {"chat-room": 2}
        assert now["connections_opened_total"] == {"chat-room": 2}
        assert now["messages_received_total"] == now["messages_sent_total"] == {"chat-room": 1}
        assert now["received_bytes_total"]["chat-room"] >= 5
        assert now["sent_bytes_total"]["chat-room"] >= 3
        assert now["outbound_queue_bytes"] == now["parked_records"] == {"chat-room": 0}
        assert (now["links"], now["links_full"]) == ({"": 1}, {"": 0})
        first.close()
        await host.expect_closed()
        later = await metrics(visitor)
        assert later["connections"] == {"chat-room": 1}
        assert later["messages_received_total"] == {"chat-room": 1}
        assert (
            later["received_bytes_total"]["chat-room"] > now["received_bytes_total"]["chat-room"]
        )
    await eventually(lambda: not agents.downlink.links)
    away = await metrics(visitor)
    assert away["parked_records"] == {"chat-room": 1}
    assert away["links"] == {"": 0}


async def test_link_latency_is_measured(agents, visitor, eventually):
    """The time from a probe to its answer, by class; while it is awaited its age shows."""
    async with visitor.host() as host:
        assert (await metrics(visitor))["link_round_trip_seconds"] == {"chat-room": 0}
        agents.downlink.probe()
        await host.expect(Kind.PROBE)
        waiting = (await metrics(visitor))["link_round_trip_seconds"]["chat-room"]
        assert 0 < waiting < (await metrics(visitor))["link_round_trip_seconds"]["chat-room"]
        host.send(Kind.PROBE, 0)
        [link] = agents.downlink.links.values()
        await eventually(lambda: not link.chores.is_probing)
        measured = (await metrics(visitor))["link_round_trip_seconds"]
        assert waiting < measured["chat-room"] < LIMIT_S
        assert (await metrics(visitor))["link_round_trip_seconds"] == measured


async def test_waiting_requests_show(agents, visitor):
    """A kernel that does not answer shows by the age of its oldest question."""
    async with visitor.host() as host:
        asking = asyncio.ensure_future(visitor.http(ROOM, headers=RIGHT))
        asked, _, _ = await host.expect_request()
        before = agents.door.clock
        agents.door.clock = lambda: before() + 20
        now = await metrics(visitor)
        assert now["requests_pending"] == {"chat-room": 1}
        assert 20 <= now["oldest_request_seconds"]["chat-room"] < 20 + LIMIT_S
        host.respond(asked)
        await asking
        assert (await metrics(visitor))["requests_pending"] == {"chat-room": 0}


async def test_metrics_end_with_the_server(agents, visitor):
    """A server that has stopped shows nothing, and its name is free for the next."""
    assert "links" in await metrics(visitor)
    agents.metrics.stop()
    assert not await metrics(visitor)
    agents.metrics.start()
    assert "links" in await metrics(visitor)


@pytest.fixture
def registry():
    return CollectorRegistry()


class Sock:
    """A socket as far as metrics and a parking relay look at it."""

    def __init__(self, agent, **counts):
        none = dict.fromkeys(("messages_in", "messages_out", "bytes_in", "bytes_out"), 0)
        self.record = SimpleNamespace(agent=agent)
        self.outlet = SimpleNamespace(
            **{**none, "queued_bytes": 0, "round_trip_s": None, **counts}
        )

    def resume(self):
        pass


@pytest.fixture
def door():
    return Door(Limits(), clock=lambda: 1000.0)


@pytest.fixture
def counted(door, registry):
    downlink = SimpleNamespace(links={"a": SimpleNamespace(full=True)})
    counted = Metrics(door, downlink, registry)
    counted.start()
    return counted


def shown(registry):
    """What a scrape of this registry says."""
    return read(generate_latest(registry).decode())


async def test_queues_and_round_trips_of_sockets(door, counted, registry):
    """Queues add up; round trips are averaged over the sockets that know theirs."""
    door.sockets |= {
        Sock("a", queued_bytes=10, round_trip_s=0.25),
        Sock("a", queued_bytes=5, round_trip_s=0.75),
        Sock("a"),
        Sock("b"),
    }
    now = shown(registry)
    assert now["connections"] == {"a": 3, "b": 1}
    assert now["outbound_queue_bytes"] == {"a": 15, "b": 0}
    assert now["client_round_trip_seconds"] == {"a": 0.5, "b": 0}
    assert now["links_full"] == {"": 1}


async def test_labels_are_bounded(door, counted, registry):
    """However many classes kernels make up, a hundred have a label and the rest share one."""
    for number in range(150):
        counted.left(Sock(f"agent-{number}", messages_in=1))
        counted.count("open", {"agent": f"agent-{number}"})
    now = shown(registry)
    assert len(now["messages_received_total"]) == 101
    assert now["messages_received_total"][OTHERS] == 50
    assert now["connections_opened_total"][OTHERS] == 50
    assert now["messages_received_total"]["agent-0"] == 1


async def test_what_is_served_past_the_bound_is_shared(door, counted, registry):
    """A parked class without a label of its own is counted with the others."""
    for number in range(100):
        counted.count("open", {"agent": f"agent-{number}"})
    host = LocalHost(door.relay)
    await host.serve()
    served = door.relay.find("chat-room")
    door.relay.open(served, "lobby", "me", Sock("chat-room"), {}, 0.0)
    door.relay.host_left(host.port, 0.0)
    assert shown(registry)["parked_records"][OTHERS] == 1


def test_second_server_of_a_process_yields(counted, registry, door, caplog):
    """Two servers do not both show under one name; the second says so and its end is quiet."""
    second = Metrics(door, SimpleNamespace(links={}), registry)
    second.start()
    assert "another server" in caplog.text
    second.stop()
    assert shown(registry)["links"] == {"": 1}
