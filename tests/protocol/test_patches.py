"""What changed between two JSON values."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agents.protocol.messages import decode, encode
from jupyter_agents.protocol.patches import PatchError, apply, diff

SCALARS = st.sampled_from([None, True, False, 0, 1, 0.0, -0.0, 1.0, 2, "", "a", "~", "/", "-"])
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(
            st.sampled_from(["a", "b", "", "~1", "x/y", "0", "-"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


def difference(old, new, **limits):
    """The operations between two values, as a client reads them."""
    ops = diff(encode(old), encode(new), **limits)
    return None if ops is None else decode(encode(ops))


def canonical(value):
    """The value as JSON text, in which 1, 1.0 and true differ and the order of keys does not."""
    return json.dumps(value, sort_keys=True)


@settings(max_examples=500)
@given(JSON, JSON)
def test_applied_difference_gives_the_new_value(old, new):
    """The operations turn the old value into the new one, and change neither."""
    before = canonical(old), canonical(new)
    ops = difference(old, new, max_ops=1000)
    assert canonical(apply(old, json.loads(json.dumps(ops)))) == canonical(new)
    assert (canonical(old), canonical(new)) == before


@given(JSON, st.data())
def test_applied_difference_of_a_small_change(value, data):
    """The same, where most of the value stays as it is."""
    changed = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(0, 3))):
        changed = data.draw(st.sampled_from(list(neighbours(changed))))
    assert canonical(apply(value, difference(value, changed, max_ops=1000))) == canonical(changed)


def neighbours(value):
    """Values that one edit somewhere in this value leads to."""
    yield {"a": value}
    if not isinstance(value, (dict, list)):
        return
    if isinstance(value, list):
        yield [*value, 1]
        yield [True, *value]
        yield [*value[1:], None]
        yield value[:-1]
    for key in list(value if isinstance(value, dict) else range(len(value))):
        changed = value.copy()
        changed[key] = next(neighbours(value[key]))
        yield changed


@pytest.mark.parametrize(
    ("old", "new", "ops"),
    [
        (1, 1, []),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, []),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        (1, 2, [{"op": "replace", "path": "", "value": 2}]),
        ({}, [], [{"op": "replace", "path": "", "value": []}]),
        ({"n": 1}, {"n": True}, [{"op": "replace", "path": "/n", "value": True}]),
        ({"n": 0}, {"n": False}, [{"op": "replace", "path": "/n", "value": False}]),
        ({"a": 1}, {"b/~": 2}, [
            {"op": "remove", "path": "/a"}, {"op": "add", "path": "/b~1~0", "value": 2}]),
        ([1], [1, 2, 3], [
            {"op": "add", "path": "/-", "value": 2}, {"op": "add", "path": "/-", "value": 3}]),
        ([1, 3], [1, 2, 3], [{"op": "add", "path": "/1", "value": 2}]),
        ([1, 2, 3], [1, 3], [{"op": "remove", "path": "/1"}]),
        ([1, 2, 3], [], [
            {"op": "remove", "path": "/2"}, {"op": "remove", "path": "/1"},
            {"op": "remove", "path": "/0"}]),
        ([1, 2, 3], [2, 3, 4], [
            {"op": "remove", "path": "/0"}, {"op": "add", "path": "/-", "value": 4}]),
        ([{"n": 1}, {"n": 2}], [{"n": 1}, {"n": 3}], [
            {"op": "replace", "path": "/1/n", "value": 3}]),
        ([1, 2, 1], [2, 5, 6], [
            {"op": "replace", "path": "/0", "value": 2},
            {"op": "replace", "path": "/1", "value": 5},
            {"op": "replace", "path": "/2", "value": 6}]),
    ],
)  # fmt: skip
def test_difference_is_small(old, new, ops):
    """Operations name the smallest part that changed, also in a bounded list that moved on."""
    assert difference(old, new) == ops


@pytest.mark.parametrize(
    ("old", "new"), [(1, 1.0), (0.0, -0.0), ([True], [1]), ({"a": [0]}, {"a": [0.0]})]
)
def test_numbers_that_only_python_takes_for_equal_differ(old, new):
    """1, 1.0 and true, 0.0 and -0.0 are different JSON."""
    assert len(difference(old, new)) == 1


def test_one_item_of_a_large_list_costs_little():
    """One changed item in 10 KB of objects travels in less than 200 bytes."""
    state = [{"id": i, "text": f"item number {i} of the list", "done": False} for i in range(180)]
    changed = copy.deepcopy(state)
    changed[77]["done"] = True
    assert len(encode(state)) > 10_000
    assert len(encode(difference(state, changed))) < 200


def test_what_is_the_same_is_not_read():
    """Equal texts are equal without a look inside; what differs and is no JSON has no patch."""
    assert diff(b"[?", b"[?") == []
    assert diff(b"[?", b"[!") is None


def test_too_many_operations_are_given_up():
    """Beyond the limit there is no difference; at the limit there is."""
    old, new = dict.fromkeys("abc", 1), dict.fromkeys("abc", 2)
    assert len(difference(old, new, max_ops=3)) == 3
    assert difference(old, new, max_ops=2) is None


def test_too_deep_values_are_given_up():
    """Values that nest deeper than Python follows have no difference."""
    old, new = (b"[" * 100_000 + digit + b"]" * 100_000 for digit in (b"1", b"2"))
    assert diff(old, new) is None


def test_apply_shares_what_it_does_not_change():
    """Only the way to the change is copied."""
    document = {"a": {"b": [1]}, "c": {}}
    result = apply(document, [{"op": "add", "path": "/a/b/0", "value": 0}])
    assert result == {"a": {"b": [0, 1]}, "c": {}}
    assert document == {"a": {"b": [1]}, "c": {}}
    assert result["c"] is document["c"]


@pytest.mark.parametrize(
    ("document", "operation"),
    [
        ({}, None),
        ({}, {"op": "move", "path": "/a", "from": "/b"}),
        ({}, {"op": "add", "value": 1}),
        ({}, {"op": "add", "path": "a", "value": 1}),
        ({}, {"op": "add", "path": "/a"}),
        ({}, {"op": "remove", "path": ""}),
        ({}, {"op": "remove", "path": "/a"}),
        ({}, {"op": "replace", "path": "/a", "value": 1}),
        ({}, {"op": "add", "path": "/a/b", "value": 1}),
        (1, {"op": "add", "path": "/a", "value": 1}),
        ({"a": 1}, {"op": "add", "path": "/a/b", "value": 1}),
        ([1], {"op": "add", "path": "/2", "value": 1}),
        ([1], {"op": "add", "path": "/01", "value": 1}),
        ([1], {"op": "add", "path": "/-1", "value": 1}),
        ([1], {"op": "add", "path": "/x", "value": 1}),
        ([1], {"op": "replace", "path": "/1", "value": 1}),
        ([1], {"op": "replace", "path": "/-", "value": 1}),
        ([1], {"op": "remove", "path": "/" + "9" * 5000}),
        ([1], {"op": "remove", "path": "/\u0661"}),
    ],
)
def test_patch_that_does_not_fit_is_refused(document, operation):
    """What is no operation, or leads nowhere, is a `PatchError`, which is a ValueError."""
    before = copy.deepcopy(document)
    with pytest.raises(PatchError):
        apply(document, [operation])
    assert document == before
    assert issubclass(PatchError, ValueError)
