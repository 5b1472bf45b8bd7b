"""How fast one client may speak: `jupyter_agents.websocket.pace`."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_agents.link.frames import Kind
from jupyter_agents.server.door import ClientSocket, Door, PacedSocket
from jupyter_agents.server.limits import Limits
from jupyter_agents.websocket.pace import Pace, PacedReading
from tests.server.plain_server import plain_server


def waits(pace: Pace, *messages: tuple[int, float]) -> list[float]:
    """What each message, of a size and at a time, has the next one wait."""
    return [round(pace.wait_after(size, now), 3) for size, now in messages]


def test_a_seconds_worth_comes_at_once():
    """Messages: the burst is free, then each one has its share of a second."""
    pace = Pace(2.0, 0.0, 10.0)
    assert waits(pace, (1, 10.0), (1, 10.0), (1, 10.0), (1, 10.0)) == [0, 0, 0.5, 1.0]
    assert waits(pace, (1, 12.0), (1, 13.0)) == [0, 0]


def test_bytes_count_by_themselves():
    """A long message has the next one wait as long as its length takes."""
    pace = Pace(0.0, 100.0, 0.0)
    assert waits(pace, (50, 0.0), (50, 0.0), (450, 0.0), (0, 4.0)) == [0, 0, 4.5, 0.5]


def test_idle_time_saves_up_no_more_than_a_second():
    """An hour of silence allows no larger burst."""
    pace = Pace(1.0, 0.0, 0.0)
    assert waits(pace, (1, 3600.0), (1, 3600.0)) == [0, 1.0]


def test_stricter_limit_counts():
    """With both limits the longer wait holds."""
    pace = Pace(1.0, 10.0, 0.0)
    assert waits(pace, (100, 0.0)) == [9.0]


async def test_without_a_limit_there_is_no_step_more():
    """The plain socket serves until a limit is set."""
    assert type(Door(Limits()).new_socket()) is ClientSocket
    for limit in ("max_messages_per_s", "max_bytes_per_s"):
        assert type(Door(Limits(**{limit: 1.0})).new_socket()) is PacedSocket


class Protocol:
    """Notes whether it reads."""

    reads = True

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True


@pytest.fixture
def paced():
    """A function that makes a reading of 2 messages a second, and its protocol."""

    def make():
        protocol = Protocol()
        return PacedReading(protocol, 2.0, 0.0), protocol

    return make


async def test_who_else_wants_a_pause_is_heeded(paced, monkeypatch):
    """A client is read again when its pace and the relay both allow it."""
    reading, protocol = paced()
    timers = []

    def call_later(wait, act):
        timers.append((wait, act))
        return object()

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    reading.took(1)
    reading.took(1)
    assert protocol.reads
    assert timers == []
    reading.took(1)
    reading.took(1)
    assert not protocol.reads
    [(wait, act)] = timers
    assert 0 < wait <= 0.5
    reading.resume()
    assert not protocol.reads
    reading.pause()
    act()
    assert not protocol.reads
    reading.resume()
    assert protocol.reads


async def test_flood_is_slowed_and_nobody_is_closed():
    """Over real sockets: all arrives, in order, no faster than allowed, and others are free."""
    rate = 100.0
    async with plain_server(max_messages_per_s=rate) as server:
        await server.host.serve()
        flood, calm = [await server.ws(f"/agents/chat-room/{name}") for name in "ab"]
        numbers = [(await server.host.expect_open())[0] for _ in range(2)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        for index in range(150):
            await flood.write_message(str(index))
        arrived: list[str] = []
        while len(arrived) < 150:
            kind, number, payload = await server.host.frame()
            assert kind == Kind.TEXT
            if number == numbers[1]:
                calm_at = len(arrived)
                continue
            arrived.append(payload.decode())
            assert len(arrived) <= rate * (loop.time() - began + 1) + 1
            if len(arrived) == 100:
                await calm.write_message("calm")
        assert arrived == [str(index) for index in range(150)]
        assert calm_at < 150
        assert loop.time() - began >= 0.45
        assert flood.close_code is None


async def test_paused_client_that_goes_leaves_no_timer():
    """The end of a client that has to wait is noticed after its wait, and nothing is left."""
    async with plain_server(max_messages_per_s=20.0) as server:
        await server.host.serve()
        client = await server.ws("/agents/chat-room/a")
        await server.host.expect_open()
        for index in range(22):
            await client.write_message(str(index))
        client.close()
        while (frame := await server.host.frame())[0] != Kind.CLOSED:
            assert frame[0] == Kind.TEXT
        assert not server.door.sockets
