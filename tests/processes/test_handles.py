"""Handles in a real kernel: with a real slider, while cells block and callbacks come aside."""

from __future__ import annotations

import json
import time
import uuid

import pytest

from tests.live import connected

LIMIT_S = 20.0

CELL = """
import asyncio, random, threading, time
from ipywidgets import FloatSlider
from traitlets import Float, link
from jupyter_agents import Agent, serve

class Thermostat(Agent):
    target = Float(20.0, min=5, max=30).tag(sync=True)

    def double(self):
        return self.target * 2

    async def later(self):
        await asyncio.sleep(0.01)
        return self.target

ns = serve(Thermostat, storage="memory")
room = ns["kitchen"]
slider = FloatSlider(min=0, max=100, step=0.1)
made = link((room, "target"), (slider, "value"))
heard = []
room.observe(lambda change: heard.append((change.new, threading.current_thread().name)), "target")
"""

STRESS = """
def write(assign, count):
    for _ in range(count):
        assign(random.uniform(5, 30))
        if random.random() < 0.05:
            time.sleep(0.001)

async def everybody():
    assign = lambda value: setattr(room, "target", value)
    drag = lambda value: setattr(slider, "value", value)
    others = asyncio.gather(*(asyncio.to_thread(write, one, 150) for one in (assign, drag)))
    for n in range(150):
        assign(random.uniform(5, 30))
        if n % 5 == 0:
            await asyncio.sleep(0)
    await others

await everybody()
"""


@pytest.fixture
def thermostat(kernel):
    """A kernel whose cell serves a Thermostat and links its kitchen with a slider."""
    kernel.run(CELL)
    yield kernel
    kernel.run("ns.stop()", check=False)


@pytest.fixture
def client(thermostat):
    """An SDK client of the kitchen, past its identity and state."""
    with connected(thermostat.server, "agents/thermostat/kitchen") as socket:
        assert [json.loads(socket.recv(LIMIT_S))["type"] for _ in range(2)][1] == "cf_agent_state"
        yield socket


def set_target(client, value):
    """Write the state as a client of the SDK does."""
    client.send(json.dumps({"type": "cf_agent_state", "state": {"target": value}}))


def told(client, value):
    """Wait until the client is told this target."""
    while json.loads(client.recv(LIMIT_S)) != {
        "type": "cf_agent_state",
        "state": {"target": value},
    }:
        pass


def becomes(kernel, expression, value):
    """Wait until an expression has this value, with cells that leave the main loop room."""
    deadline = time.monotonic() + LIMIT_S
    while (found := kernel.run(f"print(({expression}))").text.strip()) != value:
        assert time.monotonic() < deadline, f"{expression} is {found}, not {value}"


def begun(kernel, code):
    """Begin a cell, and return when it runs."""
    cell = kernel.begin("print('begun', flush=True)\n" + code)
    deadline = time.monotonic() + LIMIT_S
    while "begun" not in kernel.outputs(cell).text:
        assert time.monotonic() < deadline
    return cell


def asked(kernel, channel, kind, content, **header):
    """Send a message that is no cell; returns the content of its reply."""
    request = uuid.uuid4().hex
    message = kernel._message(kind, request, content)
    message["channel"] = channel
    message["header"].update(header)
    kernel._channels().send(json.dumps(message))
    return request


def reply(kernel, request):
    """What was answered to such a message."""
    channels = kernel._channels()
    channels.settimeout(LIMIT_S)
    while True:
        message = json.loads(channels.recv())
        is_reply = message["msg_type"].endswith("_reply")
        if is_reply and message["parent_header"].get("msg_id") == request:
            return message["content"]


def test_slider_agent_and_client_stay_equal(thermostat, client):
    """A linked slider moves the agent and follows it; so does the handle."""
    thermostat.run("slider.value = 12.5")
    told(client, 12.5)
    thermostat.run("room.target = 13.5\nassert slider.value == 13.5")
    told(client, 13.5)
    set_target(client, 7.5)
    becomes(thermostat, "slider.value, room.target", "(7.5, 7.5)")
    assert thermostat.run("room.double()").text.strip() == "15.0"
    assert thermostat.run("await room.later()").text.strip() == "7.5"
    refused = thermostat.run("room.target = 99", check=False)
    assert "not be greater than 30" in refused.error
    assert thermostat.run("print(heard[-1])").text.strip() == "(7.5, 'MainThread')"


def test_slider_catches_up_after_a_blocking_cell(thermostat, client):
    """While a cell blocks the agent goes on, the handle reads it, and the slider follows after."""
    cell = begun(
        thermostat,
        "while room.target != 8.5:\n    time.sleep(0.001)\nprint(slider.value, len(heard))",
    )
    set_target(client, 8.5)
    assert thermostat.wait(cell).text == "begun\n20.0 0\n"
    becomes(thermostat, "slider.value", "8.5")
    becomes(thermostat, "heard", "[(8.5, 'MainThread')]")


def test_callback_on_a_subshell_moves_the_agent(thermostat, client):
    """T208: while a cell blocks, a widget's message on a subshell reaches agent and clients."""
    made = reply(thermostat, asked(thermostat, "control", "create_subshell_request", {}))
    aside = {"subshell_id": made["subshell_id"]}
    model = thermostat.run("print(slider.comm.comm_id)").text.strip()
    # ipykernel sends a comm's messages to the subshell that used it last
    touch = {"code": "slider.description = 'aside'", "silent": False}
    touched = reply(thermostat, asked(thermostat, "shell", "execute_request", touch, **aside))
    assert touched["status"] == "ok"
    thermostat.run(
        "moved = []; slider.observe(lambda c: moved.append(threading.current_thread()))"
    )
    cell = begun(
        thermostat,
        "deadline = time.monotonic() + 10\n"
        "while room.target != 9.5 and time.monotonic() < deadline:\n    time.sleep(0.001)\n"
        "print(room.target)",
    )
    state = {"method": "update", "state": {"value": 9.5}, "buffer_paths": []}
    content = {"comm_id": model, "data": state}
    asked(thermostat, "shell", "comm_msg", content, **aside)
    told(client, 9.5)
    assert thermostat.wait(cell).text == "begun\n9.5\n"
    becomes(thermostat, "slider.value, room.target", "(9.5, 9.5)")
    becomes(thermostat, "heard", "[(9.5, 'MainThread')]")
    assert "subshell" in thermostat.run("print([thread.name for thread in moved])").text


def test_everybody_writes_and_all_end_equal(thermostat, client):
    """Threads, a slider and a client write at random: all hold the same in the end."""
    cell = thermostat.begin(STRESS)
    for n in range(150):
        set_target(client, 5 + n % 25)
    thermostat.wait(cell, 60)
    becomes(thermostat, "slider.value == room.target == heard[-1][0]", "True")
    target = float(thermostat.run("print(room.target)").text)
    assert thermostat.run("print({name for _, name in heard})").text == "{'MainThread'}\n"
    with connected(thermostat.server, "agents/thermostat/kitchen") as late:
        late.recv(LIMIT_S)
        assert json.loads(late.recv(LIMIT_S))["state"] == {"target": target}


def test_cell_that_waits_for_a_stuck_agent_can_be_interrupted(thermostat):
    """The menu's interrupt ends the cell's wait; the agent goes on by itself."""
    thermostat.run(
        "class Stuck(Agent):\n"
        "    def work(self):\n"
        "        time.sleep(1.5)\n"
        "        return 'done'\n"
        "stuck = serve(Stuck, storage='memory')['x']"
    )
    cell = begun(thermostat, "stuck.work()")
    thermostat.interrupt()
    assert thermostat.wait(cell, check=False).error.startswith("KeyboardInterrupt")
    said = thermostat.run("stuck.work()").text
    assert said.endswith("'done'\n")
    assert "Stuck.work has kept all agents waiting" in said


def test_cells_that_run_again_leave_no_handles(thermostat):
    """A cell that makes a handle and runs fifty times leaves one."""
    thermostat.run("made.unlink(); del made")
    for _ in range(50):
        thermostat.run('room = ns["kitchen"]; room.observe(print)')
    thermostat.run("del heard[:]; import gc; gc.collect()")
    assert int(thermostat.run("print(len(ns.host.mirrors))").text) <= 2
