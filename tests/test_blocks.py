"""Blocks of the input: none is changed, what is lost is counted at its place, and their clock is that of the sound card."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.live.input.blocks import BlockQueue, ClockFit, Durations, quantile_ms

RATE = 48_000


def arrivals(rng, *, duration_s, block, off_ppm, jitter):
    """Return positions behind blocks, when they were complete (s), and when they arrived (s).

    The card is off by `off_ppm`, and wanders by 3 ppm in 20 minutes as it warms up. Jitter as measured on JACK ("idle",
    "spiky" with 1 % of long delays), on PulseAudio ("pairs": two blocks at a time), and on a machine at its limit ("busy").
    """
    true_rate = RATE * (1 + off_ppm * 1e-6)
    positions = block * np.arange(1, int(duration_s * true_rate / block) + 1)
    truth = 1000 + positions / true_rate
    truth += 3e-6 * 1200 / (2 * np.pi) * np.sin(2 * np.pi * positions / true_rate / 1200)
    n = len(positions)
    late = {
        "idle": rng.exponential(0.0003, n),
        "spiky": rng.exponential(0.0005, n) + (rng.random(n) < 0.01) * rng.exponential(0.03, n),
        "pairs": (np.arange(n) % 2 == 0) * block / RATE + rng.exponential(0.0005, n),
        "busy": rng.exponential(0.003, n),
    }[jitter]
    return positions, truth, np.maximum.accumulate(truth + late)


def follow(clock, positions, times):
    """Return the clock's time of each position just after it came."""
    found = np.empty(len(positions))
    for i, (position, time_s) in enumerate(zip(positions.tolist(), times.tolist(), strict=True)):
        clock.observe(position, time_s)
        found[i] = clock.time_of(position)
    return found


@pytest.mark.parametrize("jitter", ["idle", "spiky", "pairs", "busy"])
@pytest.mark.parametrize("block", [256, 1024])
def test_an_hour_with_jitter(jitter, block):
    """Errors stay under 1 ms once it has locked, and the mean error does not drift by a tenth of that in an hour."""
    rng = np.random.default_rng(7)
    positions, truth, times = arrivals(rng, duration_s=3600, block=block, off_ppm=80, jitter=jitter)
    clock = ClockFit(RATE)
    error = follow(clock, positions, times) - truth
    since = truth - truth[0]
    assert np.abs(error[since > 5]).max() < 0.001
    assert abs(error[since > 3540].mean() - error[(since > 60) & (since < 120)].mean()) < 0.0001
    assert clock.rate_hz == pytest.approx(RATE * (1 + 80e-6), rel=5e-6)
    assert clock.jumps == 0


@pytest.mark.parametrize("off_ppm", [-3000, -200, 0, 200, 3000])
def test_the_true_rate_is_found(off_ppm):
    """Also that of a card far from what it says: PulseAudio's virtual ones were 0.3 % off."""
    positions, truth, times = arrivals(np.random.default_rng(1), duration_s=120, block=512, off_ppm=off_ppm, jitter="spiky")
    clock = ClockFit(RATE)
    error = follow(clock, positions, times) - truth
    assert clock.rate_hz == pytest.approx(RATE * (1 + off_ppm * 1e-6), rel=5e-6)
    assert np.abs(error[truth - truth[0] > 30]).max() < 0.001
    assert clock.jumps == 0


@given(
    blocks=st.lists(st.tuples(st.integers(1, 4000), st.floats(0, 0.1), st.floats(0, 0.05)), min_size=1, max_size=200),
    rate=st.sampled_from([8000, 44_100, 192_000]),
)
def test_times_never_decrease_whatever_comes(blocks, rate):
    """Any blocks at any times: it stays finite, increases, and the way back is the way there."""
    clock, position, time_s, last = ClockFit(rate), 0, 5.0, -np.inf
    for size, pause_s, late_s in blocks:
        position += size
        time_s += size / rate * 0.9 + pause_s
        clock.observe(position, time_s + late_s)
        time_s = max(time_s, time_s + late_s)
        found = clock.time_of(position)
        assert np.isfinite(found)
        assert found >= last - 1e-9
        assert clock.time_of(position + 1) > found
        assert clock.position_at(found) == pytest.approx(position, abs=1e-3)
        last = found


def test_after_a_suspend_it_takes_a_new_anchor():
    positions, truth, times = arrivals(np.random.default_rng(2), duration_s=60, block=512, off_ppm=-50, jitter="idle")
    asleep = positions > 30 * RATE
    truth, times = truth + 600 * asleep, times + 600 * asleep
    clock = ClockFit(RATE)
    error = follow(clock, positions, times) - truth
    assert clock.jumps == 1
    assert np.abs(error[positions > 31.5 * RATE]).max() < 0.002
    assert np.abs(error[positions > 35 * RATE]).max() < 0.001


def test_lost_samples_that_were_counted_are_no_jump():
    """The input counts what it lost, so positions and times stay together."""
    positions, truth, times = arrivals(np.random.default_rng(3), duration_s=60, block=512, off_ppm=20, jitter="idle")
    there = (positions < 20 * RATE) | (positions > 33 * RATE)
    clock = ClockFit(RATE)
    error = follow(clock, positions[there], times[there]) - truth[there]
    assert clock.jumps == 0
    assert np.abs(error[positions[there] > 5 * RATE]).max() < 0.001


def test_samples_that_were_lost_and_not_counted_are_a_jump():
    positions, truth, times = arrivals(np.random.default_rng(4), duration_s=60, block=512, off_ppm=20, jitter="idle")
    counted = np.where(positions > 20 * RATE, positions - 4800, positions)
    there = (positions < 20 * RATE) | (positions > 20.2 * RATE)
    clock = ClockFit(RATE)
    error = follow(clock, counted[there], times[there]) - truth[there]
    assert clock.jumps == 1
    assert np.abs(error[positions[there] > 25 * RATE]).max() < 0.001


def test_a_stall_of_the_reader_is_no_jump():
    """For a second nothing runs, then all blocks come at once: no sample is missing."""
    positions, truth, times = arrivals(np.random.default_rng(5), duration_s=40, block=512, off_ppm=20, jitter="idle")
    stalled = (truth > 1020) & (truth < 1021)
    times = np.where(stalled, 1021.0, times)
    clock = ClockFit(RATE)
    error = follow(clock, positions, np.maximum.accumulate(times)) - truth
    assert clock.jumps == 0
    assert np.abs(error[(truth > 1005) & ~stalled]).max() < 0.003


def test_what_makes_no_sense_is_refused():
    clock = ClockFit(RATE)
    assert clock.rate_hz == RATE
    with pytest.raises(ValueError, match="no time"):
        clock.time_of(0)
    with pytest.raises(ValueError, match="no time"):
        clock.position_at(0.0)
    clock.observe(100, 1.0)
    with pytest.raises(ValueError, match="must not decrease, got 99 after 100"):
        clock.observe(99, 1.1)
    with pytest.raises(ValueError, match="positive"):
        ClockFit(0)


steps = st.lists(st.one_of(st.integers(0, 12), st.just("get"), st.tuples(st.just("lose"), st.integers(0, 9))), max_size=80)


@given(steps=steps, capacity=st.integers(1, 40))
def test_every_sample_comes_out_at_its_place_or_is_counted(steps, capacity):
    """Sample number i has the value i, so that its place can be read off."""
    blocks = BlockQueue(capacity)
    sent = waiting = position = lost = flags = 0
    kept, lost_outside = [], 0

    def get():
        nonlocal position, waiting
        block = blocks.get()
        assert (block is None) == (not kept)
        if block is not None:
            first, size, marks = kept.pop(0)
            position += block.lost_before
            assert (position, block.flags, block.arrived_s) == (first, marks, float(first))
            np.testing.assert_array_equal(block.samples[:, 0], np.arange(first, first + size))
            position, waiting = position + size, waiting - size
        return block

    for step in steps:
        if step == "get":
            get()
        elif isinstance(step, tuple):
            lost_outside += step[1]
            sent += step[1]
        else:
            values = np.arange(sent, sent + step, dtype=np.float32)[:, None]
            mark = 1 << (sent % 5)
            fits = waiting + step <= capacity
            assert blocks.put(values, float(sent), lost_before=lost_outside, flags=mark) == fits
            flags, lost_outside = flags | mark, 0
            if fits:
                kept.append((sent, step, flags))
                waiting, flags = waiting + step, 0
            else:
                lost += step
            sent += step
        assert len(blocks) == len(kept)
    while get() is not None:
        pass
    assert blocks.lost_samples >= lost


def test_two_threads():
    """A writer that never waits and a reader that is sometimes slow: each sample is at its place or counted."""
    blocks, done = BlockQueue(3000), threading.Event()
    sizes = np.random.default_rng(1).integers(1, 400, 4000)

    def write():
        first = 0
        for size in sizes:
            blocks.put(np.arange(first, first + size, dtype=np.float32)[:, None], float(first))
            first += int(size)
        done.set()

    threading.Thread(target=write).start()
    position = received = 0
    while True:
        last = done.is_set()
        block = blocks.get()
        if block is None:
            if last:
                break
            continue
        position += block.lost_before
        np.testing.assert_array_equal(block.samples[:, 0], np.arange(position, position + len(block.samples)))
        position += len(block.samples)
        received += len(block.samples)
    assert received > 0
    assert received + blocks.lost_samples == sizes.sum()


def test_a_queue_holds_something():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        BlockQueue(0)


@given(st.lists(st.floats(0, 9.9), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_never_too_short_and_hardly_too_long(durations_s, share):
    counted = Durations()
    for duration_s in durations_s:
        counted.add(duration_s)
    true_ms = 1000 * float(np.quantile(durations_s, share, method="inverted_cdf"))
    found = quantile_ms(counted.counts, share)
    assert true_ms * (1 - 1e-9) <= found <= max(0.001, true_ms * 10**0.1) * (1 + 1e-9)


def test_nothing_counted_and_longer_than_the_last_bin():
    counted = Durations()
    assert quantile_ms(counted.counts, 0.99) is None
    assert quantile_ms([], 0.5) is None
    counted.add(1e9)
    assert quantile_ms(counted.counts, 0.5) == pytest.approx(10_000)
