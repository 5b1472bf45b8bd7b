"""docs/performance.md shows what was measured, and the tests that it names are there."""

from __future__ import annotations

import ast
import re

import pytest

from benchmarks.page import BEGIN, END, KEPT, PAGE, kept, written
from benchmarks.report import Results
from benchmarks.scenarios import SCENARIOS
from benchmarks.targets import TARGETS
from tests.sources import ROOT

NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::([\w:]+))?`", PAGE.read_text("utf-8"))))


def test_page_is_what_was_measured():
    """The tables come from the kept numbers; ``--page --load benchmarks/results.json`` does it."""
    page = PAGE.read_text("utf-8")
    assert written(page, kept(KEPT)) == page


def test_page_is_written_between_its_marks():
    """What people wrote around the results stays."""
    results = Results(1, 1.0, machine="a machine")
    page = written(f"before\n{BEGIN}\nold\n{END}\nafter\n", results)
    assert page.startswith(f"before\n{BEGIN}\n\na machine.")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page
    assert written(page, results) == page


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part or "file")
def test_named_tests_are_there(file, name):
    """Each test that the page names can be run."""
    body = ast.parse((ROOT / file).read_text("utf-8")).body
    for part in filter(None, name.split("::")):
        [found] = [node for node in body if getattr(node, "name", None) == part]
        body = found.body


def test_targets_look_at_scenarios():
    """A target that compares what nobody measures would never be missed."""
    measured = {one.name: one.who for one in SCENARIOS}
    for target in TARGETS:
        assert target.by in measured[target.scenario]
        if target.versus not in ("", "share"):
            assert target.versus in measured[target.among or target.scenario], target


def test_ratios_are_taken_within_a_round():
    """A machine that slows down between two rounds changes no ratio."""
    rounds = {"product": [{"cpu us": 2.0}, {"cpu us": 20.0}, {"cpu us": 6.0}],
              "tornado": [{"cpu us": 1.0}, {"cpu us": 10.0}, {"cpu us": 2.0}]}  # fmt: skip
    results = Results(3, 1.0, found={"echo": rounds})
    assert results.ratio(("echo", "product"), ("echo", "tornado"), "cpu us") == 2.0
    assert results.median("echo", "product", "cpu us") == 6.0
    assert results.ratio(("echo", "product"), ("echo", "nobody"), "cpu us") is None


SIDES = [("≤", 2.0, True), ("≤", 2.1, False), ("≥", 2.0, True), ("≥", 1.9, False)]


@pytest.mark.parametrize(("op", "value", "met"), SIDES)
def test_bounds_have_a_side(op, value, met):
    """On the bound is fine; past it is not."""
    [target] = [one for one in TARGETS if one.text == "round trip, CPU : Tornado"]
    assert type(target)(1, "", 2.0, "echo", op=op).is_met(value) is met
