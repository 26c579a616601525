"""Slices as they are asked for: the recording where they run on, no click anywhere, whatever the blocks."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from musichal.audio.slices import SlicePlayer, render_slices
from musichal.note import Slice

RATE = 8_000
FADE = 80
SINE = np.sin(2 * np.pi * 110 * np.arange(8 * RATE) / RATE).astype(np.float32)


def player() -> SlicePlayer:
    return SlicePlayer([(SINE, RATE), (0.5 * SINE[::-1].copy(), RATE)], sample_rate_hz=RATE)


def read(one: SlicePlayer, frames: int, block: int = 64) -> np.ndarray:
    blocks = [one.read(min(block, frames - k)) for k in range(0, frames, block)]
    return np.concatenate([np.zeros(0, np.float32), *blocks])


def test_slices_that_run_on_are_the_recording(rock_guitar) -> None:
    samples, rate = soundfile.read(rock_guitar, dtype="float32", frames=5 * 44_100)
    one = SlicePlayer([(samples, rate)], sample_rate_hz=rate)
    for k in range(4):
        one.start(rate + k * rate // 2, Slice(0.0, 0.5, 0, 1.0 + 0.5 * k))
    heard = read(one, 3 * rate, 512)
    fade = round(0.01 * rate)
    np.testing.assert_allclose(heard[rate : 3 * rate - fade], samples[rate : 3 * rate - fade], atol=1e-6)
    assert not heard[: rate - fade].any()


def test_between_the_fades_it_is_what_render_slices_gives() -> None:
    events = [Slice(0.5, 0.5, 0, 1.0), Slice(1.0, 0.5, 1, 3.0, 7.0, 0.5), Slice(2.0, 0.25, 0, 0.5, -12.0)]
    one = player()
    for event in events:
        one.start(round(event.onset_s * RATE), event)
    heard = read(one, 3 * RATE)
    expected = np.zeros(3 * RATE, np.float32)
    rendered = render_slices(events, [(SINE, RATE), (0.5 * SINE[::-1].copy(), RATE)], sample_rate_hz=RATE)
    expected[: len(rendered)] = rendered
    outside = np.ones(3 * RATE, dtype=bool)
    outside[RATE - FADE : RATE] = False  # the one cross-fade of two that do not run on
    np.testing.assert_allclose(heard[outside], expected[outside], atol=1e-6)
    assert np.abs(heard[~outside]).max() <= 1.0


ASKED = st.lists(
    st.tuples(st.sampled_from(["start", "stop"]), st.integers(-2000, 8000), st.floats(0.02, 1.0), st.integers(0, 2000)),
    max_size=12,
)


@given(ASKED)
def test_whatever_is_asked_there_is_no_click_and_it_ends(asked) -> None:
    one = player()
    heard = []
    for what, ahead, duration_s, then in asked:
        frame = one.position + ahead
        if what == "start":
            one.start(frame, Slice(0.0, duration_s, 0, 1.0))
        else:
            one.stop(frame)
        heard.append(read(one, then))
    one.stop(one.position)
    heard.append(read(one, 4 * FADE))
    sound = np.concatenate(heard)
    assert not sound[-2 * FADE :].any(), "it goes on"
    assert np.abs(sound).max() <= 2.0
    # The steepest that a sine of 110 Hz and a fade can be, for two at a time.
    steepest = 2 * (2 * np.pi * 110 / RATE + np.pi / 2 / FADE)
    assert np.abs(np.diff(sound)).max(initial=0.0) <= 2 * steepest


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40))
def test_block_sizes_do_not_matter(blocks) -> None:
    pieces = []
    for sizes in ([64] * 200, blocks):
        one = player()
        one.start(1000, Slice(0.0, 0.5, 0, 1.0))
        one.start(3000, Slice(0.0, 0.5, 1, 1.0))
        one.stop(6000)
        pieces.append(np.concatenate([one.read(size) for size in sizes]))
    shared = min(map(len, pieces))
    np.testing.assert_array_equal(pieces[0][:shared], pieces[1][:shared])


def test_a_stop_before_its_frame_drops_what_has_not_begun() -> None:
    one = player()
    one.start(4000, Slice(0.0, 0.5, 0, 1.0))
    read(one, 1000)
    one.stop(1000)
    assert not read(one, 8000).any()
    with pytest.raises(ValueError, match="unknown recording 7"):
        one.start(0, Slice(0.0, 0.5, 7, 1.0))
