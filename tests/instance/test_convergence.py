"""Replicas end equal to the agent's state, whatever happens on the way, with a whole host.

Clients of both kinds talk to agents of both kinds through the relay and the host. Frames wait as
long as chance wants, writes cross, sockets drop, the code is replaced, the kernel goes and comes
back. (`tests/protocol/test_convergence.py` has the same for the rules alone.)
"""

from __future__ import annotations

import asyncio
import json

from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from traitlets import Int, List, Unicode, validate

from jupyter_agents import Agent, StateRejected
from jupyter_agents.errors import CallAborted
from jupyter_agents.host.host import HostLimits
from jupyter_agents.protocol import messages
from jupyter_agents.protocol.client_side import ClientSide
from jupyter_agents.protocol.messages import MISSING
from jupyter_agents.protocol.replica import Settled
from jupyter_agents.testing import AgentHarness

# Long enough that a patch is smaller than the whole.
NOTE = "n" * 1200
SDK_KEYS = {"type", "name", "agent", "stateFollows", "state", "error"}


class Ledger:
    """What validators accepted and refused, by the tag that each write carries."""

    def __init__(self):
        self.accepted, self.refused = set(), {}


def agents(ledger):
    """A free-form and a typed agent with the same state; both refuse negative numbers."""

    def judge(state, source):
        least = min(state["numbers"], default=0)
        if least < 0:
            ledger.refused[state["tag"]] = f"negative: {least}"
            raise StateRejected(f"negative: {least}")
        ledger.accepted.add(state["tag"])

    class Free(Agent):
        initial_state = {"numbers": [], "tag": 0, "note": NOTE}

        def validate_state_change(self, next_state, source):
            judge(next_state, source)

    class Typed(Agent):
        numbers = List(Int()).tag(sync=True)
        tag = Int().tag(sync=True)
        note = Unicode(NOTE).tag(sync=True)

        @validate("numbers")
        def _cut(self, proposal):
            return [min(number, 9) for number in proposal["value"]]

        def validate_state_change(self, next_state, source):
            judge(next_state, source)

    Free.__name__ = Typed.__name__ = "Room"
    return {"free": Free, "typed": Typed}


class Client:
    """One end of a wire whose frames wait until they are taken."""

    extended = False

    def __init__(self, world):
        self.world = world
        self.socket, self.read, self.up = None, 0, []

    async def connect(self):
        self.socket = await self.world.harness.connect(
            "room", "x", extended=self.extended, wait=False
        )
        self.read = 0
        self.up.clear()

    async def drop(self):
        socket, self.socket = self.socket, None
        await socket.vanish()

    @property
    def is_lost(self):
        return self.socket is not None and self.socket.closed is not None

    async def send_one(self):
        if self.up:
            await self.socket.send(self.up.pop(0))

    def take_one(self):
        if self.socket is not None and self.read < len(self.socket.frames):
            self.read += 1
            self.receive(self.socket.frames[self.read - 1])

    @property
    def is_quiet(self):
        return not self.up and self.read == len(self.socket.frames)


class SdkClient(Client):
    """The rules of the SDK's client: it shows its own write at once, and any state it is sent."""

    def __init__(self, world):
        super().__init__(world)
        self.state, self.queue = MISSING, []

    def write(self, value):
        self.state = value
        self.queue.append(messages.state_write(messages.encode(value)).decode())
        self.flush()

    append = write

    def flush(self):
        if self.socket is not None:
            self.up += self.queue
            self.queue.clear()

    async def connect(self):
        await super().connect()
        self.flush()

    def receive(self, text):
        frame = json.loads(text)
        assert set(frame) <= SDK_KEYS, "an SDK client sees nothing of our extension"
        if frame["type"] == "cf_agent_state":
            self.state = frame["state"]

    def check(self):
        """It promises nothing but its state."""


class OurClient(Client):
    """Our own client, and what became of each of its writes."""

    extended = True

    def __init__(self, world):
        super().__init__(world)
        self.side = ClientSide()
        self.side.connecting()
        self.tags, self.ended = {}, set()

    @property
    def state(self):
        return self.side.replica.shown

    def write(self, value):
        self.begin(value["tag"], value)

    def append(self, value):
        def change(state):
            numbers = state["numbers"] if state else ()
            return {**value, "numbers": [*numbers, *value["numbers"]]}

        self.begin(value["tag"], MISSING, change)

    def begin(self, tag, *args):
        write, events = self.side.write(*args)
        self.tags[write] = tag
        self.note(events)
        self.flush()

    def flush(self):
        frames, events = self.side.take()
        self.note(events)
        if self.socket is not None:
            self.up += [frame if isinstance(frame, str) else frame.decode() for frame in frames]

    async def connect(self):
        await super().connect()
        self.side.opened()
        self.flush()

    async def drop(self):
        await super().drop()
        self.note(self.side.lost())
        self.side.connecting()

    def receive(self, text):
        self.note(self.side.received(text))
        self.flush()

    def note(self, events):
        for settled in (e for e in events if isinstance(e, Settled)):
            assert settled.write not in self.ended, "a write ends once"
            self.ended.add(settled.write)
            self.judge(self.tags[settled.write], settled.error)

    def judge(self, tag, error):
        """Each end of a write is what the agent did with it."""
        ledger = self.world.ledger
        if isinstance(error, CallAborted):
            event("a write was aborted")
        elif error is None:
            event("a write was acknowledged")
            assert tag in ledger.accepted
        else:
            event("a write was refused")
            assert isinstance(error, StateRejected)
            if tag in ledger.refused:  # or its answer was lost, and it was stale when asked again
                assert error.reason.startswith((ledger.refused[tag], messages.STALE))

    def check(self):
        assert self.ended == set(self.tags), "every write ends"
        assert self.side.replica.pending == []


class World:
    """A harness and four clients, two of each kind."""

    def __init__(self, harness, cls, ledger):
        self.harness, self.cls, self.ledger = harness, cls, ledger
        self.clients = [kind(self) for kind in (SdkClient, OurClient, SdkClient, OurClient)]
        self.is_away = False
        self.tag = 0

    def value(self, numbers):
        self.tag += 1
        return {"numbers": numbers, "tag": self.tag, "note": NOTE}

    @property
    def instance(self):
        return self.harness.instance("room", "x")

    async def act(self, kind, who, numbers):
        client = self.clients[who]
        if kind == "change" and not self.is_away:
            self.instance.agent.set_state(self.value([abs(number) for number in numbers]))
        elif kind in ("write", "append"):
            getattr(client, kind)(self.value(numbers))
        elif kind == "socket":
            await (client.connect() if client.socket is None else client.drop())
        elif kind == "up" and client.socket is not None:
            await client.send_one()
        elif kind == "down":
            client.take_one()
        elif kind == "turn":
            await asyncio.sleep(0)
        elif kind in ("settle", "away", "code"):
            await getattr(self, kind)()

    async def settle(self):
        if not self.is_away and self.instance.object is not None:
            self.instance.sync._settle()

    async def away(self):
        """The kernel dies; or another one takes over what is stored and who is connected."""
        if self.is_away:
            self.harness._boot()
            await self.harness.serve(self.cls)
        else:
            await self.harness.stop_host()
        self.is_away = not self.is_away

    async def code(self):
        """The cell runs again."""
        if not self.is_away:
            await self.harness.serve(self.cls)

    async def become_quiet(self):
        """Deliver everything, settle, and again until nothing is left to say."""
        if self.is_away:
            await self.away()
        for client in self.clients:
            if client.is_lost:
                await client.drop()
            if client.socket is None:
                await client.connect()
        for _ in range(200):
            await self.harness.idle()
            if all(client.is_quiet for client in self.clients):
                await self.settle()
                await self.harness.idle()
                if all(client.is_quiet for client in self.clients):
                    return
            for client in self.clients:
                while client.up:
                    await client.send_one()
                while client.read < len(client.socket.frames):
                    client.take_one()
        raise AssertionError("the replicas never settle")

    def check(self):
        sync, state = self.instance.sync, self.instance.agent.state
        assert not sync._side.needs_settling
        for client in self.clients:
            client.check()
            assert client.state == state
        stored = self.harness.storage.load("room", "x")
        assert messages.decode(stored.state_json) == state


async def converges(kind, actions):
    """Act, let it become quiet, compare."""
    ledger = Ledger()
    cls = agents(ledger)[kind]
    async with AgentHarness(cls, limits=HostLimits(settle_s=3600.0)) as harness:
        world = World(harness, cls, ledger)
        for client in world.clients:
            await client.connect()
        for action in actions:
            await world.act(*action)
        await world.become_quiet()
        world.check()
    return world


NUMBERS = st.lists(st.sampled_from([-1, 1, 2, 3, 12]), max_size=2)
KINDS = ["write", "write", "append", "up", "up", "up", "down", "down", "down", "change", "turn",
         "turn", "settle", "socket", "away", "code"]  # fmt: skip
ACTIONS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 3), NUMBERS), min_size=20, max_size=80
)
CROSSING = [("turn", 0, [])] * 5 + [("write", 0, [1]), ("change", 0, [2]), ("up", 0, [])]
OFFLINE = [
    *[("turn", 0, [])] * 5, *[("down", 1, [])] * 3, ("socket", 1, []), ("write", 1, [1]),
    ("change", 0, [2]), ("away", 0, []), ("write", 0, [3]), ("up", 0, []), ("socket", 1, []),
]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(["free", "typed"]), actions=ACTIONS)
@example(kind="free", actions=CROSSING)
@example(kind="typed", actions=CROSSING)
@example(kind="free", actions=OFFLINE)
@example(kind="typed", actions=OFFLINE)
def test_replicas_converge(kind, actions):
    """Once things are quiet, every replica shows the agent's state, and every write has ended."""
    asyncio.run(converges(kind, actions))


def test_crossing_writes_need_settling():
    """The world above lets writes cross, so that an SDK client would not converge by itself."""

    async def cross():
        ledger = Ledger()
        async with AgentHarness(
            agents(ledger)["free"], limits=HostLimits(settle_s=3600.0)
        ) as harness:
            world = World(harness, None, ledger)
            client = world.clients[0]
            await client.connect()
            await harness.idle()
            for kind in ("down", "down", "write", "change", "turn", "turn", "up", "turn", "turn"):
                await world.act(kind, 0, [1])
            await harness.idle()
            assert world.instance.agent.state["tag"] == 1
            client.take_one()
            assert client.state["tag"] == 2
            assert world.instance.sync._settling is not None
            await world.settle()
            await harness.idle()
            client.take_one()
            assert client.state["tag"] == 1

    asyncio.run(cross())
