"""JSON text ⇄ values: what JSON can carry here, and what it cannot.

Promises one exception each way (TypeError out, ValueError in), whatever an author or a client
comes up with. Must not know frames; everyone but this room reaches it through `messages`.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["decode", "encode"]


def encode(value: object) -> bytes:
    """Return `value` as compact JSON.

    Beyond plain values it carries what msgspec does (dataclasses, datetimes, enums, sets, …),
    any mapping or sequence, and any real number (numpy's too). NaN and infinities become null,
    as in JavaScript.

    Raises
    ------
    TypeError
        When JSON cannot carry it: the sentence names the type; also for a value that contains
        itself and for text that is not Unicode.
    """
    try:
        return _ENCODER.encode(value)
    except RecursionError:
        raise TypeError(
            "JSON cannot carry a value that contains itself or nests too deeply"
        ) from None
    except UnicodeEncodeError:
        raise TypeError("JSON cannot carry text with a lone surrogate") from None


def decode(data: str | bytes) -> Any:
    r"""Return the value of one JSON text.

    A lone surrogate, which JavaScript may send as ``\ud800``, becomes U+FFFD.

    Raises
    ------
    ValueError
        When it is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return _DECODER.decode(data)
    except RecursionError:
        raise ValueError("JSON nests too deeply") from None
    except msgspec.DecodeError as error:
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
        paired = _SURROGATE.sub(_without_lone, text)
        if paired == text:
            raise ValueError(str(error)) from None
        return decode(paired)


# Alternatives in this order: an escaped backslash is no escape of ours, a pair is fine, the rest
# is alone.
_SURROGATE = re.compile(
    r"\\\\"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def _without_lone(match: re.Match[str]) -> str:
    return "\\ufffd" if len(match[0]) == 6 else match[0]


# As values msgspec writes these by itself; asked about one, it met it as a key.
_ONLY_AS_KEY = (bool, tuple, list, frozenset)


def _plain(value: Any) -> Any:
    """Turn what msgspec does not know into what it knows."""
    if value is None or isinstance(value, _ONLY_AS_KEY):
        raise TypeError(f"JSON cannot carry a dict with keys of type {type(value).__name__!r}")
    if isinstance(value, str):
        return str.__str__(value)  # msgspec takes str itself, but no subclass
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"JSON cannot carry a value of type {type(value).__name__!r}")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
