"""Statistics of a partner, against partners whose every number is known."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from musichal.audio.resample import StreamResampler, resampled_length
from musichal.commands.check import stats_tables
from musichal.evaluate.partner_stats import PartnerStats, partner_stats
from musichal.hearing.front_end import Segmenter
from musichal.memory.oracle_threshold import information_rate
from musichal.note import HeardNote
from partners_by_hand import SPEC, partner, song

NOTES = [HeardNote(0.05, 0.4, 60, 90), HeardNote(0.3, 0.2, 64, 70), HeardNote(0.31, 0.2, 67, 127), HeardNote(1.2, 1.0, 36, 1)]


def lines_of(stats: PartnerStats, *, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115, PTH123
    console.print(*stats_tables(stats), sep="\n")
    return console.export_text()


def test_figures_of_a_song_that_repeats() -> None:
    harmonic = [1, 2, 3, 4, 9, 1, 2, 3, 4, 8]  # 1 2 3 4 comes back at 5
    figures = partner_stats(partner([song("song.wav", harmonic, [7] * 10, NOTES)]))
    memory = figures.memory
    assert (memory.states, memory.notes, memory.lowest_pitch, memory.highest_pitch) == (10, 4, 36, 67)
    assert memory.notes_per_second == pytest.approx(4 / 2.5)
    assert memory.states_per_second == pytest.approx(10 / 2.5)
    assert memory.median_duration_s == pytest.approx(0.25)
    assert memory.share_with_notes == pytest.approx(3 / 10)
    longest = figures.repetition[0].longest
    assert longest is not None
    assert (longest.gestures, longest.first_state, longest.again_state) == (4, 0, 5)
    assert (longest.first_start_s, longest.again_start_s, longest.duration_s) == pytest.approx((0.0, 1.25, 1.0))
    assert figures.repetition[0].mean_repeat == pytest.approx((1 + 2 + 3 + 4) / 10)
    # Code words of the harmonic tokens: 1, 2, 3, 4, 9 as literals, 1 2 3 4 copied, 8 a literal.
    lengths = np.array([0, 0, 0, 0, 0, 1, 2, 3, 4, 0])
    assert figures.repetition[0].information_rate_bits == pytest.approx(information_rate(lengths) / 10)
    assert figures.repetition[1].mean_repeat == pytest.approx(sum(range(10)) / 10)
    assert figures.diversity[0].unique == 6
    assert figures.diversity[1].perplexity == pytest.approx(1)
    assert (figures.oracle.threshold, figures.oracle.dims) == (0.5, 2)
    assert figures.oracle.clusters == 6  # as many as different pairs of tokens
    assert figures.counts_agree
    assert figures.recordings[0].frames == figures.recordings[0].frames_expected == 7 * 26 + 3


def test_a_wrong_frame_count_is_said() -> None:
    model = partner([song("song.wav", [1, 2, 3, 1], [0, 0, 0, 0])])
    whole = model.recordings[0]
    short = dataclasses.replace(
        whole, tokens=whole.tokens[:, :-1], frame_samples=whole.frame_samples[:-1], level_db=whole.level_db[:-1]
    )
    figures = partner_stats(dataclasses.replace(model, recordings=(short,)))
    assert not figures.counts_agree
    assert figures.recordings[0].count_agrees is False
    assert "DIFFERS" in lines_of(figures)
    assert figures.to_dict()["recordings"][0]["count_agrees"] is False
    assert f"DIFFERS: {len(whole.frame_samples)}" in lines_of(figures)
    lines = lines_of(partner_stats(model), width=80).splitlines()
    assert "equal" in next(line for line in lines if "song.wav" in line).split(), "in one line, in plain words"


@pytest.mark.parametrize("length", [2.5, 1.0])
def test_frames_per_second_are_counted_not_derived(length: float) -> None:
    model = partner([song("song.wav", [1, 2, 3, 1] * 2, [0] * 8)])
    whole = model.recordings[0]
    assert partner_stats(model).hearing.frames_per_second == len(whole.frame_samples) / 2.0 != 75.0
    longer = dataclasses.replace(whole, n_samples=round(length * whole.sample_rate_hz))
    figures = partner_stats(dataclasses.replace(model, recordings=(whole, longer)))
    assert figures.hearing.frames_per_second == 2 * len(whole.frame_samples) / (2.0 + length)


def test_a_long_name_takes_no_room_from_figures() -> None:
    spec = dataclasses.replace(SPEC, hop_samples=2100)
    text = lines_of(partner_stats(partner([song("a long way/to/some/song.wav", [1, 2, 1], [0, 0, 0])], spec)), width=80)
    assert "closed form" in text and "segments" in text
    table = text[text.index("closed form") : text.index("Beats")]
    cells = [line.split("│")[1].rstrip() for line in table.splitlines() if line.startswith("│")]
    assert len(cells) > 1
    # Nothing of it is cut off: its end may be what tells it from others.
    assert "".join(cells).replace(" ", "") == "alongway/to/some/song.wav"
    assert "350 ms every 87.5 ms" in text


def test_one_is_not_many() -> None:
    text = lines_of(partner_stats(partner([song("song.wav", [1, 1], [0, 0], NOTES[:1])])))
    assert "1 gesture, " in text
    assert "1 gestures" not in text


def test_no_closed_form_where_segments_follow_onsets() -> None:
    spec = dataclasses.replace(SPEC, policy="onset")
    figures = partner_stats(partner([song("song.wav", [1, 2, 1], [0, 0, 0])], spec))
    assert figures.recordings[0].frames_expected is None
    assert figures.recordings[0].count_agrees is None
    assert figures.counts_agree
    assert "follow onsets" in lines_of(figures)


def test_several_recordings_and_what_repeats_across_them() -> None:
    first = song("a.wav", [5, 6, 7, 8], [0, 1, 0, 1])
    second = song("b [bold]$x$.wav", [1, 5, 6, 7], [3, 3, 4, 4], keep_audio=False, rate=44100)
    figures = partner_stats(partner([first, second]))
    longest = figures.repetition[0].longest
    assert longest is not None
    assert (longest.first_recording, longest.again_recording, longest.gestures) == (0, 1, 3)
    assert (longest.first_start_s, longest.again_start_s) == pytest.approx((0.0, 0.25))
    assert [r.has_audio for r in figures.recordings] == [True, False]
    assert figures.counts_agree
    text = lines_of(figures)
    assert "b [bold]$x$.wav" in text  # a name is never markup
    assert figures.duration_s == pytest.approx(2.0)


@pytest.mark.parametrize("tokens", [[4], [-1, -1, -1, -1]])
def test_hardly_anything(tokens: list[int]) -> None:
    figures = partner_stats(partner([song("one.wav", tokens, tokens)]))
    assert figures.memory.notes == 0
    assert figures.memory.lowest_pitch is None
    assert figures.repetition[0].longest is None  # silence that goes on is not a repeat worth naming
    values = json.loads(json.dumps(figures.to_dict(), allow_nan=False))
    assert values["memory"]["highest_pitch"] is None
    assert set(values["diversity"]) == {"harmonic", "percussive"}
    assert "no notes" in lines_of(figures) and "nothing repeats" in lines_of(figures)


@given(
    n=st.integers(0, 30_000),
    rate=st.sampled_from([4000, 8000, 11025, 16000, 22050, 28800, 32000, 44100, 47999, 48000, 57600, 96000, 192000]),
    quality=st.sampled_from(["soxr-HQ", "soxr-VHQ"]),
    block=st.integers(1, 9000),
)
def test_resampled_length_is_what_soxr_gives(n: int, rate: int, quality: str, block: int) -> None:
    samples = np.zeros(n, dtype=np.float32)
    resampler = StreamResampler(source_rate_hz=rate, target_rate_hz=24000, quality=quality)
    got = sum(len(resampler.push(samples[i : i + block])) for i in range(0, n, block)) + len(resampler.flush())
    assert got == resampled_length(n, source_rate_hz=rate, target_rate_hz=24000)


@pytest.mark.parametrize(("n", "rate", "expected"), [(3, 28800, 3), (1, 16000, 2), (99, 16000, 149), (5, 9600, 13)])
def test_halves_are_rounded_up(n: int, rate: int, expected: int) -> None:
    assert resampled_length(n, source_rate_hz=rate, target_rate_hz=24000) == expected
    resampler = StreamResampler(source_rate_hz=rate, target_rate_hz=24000)
    assert len(resampler.push(np.zeros(n, dtype=np.float32))) + len(resampler.flush()) == expected


@given(n=st.integers(8400, 60_000), hop=st.sampled_from([8400, 4200, 6000, 1600]))
def test_segments_are_those_the_segmenter_makes(n: int, hop: int) -> None:
    spec = dataclasses.replace(SPEC, hop_samples=hop)
    segmenter = Segmenter(spec)
    windows = segmenter.push(np.zeros(n, dtype=np.float32)) + segmenter.flush()
    model = partner([song("a.wav", [1, 2], [1, 2])], spec)
    long = dataclasses.replace(model.recordings[0], n_samples=n)
    figures = partner_stats(dataclasses.replace(model, recordings=(long,)))
    assert figures.recordings[0].segments == len(windows)
    assert figures.recordings[0].frames_expected == sum(w.end_frame - w.first_frame for w in windows)
