"""Cells that the server runs again: `jupyter_agents.server.autostart`."""

from __future__ import annotations

import asyncio
import logging

import pytest

from jupyter_agents.link.records import Served
from jupyter_agents.server.autostart import Autostart

OK = {"status": "ok"}


class FakeKernel:
    """A client of a kernel, and what was run by it."""

    def __init__(self, kernels):
        self._kernels = kernels
        self._replies = asyncio.Queue()

    def start_channels(self, **channels):
        self._kernels.open_clients += 1

    def stop_channels(self):
        self._kernels.open_clients -= 1

    async def wait_for_ready(self, timeout):
        await self._kernels.ready.wait()

    def execute(self, source, **options):
        assert options == {
            "silent": False,
            "store_history": False,
            "allow_stdin": False,
            "stop_on_error": False,
        }
        self._kernels.ran.append(source)
        self._kernels.on_run(source)
        self._replies.put_nowait({"parent_header": {"msg_id": "another"}, "content": {}})
        reply = self._kernels.replies.get(source, OK)
        self._replies.put_nowait({"parent_header": {"msg_id": source}, "content": reply})
        return source

    async def get_shell_msg(self):
        return await self._replies.get()


class FakeKernels:
    """One kernel whose process a test chooses."""

    def __init__(self):
        self.pid = 1
        self.ran = []
        self.replies = {}
        self.open_clients = 0
        self.ready = asyncio.Event()
        self.ready.set()
        self.on_run = lambda source: None

    def process(self, kernel_id):
        return self.pid if kernel_id == "k" else None

    def client(self, kernel_id):
        return FakeKernel(self)


def parked(agent, source, *, pid=1, kernel_id="k"):
    """A class whose kernel's process is gone."""
    about = {"kernel_id": kernel_id, "pid": pid, "notebook": "a.ipynb"}
    return Served(agent, agent.title(), (), None, about, autostart=source)


async def settled(autostart):
    """Wait until nothing is under way."""
    await asyncio.gather(*autostart._runs.values(), return_exceptions=True)
    await asyncio.sleep(0)


async def test_cell_runs_once_in_each_new_process():
    """Not while the old process lives, once when there is another, again when there is a third."""
    kernels, served = FakeKernels(), [parked("a", "cell")]
    autostart = Autostart(lambda: served, kernels)
    for pid, runs in ((1, 0), (None, 0), (2, 1), (2, 1), (3, 2)):
        kernels.pid = pid
        autostart.tick()
        await settled(autostart)
        assert kernels.ran == ["cell"] * runs
    assert kernels.open_clients == 0


async def test_classes_run_in_order_and_one_cell_once():
    """Two classes of one cell: the second is served by then, and its cell is not run again."""
    kernels = FakeKernels()
    served = [parked("a", "both"), parked("b", "both"), parked("c", "more"), parked("d", "")]
    served.append(parked("e", "elsewhere", kernel_id="other"))

    def serve(source):
        for one in served:
            if one.autostart == source:
                one.host = object()

    kernels.on_run, kernels.pid = serve, 2
    autostart = Autostart(lambda: served, kernels)
    autostart.tick()
    await settled(autostart)
    assert kernels.ran == ["both", "more"]


async def test_cell_that_fails_runs_once_for_all_its_classes():
    """A cell that left its second class parked is not run again for that one."""
    kernels, served = FakeKernels(), [parked("a", "both"), parked("b", "both")]
    kernels.pid = 2
    autostart = Autostart(lambda: served, kernels)
    autostart.tick()
    await settled(autostart)
    assert kernels.ran == ["both"]


async def test_served_class_is_left_alone():
    """Who was quicker than the server is not run over."""
    kernels, served = FakeKernels(), [parked("a", "cell")]
    kernels.pid = 2
    kernels.ready.clear()
    autostart = Autostart(lambda: served, kernels)
    autostart.tick()
    await asyncio.sleep(0)
    served[0].host = object()
    kernels.ready.set()
    await settled(autostart)
    assert kernels.ran == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (OK, "Autostart of A (a.ipynb): its cell was run again"),
        (
            {"status": "error", "ename": "NameError", "evalue": "name 'np' is not defined"},
            "Autostart of A (a.ipynb) failed, its clients go on waiting: NameError: name 'np' is "
            "not defined; only the cell that serves is run again, so it must import and define "
            "all",
        ),
        (
            {"status": "error", "ename": "ValueError", "evalue": "x"},
            "Autostart of A (a.ipynb) failed, its clients go on waiting: ValueError: x",
        ),
    ],
)
async def test_log_says_how_it_went(caplog, reply, said):
    """A failure names the class, the notebook and the error; a missing name says why."""
    kernels, served = FakeKernels(), [parked("a", "cell")]
    kernels.pid, kernels.replies = 2, {"cell": reply}
    with caplog.at_level(logging.INFO):
        autostart = Autostart(lambda: served, kernels)
        autostart.tick()
        await settled(autostart)
    assert caplog.messages == [said]


async def test_kernel_that_dies_again_is_asked_anew():
    """A run that waits for a process that is no more ends, and the next process gets the cell."""
    kernels, served = FakeKernels(), [parked("a", "cell")]
    autostart = Autostart(lambda: served, kernels)
    kernels.pid = 2
    kernels.ready.clear()
    autostart.tick()
    await asyncio.sleep(0)
    kernels.pid = 3
    kernels.ready.set()
    autostart.tick()
    await settled(autostart)
    assert kernels.ran == ["cell"]
    assert kernels.open_clients == 0


async def test_kernel_that_is_gone_is_asked_no_more():
    """A run ends with its kernel, also where no other process follows."""
    kernels, served = FakeKernels(), [parked("a", "cell")]
    autostart = Autostart(lambda: served, kernels)
    kernels.pid = 2
    kernels.ready.clear()
    autostart.tick()
    await asyncio.sleep(0)
    assert kernels.open_clients == 1
    kernels.pid = None
    served.clear()
    autostart.tick()
    await settled(autostart)
    assert (kernels.ran, kernels.open_clients, autostart._runs) == ([], 0, {})


async def test_kernel_that_cannot_be_asked_is_logged(caplog):
    """One that never answers is given up with a line in the log."""
    kernels, served = FakeKernels(), [parked("a", "cell")]
    kernels.pid = 2

    def refuse(kernel_id):
        raise RuntimeError("no such kernel")

    kernels.client = refuse
    autostart = Autostart(lambda: served, kernels)
    autostart.tick()
    await settled(autostart)
    assert caplog.messages == [
        "Autostart: kernel k cannot be asked: RuntimeError('no such kernel')"
    ]


async def test_stopped_server_asks_no_kernel():
    """What is under way ends with the server."""
    kernels, served = FakeKernels(), [parked("a", "cell")]
    kernels.pid = 2
    kernels.ready.clear()
    autostart = Autostart(lambda: served, kernels)
    autostart.tick()
    await asyncio.sleep(0)
    await autostart.stop()
    assert (kernels.ran, kernels.open_clients) == ([], 0)
