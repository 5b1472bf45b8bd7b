"""Ordinary ipywidgets bound both ways to the fields of a typed state.

A control shows what holds. Moved by hand, it has the agent's thread write the newest value, one
write at a time; a refused one moves back and says why. Moved by anyone else, it follows.
"""

from __future__ import annotations

import datetime
import json
import math
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import ipywidgets
import traitlets

from jupyter_agents.errors import HostStopped
from jupyter_agents.host.state import field_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.host.handle import AgentHandle

__all__ = ["Binding", "control", "controls", "make_control"]

SETTLE_S = 0.3
LABEL_CH = 24
"""How wide the descriptions of controls may get that stand below each other."""


def controls(handle: AgentHandle, *fields: str) -> ipywidgets.VBox:
    """Controls for these fields of a typed state, by default for all, one below the other.

    Raises
    ------
    TypeError
        When the state is free-form: it has no fields.
    """
    made = [control(handle, name) for name in fields or _fields_of(handle)]
    width = max(len(getattr(widget, "description", "")) for widget in made)
    for widget in made:
        if hasattr(widget.style, "description_width"):
            widget.style.description_width = f"{min(width, LABEL_CH)}ch"
    return ipywidgets.VBox(made)


def control(handle: AgentHandle, field: str) -> ipywidgets.Widget:
    """One ipywidget for a field of a typed state, bound both ways while it is open.

    What kind it is follows from the trait; the trait's tag ``control=…`` (a widget class, or a
    function that makes a widget) has the last word. ``help`` becomes its tooltip, and ``label``
    its description.

    Raises
    ------
    AttributeError
        When the state has no such field.
    """
    if field not in _fields_of(handle):
        known = ", ".join(_fields_of(handle))
        raise AttributeError(f"The state has no field {field!r}, but {known}")
    trait = getattr(_class_of(handle), field)
    widget = make_control(field, trait)
    Binding(handle, field, trait, widget)
    return widget


def _class_of(handle: AgentHandle) -> Any:
    return handle._cls


def _fields_of(handle: AgentHandle) -> tuple[str, ...]:
    cls = _class_of(handle)
    fields = field_names(cls)
    if not fields:
        raise TypeError(
            f"{cls.__name__} has a free-form state; controls need fields: traits tagged sync=True"
        )
    return fields


# ── Which widget ─────────────────────────────────────────────────────────────────────────


def make_control(field: str, trait: Any) -> ipywidgets.Widget:
    """The widget that suits a trait, not bound to anything yet."""
    made = trait.metadata.get("control")
    common = {
        "description": str(trait.metadata.get("label") or field.replace("_", " ")),
        "tooltip": str(trait.metadata.get("help") or trait.help or ""),
        "disabled": bool(trait.read_only),
        "style": {"description_width": "initial"},
    }
    if made is not None:
        return made(description=common["description"])
    for kinds, make in _makers():
        if isinstance(trait, kinds):
            return make(trait, common)
    return ipywidgets.Text(continuous_update=False, placeholder="JSON", **common)


def _makers() -> tuple[tuple[Any, Callable[[Any, dict[str, Any]], ipywidgets.Widget]], ...]:
    t = traitlets
    return (
        (t.Bool, lambda trait, common: ipywidgets.Checkbox(indent=False, **common)),
        ((t.Enum, t.UseEnum), _choice),
        (t.Int, lambda trait, common: _number(trait, common, "Int")),
        (t.Float, lambda trait, common: _number(trait, common, "Float")),
        (t.Unicode, _text),
        (t.List, _list),
    )


def _choice(trait: Any, common: dict[str, Any]) -> ipywidgets.Widget:
    if isinstance(trait, traitlets.UseEnum):
        options: list[tuple[str, Any]] = [(one.name, one) for one in trait.enum_class]
    else:
        options = [(str(value), value) for value in trait.values or ()]
    if trait.allow_none:
        options = [("–", None), *options]
    return ipywidgets.Dropdown(options=options, value=None, **common)


def _number(trait: Any, common: dict[str, Any], kind: str) -> ipywidgets.Widget:
    low, high = _bound(trait.min), _bound(trait.max)
    if low is not None and high is not None:
        limits = {"min": low, "max": high, "value": low}
        tagged = {"step": trait.metadata["step"]} if "step" in trait.metadata else {}
        step = tagged or _step(kind, high - low)
        return getattr(ipywidgets, f"{kind}Slider")(**limits, **step, **common)
    return getattr(ipywidgets, f"{kind}Text")(**common)


def _bound(bound: Any) -> Any:
    return bound if bound is not None and abs(bound) != float("inf") else None


def _step(kind: str, span: float) -> dict[str, Any]:
    if kind == "Int" or span <= 0:
        return {}
    # a hundred to a thousand steps: it neither jumps nor misses
    power = math.floor(math.log10(span)) - 2
    return {"step": 10.0**power, "readout_format": f".{max(0, -power)}f"}


def _text(trait: Any, common: dict[str, Any]) -> ipywidgets.Widget:
    if isinstance(trait, ipywidgets.Color):
        return ipywidgets.ColorPicker(**common)
    if trait.metadata.get("multiline"):
        return ipywidgets.Textarea(continuous_update=False, **common)
    return ipywidgets.Text(continuous_update=False, **common)


def _list(trait: Any, common: dict[str, Any]) -> ipywidgets.Widget:
    inner = trait._trait
    if isinstance(inner, traitlets.Enum):
        options = [(str(value), value) for value in inner.values or ()]
        return ipywidgets.SelectMultiple(options=options, **common)
    if isinstance(inner, traitlets.Unicode) and not common.pop("disabled"):
        return ipywidgets.TagsInput(allow_duplicates=True, **common)
    return ipywidgets.Text(
        continuous_update=False, placeholder="JSON", **{**common, "disabled": trait.read_only}
    )


# ── The binding ──────────────────────────────────────────────────────────────────────────


class Binding:
    """Keeps a widget's ``value`` and a field of a handle equal while the widget is open.

    Parameters
    ----------
    handle : AgentHandle
        Whose field.
    field : str
        Its name.
    trait : TraitType
        As the class defines it.
    widget : ipywidgets.Widget
        Has a trait ``value``; its tooltip says why the last value was refused.

    Thread
    ------
    Widgets call back on the main thread or a subshell's; nothing here waits for the agents'
    thread.
    """

    def __init__(self, handle: AgentHandle, field: str, trait: Any, widget: Any) -> None:
        self._handle = handle
        self._field = field
        self._widget = widget
        self._as_json = isinstance(widget, ipywidgets.Text) and not isinstance(
            trait, traitlets.Unicode
        )
        self._tooltip = getattr(widget, "tooltip", None)
        self._wanted: list[Any] = []
        self._is_writing = False
        self._followed_by = 0
        self._moved_at = 0.0
        self._is_settling = False
        self._follow(None)
        handle.observe(self._follow, field)
        widget.observe(self._moved, "value")
        widget.observe(self._closed, "comm")

    def _closed(self, change: Any) -> None:
        if change["new"] is None:
            self._handle.unobserve(self._follow, self._field)
            self._widget.unobserve(self._moved, "value")

    # -- from the agent ------------------------------------------------------------------------

    def _follow(self, _change: Any) -> None:
        """Show what holds, unless a newer value is under way."""
        if self._is_writing or self._wanted:
            return
        value = self._shown(getattr(self._handle, self._field))
        self._followed_by = threading.get_ident()
        try:
            if self._widget.value != value or type(self._widget.value) is not type(value):
                self._widget.value = value
        except traitlets.TraitError:  # the widget cannot show it: off its list, beyond its end
            pass
        finally:
            self._followed_by = 0

    def _shown(self, value: Any) -> Any:
        if self._as_json:
            return json.dumps(value, default=_plain)
        if isinstance(self._widget, (ipywidgets.Text, ipywidgets.Textarea)) and value is None:
            return ""
        if isinstance(self._widget, ipywidgets.SelectMultiple):
            return tuple(value or ())
        return value

    # -- from the person -----------------------------------------------------------------------

    def _moved(self, change: Any) -> None:
        if self._followed_by == threading.get_ident():
            return
        self._moved_at = time.monotonic()
        try:
            value = self._meant(change["new"])
        except ValueError as error:
            self._refused(error)
            return
        self._wanted = [value]
        if not self._is_writing:
            self._write()

    def _meant(self, value: Any) -> Any:
        if self._as_json:
            return json.loads(value)
        return list(value) if isinstance(value, tuple) else value

    def _write(self) -> None:
        """Have the newest wanted value written; whatever came in between is skipped."""
        value = self._wanted.pop()
        reach = vars(self._handle)["_reach"]
        field = self._field

        def work(agent: Any) -> None:
            setattr(agent, field, value)

        self._is_writing = True
        try:
            future = reach.host.submit(reach.outside, work)
        except HostStopped as error:
            self._is_writing = False
            self._refused(error)
            return
        future.add_done_callback(lambda done: self._home(self._written, done))

    def _home(self, function: Callable[..., None], *args: Any) -> None:
        """Go on where the handle is at home; widgets are written there only."""
        if not vars(self._handle)["_home"].soon(lambda: function(*args)):
            function(*args)

    def _written(self, done: Any) -> None:
        self._is_writing = False
        error = None if done.cancelled() else done.exception()
        if self._wanted:
            self._write()
        elif error is not None:
            self._refused(error)
        else:
            self._explain("")
            self._follow(None)
        if not self._is_settling and vars(self._handle)["_home"].has_loop:
            self._is_settling = True
            vars(self._handle)["_home"].later(SETTLE_S, self._settle)

    def _settle(self) -> None:
        """Once the hand is still, say again what holds.

        A subshell's thread may have taken the browser's value while this one set another:
        ipywidgets then leaves the two apart.
        """
        self._is_settling = False
        is_still = time.monotonic() - self._moved_at >= SETTLE_S and not self._is_writing
        if is_still and not self._wanted and self._widget.comm is not None:
            self._widget.send_state("value")

    def _refused(self, error: BaseException) -> None:
        self._follow(None)
        self._explain(str(error))

    def _explain(self, problem: str) -> None:
        if self._tooltip is not None:
            self._widget.tooltip = problem or self._tooltip
        if problem:
            print(f"{self._field}: {problem}", file=sys.stderr)  # noqa: T201 - below the cell


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)
