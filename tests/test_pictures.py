"""Figures show the data, and their texts do not overlap."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from musichal.errors import InputError
from musichal.hearing.beats import BEAT
from musichal.hearing.percepts import SILENCE
from musichal.live.drift import CAUSES, DriftFigures, DriftReport
from musichal.memory.token_index import TokenIndex
from musichal.note import HeardNote, Note
from musichal.partner.decision import REST_REASONS, PulseUse
from musichal.partner.explanation import rest_spans
from musichal.plots.partner import TimeLine, draw_partner, repeats
from musichal.plots.performance import ALARM_COLOURS, INFLUENCE_LOOKS, alarm_spans, draw_performance, note_colours, room_beats
from musichal.plots.style import (
    by_first_appearance,
    draw_beats,
    envelope,
    held_tokens,
    picture_format,
    save_figure,
    shortened,
    token_raster,
)
from partners_by_hand import RATE, partner, performance, played, rested, song

HARMONIC = [1, 2, 3, 4, 9, 1, 2, 3, 4, 8]
NOTES = [HeardNote(0.05, 0.4, 60, 90), HeardNote(0.3, 0.2, 64, 70), HeardNote(1.2, 1.0, 36, 1)]
tokens_of = st.lists(st.integers(SILENCE, 4), max_size=60)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def panel(figure: Figure, part: str):
    found = [axes for axes in figure.axes if part in axes.get_title(loc="left")]
    assert len(found) == 1, (part, titles(figure))
    return found[0]


def is_blank(figure: Figure) -> bool:
    """Return whether a picture that was drawn (`overlapping_texts` does) has one colour."""
    return np.ptp(np.asarray(figure.canvas.buffer_rgba())[..., :3], axis=(0, 1)).max() == 0


def overlapping_texts(figure: Figure) -> list[tuple[str, str]]:
    """Return pairs of titles, labels and other texts that cover each other, all axes together."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    found = []
    texts = list(figure.texts)
    for axes in figure.axes:
        if not axes.axison:
            continue
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            ticks = axis.get_major_ticks()
            texts += [t.label1 for t in ticks if t.label1.get_visible() and low <= t.get_loc() <= high]
    for legend in figure.legends:
        texts += legend.get_texts()
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_visible() and t.get_text().strip()]
    width, height = figure.bbox.width, figure.bbox.height
    for number, (text, box) in enumerate(boxes):
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1:
            found.append((text, "the edge of the picture"))
        for other, theirs in boxes[number + 1 :]:
            # One pixel of shared margin is not seen.
            x, y = min(box.x1, theirs.x1) - max(box.x0, theirs.x0), min(box.y1, theirs.y1) - max(box.y0, theirs.y0)
            if x > 1 and y > 1:
                found.append((text, other))
    return found


def test_overlaps_would_be_found() -> None:
    figure = picture_of(a_performance())
    figure.text(0.1, 0.98, "over the title")
    figure.text(0.99, 0.5, "over the edge")
    found = overlapping_texts(figure)
    assert ("over the edge", "the edge of the picture") in found
    assert any("over the title" in pair for pair in found)


# The parts, by hand and by property


def test_envelope_holds_every_peak() -> None:
    samples = np.zeros(10_000, dtype=np.float32)
    samples[1234], samples[7777] = 0.9, -0.7
    shape = envelope(samples, sample_rate_hz=1000, columns=100, start_s=5.0)
    assert (len(shape.times_s), shape.high.max(), shape.low.min()) == (100, np.float32(0.9), np.float32(-0.7))
    assert shape.times_s[shape.high.argmax()] == pytest.approx(5 + 1.25)
    assert len(envelope(samples[:3], sample_rate_hz=1000).times_s) == 3
    assert len(envelope(samples[:0], sample_rate_hz=1000).times_s) == 0


def test_tokens_hold_until_the_next_frame_but_not_across_a_hole() -> None:
    held = held_tokens(
        np.array([3, SILENCE, 5]), np.array([0.0, 0.1, 1.0]), np.array([-0.1, 0.05, 0.12, 0.5, 1.1]), longest_s=0.2
    )
    assert held.tolist() == [-2, 3, SILENCE, -2, 5]


def test_a_raster_is_shares_of_time() -> None:
    tokens = np.array([7, 7, 2, SILENCE, 7, 7, -2, -2])
    rows = by_first_appearance(tokens[:6], size=8)
    assert (rows[7], rows[2]) == (0, 1)
    raster, silence = token_raster(tokens, rows, columns=2)
    assert raster[:2].tolist() == [[0.5, 0.5], [0.25, 0.0]]
    assert silence.tolist() == [0.25, 0.0]
    assert raster[2:].sum() == 0


@given(st.lists(st.integers(SILENCE, 15), max_size=50))
def test_first_appearance_is_a_numbering(tokens: list[int]) -> None:
    rows = by_first_appearance(np.array(tokens, dtype=np.int64), size=16)
    assert sorted(rows.tolist()) == list(range(16))
    order = list(dict.fromkeys(t for t in tokens if t != SILENCE))
    assert [int(rows[t]) for t in order] == list(range(len(order)))


@given(tokens_of, st.integers(0, 60), st.integers(1, 20))
def test_repeats_are_repeats(tokens: list[int], seam: int, most: int) -> None:
    index = TokenIndex()
    index.extend(tokens[:seam])
    index.start_sequence()
    index.extend(tokens[seam:])
    first, again, lengths = repeats(index, most=most)
    assert len(first) <= most
    assert lengths.tolist() == sorted(lengths.tolist(), reverse=True)
    for a, b, n in zip(first.tolist(), again.tolist(), lengths.tolist(), strict=True):
        assert 0 <= a < b
        assert tokens[a : a + n] == tokens[b : b + n]
        assert len(set(tokens[b : b + n])) >= 2
        assert not any(start < seam < start + n for start in (a, b))


def test_the_longest_repeat_is_found_and_what_it_covers_is_not_said_twice() -> None:
    first, again, lengths = repeats(TokenIndex.from_symbols(HARMONIC), most=99)
    assert (first.tolist(), again.tolist(), lengths.tolist()) == ([0], [5], [4])
    assert len(repeats(TokenIndex.from_symbols([3] * 50), most=9)[0]) == 0  # one sound over and over
    assert len(repeats(TokenIndex(), most=9)[0]) == 0


def test_labels() -> None:
    assert shortened("a\nb" + "x" * 20, characters=8) == "a\\nbxxx…"


# The partner


def test_everything_of_a_partner_is_in_its_picture() -> None:
    model = partner([song("song.wav", HARMONIC, [7] * 10, NOTES)])
    figure = draw_partner(model)
    assert figure.get_size_inches()[0] * 100 == 1600
    tokens = panel(figure, "harmonic tokens in order").images[0].get_array()
    # 2.5 s in ten gestures, tokens 1 2 3 4 9 1 2 3 4 8: rows 0 1 2 3 4 0 1 2 3 5.
    in_order = np.array([tokens[:, int((i + 0.5) / 10 * tokens.shape[1])].argmax() for i in range(10)])
    assert in_order.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 5]
    boxes = [path.get_extents() for path in panel(figure, "notes that it can play").collections[-1].get_paths()]
    assert [(round(b.x0, 5), round(b.x1, 5)) for b in boxes] == [(0.05, 0.45), (0.3, 0.5), (1.2, 2.2)]
    assert [round((b.y0 + b.y1) / 2, 5) for b in boxes] == [60, 64, 36]
    arcs = [c for c in panel(figure, "What comes back").collections if isinstance(c, PolyCollection)]
    assert [(c.get_label(), len(c.get_paths())) for c in arcs] == [("harmonic", 1)]
    extent = arcs[0].get_paths()[0].get_extents()
    assert (extent.x0, extent.x1) == pytest.approx((0.0, 2.25))  # from the start of the first to the end of the second
    assert "6 of 64 in use" in panel(figure, "Harmonic tokens").get_title(loc="left")
    assert panel(figure, "first heard at 0:00.0") and panel(figure, "again at 0:01.2")
    assert overlapping_texts(figure) == []


def test_beats_and_tempo_are_in_its_picture() -> None:
    beats = np.zeros(10, dtype=BEAT)
    beats["time_s"], beats["confidence"], beats["bar_place"] = 0.25 * np.arange(10), 0.9, np.arange(10) % 4
    figure = draw_partner(partner([song("song.wav", HARMONIC, [7] * 10, NOTES, beats=beats)]))
    notes = panel(figure, "notes that it can play, darker where louder; lines are beats")
    drawn = {c.get_label(): [s[0][0] for s in c.get_segments()] for c in notes.collections if isinstance(c, LineCollection)}
    assert drawn == {"beats": [0.25, 0.5, 0.75, 1.25, 1.5, 1.75, 2.25], "bars": [0, 1, 2]}
    tempo = panel(figure, "Its tempo: about 240 BPM, steady, 4 beats to the bar")
    assert tempo.lines[0].get_ydata() == pytest.approx(np.full(10, 240))
    assert overlapping_texts(figure) == []


def test_a_grid_too_fine_to_see_is_thinned_or_left_out() -> None:
    for seconds, labels in ((60, {"beats", "bars"}), (300, {"bars"}), (3000, set())):
        axes = Figure().subplots()
        times = np.arange(0, seconds, 0.5)
        draw_beats(axes, times, np.arange(len(times)) % 4 == 0, shown_s=float(seconds))
        assert {c.get_label() for c in axes.collections} == labels


def test_silence_is_drawn_as_silence() -> None:
    tokens = [1, SILENCE, SILENCE, 1]
    figure = draw_partner(partner([song("s.wav", tokens, tokens)]))
    quiet = panel(figure, "harmonic tokens in order").images[1].get_array()[0]
    columns = len(quiet)
    assert quiet[columns * 3 // 8] == 1 and quiet[columns * 5 // 8] == 1
    assert quiet[columns // 8] == 0 and quiet[columns * 7 // 8] == 0


def test_recordings_follow_one_another() -> None:
    names = ["first.wav", "$second$ {\\frac.wav", "third.wav"]
    model = partner([song(name, HARMONIC, HARMONIC, NOTES) for name in names])
    figure = draw_partner(model)
    assert [t.get_text() for t in figure.axes[0].texts] == names
    boxes = [p.get_extents() for p in panel(figure, "notes that it can play").collections[-1].get_paths()]
    assert [b.x0 for b in boxes[::3]] == pytest.approx([0.05 + s for s in TimeLine.of(model.recordings).starts_s])
    assert "again at 0:00.0 of $second$" in " ".join(titles(figure))
    assert overlapping_texts(figure) == []


@pytest.mark.parametrize(("count", "seconds"), [(1, 0.3), (1, 61.0), (7, 3.0), (60, 2.0)])
def test_texts_never_cover_each_other(count: int, seconds: float) -> None:
    states = max(1, int(seconds / 0.25))
    tokens = (np.arange(states) * 7 % 13).tolist()
    parts = [song(f"recording number {i} of a long session.wav", tokens, tokens, NOTES[:1]) for i in range(count)]
    assert overlapping_texts(draw_partner(partner(parts))) == []


@pytest.mark.parametrize(
    ("harmonic", "keep_audio"), [([5], True), ([SILENCE], True), ([SILENCE] * 9, False), ([1, 2, 3], False)]
)
def test_hardly_anything_still_makes_a_picture(harmonic: list[int], keep_audio: bool) -> None:
    figure = draw_partner(partner([song("s.wav", harmonic, harmonic, keep_audio=keep_audio)]))
    assert panel(figure, "It heard no notes")
    assert panel(figure, "nothing repeats")
    assert ("not stored" in figure.axes[0].get_ylabel()) is not keep_audio
    assert overlapping_texts(figure) == []
    assert not is_blank(figure)


def test_a_long_memory_is_drawn_in_bounded_detail() -> None:
    rng = np.random.default_rng(0)
    n = 4 * 60 * 10
    figure = draw_partner(partner([song("long.wav", rng.integers(0, 9, n).tolist(), rng.integers(0, 9, n).tolist())]))
    assert panel(figure, "harmonic tokens in order").images[0].get_array().shape == (64, 1500)
    assert all(len(c.get_paths()) <= 150 for c in panel(figure, "What comes back").collections)


# The performance


def a_performance(**kwargs):
    decisions = [
        rested(0, 0.0, "waiting"),
        played(1, 0.7, 3.0, 0.5, by="chroma", jumped=True, pitches=[60, 64]),
        played(2, 1.2, 3.5, 0.3, by="continuity"),
        played(3, 1.5, 1.0, 0.5, by="harmonic", jumped=True, recording=1, pitches=[67]),
        rested(4, 2.0, "silence"),
        rested(5, 2.6, "weak match"),
        played(6, 3.0, 2.0, 0.4, by="percussive", jumped=True, pitches=[36]),
    ]
    return performance(decisions, seconds=3.4, **kwargs)


def notes_of(show) -> list[Note]:
    return [Note(n.onset_s, n.duration_s, n.pitch, n.velocity) for d in show.decisions for n in d.notes]


def picture_of(show, *, samples: np.ndarray | None = None, names=("a.wav", "b.wav"), notes=None) -> Figure:
    samples = np.sin(np.arange(round(show.duration_s * RATE)) / 20).astype(np.float32) if samples is None else samples
    notes = notes_of(show) if notes is None else notes
    return draw_performance(show, samples, sample_rate_hz=RATE, recording_names=names, notes=notes)


def test_the_beat_that_it_goes_by_is_drawn_where_there_is_one() -> None:
    in_time = {"tempo_bpm": 120.0, "pulse": PulseUse("heard", 0.9, 1.0, 0.5, 0.5, 0.5)}
    decisions = [
        dataclasses.replace(played(0, 0.75, 2.5, 0.75), **in_time),
        dataclasses.replace(played(1, 1.25, 2.5, 0.75), **in_time),
        played(2, 2.0, 3.5, 0.5),
    ]
    assert room_beats(decisions, end_s=2.5).tolist() == [1.0, 1.5]
    figure = picture_of(performance(decisions, seconds=2.5))
    lines = [c for c in panel(figure, "The player").collections if c.get_label() == "beats"]
    assert [s[0][0] for s in lines[0].get_segments()] == [1.0, 1.5]
    assert "the beat that it goes by" in [t.get_text() for t in figure.legends[0].get_texts()]
    assert not any("the beat" in t.get_text() for t in picture_of(a_performance()).legends[0].get_texts())


def test_rests_last_until_the_next_decision() -> None:
    spans = rest_spans(a_performance().decisions, end_s=3.4)
    assert [(s.start_s, s.end_s, s.reason) for s in spans] == [
        (0.0, 0.7, "waiting"), (2.0, 2.6, "silence"), (2.6, 3.0, "weak match")
    ]  # fmt: skip
    assert [(s.start_s, s.end_s) for s in rest_spans([rested(0, 1.0, "silence")], end_s=9.0)] == [(1.0, 9.0)]


def test_everything_of_a_performance_is_in_its_picture() -> None:
    show = a_performance()
    figure = picture_of(show)
    places = panel(figure, "Its place in memory")
    drawn = {c.get_label(): c for c in places.collections if isinstance(c, LineCollection)}
    # The second recording lies on top of the first, of which 3.8 s (and 2 %) were used.
    base = round(3.8 * 1.02 + 1, 6)
    lines = [segment.round(6).tolist() for segment in drawn["places"].get_segments()]
    assert lines[1:3] == [[[1.2, 3.5], [1.5, 3.8]], [[1.5, base], [2.0, base + 0.5]]]
    colours = [to_rgba(INFLUENCE_LOOKS[n][0]) for n in ("chroma", "continuity", "harmonic", "percussive")]
    assert [tuple(c) for c in drawn["places"].get_colors()] == colours
    # A jump after a rest is not drawn.
    assert [s.round(6).tolist() for s in drawn["jumps"].get_segments()] == [[[1.5, 3.8], [1.5, base]]]
    answer = panel(figure, "Its answer")
    notes = next(c for c in answer.collections if isinstance(c, PolyCollection))
    boxes = [p.get_extents() for p in notes.get_paths()]
    assert [(round(b.x0, 6), round(b.x1, 6), round((b.y0 + b.y1) / 2)) for b in boxes] == [
        (0.7, 1.2, 60), (0.7, 1.2, 64), (1.5, 2.0, 67), (3.0, 3.4, 36)
    ]  # fmt: skip
    assert [tuple(c[:3]) for c in notes.get_facecolors()] == [colours[i][:3] for i in (0, 0, 2, 3)]
    for axes in (places, answer):
        spans = [(p.get_x(), p.get_x() + p.get_width(), p.get_label()) for p in axes.patches]
        assert [s[2] for s in spans] == ["waiting", "silence", "weak match"]
        assert np.array([s[:2] for s in spans]) == pytest.approx(np.array([(0, 0.7), (2, 2.6), (2.6, 3.0)]))
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert all(any(REST_REASONS[r] in text for text in legend) for r in ("waiting", "silence", "weak match"))
    assert not any(REST_REASONS["repeats"] in text for text in legend)
    assert any("has no note" in text for text in legend)
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, 3.4)}
    raster = panel(figure, "heard: 5 harmonic tokens").images[0].get_array()
    in_order = [int(raster[:, int((i * 20 + 10) / 252 * raster.shape[1])].argmax()) for i in range(12)]
    assert in_order == [0, 1, 2, 3, 4] * 2 + [0, 1]
    assert panel(figure, "heard: 0 percussive tokens").images[1].get_array().mean() > 0.95
    assert overlapping_texts(figure) == []


def told(*events: tuple[float, str, str]) -> tuple[DriftReport, ...]:
    figures = DriftFigures((None, None), -20.0, 1.0, 0.0, 0.3, 0.2, 5)
    return tuple(DriftReport(time_s, event, cause, figures) for time_s, event, cause in events)


def test_alarms_stand_until_they_are_cleared() -> None:
    reports = told(
        (1.0, "raised", "clipped"), (2.0, "cleared", "clipped"), (2.0, "raised", "noise only"), (3.0, "cleared", "noise only"),
        (4.0, "raised", "too quiet"),
    )  # fmt: skip
    assert [(s.start_s, s.end_s, s.cause) for s in alarm_spans(reports, end_s=9.0)] == [
        (1.0, 2.0, "clipped"), (2.0, 3.0, "noise only"), (4.0, 9.0, "too quiet")
    ]  # fmt: skip
    assert alarm_spans((), end_s=9.0) == []
    assert alarm_spans(told((9.0, "raised", "clipped")), end_s=9.0) == []


def test_alarms_are_drawn_with_their_cause() -> None:
    reports = told((0.5, "raised", "too quiet"), (1.9, "cleared", "too quiet"), (2.9, "raised", "clipped"))
    figure = picture_of(dataclasses.replace(a_performance(), drift=reports))
    alarms = panel(figure, "Alarms")
    bars = [c.get_paths()[0].get_extents() for c in alarms.collections if isinstance(c, PolyCollection)]
    assert [(round(b.x0, 6), round(b.x1, 6)) for b in bars] == [(0.5, 1.9), (2.9, 3.4)]
    assert [to_rgba(c.get_facecolor()[0]) for c in alarms.collections] == [
        to_rgba(ALARM_COLOURS[cause]) for cause in ("too quiet", "clipped")
    ]
    lines = [line.get_xdata()[0] for line in panel(figure, "The player").lines if line.get_linestyle() == "--"]
    assert lines == [0.5, 2.9]
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert {"alarm: too quiet", "alarm: clipped"} <= set(legend)
    assert "2 alarms" in figure.texts[1].get_text()
    assert overlapping_texts(figure) == []
    assert not [axes for axes in picture_of(a_performance()).axes if "Alarms" in axes.get_title(loc="left")]
    assert set(ALARM_COLOURS) == set(CAUSES)


def test_the_strongest_influence_gives_the_colour() -> None:
    decision = played(0, 0.0, 0.0, 1.0, by="chroma")
    late = [Note(0.9996, 0.1, 60, 90), Note(0.4, 0.1, 60, 90)]  # MIDI rounds times
    both = [decision, played(1, 1.0, 0.0, 1.0, by="harmonic")]
    assert note_colours(late, both) == [INFLUENCE_LOOKS["harmonic"][0], INFLUENCE_LOOKS["chroma"][0]]
    assert len(set(note_colours(late, []))) == 1


@pytest.mark.parametrize(
    "decisions",
    [
        [],
        [rested(0, 0.2, "waiting")],
        [rested(n, n / 14, reason) for n, reason in enumerate(REST_REASONS)],
        [dataclasses.replace(played(0, 0.5, 0.0, 0.4), influences=())],
        [played(0, 0.5, 600.0, 0.4, jumped=True, pitches=[0, 127])],
    ],
)
def test_strange_performances_still_make_a_picture(decisions) -> None:
    figure = picture_of(performance(decisions, seconds=1.5))
    assert overlapping_texts(figure) == []
    assert not is_blank(figure)
    reasons = {d.rest for d in decisions if d.kind == "rest"}
    legend = [t.get_text() for one in figure.legends for t in one.get_texts()]
    assert all(any(REST_REASONS[r] in text for text in legend) for r in reasons)


def test_stereo_players_long_notes_and_many_recordings() -> None:
    decisions = [played(n, n * 0.5, float(n), 0.5, jumped=True, recording=n, pitches=[60]) for n in range(30)]
    show = performance(decisions, seconds=16.0)
    stereo = np.stack([np.ones(16 * RATE), np.zeros(16 * RATE)], axis=1).astype(np.float32)
    names = [f"a rather long name of a recording {n}.wav" for n in range(30)]
    figure = picture_of(show, samples=stereo, names=names, notes=[*notes_of(show), Note(15.0, 5.0, 72, 9)])
    assert figure.axes[0].get_xlim() == (0, 20)  # the last note is seen to its end
    assert figure.axes[0].collections[0].get_paths()[0].get_extents().y1 == pytest.approx(0.5)
    assert overlapping_texts(figure) == []


# Files


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_saved_files_are_valid_and_always_the_same(tmp_path: Path, suffix: str, magic: bytes) -> None:
    for name in ("a", "b"):
        save_figure(picture_of(a_performance()), tmp_path / (name + suffix))
    data = (tmp_path / f"a{suffix}").read_bytes()
    assert data.startswith(magic)
    assert data == (tmp_path / f"b{suffix}").read_bytes()
    assert b"CreationDate" not in data and b"dc:date" not in data
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]
    if suffix == ".png":
        assert Image.open(tmp_path / "a.png").size == (1600, 1350)


@pytest.mark.parametrize("name", ["picture.jpg", "picture", "picture.png.exe", ".png"])
def test_an_unknown_suffix_is_refused_and_nothing_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"a \.png, \.svg or \.pdf file"):
        save_figure(Figure(), tmp_path / name)
    with pytest.raises(InputError):
        picture_format(name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        save_figure(Figure(), tmp_path / "nowhere" / "a.png")


def test_names_in_any_script_are_drawn_without_alarm(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    save_figure(draw_partner(partner([song("歌🎸.wav", [1, 2], [1, 2])])), tmp_path / "a.png")
    assert [str(w.message) for w in recwarn] == []


def test_the_users_own_style_changes_nothing_and_is_left_alone(tmp_path: Path) -> None:
    save_figure(picture_of(a_performance()), tmp_path / "plain.svg")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 7}):
        save_figure(picture_of(a_performance()), tmp_path / "styled.svg")
        assert (matplotlib.rcParams["axes.facecolor"], matplotlib.rcParams["font.size"]) == ("black", 30)
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "styled.svg").read_bytes()


def test_drawing_needs_no_pyplot_and_importing_no_matplotlib() -> None:
    code = (
        "import sys\n"
        "import musichal.plots.partner, musichal.plots.performance, musichal.plots.style as style\n"
        "assert 'matplotlib' not in sys.modules\n"
        "style.plot_style()(lambda: style.new_figure(height_inches=2, title='t', subtitle='s'))()\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
