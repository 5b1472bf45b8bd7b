"""The widget behind the views: its one module, its life, and what it leaves behind."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import weakref
from types import SimpleNamespace

import pytest
from ipywidgets import HBox
from ipywidgets.widgets.widget import _instances

from jupyter_agents.testing import AgentHarness
from jupyter_agents.widgets import AgentPanel, BroadcastLog, CallForm, ConnectionsTable, StateView
from jupyter_agents.widgets import view as views
from tests.widgets.conftest import Room, namespace

PARTS = (AgentPanel, ConnectionsTable, StateView, BroadcastLog, CallForm)


@pytest.mark.parametrize("part", PARTS)
async def test_part_opens_with_a_picture(comms, part):
    """Each view opens with its name and a picture, as plain JSON, so that it is never empty."""
    async with AgentHarness(Room) as harness:
        await harness.connect(Room, "lobby")
        widget = part(namespace(harness))
        state = widget.comm.sent[0][1]["state"]
        assert state["_part"] == part.part
        assert state["_still"]["about"]["name"] == "lobby"
        json.dumps(state["_still"])
        HBox([widget])


@pytest.mark.parametrize("part", PARTS)
async def test_part_shows_a_handle(comms, part):
    """A handle names the instance."""
    async with AgentHarness(Room) as harness:
        widget = part(harness.handle(Room, "kitchen"))
        assert widget.instance_name == "kitchen"


async def test_anything_else_is_refused(comms):
    """What is no namespace or handle is refused in words."""
    with pytest.raises(TypeError, match="serve"):
        AgentPanel("chat-room")


async def test_cell_that_runs_again_leaves_nothing_of_its_earlier_run(comms, monkeypatch):
    """Running a cell again closes its earlier views: no widget, comm, feed or watcher is left."""
    async with AgentHarness(Room) as harness:
        shown = namespace(harness)
        monkeypatch.setattr(views, "_cell", lambda: ("other cell", "run"))
        other = AgentPanel(shown)
        feeds, counts = [], []
        for run in range(5):
            monkeypatch.setattr(views, "_cell", lambda run=run: ("cell", str(run)))
            panel = AgentPanel(shown)
            beside = StateView(shown)
            feeds.append(weakref.ref(panel._feed))
            counts.append((len(_instances), len(harness.host._watchers)))
        assert counts == [counts[0]] * 5
        assert other.comm is not None
        assert panel.comm is not None
        assert beside.comm is not None
        gc.collect()
        assert [feed() is None for feed in feeds] == [True] * 4 + [False]
        still_open = [one for one in comms if one.sent[-1][0] != "comm_close"]
        assert len(still_open) == len(_instances)


async def test_cell_is_known_by_its_id_and_its_run(monkeypatch):
    """The cell comes from the message that runs it; without IPython there is none."""
    header = {"header": {"msg_id": "run-1"}, "metadata": {"cellId": "cell-1"}}
    shell = SimpleNamespace(parent_header=header)
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(views.sys.modules, "IPython", ipython)
    assert views._cell() == ("cell-1", "run-1")
    shell.parent_header = {"header": {}, "metadata": None}
    assert views._cell() == ("", "")
    shell.parent_header = None
    assert views._cell() == ("", "")


async def test_view_of_a_stopped_host_says_so(front):
    """When the agents' thread has ended, a view is told, and closing the widget is no error."""
    async with AgentHarness(Room) as harness:
        panel = AgentPanel(namespace(harness))
        view = front(panel).hello()
        await harness.host.stop()
        monkey = harness.host
        monkey.thread_id, before = -1, monkey.thread_id
        view.say("alive")
        assert view.kinds[-1] == "ended"
        panel.close()
        monkey.thread_id = before


def test_bundle_is_one_module_of_ours_alone():
    """The module imports nothing, exports one thing, and asks no network for anything."""
    source = views.LiveView._esm
    assert "\nimport " not in source
    assert source.count("\nexport ") == 1
    assert "https://" not in source.replace("http://www.w3.org", "")


def test_bundle_scopes_modules_and_renames(tmp_path):
    """Names of one module are hidden from another, and `as` renames."""
    (tmp_path / "a.js").write_text(
        "const own = 1;\nexport const one = own;\nexport class Two {}\n"
    )
    (tmp_path / "b.js").write_text(
        'import { one as uno,\n  Two } from "./a.js";\nconst own = 2;\n'
        "export async function* three() {}\nexport default { value: uno + own, Two };\n"
    )
    made = tmp_path / "made.mjs"
    made.write_text(views.bundled(tmp_path / "b.js"))
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    program = f"import found from '{made}'; console.log(found.value, typeof found.Two)"
    done = subprocess.run(
        [node, "--input-type=module", "-e", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "function"]


async def test_mimebundle_has_words_for_every_front_end(comms):
    """A view shows itself as a widget, as HTML, and as one line."""
    async with AgentHarness(Room) as harness:
        data, _ = StateView(namespace(harness), "lobby")._repr_mimebundle_()
        assert data["text/plain"] == "StateView of room/lobby"
        assert "agents/room/lobby" in data["text/html"]
        assert "application/vnd.jupyter.widget-view+json" in data
