"""What you see in the notebook: live views of agents, and controls bound to their state.

They look at the agents' host from beside it and never run an agent's code on another thread than
its own. Their other half, in the browser, is `static/`.

    from jupyter_agents.widgets import AgentPanel, ConnectionsTable, StateView

    HBox([ConnectionsTable(room), StateView(room)])

Controls are made by handles: ``room.controls()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_agents.widgets.broadcasts import BroadcastLog
    from jupyter_agents.widgets.call_form import CallForm
    from jupyter_agents.widgets.connections import ConnectionsTable
    from jupyter_agents.widgets.panel import AgentPanel
    from jupyter_agents.widgets.state import StateView

__all__ = [
    "AgentPanel",
    "BroadcastLog",
    "CallForm",
    "ConnectionsTable",
    "StateView",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    homes = {
        "AgentPanel": "panel",
        "BroadcastLog": "broadcasts",
        "CallForm": "call_form",
        "ConnectionsTable": "connections",
        "StateView": "state",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
