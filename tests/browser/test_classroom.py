"""The classroom's notebook in a real JupyterLab, with pupils on the agent's own page."""

from __future__ import annotations

from playwright.sync_api import expect

from scripts.demo import cells
from scripts.jupyter_process import ROOT
from tests.browser.pages import SCREENSHOTS

PHONE = {"width": 390, "height": 700}
CELLS = cells(ROOT / "notebooks" / "09_classroom.ipynb")
DESK = next(index for index, code in enumerate(CELLS) if "def draw" in code)
INVITATION = next(index for index, code in enumerate(CELLS) if "polls.share" in code)


def pupil(chromium, link):
    """A pupil's page, in a browser that signed in nowhere; its context is to be closed."""
    page = chromium.new_context(viewport=PHONE).new_page()
    page.goto(link)
    return page


def test_class_votes_and_the_teacher_sees_it(notebook, lab, chromium):
    """Votes move the teacher's bars; one person has one vote; the teacher closes and goes on."""
    teacher = notebook(*CELLS[: INVITATION + 1])
    teacher.run_all()
    desk = teacher.output(DESK)
    link = teacher.output(INVITATION).get_by_role("link").get_attribute("href")
    assert lab.token not in link
    ann, bob = pupil(chromium, link), pupil(chromium, link)
    try:
        for page in (ann, bob):
            expect(page.get_by_role("heading")).to_have_text("Which planet has the shortest day?")
            page.get_by_role("button", name="Jupiter").click()
        expect(desk).to_contain_text("2 votes, open")
        ann.get_by_role("button", name="Earth").click()
        expect(ann.get_by_role("button", name="Earth")).to_have_attribute("aria-pressed", "true")
        expect(desk).to_contain_text("50%")
        expect(desk).to_contain_text("2 votes, open")
        SCREENSHOTS.mkdir(exist_ok=True)
        ann.screenshot(path=SCREENSHOTS / "classroom-open.png")
        desk.scroll_into_view_if_needed()
        teacher.screenshot("teacher")
        teacher.output(INVITATION).scroll_into_view_if_needed()
        teacher.screenshot("invitation")
        ann.reload()
        expect(ann.get_by_role("button", name="Earth")).to_have_attribute("aria-pressed", "true")
        desk.get_by_role("button", name="Voting is open").click()
        expect(bob.get_by_role("status")).to_have_text("Closed, with 2 votes.")
        expect(bob.get_by_role("button", name="Jupiter")).to_be_disabled()
        expect(bob.get_by_role("button", name="Jupiter")).to_contain_text("50%")
        bob.screenshot(path=SCREENSHOTS / "classroom-closed.png")
        desk.get_by_role("button", name="Next question").click()
        expect(bob.get_by_role("heading")).to_contain_text("How long does light take")
        expect(bob.get_by_role("button", name="8 minutes")).to_be_enabled()
        expect(desk).to_contain_text("0 votes, open")
    finally:
        for page in (ann, bob):
            page.context.close()
