"""The commands, their options and their exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from jupyter_agents.cli import conversation, hosting, listing
from jupyter_agents.cli.terminal import INTERRUPTED, NO_ANSWER, NO_CONNECTION, OK, SAID_NO, note
from jupyter_agents.errors import AgentsError, CallFailed, CallTimeout, StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

EPILOG = """\
exit codes: 0 well, 1 the agent said no, 2 wrong usage, 3 no connection,
            4 no answer in time, 130 interrupted

Without --host the running Jupyter Server is found by itself, with its token.
"""
ADDRESS = "AGENT/NAME, AGENT alone for the instance 'default', or the instance's URL"
VALUES = """arguments: JSON where it is JSON, else text: 5, true, '{"a": 1}', hi, '"5"'"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and give its exit code."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (CallTimeout, CallFailed, StateError) as error:
        note(f"error: {error}")
        return NO_ANSWER if isinstance(error, CallTimeout) else SAID_NO
    except (AgentsError, OSError) as error:
        note(f"error: {error}")
        return NO_CONNECTION
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "jupyter agents",
        description="Look at agents, talk to them, and host them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_list(commands)
    _add_connect(commands)
    _add_call(commands)
    _add_serve(commands)
    _add_demo(commands)
    return parser


Commands = argparse._SubParsersAction  # argparse gives its type no public name


def _add_list(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _added(commands, "list", "show what is served where, and how many are connected")
    command.set_defaults(run=listing.run)
    _talking_options(command)


def _add_connect(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _added(
        commands, "connect", "talk to an agent line by line", conversation.INTERACTIVE
    )
    command.set_defaults(run=conversation.connect)
    command.add_argument("address", metavar="AGENT/NAME", type=_address, help=ADDRESS)
    command.add_argument("--once", action="store_true", help="leave after the first message")
    command.add_argument(
        "--wait",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="how long to listen on when piped input has ended (1)",
    )
    _talking_options(command)


def _add_call(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _added(
        commands,
        "call",
        "call a method, and print what it returns",
        f"A stream is printed value by value.\n\n{VALUES}",
    )
    command.set_defaults(run=conversation.call)
    command.add_argument("address", metavar="AGENT/NAME", type=_address, help=ADDRESS)
    command.add_argument("method", metavar="METHOD")
    command.add_argument("args", metavar="ARG", nargs="*")
    command.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long it may take in all; 0: for ever (30)",
    )
    _talking_options(command)


def _add_serve(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _added(
        commands,
        "serve",
        "host the agents of a file or notebook, without a Lab",
        "It is run in this process, which stays until Ctrl-C. Served are the classes that it\n"
        "serves itself, or, if it serves none, all it defines.",
    )
    command.set_defaults(run=hosting.serve_file)
    command.add_argument(
        "file", metavar="FILE", type=Path, help="a .py file or an .ipynb notebook"
    )
    _hosting_options(command)


def _add_demo(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _added(commands, "demo", "host a small chat room to play with")
    command.set_defaults(run=hosting.demo)
    command.add_argument("--open", action="store_true", help="show the room in a browser")
    _hosting_options(command)


def _added(
    commands: Commands[argparse.ArgumentParser], name: str, about: str, more: str = ""
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.\n\n{more}".strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _talking_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", help="HOST:PORT, or a URL with the server's base_url")
    command.add_argument("--token", help="for the server's sign-in")
    command.add_argument("--json", action="store_true", help="print JSON, one value a line")


def _hosting_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=int, default=0, help="a free one by default")
    command.add_argument("--ip", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    command.add_argument("--token", help="what clients must show; made up by default")


def _address(text: str) -> dict[str, str]:
    """Read an address argument as arguments of a client."""
    if "://" not in text:
        agent, _, name = text.partition("/")
        if not agent:
            raise argparse.ArgumentTypeError(f"{text!r} is not {ADDRESS}")
        return {"agent": agent, "name": name or "default"}
    url = urlsplit(text)
    root, found, rest = url.path.rpartition("/agents/")
    agent, _, name = rest.partition("/")
    if not (found and agent):
        raise argparse.ArgumentTypeError(f"{text!r} is not {ADDRESS}")
    address = {"agent": unquote(agent), "name": unquote(name.rstrip("/")) or "default"}
    address["host"] = f"{url.scheme}://{url.netloc}{root}"
    tokens = parse_qs(url.query).get("token", [])
    return {**address, "token": tokens[0]} if tokens else address


def _version() -> str:
    from jupyter_agents import __version__

    return f"jupyter_agents {__version__}"
