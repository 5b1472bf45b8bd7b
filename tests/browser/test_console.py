"""The page that an agent's own address shows, in a real browser before a real kernel."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.live import running, start_server  # noqa: F401

SCREENSHOTS = Path(__file__).parent / "screenshots"
AXE = Path(__file__).parents[1] / "conformance/node_modules/axe-core/axe.min.js"
PHONE = {"width": 390, "height": 780}

CELL = """
import asyncio, json
from typing import Literal
from jupyter_agents import Agent, StateRejected, callable_method, serve

class TeaRoom(Agent):
    initial_state = {"seats": 12, "menu": ["sencha", "assam"], "open": True}

    def on_connect(self, connection, ctx):
        connection.send("welcome, " + ctx.query.get("role", "guest"))

    def on_message(self, connection, message):
        if message == "out":
            connection.close(4001, "Closing time")
        else:
            self.broadcast(message)

    def validate_state_change(self, next_state, source):
        if next_state["seats"] > 30:
            raise StateRejected("the room has at most 30 seats")

    @callable_method
    def shout(self, text: str, times: int = 1) -> str:
        \"\"\"Say it loudly.\"\"\"
        return text.upper() * times

    @callable_method
    async def brew(self, kind: Literal["green", "black"]):
        for word in ("warming, ", "steeping, ", kind):
            yield word
            await asyncio.sleep(0.01)

    @callable_method
    async def wait(self):
        yield "waiting"
        await asyncio.Event().wait()

room = serve(TeaRoom)
"""


class Console:
    """The page as a person sees it."""

    def __init__(self, page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.status = page.locator("#status")
        self.log = page.get_by_role("log")
        self.problem = page.locator("#state-problem")

    def open(self, server, name="lobby", query=""):
        """Open the agent's own address, with the server's token as a person would."""
        self.page.goto(f"{server.url}agents/tea-room/{name}?token={server.token}{query}")
        expect(self.status).to_have_text("Connected")
        return self

    def send(self, text):
        """Type a message and press Enter."""
        self.page.get_by_role("textbox", name="Message").fill(text)
        self.page.keyboard.press("Enter")

    def row(self, name):
        """A line of the state, by its key."""
        return self.page.get_by_role("treeitem", name=re.compile(rf"^{re.escape(name)}: "))

    def form(self, method):
        """A callable's form, opened."""
        form = self.page.locator("details.ja-call", has_text=re.compile(rf"^{method}\("))
        if form.get_attribute("open") is None:
            form.locator("summary").click()
        return form


@pytest.fixture(scope="module")
def tea(request, tmp_path_factory):
    """A server whose kernel serves TeaRoom, under a base URL."""
    home = tmp_path_factory.mktemp("tea")
    with running(request.config, home, base_url="/user/ann/") as server:
        kernel = server.kernel()
        kernel.run(CELL)
        yield server
        kernel.shutdown()


@pytest.fixture
def console(context):
    """The page in a tab of its own."""
    found = Console(context.new_page())
    yield found
    assert found.errors == []


def test_token_leaves_the_address_bar_and_the_query_reaches_the_agent(console, tea):
    """The token signs in and is seen no more; what else the query says is the agent's to read."""
    console.open(tea, "query", "&role=admin")
    expect(console.log).to_contain_text("welcome, admin")
    assert tea.token not in console.page.url
    assert console.page.url.endswith("/user/ann/agents/tea-room/query?role=admin")
    console.page.reload()  # the sign-in's cookie does now
    expect(console.status).to_have_text("Connected")


def test_messages_of_every_kind_are_told_apart(console, tea):
    """Text, JSON and binary go out and come back, each shown as what it is."""
    console.open(tea, "messages")
    console.send("two cups, please")
    expect(console.log.locator(".ja-out")).to_have_text(re.compile("two cups, please"))
    expect(console.log.locator(".ja-in").last).to_contain_text("two cups, please")
    console.send('{"order": ["sencha"]}')
    expect(console.log.locator(".ja-in .ja-tag-json")).to_have_text("JSON")
    console.page.locator("#file").set_input_files(
        {"name": "x.bin", "mimeType": "application/octet-stream", "buffer": bytes(range(20))}
    )
    expect(console.log.locator(".ja-in .ja-tag-binary")).to_have_text("binary")
    expect(console.log.locator(".ja-in").last).to_contain_text("20 bytes")
    console.page.locator("#draft").press("ArrowUp")
    expect(console.page.locator("#draft")).to_have_value('{"order": ["sencha"]}')


def test_markup_in_a_message_stays_text(console, tea):
    """What a stranger sends can do nothing on the page."""
    console.open(tea, "markup")
    console.send("<img src=x onerror='document.title=1'><b>bold</b>")
    expect(console.log.locator(".ja-in").last).to_contain_text("<b>bold</b>")
    expect(console.log.locator("img, b")).to_have_count(0)


def test_state_is_edited_in_place_and_shown_to_others(console, tea, context):
    """An edit reaches the agent and another page; one that the agent refuses rolls back."""
    console.open(tea, "state")
    other = Console(context.new_page()).open(tea, "state")
    console.row("seats").locator(".ja-value").click()
    console.page.keyboard.type("20")
    console.page.keyboard.press("Enter")
    expect(other.row("seats")).to_have_attribute("aria-label", "seats: 20")
    console.row("seats").press("F2")
    console.page.keyboard.type("99")
    console.page.keyboard.press("Enter")
    expect(console.problem).to_have_text("Not changed: the room has at most 30 seats")
    expect(console.row("seats")).to_have_attribute("aria-label", "seats: 20")
    other.row("open").locator(".ja-value").click()
    expect(console.row("open")).to_have_attribute("aria-label", "open: false")


def test_state_is_edited_by_keyboard_alone(console, tea):
    """Arrows move, + adds to a list, Delete removes, and the whole can be written as JSON."""
    console.open(tea, "keyboard")
    console.page.get_by_role("treeitem", name="state").focus()
    for _ in range(2):
        console.page.keyboard.press("ArrowDown")
    expect(console.row("menu")).to_be_focused()
    console.page.keyboard.press("+")
    console.page.keyboard.type("oolong")
    console.page.keyboard.press("Enter")
    added = console.row("menu.2")
    expect(added).to_have_attribute("aria-label", 'menu.2: "oolong"')
    console.row("menu.0").press("Delete")
    expect(console.row("menu.1")).to_have_attribute("aria-label", 'menu.1: "oolong"')
    expect(console.row("menu.2")).to_have_count(0)
    console.page.get_by_role("button", name="Edit as JSON").press("Enter")
    editor = console.page.get_by_role("textbox", name="State as JSON")
    editor.fill('{"seats": 1, "menu": []')
    editor.press("Control+Enter")
    expect(console.page.locator(".ja-text-editor .ja-problem")).not_to_be_empty()
    editor.fill('{"seats": 1, "menu": []}')
    editor.press("Control+Enter")
    expect(console.row("seats")).to_have_attribute("aria-label", "seats: 1")


def test_calls_have_a_form_from_their_signature(console, tea):
    """Parameters become fields; results, chunks and a cancelled stream are shown."""
    console.open(tea, "calls")
    shout = console.form("shout")
    expect(shout).to_contain_text("Say it loudly.")
    shout.get_by_label("text").fill("tea")
    shout.get_by_label("times").fill("2")
    shout.get_by_role("button", name="Call").click()
    expect(shout.locator(".ja-result")).to_have_text('"TEATEA"')
    brew = console.form("brew")
    brew.get_by_label("kind").select_option("black")
    brew.get_by_role("button", name="Stream").click()
    expect(brew.locator(".ja-chunks")).to_have_text("warming, steeping, black")
    expect(brew.get_by_role("status")).to_contain_text("3 chunks")
    wait = console.form("wait")
    wait.get_by_role("button", name="Stream").click()
    expect(wait.locator(".ja-chunks")).to_have_text("waiting")
    wait.get_by_role("button", name="Cancel").click()
    expect(wait.get_by_role("status")).to_have_text("Cancelled")


def test_final_close_says_why_and_waits_for_a_person(console, tea):
    """Close code 4001 stops the page for good, until somebody asks it to reconnect."""
    console.open(tea, "final")
    console.send("out")
    expect(console.status).to_have_text("Closed: 4001 Closing time")
    console.page.get_by_role("button", name="Reconnect").click()
    expect(console.status).to_have_text("Connected")


def test_page_comes_back_after_a_restart_of_the_server(console, start_server):  # noqa: F811
    """The page waits, reconnects to the new server, and sends what was written meanwhile."""
    server = start_server(base_url="/user/ann/")
    first = server.kernel()
    first.run(CELL)
    console.open(server)
    first.shutdown()
    server.stop()
    expect(console.status).to_have_text("Reconnecting…")
    console.send("are you there?")
    expect(console.log.locator(".ja-out")).to_contain_text("waits for the connection")
    second = server.start().kernel()
    second.run(CELL)
    expect(console.status).to_have_text("Connected", timeout=20_000)
    expect(console.log.locator(".ja-in").last).to_contain_text("are you there?")
    second.shutdown()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_page_is_accessible(chromium, tea, scheme, size):
    """The checker axe finds nothing to object to, in light and dark, wide and on a phone."""
    if not AXE.exists() and not os.environ.get("CI"):
        pytest.skip("run `npm ci` in tests/conformance")
    shape = {"viewport": PHONE, "has_touch": True} if size == "phone" else {}
    context = chromium.new_context(color_scheme=scheme, reduced_motion="reduce", **shape)
    console = Console(context.new_page()).open(tea, "axe")
    console.send('{"order": ["sencha", "oolong"], "table": 3}')
    expect(console.log.locator(".ja-in .ja-tag-json")).to_be_visible()
    SCREENSHOTS.mkdir(exist_ok=True)
    for tab in ("Messages", "State", "Calls") if size == "phone" else ("",):
        if tab:
            console.page.get_by_role("tab", name=tab).click()
        console.page.screenshot(path=SCREENSHOTS / f"console-{size}-{scheme}{tab}.png")
        console.page.add_script_tag(path=AXE)
        found = console.page.evaluate("axe.run()")
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
        assert _sideways(console.page) == 0
    context.close()


def _sideways(page) -> int:
    """How far the page can be scrolled sideways: a phone's page must not."""
    return page.evaluate("document.body.scrollWidth - document.documentElement.clientWidth")
