"""Recordings of the real Agents SDK, as steps: what a client did, and what each client then saw.

The files in ``transcripts/`` were recorded from agents 0.32.0. The same steps are replayed against
the frames alone (`test_replay`), and can be against a whole host: compare `Step.seen`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("transcripts")

# The SDK sends it to everyone; ours does not, and no client needs it.
SDK_ONLY = "cf_agent_mcp_servers"


@dataclass(frozen=True)
class Event:
    """One line of a recording. `data` is text, bytes, or None where the kind has none.

    Of long binary messages only the length was recorded; they are as many zeros.
    """

    conn: str
    kind: str
    data: str | bytes | None
    raw: dict[str, Any]

    @property
    def frame(self) -> Any:
        """The data as JSON; text that is not JSON stays text, bytes stay bytes."""
        return parsed(self.data)

    @property
    def is_sdk_only(self) -> bool:
        """Whether this is a frame that ours never sends."""
        return isinstance(self.frame, dict) and self.frame.get("type") == SDK_ONLY


@dataclass(frozen=True)
class Step:
    """One action of a client, and what each connection was sent until the next one."""

    action: Event
    seen: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Transcript:
    """A recording."""

    name: str
    about: str
    events: tuple[Event, ...]

    @classmethod
    def load(cls, number: int) -> Transcript:
        """Read the recording that the documents call ``[O number]``."""
        (path,) = FOLDER.glob(f"{number:02}-*.json")
        found = json.loads(path.read_text("utf-8"))
        return cls(found["name"], found["about"], tuple(_event(raw) for raw in found["events"]))

    def steps(self) -> list[Step]:
        """Group the frames that clients received by the action before them."""
        steps: list[Step] = []
        for event in self.events:
            if event.kind in ("connect", "send", "send-close", "abort"):
                steps.append(Step(event))
            elif event.kind == "recv" and not event.is_sdk_only:
                steps[-1].seen.setdefault(event.conn, []).append(event.frame)
        return steps

    def sent(self) -> list[Event]:
        """Every message of a client."""
        return [event for event in self.events if event.kind == "send"]

    def received(self) -> list[Event]:
        """Every message of the server, without those that ours never sends."""
        return [event for event in self.events if event.kind == "recv" and not event.is_sdk_only]

    def accepted_urls(self) -> list[str]:
        """The URLs whose WebSocket was accepted."""
        urls = {e.conn: e.raw["url"] for e in self.events if e.kind == "connect"}
        return [urls[e.conn] for e in self.events if e.kind == "upgrade"]

    def fell_through(self) -> list[str]:
        """The texts that the recorded agent got as its own messages and told so."""
        answers = [event.frame for event in self.received()]
        found = [answer.get("fallthrough") for answer in answers if isinstance(answer, dict)]
        return [text for text in found if isinstance(text, str)]


def parsed(data: str | bytes | None) -> Any:
    """Return a text's JSON, so that key order does not matter; anything else as it is."""
    try:
        return json.loads(data) if isinstance(data, str) else data
    except ValueError:
        return data


def _event(raw: dict[str, Any]) -> Event:
    data = raw.get("data")
    if raw.get("type") == "binary" and raw.get("encoding") == "hex":
        long = re.fullmatch(r"<(\d+) bytes>", data)
        data = bytes(int(long[1])) if long else bytes.fromhex(data)
    return Event(raw.get("conn", ""), raw["dir"], data if raw.get("type") else None, raw)
