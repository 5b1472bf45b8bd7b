"""The fixtures of these tests do what the tests rely on."""

from __future__ import annotations

import time

import pytest

from scripts.jupyter_kernel import JupyterProcessError


def test_cell_returns_what_it_prints_and_shows(kernel):
    """A cell's printed text, value and error come back."""
    outputs = kernel.run("print('one'); 2")
    assert outputs.text == "one\n2\n"
    assert outputs.data("text/plain") == ["2"]
    assert kernel.run("1/0", check=False).error == "ZeroDivisionError: division by zero"


def test_failed_cell_raises_with_the_servers_log(kernel):
    """A cell that must not fail raises, and the message ends with the server's log."""
    with pytest.raises(JupyterProcessError, match=r"(?s)no_such_name.*the end of .*server\.log"):
        kernel.run("no_such_name")


def test_restarted_kernel_has_the_same_id_and_an_empty_memory(kernel):
    """Restart keeps the id, and starts a new process."""
    before = kernel.id, kernel.pid()
    kernel.run("x = 1")
    kernel.restart()
    assert kernel.run("x", check=False).error.startswith("NameError")
    assert kernel.id == before[0]
    assert kernel.pid() != before[1]


def test_killed_kernel_comes_back(kernel):
    """After kill -9 the server starts the kernel again by itself, under its id."""
    before = kernel.pid()
    kernel.kill()
    deadline = time.monotonic() + 20
    while kernel.server.request("GET", f"api/kernels/{kernel.id}")["execution_state"] == "dead":
        assert time.monotonic() < deadline
    assert kernel.run("1", limit_s=20).text == "1\n"
    assert kernel.pid() != before


def test_running_cell_can_be_interrupted(kernel):
    """A cell begun in the background is interrupted as by the menu."""
    request = kernel.begin("print('begun', flush=True)\nimport time\ntime.sleep(60)")
    deadline = time.monotonic() + 10
    while "begun" not in kernel.outputs(request).text:
        assert time.monotonic() < deadline
    kernel.interrupt()
    assert kernel.wait(request, check=False).error.startswith("KeyboardInterrupt")


def test_server_wants_its_token(jupyter_server_process):
    """The API refuses who does not bring the token, below the base URL."""
    assert jupyter_server_process.url.endswith("/user/x/")
    assert jupyter_server_process.fetch("GET", "api/kernels")[0] == 200
    assert jupyter_server_process.fetch("GET", "api/kernels", headers={"X-None": "1"})[0] == 403


def test_own_server_takes_options_and_can_be_killed(start_server):
    """A test's own server takes options, and ends at once when killed."""
    server = start_server(options=["--ServerApp.websocket_ping_interval=7000"], token="abc")
    assert server.fetch("GET", "api/status?token=abc", headers={"X-None": "1"})[0] == 200
    server.kill()
    with pytest.raises(JupyterProcessError, match=r"GET api/status"):
        server.fetch("GET", "api/status")
