"""Every exception of jupyter_agents, as one tree.

AgentsError
├── ProtocolError
│   ├── LocalProtocolError
│   └── RemoteProtocolError
├── AddressError
├── AgentNotFound
├── ServeError
├── ShareError
├── CallError
│   ├── CallFailed
│   ├── CallTimeout
│   └── CallAborted
├── StateError
│   ├── StateRejected
│   └── ConnectionReadonly
├── PublicError
├── ConnectionClosed
├── LinkError
│   ├── LinkLost
│   ├── LinkRefused
│   └── LinkVersionMismatch
└── HostStopped

Facts are attributes, and the sentence is built from them. This module imports nothing, so that
every room may import it; it must not hold protocol objects.
"""

from __future__ import annotations

__all__ = [
    "AddressError",
    "AgentNotFound",
    "AgentsError",
    "CallAborted",
    "CallError",
    "CallFailed",
    "CallTimeout",
    "ConnectionClosed",
    "ConnectionReadonly",
    "HostStopped",
    "LinkError",
    "LinkLost",
    "LinkRefused",
    "LinkVersionMismatch",
    "LocalProtocolError",
    "ProtocolError",
    "PublicError",
    "RemoteProtocolError",
    "ServeError",
    "ShareError",
    "StateError",
    "StateRejected",
]


_STOPPED = "The agents' thread has stopped; run serve(...) again"


class AgentsError(Exception):
    """Any error of jupyter_agents; for ``except`` only, never raised itself."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"  # the facts alone say little


class ProtocolError(AgentsError):
    """A rule of the wire was broken; `close_code` is the code that answers it."""

    def __init__(self, message: str, close_code: int = 1002) -> None:
        super().__init__(message)
        self.close_code = close_code


class LocalProtocolError(ProtocolError):
    """This side broke a rule, for instance by sending after a close."""


class RemoteProtocolError(ProtocolError):
    """The other side broke a rule."""


class AddressError(AgentsError, ValueError):
    """`text` cannot be a class name, an instance name, a connection id or an address."""

    def __init__(self, text: str, why: str = "is not a usable address") -> None:
        super().__init__(text, why)
        self.text = text
        self.why = why

    def __str__(self) -> str:
        return f"{_short(self.text)!r} {self.why}"


class AgentNotFound(AgentsError, LookupError):
    """Nobody serves `address`; `known` lists what is served."""

    def __init__(self, address: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(address, known)
        self.address = address
        self.known = known

    def __str__(self) -> str:
        served = ", ".join(self.known) if self.known else "nothing"
        return f"No agent is served at {_short(self.address)!r}; served now: {served}"


class ServeError(AgentsError):
    """A class cannot be served; the sentence says what to do about it."""


class ShareError(AgentsError):
    """A link cannot be made or revoked; the sentence says what to do about it."""


class CallError(AgentsError):
    """A call did not bring a result."""

    def __init__(self, method: str, call_id: str = "") -> None:
        super().__init__(method, call_id)
        self.method = method
        self.call_id = call_id


class CallFailed(CallError):
    """The agent answered with an error.

    Its `message`, and `data` where the author made some public.
    """

    def __init__(self, method: str, message: str, call_id: str = "", data: object = None) -> None:
        super().__init__(method, call_id)
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return self.message


class CallTimeout(CallError, TimeoutError):
    """No answer came within `seconds`."""

    def __init__(self, method: str, seconds: float, call_id: str = "") -> None:
        super().__init__(method, call_id)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.method} did not answer within {self.seconds:g} s"


class CallAborted(CallError):
    """The connection ended first. `transmitted` false: it was never sent and is safe to repeat."""

    def __init__(
        self, method: str, *, transmitted: bool, call_id: str = "", why: str = "Connection closed"
    ) -> None:
        super().__init__(method, call_id)
        self.transmitted = transmitted
        self.why = why

    def __str__(self) -> str:
        fate = "it may have run" if self.transmitted else "it was never sent"
        return f"{self.method}: {self.why} ({fate})"


class StateError(AgentsError):
    """A change of state was refused."""


class StateRejected(StateError, ValueError):
    """A validator refused the next state.

    Raised by an author, `reason` is shown to our own clients.
    """

    def __init__(self, reason: str = "State update rejected") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ConnectionReadonly(StateError, PermissionError):
    """The connection `connection_id` may read the state but not change it."""

    def __init__(self, connection_id: str = "") -> None:
        super().__init__(connection_id)
        self.connection_id = connection_id

    def __str__(self) -> str:
        return "Connection is readonly"


class PublicError(AgentsError):
    """An error whose `message` and JSON `data` are meant for clients."""

    def __init__(self, message: str, data: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class ConnectionClosed(AgentsError):
    """The socket is closed. `final` says that a client must not come back by itself."""

    def __init__(
        self, code: int, reason: str = "", *, was_clean: bool = False, final: bool = False
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.was_clean = was_clean
        self.final = final

    def __str__(self) -> str:
        return f"Connection closed with {self.code}" + (f": {self.reason}" if self.reason else "")


class LinkError(AgentsError):
    """The link between Jupyter Server and kernel failed."""


class LinkLost(LinkError):
    """The link to the host `host_id` is gone."""

    def __init__(self, host_id: str = "") -> None:
        super().__init__(host_id)
        self.host_id = host_id

    def __str__(self) -> str:
        return f"The link to {self.host_id or 'the host'} was lost"


class LinkRefused(LinkError):
    """The other side did not prove that it knows the kernel's key, or spoke out of turn."""


class LinkVersionMismatch(LinkError):
    """Server and kernel speak different versions of the link: `ours` and `theirs`."""

    def __init__(self, ours: str, theirs: str) -> None:
        super().__init__(ours, theirs)
        self.ours = ours
        self.theirs = theirs

    def __str__(self) -> str:
        return (
            f"This side has jupyter_agents link {self.ours}, the other side has {self.theirs}; "
            "install the same jupyter_agents in Jupyter Server's environment and in the kernel's, "
            "then restart both"
        )


class HostStopped(AgentsError, RuntimeError):
    """The agents' thread has stopped; serve the class again to start it."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else _STOPPED


def _short(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
