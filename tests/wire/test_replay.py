"""Recordings of the real SDK, replayed against our frames and our agent side.

What the recorded agents did in JavaScript is done here by a few lines each; everything that a
client saw is compared. What ours adds has tests of its own below.
"""

from __future__ import annotations

import json

import pytest

from jupyter_agents.protocol import messages
from jupyter_agents.protocol.agent_side import AgentSide, Snapshot
from jupyter_agents.protocol.messages import (
    MISSING,
    CallMalformed,
    CallReceived,
    IdentityReceived,
    RpcReply,
    StateErrorReceived,
    StateReceived,
    StateSent,
    read_client_frame,
    read_server_frame,
)
from tests.wire.transcript import FOLDER, Transcript

ALL = sorted(int(path.name[:2]) for path in FOLDER.glob("*.json"))
KINDS = {"rpc": CallReceived, "cf_agent_state": StateReceived}
STATEFUL = [1, 2, 3, 4, 5, 6, 7, 17]


# ── Frames by themselves ──


def rebuilt(frame):
    """The frame that our builders make of what our reader found."""
    if isinstance(frame, IdentityReceived):
        return messages.identity(frame.name, frame.agent, frame.state_follows)
    if isinstance(frame, StateSent):
        return messages.state(messages.encode(frame.state))
    if isinstance(frame, StateErrorReceived):
        return messages.state_error(frame.error)
    assert isinstance(frame, RpcReply)
    if frame.success:
        return messages.rpc_result(frame.id, frame.result, done=frame.done)
    return messages.rpc_error(frame.id, frame.error)


def is_ours(event):
    """Whether a recorded frame of the server is the protocol's, not the recorded agent's own."""
    kind = event.frame.get("type") if isinstance(event.frame, dict) else None
    return isinstance(kind, str) and (kind == "rpc" or kind.startswith("cf_agent_"))


def test_recordings_are_there():
    """The recordings on state, calls, streams, flags and malformed frames are replayed."""
    assert set(ALL) >= {*STATEFUL, 8, 9, 10, 11}


@pytest.mark.parametrize("number", ALL)
def test_recorded_server_frames_are_built_alike(number):
    """Each frame of the SDK's server is read, and built by us with the same keys and values."""
    for event in filter(is_ours, Transcript.load(number).received()):
        assert json.loads(rebuilt(read_server_frame(event.data))) == event.frame


@pytest.mark.parametrize("number", ALL)
def test_recorded_own_messages_stay_own(number):
    """What the SDK handed to ``onMessage`` is no call to us, though some get an error answer."""
    for text in Transcript.load(number).fell_through():
        found = read_client_frame(text)
        assert found is None or isinstance(found, CallMalformed)


@pytest.mark.parametrize("number", ALL)
def test_recorded_requests_are_recognised(number):
    """Each call that the SDK answered, and each write that it took, is one to us."""
    transcript = Transcript.load(number)
    own = set(transcript.fell_through())
    for event in transcript.sent():
        if isinstance(event.data, str) and event.data not in own and isinstance(event.frame, dict):
            kind = KINDS.get(event.frame.get("type"))
            # A state frame without a state is an ordinary message, and these agents ignored it.
            if kind and (kind is CallReceived or "state" in event.frame):
                assert isinstance(read_client_frame(event.data), kind), event.data


def test_malformed_calls_of_the_recordings():
    """Of the malformed calls in recording 09, those with a string id are answered by an error."""
    texts = Transcript.load(9).fell_through()
    answered = [isinstance(read_client_frame(text), CallMalformed) for text in texts]
    assert answered == [False, True, True, False, True]


# ── Conversations ──


INITIAL = {
    "counter-agent": {"count": 0},
    "bare-agent": MISSING,
    "null-state-agent": None,
    "no-identity-agent": {"v": 1},
    "quiet-agent": {"v": 1},
    "readonly-agent": {"v": 1},
}


class Agents:
    """What the recorded agents did about state; `seen` collects what each client gets."""

    def __init__(self):
        self.agent, self.value, self.version = "", MISSING, 0
        self.side, self.keys, self.readonly = None, {}, set()
        self.ids = {}
        self.seen = {}

    def connect(self, conn, url):
        path, _, query = url.partition("?")
        _, _, agent, name = path.split("/")
        if self.side is None:
            self.agent, self.value = agent, INITIAL[agent]
            self.side = AgentSide(agent, name)
        key = self.keys[conn] = len(self.keys)
        self.ids[query.rpartition("_pk=")[2]] = key
        if "mode=view" in query:
            self.readonly.add(key)
        protocol = agent != "quiet-agent" or "proto=1" in query
        self.side.join(
            key, extended=False, protocol=protocol, identity=agent != "no-identity-agent"
        )
        self.note(key, self.side.greet(key, self.snapshot))

    @property
    def snapshot(self):
        return None if self.value is MISSING else Snapshot(self.value, self.version)

    def act(self, action):
        """Do what a recorded client did."""
        self.seen = {}
        if action.kind == "connect":
            self.connect(action.conn, action.raw["url"])
        elif isinstance(action.data, str):
            self.receive(action.conn, action.data)
        elif action.data is not None and self.agent == "quiet-agent":
            self.answer(action.conn, action.data)

    def answer(self, conn, message):
        self.seen.setdefault(conn, []).append(message)

    def note(self, key, frames):
        (conn,) = [conn for conn, found in self.keys.items() if found == key]
        for frame in frames:
            self.answer(conn, json.loads(frame))

    def send(self, outgoing):
        for out in outgoing:
            for key in out.keys:
                self.note(key, [out.payload])

    def receive(self, conn, text):
        key, frame = self.keys[conn], read_client_frame(text)
        if isinstance(frame, StateReceived):
            self.written(key, frame.state)
        elif isinstance(frame, CallReceived):
            self.note(key, [self.called(key, frame)])
        elif self.agent == "quiet-agent":
            self.answer(conn, f"echo:{text}")
        elif self.agent == "counter-agent":
            self.answer(conn, {"fallthrough": text})
        elif "setStateFromMessage" in text:
            error = {"name": "Error", "message": messages.READONLY}
            self.answer(conn, {"error": error})
        elif self.agent == "readonly-agent":
            answer = {"fallthrough": json.loads(text), "readonly": key in self.readonly}
            self.answer(conn, answer | {"connectionState": None})

    def written(self, key, value):
        if key in self.readonly or not self.allows(value):
            readonly = key in self.readonly
            self.send(self.side.refuse(key, None, self.snapshot, readonly=readonly))
            return
        self.change(value, writer=key)
        self.send(self.side.ack(key, None, self.snapshot, value))

    def allows(self, value):
        if self.agent != "counter-agent":
            return True
        return (
            isinstance(value, dict)
            and isinstance(value.get("count"), int)
            and "forbidden" not in value
        )

    def change(self, value, writer=None):
        self.value, self.version = value, self.version + 1
        self.send(self.side.tell(self.snapshot, writer=writer))

    def called(self, key, call):
        if call.method == "read":
            return messages.rpc_result(call.id, self.value)
        if call.method == "setReadonly":
            target, on = call.args
            (self.readonly.add if on else self.readonly.discard)(self.ids[target])
            return messages.rpc_result(call.id, True)
        assert call.method == "bump"
        if key in self.readonly:
            return messages.rpc_error(call.id, messages.READONLY)
        self.change({"v": self.value["v"] + 1})
        return messages.rpc_result(call.id, self.value["v"])


@pytest.mark.parametrize("number", STATEFUL)
def test_conversation_about_state_is_the_sdks(number):
    """Every client sees, after each action, exactly the frames that the SDK sent it, in order."""
    agents = Agents()
    for step in Transcript.load(number).steps():
        agents.act(step.action)
        assert agents.seen == step.seen, step.action.raw


@pytest.mark.parametrize("number", STATEFUL)
def test_settling_is_what_we_add(number):
    """Ours sends one frame more, to each writer that it cannot be sure of: the state."""
    agents = Agents()
    writers = set()
    for step in Transcript.load(number).steps():
        agents.act(step.action)
        if isinstance(read_client_frame(str(step.action.data)), StateReceived):
            writers.add(step.action.conn)
    agents.seen = {}
    agents.send(agents.side.settle(agents.snapshot))
    assert set(agents.seen) <= writers
    state = {"type": "cf_agent_state", "state": agents.value}
    assert all(frames == [state] for frames in agents.seen.values())
