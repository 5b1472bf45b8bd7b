"""The docs say how it is: tables come from the code, links and programs lead somewhere."""

from __future__ import annotations

import ast
import importlib
import re
import unittest
from urllib.parse import unquote

import nbformat
import pytest

from jupyter_agents.errors import StateRejected
from jupyter_agents.protocol import closing, messages
from tests import tables
from tests.sources import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
WIRE = (ROOT / "docs" / "wire.md").read_text("utf-8")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def name_of(path):
    """A path as test ids show it."""
    return path.relative_to(ROOT).as_posix()


def prose(path):
    """The text of a page or of a notebook's Markdown cells, without programs."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, 4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return FENCE.sub("", text)


def headings(path):
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", prose(path), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize(("page", "name"), tables.CASES)
def test_table_is_what_the_code_says(page, name):
    """A table made from the code is up to date; ``python -m tests.tables`` writes it anew."""
    assert tables.parts(page, name)[1] == tables.TABLES[page][name]()


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_links_lead_somewhere(path):
    """Every link to a file of ours finds it, and every anchor its heading."""
    for target in LINK.findall(prose(path)):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = unquote(target).partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{target} of {name_of(path)}"
        assert not anchor or anchor in headings(found), f"{target} of {name_of(path)}"


def test_every_page_is_linked():
    """No page is an island: another one links to it."""
    linked = {
        (path.parent / unquote(target).partition("#")[0]).resolve()
        for path in [*PAGES, *NOTEBOOKS]
        for target in LINK.findall(prose(path))
    }
    islands = [name_of(page) for page in PAGES if page not in linked and page.name != "README.md"]
    decisions = (ROOT / "docs" / "decisions").resolve()
    assert [page for page in islands if not page.startswith("docs/decisions/")] == []
    assert decisions in linked


PROGRAMS = [
    pytest.param(code, id=f"{name_of(path)}-{number}")
    for path in PAGES
    for number, (language, code) in enumerate(FENCE.findall(path.read_text("utf-8")), 1)
    if language == "python"
]


@pytest.mark.parametrize("code", PROGRAMS)
def test_programs_are_python_and_import_what_is_there(code):
    """Every Python block compiles, and what it imports of ours exists."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(code, "docs", "exec", flags | ast.PyCF_ONLY_AST)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jupyter_agents"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


HOWTO_TEST = ROOT / "docs" / "howto" / "test-your-agent.md"
ROOMS, PLAIN, COROUTINES, SOCKETS = [
    code for language, code in FENCE.findall(HOWTO_TEST.read_text("utf-8")) if language == "python"
]


def defined(*programs):
    """The names that these programs of one page define, one after another."""
    names = {"__name__": "howto"}
    for code in programs:
        exec(compile(code, "howto", "exec", dont_inherit=True), names)
    return names


PLAIN_TESTS = re.findall(r"^def (test_\w+)", PLAIN, re.M)


@pytest.mark.parametrize("name", PLAIN_TESTS)
def test_howto_tests_pass(name, agent_harness):
    """The tests that docs/howto/test-your-agent.md shows pass as they stand."""
    defined(ROOMS, PLAIN)[name](agent_harness)


async def test_howto_coroutines_pass():
    """So does the one with coroutines."""
    await defined(ROOMS, COROUTINES)["test_everybody_hears_it"]()


def test_howto_over_sockets_passes():
    """So does the one over real sockets, and a class alone refuses as the page says."""
    names = defined(ROOMS, SOCKETS)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(names["TestChatRoom"]).run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
    with pytest.raises(StateRejected):
        names["ChatRoom"]().set_state({"topic": ""})


def test_wire_names_every_frame():
    """docs/wire.md names every type of frame that our sources know, and no other."""
    package = ROOT / "jupyter_agents"
    sources = [*package.glob("protocol/*.py"), *package.glob("link/*.py")]
    sources.append(package / "static" / "agent-client.js")
    pattern = re.compile(r"\b(cf_agent_\w+|rpc_cancel)\b")
    known = {word for path in sources for word in pattern.findall(path.read_text("utf-8"))}
    assert set(pattern.findall(WIRE)) == {word for word in known if not word.endswith("_")}


def test_wire_names_every_code():
    """docs/wire.md has a row for each close code that we send, and says right which are final."""
    rows = dict(re.findall(r"^\| (\d{4}) \|.*\| (yes|no) \|$", WIRE, re.M))
    ours = {
        value
        for name, value in vars(closing).items()
        if name.isupper() and isinstance(value, int) and 1000 <= value < 2000
    }
    assert {int(code) for code in rows} == ours - {closing.NO_STATUS, closing.ABNORMAL} | {4001}
    for code, returns in rows.items():
        assert closing.is_final(int(code)) == (returns == "no"), code


def test_wire_quotes_the_sentences():
    """The fixed sentences that clients see stand in docs/wire.md as they are sent."""
    for sentence in (messages.METHOD_MISSING, messages.METHOD_NOT_CALLABLE, messages.READONLY):
        assert sentence.format("X") in WIRE


def test_wire_points_at_recordings_that_are_kept():
    """Each recording that docs/wire.md names lies in tests/wire/transcripts."""
    kept = {path.name[:2] for path in (ROOT / "tests/wire/transcripts").glob("*.json")}
    named = {
        n for group in re.findall(r"\[rec(?: \d\d)+\]", WIRE) for n in re.findall(r"\d\d", group)
    }
    assert named
    assert named <= kept
