"""Sharing from the panel, in a real JupyterLab: link, QR code, a guest, and the end of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.test_panel import panel_of, picture

AXE = Path(__file__).parents[1] / "conformance/node_modules/axe-core/axe.min.js"

QUIZ = """
from jupyter_agents import Agent, serve

class %s(Agent):
    access = "%s"
    initial_state = {"question": "Which law?"}

serve(%s, storage="memory")
"""


def test_panel_shares_by_a_link(notebook, chromium):
    """A click makes a link and its code; a guest comes by it, and Revoke sends the guest away."""
    page = notebook(QUIZ % ("SharedQuiz", "link", "SharedQuiz"))
    page.run_all()
    panel = panel_of(page)
    button = panel.get_by_role("button", name="Share by a link")
    expect(button).to_have_attribute("aria-expanded", "false")
    button.click()
    box = panel.get_by_role("group", name="Share")
    box.get_by_label("How long the link is good").select_option(label="30 minutes")
    box.get_by_label("for looking only").check()
    box.get_by_role("button", name="Make a link").click()
    expect(box.get_by_alt_text("QR code of the link")).to_be_visible()
    expect(box).to_contain_text("read-only link to shared-quiz/default until")
    url = box.get_by_label("Link", exact=True).input_value()
    assert "?share=jas." in url
    picture(panel, "share")
    _check_accessibility(page)

    stranger = chromium.new_context()
    try:
        guest = stranger.new_page()
        guest.goto(url)
        expect(guest.locator("#status")).to_have_text("Connected")
        expect(panel.locator(".ja-table .ja-name")).to_have_count(1)
        box.get_by_role("button", name="Revoke").click()
        expect(box).to_contain_text("was sent away")
        expect(guest.locator("#status")).to_have_text("Closed: 4001 This link was revoked")
    finally:
        stranger.close()
    button.click()
    expect(box).to_be_hidden()
    assert page.errors == []


def _check_accessibility(page):
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci in tests/conformance")
    page.page.add_script_tag(path=str(AXE))
    report = page.page.evaluate("axe.run('.ja-share')")
    assert [one["id"] for one in report["violations"]] == []


def test_panel_of_a_class_without_links_has_no_button(notebook):
    """Where the class takes no links, there is nothing to click."""
    page = notebook(QUIZ % ("ClosedQuiz", "jupyter", "ClosedQuiz"))
    page.run_all()
    panel = panel_of(page)
    expect(panel.locator(".ja-light-word")).to_have_text("Ready")
    expect(panel.get_by_role("button", name="Share by a link")).to_be_hidden()
