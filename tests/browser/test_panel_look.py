"""Scratch: look at it."""
import time
CELL = '''
from jupyter_agents import Agent, callable_method, serve
import asyncio

class ChatRoom(Agent):
    initial_state = {"topic": "tea", "messages": 0, "members": {"ann": {"score": 3, "on": True}}, "tags": ["a", "b"]}

    def get_connection_tags(self, connection, ctx):
        return ["blue"] if "c1" in connection.id else []

    def on_message(self, connection, message):
        self.set_state({**self.state, "messages": self.state["messages"] + 1})
        self.broadcast(message)
        if message == "boom":
            raise ValueError("no such tea")

    @callable_method
    def shout(self, text: str, times: int = 1, style: "str | None" = None) -> str:
        """Say it louder."""
        return text.upper() * times

    @callable_method
    async def count(self, to: int):
        """Count, one number a moment."""
        for i in range(to):
            yield i
            await asyncio.sleep(0.2)

serve(ChatRoom)
'''

def shot(page, label):
    from tests.browser.pages import SCREENSHOTS
    panel = page.page.locator(".ja-live").first
    panel.scroll_into_view_if_needed()
    panel.screenshot(path=SCREENSHOTS / f"look-{label}.png")

def test_look(notebook, lab):
    page = notebook(CELL)
    page.page.on("console", lambda m: m.type in ("error","warning") and print("CONSOLE", m.text[:600]))
    page.run_all()
    page.page.wait_for_selector(".ja-live", timeout=8000)
    time.sleep(1.5)
    shot(page, "empty")
    socks = [lab.connect(f"agents/chat-room/lobby?_pk=c{i}") for i in range(3)]
    for i, s in enumerate(socks):
        s.send(f"hello from client {i}")
        s.send('{"kind": "vote", "option": "green", "weight": %d}' % i)
    socks[0].send_binary(bytes(range(60)))
    time.sleep(1.5)
    shot(page, "overview")
    import json
    p = page.page
    p.click(".ja-tab[data-key=calls]")
    p.click(".ja-call summary >> nth=0")
    p.fill(".ja-call input >> nth=0", "tea")
    p.fill(".ja-call input >> nth=1", "3")
    p.click(".ja-call button[type=submit] >> nth=0")
    p.click(".ja-call summary >> nth=1")
    p.fill(".ja-call >> nth=1 >> input", "5")
    p.locator(".ja-call").nth(1).locator("button[type=submit]").click()
    socks[0].send(json.dumps({"type":"rpc","id":"1","method":"shout","args":["hi"]}))
    socks[1].send(json.dumps({"type":"rpc","id":"2","method":"count","args":[20]}))
    socks[2].send(json.dumps({"type":"rpc","id":"3","method":"shout","args":[5]}))
    time.sleep(1)
    shot(page, "calls")
    p.click(".ja-tab[data-key=state]")
    p.click("[role=treeitem] .ja-value.ja-string >> nth=0")
    p.fill(".ja-edit", "coffee")
    p.keyboard.press("Enter")
    time.sleep(.3)
    p.click("[role=treeitem] .ja-value.ja-number >> nth=0")
    p.fill(".ja-edit", "100")
    p.keyboard.press("Enter")
    time.sleep(.4)
    p.click(".ja-section[data-key=state] .ja-sign >> nth=0")
    for _ in range(2):
        p.click(".ja-travel-bar .ja-sign >> nth=0")
    time.sleep(.4)
    shot(page, "state")
    p.click(".ja-tab[data-key=connections]")
    p.click(".ja-table tbody .ja-name >> nth=1")
    p.hover(".ja-table tbody .ja-name >> nth=1")
    time.sleep(4)
    shot(page, "connections")
    p.click(".ja-tab[data-key=overview]")
    shot(page, "overview")
    p.set_viewport_size({"width": 900, "height": 900})
    time.sleep(.5)
    shot(page, "narrow")
    for s in socks: s.close()
