"""The commands and their exit codes: `jupyter_agents.cli.command`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_agents import __version__
from jupyter_agents.cli import command, main
from jupyter_agents.errors import CallTimeout
from tests.cli.conftest import PROGRAM
from tests.sources import ROOT

if TYPE_CHECKING:
    from tests.client.tornado_server import Agents


@pytest.mark.parametrize("words", [[], ["list"], ["connect"], ["call"], ["serve"], ["demo"]])
def test_help_is_there_for_each_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command explains itself, its options and the exit codes."""
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"usage: jupyter agents {' '.join(words)}".rstrip() in text
    assert "exit codes:" in text


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` tells which package this is."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"jupyter_agents {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["call", "room/x"],
        ["connect"],
        ["connect", "/x"],
        ["connect", "http://h/x"],
        ["connect", "http://h/agents/"],
        ["call", "a", "b", "--timeout", "soon"],
    ],
)
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line ends with 2 and says what is wrong."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("room", {"agent": "room", "name": "default"}),
        ("room/", {"agent": "room", "name": "default"}),
        ("room/a/b", {"agent": "room", "name": "a/b"}),
        (
            "http://h:1/user/ann/agents/room/a%20b",
            {"agent": "room", "name": "a b", "host": "http://h:1/user/ann"},
        ),
        (
            "wss://h/agents/room?token=t",
            {"agent": "room", "name": "default", "host": "wss://h", "token": "t"},
        ),
    ],
)
def test_address_is_short_or_a_url(text: str, expected: dict[str, str]) -> None:
    """An address is AGENT/NAME, AGENT alone, or what a browser shows, its token included."""
    assert command._address(text) == expected


def test_url_as_address_reaches_the_agent(agents: Agents, typed: Any) -> None:
    """A URL copied from elsewhere works as it is, and its token goes into a header."""
    code, out, _ = typed("call", f"{agents.host}agents/room/x?token=t0k", "add", "1", "2")
    assert (code, out) == (0, "3\n")
    assert agents.requests[0].headers["Authorization"] == "token t0k"
    assert "t0k" not in agents.requests[0].uri


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (CallTimeout("a", 1.0), 4),
        (OSError("down"), 3),
    ],
)
def test_errors_have_codes(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """How a command ends is told by its exit code, and by one line instead of a traceback."""

    def run(options: Any) -> int:
        raise error

    monkeypatch.setattr(command.listing, "run", run)
    assert main(["list"]) == code
    told = capsys.readouterr().err
    assert told.startswith("error: ") or code == 130
    assert "Traceback" not in told


def test_program_ends_with_the_code() -> None:
    """The program's exit code is the command's, and an error is one line."""
    done = subprocess.run(
        [*PROGRAM, "call", "a/b", "c", "--host", "localhost:1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_reader_that_leaves_early_is_no_error(runtime_dir: Any) -> None:
    """``… | head -1`` gives no complaint."""
    program = (
        "import sys\n"
        "from jupyter_agents.cli import command, main\n"
        "from jupyter_agents.cli.terminal import say\n"
        "command.listing.run = lambda options: [say('x' * 9999) for _ in range(999)] and 0\n"
        "sys.exit(main(['list']))\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr is not None
    assert writer.stderr.read() == ""
    writer.stderr.close()
    assert writer.wait(10) == 0
