"""Where instances are kept between kernels: one SQLite file for all agents, or memory.

Promises that `commit` writes everything saved since the last one, or nothing. Must not know what
a state means: it takes and gives JSON as bytes. `state` decides what is saved, `instance` when.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from jupyter_core.paths import jupyter_data_dir

from jupyter_agents.errors import StateError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

__all__ = [
    "Commits",
    "MemoryStorage",
    "SqliteStorage",
    "Storage",
    "StoredInstance",
    "default_path",
    "is_same_place",
    "open_storage",
]

Key = tuple[str, str]

SAVE_AGAIN_S = 1.0
"""After a commit has failed, how often it is tried again; nothing is lost meanwhile."""

_log = logging.getLogger("jupyter_agents")


class StoredInstance(NamedTuple):
    """What is kept of one instance; all empty when nothing is.

    `state_json` and `private_json` are UTF-8 JSON or None (never set), `version` counts the
    changes of the state.
    """

    state_json: bytes | None = None
    version: int = 0
    private_json: bytes | None = None


class Storage(Protocol):
    """Keeps instances by agent (the class's name on the URL) and instance name.

    Any method may raise `StateError`; its sentence says what is wrong and what to do.

    Thread
    ------
    The agents' thread only.
    """

    def load(self, agent: str, name: str) -> StoredInstance:
        """Return what was saved last, committed or not."""
        ...

    def save(self, agent: str, name: str, *, state_json: bytes | None, version: int) -> None:
        """Keep the state; None drops it, and the row with it if nothing private is kept either."""
        ...

    def save_private(self, agent: str, name: str, *, private_json: bytes | None) -> None:
        """Keep the private state; None drops it."""
        ...

    def clear(self, agent: str, name: str) -> None:
        """Drop everything kept of one instance."""
        ...

    def names(self, agent: str) -> list[str]:
        """Return the names of an agent's instances of which something is kept, in order."""
        ...

    def commit(self) -> None:
        """Make everything saved since the last commit durable, all of it or nothing."""
        ...

    def close(self) -> None:
        """Commit and let go of the file; the next use opens it again."""
        ...


def default_path() -> Path:
    """Return the file in Jupyter's data directory that keeps agents by default."""
    return Path(jupyter_data_dir(), "jupyter_agents", "agents.sqlite3")


def open_storage(where: str | os.PathLike[str] | Storage | None = None) -> Storage:
    """Return the storage that ``serve(..., storage=where)`` means.

    Parameters
    ----------
    where : str or path or Storage, optional
        ``"memory"`` forgets with the kernel, a path is an SQLite file (made on first use), None is
        `default_path`, and any object with the methods of `Storage` is taken as it is.
    """
    if where is None:
        return SqliteStorage(default_path())
    if where == "memory":
        return MemoryStorage()
    if isinstance(where, str | os.PathLike):
        return SqliteStorage(where)
    return where


def is_same_place(one: Storage, other: Storage) -> bool:
    """Whether what one of them keeps, the other has, or is to have: the same file, or memory."""
    if isinstance(one, SqliteStorage) and isinstance(other, SqliteStorage):
        return one.path.absolute() == other.path.absolute()
    return one is other or (type(one) is MemoryStorage and type(other) is MemoryStorage)


class MemoryStorage:
    """Keeps instances as long as the kernel lives."""

    def __init__(self) -> None:
        self._rows: dict[Key, StoredInstance] = {}

    def load(self, agent: str, name: str) -> StoredInstance:
        """Return what was saved last."""
        return self._rows.get((agent, name), StoredInstance())

    def save(self, agent: str, name: str, *, state_json: bytes | None, version: int) -> None:
        """Keep the state; None drops it."""
        row = self.load(agent, name)
        self._put((agent, name), row._replace(state_json=state_json, version=version))

    def save_private(self, agent: str, name: str, *, private_json: bytes | None) -> None:
        """Keep the private state; None drops it."""
        self._put((agent, name), self.load(agent, name)._replace(private_json=private_json))

    def clear(self, agent: str, name: str) -> None:
        """Drop everything kept of one instance."""
        self._rows.pop((agent, name), None)

    def names(self, agent: str) -> list[str]:
        """Return the names of an agent's kept instances, in order."""
        return sorted(name for kind, name in self._rows if kind == agent)

    def commit(self) -> None:
        """Do nothing: memory is as durable as it gets."""

    def close(self) -> None:
        """Do nothing; what is kept stays."""

    def _put(self, key: Key, row: StoredInstance) -> None:
        if row.state_json is None and row.private_json is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = row


# Each entry brings the schema from its index to the next version. Append only: files of every age
# are out there.
_MIGRATIONS = (
    """
    CREATE TABLE instances (
        agent TEXT NOT NULL,
        name TEXT NOT NULL,
        state TEXT,
        version INTEGER NOT NULL DEFAULT 0,
        private TEXT,
        PRIMARY KEY (agent, name)
    ) WITHOUT ROWID
    """,
)

# JSON is kept as TEXT so that SQLite's own JSON functions and people can read it, but handed out
# as the bytes it is: a file may be damaged, and then it is not even UTF-8.
_LOAD = """
    SELECT CAST(state AS BLOB), version, CAST(private AS BLOB)
    FROM instances WHERE agent = ? AND name = ?
"""
_SAVE_STATE = """
    INSERT INTO instances (agent, name, state, version) VALUES (?, ?, CAST(? AS TEXT), ?)
    ON CONFLICT (agent, name) DO UPDATE SET state = excluded.state, version = excluded.version
"""
_SAVE_PRIVATE = """
    INSERT INTO instances (agent, name, private) VALUES (?, ?, CAST(? AS TEXT))
    ON CONFLICT (agent, name) DO UPDATE SET private = excluded.private
"""
_DROP_EMPTY = """
    DELETE FROM instances WHERE agent = ? AND name = ? AND state IS NULL AND private IS NULL
"""


class SqliteStorage:
    """Keeps instances in one SQLite file that several processes may use.

    Parameters
    ----------
    path : str or path
        The file; it and its folder are made on first use, readable by their owner only. An
        existing file keeps its mode.
    busy_s : float
        How long to wait for another process that writes, in seconds. The agents' thread stands
        still meanwhile.
    retry_s : float
        After a commit has failed, how long further ones fail at once, so that a full or locked
        disk does not stop the agents' thread at every turn. Nothing is lost: what was saved stays
        in memory and is committed later.

    Notes
    -----
    Saves are gathered, one per instance however often it changed, and written by `commit` in one
    transaction. WAL with ``synchronous=NORMAL``: a crash of the process loses nothing, a power cut
    may lose the last commits, and the file stays whole in both.

    Thread
    ------
    The agents' thread only; the connection is opened on it, at first use.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, busy_s: float = 2.0, retry_s: float = 1.0
    ) -> None:
        self.path = Path(path).expanduser()
        self._busy_s = busy_s
        self._retry_s = retry_s
        self._connection: sqlite3.Connection | None = None
        self._states: dict[Key, tuple[bytes | None, int]] = {}
        self._privates: dict[Key, bytes | None] = {}
        self._failed = ""
        self._retry_at = 0.0

    def load(self, agent: str, name: str) -> StoredInstance:
        """Return what was saved last, committed or not."""
        key = (agent, name)
        if key in self._states and key in self._privates:
            return StoredInstance(*self._states[key], self._privates[key])
        found = self._rows(_LOAD, key)
        row = StoredInstance(*found[0]) if found else StoredInstance()
        if key in self._states:
            state_json, version = self._states[key]
            row = row._replace(state_json=state_json, version=version)
        if key in self._privates:
            row = row._replace(private_json=self._privates[key])
        return row

    def save(self, agent: str, name: str, *, state_json: bytes | None, version: int) -> None:
        """Keep the state with the next commit; None drops it."""
        self._states[agent, name] = (state_json, version)

    def save_private(self, agent: str, name: str, *, private_json: bytes | None) -> None:
        """Keep the private state with the next commit; None drops it."""
        self._privates[agent, name] = private_json

    def clear(self, agent: str, name: str) -> None:
        """Drop everything kept of one instance with the next commit."""
        self._states[agent, name] = (None, 0)
        self._privates[agent, name] = None

    def names(self, agent: str) -> list[str]:
        """Return the names of an agent's instances of which something is kept, in order."""
        rows = self._rows("SELECT name FROM instances WHERE agent = ?", (agent,))
        touched = {name for kind, name in (*self._states, *self._privates) if kind == agent}
        kept = {name for (name,) in rows} - touched
        return sorted(kept | {name for name in touched if _is_kept(self.load(agent, name))})

    def commit(self) -> None:
        """Write everything saved since the last commit in one transaction; free without any.

        Raises
        ------
        StateError
            When the disk is full, locked, read-only or damaged. The file is as before, and what
            was saved stays in memory for a later commit.
        """
        if not self._states and not self._privates:
            return
        if self._failed and time.monotonic() < self._retry_at:
            raise StateError(self._failed)
        try:
            self._write()
        except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
            self._drop_connection()
            self._failed = self._explain("written", error)
            self._retry_at = time.monotonic() + self._retry_s
            raise StateError(self._failed) from error
        self._failed = ""
        self._states.clear()
        self._privates.clear()

    def close(self) -> None:
        """Commit and close the file, which the next use opens again; closes in any case."""
        self._retry_at = 0.0
        try:
            self.commit()
        finally:
            self._drop_connection()

    def _drop_connection(self) -> None:
        """Close the file, so that the next use finds one that was repaired meanwhile."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self) -> None:
        connection = self._connect()
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(_SAVE_STATE, [(*k, *v) for k, v in self._states.items()])
            connection.executemany(_SAVE_PRIVATE, [(*k, v) for k, v in self._privates.items()])
            connection.executemany(_DROP_EMPTY, self._emptied())
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite does it by itself when the disk is full
                connection.execute("ROLLBACK")
            raise

    def _emptied(self) -> Iterable[Key]:
        return {k for k, (json, _) in self._states.items() if json is None} | {
            k for k, json in self._privates.items() if json is None
        }

    def _rows(self, sql: str, args: tuple[str, ...]) -> list[Any]:
        try:
            return self._connect().execute(sql, args).fetchall()
        except (sqlite3.Error, OSError, ValueError) as error:
            self._drop_connection()
            raise StateError(self._explain("read", error)) from error

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            _make_file(self.path)
            connection = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None)
            try:
                _prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _explain(self, done: str, error: Exception) -> str:
        return (
            f"The agents' storage {self.path} cannot be {done}: {error}. "
            'Free or repair it, or choose another place with serve(..., storage=path or "memory")'
        )


def _is_kept(row: StoredInstance) -> bool:
    return row.state_json is not None or row.private_json is not None


def _make_file(path: Path) -> None:
    """Make the file and its folder for their owner alone; SQLite's helpers get the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _prepare(connection: sqlite3.Connection) -> None:
    # WAL is refused on read-only files and some network file systems; the older journal is slower,
    # but as safe.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if _schema_version(connection) == len(_MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _migrate(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _schema_version(connection: sqlite3.Connection) -> int:
    tables = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema'"
    if connection.execute(tables).fetchone() is None:
        return 0
    row = connection.execute("SELECT version FROM schema").fetchone()
    return int(row[0]) if row else 0


def _migrate(connection: sqlite3.Connection) -> None:
    version = _schema_version(connection)  # again, under the lock: another process may have won
    if version > len(_MIGRATIONS):
        raise sqlite3.NotSupportedError(
            f"a newer jupyter_agents wrote it (schema {version}, here {len(_MIGRATIONS)})"
        )
    connection.execute("CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL)")
    for statement in _MIGRATIONS[version:]:
        connection.execute(statement)
    connection.execute("DELETE FROM schema")
    connection.execute("INSERT INTO schema VALUES (?)", (len(_MIGRATIONS),))


class Commits:
    """The storages that have something to commit at the end of a turn.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        What fails is tried again there, until it does not.
    turn : callable
        Makes sure that a turn is ended soon.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Callable[[], None]) -> None:
        self._loop = loop
        self._turn = turn
        self.touched: set[Storage] = set()
        self._unsaved: set[Storage] = set()
        self._is_over = False

    def commit(self) -> None:
        """Save what this turn changed; an error is logged once."""
        touched, self.touched = self.touched, set()
        for storage in touched:
            try:
                storage.commit()
            except Exception:
                if storage not in self._unsaved:
                    _log.exception("The agents' state could not be saved; it is tried again")
                    self._unsaved.add(storage)
                    self._loop.call_later(SAVE_AGAIN_S, self._again, storage)
            else:
                self._unsaved.discard(storage)

    def _again(self, storage: Storage) -> None:
        if storage in self._unsaved and not self._is_over:
            self.touched.add(storage)
            self._turn()
            self._loop.call_later(SAVE_AGAIN_S, self._again, storage)

    def end(self) -> None:
        """Try nothing again from now on."""
        self._is_over = True
