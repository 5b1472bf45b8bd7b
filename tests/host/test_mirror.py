"""Who is told of a changed state, where, and how a linked trait is kept equal."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
import traitlets
from traitlets import All, Float, HasTraits, dlink, link

from jupyter_agents.host import mirror as module
from jupyter_agents.host.mirror import TRIES, Home, Linked, Mirrors, link_of


class Side(HasTraits):
    value = Float()


class Limited(HasTraits):
    value = Float()

    @traitlets.validate("value")
    def _at_most_ten(self, proposal):
        return min(proposal["value"], 10.0)


class Listener:
    def __init__(self):
        self.heard = []

    def _news(self, packed):
        self.heard.append(packed)


def linked(ours, other, make=link):
    """One end of a link between these two, as a handle has it."""
    made = make((ours, "value"), (other, "value"))
    handler = made._update_target if make is link else made._update
    # the handle is told nothing; the link's own observer is not to do our work here
    ours.unobserve(handler, names="value")
    return Linked(handler, "value"), made


def test_mirrors_tell_by_address():
    """Only mirrors of this very instance hear of it."""
    mirrors, one, other = Mirrors(), Listener(), Listener()
    mirrors.add("room", "a", one)
    mirrors.add("room", "b", other)
    mirrors.tell("room", "a", b"1")
    mirrors.tell("room", "c", b"2")
    assert (one.heard, other.heard) == ([b"1"], [])


def test_mirrors_hold_nobody():
    """A mirror that nobody else holds is freed, and forgotten with the next."""
    mirrors = Mirrors()
    for _ in range(200):
        mirrors.add("room", "a", Listener())
    gc.collect()
    assert len(mirrors) == 0
    assert len(mirrors._of["room", "a"]) == 1
    assert mirrors.has("room", "a") is False
    assert not mirrors._of
    mirrors.add("room", "b", listener := Listener())
    assert mirrors.has("room", "b")
    del listener
    mirrors.tell("room", "b", b"1")
    assert len(mirrors) == 0


def test_home_without_a_loop_is_the_main_thread():
    """In a script nothing runs at home by itself."""
    home = Home.of_caller()
    assert home.is_here()
    assert not home.has_loop
    assert home.soon(print) is False
    found = []
    thread = threading.Thread(target=lambda: found.append(Home.of_caller()))
    thread.start()
    thread.join()
    assert found[0].is_here()


async def test_home_is_where_the_loop_runs():
    """Work from another thread is done at home, in the context of whoever made it."""
    home, done = Home.of_caller(), asyncio.Event()
    assert home.has_loop
    assert await asyncio.to_thread(lambda: (home.is_here(), home.soon(done.set))) == (False, True)
    await asyncio.wait_for(done.wait(), 5)


def test_closed_home_takes_nothing():
    """A loop that was closed is no home any more."""

    async def made():
        return Home.of_caller()

    home = asyncio.run(made())
    assert not home.has_loop
    assert home.soon(print) is False


def test_observers_of_links_are_known():
    """A link's own observers are told from a person's."""
    one, other = Side(), Side()
    made = link((one, "value"), (other, "value"))
    assert link_of(made._update_target) is made
    assert link_of(print) is None


def test_equal_sides_are_left_alone():
    """What is equal is not assigned again: no echo."""
    ours, other = Side(), Side()
    end, _ = linked(ours, other)
    other.value = 3.0
    ours.value = 3.0
    changes = []
    other.observe(changes.append, names="value")
    assert end.align(ours, 3.0) is False
    assert changes == []


def test_news_is_carried_over_once():
    """A new value of ours is assigned to the other side, and nothing comes back."""
    ours, other = Side(), Side()
    end, _ = linked(ours, other)
    ours.value = 5.0
    changes = []
    other.observe(changes.append, names="value")
    assert end.align(ours, 5.0) is True
    assert end.align(ours, 5.0) is False
    assert [change.new for change in changes] == [5.0]


def test_busy_link_is_looked_at_again():
    """While another thread is in the middle of the link, it is left alone."""
    ours, other = Side(), Side()
    end, made = linked(ours, other)
    with made._busy_updating():
        assert end.align(ours, 5.0) is True
    assert other.value == 0.0


def test_side_on_the_move_is_waited_for(monkeypatch):
    """The other side just changed: that is on its way to us, and must not be overwritten."""
    ours, other = Side(), Side()
    end, made = linked(ours, other)
    end.align(ours, 0.0)
    with made._busy_updating():
        other.value = 8.0  # dropped by the link
    for _ in range(2):
        assert end.align(ours, 0.0) is True
        assert other.value == 8.0
    monkeypatch.setattr(module, "REST_S", 0.0)
    assert end.align(ours, 0.0) is True  # it stood still: nothing was on its way
    assert other.value == 0.0


def test_side_with_a_limit_is_not_asked_for_ever():
    """A slider with an end keeps the nearest value; that is as equal as it gets."""
    ours, other = Side(), Limited()
    end, _ = linked(ours, other)
    ours.value = 21.0
    looks = 0
    while end.align(ours, 21.0):
        looks += 1
        assert looks <= TRIES
    assert other.value == 10.0


def test_side_that_refuses_is_logged_once(caplog):
    """A value that the other side cannot take is logged, and the handle lives."""

    class Small(HasTraits):
        value = Float(max=10.0)

    ours, other = Side(), Small()
    end, _ = linked(ours, other)
    ours.value = 21.0
    while end.align(ours, 21.0):
        pass
    assert other.value == 0.0
    assert caplog.text.count("could not be linked") == 1


def test_one_way_link_leaves_the_other_sides_changes():
    """A directional link carries our news only."""
    ours, other = Side(), Side()
    end, _ = linked(ours, other, dlink)
    assert end.align(ours, 1.0) is False
    other.value = 9.0
    assert end.align(ours, 1.0) is False
    assert other.value == 9.0
    end.align(ours, 2.0)
    assert other.value == 2.0


def test_transforms_are_respected():
    """The sides are equal when one is the other's transform."""
    ours, other = Side(value=2.0), Side()
    made = link((ours, "value"), (other, "value"), (lambda v: v * 10, lambda v: v / 10))
    end = Linked(made._update_target, "value")
    assert other.value == 20.0
    assert end.align(ours, 2.0) is False
    back = Linked(made._update_source, "value")
    assert back.align(other, 20.0) is False


def test_values_without_equality_are_compared_by_identity():
    """An array has no truth; the same one is the same."""

    class Odd:
        def __eq__(self, other):
            raise ValueError("ambiguous")

        __hash__ = None

    class Holder(HasTraits):
        value = traitlets.Any()

    odd = Odd()
    ours, other = Holder(value=odd), Holder()
    made = dlink((ours, "value"), (other, "value"))
    assert Linked(made._update, "value").align(ours, odd) is False
    assert other.value is odd


@pytest.mark.parametrize("is_source", [True, False])
def test_other_side_comes_forward_transformed(is_source):
    """What changes there comes to us by the link's own transform, and stops with `unlink`."""

    class Watched(HasTraits):
        value = Float()

        def observe(self, handler, names=All, type="change"):
            if link_of(handler) is not None:
                Linked(handler, names).listening()
            super().observe(handler, names, type)

    ours, other = Watched(value=2.0), Side()
    double, half = (lambda x: 2 * x), (lambda x: x / 2)
    if is_source:
        made = link((ours, "value"), (other, "value"), (double, half))
    else:
        made = link((other, "value"), (ours, "value"), (half, double))
        other.value = 4.0
    assert (ours.value, other.value) == (2.0, 4.0)
    other.value = 10.0
    assert ours.value == 5.0
    made.unlink()
    other.value = 20.0
    assert ours.value == 5.0
