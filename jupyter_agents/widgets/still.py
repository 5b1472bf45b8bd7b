"""A still picture of a live view, where nothing is live: exported notebooks, mail, review."""

from __future__ import annotations

import json
import time
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["still_html"]

ROWS = 20
STATE_LENGTH = 4_000


def still_html(picture: Mapping[str, Any]) -> str:
    """Plain HTML that shows what `Feed.picture` found; it follows the page's colours."""
    about = picture.get("about") or {}
    title = f"<strong>{escape(str(about.get('class', '')))}</strong>"
    address = f"<code>{escape(str(about.get('path', '')))}</code>"
    parts = [
        f'<p style="margin:0 0 8px">{title} &nbsp; {address}</p>',
        _state(picture.get("state")),
        _connections(picture.get("connections")),
        _messages(picture.get("messages")),
        _callables(picture.get("calls")),
        f'<p style="margin:8px 0 0;opacity:.7"><small>{_when(picture)}</small></p>',
    ]
    box = "border:1px solid #8884;border-radius:8px;padding:12px 16px;max-width:860px"
    return f'<div style="{box}">{"".join(parts)}</div>'


def _when(picture: Mapping[str, Any]) -> str:
    taken = time.strftime("%Y-%m-%d %H:%M", time.localtime(picture.get("taken", 0)))
    return f"As it was on {taken}. Run the cell for the live view."


def _head(text: str) -> str:
    return f'<p style="margin:8px 0 2px;font-weight:600">{escape(text)}</p>'


def _state(state: Any) -> str:
    if state is None:
        return ""
    now = state.get("now")
    if now is None:
        return _head("State") + "<p>None yet.</p>"
    value = now.get("value")
    text = f"{now['size']} bytes" if value is None else _pretty(value["json"])
    return _head("State") + f'<pre style="margin:0;white-space:pre-wrap">{escape(text)}</pre>'


def _pretty(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= STATE_LENGTH else text[:STATE_LENGTH] + "\n…"


def _connections(connections: Any) -> str:
    if connections is None:
        return ""
    total, rows = connections["total"], connections["rows"][-ROWS:][::-1]
    if not rows:
        return _head("Nobody is connected")
    cells = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in _cells(row))}</tr>"
        for row in rows
    )
    heads = "".join(f"<th>{head}</th>" for head in ("Connection", "User", "Received", "Sent"))
    more = f"<p>and {total - len(rows)} more</p>" if total > len(rows) else ""
    count = f"{total} {'connection' if total == 1 else 'connections'}"
    return f"{_head(count)}<table><tr>{heads}</tr>{cells}</table>{more}"


def _cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["id"], row["user"], row["counts"][0], row["counts"][1]


def _messages(messages: Any) -> str:
    said = [e for e in (messages or {}).get("entries", ()) if "data" in e][-ROWS:]
    if not said:
        return ""
    lines = "".join(f"<li><code>{escape(_line(entry))}</code></li>" for entry in said)
    return _head("Messages") + f'<ul style="margin:0">{lines}</ul>'


def _line(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "binary":
        return f"{entry['size']} bytes"
    return str(entry["data"])[:200]


def _callables(calls: Any) -> str:
    found = (calls or {}).get("callables", ())
    if not found:
        return ""
    names = [f"<code>{escape(_signature(one))}</code>" for one in found]
    return _head("Can be called") + f'<p style="margin:0">{" &nbsp; ".join(names)}</p>'


def _signature(method: Mapping[str, Any]) -> str:
    return f"{method['name']}({', '.join(p['name'] for p in method['parameters'])})"
