"""The fixtures of these tests do what the tests rely on."""

from __future__ import annotations

from playwright.sync_api import expect


def test_cell_shows_its_output(notebook):
    """A notebook opens with its kernel ready; its cells run, and show what they print."""
    page = notebook("x = 6 * 7", "print('the answer is', x)")
    page.run_all()
    expect(page.output(1)).to_have_text("the answer is 42\n")
    assert page.screenshot().stat().st_size > 10_000
    assert page.errors == []


def test_test_can_act_while_a_cell_runs(notebook):
    """`begin_all` returns while the first cell runs; interrupting it ends the run."""
    page = notebook("import time\nprint('begun')\ntime.sleep(60)")
    page.begin_all()
    expect(page.output(0).first).to_have_text("begun\n")
    page.command("notebook:interrupt-kernel")
    expect(page.output(0).last).to_contain_text("KeyboardInterrupt")


def test_restart_empties_the_kernel(notebook):
    """After `restart` the same notebook has a kernel that knows nothing."""
    page = notebook("x = 1", "x")
    page.run_all()
    expect(page.output(1)).to_have_text("1")
    page.restart()
    page.run(1)
    expect(page.output(1)).to_contain_text("NameError")


def test_page_without_a_notebook_shows_the_launcher(lab_page):
    """A fresh tab shows the launcher, with nothing in the way."""
    expect(lab_page.page.locator(".jp-Launcher")).to_be_visible()
    expect(lab_page.page.locator(".jp-Dialog")).to_have_count(0)
