"""Replicas of every kind end equal to the agent's state, whatever crosses on the way.

A host that keeps the rules of the wire, and clients of both kinds, talk through channels that keep
order and nothing else: frames wait as long as chance wants, sockets drop, the kernel restarts.
"""

from __future__ import annotations

import copy
import json
from collections import deque

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from jupyter_agents.errors import CallAborted, StateRejected
from jupyter_agents.protocol import messages
from jupyter_agents.protocol.agent_side import AgentSide, Snapshot, is_stale
from jupyter_agents.protocol.client_side import ClientSide
from jupyter_agents.protocol.messages import MISSING, STALE, StateReceived, StateWanted, decode
from jupyter_agents.protocol.replica import Settled

# Long enough that a patch is smaller than the whole.
NOTE = "n" * 200
SDK_KEYS = {"type", "name", "agent", "stateFollows", "state", "error"}


class Wire:
    """One connection: what is under way in both directions."""

    def __init__(self, key, extended):
        self.key, self.extended = key, extended
        self.up, self.down = deque(), deque()


class Host:
    """An instance with a validator that refuses negative numbers and cuts large ones to 9."""

    def __init__(self, value):
        self.value, self.version = value, 0 if value is MISSING else 1
        self.wires, self.made = {}, 0
        self.applied, self.refused = set(), {}
        self.dirty, self.writer = False, None
        self.side = AgentSide("room", "lobby", patch_over_bytes=100)

    @property
    def snapshot(self):
        return None if self.value is MISSING else Snapshot(self.value, self.version)

    def restart(self):
        """Another kernel takes over what the server kept: the sockets and the stored state."""
        self.flush()
        self.side = AgentSide("room", "lobby", patch_over_bytes=100)
        for wire in self.wires.values():
            self.side.join(wire.key, extended=wire.extended, protocol=True)
            self.side.resume(wire.key)

    def connect(self, extended):
        self.flush()
        self.made += 1
        wire = self.wires[self.made] = Wire(self.made, extended)
        self.side.join(wire.key, extended=extended, protocol=True)
        wire.down.extend(self.side.greet(wire.key, self.snapshot))
        return wire

    def drop(self, wire):
        self.side.leave(wire.key)
        del self.wires[wire.key]

    def send(self, outgoing):
        for out in outgoing:
            for key in out.keys:
                self.wires[key].down.append(out.payload)

    def change(self, value, writer=None):
        """Keep a value; it is told with the next flush, together with what comes until then."""
        self.writer = None if self.dirty else writer
        self.value, self.dirty = value, True
        self.version += 1

    def flush(self):
        if self.dirty:
            self.dirty = False
            self.send(self.side.tell(self.snapshot, writer=self.writer))

    def settle(self):
        self.flush()
        self.send(self.side.settle(self.snapshot))

    def receive(self, wire):
        self.flush()
        frame = messages.read_client_frame(wire.up.popleft(), extended=wire.extended)
        if isinstance(frame, StateWanted):
            self.send(self.side.whole(wire.key, self.snapshot))
        elif isinstance(frame, StateReceived):
            self.written(wire.key, frame)

    def written(self, key, frame):
        reason = STALE if is_stale(frame.base, self.snapshot) else refusal(frame.state)
        if reason:
            self.refused[key, frame.write] = reason
            self.send(self.side.refuse(key, frame.write, self.snapshot, reason=reason))
            return
        self.applied.add((key, frame.write))
        self.change(full([min(number, 9) for number in frame.state["numbers"]]), writer=key)
        self.flush()
        self.send(self.side.ack(key, frame.write, self.snapshot, frame.state))


def full(numbers):
    """The state that has these numbers."""
    return {"numbers": numbers, "note": NOTE}


def refusal(value):
    """Why the validator refuses a value, or nothing."""
    least = min(value["numbers"], default=0)
    return f"negative: {least}" if least < 0 else ""


class SdkClient:
    """The rules of the SDK's client: it shows its own write at once, and any state it is sent.

    What it sends while away is queued by its socket, and leaves before it has heard anything.
    """

    extended = False

    def __init__(self, host):
        self.host, self.state, self.wire = host, MISSING, None
        self.queue = []

    def write(self, value):
        self.state = value
        self.queue.append(messages.state_write(messages.encode(value)).decode())
        self.flush()

    def flush(self):
        if self.wire:
            self.wire.up.extend(self.queue)
            self.queue.clear()

    def connect(self):
        self.wire = self.host.connect(self.extended)
        self.flush()

    def drop(self):
        self.host.drop(self.wire)
        self.wire = None

    def receive(self):
        frame = json.loads(self.wire.down.popleft())
        assert set(frame) <= SDK_KEYS, "an SDK client sees nothing of our extension"
        if frame["type"] == "cf_agent_state":
            self.state = frame["state"]

    append = shrug = lambda self, *_: None

    def check(self):
        """It promises nothing but its state."""


class OurClient:
    """Our own client, and what became of each of its writes."""

    extended = True

    def __init__(self, host):
        self.host, self.wire = host, None
        self.side = ClientSide()
        self.side.connecting()
        self.writes, self.given_up = [], set()

    @property
    def state(self):
        return self.side.replica.shown

    def write(self, value):
        self.begin(value)

    def append(self, number):
        self.begin(MISSING, lambda state: full([*(state["numbers"] if state else ()), number]))

    def begin(self, *args):
        write, events = self.side.write(*args)
        self.writes.append(write)
        self.note(events)
        self.flush()

    def shrug(self):
        """Stop waiting for the oldest write."""
        for write in self.side.replica.pending[:1]:
            self.given_up.add(write)
            self.note(self.side.replica.give_up(write))

    def flush(self):
        frames, events = self.side.take()
        self.note(events)
        if self.wire:
            self.wire.up.extend(frames)

    def connect(self):
        self.wire = self.host.connect(self.extended)
        self.side.opened()
        self.flush()

    def drop(self):
        self.host.drop(self.wire)
        self.wire = None
        self.note(self.side.lost())
        self.side.connecting()

    def receive(self):
        self.note(self.side.received(self.wire.down.popleft().decode()))
        self.flush()

    def note(self, events):
        """Each end of a write is what the host did with it."""
        for settled in (e for e in events if isinstance(e, Settled)):
            assert settled.write not in self.given_up
            self.given_up.add(settled.write)
            self.judge(settled.write.id, settled.error)

    def judge(self, write_id, error):
        if isinstance(error, CallAborted):
            event("a write was aborted")
        elif error is None:
            event("a write was acknowledged")
            assert (self.wire.key, write_id) in self.host.applied
        else:
            event("a write was refused")
            assert isinstance(error, StateRejected)
            assert error.reason.startswith(self.host.refused[self.wire.key, write_id])
        assert all(write.id != write_id for write in self.side.replica.pending)

    def check(self):
        """Every write ended, exactly once, unless it was given up."""
        assert self.given_up == set(self.writes)
        assert self.side.replica.pending == []


class World:
    """A host and four clients, two of each kind."""

    def __init__(self, value):
        self.host = Host(value)
        self.clients = [kind(self.host) for kind in (SdkClient, OurClient, SdkClient, OurClient)]
        for client in self.clients:
            client.connect()

    def act(self, kind, who, value):
        client = self.clients[who]
        if kind == "change":
            self.host.change(full([abs(number) for number in value]))
        elif kind in ("flush", "settle", "restart"):
            getattr(self.host, kind)()
        elif kind == "write":
            client.write(full(value))
        elif kind == "append":
            client.append(value[0] if value else 0)
        elif kind == "shrug":
            client.shrug()
        elif kind == "socket":
            client.drop() if client.wire else client.connect()
        elif client.wire and kind == "up" and client.wire.up:
            self.host.receive(client.wire)
        elif client.wire and kind == "down" and client.wire.down:
            client.receive()

    def become_quiet(self):
        """Deliver everything, settle, and again until nothing is left to say."""
        for client in self.clients:
            if client.wire is None:
                client.connect()
        for _ in range(100):
            wires = [client.wire for client in self.clients]
            if not any(wire.up or wire.down for wire in wires):
                self.host.settle()
                if not any(wire.down for wire in wires):
                    return
            for who in range(len(self.clients)):
                for _ in range(len(wires[who].up)):
                    self.act("up", who, [])
                for _ in range(len(wires[who].down)):
                    self.act("down", who, [])
        raise AssertionError("the replicas never settle")


NUMBERS = st.lists(st.sampled_from([-1, 1, 2, 3, 12]), max_size=2)
KINDS = ["write", "write", "append", "up", "up", "up", "down", "down", "down", "change", "flush",
         "settle", "socket", "shrug", "restart"]  # fmt: skip
ACTIONS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 3), NUMBERS), min_size=20, max_size=80
)

CROSSING = [
    ("write", 0, [1]),
    ("change", 0, [2]),
    ("flush", 0, []),
    ("up", 0, []),
    ("down", 0, []),
]
HEARD = [("down", who, []) for who in (0, 1)] * 2
REFUSED = [*HEARD, ("write", 0, [-1]), ("write", 1, [-1]), ("up", 0, []), ("up", 1, [])]
PATCHED = [
    ("change", 0, [1]), ("flush", 0, []), ("change", 0, [1, 2]), ("write", 1, [3]),
    ("up", 1, []), ("socket", 3, []), ("write", 3, [4]), ("restart", 0, []),
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(initial=st.just(MISSING) | st.just(full([0])), actions=ACTIONS)
@example(initial=full([0]), actions=CROSSING)
@example(initial=MISSING, actions=CROSSING)
@example(initial=full([0]), actions=REFUSED)
@example(initial=full([]), actions=PATCHED)
def test_replicas_converge(initial, actions):
    """Once things are quiet, every replica shows the agent's state, and every write has ended."""
    world = World(copy.deepcopy(initial))
    for action in actions:
        world.act(*action)
    world.become_quiet()
    for client in world.clients:
        client.check()
        if world.host.value is not MISSING:
            assert client.state == world.host.value


def test_sdk_client_alone_would_not_converge():
    """Where a write and a state cross, an SDK client must be settled to show the state."""
    world = World(full([0]))
    for action in [*CROSSING, *[("down", 0, [])] * 3]:
        world.act(*action)
    assert (world.clients[0].state, world.host.value) == (full([2]), full([1]))
    world.become_quiet()
    assert world.clients[0].state == full([1])


def test_patches_take_part():
    """The world above lets states travel as patches, so that they are tested with the rest."""
    world = World(full([]))
    for action in PATCHED[:2]:
        world.act(*action)
    kinds = [decode(frame)["type"] for frame in world.clients[1].wire.down]
    assert "cf_agent_state_patch" in kinds
    world.become_quiet()
