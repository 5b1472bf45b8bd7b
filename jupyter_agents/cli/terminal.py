"""How a command speaks: results on stdout, all else on stderr, and a code when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = [
    "INTERRUPTED",
    "NO_ANSWER",
    "NO_CONNECTION",
    "OK",
    "SAID_NO",
    "USAGE",
    "lines_of",
    "note",
    "say",
    "shown",
    "value_of",
]

OK, SAID_NO, USAGE, NO_CONNECTION, NO_ANSWER, INTERRUPTED = 0, 1, 2, 3, 4, 130


def say(text: str) -> None:
    """Print a result."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print what is no result: progress, hints, errors."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def shown(value: Any, *, as_json: bool = False) -> str:
    """Give a value as text: a string as it is, unless JSON is asked for, and the rest as JSON."""
    if isinstance(value, str) and not as_json:
        return value
    return json.dumps(value, ensure_ascii=False)


def value_of(text: str) -> Any:
    """Read an argument as JSON where it is JSON, else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


async def lines_of(descriptor: int) -> AsyncIterator[str]:
    """Give the lines of a file descriptor as they come.

    A thread reads the descriptor itself: Python could not end while one waits in ``sys.stdin``.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        data = b"."
        while data:
            try:
                data = os.read(descriptor, 65536)
                loop.call_soon_threadsafe(queue.put_nowait, data)
            except (OSError, RuntimeError):
                return

    threading.Thread(target=read, name="IO stdin", daemon=True).start()
    rest = b""
    while data := await queue.get():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").removesuffix("\r")
    if rest:
        yield rest.decode("utf-8", "replace")
