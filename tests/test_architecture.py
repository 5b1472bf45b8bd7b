"""The laws of the house: which room may know which, and what no module may hold or do.

The rooms and their reasons stand in docs/architecture.md. A failing test names the file and
line; the way out is to move the code, not to widen the table.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.sources import PACKAGE, ROOT, Module, modules

MODULES = modules()


class Law(NamedTuple):
    """What a room may import: `ours` below the package, `others` beyond the standard library."""

    ours: tuple[str, ...]
    others: tuple[str, ...]


LAWS = {
    "errors": Law((), ()),
    "protocol": Law(("errors", "protocol"), ("msgspec",)),
    "link": Law(("errors", "link", "protocol.closing", "protocol.names"), ("msgspec",)),
    "host": Law(
        ("errors", "protocol", "link", "host", "instance", "sharing"),
        ("traitlets", "msgspec", "jupyter_core"),
    ),
    "instance": Law(("errors", "protocol", "link", "host", "instance"), ("traitlets", "msgspec")),
    "sharing": Law(("errors", "link", "host", "sharing"), ("segno",)),
    "websocket": Law(("errors", "protocol.closing", "websocket"), ("tornado",)),
    "access": Law(
        ("errors", "access", "link", "protocol.names", "protocol.http"),
        ("tornado.httputil", "tornado.web"),  # the names of its requests, for the type checker
    ),
    "server": Law(
        (
            "errors",
            "access",
            "link",
            "server",
            "websocket",
            "protocol.names",
            "protocol.closing",
            "protocol.http",
        ),
        ("tornado", "traitlets"),
    ),
    "client": Law(("errors", "protocol", "client"), ("tornado", "jupyter_core")),
    "widgets": Law(
        ("errors", "host", "client", "sharing", "widgets"),
        ("ipywidgets", "anywidget", "traitlets"),
    ),
}
EDGES = ("", "serving", "standalone", "magics", "cli", "testing")

# Jupyter Server's classes meet ours in these only; the sockets below run on plain Tornado.
ON_JUPYTER = ("server.app", "server.handlers", "server.api", "server.observe")
JUPYTER = (
    "jupyter_server", "jupyter_core", "jupyter_client", "jupyter_events", "prometheus_client",
)  # fmt: skip

PURE = ("errors", "protocol", "link")
NO_THINKING = (
    "asyncio", "concurrent", "datetime", "io", "logging", "multiprocessing", "os", "pathlib",
    "queue", "random", "sched", "secrets", "select", "selectors", "signal", "socket",
    "socketserver", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "uuid",
)  # fmt: skip

SOCKET_MODULES = (
    "socket", "ssl", "tornado.iostream", "tornado.netutil", "tornado.tcpclient",
    "tornado.tcpserver", "tornado.websocket",
)  # fmt: skip
MAY_TOUCH_SOCKETS = (
    "client.transport", "host.uplink", "server.api", "server.downlink", "server.handlers",
    "server.places", "server.sockets", "websocket.protocol", "standalone", "testing.case",
)  # fmt: skip

HEAVY = (
    "jupyter_server",
    "ipywidgets",
    "anywidget",
    "IPython",
    "tornado",
    "zmq",
    "jupyter_client",
)


def within(name: str, allowed: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of these or lies below one."""
    return any(name == item or name.startswith(f"{item}.") for item in allowed)


def offences(module: Module, law: Law) -> list[str]:
    """Each import of the module that its room's law does not allow."""
    others = law.others + (JUPYTER if module.name in ON_JUPYTER else ())
    wrong = []
    for found in module.imports:
        root = found.target.partition(".")[0]
        if root == PACKAGE:
            fine = within(found.target.removeprefix(f"{PACKAGE}."), law.ours)
        else:
            fine = root in sys.stdlib_module_names or within(found.target, others)
        if not fine:
            wrong.append(f"{module.where(found.line)} imports {found.target}")
    return wrong


@pytest.mark.parametrize("room", LAWS)
def test_room_imports_only_what_its_law_allows(room):
    """A room imports only the rooms and libraries that the import law names for it."""
    wrong = [line for m in MODULES if m.room == room for line in offences(m, LAWS[room])]
    assert not wrong, "\n".join(wrong)


def test_every_module_stands_under_a_law():
    """No module stands in a room that the import law does not know."""
    assert {m.room for m in MODULES} <= {*LAWS, *EDGES}


def test_edges_import_heavy_things_lazily():
    """The package's `__init__` imports other rooms only inside functions or for the checker."""
    eager = [
        f"{m.where(i.line)} imports {i.target}"
        for m in MODULES
        if m.name == ""
        for i in m.imports
        if not (i.lazy or i.typing or i.target in sys.stdlib_module_names)
    ]
    assert not eager, "\n".join(eager)


def test_import_law_catches_an_offence():
    """The reader of imports sees through lazy, relative and conditional imports."""
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import tornado.web\n"
        "def f():\n    from jupyter_agents.host import agent\n"
        "from . import frames\n"
        "from ..protocol.messages import encode\n"
    )
    path = ROOT / PACKAGE / "link" / "made_up.py"
    module = Module(path, "link.made_up")
    module.__dict__["text"] = source
    targets = {i.target: (i.lazy, i.typing) for i in module.imports}
    assert targets == {
        "typing": (False, False),
        "tornado.web": (False, True),
        "jupyter_agents.host.agent": (True, False),
        "jupyter_agents.link.frames": (False, False),
        "jupyter_agents.protocol.messages": (False, False),
    }
    assert len(offences(module, LAWS["link"])) == 3


def test_access_runs_without_tornado():
    """Who gets in is decided without a web server: nothing of Tornado is loaded for it."""
    names = [m.name for m in MODULES if m.room == "access"]
    loaded = loaded_after("".join(f"import {PACKAGE}.{name}\n" for name in names))
    assert not [name for name in loaded if within(name, HEAVY)]


def test_no_import_ring():
    """The modules' imports, lazy ones aside, form no ring: they can be read in one order."""
    graph = {
        m.name: {
            i.target.removeprefix(f"{PACKAGE}.").removeprefix(PACKAGE)
            for i in m.imports
            if i.target.startswith(PACKAGE) and not (i.lazy or i.typing)
        }
        for m in MODULES
    }
    assert not find_ring(graph)


def find_ring(graph: dict[str, set[str]]) -> list[str]:
    """Names along one ring of the graph, or nothing."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for target in sorted(graph.get(name, ())):
                if ring := visit(target, [*path, name]):
                    return ring
            done.add(name)
        return []

    return next((ring for name in graph if (ring := visit(name, []))), [])


def test_find_ring_finds_one():
    """The ring finder names the ring, and stays quiet where two ways lead to one module."""
    assert find_ring({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_ring({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


@pytest.mark.parametrize("room", PURE)
def test_thinking_is_synchronous(room):
    """Pure rooms know no await, clock, dice, logger, file or socket."""
    wrong = []
    for module in (m for m in MODULES if m.room == room):
        wrong += [
            f"{module.where(i.line)} imports {i.target}"
            for i in module.imports
            if within(i.target, NO_THINKING)
        ]
        wrong += [
            f"{module.where(node.lineno)} {type(node).__name__}"
            for node in ast.walk(module.tree)
            if isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith))
            or (isinstance(node, ast.Call) and _called(node) in ("open", "print", "input"))
        ]
    assert not wrong, "\n".join(wrong)


def test_sockets_are_touched_in_few_files():
    """Only the two ends of the link, the server's socket files and the client touch sockets."""
    wrong = [
        f"{m.where(i.line)} imports {i.target}"
        for m in MODULES
        if m.name not in MAY_TOUCH_SOCKETS and m.room not in ("testing", "cli")
        for i in m.imports
        if within(i.target, SOCKET_MODULES) and not i.typing
    ]
    assert not wrong, "\n".join(wrong)


MUTABLE_CALLS = (
    "Counter", "OrderedDict", "WeakKeyDictionary", "WeakSet", "WeakValueDictionary", "bytearray",
    "count", "cycle", "defaultdict", "deque", "dict", "list", "set",
)  # fmt: skip
MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


def mutable_globals(tree: ast.Module) -> list[int]:
    """Lines that bind something mutable at module level, or rebind a global from a function."""
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)]
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {t.id for t in targets if isinstance(t, ast.Name)}
            if names != {"__all__"} and node.value is not None and _is_mutable(node.value):
                lines.append(node.lineno)
    return sorted(lines)


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return _called(value) in MUTABLE_CALLS
    return isinstance(value, MUTABLE_DISPLAYS)


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""


def test_no_mutable_module_globals():
    """No module holds mutable state of its own, save the one that answers `default_host()`."""
    wrong = [
        module.where(line)
        for module in MODULES
        if not any(
            isinstance(node, ast.FunctionDef) and node.name == "default_host"
            for node in module.tree.body
        )
        for line in mutable_globals(module.tree)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "x = {}",
        "x: dict[str, int] = {}",
        "x = collections.deque()",
        "x = [n for n in range(3)]",
        "def f():\n    global x\n    x = 1",
    ],
)
def test_mutable_globals_are_recognised(source):
    """Displays, comprehensions, containers and the `global` statement count as mutable globals."""
    assert mutable_globals(ast.parse(source))


@pytest.mark.parametrize("source", ["x = ()", "__all__ = ['x']", "x = MappingProxyType({'a': 1})"])
def test_fixed_globals_are_allowed(source):
    """Tuples, frozen views and `__all__` are not mutable globals."""
    assert not mutable_globals(ast.parse(source))


def loaded_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after running the code."""
    program = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_is_light():
    """`import jupyter_agents` loads neither Jupyter Server, nor the widgets, nor Tornado."""
    loaded = loaded_after("import jupyter_agents")
    assert not [name for name in loaded if within(name, HEAVY)]
    assert not [name for name in loaded if name.startswith("jupyter_agents.")]


def test_defining_an_agent_needs_neither_server_nor_widgets():
    """`from jupyter_agents import Agent` loads neither Jupyter Server nor the widgets."""
    loaded = loaded_after("from jupyter_agents import Agent, callable_method")
    assert not [n for n in loaded if within(n, ("jupyter_server", "ipywidgets", "anywidget"))]


@pytest.mark.parametrize("room", ["protocol", "link"])
def test_pure_room_loads_no_machinery(room):
    """A pure room brings no event loop, socket or thread of ours into a fresh interpreter."""
    names = [m.name for m in MODULES if m.room == room and m.name != room]
    loaded = loaded_after("".join(f"import {PACKAGE}.{name}\n" for name in names) or "pass")
    assert not [name for name in loaded if within(name, ("asyncio", "tornado", "traitlets"))]


def test_server_and_host_never_meet():
    """The server's plain sockets load nothing of the host, and the host nothing of the server."""
    host = [m.name for m in MODULES if m.room == "host"]
    server = [m.name for m in MODULES if m.room == "server" and m.name not in ON_JUPYTER]
    in_host = loaded_after("".join(f"import {PACKAGE}.{name}\n" for name in host))
    in_server = loaded_after("".join(f"import {PACKAGE}.{name}\n" for name in server))
    assert not [n for n in in_host if within(n, (f"{PACKAGE}.server", "jupyter_server"))]
    assert not [
        n
        for n in in_server
        if within(n, (f"{PACKAGE}.host", f"{PACKAGE}.protocol.messages", "jupyter_server"))
    ]
