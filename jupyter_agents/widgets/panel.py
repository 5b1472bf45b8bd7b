"""The panel: all about one agent instance, live. What ``serve(…)`` shows below its cell."""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING, Any

from jupyter_agents.host.callables import CallRefused
from jupyter_agents.widgets.about import About
from jupyter_agents.widgets.broadcasts import MessageRing
from jupyter_agents.widgets.call_form import Calls
from jupyter_agents.widgets.connections import ConnectionRows
from jupyter_agents.widgets.section import Ring, Section, shortened, who
from jupyter_agents.widgets.state import StateHistory
from jupyter_agents.widgets.view import LiveView

if TYPE_CHECKING:
    from jupyter_agents.host.host import HostEvent
    from jupyter_agents.widgets.feed import Feed
    from jupyter_agents.widgets.section import Parcel

__all__ = ["AgentPanel", "Problems"]

KEPT = 100
TRACE_LENGTH = 10_000


class Problems(Section):
    """What went wrong, for the author: errors with their tracebacks, slow hooks, refused input.

    An entry is ``{"n", "at", "level", "where", "text", "who"?, "trace"?}``.
    """

    key = "problems"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._ring = Ring(KEPT)
        self._handler = _Warnings(self)

    def begin(self) -> None:
        """Start with nothing, and listen to the host's own warnings."""
        self._ring.clear()
        logging.getLogger("jupyter_agents").addHandler(self._handler)

    def end(self) -> None:
        """Listen no more."""
        logging.getLogger("jupyter_agents").removeHandler(self._handler)
        self._ring.clear()

    def hear(self, event: HostEvent) -> None:
        """Keep an error; refused input comes as the answer to a call."""
        data = event.data
        if event.kind == "error":
            self._error(data)
        elif event.kind == "answer" and isinstance(data["error"], CallRefused):
            text = str(data["error"])
            self.add("refused", f"call of {data['method']}", text, who(data["connection"]))

    def _error(self, data: dict[str, Any]) -> None:
        error: BaseException = data["error"]
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        text = f"{type(error).__name__}: {error}"
        by = who(data["connection"])
        self.add(
            "error", str(data["where"]), text, by, shortened(trace[-TRACE_LENGTH:], TRACE_LENGTH)
        )

    def warn(self, text: str) -> None:
        """Keep a warning of the host's, such as a slow hook's name."""
        self.add("warning", "", text, None)

    def add(self, level: str, where: str, text: str, by: Any, trace: str = "") -> None:
        """Keep one more."""
        entry = {"at": time.time(), "level": level, "where": where, "who": by, "trace": trace}
        self._ring.add({**entry, "text": shortened(text, 2_000)})
        self.feed.touch()

    def whole(self, parcel: Parcel) -> Any:
        """``{"entries"}``."""
        self._ring.unseen = 0
        return {"entries": [{"n": n, **entry} for n, entry in self._ring.entries.items()]}

    def changes(self, parcel: Parcel) -> Any:
        """The new ones."""
        taken, _ = self._ring.take(KEPT)
        return {"entries": [{"n": n, **entry} for n, entry in taken]} if taken else None


class _Warnings(logging.Handler):
    """Brings the warnings of the host, whichever thread they come from."""

    def __init__(self, problems: Problems) -> None:
        super().__init__(logging.WARNING)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        own = f"jupyter_agents.{self._problems.feed.agent}"
        if record.name not in ("jupyter_agents", "jupyter_agents.state", own):
            return
        if record.name == own and record.exc_info:  # it comes as an event, with more to it
            return
        try:
            self._problems.feed.host.post(self._problems.warn, record.getMessage())
        except Exception:
            self.handleError(record)


class AgentPanel(LiveView):
    """The live panel of one agent instance: connections, state, messages, calls and errors.

    Parameters
    ----------
    shown : AgentNamespace or AgentHandle
        What `serve` returned, or one instance of it.
    name : str, optional
        Which instance; by default the handle's, or the first that lives. The panel can turn to
        another one.
    """

    part = "panel"
    sections = (About, ConnectionRows, StateHistory, MessageRing, Calls, Problems)
