"""HTTP to an agent, whether a socket may open, and what the server's own view asks for.

Each request is a task; its answer is one frame. A request that nobody waits for any more is
cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_agents.host.callables import get_callable_methods
from jupyter_agents.host.state import field_names
from jupyter_agents.instance.hooks import outcome
from jupyter_agents.link.frames import Kind, pack_with_object, unpack_object, unpack_with_object
from jupyter_agents.protocol import closing
from jupyter_agents.protocol.http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_agents.host.host import AgentHost, Hosted
    from jupyter_agents.instance.instance import AgentInstance

__all__ = ["Requests"]

_FAILED = "Internal error"
_Rendered = tuple[dict[str, Any], bytes]
_log = logging.getLogger("jupyter_agents")


class Requests:
    """What a host answers by number."""

    def __init__(self, host: AgentHost) -> None:
        self._host = host
        self._cancels: dict[int, Callable[[], object]] = {}

    # -- HTTP ----------------------------------------------------------------------------------

    def request(self, number: int, payload: bytes) -> None:
        """A REQUEST frame: HTTP, or with ``gate`` the question whether a socket may open."""
        about, body = unpack_with_object(payload)
        request = Request.from_dict(about["request"]).replace(body=body)
        hosted = self._host.classes.get(request.agent)
        if hosted is None:
            self._respond(number, _rendered(Response({"error": "The agent is not served"}, 503)))
            return
        work = self._gate if about.get("gate") else self._http
        context = hosted.context.copy()
        self._cancels[number] = self._host.spawn(
            work(hosted, request), context, partial(self._done, number, hosted, request)
        )

    def abandon(self, number: int, payload: bytes) -> None:
        """An ABANDON frame: the client is gone."""
        cancel = self._cancels.pop(number, None)
        if cancel is not None:
            cancel()

    async def _gate(self, hosted: Hosted, request: Request) -> _Rendered:
        answer = await outcome(hosted.cls.on_before_connect(request))
        if isinstance(answer, Response):
            return _rendered(answer)
        if answer is None or isinstance(answer, Request):
            return {"pass": True, "request": (answer or request).to_dict()}, b""
        raise TypeError(
            f"on_before_connect returned {type(answer).__name__}, not a Request or Response"
        )

    async def _http(self, hosted: Hosted, request: Request) -> _Rendered:
        replaced = await outcome(hosted.cls.on_before_request(request))
        if isinstance(replaced, Response):
            return _rendered(replaced)
        if isinstance(replaced, Request):
            request = replaced
        instance = self._host.instance(hosted, request.name)
        with instance.in_use():
            await self._started(instance)
            context = instance.hooks.context(request=request)
            self._host.running = instance.agent.on_request
            answer = await outcome(context.run(instance.agent.on_request, request))
        return _rendered(Response.of(answer), unanswered=answer is None)

    async def _started(self, instance: AgentInstance) -> None:
        try:
            await instance.until_started()
        except Exception:
            raise _NotStarted from None

    def _done(
        self,
        number: int,
        hosted: Hosted,
        request: Request,
        value: Any,
        error: BaseException | None,
    ) -> None:
        self._cancels.pop(number, None)
        if isinstance(error, asyncio.CancelledError):
            return
        if error is not None:
            if not isinstance(error, _NotStarted):
                self._report(hosted, request, error)
            value = _rendered(Response({"error": _FAILED}, 500))
        self._respond(number, value)

    def _report(self, hosted: Hosted, request: Request, error: BaseException) -> None:
        instance = hosted.instances.get(request.name)
        if instance is None:  # a class method raised; no instance need wake to hear of it
            hosted.context.copy().run(
                _log.error, "%s: %s", hosted.cls.__name__, error, exc_info=error
            )
        else:
            instance.hooks.report(None, "on_request", error)

    def _respond(self, number: int, rendered: _Rendered) -> None:
        about, body = rendered
        self._host.send(Kind.RESPONSE, number, pack_with_object(about, body))

    # -- the server's own view -----------------------------------------------------------------

    def ask(self, number: int, payload: bytes) -> None:
        """An ASK frame: ``{"do", "agent", "name", …}``."""
        question = unpack_object(payload)
        hosted = self._host.classes.get(str(question.get("agent")))
        work = self._asked(hosted, question)
        self._cancels[number] = self._host.spawn(
            work, _context(hosted), partial(self._answered, number)
        )

    def _answered(self, number: int, value: Any, error: BaseException | None) -> None:
        self._cancels.pop(number, None)
        answer = value if error is None else {"status": 500, "error": str(error)}
        self._host.send_object(Kind.ANSWER, number, answer)

    async def _asked(self, hosted: Hosted | None, question: dict[str, Any]) -> dict[str, Any]:
        if hosted is None:
            return {"status": 404, "error": "The agent is not served"}
        do, name = question.get("do"), str(question.get("name", ""))
        if do == "describe":
            return {**describe(hosted), **self._instance_facts(hosted, name)}
        if do == "withdraw":
            await self._host.withdraw(hosted.agent)
            return {}
        instance = hosted.instances.get(name)
        if instance is None:
            return {"status": 404, "error": f"{hosted.agent} has no instance {name!r}"}
        if do == "stop":
            await self._stop(instance)
            return {}
        return self._act(instance, str(do), question)

    async def _stop(self, instance: AgentInstance) -> None:
        for connection in instance.connections():
            instance.door.close(connection, closing.GOING_AWAY, "The instance was stopped")
        await self._host.emptied([instance])
        await self._host.rest.lull(instance)

    def _act(self, instance: AgentInstance, do: str, question: dict[str, Any]) -> dict[str, Any]:
        if do == "reset":
            instance.reset()
        elif do in ("close", "readonly"):
            return self._to_connection(instance, do, question)
        else:
            return {"status": 400, "error": f"{do!r} is not something an agent can be asked"}
        return {}

    def _to_connection(
        self, instance: AgentInstance, do: str, question: dict[str, Any]
    ) -> dict[str, Any]:
        chosen = [c for c in instance.connections() if c.id == question.get("id")]
        if not chosen:
            return {"status": 404, "error": "There is no such connection"}
        for connection in chosen:  # ids are the clients' own, and may be shared
            if do == "close":
                connection.close(int(question.get("code", 1000)), str(question.get("reason", "")))
            else:
                instance.set_flag(connection, "readonly", bool(question.get("readonly", True)))
        return {}

    def _instance_facts(self, hosted: Hosted, name: str) -> dict[str, Any]:
        instance = hosted.instances.get(name)
        if instance is None:
            return {"name": name, "started": False, "connections": []}
        connections = [
            {"id": c.id, "tags": c.tags, "readonly": c.readonly, "state": c.state}
            for c in instance.connections()
        ]
        return {"name": name, "started": instance.started, "connections": connections}


class _NotStarted(Exception):
    """`on_start` raised; it is reported already."""


def _context(hosted: Hosted | None) -> contextvars.Context:
    return hosted.context.copy() if hosted is not None else contextvars.Context()


def _rendered(response: Response, *, unanswered: bool = False) -> _Rendered:
    status, headers, body = response.rendered()
    about: dict[str, Any] = {"status": status, "headers": headers}
    if unanswered:
        about["unanswered"] = True
    return about, body


def describe(hosted: Hosted) -> dict[str, Any]:
    """What a page or panel needs to know of a class.

    Its callable methods with their parameters, its kind of state.
    """
    callables = [
        {
            "name": name,
            "description": method.description,
            "streaming": method.streaming,
            "parameters": method.parameters,
        }
        for name, method in get_callable_methods(hosted.cls).items()
    ]
    fields = field_names(hosted.cls)
    kind = "typed" if fields else "free"
    return {
        "agent": hosted.agent,
        "class": hosted.cls.__name__,
        "state_kind": kind,
        "fields": fields,
        "callables": callables,
    }
