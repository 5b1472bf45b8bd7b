"""A newcomer's first minute: the first notebook in a real JupyterLab, and the page it prints."""

from __future__ import annotations

from playwright.sync_api import expect

from scripts.demo import cells
from scripts.jupyter_process import ROOT
from tests.browser.pages import SCREENSHOTS

CELLS = cells(ROOT / "notebooks" / "00_hello.ipynb")
PAGE = next(code for code in CELLS if "hello.page(" in code)


def test_first_cells_and_the_printed_page_move_together(notebook, lab, chromium):
    """Three cells define, serve and talk; what the page says shows in the panel, and back."""
    newcomer = notebook(*CELLS[:3], PAGE)
    newcomer.run_all()
    panel = newcomer.output(1)
    expect(newcomer.output(2)).to_contain_text("Hello, Ada!")
    address = newcomer.output(3).inner_text().strip().strip("'")
    visitor = chromium.new_context().new_page()
    try:
        visitor.goto(f"{address}?token={lab.token}")
        expect(visitor.get_by_role("treeitem", name="greeted: 1")).to_be_visible()
        visitor.get_by_role("textbox", name="Message", exact=True).fill("Grace")
        visitor.get_by_role("button", name="Send", exact=True).click()
        expect(visitor.locator("#log")).to_contain_text("Hello, Grace!")
        for view in (visitor, panel):
            expect(view.get_by_role("treeitem", name="greeted: 2")).to_be_visible()
        expect(panel).to_contain_text("Hello, Grace!")
        panel.get_by_label("Message", exact=True).fill("Good morning")
        panel.get_by_role("button", name="Send", exact=True).click()
        expect(visitor.locator("#log")).to_contain_text("Good morning")
        SCREENSHOTS.mkdir(exist_ok=True)
        visitor.screenshot(path=SCREENSHOTS / "hello-page.png")
        newcomer.screenshot()
    finally:
        visitor.context.close()
