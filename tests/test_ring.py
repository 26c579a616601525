"""The ring between callback and reader: nothing is changed or reordered, and what is lost is counted where it was lost."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.live.input.ring import BlockRing

steps = st.lists(st.one_of(st.integers(0, 12), st.just("read"), st.tuples(st.just("lose"), st.integers(0, 9))), max_size=80)


@given(steps=steps, capacity=st.integers(1, 40), channels=st.integers(1, 3), max_blocks=st.integers(1, 6))
def test_every_sample_arrives_at_its_place_or_is_counted(steps, capacity, channels, max_blocks):
    """Sample number i has the value i in every channel, so that its place can be read off."""
    ring = BlockRing(capacity_samples=capacity, channels=channels, max_blocks=max_blocks)
    sent, kept, marks, read = 0, [], 0, []
    for step in steps:
        if step == "read":
            block = ring.read()
            assert (block is None) == (not kept)
            if block is not None:
                read.append(block)
                first, size, mark = kept.pop(0)
                assert (block.first, len(block.samples), block.mark, block.arrived_s) == (first, size, mark, float(first))
                np.testing.assert_array_equal(block.samples, np.arange(first, first + size)[:, None].repeat(channels, 1))
        elif isinstance(step, tuple):
            ring.lose(step[1])
            sent += step[1]
        else:
            waiting = sum(size for _, size, _ in kept)
            values = np.arange(sent, sent + step, dtype=np.float32)[:, None].repeat(channels, 1)
            fits = waiting + step <= capacity and len(kept) < max_blocks
            mark = 1 << (sent % 5)
            assert ring.write(values, float(sent), mark) == fits
            marks |= mark
            if fits:
                kept.append((sent, step, marks))
                marks = 0
            sent += step
        assert len(ring) == len(kept)
    while (block := ring.read()) is not None:
        read.append(block)
    position = 0
    for block in read:
        assert block.first == position + block.lost_before
        position = block.end
    received = sum(len(block.samples) for block in read)
    assert received + ring.lost_samples == sent
    assert sum(block.lost_before for block in read) <= ring.lost_samples


def test_two_threads():
    """A writer that never waits and a reader that is sometimes slow: still each sample is at its place or counted."""
    ring = BlockRing(capacity_samples=3000, channels=2, max_blocks=16)
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 400, 4000)
    done = threading.Event()

    def write():
        first = 0
        for size in sizes:
            ring.write(np.arange(first, first + size, dtype=np.float32)[:, None].repeat(2, 1), float(first))
            first += int(size)
        done.set()

    threading.Thread(target=write).start()
    position = received = 0
    while True:
        last = done.is_set()
        block = ring.read()
        if block is None:
            if last:
                break
            continue
        assert block.first == position + block.lost_before
        np.testing.assert_array_equal(block.samples[:, 1], np.arange(block.first, block.end, dtype=np.float32))
        received += len(block.samples)
        position = block.end
    assert received + ring.lost_samples == sizes.sum()
    assert received > 0


def test_what_was_read_is_the_readers():
    ring = BlockRing(capacity_samples=4, channels=1)
    ring.write(np.ones((4, 1), np.float32), 0.0)
    block = ring.read()
    ring.write(np.zeros((4, 1), np.float32), 0.0)
    assert block is not None
    assert block.samples.sum() == 4


def test_a_ring_holds_something():
    with pytest.raises(ValueError, match="at least one"):
        BlockRing(capacity_samples=0, channels=1)
