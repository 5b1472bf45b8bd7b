"""The memory that server and kernel share: `jupyter_agents.link.marks`."""

from __future__ import annotations

from jupyter_agents.link.marks import MARK_BYTES, Marks


def test_slots_are_given_once_and_hold_one_number_each():
    """Each connection has a number of its own, 0 at first, in memory that others see."""
    memory = bytearray(3 * MARK_BYTES)
    marks, seen_by_kernel = Marks(memory), memoryview(memory).cast("Q")
    assert [marks.give() for _ in range(4)] == [0, 1, 2, None]
    seen_by_kernel[1] = 2**63
    assert list(marks.numbers) == [0, 2**63, 0]


def test_slot_given_back_longest_ago_comes_first_and_is_zero():
    """A number that was used is used again as late as can be, and begins at 0."""
    marks = Marks(bytearray(3 * MARK_BYTES))
    given = [marks.give() for _ in range(3)]
    marks.numbers[given[2]] = 7
    for slot in (given[2], given[0]):
        marks.take_back(slot)
    assert marks.give() == given[2]
    assert marks.numbers[given[2]] == 0
    assert [marks.give(), marks.give()] == [given[0], None]
