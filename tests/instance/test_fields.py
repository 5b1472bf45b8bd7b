from __future__ import annotations

import dataclasses
import datetime
import enum

import pytest
import traitlets
from traitlets import HasTraits, TraitError, Undefined

from jupyter_agents.host.state import Stateful
from jupyter_agents.instance.fields import Fielded, check_json, find_fields, from_plain, to_plain
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


class Stranger:
    """A class that JSON knows nothing of."""


DAY = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.timezone.utc)


def holder(trait):
    """An object with this one field."""
    return type("Holder", (Stateful,), {"field": trait.tag(sync=True)})()


# ── Values ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("trait", "value", "plain"),
    [
        (traitlets.Int(), 3, 3),
        (traitlets.Float(), 1.5, 1.5),
        (traitlets.Bool(), True, True),
        (traitlets.Unicode(), "a", "a"),
        (traitlets.Any(), {"a": [1]}, {"a": [1]}),
        (traitlets.Int(None, allow_none=True), None, None),
        (traitlets.Enum(["a", "b"], "a"), "b", "b"),
        (traitlets.UseEnum(Color), Color.BLUE, "blue"),
        (traitlets.UseEnum(Level), Level.HIGH, 2),
        (traitlets.List(traitlets.Int()), [1, 2], [1, 2]),
        (traitlets.Set(traitlets.Int()), {1}, [1]),
        (traitlets.Tuple(), (1, "a"), [1, "a"]),
        (
            traitlets.Tuple(traitlets.Int(), traitlets.Unicode(), default_value=(0, "")),
            (1, "a"),
            [1, "a"],
        ),
        (traitlets.Dict(), {"a": 1}, {"a": 1}),
        (traitlets.Bytes(), b"hi", "aGk="),
        (traitlets.Instance(Point, args=(0,)), Point(1), {"x": 1, "y": 0}),
        (traitlets.Instance(datetime.datetime, allow_none=True), DAY, "2026-11-22T12:00:00Z"),
        (traitlets.List(traitlets.Instance(Point)), [Point(1)], [{"x": 1, "y": 0}]),
        (traitlets.Dict(traitlets.Instance(Point)), {"a": Point(1)}, {"a": {"x": 1, "y": 0}}),
        (traitlets.List(traitlets.UseEnum(Color)), [Color.RED], ["red"]),
        (traitlets.Union([traitlets.Int(), traitlets.Unicode()]), "a", "a"),
    ],
)
def test_values_survive_json(trait, value, plain):
    """Each kind of trait has a plain form, and takes it back as the value it was."""
    one = holder(trait)
    one.field = value
    assert one.state == {"field": plain}
    two = type(one)()
    two.set_state(decode(encode(one.state)))
    assert two.field == value
    assert type(two.field) is type(value)
    assert two.state == {"field": plain}


@pytest.mark.parametrize(
    ("trait", "plain"),
    [
        (traitlets.Int(), True),
        (traitlets.Float(), False),
        (traitlets.Int(), 1.5),
        (traitlets.Bool(), "true"),
        (traitlets.Unicode(), 1),
        (traitlets.Unicode(), None),
        (traitlets.Enum(["a"], "a"), "c"),
        (traitlets.UseEnum(Color), "green"),
        (traitlets.UseEnum(Level), 7),
        (traitlets.List(traitlets.Int()), ["x"]),
        (traitlets.List(), {"a": 1}),
        (traitlets.Set(traitlets.Int()), 3),
        (traitlets.Tuple(traitlets.Int(), default_value=(0,)), [1, 2]),
        (traitlets.Dict(), [1]),
        (traitlets.Dict(traitlets.Int()), {"a": "x"}),
        (traitlets.Bytes(), "not base64"),
        (traitlets.Bytes(), 3),
        (traitlets.Instance(Point, args=(0,)), {"x": "1"}),
        (traitlets.Instance(datetime.datetime, allow_none=True), "yesterday"),
        (traitlets.Instance(Stranger, allow_none=True), {"a": 1}),
    ],
)
def test_what_does_not_fit_is_refused_by_the_trait(trait, plain):
    """The error names the field, and the value stays."""
    one = holder(trait)
    before = one.field
    with pytest.raises(TraitError, match="'field' trait"):
        one.set_state({"field": plain})
    assert one.field is before


@pytest.mark.parametrize(
    ("trait", "value"),
    [
        (traitlets.UseEnum(Color), Color.BLUE),
        (traitlets.Instance(Point, args=(0,)), Point(2)),
        (traitlets.Instance(Point, args=(0,), allow_none=True), None),
        (traitlets.Set(), {1}),
        (traitlets.Bytes(), b"x"),
    ],
)
def test_server_may_set_python_values(trait, value):
    """`set_state` takes what the trait takes, not only its plain form."""
    one = holder(trait)
    one.set_state({"field": value})
    assert one.field == value


def test_server_sets_a_value_that_is_no_json():
    """The trait says what is wrong with it."""
    one = holder(traitlets.Int())
    assert one.state == {"field": 0}
    with pytest.raises(TraitError, match="'field' trait"):
        one.set_state({"field": object()})
    assert one.state == {"field": 0}


def test_casting_traits_cast():
    """CInt and its like take what they can turn into their type, as their author chose."""
    one = holder(traitlets.CFloat())
    one.set_state({"field": "1.5"})
    assert one.field == 1.5


def test_own_serialisers_are_used():
    """The tags to_json and from_json work as in ipywidgets: ``f(value, owner)``."""
    trait = traitlets.Any().tag(
        to_json=lambda value, owner: [type(owner).__name__, value and value.x],
        from_json=lambda plain, owner: Point(plain[1]),
    )
    one = holder(trait)
    one.field = Point(3)
    assert one.state == {"field": ["Holder", 3]}
    one.set_state({"field": ["Holder", 4]})
    assert one.field == Point(4)


def test_plain_functions_are_for_other_rooms():
    """`to_plain` and `from_plain` are one trait's value each way."""
    one = holder(traitlets.UseEnum(Color))
    assert encode(to_plain(one, "field")) == b'"red"'
    assert from_plain(one, type(one).field, "blue") is Color.BLUE
    assert from_plain(one, type(one).field, "green") == "green"


def test_check_json_names_what_it_checks():
    """The label stands in front of the reason."""
    check_json("fine", [1])
    with pytest.raises(TypeError, match=r"^Room\.grid: .*object"):
        check_json("Room.grid", object())


# ── Fields of a class ────────────────────────────────────────────────────────────────────


def test_find_fields_in_order_of_definition():
    """Parents first; an override keeps its place, one without the tag takes the field away."""

    class Parent(HasTraits):
        a = traitlets.Int().tag(sync=True)
        b = traitlets.Int().tag(sync=True)
        c = traitlets.Int().tag(sync=True)
        plain = traitlets.Int()

    class Child(Parent):
        d = traitlets.Int().tag(sync=True)
        b = traitlets.Float().tag(sync=True)
        c = None

    assert find_fields(Parent) == ("a", "b", "c")
    assert find_fields(Child) == ("a", "b", "d")
    assert find_fields(HasTraits) == ()


def test_subclass_decides_what_accepting_means():
    """The base alone keeps nothing; it says so rather than pretending."""
    with pytest.raises(NotImplementedError):
        Fielded()._accept_fields("server")


# ── Blocks, compared with traitlets ──────────────────────────────────────────────────────


class Native(HasTraits):
    a = traitlets.Int(0)
    b = traitlets.Int(0)
    c = traitlets.Int(0)

    @traitlets.validate("a")
    def _even(self, proposal):
        if proposal["value"] % 2:
            raise TraitError("odd")
        return proposal["value"]


class Ours(Stateful):
    a = traitlets.Int(0).tag(sync=True)
    b = traitlets.Int(0).tag(sync=True)
    c = traitlets.Int(0)

    _even = Native._even


def assign(thing, *pairs, error=None):
    """Assign in a hold block; return values and notifications afterwards."""
    seen = []
    thing.observe(lambda change: seen.append((change.name, change.old, change.new)))
    try:
        with thing.hold_trait_notifications():
            for name, value in pairs:
                setattr(thing, name, value)
            if error:
                raise error
    except (TraitError, RuntimeError):
        pass
    return {name: getattr(thing, name) for name in "abc"}, seen


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("a", 2)],
        [("a", 1)],
        [("b", 1), ("a", 2), ("c", 3)],
        [("b", 1), ("a", 1), ("c", 3)],
        [("a", 1), ("a", 2)],
        [("a", 2), ("a", 0)],
        [("b", 1), ("b", 2), ("b", 3)],
        [("a", "x")],
        [("b", 1), ("a", "x")],
        [("c", 5)],
    ],
)
def test_hold_does_what_traitlets_does(pairs):
    """Values and notifications after a block are those of any HasTraits, refused or not."""
    assert assign(Ours(), *pairs) == assign(Native(), *pairs)


def test_hold_undoes_any_exception():
    """Beyond traitlets: also another exception than TraitError puts everything back."""
    ours = assign(Ours(), ("a", 2), ("c", 3), error=RuntimeError())
    assert ours == ({"a": 0, "b": 0, "c": 0}, [])


def test_nested_hold_belongs_to_the_outer_one():
    """Only the outermost block's end counts."""
    ours, seen = Ours(), []
    ours.observe(lambda change: seen.append(change.name))
    with ours.hold_trait_notifications():
        with ours.hold_trait_notifications():
            ours.a = 2
        assert seen == []
    assert seen == ["a"]


def test_hold_can_be_used_again_after_a_refusal():
    """Locks are gone, notifications flow."""
    ours = Ours()
    assign(ours, ("a", 1))
    assert assign(ours, ("a", 4))[0]["a"] == 4
    ours.a = 6
    with pytest.raises(TraitError, match="odd"):
        ours.a = 7
    assert ours.state == {"a": 6, "b": 0}


def test_refused_default_is_dropped_again():
    """A value that was not there before the block is not there after it."""

    class Lazy(Stateful):
        a = traitlets.Int(0).tag(sync=True)
        late = traitlets.Any()

        @traitlets.default("late")
        def _late(self):
            return "default"

    lazy = Lazy()
    with pytest.raises(RuntimeError), lazy.hold_trait_notifications():  # noqa: PT012
        lazy.late = 1
        raise RuntimeError
    assert lazy._trait_values.get("late", Undefined) is Undefined
    assert lazy.late == "default"


def test_observers_may_assign_during_notification():
    """A change made by an observer is a change of its own, and is observed, too."""
    ours, seen = Ours(), []

    def follow(change):
        seen.append((change.name, change.new))
        if change.name == "a":
            ours.b = change.new + 1

    ours.observe(follow)
    with ours.hold_trait_notifications():
        ours.a = 2
        ours.c = 1
    assert sorted(seen) == [("a", 2), ("b", 3), ("c", 1)]
    assert ours.state == {"a": 2, "b": 3}
