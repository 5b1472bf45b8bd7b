"""State is saved, then told; whoever may write is asked.

Every replica ends equal to the agent's.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from traitlets import Enum, Float, Int, validate

from jupyter_agents import Agent, CallFailed, StateRejected, callable_method
from jupyter_agents.host.host import HostLimits
from jupyter_agents.instance.sync import MAX_WRITES
from jupyter_agents.link.frames import Kind
from jupyter_agents.testing import AgentHarness


class Counter(Agent):
    initial_state = {"count": 0}
    readonly_query = "view"

    def should_connection_be_readonly(self, connection, ctx):
        return ctx.query.get("mode") == "view"

    def should_send_protocol_messages(self, connection, ctx):
        return ctx.query.get("protocol") != "false"

    def validate_state_change(self, next_state, source):
        if next_state["count"] < 0:
            raise StateRejected("count must be >= 0")

    def on_state_changed(self, state, source):
        self.heard = [*getattr(self, "heard", []), (state, source if source == "server" else "c")]

    @callable_method
    def bump(self):
        self.set_state({"count": self.state["count"] + 1})
        return self.state["count"]

    @callable_method
    def read(self):
        return self.state

    @callable_method
    def lower(self):
        self.set_state({"count": -1})

    @callable_method
    def make_readonly(self, connection_id: str, readonly: bool):
        self.set_connection_readonly(self.get_connection(connection_id), readonly)

    @callable_method
    def flags(self, connection_id: str):
        connection = self.get_connection(connection_id)
        return [
            self.is_connection_readonly(connection),
            self.is_connection_protocol_enabled(connection),
            connection.state,
        ]


def kinds(client):
    """The types of the protocol frames that a client saw."""
    return [json.loads(f)["type"] for f in client.frames if isinstance(f, str) and "{" in f]


async def test_new_instance_tells_its_initial_state_once():
    """T068, T072: identity, then exactly one state frame."""
    async with AgentHarness(Counter) as harness:
        client = await harness.connect(Counter, "x")
        assert kinds(client) == ["cf_agent_identity", "cf_agent_state"]
        assert harness.storage.load("counter", "x").state_json == b'{"count":0}'


async def test_changes_are_told_to_all_but_the_writer():
    """T063, T069, T070, T074: the others see a client's write, everyone sees the server's."""
    async with AgentHarness(Counter) as harness:
        a, b = await harness.connect(Counter, "x"), await harness.connect(Counter, "x")
        before = len(a.frames)
        await a.set_state({"count": 5})
        await b.until_state({"count": 5})
        assert a.state_errors == []
        assert kinds(a)[before:] in ([], ["cf_agent_state"])  # none, or the settled state
        assert await b.call("bump") == 6
        await a.until_state({"count": 6})
        assert harness.agent(Counter, "x").heard == [({"count": 5}, "c"), ({"count": 6}, "server")]


async def test_rejected_write_is_told_to_its_sender_only():
    """T071: the SDK's fixed text, and the state is unchanged."""
    async with AgentHarness(Counter) as harness:
        a, b = await harness.connect(Counter, "x"), await harness.connect(Counter, "x")
        await a.set_state({"count": -5})
        assert a.state_errors == ["State update rejected"]
        assert b.state_errors == []
        assert await b.call("read") == {"count": 0}


async def test_rejected_write_of_our_client_has_the_reason():
    """T204: our extension brings the author's reason, the state and its version."""
    async with AgentHarness(Counter) as harness:
        a = await harness.connect(Counter, "x", extended=True)
        await a.send_json({"type": "cf_agent_state", "state": {"count": -5}, "write": "w1"})
        await harness.idle()
        refusal = json.loads(a.frames[-1])
        assert refusal["error"] == "count must be >= 0"
        assert refusal["write"] == "w1"
        assert refusal["state"] == {"count": 0}


async def test_stale_write_with_a_base_is_refused():
    """T203: an offline write on an old version is refused with the newer state."""
    async with AgentHarness(Counter) as harness:
        a = await harness.connect(Counter, "x", extended=True)
        version = json.loads(a.frames[1])["version"]
        await a.call("bump")
        frame = {"type": "cf_agent_state", "state": {"count": 9}, "write": 1, "base": version}
        await a.send_json(frame)
        await harness.idle()
        refusal = json.loads(a.frames[-1])
        assert refusal["type"] == "cf_agent_state_error"
        assert refusal["state"] == {"count": 1}


async def test_rejection_in_a_call_is_the_errors_own_text():
    """T064: the server's own bad write raises where it is made."""
    async with AgentHarness(Counter) as harness:
        client = await harness.connect(Counter, "x")
        with pytest.raises(CallFailed, match="count must be >= 0"):
            await client.call("lower")
        assert await client.call("read") == {"count": 0}


async def test_readonly_connection():
    """T078–T082, T085: refused frames and calls that write, reading works, broadcasts arrive."""
    async with AgentHarness(Counter) as harness:
        viewer = await harness.connect(Counter, "x", query={"mode": "view"}, connection_id="V")
        writer = await harness.connect(Counter, "x")
        for _ in range(3):
            await viewer.set_state({"count": 9})
        assert viewer.state_errors == ["Connection is readonly"] * 3
        with pytest.raises(CallFailed, match=r"^Connection is readonly$"):
            await viewer.call("bump")
        assert await viewer.call("read") == {"count": 0}
        await writer.call("bump")
        await viewer.until_state({"count": 1})
        await writer.call("make_readonly", "V", False)
        assert await viewer.call("bump") == 2
        await writer.call("make_readonly", "V", True)
        with pytest.raises(CallFailed, match="readonly"):
            await viewer.call("bump")


async def test_readonly_survives_a_restart_and_is_invisible():
    """T083, T086, T087: the flag lives in the server's record, not in the connection's state."""
    async with AgentHarness(Counter) as harness:
        await harness.connect(Counter, "x", query={"mode": "view"}, connection_id="V")
        await harness.restart()
        other = await harness.connect(Counter, "x")
        assert await other.call("flags", "V") == [True, True, None]
        harness.agent(Counter, "x").get_connection("V").set_state({"own": 1})
        assert await other.call("flags", "V") == [True, True, {"own": 1}]


async def test_connection_without_protocol_frames():
    """T048, T075, T076, T088, T089: no identity, no state, but calls and broadcasts."""
    async with AgentHarness(Counter) as harness:
        query = {"protocol": "false", "mode": "view"}
        mute = await harness.connect(Counter, "x", query=query, connection_id="M")
        loud = await harness.connect(Counter, "x")
        await loud.call("bump")
        harness.agent(Counter, "x").broadcast("hello")
        assert await mute.receive() == "hello"
        assert mute.frames == ["hello"]
        assert await loud.call("flags", "M") == [True, False, None]
        assert await mute.call("read") == {"count": 1}


async def test_failing_on_state_changed_does_not_undo(caplog):
    """T066: the broadcast went out, `on_error` got the error."""
    errors = []

    class Touchy(Counter):
        def on_state_changed(self, state, source):
            raise RuntimeError("listener")

        def on_error(self, connection, error):
            errors.append(str(error))

    async with AgentHarness(Touchy) as harness:
        client = await harness.connect(Touchy, "x")
        errors.clear()
        assert await client.call("bump") == 1
        await client.until_state({"count": 1})
        assert errors == ["listener"]


async def test_state_is_saved_before_it_is_told():
    """Law 8: when a frame that shows a state leaves the host, its transaction is committed."""
    async with AgentHarness(Counter) as harness:
        client = await harness.connect(Counter, "x")
        order = []
        commit, forward = harness.storage.commit, harness.link.send_frames
        harness.storage.commit = lambda: (order.append("commit"), commit())
        harness.link.send_frames = lambda frames: (order.append("send"), forward(frames))
        await client.call("bump")
        assert order == ["commit", "send"]


async def test_many_changes_of_one_turn_are_one_frame():
    """WIRE 4: 100 changes in one uninterrupted stretch travel as one frame, the last value."""

    class Busy(Counter):
        @callable_method
        def race(self):
            for n in range(100):
                self.set_state({"count": n})

    async with AgentHarness(Busy) as harness:
        client = await harness.connect(Busy, "x")
        seen = len(client.frames)
        await client.call("race")
        assert kinds(client)[seen:] == ["cf_agent_state", "rpc"]
        assert client.state == {"count": 99}


async def test_state_never_overtakes_a_message():
    """WIRE 4: state, message, state: in the order of the code."""

    class Ordered(Counter):
        def on_message(self, connection, message):
            self.set_state({"count": 1})
            connection.send("between")
            self.set_state({"count": 2})
            self.broadcast("after")

    async with AgentHarness(Ordered) as harness:
        client = await harness.connect(Ordered, "x")
        seen = len(client.frames)
        await client.send("go")
        await client.until_state({"count": 2})
        assert await client.receive() == "between"
        assert await client.receive() == "after"
        texts = [json.loads(f).get("state") if "{" in f else f for f in client.frames[seen:]]
        assert texts == [{"count": 1}, "between", {"count": 2}, "after"]


async def test_sdk_clients_that_write_at_once_end_equal():
    """T202: two writers whose frames crossed both end with the agent's state."""
    async with AgentHarness(Counter) as harness:
        a, b = await harness.connect(Counter, "x"), await harness.connect(Counter, "x")
        a.state, b.state = {"count": 1}, {"count": 2}  # as the SDK does: at once, unasked
        await a.send_json({"type": "cf_agent_state", "state": {"count": 1}})
        await b.send_json({"type": "cf_agent_state", "state": {"count": 2}})
        await a.until_state({"count": 2})
        await b.until_state({"count": 2})


async def test_restart_tells_resumed_clients_what_holds():
    """A client that was resumed ends with the stored state, even if it missed the last frame."""
    async with AgentHarness(Counter) as harness:
        client = await harness.connect(Counter, "x")
        await client.call("bump")
        await harness.stop_host()
        client.state = "stale"
        await harness.restart(Counter)
        await client.until_state({"count": 1})


class Thermostat(Agent):
    target = Float(20.0, min=5, max=30).tag(sync=True)
    mode = Enum(["heat", "cool"], default_value="heat").tag(sync=True)
    visits = Int(0)

    @validate("target")
    def _round(self, proposal):
        return round(proposal["value"], 1)

    @callable_method
    def warm(self, target: float):
        self.target = target


async def test_typed_state_is_the_dict_of_its_fields():
    """A trait tagged sync is a field; an assignment is told to everyone."""
    async with AgentHarness(Thermostat) as harness:
        client = await harness.connect(Thermostat, "x")
        assert client.state == {"target": 20.0, "mode": "heat"}
        await client.call("warm", 21)
        assert client.state == {"target": 21.0, "mode": "heat"}
        with pytest.raises(CallFailed, match="target"):
            await client.call("warm", 99)


@pytest.mark.parametrize(
    "state",
    [{"target": "hot", "mode": "heat"}, {"target": 99, "mode": "heat"}, {"unknown": 1}, [], 7],
    ids=repr,
)
async def test_typed_state_refuses_what_does_not_fit(state):
    """A client that sends an unknown field or a wrong type is refused, and nothing changes."""
    async with AgentHarness(Thermostat) as harness:
        client = await harness.connect(Thermostat, "x")
        await client.set_state(state)
        assert client.state_errors == ["State update rejected"]
        assert harness.agent(Thermostat, "x").state == {"target": 20.0, "mode": "heat"}


async def test_validator_that_corrects_a_write_tells_its_writer():
    """A write that a validator changed comes back to its writer as it holds."""
    async with AgentHarness(Thermostat) as harness:
        client = await harness.connect(Thermostat, "x")
        await client.set_state({"target": 21.26, "mode": "cool"})
        await client.until_state({"target": 21.3, "mode": "cool"})


async def test_closed_class_takes_no_client_writes():
    """`client_writes = "closed"`.

    A client's state frame is refused, a call may still change it.
    """

    class Closed(Counter):
        client_writes = "closed"

    async with AgentHarness(Closed) as harness:
        client = await harness.connect(Closed, "x")
        await client.set_state({"count": 4})
        assert client.state_errors == ["State update rejected"]
        assert await client.call("bump") == 1


async def test_views_and_private_state():
    """`view_state` gives each connection its own projection.

    Private state is stored and never sent.
    """

    class Hidden(Agent):
        initial_state = {"public": 1, "answers": {"A": "a", "B": "b"}}

        def view_state(self, state, connection):
            return {"public": state["public"], "mine": state["answers"].get(connection.id)}

        @callable_method
        def note(self, text: str):
            self.private_state = {"note": text}
            self.update_state(public=2)

    async with AgentHarness(Hidden) as harness:
        a = await harness.connect(Hidden, "x", connection_id="A")
        b = await harness.connect(Hidden, "x", connection_id="B")
        assert a.state == {"public": 1, "mine": "a"}
        await a.call("note", "secret")
        await b.until_state({"public": 2, "mine": "b"})
        assert not any("secret" in frame or "answers" in frame for frame in a.frames + b.frames)
        assert harness.storage.load("hidden", "x").private_json == b'{"note":"secret"}'
        await harness.restart()
        await harness.connect(Hidden, "x", connection_id="C")
        assert harness.agent(Hidden, "x").private_state == {"note": "secret"}


async def test_large_state_travels_as_a_patch():
    """One changed item of a 10 KB state costs a negotiated client under 200 bytes."""

    class Large(Agent):
        initial_state = [{"id": n, "text": "x" * 80} for n in range(100)]

        @callable_method
        def touch(self):
            self.set_state([*self.state[:50], {"id": 50, "text": "changed"}, *self.state[51:]])

    async with AgentHarness(Large) as harness:
        ours = await harness.connect(Large, "x", extended=True)
        sdk = await harness.connect(Large, "x")
        await ours.call("touch")
        await harness.idle()
        patch = ours.frames[-2]
        assert json.loads(patch)["type"] == "cf_agent_state_patch"
        assert len(patch) < 200
        assert json.loads(sdk.frames[-1])["type"] == "cf_agent_state"
        await ours.send_json({"type": "cf_agent_state_get"})
        await harness.idle()
        assert json.loads(ours.frames[-1])["state"][50]["text"] == "changed"


async def test_mutation_in_place_is_told_and_stored():
    """``self.state["count"] += 1; self.set_state(self.state)`` is a change like any other."""

    class InPlace(Counter):
        @callable_method
        def mutate(self):
            state = self.state
            state["count"] += 1
            self.set_state(state)

    async with AgentHarness(InPlace) as harness:
        client = await harness.connect(InPlace, "x")
        await client.call("mutate")
        await client.until_state({"count": 1})
        assert harness.storage.load("in-place", "x").state_json == b'{"count":1}'


async def test_broken_storage_is_reported_and_the_agent_lives(caplog):
    """A commit that fails is logged; the agent goes on serving."""
    async with AgentHarness(Counter) as harness:
        client = await harness.connect(Counter, "x")

        def fail():
            raise OSError("disk full")

        harness.storage.commit = fail
        assert await client.call("bump") == 1
        assert "could not be saved" in caplog.text


async def test_full_link_tells_the_state_when_it_takes_frames_again():
    """A state that the link could not take is told in the end; its author hears no LinkError."""
    limits = HostLimits(settle_s=0.01, outbox_bytes=1000)
    async with AgentHarness(Counter, limits=limits) as harness:
        client = await harness.connect(Counter, "x")
        ours = await harness.connect(Counter, "x", extended=True)
        harness.link.is_full = True
        harness.host.send(Kind.TEXT, client.record.number, b"x" * 1001)
        agent = harness.agent(Counter, "x")
        for n in (5, 6):
            agent.set_state({"count": n})
            harness.host.end_turn()
        await asyncio.sleep(0.03)
        harness.link.is_full = False
        harness.host.link_has_room()
        await client.until_state({"count": 6})
        await harness.idle()
        assert '"count":6' in ours.frames[-1]


async def test_write_that_was_applied_is_acknowledged_again_not_applied_again():
    """Where the answer was lost with the link, the same id is answered anew with what holds."""
    async with AgentHarness(Counter) as harness:
        client = await harness.connect(Counter, "x", extended=True)
        frame = {"type": "cf_agent_state", "write": "7", "base": 1, "state": {"count": 5}}
        harness.link.break_off(0)
        await client.send_json(frame)  # the server keeps it
        harness.link.connect()
        await harness.idle()
        agent = harness.agent(Counter, "x")
        agent.set_state({"count": 6})
        await client.send_json(frame)
        await harness.idle()
        assert agent.state == {"count": 6}
        acks = [json.loads(f) for f in client.frames if "state_ack" in f]
        assert [(ack["write"], ack["version"]) for ack in acks] == [("7", 2), ("7", 3)]
        assert acks[1]["state"] == {"count": 6}


async def test_few_writes_are_remembered():
    """Only the latest ids of a connection are kept, and none of a client that gives none."""
    async with AgentHarness(Counter) as harness:
        ours = await harness.connect(Counter, "x", extended=True)
        sdk = await harness.connect(Counter, "x")
        for number in range(3 * MAX_WRITES):
            await ours.send_json(
                {"type": "cf_agent_state", "write": number, "state": {"count": number}}
            )
            await sdk.set_state({"count": number})
        mine, theirs = harness.agent(Counter, "x").get_connections()
        assert mine.writes == tuple(range(2 * MAX_WRITES, 3 * MAX_WRITES))
        assert theirs.writes == ()
