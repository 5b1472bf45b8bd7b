"""The widget behind every live view: it carries messages between feed and browser.

Traits are written once, by the thread that makes the widget. What is live goes by custom messages
from the agents' thread; what comes from the browser is posted to the agents' thread. So no
callback here runs an agent's code.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
from ipywidgets.widgets import widget as ipywidgets_widget
from traitlets import Dict, Unicode

from jupyter_agents.errors import HostStopped
from jupyter_agents.host.handle import AgentHandle
from jupyter_agents.widgets.feed import Feed
from jupyter_agents.widgets.still import still_html

if TYPE_CHECKING:
    from jupyter_agents.host.host import AgentHost
    from jupyter_agents.host.namespace import AgentNamespace
    from jupyter_agents.widgets.section import Section

__all__ = ["LiveView", "bundled"]

OPEN_S = 2.0
HERE = Path(__file__).parent / "static"
SHARED = Path(__file__).parents[1] / "static"

_IMPORT = re.compile(r'^import\s*\{([^}]*)\}\s*from\s*"([^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(
    r"^export (default )?((?:async )?(?:function\*?|class|const|let) (\w+))?", re.MULTILINE
)


def bundled(entry: Path) -> str:
    """One ES module out of a module and all that it imports by relative path.

    Each module keeps a scope of its own. Only what our modules use is understood: ``import { a, b
    as c } from "…"``, ``export`` before a function, class or constant, and ``export default``
    before an object.
    """
    met: set[Path] = set()
    scopes: list[str] = []  # what is needed stands before what needs it

    def add(path: Path) -> str:
        if path not in met:
            met.add(path)
            scopes.append(_scoped(path, lambda target: add((path.parent / target).resolve())))
        return _name(path)

    last = add(entry.resolve())
    return "".join(scopes) + f"export default {last}.default;\n"


def _name(path: Path) -> str:
    return "module_" + re.sub(r"\W", "_", path.stem)


def _scoped(path: Path, needed: Any) -> str:
    exported: list[str] = []
    before: list[str] = []

    def imported(match: re.Match[str]) -> str:
        names = match[1].replace(" as ", ": ")
        before.append(f"const {{{names}}} = {needed(match[2])};\n")
        return ""

    def declared(match: re.Match[str]) -> str:
        if match[1]:
            exported.append("default: module_default")
            return "const module_default = "
        exported.append(match[3])
        return match[2]

    source = _EXPORT.sub(declared, _IMPORT.sub(imported, path.read_text(encoding="utf-8")))
    body = "".join(before) + source
    given = ", ".join(exported)
    return f"const {_name(path)} = (() => {{\n{body}\nreturn {{ {given} }};\n}})();\n"


def _styles() -> str:
    files = (SHARED / "agent-views.css", HERE / "live-view.css")
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


class LiveView(anywidget.AnyWidget):
    """The base of all live views: `AgentPanel` and its parts.

    Parameters
    ----------
    shown : AgentNamespace or AgentHandle
        What `serve` returned, or one instance of it.
    name : str, optional
        Which instance; by default the handle's, or the first that lives.

    Thread
    ------
    Make and close it where cells run. It costs nothing while nobody looks at it.
    """

    part: ClassVar[str] = ""
    sections: ClassVar[tuple[type[Section], ...]] = ()

    _esm = bundled(HERE / "live-view.js")
    _css = _styles()
    _part = Unicode().tag(sync=True)
    _still = Dict().tag(sync=True)

    def __init__(
        self, shown: AgentNamespace | AgentHandle, name: str | None = None, **kwargs: Any
    ) -> None:
        host, agent, chosen = _target(shown)
        self._host = host
        self._made_in = _cell()
        self._owns_layout = "layout" not in kwargs
        self._feed = Feed(host, agent, name or chosen, self.sections, self._tell, _running_loop())
        still = host.submit(self._feed.open).result(OPEN_S)
        super().__init__(_part=self.part, _still=still, **kwargs)
        self.on_msg(self._heard)
        self._close_earlier()

    @property
    def instance_name(self) -> str:
        """The instance that is shown now."""
        return self._feed.name

    def _tell(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        """Send to all views, on the agents' thread."""
        self.send(content, buffers)

    def _heard(self, _widget: Any, content: Any, buffers: list[Any]) -> None:
        """Hand a view's words over to the agents' thread."""
        try:
            self._host.do(self._feed.heard, content, buffers)
        except (HostStopped, RuntimeError):  # its loop is closed
            self.send({"kind": "ended"})

    def close(self) -> None:
        """Take the view away, and stop watching for it."""
        if self.comm is not None:
            try:
                self._host.do(self._feed.close)
            except (HostStopped, RuntimeError):
                pass
            if self._owns_layout:
                self.layout.close()  # ipywidgets leaves it behind
        super().close()

    def _close_earlier(self) -> None:
        """A cell that runs again closes the views that its earlier runs made."""
        cell, run = self._made_in
        if not cell:
            return
        for other in list(ipywidgets_widget._instances.values()):
            made = other._made_in if isinstance(other, LiveView) else ("", "")
            if made[0] == cell and made[1] != run:
                other.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        words = f"{type(self).__name__} of {self._feed.agent}/{self._feed.name}"
        return {**data, "text/plain": words, "text/html": still_html(self._still)}, metadata


def _target(shown: Any) -> tuple[AgentHost, str, str | None]:
    if isinstance(shown, AgentHandle):
        reach = vars(shown)["_reach"]
        return reach.host, reach.agent, reach.name
    if hasattr(shown, "host") and hasattr(shown, "agent"):
        return shown.host, shown.agent, None
    raise TypeError(
        f"A live view shows what serve(…) returned, or one instance of it, not {shown!r}"
    )


def _cell() -> tuple[str, str]:
    """The cell that runs now and this run of it; empty where there are no cells."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    parent = getattr(shell, "parent_header", None)
    if not isinstance(parent, dict):
        return "", ""
    cell = (parent.get("metadata") or {}).get("cellId") or ""
    return str(cell), str((parent.get("header") or {}).get("msg_id") or "")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
