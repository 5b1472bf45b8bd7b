"""JSON arguments ⇄ a function's parameters: bound by position, converted by annotation.

Promises an error that names the parameter before anything runs, and a description for forms. Must
not call the function. `host.callables` does, and says which methods are meant.
"""

from __future__ import annotations

import inspect
import re
import typing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import inspect as shapes

from jupyter_agents.protocol.values import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["ArgumentError", "Arguments", "form_field", "signature_of", "signature_text"]


class ArgumentError(TypeError):
    """Arguments that do not fit; the sentence names the parameter."""


# ── Signatures ───────────────────────────────────────────────────────────────────────────


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature with annotations evaluated; those that cannot be now stay text."""
    target = inspect.unwrap(function)
    signature, hints = inspect.signature(target), _hints(target)
    parameters = [
        p.replace(annotation=hints.get(p.name, p.annotation))
        for p in signature.parameters.values()
    ]
    returns = hints.get("return", signature.return_annotation)
    return signature.replace(parameters=parameters, return_annotation=returns)


def signature_text(parameters: Sequence[inspect.Parameter], returns: Any) -> str:
    """Return ``(a: int, b: str = 'x') -> float`` for people."""
    text = str(inspect.Signature(parameters, return_annotation=returns))
    return re.sub(r"\b(typing|__main__)\.", "", text)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # an annotation is any expression, so it may raise anything
        return dict(_each_hint(function))


def _each_hint(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    known = getattr(function, "__globals__", {})
    for name, annotation in function.__annotations__.items():
        alone: Any = SimpleNamespace(__annotations__={name: annotation})
        try:
            yield from typing.get_type_hints(alone, known, include_extras=True).items()
        except Exception:  # noqa: S112  # the others can still be checked
            continue


# ── Binding ──────────────────────────────────────────────────────────────────────────────


class Argument(NamedTuple):
    """One parameter as a caller sees it; `hint` is Any where its value is taken as it comes."""

    name: str
    required: bool
    hint: Any


class Arguments(NamedTuple):
    """What a function takes by position; keyword-only parameters keep their defaults.

    `rest` stands for ``*args``, `required` counts those without a default.
    """

    positional: tuple[Argument, ...]
    rest: Argument | None
    required: int

    @classmethod
    def of(cls, parameters: Sequence[inspect.Parameter]) -> Arguments:
        """Read them off evaluated parameters, see `signature_of`."""
        positional = tuple(_argument(p) for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD)
        rest = next((_argument(p) for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        return cls(positional, rest, sum(argument.required for argument in positional))

    def bind(self, method: str, args: Sequence[Any]) -> list[Any]:
        """Return decoded JSON `args` as the function wants them.

        Raises
        ------
        ArgumentError
            When one is missing, surplus or of the wrong type; `method` stands in the sentence.
        """
        surplus = len(args) - len(self.positional)
        if len(args) < self.required or (surplus > 0 and self.rest is None):
            raise ArgumentError(self._miscounted(method, len(args)))
        wanted = self.positional
        if surplus > 0 and self.rest is not None:
            wanted += (self.rest,) * surplus
        return [
            value if type(value) is a.hint else _convert(method, a, value)
            for a, value in zip(wanted, args, strict=False)
        ]

    def _miscounted(self, method: str, count: int) -> str:
        names = [repr(argument.name) for argument in self.positional]
        missing = names[count : self.required]
        if missing:
            return f"{method}() is missing argument{'s' * (len(missing) > 1)} {', '.join(missing)}"
        if not names:
            return f"{method}() takes no arguments, {count} given"
        most = "at most " * (self.required < len(names))
        return f"{method}() takes {most}{len(names)} ({', '.join(names)}), {count} given"


def _argument(parameter: inspect.Parameter) -> Argument:
    required = parameter.default is parameter.empty and parameter.kind < parameter.VAR_POSITIONAL
    return Argument(parameter.name, required, _checked_hint(parameter))


def _checked_hint(parameter: inspect.Parameter) -> Any:
    """Return the type to convert to, Any where JSON says nothing about it."""
    hint = parameter.annotation
    if hint is parameter.empty or isinstance(hint, str):
        return Any
    if parameter.default is None:
        hint = typing.Optional[hint]  # noqa: UP045  # `|` does not take every annotation
    try:
        return Any if _has_strangers(shapes.type_info(hint)) else hint
    except Exception:  # msgspec does not know it, or it is no type at all
        return Any


def _has_strangers(shape: object, seen: tuple[object, ...] = ()) -> bool:
    """Whether a type holds, anywhere inside, one that msgspec cannot make from JSON."""
    if isinstance(shape, shapes.CustomType):
        return True
    if any(shape is one for one in seen):  # a dataclass that holds itself
        return False
    if isinstance(shape, tuple):
        return any(_has_strangers(part, seen) for part in shape)
    if not isinstance(shape, (shapes.Type, shapes.Field)):
        return False
    parts = [getattr(shape, name) for name in shape.__struct_fields__]
    return any(_has_strangers(part, (*seen, shape)) for part in parts)


def _convert(method: str, argument: Argument, value: Any) -> Any:
    hint = argument.hint
    if hint is Any:
        return value
    try:
        return msgspec.convert(value, hint, str_keys=True)
    except msgspec.ValidationError as error:
        why = str(error).replace("`$", f"`{argument.name}")
        raise ArgumentError(f"{method}() argument {argument.name!r}: {why}") from None


# ── Describing ───────────────────────────────────────────────────────────────────────────


def form_field(parameter: inspect.Parameter) -> dict[str, Any]:
    """Return what a form needs to know of one parameter, as plain JSON.

    Returns
    -------
    dict
        ``name``, ``type`` (bool, int, float, str, enum or json), ``required``; where they apply
        ``default``, ``choices``, ``min``, ``max``, ``nullable`` (null is fine), ``variadic`` (any
        number of them), ``doc``.
    """
    argument = _argument(parameter)
    field: dict[str, Any] = {"name": argument.name, "required": argument.required}
    field |= {"type": "json"} if argument.hint is Any else _kind(shapes.type_info(argument.hint))
    if parameter.kind is parameter.VAR_POSITIONAL:
        field["variadic"] = True
    elif not argument.required:
        try:
            field["default"] = decode(encode(parameter.default))
        except TypeError:  # the method knows its default, a form need not
            pass
    return field


_AS_TEXT = (
    shapes.StrType,
    shapes.BytesType,
    shapes.DateTimeType,
    shapes.DateType,
    shapes.TimeType,
    shapes.TimeDeltaType,
    shapes.UUIDType,
    shapes.DecimalType,
)


def _kind(shape: shapes.Type) -> dict[str, Any]:
    """Return the keys of a form field that follow from the type."""
    if isinstance(shape, shapes.Metadata):
        doc = (shape.extra_json_schema or {}).get("description")
        return _kind(shape.type) | ({"doc": doc} if doc else {})
    if isinstance(shape, shapes.UnionType):
        return _union_kind(shape)
    if isinstance(shape, shapes.BoolType):
        return {"type": "bool"}
    if isinstance(shape, (shapes.IntType, shapes.FloatType)):
        return _number_kind(shape)
    if isinstance(shape, shapes.LiteralType):
        return {"type": "enum", "choices": list(shape.values)}
    if isinstance(shape, shapes.EnumType):
        return {"type": "enum", "choices": [member.value for member in shape.cls]}
    return {"type": "str" if isinstance(shape, _AS_TEXT) else "json"}


def _union_kind(shape: shapes.UnionType) -> dict[str, Any]:
    others = [part for part in shape.types if not isinstance(part, shapes.NoneType)]
    field = _kind(others[0]) if len(others) == 1 else {"type": "json"}
    return field | {"nullable": True} if len(others) < len(shape.types) else field


def _number_kind(shape: shapes.IntType | shapes.FloatType) -> dict[str, Any]:
    whole = isinstance(shape, shapes.IntType)
    low = shape.ge if shape.gt is None else shape.gt + whole  # a form cannot say "more than 0.0"
    high = shape.le if shape.lt is None else shape.lt - whole
    bounds = {"min": low, "max": high}
    return {
        "type": "int" if whole else "float",
        **{name: bound for name, bound in bounds.items() if bound is not None},
    }
