"""The tables in docs that are made from the code; ``python -m tests.tables`` writes them anew.

Each stands between ``<!-- NAME, made by tests/tables.py -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Any

from jupyter_agents import serving
from jupyter_agents.host import connection, host, thread
from jupyter_agents.instance import hosted
from jupyter_agents.link import frames, marks, records
from jupyter_agents.protocol import backoff, closing, names
from jupyter_agents.server.limits import Limits
from tests.sources import ROOT
from tests.test_architecture import EDGES, LAWS

if TYPE_CHECKING:
    from collections.abc import Callable

_MIB, _KIB = 1024 * 1024, 1024


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def amount(name: str, value: Any) -> str:
    """A default for people: bytes and seconds by their names' endings."""
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "unlimited"}[value]
    if name.lower().endswith("bytes"):
        for size, unit in ((_MIB, "MiB"), (_KIB, "KiB")):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
        return f"{value:,} bytes".replace(",", " ")
    if name.endswith("_per_s"):
        return f"{value:g} a second" if value else "off"
    is_whole = isinstance(value, int) or float(value).is_integer()
    text = f"{int(value):,}".replace(",", " ") if is_whole else f"{value:g}"
    return f"{text} s" if name.endswith("_s") else text


def server_limits() -> str:
    """Every trait of Limits."""
    traits = Limits.class_own_traits(config=True)
    rows = [
        (f"`{name}`", amount(name, trait.default_value), str(trait.help))
        for name, trait in traits.items()
    ]
    return table(("`c.AgentsApp.…`", "default", "what it is, and what happens"), rows)


def described_fields(cls: type) -> dict[str, str]:
    """The strings below the fields of a dataclass, each on one line."""
    [tree] = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    found, last = {}, ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.target.id
        elif last and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[last] = " ".join(str(node.value.value).split())
    return found


def kernel_limits() -> str:
    """Every field of HostLimits."""
    about = described_fields(host.HostLimits)
    rows = [
        (f"`{field.name}`", amount(field.name, field.default), about[field.name])
        for field in dataclasses.fields(host.HostLimits)
    ]
    return table(("`HostLimits`", "default", "what it is, and what happens"), rows)


def client_limits() -> str:
    """Every field of ReconnectPolicy."""
    rows = [
        (f"`{field.name}`", amount(field.name, field.default))
        for field in dataclasses.fields(backoff.ReconnectPolicy)
    ]
    return table(("`ReconnectPolicy(…)`", "default"), rows)


FIXED: tuple[tuple[Any, str, str, str], ...] = (
    (names, "MAX_NAME_BYTES", "instance name", "400, no upgrade"),
    (names, "MAX_CONNECTION_ID_CHARS", "connection id, in characters", "400, no upgrade"),
    (names, "MAX_OWN_TAGS", "an author's tags of one connection", "1011 and `on_error`"),
    (names, "MAX_TAG_CHARS", "one tag, in characters", "1011 and `on_error`"),
    (connection, "MAX_STATE_BYTES", "`connection.state` as JSON", "`ValueError`"),
    (closing, "MAX_REASON_BYTES", "reason of a close", "`ValueError`"),
    (
        records.RelayLimits,
        "max_parked_gone",
        "clients that left before their agent could hear of it",
        "`on_close` is not run for more",
    ),
    (
        thread,
        "MAX_POSTED",
        "what cells have sent and the agents' thread has not taken, in pieces",
        "the sending cell waits",
    ),
    (
        hosted,
        "QUEUED_SIZE",
        "a handle's broadcast that is queued, in characters or bytes",
        "a longer one waits until it is sent",
    ),
    (
        serving,
        "MAX_SOURCE_BYTES",
        "a cell that serves with `autostart=True`",
        "`ServeError`",
    ),
    (
        marks,
        "SLOTS",
        "connections of one kernel whose messages outlive it",
        "those of more are lost with it, unless redelivered at least once",
    ),
)


def fixed_limits() -> str:
    """What no setting changes."""
    rows = [
        (what, amount(name, getattr(home, name)), f"`{_module(home)}.{name}`", happens)
        for home, name, what, happens in FIXED
    ]
    return table(("what", "limit", "where", "past it"), rows)


def _module(home: Any) -> str:
    module = getattr(home, "__module__", None) or home.__name__
    return str(module).removeprefix("jupyter_agents.")


def frame_kinds() -> str:
    """Every frame of the link, with the comment beside it."""
    source = inspect.getsource(frames.Kind)
    rows = []
    for kind in frames.Kind:
        found = re.search(rf"^    {kind.name} = \(?\n?\s*{kind.value}\s+# (.)(.*)$", source, re.M)
        assert found is not None, kind
        rows.append((str(kind.value), f"`{kind.name}`", found[1], found[2].strip()))
    return table(("kind", "name", "way", "what it says"), rows)


def import_law() -> str:
    """What each room may import."""
    rows = [
        (f"`{room}`", _words(name for name in law.ours if name != room), _words(law.others))
        for room, law in LAWS.items()
    ]
    edges = _words(edge or "__init__" for edge in EDGES)
    rows.append((edges, "anything, when it is used", "anything, when it is used"))
    return table(("room", "may import of ours", "may import of others"), rows)


def _words(words: Any) -> str:
    return ", ".join(f"`{word}`" for word in words) or "–"


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "architecture.md": {"import law": import_law},
    "limits.md": {
        "limits of the server": server_limits,
        "limits of the kernel": kernel_limits,
        "limits of a client": client_limits,
        "fixed limits": fixed_limits,
    },
    "link.md": {"frames of the link": frame_kinds},
}
CASES = [(page, name) for page, tables in TABLES.items() for name in tables]


def parts(page: str, name: str) -> tuple[str, str, str]:
    """The page before, in and after a table."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    begin = f"<!-- {name}, made by tests/tables.py -->\n"
    before, _, rest = text.partition(begin)
    assert rest, f"docs/{page} has no {begin.strip()}"
    inside, _, after = rest.partition("<!-- end -->")
    return before + begin, inside, "<!-- end -->" + after


def write() -> None:
    """Write every table anew."""
    for page, name in CASES:
        before, _, after = parts(page, name)
        (ROOT / "docs" / page).write_text(before + TABLES[page][name]() + after, "utf-8")


if __name__ == "__main__":
    write()
