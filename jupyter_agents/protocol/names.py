"""How classes, instances, connections and tags are called on a URL.

Promises the Agents SDK's spelling rule, so that its clients find our classes, and one meaning
per path. Must not know what is served: that is the relay's. Its other half in JavaScript is
``static/agent-client.js``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from jupyter_agents.errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MAX_CONNECTION_ID_CHARS",
    "MAX_NAME_BYTES",
    "MAX_OWN_TAGS",
    "MAX_TAG_CHARS",
    "TOO_FEW_SEGMENTS",
    "Address",
    "check_connection_id",
    "check_tags",
    "kebab_case",
    "readable_case",
    "spellings",
    "split_path",
]

MAX_NAME_BYTES = 1024
MAX_CONNECTION_ID_CHARS = 256
MAX_OWN_TAGS = 9
MAX_TAG_CHARS = 256
TOO_FEW_SEGMENTS = "does not name an agent and an instance: {agent}/{name} is needed"

_CAPITAL = re.compile(r"[A-Z]")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SLASHES = re.compile(r"/+")
_SLUG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._~-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where one instance lives: its class's spelling on the URL and its name, both decoded."""

    agent: str
    name: str

    def __str__(self) -> str:
        return f"{self.agent}/{self.name}"

    @property
    def path(self) -> str:
        """The address as two percent-encoded URL segments, without a slash in front."""
        return f"{quote(self.agent, safe='')}/{quote(self.name, safe='')}"


def kebab_case(class_name: str) -> str:
    """Spell a class name as the SDK's clients do: ``AIThing`` becomes ``a-i-thing``.

    Wire
    ----
    agents 0.32.0, ``camelCaseToKebabCase``; recordings 28 and 29.
    """
    if class_name == class_name.upper() and class_name != class_name.lower():
        return class_name.lower().replace("_", "-")
    dashed = _CAPITAL.sub(lambda capital: "-" + capital[0].lower(), class_name)
    return dashed.removeprefix("-").replace("_", "-").removesuffix("-")


def readable_case(class_name: str) -> str:
    """Spell a class name with its acronyms whole: ``AIThing`` becomes ``ai-thing``."""
    return _WORD_START.sub("-", class_name).replace("_", "-").strip("-").lower()


def spellings(class_name: str, slug: str | None = None) -> tuple[str, ...]:
    """List every spelling under which a class is reached; the first is its canonical one.

    Parameters
    ----------
    class_name : str
        The class's ``__name__``.
    slug : str or None
        The author's own spelling. It takes the place of the derived ones, so that two classes
        whose derived spellings meet can be told apart; the class name itself stays usable.

    Raises
    ------
    AddressError
        When the slug is not one plain URL segment.
    """
    found: tuple[str, ...]
    if slug is None:
        found = (kebab_case(class_name), readable_case(class_name), class_name)
    elif _SLUG.fullmatch(slug):
        found = (slug, class_name)
    else:
        raise AddressError(slug, "cannot be a slug: use letters, digits, '-', '.', '_' and '~'")
    return tuple(dict.fromkeys(filter(None, found)))


def split_path(path: str) -> tuple[Address, str]:
    """Read what follows the prefix: whose door it is, and the tail behind it.

    Parameters
    ----------
    path : str
        Still percent-encoded, without the query, with or without a slash in front.

    Returns
    -------
    Address
        Both parts percent-decoded once.
    str
        The tail, not decoded: ``""`` or ``"/x/y"``; doubled slashes count once, and a lone slash
        is none.

    Raises
    ------
    AddressError
        When there are fewer than two segments (`why` is then `TOO_FEW_SEGMENTS`), when the name is
        longer than 1024 UTF-8 bytes, or when it does not decode to UTF-8.
    """
    agent, slash, rest = _SLASHES.sub("/", path).removeprefix("/").partition("/")
    name, more, tail = rest.partition("/")
    if not (agent and slash and name):
        raise AddressError(path, TOO_FEW_SEGMENTS)
    address = Address(_decoded(agent), _decoded(name))
    if len(address.name.encode()) > MAX_NAME_BYTES:
        raise AddressError(address.name, f"is longer than {MAX_NAME_BYTES} bytes")
    return address, more + tail if tail else ""


def check_connection_id(connection_id: str) -> str:
    """Return the id unchanged when it may name a connection.

    Raises
    ------
    AddressError
        When it is empty or longer than 256 characters.
    """
    if not connection_id:
        raise AddressError(connection_id, "cannot be a connection id: it is empty")
    if len(connection_id) > MAX_CONNECTION_ID_CHARS:
        raise AddressError(connection_id, f"is longer than {MAX_CONNECTION_ID_CHARS} characters")
    return connection_id


def check_tags(connection_id: str, tags: Iterable[str] | None) -> tuple[str, ...]:
    """Return a connection's whole list of tags: its id, then the author's own ones.

    Raises
    ------
    TypeError
        When the tags are one string, or one of them is not a string.
    ValueError
        When there are more than 9 own tags, or one is empty or longer than 256 characters.
    """
    if isinstance(tags, (str, bytes)):
        raise TypeError("tags must be a list of strings, not one string")
    own = tuple(_checked_tag(tag) for tag in tags or ())
    own = tuple(tag for tag in own if tag != connection_id)
    if len(own) > MAX_OWN_TAGS:
        raise ValueError(
            f"a connection can have {MAX_OWN_TAGS} tags besides its id, not {len(own)}"
        )
    return (connection_id, *own)


def _checked_tag(tag: object) -> str:
    if not isinstance(tag, str):
        raise TypeError(f"a tag must be a string, not {type(tag).__name__}")
    if not 0 < len(tag) <= MAX_TAG_CHARS:
        raise ValueError(f"a tag has 1 to {MAX_TAG_CHARS} characters, not {len(tag)}")
    return tag


def _decoded(segment: str) -> str:
    try:
        text = unquote(segment, errors="strict")
        text.encode()
    except UnicodeError:
        raise AddressError(segment, "does not decode to UTF-8 text") from None
    return text
