"""The panel in a real JupyterLab: what a person sees and does, with clients on the other side."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from jupyter_agents.widgets.view import LiveView
from tests.browser.pages import SCREENSHOTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator

LIMIT_S = 10.0
AXE = Path(__file__).parents[1] / "conformance/node_modules/axe-core/axe.min.js"

ROOM = """
import asyncio
from jupyter_agents import Agent, callable_method, serve

class %(name)s(Agent):
    initial_state = {"topic": "tea", "votes": {"green": 2, "black": 1}, "n": 0}

    def on_message(self, connection, message):
        if message == "boom":
            raise ValueError("no such tea")
        self.set_state({**self.state, "n": self.state["n"] + 1})
        self.broadcast(message)

    @callable_method
    def shout(self, text: str, times: int = 1) -> str:
        "Say it louder."
        return text.upper() * times

    @callable_method
    async def count(self, to: int):
        "Count, one number a moment."
        for number in range(to):
            yield number
            await asyncio.sleep(0.05)

serve(%(name)s)
"""

THERMOSTAT = """
from traitlets import Bool, CaselessStrEnum, Float
from jupyter_agents import Agent, serve

class Thermostat(Agent):
    target = Float(20.0, min=5, max=30, help="In degrees").tag(sync=True)
    heating = Bool(False).tag(sync=True)
    fan = CaselessStrEnum(["low", "high"], "low").tag(sync=True)

kitchen = serve(Thermostat)["kitchen"]
kitchen.controls()
"""

MOMENT = {"version": 1, "size": 15, "at": 0, "by": None, "changes": 1}
TEXT = {"kind": "text", "data": "hello", "size": 5, "cut": False}

COUNT_VIEWS = """
from ipywidgets.widgets.widget import _instances
from jupyter_agents.serving import default_host
import comm
print(
    len(_instances), len(comm.get_comm_manager().comms), len(default_host()._watchers),
    len(default_host().mirrors)
)
"""


class Client:
    """A client of an agent, over its WebSocket."""

    def __init__(self, lab: Any, path: str) -> None:
        self.socket = lab.connect(f"agents/{path}")

    def send(self, message: str | bytes) -> None:
        """Send text, or bytes as binary."""
        (self.socket.send if isinstance(message, str) else self.socket.send_binary)(message)

    def until(self, fits: Any) -> Any:
        """The first message that fits, read as JSON where it is JSON."""
        self.socket.settimeout(LIMIT_S)
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            text = self.socket.recv()
            try:
                value = json.loads(text)
            except ValueError:
                value = text
            if fits(value):
                return value
        pytest.fail("The message never came")

    def until_state(self, fits: Any) -> Any:
        """The first state that fits."""
        return self.until(
            lambda value: (
                isinstance(value, dict)
                and value.get("type") == "cf_agent_state"
                and fits(value["state"])
            )
        )["state"]


@contextmanager
def clients(lab: Any, path: str, count: int) -> Iterator[list[Client]]:
    """Clients with the ids c0, c1, …."""
    made: list[Client] = []
    try:
        made += [Client(lab, f"{path}?_pk=c{number}") for number in range(count)]
        yield made
    finally:
        for one in made:
            one.socket.close()
            one.socket.shutdown()  # its own close leaves the file open once the server closed


def panel_of(page: Any) -> Locator:
    """The panel that a notebook shows."""
    found = page.page.locator(".ja-live[data-part=panel]")
    found.scroll_into_view_if_needed()
    return found


def turn_to(panel: Locator, key: str) -> Locator:
    """Choose a tab; returns the section."""
    panel.locator(f".ja-tab[data-key={key}]").click()
    return panel.locator(f".ja-section[data-key={key}]")


def picture(panel: Locator, label: str) -> None:
    """Keep a picture of the panel in the git-ignored folder."""
    SCREENSHOTS.mkdir(exist_ok=True)
    panel.screenshot(path=SCREENSHOTS / f"panel-{label}.png")


def test_panel_shows_clients_and_what_they_say(notebook, lab):
    """Running the cell shows the panel; who connects appears, with messages and state, live."""
    page = notebook(ROOM % {"name": "LiveRoom"})
    page.command("apputils:change-theme", {"theme": "JupyterLab Light"})
    page.run_all()
    panel = panel_of(page)
    expect(panel.locator(".ja-light-word")).to_have_text("Ready")
    expect(panel).to_contain_text("No connections yet.")
    with clients(lab, "live-room/lobby", 3) as (ann, bob, _):
        expect(panel.locator(".ja-light-word")).to_have_text("Live")
        expect(panel.locator(".ja-table .ja-name")).to_have_count(3)
        expect(panel.locator(".ja-address")).to_have_text(f"{lab.ws_url}agents/live-room/lobby")
        ann.send("hello")
        ann.send('{"vote": "green"}')
        bob.send(bytes(range(40)))
        log = panel.locator(".ja-section[data-key=messages]")
        expect(log.locator(".ja-message")).to_have_count(6)
        expect(log.locator(".ja-message.ja-in .ja-message-json").first).to_contain_text("green")
        expect(log.locator(".ja-message.ja-in").last).to_contain_text("40 bytes")
        expect(panel.locator("[role=treeitem][aria-label='n: 3']")).to_be_visible()
        picture(panel, "light")
        page.command("apputils:change-theme", {"theme": "JupyterLab Dark"})
        page.page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
        expect(panel.locator(".ja-string").first).to_have_css("color", "rgb(143, 211, 168)")
        picture(panel, "dark")
    expect(panel).to_contain_text("No connections yet.")
    assert page.errors == []


def test_panel_moves_agents_and_clients(notebook, lab):
    """The panel broadcasts, edits the state, and makes a connection read-only; clients see it."""
    page = notebook(ROOM % {"name": "MovedRoom"})
    page.run_all()
    panel = panel_of(page)
    with clients(lab, "moved-room/lobby", 2) as (ann, bob):
        panel.get_by_label("Message", exact=True).fill("to everyone")
        page.page.keyboard.press("Enter")
        assert ann.until(lambda m: m == "to everyone") == bob.until(lambda m: m == "to everyone")
        panel.get_by_label("Send to").select_option(label="c1")
        panel.get_by_label("Message", exact=True).fill("to bob")
        page.page.keyboard.press("Enter")
        bob.until(lambda m: m == "to bob")

        section = turn_to(panel, "state")
        section.locator("[role=treeitem][aria-label^='topic'] .ja-value").click()
        page.page.locator(".ja-edit").fill("coffee")
        page.page.keyboard.press("Enter")
        state = ann.until_state(lambda state: state["topic"] == "coffee")
        ann.send(json.dumps({"type": "cf_agent_state", "state": {**state, "topic": "milk"}}))
        expect(section.locator("[role=treeitem][aria-label='topic: \"milk\"']")).to_be_visible()
        expect(section.locator(".ja-caption").first).to_contain_text("c0")

        section.get_by_label("Show the past").click()
        section.get_by_label("One moment back").click()
        expect(section.locator(".ja-differences")).to_have_text('topic was "coffee", is "milk"')
        section.get_by_role("button", name="Restore").click()
        ann.until_state(lambda state: state["topic"] == "coffee")

        section = turn_to(panel, "connections")
        section.get_by_label("Make read-only: c1").click()
        expect(section.locator("tr", has_text="c1")).to_contain_text("read-only")
        bob.send(json.dumps({"type": "cf_agent_state", "state": {"topic": "no"}}))
        bob.until(lambda m: isinstance(m, dict) and m.get("type") == "cf_agent_state_error")
        section.get_by_label("Filter connections").fill("c0")
        expect(section.locator(".ja-table .ja-name")).to_have_count(1)


def test_calls_and_errors_are_shown(notebook, lab):
    """A form calls a method, a stream comes piece by piece, and a hook's error has a traceback."""
    page = notebook(ROOM % {"name": "CallRoom"})
    page.run_all()
    panel = panel_of(page)
    with clients(lab, "call-room/lobby", 1) as (ann,):
        expect(panel.locator(".ja-light-word")).to_have_text("Live")
        section = turn_to(panel, "calls")
        shout, count = section.locator(".ja-call").all()
        shout.locator("summary").click()
        shout.locator("input").first.fill("tea")
        shout.locator("input").last.fill("2")
        shout.get_by_role("button", name="Call").click()
        expect(shout.locator(".ja-result")).to_have_text('"TEATEA"')
        count.locator("summary").click()
        count.locator("input").fill("400")
        count.get_by_role("button", name="Stream").click()
        expect(count.locator(".ja-chunk").nth(3)).to_have_text("3")
        expect(panel.locator(".ja-tab[data-key=calls] .ja-count")).to_have_text("1")
        count.get_by_role("button", name="Cancel").click()
        expect(count.locator(".ja-call-status")).to_contain_text("ancelled")
        expect(section.locator(".ja-call-line")).to_have_count(2)
        ann.send("boom")
        expect(panel.locator(".ja-tab[data-key=problems] .ja-count")).to_have_text("1")
        section = turn_to(panel, "problems")
        expect(section).to_contain_text("ValueError: no such tea")
        section.locator("summary").click()
        expect(section.locator("pre")).to_contain_text("in on_message")


def test_panel_lives_while_a_cell_runs(notebook, lab):
    """While a cell keeps the kernel busy, the panel goes on, says so, and closes a connection."""
    page = notebook(ROOM % {"name": "BusyRoom"}, "import time\ntime.sleep(20)")
    page.run(0)
    panel = panel_of(page)
    with clients(lab, "busy-room/lobby", 2) as (ann, bob):
        expect(panel.locator(".ja-table .ja-name")).to_have_count(2)
        page.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1")
        page.begin("notebook:run-cell")
        expect(panel.locator(".ja-light-word")).to_have_text("Live, a cell is running")
        bob.send("while you work")
        expect(panel.locator(".ja-message").first).to_contain_text("while you work")
        panel.get_by_label("Make read-only: c1").click()
        expect(panel.get_by_label("Let write: c1")).to_be_visible()
        bob.send(json.dumps({"type": "cf_agent_state", "state": {"n": -1}}))
        refused = bob.until(lambda v: isinstance(v, dict) and "error" in v)
        assert refused == {"type": "cf_agent_state_error", "error": "Connection is readonly"}
        expect(panel.locator(".ja-light-word")).to_have_text("Live, a cell is running")
        began = time.monotonic()
        panel.get_by_label("Close c0").click()
        while ann.socket.connected:
            ann.socket.recv()
        assert time.monotonic() - began < 4
        expect(panel.locator(".ja-table .ja-name")).to_have_count(1)
        expect(panel.locator(".ja-light-word")).to_have_text("Live, a cell is running")
        page.command("notebook:interrupt-kernel")
        expect(panel.locator(".ja-light-word")).to_have_text("Live")


def test_running_the_cell_again_leaves_nothing_behind(notebook, lab):
    """After many runs there is one panel, with one widget, comm and watcher, and it is live."""
    page = notebook(ROOM % {"name": "AgainRoom"}, COUNT_VIEWS)
    page.run_all()
    panel_of(page)
    first = page.output(1).inner_text()
    for _ in range(4):
        page.run(0)
    page.run(1)
    expect(page.output(1)).to_have_text(first)
    panel = panel_of(page)
    expect(panel).to_have_count(1)
    with clients(lab, "again-room/lobby", 1):
        expect(panel.locator(".ja-table .ja-name")).to_have_count(1)


def test_panel_survives_a_reload_and_tells_of_a_restart(notebook, lab):
    """A reloaded page has its panel back; after a restart the old one says that it is dead."""
    page = notebook(ROOM % {"name": "BackRoom"})
    page.run_all()
    expect(panel_of(page).locator(".ja-light-word")).to_have_text("Ready")
    page.command("docmanager:save")
    with clients(lab, "back-room/lobby", 1) as (ann,):
        page.reload()
        page.wait_for_kernel()
        panel = panel_of(page)
        expect(panel.locator(".ja-light-word")).to_have_text("Live")
        ann.send("after the reload")
        expect(panel.locator(".ja-message").first).to_contain_text("after the reload")
        page.restart()
        expect(panel.locator(".ja-light-word")).to_have_text("Kernel away")
        page.run(0)
        expect(panel_of(page).locator(".ja-light-word")).to_have_text("Live")
        expect(panel_of(page).locator(".ja-table .ja-name")).to_have_count(1)


def test_flood_leaves_browser_and_kernel_usable(notebook, lab):
    """T209: at 1000 events a second page and kernel keep going, and the end is right."""
    page = notebook(ROOM % {"name": "FloodRoom"}, "print('answered')")
    page.run(0)
    panel = panel_of(page)
    with clients(lab, "flood-room/lobby", 1) as (ann,):
        expect(panel.locator(".ja-light-word")).to_have_text("Live")
        page.page.evaluate(
            """() => {
                window.longest = 0;
                let last = performance.now();
                const step = (now) => {
                    window.longest = Math.max(window.longest, now - last);
                    last = now;
                    requestAnimationFrame(step);
                };
                requestAnimationFrame(step);
            }"""
        )
        began = time.monotonic()
        for second in range(3):
            for number in range(1000):
                ann.send(str(second * 1000 + number))
            time.sleep(max(0, began + second + 1 - time.monotonic()))
        page.run(1)
        expect(page.output(1)).to_have_text("answered\n")
        assert time.monotonic() - began < 8
        expect(panel.locator("[role=treeitem][aria-label='n: 3000']")).to_be_visible()
        expect(panel.locator(".ja-message").last).to_contain_text("2999")
        expect(panel.locator(".ja-table tbody .ja-col-number").first).to_have_text("3,000")
        assert panel.locator(".ja-messages > li").count() <= 500
        assert page.page.evaluate("window.longest") < 1500


def test_thousand_connections_stay_smooth(notebook, lab):
    """Of 1000 connections only the rows in sight are drawn; scrolling and filter find the rest."""
    page = notebook(ROOM % {"name": "CrowdRoom"})
    page.run_all()
    panel = panel_of(page)
    with clients(lab, "crowd-room/lobby", 1000):
        rows = turn_to(panel, "connections").locator("tbody tr:not(.ja-space)")
        expect(panel.locator(".ja-tab[data-key=connections]")).to_contain_text("1,000")
        expect(rows.first).to_contain_text("c999")
        assert rows.count() < 60
        panel.locator("[aria-label='Connections'].ja-scroll").evaluate(
            "(area) => { area.scrollTop = area.scrollHeight; }"
        )
        expect(rows.last).to_contain_text("c0")
        assert rows.count() < 60
        panel.get_by_label("Filter connections").fill("c77")
        expect(rows).to_have_count(11)
        expect(rows.first).to_contain_text("c779")
    expect(panel).to_contain_text("No connections yet.")
    assert page.errors == []


def test_controls_are_bound_both_ways(notebook, lab):
    """A slider moves the agent and its clients, and follows them."""
    page = notebook(THERMOSTAT)
    page.run_all()
    slider = page.output(0).locator("[role=slider]")
    expect(slider).to_have_attribute("aria-valuenow", "20.0")
    with clients(lab, "thermostat/kitchen", 1) as (ann,):
        state = ann.until_state(lambda state: state["target"] == 20)
        changed = {**state, "target": 25, "heating": True}
        ann.send(json.dumps({"type": "cf_agent_state", "state": changed}))
        expect(slider).to_have_attribute("aria-valuenow", "25.0")
        expect(page.output(0).locator("input[type=checkbox]")).to_be_checked()
        slider.focus()
        page.page.keyboard.press("ArrowRight")
        ann.until_state(lambda state: state["target"] == 25.1)
        page.output(0).locator("select").select_option("high")
        ann.until_state(lambda state: state["fan"] == "high")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_panel_is_accessible(notebook, lab, theme):
    """Axe-core finds no violation in any view of the panel, light or dark."""
    if not AXE.exists():
        pytest.skip("run `npm ci` in tests/conformance")
    page = notebook(ROOM % {"name": "OpenRoom"})
    page.run_all()
    panel = panel_of(page)
    page.command("apputils:change-theme", {"theme": theme})
    page.page.add_script_tag(path=AXE)
    with clients(lab, "open-room/lobby", 2) as (ann, _):
        ann.send("hello")
        ann.send("boom")
        expect(panel.locator(".ja-message").first).to_be_visible()
        for key in ("overview", "connections", "state", "messages", "calls", "problems"):
            turn_to(panel, key)
            found = page.page.evaluate(
                "async () => (await axe.run('.ja-live')).violations.map("
                "(v) => v.id + ': ' + v.nodes.map((node) => node.html).join(' '))"
            )
            assert found == [], key


def test_saved_picture_is_shown_without_a_kernel(context):
    """Where no kernel answers, as in an export, the panel shows what was saved, and says so."""
    still = {
        "about": {"class": "Room", "name": "lobby", "path": "agents/room/lobby", "light": "live"},
        "state": {
            "fields": {},
            "past": [],
            "now": {**MOMENT, "value": {"json": {"topic": "tea"}}},
        },
        "messages": {
            "entries": [{"n": 1, "at": 0, "do": "all", "count": 2, **TEXT}],
            "skipped": 0,
        },
    }
    page = context.new_page()
    page.set_content("<div id='place'></div>")
    page.add_style_tag(content=LiveView._css)
    page.evaluate(
        """async ([source, still]) => {
            const url = URL.createObjectURL(new Blob([source], {type: "text/javascript"}));
            const {default: view} = await import(url);
            const traits = {_still: still, _part: "panel"};
            const quiet = () => {};
            const model = {get: (name) => traits[name], set: quiet, on: quiet, off: quiet};
            view.render({model: {...model, send: quiet}, el: document.getElementById("place")});
        }""",
        [LiveView._esm, still],
    )
    expect(page.locator(".ja-light-word")).to_have_text("Still picture")
    expect(page.locator("[role=treeitem][aria-label='topic: \"tea\"']")).to_be_visible()
    expect(page.locator(".ja-message")).to_contain_text("hello")


def test_panel_works_in_notebook_7(notebook, lab):
    """The same panel, live, in Notebook 7."""
    page = notebook(ROOM % {"name": "SevenRoom"})
    page.run_all()
    page.command("docmanager:save")
    seven = page.page.context.new_page()
    seven.goto(f"{lab.url}notebooks/{page.path}?token={lab.token}")
    panel = seven.locator(".ja-live[data-part=panel]")
    expect(panel.locator(".ja-light-word")).to_have_text("Ready")
    with clients(lab, "seven-room/lobby", 1) as (ann,):
        ann.send("hello")
        expect(panel.locator(".ja-message").first).to_contain_text("hello")
        panel.scroll_into_view_if_needed()
        picture(panel, "notebook-7")
    seven.close()
