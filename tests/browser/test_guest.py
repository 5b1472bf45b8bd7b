"""What a student sees who opens a shared link in a browser that knows nothing of this server."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.live import running

CELL = """
from jupyter_agents import Agent, serve

class Quiz(Agent):
    access = "link"
    initial_state = {"question": "Which law?"}

    def on_message(self, connection, message):
        self.broadcast(connection.user["display_name"] + ": " + message)

quiz = serve(Quiz, storage="memory")
"""


@pytest.fixture(scope="module")
def school(request, tmp_path_factory):
    """A kernel that serves Quiz, on a server under a base URL."""
    home = tmp_path_factory.mktemp("school")
    with running(request.config, home, base_url="/user/ann/") as server:
        kernel = server.kernel()
        kernel.run(CELL)
        yield kernel
        kernel.shutdown()


def share(kernel, options=""):
    """A link from a cell: its id and its address, as a student would get it."""
    code = f"import json; s = quiz.share('group-a'{options}); print(json.dumps([s.id, s.url]))"
    link_id, url = json.loads(kernel.run(code).text)
    path = url.partition("/agents/")[2]
    return link_id, f"{kernel.server.url}agents/{path}"


@pytest.fixture
def page(context):
    """A tab in a browser without any cookie, and whatever goes wrong in it."""
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    yield tab
    assert errors == []


def test_a_guest_sees_the_agent_and_not_its_link(school, page, context):
    """The page connects, the link leaves address bar and history; a reload needs it no more."""
    _, url = share(school, ", label='Ann'")
    secret = url.partition("?share=")[2]
    assert secret
    page.goto(url)
    expect(page.locator("#status")).to_have_text("Connected")
    assert page.url == url.partition("?")[0]
    page.get_by_role("textbox", name="Message").fill("hello")
    page.keyboard.press("Enter")
    expect(page.get_by_role("log")).to_contain_text("Ann: hello")
    assert secret not in page.content()
    assert secret not in json.dumps(page.evaluate("[document.cookie, document.referrer]"))
    page.reload()
    expect(page.locator("#status")).to_have_text("Connected")
    page.goto("about:blank")
    page.go_back()
    assert page.url == url.partition("?")[0]
    [cookie] = [c for c in context.cookies() if c["name"] == "jupyter-agents-share"]
    assert cookie["path"] == "/user/ann/agents/quiz/group-a"
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")


def test_a_guest_gets_no_further(school, page):
    """The rest of the server sends the same browser to the login page, or says 403."""
    _, url = share(school)
    page.goto(url)
    expect(page.locator("#status")).to_have_text("Connected")
    base = school.server.url
    assert page.goto(f"{base}agents/quiz/group-b").status == 200
    assert page.url.startswith(f"{base}login?")
    for path in ("api/contents", "api/kernels", "api/agents", "api/agents/quiz/group-a"):
        assert page.request.get(base + path).status == 403


def test_a_revoked_guest_is_told_and_stays_out(school, page):
    """The page says that the link was revoked, does not come back by itself, nor by a reload."""
    link_id, url = share(school)
    page.goto(url)
    expect(page.locator("#status")).to_have_text("Connected")
    school.run(f"[s.revoke() for s in quiz.shares() if s.id == {link_id!r}]")
    expect(page.locator("#status")).to_have_text("Closed: 4001 This link was revoked")
    page.reload()
    assert page.url.startswith(f"{school.server.url}login?")
    assert page.goto(url).status == 403


def test_a_reader_cannot_write(school, page):
    """With a read-only link the state is shown, and an edit is refused in words."""
    _, url = share(school, ", readonly=True")
    page.goto(url)
    expect(page.locator("#status")).to_have_text("Connected")
    row = page.get_by_role("treeitem", name="question: ")
    expect(row).to_be_visible()
    row.locator(".ja-value").click()
    page.keyboard.type("mine")
    page.keyboard.press("Enter")
    expect(page.locator("#state-problem")).to_contain_text("readonly")
