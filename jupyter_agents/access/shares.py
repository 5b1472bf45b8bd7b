"""The register of links: what was shared, until when, and what was revoked.

In an SQLite file of this user's, so that a revocation holds over a restart and in the user's other
servers. It has no secret: what signs a link is with `keys.py`. A link that is not in the register
opens nothing, so a register that is lost closes every door.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jupyter_agents.access.capability import Capability
from jupyter_agents.errors import ShareError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Shared", "Shares"]

_log = logging.getLogger(__name__)

_BUSY_S = 0.2  # the server stands still meanwhile
_TABLE = """CREATE TABLE IF NOT EXISTS shares (
  id TEXT PRIMARY KEY, agent TEXT NOT NULL, name TEXT NOT NULL, expires INTEGER NOT NULL,
  readonly INTEGER NOT NULL, max_connections INTEGER, label TEXT NOT NULL,
  created REAL NOT NULL, revoked REAL)"""
_FORGET_REVOKED = """DELETE FROM shares WHERE revoked IS NOT NULL AND id NOT IN
  (SELECT id FROM shares WHERE revoked IS NOT NULL ORDER BY revoked DESC LIMIT ?)"""
_COLUMNS = "id, agent, name, expires, readonly, max_connections, label, created, revoked"


@dataclass(frozen=True, slots=True)
class Shared:
    """One line of the register."""

    capability: Capability
    label: str
    created: float
    revoked: float | None = None
    """When it was; None while it holds."""

    def is_good(self, now: float) -> bool:
        """Whether the link still opens its door."""
        return self.revoked is None and now < self.capability.expires


class Shares:
    """What was shared and is not expired yet.

    Parameters
    ----------
    path : Path or None
        The file; None, or one that cannot be used, keeps the register in memory.
    most : int
        How many links may be good at once. As many that were revoked are remembered; one that is
        forgotten opens nothing either.
    """

    def __init__(self, path: Path | None, most: int) -> None:
        self._path = path
        self._most = most
        self._opened: sqlite3.Connection | None = None

    def add(self, shared: Shared) -> None:
        """Take note of a new link.

        Raises
        ------
        ShareError
            When there are too many, or the register cannot be written.
        """
        self._run("DELETE FROM shares WHERE expires <= ?", shared.created)
        self._run(_FORGET_REVOKED, self._most)
        [(good,)] = self._run("SELECT count(*) FROM shares WHERE revoked IS NULL")
        if good >= self._most:
            raise ShareError(
                f"{good} links are shared already, the server's limit is {self._most}; "
                "revoke some, or let them expire"
            )
        one = shared.capability
        row = (one.id, one.agent, one.name, one.expires, one.readonly, one.max_connections)
        self._run(
            f"INSERT INTO shares ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",  # noqa: S608
            *row,
            shared.label,
            shared.created,
        )

    def get(self, share_id: str) -> Shared | None:
        """Return a link by its id, revoked or not."""
        return next(iter(self._select("WHERE id = ?", share_id)), None)

    def among(self, ids: Iterable[str]) -> dict[str, Shared]:
        """Return those of these links that are known, by id."""
        found = (self.get(one) for one in ids)
        return {one.capability.id: one for one in found if one is not None}

    def of(self, agent: str, name: str | None, now: float) -> list[Shared]:
        """List the good links to an agent, or to one instance, oldest first."""
        where, arguments = "WHERE agent = ?", [agent]
        if name is not None:
            where, arguments = f"{where} AND name = ?", [agent, name]
        found = self._select(f"{where} ORDER BY created, id", *arguments)
        return [one for one in found if one.is_good(now)]

    def revoke(self, share_id: str, now: float) -> bool:
        """Close a link for good; False when there is none of this id."""
        self._run("UPDATE shares SET revoked = coalesce(revoked, ?) WHERE id = ?", now, share_id)
        return self.get(share_id) is not None

    def last_expiry(self) -> float:
        """When the last good link expires; 0 when there is none."""
        [(last,)] = self._run("SELECT max(expires) FROM shares WHERE revoked IS NULL")
        return float(last or 0)

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _select(self, where: str, *arguments: Any) -> list[Shared]:
        rows = self._run(f"SELECT {_COLUMNS} FROM shares {where}", *arguments)  # noqa: S608
        return [_shared(row) for row in rows]

    def _run(self, statement: str, *arguments: Any) -> list[Any]:
        try:
            with self._database() as database:
                return database.execute(statement, arguments).fetchall()
        except sqlite3.Error as error:
            raise ShareError(f"The register of links cannot be used: {error}") from error

    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            try:
                self._opened = _open(self._path)
            except (OSError, sqlite3.Error) as error:
                _log.warning("Shared links end with this server, as none can be kept: %s", error)
                self._opened = _open(None)
        return self._opened


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # made here and not by SQLite, so that it is nobody else's from its first moment on
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    place = ":memory:" if path is None else str(path)
    database = sqlite3.connect(place, timeout=_BUSY_S, check_same_thread=False)
    try:
        database.execute(_TABLE)
    except BaseException:
        database.close()
        raise
    return database


def _shared(row: tuple[Any, ...]) -> Shared:
    share_id, agent, name, expires, readonly, most, label, created, revoked = row
    capability = Capability(share_id, agent, name, expires, bool(readonly), most)
    return Shared(capability, label, created, revoked)
