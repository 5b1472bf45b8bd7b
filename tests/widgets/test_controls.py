"""Controls: the widget that suits a trait, bound both ways."""

from __future__ import annotations

import asyncio
import enum
import threading

import ipywidgets
import pytest
import traitlets
from traitlets import Bool, CaselessStrEnum, Enum, Float, Int, List, Unicode, UseEnum, validate

from jupyter_agents import Agent
from jupyter_agents.testing import AgentHarness
from jupyter_agents.testing.sync import SyncHarness
from jupyter_agents.widgets.controls import control, controls, make_control
from tests.widgets.conftest import Room


class Mode(enum.Enum):
    """How it heats."""

    OFF = "off"
    ON = "on"


THREADS: list[int] = []


class Thermostat(Agent):
    """A typed state with one of each."""

    target = Float(20.0, min=5, max=30, help="In degrees").tag(sync=True)
    on = Bool(True).tag(sync=True)
    fan = CaselessStrEnum(["low", "high"], "low").tag(sync=True)
    name_of_room = Unicode("hall").tag(sync=True, label="Room")
    steps = Int(3).tag(sync=True)
    plan = List().tag(sync=True)

    @validate("steps")
    def _even_only(self, proposal):
        THREADS.append(threading.get_ident())
        if proposal["value"] > 100:
            raise traitlets.TraitError("At most 100 steps")
        return proposal["value"]


@pytest.mark.parametrize(
    ("trait", "kind", "facts"),
    [
        (Float(1.0, min=0, max=1), ipywidgets.FloatSlider, {"min": 0, "max": 1, "step": 0.01}),
        (Float(1.0, min=5, max=30), ipywidgets.FloatSlider, {"step": 0.1}),
        (Float(1.0, min=0, max=1).tag(step=0.5), ipywidgets.FloatSlider, {"step": 0.5}),
        (Float(1.0, min=0), ipywidgets.FloatText, {}),
        (Float(1.0), ipywidgets.FloatText, {}),
        (Int(1, min=1, max=9), ipywidgets.IntSlider, {"min": 1, "max": 9}),
        (Int(1), ipywidgets.IntText, {}),
        (Bool(True), ipywidgets.Checkbox, {"description": "a field"}),
        (Enum([1, "x"], 1), ipywidgets.Dropdown, {"options": (("1", 1), ("x", "x"))}),
        (CaselessStrEnum(["a"], "a"), ipywidgets.Dropdown, {}),
        (UseEnum(Mode), ipywidgets.Dropdown, {"options": (("OFF", Mode.OFF), ("ON", Mode.ON))}),
        (Unicode(), ipywidgets.Text, {"continuous_update": False}),
        (Unicode().tag(multiline=True), ipywidgets.Textarea, {}),
        (Unicode().tag(label="Name"), ipywidgets.Text, {"description": "Name"}),
        (Unicode(help="What"), ipywidgets.Text, {"tooltip": "What"}),
        (Unicode(read_only=True), ipywidgets.Text, {"disabled": True}),
        (ipywidgets.Color("red"), ipywidgets.ColorPicker, {}),
        (List(Unicode()), ipywidgets.TagsInput, {}),
        (List(Enum(["a", "b"])), ipywidgets.SelectMultiple, {}),
        (List(), ipywidgets.Text, {"placeholder": "JSON"}),
        (traitlets.Dict(), ipywidgets.Text, {"placeholder": "JSON"}),
        (Int(1).tag(control=ipywidgets.IntProgress), ipywidgets.IntProgress, {}),
    ],
)
def test_widget_suits_the_trait(comms, trait, kind, facts):
    """Each kind of trait has its widget, with bounds, choices, label and help."""
    widget = make_control("a_field", trait)
    assert type(widget) is kind
    for name, value in facts.items():
        assert getattr(widget, name) == value


async def test_controls_are_one_per_field(comms):
    """`controls` makes one widget per field, or for the chosen ones, showing what holds."""
    async with AgentHarness(Thermostat) as harness:
        handle = harness.handle(Thermostat, "kitchen")
        box = controls(handle)
        values = [child.value for child in box.children]
        assert values == [20.0, True, "low", "hall", 3, "[]"]
        assert [child.value for child in controls(handle, "on", "fan").children] == [True, "low"]


async def test_moved_control_changes_the_state_for_everyone(comms, eventually):
    """A value set in a widget is written to the agent and reaches its clients."""
    async with AgentHarness(Thermostat) as harness:
        client = await harness.connect(Thermostat, "kitchen")
        slider = control(harness.handle(Thermostat, "kitchen"), "target")
        slider.value = 25.0
        await eventually(lambda: client.state["target"] == 25.0)
        assert harness.agent(Thermostat, "kitchen").target == 25.0


async def test_control_follows_the_agent(comms, eventually):
    """What a client or the agent changes is shown by the widget."""
    async with AgentHarness(Thermostat) as harness:
        client = await harness.connect(Thermostat, "kitchen")
        handle = harness.handle(Thermostat, "kitchen")
        box = controls(handle)
        slider, check, choice, text, _, plan = box.children
        await client.set_state(
            {"target": 6.0, "on": False, "fan": "high", "name_of_room": "attic", "plan": [1]}
        )
        await eventually(lambda: slider.value == 6.0)
        assert (check.value, choice.value, text.value) == (False, "high", "attic")
        assert plan.value == "[1]"


async def test_refused_value_moves_back_and_says_why(comms, eventually, capsys):
    """A value that the agent refuses is taken back, and the reason is shown."""
    async with AgentHarness(Thermostat) as harness:
        steps = control(harness.handle(Thermostat, "kitchen"), "steps")
        steps.value = 1_000
        await eventually(lambda: steps.value == 3)
        assert "At most 100 steps" in capsys.readouterr().err
        assert harness.agent(Thermostat, "kitchen").steps == 3


async def test_text_that_is_no_json_moves_back(comms, eventually, capsys):
    """A field written as JSON refuses what is none."""
    async with AgentHarness(Thermostat) as harness:
        plan = control(harness.handle(Thermostat, "kitchen"), "plan")
        plan.value = "[1, 2]"
        await eventually(lambda: harness.agent(Thermostat, "kitchen").plan == [1, 2])
        plan.value = "[1,"
        assert plan.value == "[1, 2]"
        assert "plan:" in capsys.readouterr().err


async def test_drag_is_written_once_at_a_time_and_ends_right(comms, eventually):
    """Of many moves only the newest waits, and the last one holds everywhere."""
    async with AgentHarness(Thermostat) as harness:
        agent = harness.agent(Thermostat, "kitchen")
        versions = []
        agent.observe(versions.append, "target")
        slider = control(harness.handle(Thermostat, "kitchen"), "target")
        for number in range(100):
            slider.value = 5 + number / 10
        await eventually(lambda: agent.target == 14.9)
        assert slider.value == 14.9
        assert len(versions) <= 3


async def test_closed_control_is_bound_no_more(comms, eventually):
    """A closed widget neither follows nor holds its handle."""
    async with AgentHarness(Thermostat) as harness:
        handle = harness.handle(Thermostat, "kitchen")
        slider = control(handle, "target")
        slider.close()
        handle.target = 9.0
        await harness.idle()
        assert slider.value == 20.0


async def test_field_that_is_not_there_is_named(comms):
    """An unknown field is refused with those that are known; a free-form state has none."""
    async with AgentHarness(Thermostat, Room) as harness:
        with pytest.raises(AttributeError, match="target, on, fan"):
            control(harness.handle(Thermostat, "kitchen"), "tarjet")
        with pytest.raises(TypeError, match="free-form"):
            controls(harness.handle(Room, "lobby"))


async def test_agents_code_runs_on_the_agents_thread(comms, eventually):
    """A widget moved on the main thread has the agent's validators run on the agents' own."""
    with SyncHarness(Thermostat) as harness:
        handle = harness.handle(Thermostat, "kitchen")
        THREADS.clear()
        steps = control(handle, "steps")
        steps.value = 7
        agent = harness.agent(Thermostat, "kitchen")
        await eventually(lambda: agent.steps == 7)
        assert set(THREADS) == {harness.host.thread_id}
        assert threading.get_ident() not in THREADS


async def test_browser_is_told_again_once_the_hand_is_still(comms, eventually):
    """After a move the widget says its value once more: another thread may have left it behind."""
    async with AgentHarness(Thermostat) as harness:
        slider = control(harness.handle(Thermostat, "kitchen"), "target")
        state = {"value": 11.0}
        slider.set_state(state)
        told = slider.comm
        count = len(told.sent)
        await eventually(
            lambda: any(
                data and data.get("state") == {"value": 11.0} for _, data, _ in told.sent[count:]
            )
        )
        await asyncio.sleep(0)
