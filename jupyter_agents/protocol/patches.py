"""What changed between two JSON texts, as RFC 6902 operations.

Promises that ``apply(old, diff(old, new))`` is `new` as JSON (the order of an object's keys is
not part of it), in time that follows the texts' size and the depth of what differs, and with few
operations or none at all. Only what differs is taken apart; the rest is compared as text. Must
not decide whether a patch is worth sending: `agent_side` compares sizes. Its other half is in
``static/agent-client.js``.

Used operations: add, remove, replace.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import DecodeError, Raw
from msgspec.json import Decoder

__all__ = ["Operation", "PatchError", "apply", "diff"]

Operation = dict[str, Any]


class PatchError(ValueError):
    """A patch does not fit the value it was applied to, or is no patch."""


class _TooManyError(Exception):
    """There are more operations than asked for."""


# ── Finding operations ───────────────────────────────────────────────────────────────────


def diff(old: bytes, new: bytes, *, max_ops: int = 64) -> list[Operation] | None:
    """List the operations that turn `old` into `new`.

    Parameters
    ----------
    old, new : bytes
        As `messages.encode` writes them: without spaces, so that equal parts are equal bytes.
    max_ops : int
        Give up beyond so many operations.

    Returns
    -------
    list or None
        None when there are too many, or the values nest too deeply: send the whole then. Values
        in them are `msgspec.Raw`, pieces of `new` for `messages.encode` to copy.
    """
    found = _Operations(max_ops)
    try:
        found.compare("", Raw(old), Raw(new))
    except (_TooManyError, RecursionError, DecodeError):
        return None
    return found.ops


_OBJECT, _ARRAY = Decoder(dict[str, Raw]), Decoder(list[Raw])


class _Operations:
    """A list of operations under construction, in the order in which they apply."""

    def __init__(self, limit: int) -> None:
        self.ops: list[Operation] = []
        self._limit = limit

    def compare(self, path: str, old: Raw, new: Raw) -> None:
        if old == new:
            return
        starts = memoryview(old)[:1].tobytes() + memoryview(new)[:1].tobytes()
        if starts == b"{{":
            self._compare_objects(path, _OBJECT.decode(old), _OBJECT.decode(new))
        elif starts == b"[[":
            self._compare_arrays(path, _ARRAY.decode(old), _ARRAY.decode(new))
        else:
            self._append({"op": "replace", "path": path, "value": new})

    def _compare_objects(self, path: str, old: dict[str, Raw], new: dict[str, Raw]) -> None:
        for key in old:
            if key not in new:
                self._append({"op": "remove", "path": f"{path}/{_escaped(key)}"})
        for key, value in new.items():
            below = f"{path}/{_escaped(key)}"
            if key in old:
                self.compare(below, old[key], value)
            else:
                self._append({"op": "add", "path": below, "value": value})

    def _compare_arrays(self, path: str, old: list[Raw], new: list[Raw]) -> None:
        start, end = _common_ends(old, new)
        before, after = old[start : len(old) - end], new[start : len(new) - end]
        dropped = _dropped_in_front(before, after)
        self._remove(path, start, start + dropped)
        before = before[dropped:]
        paired = min(len(before), len(after))
        for index in range(paired):
            self.compare(f"{path}/{start + index}", before[index], after[index])
        self._remove(path, start + paired, start + len(before))
        for index in range(paired, len(after)):
            place = start + index if end else "-"
            self._append({"op": "add", "path": f"{path}/{place}", "value": after[index]})

    def _remove(self, path: str, start: int, stop: int) -> None:
        # From the back, so that each index still means the same item.
        for index in range(stop - 1, start - 1, -1):
            self._append({"op": "remove", "path": f"{path}/{index}"})

    def _append(self, operation: Operation) -> None:
        if len(self.ops) == self._limit:
            raise _TooManyError
        self.ops.append(operation)


def _common_ends(old: list[Raw], new: list[Raw]) -> tuple[int, int]:
    """Count the items that stay in front, and behind."""
    shorter = min(len(old), len(new))
    start = 0
    while start < shorter and old[start] == new[start]:
        start += 1
    end = 0
    while end < shorter - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return start, end


def _dropped_in_front(old: list[Raw], new: list[Raw]) -> int:
    """Count what a bounded list lost before it grew: one, from ``[1, 2, 3]`` to ``[2, 3, 4]``."""
    if not new:
        return 0
    for index, item in enumerate(old):
        if index and item == new[0]:
            kept = len(old) - index
            return index if kept <= len(new) and old[index:] == new[:kept] else 0
    return 0


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


# ── Applying operations ──────────────────────────────────────────────────────────────────


def apply(document: Any, ops: list[Operation]) -> Any:
    """Return the document as the operations leave it; the one given is not changed.

    Raises
    ------
    PatchError
        When an operation does not fit, or is none of add, remove and replace.
    """
    for operation in ops:
        document = _applied(document, operation)
    return document


def _applied(document: Any, operation: Operation) -> Any:
    kind, keys, value = _read(operation)
    if not keys:
        if kind == "remove":
            raise PatchError("the whole document cannot be removed")
        return value
    # Copies along the path only: everything beside it stays shared with the document given.
    whole = place = _copy(document)
    for key in keys[:-1]:
        found = _existing(place, key)
        place[found] = _copy(place[found])
        place = place[found]
    _change(place, keys[-1], kind, value)
    return whole


def _read(operation: Any) -> tuple[str, list[str], Any]:
    if not isinstance(operation, dict) or operation.get("op") not in ("add", "remove", "replace"):
        raise PatchError(f"no operation of ours: {operation!r:.80}")
    kind, path = operation["op"], operation.get("path")
    if not isinstance(path, str) or (path and path[0] != "/"):
        raise PatchError(f"no path: {path!r:.80}")
    if kind != "remove" and "value" not in operation:
        raise PatchError(f"{kind} {path!r:.80} has no value")
    keys = [key.replace("~1", "/").replace("~0", "~") for key in path.split("/")[1:]]
    return kind, keys, operation.get("value")


def _copy(node: Any) -> Any:
    if not isinstance(node, (dict, list)):
        raise PatchError(f"nothing lies below a {type(node).__name__}")
    return node.copy()


def _change(place: Any, key: str, kind: str, value: Any) -> None:
    if kind == "remove":
        del place[_existing(place, key)]
    elif kind == "replace":
        place[_existing(place, key)] = value
    elif isinstance(place, dict):
        place[key] = value
    else:
        place.insert(len(place) if key == "-" else _index(key, len(place)), value)


def _existing(place: Any, key: str) -> Any:
    if isinstance(place, list):
        return _index(key, len(place) - 1)
    if key not in place:
        raise PatchError(f"there is no {key!r:.80}")
    return key


_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")


def _index(key: str, last: int) -> int:
    if not _INDEX.fullmatch(key) or int(key) > last:
        raise PatchError(f"there is no item {key!r:.80}")
    return int(key)
