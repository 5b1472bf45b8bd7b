from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import typing
import uuid
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict

import msgspec
import pytest

from jupyter_agents.protocol.arguments import (
    ArgumentError,
    Arguments,
    form_field,
    signature_of,
    signature_text,
)
from jupyter_agents.protocol.messages import decode, encode


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Tree:
    value: int
    below: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Even:
    n: int

    def __post_init__(self):
        if self.n % 2:
            raise ValueError("odd")


class Place(msgspec.Struct):
    name: str


class Pair(NamedTuple):
    a: int
    b: str


class Options(TypedDict):
    fast: bool


class Stranger:
    """A class that JSON knows nothing of."""


@dataclasses.dataclass
class Carrier:
    what: Stranger


def parameters(function):
    return list(signature_of(function).parameters.values())


def bind(function, *args):
    return Arguments.of(parameters(function)).bind(function.__name__, list(args))


def taking(annotation, **more):
    """A function with one parameter `a` of this annotation, and maybe a default."""

    def f(a): ...

    f.__annotations__ = {"a": annotation}
    if "default" in more:
        f.__defaults__ = (more["default"],)
    return f


# ── Counting ─────────────────────────────────────────────────────────────────────────────


def none(): ...
def one(a): ...
def two(a, b): ...
def some(a, b=2): ...
def rest(a, *others: int): ...
def keywords(a, *, b=2, **more): ...


@pytest.mark.parametrize(
    ("function", "args", "bound"),
    [
        (none, [], []),
        (one, [1], [1]),
        (some, [1], [1]),
        (some, [1, 3], [1, 3]),
        (rest, [1], [1]),
        (rest, [1, 2, 3], [1, 2, 3]),
        (keywords, [1], [1]),
    ],
)
def test_arguments_are_bound_by_position(function, args, bound):
    """Defaults may be left to the function, ``*args`` takes the rest."""
    assert bind(function, *args) == bound


@pytest.mark.parametrize(
    ("function", "args", "text"),
    [
        (one, [], "one() is missing argument 'a'"),
        (two, [], "two() is missing arguments 'a', 'b'"),
        (two, [1], "two() is missing argument 'b'"),
        (rest, [], "rest() is missing argument 'a'"),
        (none, [1], "none() takes no arguments, 1 given"),
        (one, [1, 2], "one() takes 1 ('a'), 2 given"),
        (some, [1, 2, 3], "some() takes at most 2 ('a', 'b'), 3 given"),
        (keywords, [1, 2], "keywords() takes 1 ('a'), 2 given"),
        (rest, [1, 2, "3"], "rest() argument 'others': Expected `int`, got `str`"),
    ],
)
def test_miscounted_arguments_are_named(function, args, text):
    """Missing and surplus arguments are an error that names the parameters (T213)."""
    with pytest.raises(ArgumentError) as caught:
        bind(function, *args)
    assert str(caught.value) == text


# ── Converting ───────────────────────────────────────────────────────────────────────────

NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.timezone.utc)
UUID = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("annotation", "given", "taken"),
    [
        (int, 1, 1),
        (float, 1, 1.0),
        (float, 1.5, 1.5),
        (str, "", ""),
        (bool, False, False),
        (Any, {"a": 1}, {"a": 1}),
        (None, None, None),
        (list, [1], [1]),
        (list[float], [1], [1.0]),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (set[int], [1, 1], {1}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (Optional[int], None, None),  # noqa: UP045
        (int | None, 1, 1),
        (int | str, "a", "a"),
        (Literal["a", 1], 1, 1),
        (Color, "red", Color.RED),
        (Level, 2, Level.HIGH),
        (Point, {"x": 1}, Point(1)),
        (list[Point], [{"x": 1}], [Point(1)]),
        (Tree, {"value": 1, "below": [{"value": 2}]}, Tree(1, [Tree(2)])),
        (Place, {"name": "a"}, Place("a")),
        (Pair, [1, "a"], Pair(1, "a")),
        (Options, {"fast": True}, {"fast": True}),
        (datetime.datetime, "2026-11-22T12:00:00Z", NOON),
        (datetime.date, "2026-11-22", datetime.date(2026, 11, 22)),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (uuid.UUID, UUID, uuid.UUID(UUID)),
        (bytes, "aGk=", b"hi"),
        (Annotated[int, msgspec.Meta(ge=1)], 1, 1),
    ],
)  # fmt: skip
def test_json_becomes_what_is_annotated(annotation, given, taken):
    """Each annotation that JSON can say makes its own type."""
    (found,) = bind(taking(annotation), given)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("annotation", "given", "why"),
    [
        (int, "1", "Expected `int`, got `str`"),
        (int, True, "Expected `int`, got `bool`"),
        (int, 1.5, "Expected `int`, got `float`"),
        (bool, 1, "Expected `bool`, got `int`"),
        (str, None, "Expected `str`, got `null`"),
        (float, "nan", "Expected `float`, got `str`"),
        (Literal["a", "b"], "c", "Invalid enum value 'c'"),
        (Color, "green", "Invalid enum value 'green'"),
        (list[int], [1, "2"], "Expected `int`, got `str` - at `a[1]`"),
        (Point, {"x": "1"}, "Expected `int`, got `str` - at `a.x`"),
        (Point, {}, "Object missing required field `x`"),
        (Even, {"n": 1}, "odd"),
        (datetime.date, "yesterday", "Invalid RFC3339"),
        (Annotated[int, msgspec.Meta(le=3)], 4, "Expected `int` <= 3"),
        (Options, {"fast": 1}, "Expected `bool`, got `int` - at `a.fast`"),
    ],
)
def test_wrong_type_names_the_parameter(annotation, given, why):
    """What does not fit is refused, with parameter, reason and path (T213)."""
    with pytest.raises(ArgumentError) as caught:
        bind(taking(annotation), given)
    assert str(caught.value).startswith(f"f() argument 'a': {why}")


@pytest.mark.parametrize(
    "annotation",
    [
        Stranger,
        Stranger | None,
        list[Stranger],
        dict[str, list[Stranger]],
        Carrier,
        complex,
        object,
        Callable[[], int],
        Iterable[int],
        Point | Place,  # msgspec cannot tell them apart
        int | Stranger,
        typing.TypeVar("T"),
        "no_such_name",
        "not an expression",
        3,
    ],
)
def test_unknown_annotations_are_not_checked(annotation):
    """What JSON says nothing of arrives as decoded."""
    value = {"any": ["thing"]}
    assert bind(taking(annotation), value)[0] is value


def test_none_is_fine_where_it_is_the_default():
    """``a: int = None`` means optional, as people write it."""
    assert bind(taking(int, default=None), None) == [None]
    with pytest.raises(ArgumentError):
        bind(taking(int, default=0), None)


def test_one_unknown_name_does_not_stop_the_other_checks():
    """With annotations as text, those that can be evaluated are checked all the same."""

    def f(a: int, b: NoSuchName, c: str) -> AlsoNot: ...  # noqa: F821

    assert bind(f, 1, object, "c") == [1, object, "c"]
    with pytest.raises(ArgumentError, match="'c'"):
        bind(f, 1, 2, 3)


def test_classes_of_a_notebook_are_found_in_its_namespace():
    """A cell's functions live in __main__ beside the classes of other cells."""
    cells = {"__name__": "__main__"}
    exec("from __future__ import annotations\nimport dataclasses", cells)
    exec("@dataclasses.dataclass\nclass Move:\n    by: int", cells)
    exec(compile("def act(move: Move): ...", "cell", "exec", flags=1 << 24), cells)
    assert bind(cells["act"], {"by": 1}) == [cells["Move"](1)]


def test_plain_values_are_not_copied():
    """An untyped list arrives as it is."""
    value = [1]
    assert bind(taking(list), value)[0] is value


# ── Describing ───────────────────────────────────────────────────────────────────────────


def described(function):
    return [form_field(p) for p in parameters(function)]


@pytest.mark.parametrize(
    ("annotation", "field"),
    [
        (bool, {"type": "bool"}),
        (int, {"type": "int"}),
        (float, {"type": "float"}),
        (str, {"type": "str"}),
        (datetime.datetime, {"type": "str"}),
        (uuid.UUID, {"type": "str"}),
        (bytes, {"type": "str"}),
        (Literal["a", "b"], {"type": "enum", "choices": ["a", "b"]}),
        (Color, {"type": "enum", "choices": ["red", "blue"]}),
        (Level, {"type": "enum", "choices": [1, 2]}),
        (int | None, {"type": "int", "nullable": True}),
        (Color | None, {"type": "enum", "choices": ["red", "blue"], "nullable": True}),
        (int | str, {"type": "json"}),
        (int | str | None, {"type": "json", "nullable": True}),
        (list[int], {"type": "json"}),
        (Point, {"type": "json"}),
        (Stranger, {"type": "json"}),
        (Any, {"type": "json"}),
        (Annotated[int, msgspec.Meta(ge=1, le=9)], {"type": "int", "min": 1, "max": 9}),
        (Annotated[int, msgspec.Meta(gt=1, lt=9)], {"type": "int", "min": 2, "max": 8}),
        (Annotated[float, msgspec.Meta(gt=0)], {"type": "float", "min": 0}),
        (Annotated[str, msgspec.Meta(description="A name")], {"type": "str", "doc": "A name"}),
        (Annotated[str, "anything"], {"type": "str"}),
    ],
)
def test_form_field_follows_the_annotation(annotation, field):
    """A form gets a kind of input, its bounds or choices, and a text."""
    (found,) = described(taking(annotation))
    assert found == {"name": "a", "required": True, **field}


def test_form_field_without_annotation():
    """Anything goes."""
    assert described(one) == [{"name": "a", "type": "json", "required": True}]


@pytest.mark.parametrize(
    ("annotation", "default", "told"),
    [
        (int, 3, {"default": 3}),
        (Color, Color.BLUE, {"default": "blue"}),
        (Point, Point(1), {"default": {"x": 1, "y": 0}}),
        (float, None, {"default": None, "nullable": True}),
        (Any, object(), {}),
    ],
)
def test_default_is_told_as_json(annotation, default, told):
    """A default that JSON cannot carry is the function's secret; the argument stays optional."""
    (found,) = described(taking(annotation, default=default))
    assert found["required"] is False
    assert {k: v for k, v in found.items() if k in ("default", "nullable")} == told


def test_rest_arguments_are_variadic():
    """``*args`` is one field for any number of values."""
    assert described(rest)[1] == {
        "name": "others",
        "type": "int",
        "required": False,
        "variadic": True,
    }


def test_form_fields_are_json():
    """Everything told survives JSON unchanged."""
    for annotation in (Color, Level, Literal["a", 1], Annotated[int, msgspec.Meta(ge=1)], Point):
        field = described(taking(annotation))
        assert decode(encode(field)) == field


def test_signature_text_is_for_people():
    """Names of typing and the notebook's own are short, text annotations evaluated."""

    def f(a: int | None, b: list[Color], c: Any = 1, *d: str) -> Point: ...

    text = signature_text(parameters(f), signature_of(f).return_annotation)
    assert text.startswith("(a: int | None, b: list[")
    assert text.endswith(", c: Any = 1, *d: str) -> " + inspect.formatannotation(Point))


def test_signature_follows_wrappers():
    """What functools.wraps covered is described, not the wrapper's ``*args``."""

    def wrapper(*args): ...

    wrapper.__wrapped__ = some
    assert [p.name for p in parameters(wrapper)] == ["a", "b"]
