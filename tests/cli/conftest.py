"""Fixtures of the command line's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_agents.cli import main
from tests.client.tornado_server import Agents, running_in_a_thread
from tests.sources import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


# What the installed `jupyter-agents` does.
PROGRAM = (
    sys.executable,
    "-c",
    "import sys; from jupyter_agents.cli import main; sys.exit(main())",
)


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runtime directory: no test meets this machine's servers."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in ("JPY_PARENT_PID", "JUPYTER_SERVER_URL", "JUPYTER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return folder


@pytest.fixture
def agents() -> Iterator[Agents]:
    """A server that runs while this thread blocks."""
    with running_in_a_thread() as found:
        yield found


class Typed:
    """Runs commands in this process with a text as their input."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str, stdin: str | None = "") -> tuple[int, str, str]:
        """Exit code, output and errors; without a text the input stays open."""
        reading, writing = os.pipe()
        if stdin is not None:
            os.write(writing, stdin.encode())
            os.close(writing)
        with os.fdopen(reading) as file:
            self._monkeypatch.setattr(sys, "stdin", file)
            code = main(words)
            if stdin is None:
                os.close(writing)
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """``typed("call", "room/x", "add", "1")`` gives exit code, output and errors."""
    return Typed(monkeypatch, capsys)


class Started:
    """A command in a process of its own that stays until it is told to end."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [*PROGRAM, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def line(self) -> str:
        """The next line of its output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Send a signal, if one is given, and wait; exit code, rest of the output, errors."""
        if number is not None:
            self._process.send_signal(number)
        out, err = self._process.communicate(timeout=20)
        return self._process.returncode, out, err

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        with self._process:
            pass


@pytest.fixture
def started(runtime_dir: Path) -> Iterator[Callable[..., Any]]:
    """``started("serve", "x.py")`` starts a command in a process of its own."""
    running: list[Started] = []

    def start(*words: str) -> Started:
        running.append(Started(*words))
        return running[-1]

    yield start
    for process in running:
        process.kill()
