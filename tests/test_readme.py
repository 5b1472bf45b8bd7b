"""The README keeps its word: its cells run, show what it says, and its test passes."""

from __future__ import annotations

import re

import nbformat
import pytest

from scripts.jupyter_process import ROOT
from tests.lone_kernel import no_jupyter, run  # noqa: F401

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = [(m[1], m[2]) for m in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)]
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHOWN = [text for language, text in BLOCKS if language == ""]
MOST_WORDS = 120


def block(words: str) -> str:
    """The one Python block that holds these words."""
    [found] = [code for code in PYTHON if words in code]
    return found


def output_of(cell) -> str:
    """What a cell printed, or its value."""
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    return "".join(texts).strip()


def test_three_cells_run_and_show_what_the_readme_says(no_jupyter):  # noqa: F811
    """The first three programs are an agent, its deployment and a client, with that outcome."""
    with_slider = block("FloatSlider") + "\nslider.value = 25\nkitchen.target"
    cells = [nbformat.v4.new_code_cell(code) for code in (*PYTHON[:3], with_slider)]
    run(nbformat.v4.new_notebook(cells=cells), no_jupyter)
    assert "Panel of chat-room/" in output_of(cells[1])
    assert output_of(cells[2]) == SHOWN[0].strip()
    assert output_of(cells[3]).endswith("25.0")


def test_readers_see_a_program_soon():
    """The first program comes after so few words, and the three cells before anything else."""
    before = README[: README.index("```python")]
    assert len(before.split()) <= MOST_WORDS
    assert README.index(PYTHON[2]) < README.index("\n## ")


def test_the_readers_test_is_five_lines_and_passes(agent_harness):
    """What the README shows as a test passes as it stands, and fails for an agent that is mute."""
    code = block("agent_harness")
    assert len(code.strip().splitlines()) == 5
    names: dict = {}
    exec(PYTHON[0] + code, names)
    names["test_everybody_hears_it"](agent_harness)
    names["ChatRoom"].on_message = lambda agent, connection, message: None
    with pytest.raises(TimeoutError):
        names["test_everybody_hears_it"](_Hurried(agent_harness))


class _Hurried:
    """A harness whose clients do not wait long."""

    def __init__(self, harness):
        self._harness = harness

    def connect(self, *args):
        client = self._harness.connect(*args)
        client.receive = lambda: type(client).__getattr__(client, "receive")(0.05)
        return client


def test_client_without_await_is_as_shown(no_jupyter):  # noqa: F811
    """The README's plain client works once the host and token are real ones."""
    code = block("client.sync")
    shown = 'host="http://localhost:8888/", token="…"'
    assert shown in code
    real = code.replace(", " + shown, "").replace(
        "import connect", "import connect as connect_now"
    )
    real = real.replace("with connect(", "with connect_now(")
    cells = [nbformat.v4.new_code_cell(code) for code in (*PYTHON[:2], real)]
    run(nbformat.v4.new_notebook(cells=cells), no_jupyter)
    assert output_of(cells[2]) == "hello"
