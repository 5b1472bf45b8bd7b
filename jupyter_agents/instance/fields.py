"""Typed state: traits tagged ``sync=True`` as the fields of one JSON object.

Promises that an assignment, or a whole block of them, is accepted or leaves every trait as it was.
Must not know who is told: `host.state` accepts and announces, and holds free-form state as well.
"""

from __future__ import annotations

import binascii
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import traitlets
from traitlets import Bunch, HasTraits, TraitType

from jupyter_agents.errors import StateRejected
from jupyter_agents.protocol.messages import MISSING, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Fielded", "check_json", "find_fields", "from_plain", "to_plain"]

_log = logging.getLogger("jupyter_agents.state")

# Values that cannot have changed behind their trait's back.
_IMMUTABLE = (str, int, float, bytes, type(None))


class Fielded(HasTraits):
    """A HasTraits whose tagged traits make up one JSON object, changed as a whole or not at all.

    The subclass says what accepting a change means, and what follows.
    """

    _state_fields: ClassVar[tuple[str, ...]] = ()
    _touched: set[str]  # fields that were assigned what they were already, in a hold block

    def setup_instance(self, /, *args: Any, **kwargs: Any) -> None:
        """Prepare what must be there before ``__init__``, which an author may override."""
        self._touched = set()
        super().setup_instance(*args, **kwargs)

    # -- for the subclass ----------------------------------------------------------------------

    def _before_assignment(self) -> None:
        """Do what must be done while a field still has its old value."""
        raise NotImplementedError

    def _kept_fields(self) -> dict[str, Any] | None:
        """Return the object as it was accepted last, in plain values; None while there is none."""
        raise NotImplementedError

    def _accept_fields(self, source: Any) -> bool:
        """Accept what the traits hold now, or raise; False when that is no change."""
        raise NotImplementedError

    def _announce(self, source: Any, sent: Any = MISSING) -> None:
        """Tell of the change that was accepted."""
        raise NotImplementedError

    # -- JSON ----------------------------------------------------------------------------------

    def _fields_json(self) -> bytes:
        values = {name: to_plain(self, name) for name in self._state_fields}
        try:
            return encode(values)
        except TypeError:
            for name, value in values.items():
                check_json(f"{type(self).__name__}.{name}", value)
            raise

    def _write_fields(self, fields: Mapping[str, Any], source: Any, sent: Any = MISSING) -> None:
        """Assign fields from plain values, as one change."""
        kept = self._kept_fields() or {}
        with self._holding(source, sent):
            for name, plain in fields.items():
                if name in kept and _is_same(kept[name], plain):
                    self._touched.add(name)  # its value may have been changed in place
                    continue
                trait = getattr(type(self), name)
                if trait.read_only and source != "server":
                    raise StateRejected(f"Field {name!r} is read-only")
                self.set_trait(name, from_plain(self, trait, plain))

    def _restore(self, stored: Any) -> Any:
        """Set the fields to stored values as far as those fit; return `stored`, or MISSING."""
        if not isinstance(stored, dict):
            _log.warning("The stored state of %r has no fields; the defaults hold", self)
            return MISSING
        known = {name: stored[name] for name in self._state_fields if name in stored}
        if unknown := sorted(stored.keys() - known):
            _log.warning("Dropped from the stored state of %r: %s", self, ", ".join(unknown))
        if not self._can_assign(known, logging.DEBUG):  # perhaps because of one of them
            for name, plain in known.items():
                self._can_assign({name: plain}, logging.WARNING)
        return stored

    def _follow(self) -> None:
        """Hold what is kept, which an object of older code has changed."""
        kept = self._kept_fields() or {}
        known = {name: kept[name] for name in self._state_fields if name in kept}
        if encode(known) != self._fields_json():
            self._can_assign(known, logging.WARNING)

    def _can_assign(self, fields: dict[str, Any], level: int) -> bool:
        try:
            with self.hold_trait_notifications():
                for name, plain in fields.items():
                    self.set_trait(name, from_plain(self, getattr(type(self), name), plain))
        except Exception as error:  # any validator may raise anything
            names = ", ".join(fields)
            _log.log(level, "The stored %s of %r no longer fits: %s", names, self, error)
            return False
        return True

    # -- one assignment ------------------------------------------------------------------------

    def notify_change(self, change: Bunch) -> None:
        """Have a changed field accepted, then tell observers; a refused one is put back."""
        if change["type"] == "change" and change["name"] in self._state_fields:
            try:
                changed = self._accept_fields("server")
            except BaseException:
                self._put_back({change["name"]: change["old"]}, [change["name"]])
                raise
            if changed:
                self._announce("server")
        super().notify_change(change)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._state_fields:
            super().__setattr__(name, value)
            return
        self._before_assignment()
        super().__setattr__(name, value)
        if not isinstance(value, _IMMUTABLE):
            self._catch_up(name)

    def _catch_up(self, name: str) -> None:
        """Offer a container that was changed in place and then assigned to itself.

        traitlets calls that no change. Observers are not told either, as with any HasTraits.
        """
        self._touched.add(name)
        with self.hold_trait_notifications():
            pass

    # -- a block of assignments ----------------------------------------------------------------

    @contextmanager
    def hold_trait_notifications(self) -> Iterator[None]:
        """Bundle assignments into one change of state, which happens as a whole or not at all.

        As in traitlets, cross validation and observers run at the end. Unlike there, any exception
        puts every trait back that was assigned inside.
        """
        with self._holding("server"):
            yield

    @contextmanager
    def _holding(self, source: Any, sent: Any = MISSING) -> Iterator[None]:
        if self._cross_validation_lock:  # inside another one, or traitlets' own constructor
            yield
            return
        held: dict[str, list[Bunch]] = {}
        before, changed = dict(self._trait_values), False
        try:
            with self._collecting(held):
                yield
                for name in list(held):
                    trait = getattr(type(self), name)
                    self.set_trait(name, trait._cross_validate(self, getattr(self, name)))
            if not self._touched.union(held).isdisjoint(self._state_fields):
                changed = self._accept_fields(source)
        except BaseException:
            self._put_back(before, held)
            self._undo_in_place(self._touched.difference(held))
            raise
        finally:
            self._touched.clear()
        if changed:
            self._announce(source, sent)
        for changes in held.values():
            for change in changes:
                super().notify_change(change)

    @contextmanager
    def _collecting(self, held: dict[str, list[Bunch]]) -> Iterator[None]:
        """Gather notifications by name as traitlets does: several changes become one."""

        def hold(change: Bunch) -> None:
            past = held.setdefault(change["name"], [])
            if past and past[-1]["type"] == change["type"] == "change":
                past[-1]["new"] = change["new"]
            else:
                past.append(change)

        self.notify_change = hold  # type: ignore[method-assign]  # as traitlets does
        self._cross_validation_lock = True
        try:
            yield
        finally:
            self._cross_validation_lock = False
            del self.notify_change

    def _put_back(self, before: Mapping[str, Any], names: Iterable[str]) -> None:
        for name in names:
            old = before.get(name, traitlets.Undefined)
            if old is traitlets.Undefined:
                self._trait_values.pop(name, None)
            else:
                self._trait_values[name] = old

    def _undo_in_place(self, names: Iterable[str]) -> None:
        kept = self._kept_fields() or {}
        for name in names:
            trait = getattr(type(self), name)
            if name in kept:
                value = trait._validate(self, from_plain(self, trait, kept[name]))
                self._trait_values[name] = value


# ── The fields of a class ────────────────────────────────────────────────────────────────


def find_fields(cls: type) -> tuple[str, ...]:
    """Return the names of the traits tagged ``sync=True``, inherited ones first."""
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, TraitType) and value.metadata.get("sync"):
                names[name] = None
            else:
                names.pop(name, None)
    return tuple(names)


# ── Values ───────────────────────────────────────────────────────────────────────────────


def check_json(label: str, value: object) -> None:
    """Raise a TypeError that begins with `label` when JSON cannot carry the value."""
    try:
        encode(value)
    except TypeError as error:
        raise TypeError(f"{label}: {error}") from None


def _is_same(kept: Any, plain: Any) -> bool:
    try:
        return encode(kept) == encode(plain)
    except TypeError:
        return False


def to_plain(owner: HasTraits, name: str) -> Any:
    """Return a trait's value for `encode`; the tag ``to_json=f`` has its say, as in ipywidgets."""
    give = getattr(type(owner), name).metadata.get("to_json")
    value = getattr(owner, name)
    return give(value, owner) if give else value


def from_plain(owner: HasTraits, trait: Any, plain: Any) -> Any:
    """Return what a trait takes for a JSON value; the tag ``from_json=f`` has its say.

    What does not fit comes back as it is, so that the trait refuses it in its own words.
    """
    take = trait.metadata.get("from_json")
    if take:
        return take(plain, owner)
    if isinstance(plain, bool) and isinstance(trait, (traitlets.Int, traitlets.Float)):
        trait.error(owner, plain)  # a bool is an int to Python, but not to JSON
    if isinstance(trait, traitlets.Bytes) and isinstance(plain, str):
        with suppress(binascii.Error):
            return binascii.a2b_base64(plain)
    if isinstance(trait, traitlets.UseEnum):
        return _convert(plain, trait.enum_class)
    if isinstance(trait, traitlets.Dict):
        inner = trait._value_trait
        is_dict = isinstance(plain, dict) and inner is not None
        return {k: from_plain(owner, inner, v) for k, v in plain.items()} if is_dict else plain
    if isinstance(trait, traitlets.Container):
        inner = getattr(trait, "_trait", None)
        is_list = isinstance(plain, list) and inner is not None
        return [from_plain(owner, inner, item) for item in plain] if is_list else plain
    if isinstance(trait, traitlets.Instance):
        return _convert(plain, trait.klass)
    return plain


def _convert(plain: Any, kind: Any) -> Any:
    if plain is None or isinstance(plain, kind):
        return plain
    try:
        return msgspec.convert(plain, kind, str_keys=True)
    except (TypeError, msgspec.ValidationError):
        return plain
