"""The side bar, the inspector and their commands, in a real JupyterLab with real agents."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.pages import SCREENSHOTS
from tests.live import connected

AXE = Path(__file__).parents[1] / "conformance/node_modules/axe-core/axe.min.js"

CHAT = '''
from jupyter_agents import Agent, callable_method, serve

class {name}(Agent):
    initial_state = {{"count": 0}}

    def on_message(self, connection, message):
        self.set_state({{"count": self.state["count"] + 1}})
        self.broadcast(message)

    @callable_method
    def shout(self, text: str) -> str:
        """Say it louder."""
        return text.upper()

serve({name});
'''


@pytest.fixture
def served(notebook):
    """`served("Room")`: a tab whose notebook serves a class of this name, the side bar open."""

    def serve(name: str):
        page = notebook(CHAT.format(name=name))
        page.command("agents:show-panel")
        page.run_all()
        return page

    return serve


def instance(page, agent, name):
    """The side bar's line of one instance."""
    return page.page.locator(f".jp-Agents-instance[data-agent='{agent}'][data-name='{name}']")


def inspector(page, part):
    """One of the inspector's four parts."""
    return page.page.locator(f".jp-AgentInspector section[aria-label='{part}']")


def open_inspector(page, agent, name):
    """Open it as a click in the side bar does, and wait until it is connected."""
    instance(page, agent, name).locator(".jp-Agents-open").click()
    expect(page.page.locator(".jp-AgentInspector-header")).to_contain_text("Connected")


def connections_of(page, agent, name):
    """Ids of the connections, as the server's API lists them."""
    return [
        c["id"] for c in page.server.request("GET", f"api/agents/{agent}/{name}")["connections"]
    ]


def test_agent_appears_as_its_cell_runs(notebook):
    """The tree shows class and instances when they come to be, and counts connections live."""
    page = notebook(CHAT.format(name="Appearing"))
    page.command("agents:show-panel")
    expect(page.page.locator(".jp-Agents-class[data-agent='appearing']")).to_have_count(0)
    page.run_all()
    expect(page.page.locator(".jp-Agents-class[data-agent='appearing']")).to_be_visible()
    line = instance(page, "appearing", "lobby")
    with connected(page.server, "agents/appearing/lobby"):
        expect(line).to_contain_text("1 connection")
        with connected(page.server, "agents/appearing/lobby"):
            expect(line).to_contain_text("2 connections")
            expect(page.page.locator(".jp-Agents-statusItem")).to_have_attribute(
                "title", re.compile("2 connections")
            )
            page.screenshot()
    expect(line).to_contain_text("0 connections")
    assert page.errors == []


def test_inspector_shows_messages_and_state_as_they_move(served):
    """What a client sends appears in the log, and the state it changes in the tree."""
    page = served("Moving")
    with connected(page.server, "agents/moving/lobby") as client:
        open_inspector(page, "moving", "lobby")
        client.send("good morning")
        expect(inspector(page, "Messages")).to_contain_text("good morning")
        expect(inspector(page, "State").get_by_role("treeitem", name="count: 1")).to_be_visible()
        rows = inspector(page, "Connections").locator("tbody tr")
        expect(rows).to_have_count(2)
        page.screenshot()
    expect(rows).to_have_count(1)
    assert page.errors == []


def test_inspector_sends_calls_and_edits(served):
    """From the inspector one can send a message, call a method and change the state."""
    page = served("Doing")
    with connected(page.server, "agents/doing/lobby"):
        open_inspector(page, "doing", "lobby")
    messages, calls, state = (inspector(page, part) for part in ("Messages", "Calls", "State"))
    messages.get_by_label("Message", exact=True).fill("from the inspector")
    messages.get_by_role("button", name="Send").click()
    expect(messages.locator(".ja-in")).to_contain_text("from the inspector")
    calls.get_by_label("text").fill("hello")
    calls.get_by_role("button", name="Call").click()
    expect(calls).to_contain_text("HELLO")
    state.get_by_text("1", exact=True).click()
    state.get_by_label("Value of count").fill("41")
    state.get_by_label("Value of count").press("Enter")
    messages.get_by_label("Message", exact=True).fill("again")
    messages.get_by_role("button", name="Send").click()
    expect(state.get_by_role("treeitem", name="count: 42")).to_be_visible()
    assert page.errors == []


def test_inspector_closes_a_connection(served):
    """The button of a row sends that connection away, and no other."""
    page = served("Closing")
    with connected(page.server, "agents/closing/lobby?_pk=unwelcome"):
        open_inspector(page, "closing", "lobby")
        inspector(page, "Connections").get_by_label("Close the connection unwelcome").click()
        rows = inspector(page, "Connections").locator("tbody tr")
        expect(rows.filter(has_text="unwelcome")).to_have_count(0)
        expect(rows).to_have_count(1)
        assert "unwelcome" not in connections_of(page, "closing", "lobby")
        assert len(connections_of(page, "closing", "lobby")) == 1


def test_inspector_makes_a_connection_readonly(served):
    """The lock of a row takes the right to write the state away, and gives it back."""
    page = served("Locking")
    with connected(page.server, "agents/locking/lobby?_pk=guest") as guest:
        open_inspector(page, "locking", "lobby")
        connections = inspector(page, "Connections")
        connections.get_by_label("Make read-only: guest").click()
        expect(connections.locator("tbody tr", has_text="read-only")).to_have_count(1)
        guest.send(json.dumps({"type": "cf_agent_state", "state": {"count": 50}}))
        connections.get_by_label("Let write: guest").click()
        expect(connections.locator("tbody tr", has_text="read-only")).to_have_count(0)
        expect(inspector(page, "State").get_by_role("treeitem", name="count: 0")).to_be_visible()
        guest.send(json.dumps({"type": "cf_agent_state", "state": {"count": 60}}))
        expect(inspector(page, "State").get_by_role("treeitem", name="count: 60")).to_be_visible()
    assert page.errors == []


def test_thousand_connections_are_no_burden(served):
    """The inspector draws the newest, says how many more there are, and finds any of them."""
    page = served("Crowd")
    with ExitStack() as crowd:
        for number in range(1000):
            crowd.enter_context(connected(page.server, f"agents/crowd/lobby?_pk=c{number}"))
        expect(instance(page, "crowd", "lobby")).to_contain_text("1000 connections")
        open_inspector(page, "crowd", "lobby")
        connections = inspector(page, "Connections")
        expect(connections).to_contain_text("801 older connections not shown")
        expect(connections.locator("tbody tr")).to_have_count(200)
        connections.get_by_label("Filter connections").fill("c7")
        expect(connections.locator("tbody tr")).to_have_count(111)
        connections.get_by_label("Filter connections").fill("c77")
        connections.get_by_label("Close the connection c777").click()
        expect(connections.locator("tbody tr")).to_have_count(10)
        expect(instance(page, "crowd", "lobby")).to_contain_text("1000 connections")
        connections.get_by_label("Filter connections").fill("nobody")
        expect(connections).to_contain_text("No connection fits the filter.")
    assert page.errors == []


def test_inspector_fits_a_narrow_tab(served):
    """Where there is little room the four parts stand below each other, and all are in reach."""
    page = served("Narrow")
    page.page.set_viewport_size({"width": 900, "height": 800})
    with connected(page.server, "agents/narrow/lobby?_pk=guest"):
        open_inspector(page, "narrow", "lobby")
        expect(inspector(page, "Calls")).to_contain_text("shout")
        own = inspector(page, "Connections").locator("tbody tr", has_text="this tab")
        expect(own).to_have_count(1)  # by now all that is shown is there, and nothing moves
        places = [
            inspector(page, part).bounding_box()
            for part in ("Connections", "State", "Messages", "Calls")
        ]
        assert len({place["x"] for place in places}) == 1
        assert all(a["y"] + a["height"] < b["y"] + 1 for a, b in pairwise(places))
        connections = inspector(page, "Connections")
        assert connections.locator("tbody").bounding_box()["width"] <= places[0]["width"]
        expect(connections.get_by_label("Close the connection guest")).to_be_in_viewport(ratio=1)
        header = page.page.locator(".jp-AgentInspector-header")
        button = header.get_by_role("button", name="Copy address").bounding_box()
        assert button["y"] + button["height"] < places[0]["y"] + 1


def test_inspector_is_restored_after_a_reload(served, eventually_saved):
    """Loading the page again brings the inspector back, connected to the same instance."""
    page = served("Lasting")
    with connected(page.server, "agents/lasting/lobby"):
        open_inspector(page, "lasting", "lobby")
    eventually_saved(page, "jupyter-agents:lasting/lobby")
    page.reload()
    page.command("agents:open-inspector", {"agent": "lasting", "name": "lobby"})
    expect(page.page.locator(".jp-AgentInspector")).to_have_count(1)
    expect(page.page.locator(".jp-AgentInspector-header")).to_contain_text("Connected")


@pytest.fixture
def eventually_saved():
    """`eventually_saved(page, key)`: wait until Lab has saved its layout with this in it."""

    def wait(page, key):
        workspace = re.search(r"/workspaces/([^/?]+)", page.page.url)
        assert workspace
        deadline = time.monotonic() + 15
        while True:
            status, body = page.server.fetch("GET", f"lab/api/workspaces/{workspace[1]}")
            if status == 200 and key.encode() in body:
                return
            assert time.monotonic() < deadline, body
            page.page.wait_for_timeout(50)

    return wait


def test_context_menu_copies_the_address(served):
    """The copied address is where a client can connect."""
    page = served("Copied")
    with connected(page.server, "agents/copied/lobby"):
        instance(page, "copied", "lobby").click(button="right")
        page.page.get_by_role("menuitem", name="Copy Agent Address").click()
        page.page.wait_for_function(
            "async () => (await navigator.clipboard.readText()).startsWith('ws')"
        )
    address = page.page.evaluate("() => navigator.clipboard.readText()")
    assert address == f"{page.server.ws_url}agents/copied/lobby"


def count_in(client):
    """The count in the next state that the agent tells."""
    while '"cf_agent_state"' not in (frame := client.recv(timeout=10)):
        pass
    return json.loads(frame)["state"]["count"]


def confirm(page, command, address):
    """Execute a command that asks, decline first, then say yes."""
    dialog = page.page.locator(".jp-Dialog")
    for button in (".jp-mod-reject", ".jp-mod-accept"):
        page.begin(command, address)
        expect(dialog).to_contain_text(f"{address['agent']}/{address['name']}")
        dialog.locator(button).click()
        expect(dialog).to_have_count(0)


def test_stop_asks_first_and_keeps_the_state(served):
    """A stopped agent closes its connections, and wakes with its state when it is used again."""
    page = served("Stopped")
    address = {"agent": "stopped", "name": "lobby"}
    with connected(page.server, "agents/stopped/lobby") as client:
        assert count_in(client) == 0
        client.send("one")
        assert count_in(client) == 1
        confirm(page, "agents:stop", address)
        expect(instance(page, **address)).to_contain_text("0 connections")
        expect(instance(page, **address).get_by_role("img")).to_have_attribute(
            "data-state", "asleep"
        )
    with connected(page.server, "agents/stopped/lobby") as client:
        assert count_in(client) == 1


def test_reset_asks_first_and_keeps_the_connections(served):
    """A reset agent starts anew with its initial state, under the connections that are there."""
    page = served("Renewed")
    with connected(page.server, "agents/renewed/lobby") as client:
        client.send("one")
        assert (count_in(client), count_in(client)) == (0, 1)
        confirm(page, "agents:reset", {"agent": "renewed", "name": "lobby"})
        assert count_in(client) == 0
        expect(instance(page, "renewed", "lobby")).to_contain_text("1 connection")


def test_running_panel_lists_agents(served):
    """Lab's own panel of running things has a section for agents."""
    page = served("Listed")
    with connected(page.server, "agents/listed/lobby"):
        page.command("running:show-panel")
        expect(page.page.locator(".jp-RunningSessions-item.jp-Agents-running")).to_contain_text(
            "listed/lobby"
        )
        page.screenshot()


def test_launcher_card_makes_a_notebook_that_works(lab_page):
    """The card creates a notebook whose cells run as they are, and its agent is served."""
    page = lab_page.page
    card = page.locator(".jp-LauncherCard", has_text="Agent Notebook")
    expect(card).to_be_visible()
    lab_page.screenshot("launcher")
    card.click()
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel"
    )
    page.evaluate("async () => window.jupyterapp.shell.currentWidget.sessionContext.ready")
    lab_page.command("notebook:run-all-cells")
    outputs = page.locator(".jp-Notebook .jp-OutputArea-output")
    expect(outputs.last).to_have_text(re.compile("1"))
    assert page.locator(".jp-RenderedText[data-mime-type*='error']").count() == 0
    lab_page.command("agents:show-panel")
    expect(page.locator(".jp-Agents-class[data-agent='counter']")).to_be_visible()
    for session in lab_page.server.request("GET", "api/sessions"):
        lab_page.server.request("DELETE", f"api/sessions/{session['id']}")


def test_palette_offers_the_commands(lab_page):
    """What can be done now is found under "Agents" in the palette; the rest is hidden."""
    page = lab_page.page
    lab_page.command("apputils:activate-command-palette")
    page.locator("#modal-command-palette .lm-CommandPalette-input").fill("agent")
    items = page.locator(".lm-CommandPalette-itemLabel")
    expect(items.filter(has_text="Restart Agents")).to_be_hidden()
    for label in ("New Agent Notebook", "Show Agents"):
        expect(items.filter(has_text=label)).to_be_visible()


def test_kernel_that_goes_leaves_its_class_parked(served):
    """While the kernel is away its class is shown as such, and comes back with it."""
    page = served("Parking")
    light = page.page.locator(".jp-Agents-class[data-agent='parking'] > summary .jp-Agents-light")
    expect(light).to_have_attribute("data-state", "live")
    with connected(page.server, "agents/parking/lobby"):
        page.restart()
        expect(light).to_have_attribute("data-state", "parked")
        page.run_all()
        expect(light).to_have_attribute("data-state", "live")
        expect(instance(page, "parking", "lobby")).to_contain_text("1 connection")


PLUGINS = ["plugin", "panel", "inspector", "running", "status"]


def test_every_plugin_starts_in_notebook_7(served):
    """Notebook 7 has no status bar and no main area for tabs: what needs them leaves them out."""
    page = served("Seventh")
    page.command("docmanager:save")
    seven = page.page.context.new_page()
    said = []
    seven.on("console", lambda message: said.append(message.text))
    seven.on("pageerror", lambda error: said.append(str(error)))
    seven.goto(f"{page.server.url}notebooks/{page.path}?token={page.server.token}")
    seven.wait_for_function("() => window.jupyterapp !== undefined")
    seven.evaluate("async () => { await window.jupyterapp.restored; }")
    started = seven.evaluate(
        "(names) => names.filter("
        "(name) => window.jupyterapp.isPluginActivated(`jupyter-agents:${name}`))",
        PLUGINS,
    )
    assert started == PLUGINS
    assert [
        text for text in said if "failed to activate" in text or "jupyter-agents" in text
    ] == []
    seven.evaluate("() => window.jupyterapp.commands.execute('agents:show-panel')")
    line = seven.locator(".jp-Agents-instance[data-agent='seventh']")
    with connected(page.server, "agents/seventh/lobby"):
        expect(line).to_be_visible()
        SCREENSHOTS.mkdir(exist_ok=True)
        seven.screenshot(path=SCREENSHOTS / "sidebar-notebook-7.png")
        with page.page.context.expect_page() as opened:
            line.locator(".jp-Agents-open").click()
    expect(opened.value.get_by_role("heading", name="lobby")).to_be_visible()
    assert opened.value.url.endswith("/agents/seventh/lobby")
    opened.value.close()
    seven.close()


def test_server_without_the_extension_is_named(lab_page):
    """Where the server part is missing, the side bar says so and what to do."""
    page = lab_page.page
    page.route(re.compile("/api/agents"), lambda route: route.fulfill(status=404, body="no"))
    page.route_web_socket(re.compile("/api/agents/events"), lambda socket: socket.close())
    lab_page.reload()
    lab_page.command("agents:show-panel")
    expect(page.locator(".jp-Agents-status")).to_contain_text("no jupyter_agents")


def test_empty_side_bar_says_what_to_do(lab_page):
    """With nothing served there is an invitation, and no error."""
    lab_page.command("agents:show-panel")
    page = lab_page.page
    hosts = lab_page.server.request("GET", "api/agents")["hosts"]
    assert not [host for host in hosts if host["agents"]]
    expect(page.locator(".jp-Agents-empty")).to_contain_text("serve(MyAgent)")


def test_status_item_obeys_its_setting(lab_page):
    """The status bar's count can be switched off."""
    item = lab_page.page.locator(".jp-Agents-statusItem")
    expect(item).to_be_visible()
    try:
        set_setting(lab_page, "showInStatusBar", "false")
        lab_page.reload()
        expect(lab_page.page.locator(".jp-Agents-statusItem")).to_be_hidden()
    finally:
        set_setting(lab_page, "showInStatusBar", "true")


def set_setting(page, name, value):
    """Write a user setting as the settings editor does."""
    raw = {"raw": f'{{"{name}": {value}}}'}
    page.server.request("PUT", "lab/api/settings/jupyter-agents:plugin", raw)


def test_view_without_the_stream_is_kept_by_polling(served):
    """With `updates` set to poll no stream is opened, and the tree follows all the same."""
    page = served("Polled")
    set_setting(page, "updates", '"poll", "pollSeconds": 1')
    try:
        streams = []
        page.page.on("websocket", lambda socket: streams.append(socket.url))
        page.reload()
        page.command("agents:show-panel")
        with connected(page.server, "agents/polled/lobby"):
            expect(instance(page, "polled", "lobby")).to_contain_text("1 connection")
        assert not [url for url in streams if "api/agents/events" in url]
    finally:
        set_setting(page, "updates", '"live"')


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_side_bar_and_inspector_are_accessible(served, theme):
    """The checker axe finds nothing to object to, in both of Lab's themes."""
    if not AXE.exists() and not os.environ.get("CI"):
        pytest.skip("run `npm ci` in tests/conformance")
    name = f"Seen{theme.split()[-1].lower()}"
    page = served(name)
    page.command("apputils:change-theme", {"theme": theme})
    agent = name.lower()
    try:
        with connected(page.server, f"agents/{agent}/lobby") as client:
            open_inspector(page, agent, "lobby")
            client.send('{"order": ["sencha", "oolong"]}')
            expect(inspector(page, "Messages").locator(".ja-in")).to_be_visible()
            expect(inspector(page, "Calls").get_by_role("button", name="Call")).to_be_visible()
            page.screenshot()
            page.page.add_script_tag(path=AXE)
            found = page.page.evaluate(
                "axe.run({include: [['.jp-Agents'], ['.jp-AgentInspector']]})"
            )
    finally:
        page.command("apputils:change-theme", {"theme": "JupyterLab Light"})
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
