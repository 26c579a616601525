"""Beats: the pulse of what is heard.

The beat is a hidden variable, period and phase on a grid of frames. Its posterior is filtered forwards only, so that every
beat is *predicted* (the state space of Krebs, Böck & Widmer, An efficient state-space model for joint tempo and meter
tracking, ISMIR 2015: one state per frame of a beat; tempo changes on the beat alone, large ones are unlikely). Observed are
onsets, weighed by how much they stand out: likeliest on the beat, less so on its half and its quarters; and, beside them, how
likely a network says that each step is a beat (`musichal.hearing.beat_evidence`). The prior of the period is the resonance
curve around 0.5 s (van Noorden & Moelants, J. New Music Research 28(1), 1999). Beats that are known beforehand, as those of
memory, have states of their own beside these: near their tempos, and with onsets likeliest where theirs are. Which level of the
pulse that is found is the beat, `musichal.hearing.level_follower` says.

With a whole recording in view, the network counts in full, the likeliest path through periods and phases
(`musichal.hearing.metre`) gives a pulse, `musichal.hearing.beat_level` says which level of it is the beat, and beats are drawn
to the onsets at them by a weighted line. How sure they are, is how much better the pulse explains what was heard than no metre
does, and how steady it is.
"""

import math
import tempfile
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from musichal.arrays import AnyArray, Bool, Float32, Float64, Int64, Records, RowFile
from musichal.hearing.bars import bar_places
from musichal.hearing.beat_evidence import DELAY_S, N_KINDS, STEP_S, BeatEvidence, BeatNetwork
from musichal.hearing.beat_level import beat_places, what_is_heard
from musichal.hearing.level_follower import LevelFollower
from musichal.hearing.metre import AWAKE, FRAME_S, best_path, rests, space
from musichal.hearing.percepts import Percept, SegmentFeatures
from musichal.note import HeardNote
from musichal.pulse import Pulse

BEAT = np.dtype([("time_s", np.float64), ("confidence", np.float32), ("bar_place", np.int8)])
"""One beat of a grid: when, how sure (0 to 1), and its place in the bar: 0 for the first beat, -1 where it is not known."""

SHORTEST_BEAT_S, LONGEST_BEAT_S = 0.3, 0.8
"""Periods that the tracker considers: little more than an octave, so that one level of the metre is preferred."""
_USUAL_S = 0.5
_TEMPO_RIGIDITY = 200.0  # rate at which a relative change of tempo from beat to beat becomes unlikely
_LEAP, _LEAP_WIDTH = 8e-3, 0.1  # how likely a leap of tempo is, beside none, and how large
# So many times likelier is an onset of strength 1 there, within the width; and what a beat without an onset speaks against it.
_ON_BEAT, _ON_HALF, _ON_QUARTER, _WIDTH_S, _MISSING = 6.0, 2.5, 0.8, 0.025, 0.02
_SHARPNESS = 0.07
"""How far the network counts beside the onsets: little, for what it has not been trained on misleads it."""
_PULSE_GAIN, _PULSE_GAIN_WIDTH = 0.6, 0.12
"""Nepers a second that the metre explains better where the confidence is half the share that agrees."""
_KNOWN_GAIN = 0.32
"""So much less is asked for of a pulse at a tempo that is likely beforehand."""
_GAIN_MEMORY_S, _KNOWN_AT_FIRST_S, _REST_PACE = 5.0, 1.0, 0.25
_ONSET_LATE_S = 0.005  # an onset is reported so much after a synthesiser's attack begins


PLACES = 12
"""Parts of a beat that tell straight time from triplets."""
_BY_HABIT = 0.8
"""How likely the pulse is one that is known, before anything is heard."""
_OTHER_FAMILY = 0.02  # how likely a change between known beats and others is, beside none
_OWN_METRE = 0.7  # how far the places of onsets in known beats count beside the usual ones
_STEP, _KNOWN_STEP = 1.015, 1.01  # from one period to the next
_KNOWN_RIGIDITY = 250.0
# How far a period may lie from a known one: its spread at first, and the most.
_ROW_SPREAD, _ROW_REACH, _MOST_ROWS = 0.01, 0.14, 64
_LONGEST_KNOWN_S = 1.1


def beat_part(phases: AnyArray) -> Int64:
    """Return the number of the part of a beat, one of `PLACES`, that is nearest to each phase; of the shape of `phases`."""
    parts: Int64 = np.rint(phases * PLACES).astype(np.int64) % PLACES
    return parts


class BeatHabit(NamedTuple):
    """Beats that are likely beforehand: `periods_s` (n,), each with a `share`, and where in a beat onsets are (`PLACES`,).

    The likeliest place has 1.
    """

    periods_s: Float64
    share: Float64
    struck: Float64

    def tempo_share(self, period_s: float) -> float:
        """Return the share of the beats that have a period, half of it or two of it, 0 to 1."""
        octaves = np.log2(self.periods_s / period_s)
        away = octaves - np.clip(np.rint(octaves), -1, 1)
        return min(1.0, float(np.exp(-0.5 * (away * math.log(2) / _ROW_SPREAD) ** 2) @ self.share))


def _rows(habit: BeatHabit) -> tuple[Float64, Float64]:
    """Return lengths of beats in frames that are near known ones, and how likely each is."""
    shortest, longest = (periods_s / FRAME_S for periods_s in (SHORTEST_BEAT_S, _LONGEST_KNOWN_S))
    count = math.ceil(math.log(longest / shortest, _KNOWN_STEP))
    lengths: Float64 = shortest * _KNOWN_STEP ** np.arange(count, dtype=np.float64)
    away = lengths[:, None] * FRAME_S / habit.periods_s[None, :] - 1
    chance: Float64 = (np.exp(-0.5 * (away / _ROW_SPREAD) ** 2) + 1e-3) @ habit.share
    chance[np.abs(away).min(axis=1) > _ROW_REACH] = 0
    likely = np.sort((-chance).argsort(kind="stable")[: min(_MOST_ROWS, np.count_nonzero(chance))])
    return lengths[likely], chance[likely] / chance[likely].sum()


class _Strengths:
    """Weighs onsets by the level there, in what is percussive most of all, relative to the loudest, which fades."""

    def __init__(self) -> None:
        self._loudest = 1e-6

    def of(self, heard: SegmentFeatures, *, sample_rate_hz: int) -> list[tuple[float, float]]:
        """Return (second of its attack, strength from 0 to 1) of each onset."""
        times = heard.frame_samples / sample_rate_hz
        levels = np.maximum(heard.source_level_db[1], heard.level_db - 12)
        onsets = []
        for sample in heard.onset_samples:
            onset_s = sample / sample_rate_hz
            around = levels[(times >= onset_s - 0.01) & (times <= onset_s + 0.06)]
            power = 10 ** (float(around.max()) / 20) if len(around) else self._loudest / 2
            self._loudest = max(power, 0.97 * self._loudest)
            onsets.append((onset_s - _ONSET_LATE_S, min(1.0, power / self._loudest)))
        return onsets


class BeatTracker:
    """Follows the beat: `hear` takes percepts, or `advance` onsets alone, each up to a time until which all are known."""

    def __init__(self, habit: BeatHabit | None = None) -> None:
        self._habit = habit
        usual = _STEP ** np.arange(math.ceil(math.log(LONGEST_BEAT_S / SHORTEST_BEAT_S, _STEP))) * SHORTEST_BEAT_S / FRAME_S
        prior = usual * np.exp(-0.5 * (np.log2(usual * FRAME_S / _USUAL_S) / 0.6) ** 2)
        prior /= prior.sum()
        known, chance = (usual[:0], prior[:0]) if habit is None else _rows(habit)
        self._lengths = lengths = np.concatenate([usual, known])
        self._families = (slice(0, len(usual)), slice(len(usual), len(lengths)))
        cells = np.ceil(lengths).astype(np.int64)
        phase = np.arange(cells.max())
        inside = phase[None, :] < cells[:, None]
        # A beat of 33.3 frames has 33 of them or 34.
        lasts = np.clip(lengths[:, None] - phase[None, :], 0, 1)
        self._anywhere: Float64 = lasts / lengths[:, None]
        self._posterior: Float64 = (
            self._anywhere * np.concatenate([prior * (1 - _BY_HABIT * bool(len(known))), _BY_HABIT * chance])[:, None]
        )
        self._posterior /= self._posterior.sum()
        away = np.abs(lengths[None, :] / lengths[:, None] - 1)
        is_known = np.arange(len(lengths)) >= len(usual)
        rigidity = np.where(is_known, _KNOWN_RIGIDITY, _TEMPO_RIGIDITY)[:, None]
        change = np.exp(-rigidity * away) + _LEAP * np.exp(-away / _LEAP_WIDTH)
        change *= np.concatenate([prior, chance])[None, :] ** 0.02
        change *= np.where(is_known[:, None] == is_known[None, :], 1.0, _OTHER_FAMILY)
        self._change: Float64 = change / change.sum(axis=1, keepdims=True)
        part = phase[None, :] / lengths[:, None]

        def near(*places: float) -> Float64:
            away = np.min([np.abs((part - p + 0.5) % 1 - 0.5) for p in places], axis=0) * lengths[:, None] * FRAME_S
            return np.exp(-0.5 * (away / _WIDTH_S) ** 2) * inside

        def mean(values: Float64) -> Float64:
            return np.asarray((values * lasts).sum(axis=1) / lengths)

        beat, half = near(0.0), near(0.5)
        # What the network says of a frame as a beat, as half a beat and as neither, and how much of it a place has.
        self._places: Float64 = np.stack([beat, half, 1 - beat - half]).reshape(3, -1)
        self._even: Float64 = np.stack([mean(beat), mean(half)], axis=1)
        likelihood = inside + _ON_BEAT * beat + _ON_HALF * half + _ON_QUARTER * near(0.25, 0.75)
        if habit is not None:
            own = self._families[1]
            struck = sum(share * near(place / PLACES) for place, share in enumerate(habit.struck))[own]
            likelihood[own] = _OWN_METRE * (inside[own] + _ON_BEAT * struck) + (1 - _OWN_METRE) * likelihood[own]
        # Each place is so much likelier with an onset of full strength: times 1 + that. The mean over a period is 1 for every
        # period: no tempo is likelier for the mere number of onsets.
        self._struck: Float64 = (np.where(inside, likelihood / mean(likelihood)[:, None], 0) - 1).ravel()
        # Places in the posterior, one row after the other: the last of each beat, and those behind it.
        self._last = np.arange(len(lengths)) * len(phase) + cells - 1
        self._behind = self._last[cells < len(phase)] + 1
        self._early: Float64 = cells - lengths  # how often a beat ends before its last frame
        self._each: Float64 = np.ones(len(phase))
        self._evidence, self._network = BeatEvidence(), BeatNetwork()
        self._step_before: Float64 = np.zeros((1, 2))
        self._lately = 0.0
        self._delay_s = DELAY_S
        self._frame = 0
        self._waiting: deque[tuple[int, float]] = deque()
        self._strengths = _Strengths()
        self._onsets_seen = 0
        self._gain, self._known_s = 0.0, _KNOWN_AT_FIRST_S
        self._level = LevelFollower(None if habit is None else (habit.periods_s, habit.share))
        self._pulse: Pulse | None = None

    def hear(self, percept: Percept, *, sample_rate_hz: int) -> None:
        """Take a percept."""
        lost = self._evidence.pass_over(percept.heard, sample_rate_hz=sample_rate_hz)
        if lost:
            self._level = self._level.after_gap(lost)
            self._pass_over(round(lost * STEP_S / FRAME_S))
        onsets = self._strengths.of(percept.heard, sample_rate_hz=sample_rate_hz)
        evidence = self._evidence.hear(percept.heard, sample_rate_hz=sample_rate_hz)
        self._level.hear(evidence, percept.heard.hits)
        self._follow(onsets, self._network.push(evidence))

    def _pass_over(self, frames: int) -> None:
        """Leave out the frames of a long gap: the tempo is as likely as before, every phase as likely as any other."""
        self._posterior = self._posterior.sum(axis=1, keepdims=True) * self._anywhere
        self._step_before, self._lately = np.zeros((1, 2)), 0.0
        self._frame += frames

    def _follow(self, onsets: list[tuple[float, float]], found: Float32) -> None:
        """Move on by what was `found` in each step, past `onsets`."""
        self._take(onsets)
        steps: Float64 = np.concatenate([self._step_before, found[:, :2]], dtype=np.float64)
        self._step_before = steps[-1:]
        frames = np.stack([(steps[:-1] + steps[1:]) / 2, steps[1:]], axis=1).reshape(-1, 2)
        lately, observed = rests(frames, self._lately, sharpness=_SHARPNESS)
        self._move(observed, [min(1.0, heard / AWAKE) for heard in lately.tolist()])
        self._lately = float(lately[-1]) if len(lately) else self._lately
        self._pulse = self._find()

    def advance(self, onsets: list[tuple[float, float]], *, until_s: float) -> None:
        """Move on to `until_s`, past `onsets` and nothing else: (second, strength from 0 to 1) each, in order."""
        self._delay_s = 0.0
        self._take(onsets)
        count = max(0, math.floor(until_s / FRAME_S) - self._frame)
        self._move(np.tile([1 - _MISSING, 1.0, 1.0], (count, 1)), [1.0] * count)
        self._pulse = self._find()

    def pulse(self) -> Pulse | None:
        """Return the beat as it stands, None before there were two onsets.

        The confidence is the share of the posterior that agrees, within 4 % of the period and an eighth of a beat, as far as
        the metre has explained what was heard lately better than no metre does.
        """
        return self._pulse

    def _find(self) -> Pulse | None:
        if self._onsets_seen < 2 or not self._frame:
            return None
        row, column = np.unravel_index(int(np.argmax(self._smooth())), self._posterior.shape)
        length = float(self._lengths[row])
        rows = np.abs(self._lengths / length - 1) <= 0.04
        near = self._posterior[rows]
        parts = (np.arange(near.shape[1])[None, :] / self._lengths[rows][:, None] - column / length + 0.5) % 1 - 0.5
        agree = near * (np.abs(parts) <= 0.125)
        share = float(agree.sum())
        if share <= 0:
            return None
        period_s = float((agree.sum(axis=1) * self._lengths[rows]).sum() / share) * FRAME_S
        part = column / length + float((agree * parts).sum()) / share
        # The posterior is that of the frame before the present one.
        beat_s = (self._frame - 1) * FRAME_S - self._delay_s - part * period_s
        known = float(agree[np.flatnonzero(rows) >= self._families[1].start].sum()) / share
        known = max(known, 0.0 if self._habit is None else self._habit.tempo_share(period_s))
        least = _PULSE_GAIN - _KNOWN_GAIN * known
        explained = 1 / (1 + math.exp(-(self._gain - least) / _PULSE_GAIN_WIDTH))
        # Rounded, so that it is the same on every processor.
        return self._level.of(Pulse(round(beat_s, 5), round(period_s, 5), round(min(1.0, share) * explained, 4)))

    def _take(self, onsets: list[tuple[float, float]]) -> None:
        self._waiting.extend((round((onset_s + self._delay_s) / FRAME_S), strength) for onset_s, strength in onsets)

    def _smooth(self) -> Float64:
        smooth = np.empty_like(self._posterior)
        for rows in self._families:
            padded = np.zeros((rows.stop - rows.start + 4, smooth.shape[1]))
            padded[2:-2] = self._posterior[rows]
            smooth[rows] = padded[:-4] + padded[1:-3] + padded[2:-2] + padded[3:-1] + padded[4:]
        return smooth

    def _move(self, observed: Float64, awake: list[float]) -> None:
        """Move on, each frame `observed` as a beat, half a beat and neither; `awake` is how much was heard lately."""
        # All rows as one, scaled to a sum of `likelihood`: the next frame's division is enough.
        now, likelihood, sums = self._posterior.ravel(), 1.0, self._posterior @ self._each
        before_last, moved, likely = self._last - 1, np.empty_like(now), np.empty_like(now)
        width = self._posterior.shape[1]
        for here, learned in zip(observed, awake, strict=True):
            strength = 0.0
            while self._waiting and self._waiting[0][0] <= self._frame:
                strength = max(strength, self._waiting.popleft()[1])
            last = now.take(before_last)
            early = last * self._early
            first = (now.take(self._last) + early) @ self._change
            np.dot(here / likelihood, self._places, out=likely)
            # What comes to a row's first place from the row before it is overwritten.
            np.multiply(now[:-1], likely[1:], out=moved[1:])
            moved[self._last] = (last - early) * likely.take(self._last)
            moved[self._behind] = 0  # what went past the end of a beat starts the next one
            moved[::width] = first * likely[::width]
            if strength > 0:
                moved += moved * self._struck * strength
                self._onsets_seen += 1
            on, half, neither = here.tolist()
            beats, halves = (sums @ self._even / likelihood).tolist()
            sums = moved.reshape(-1, width) @ self._each
            likelihood = float(sums.sum())
            gain = math.log(likelihood / (neither + beats * (on - neither) + halves * (half - neither))) / FRAME_S
            # In a rest little is learned, and what is known fades slowly. At the beginning little is known, and fades soon.
            learned_s = FRAME_S * max(_REST_PACE, learned)
            self._known_s = min(_GAIN_MEMORY_S, self._known_s + learned_s)
            self._gain += learned_s / self._known_s * (gain - self._gain)
            now, moved = moved, now
            self._frame += 1
        self._posterior = (now / likelihood).reshape(-1, width)


def predicted_beats(percepts: Iterable[Percept], *, sample_rate_hz: int) -> Float64:
    """Return the beats of a performance, each as it was predicted before it was heard, shape (n,), in seconds."""
    tracker = BeatTracker()
    beats: list[float] = []
    pulse: Pulse | None = None
    heard_s = 0.0
    for percept in percepts:
        now_s = percept.heard.available_at / sample_rate_hz
        if pulse is not None:
            beat_s = pulse.next_s(heard_s)
            while beat_s < now_s:
                if not beats or beat_s - beats[-1] > 0.6 * pulse.period_s:
                    beats.append(beat_s)
                beat_s += pulse.period_s
        tracker.hear(percept, sample_rate_hz=sample_rate_hz)
        pulse, heard_s = tracker.pulse(), now_s
    return np.array(beats)


_SURE_GAIN, _GAIN_WIDTH = 2.8, 0.4  # nepers a second that a metre explains better: where the confidence is a half
_FIT_REACH = 0.07  # of a beat, around its quarters, in which an onset draws it
_FEWEST_BEATS = 6
_SURE_BEATS = 4  # beats over which what speaks for them is averaged, to each side
_LEAST_SURE = 0.5
_LONG_RUN = 12
# Beats to each side over which a pulse is to be steady; where a half: the mean change of its period a beat, less its trend.
_STEADY_BEATS, _STEADY, _STEADY_WIDTH = 12, 0.0054, 0.0007
_STEPS = 3  # changes around a beat that do not count: a new tempo
_BLOCK_FRAMES = 1 << 16


class FoundPulse(NamedTuple):
    """A pulse of a whole recording: its times, how sure it is, and what it was found in.

    `heard` is what `musichal.hearing.beat_level` reads, `first` how likely each frame is a bar's first beat.
    """

    times_s: Float64
    confidence: Float64
    onsets_s: Float64
    heard: Float64
    first: Float64


def find_pulse(segments: Iterable[SegmentFeatures], *, sample_rate_hz: int) -> FoundPulse | None:
    """Return a pulse of a whole recording, at whatever level of its metre; None if the recording is too short for one."""
    evidence, network = BeatEvidence(), BeatNetwork()
    strengths = _Strengths()
    kinds, parts = RowFile(N_KINDS, Path(tempfile.gettempdir())), [np.zeros((0, 3), np.float32)]
    struck: list[tuple[float, float]] = []
    hits: list[HeardNote] = []
    for segment in segments:
        heard = evidence.hear(segment, sample_rate_hz=sample_rate_hz)
        kinds.append(heard)
        parts.append(network.push(heard))
        struck += strengths.of(segment, sample_rate_hz=sample_rate_hz)
        hits += segment.hits
    steps = np.concatenate(parts)
    if len(steps) * STEP_S < _FEWEST_BEATS * SHORTEST_BEAT_S:
        return None
    onsets: Float64 = np.array(struck, dtype=np.float64).reshape(-1, 2)
    observed, first = _observed(steps, onsets)
    frames, rows = best_path(observed)
    times_s = np.asarray((frames + 0.5) * FRAME_S - DELAY_S, np.float64)
    sure = np.minimum(_sureness(observed, frames, rows), _steadiness(_to_onsets(times_s, onsets[:, 0])))
    del observed, steps, parts  # of hours these are much
    return FoundPulse(times_s, sure, onsets[:, 0], what_is_heard(kinds, hits), first)


def _observed(steps: Float32, onsets: Float64) -> tuple[Float64, Float64]:
    """Return what `best_path` reads, of steps (n, 3) and onsets (k, 2), and how likely each frame is a bar's first beat."""
    per_step = round(STEP_S / FRAME_S)
    count, lately = per_step * len(steps), 0.0
    observed, first, numbers = np.zeros((count, 4)), np.empty(count), np.arange(len(steps))
    for begin in range(0, count, _BLOCK_FRAMES):
        block = slice(begin, min(count, begin + _BLOCK_FRAMES))
        place = (np.arange(block.start, block.stop) - (per_step - 1)) / per_step
        beat, half, first[block] = (np.interp(place, numbers, steps[:, kind]) for kind in range(3))
        heard, observed[block, :3] = rests(np.stack([beat, half], axis=1), lately)
        lately = float(heard[-1])
    np.maximum.at(observed[:, 3], np.clip((onsets[:, 0] + DELAY_S) / FRAME_S, 0, count - 1).astype(int), onsets[:, 1])
    return observed, first


def first_chance(pulse: FoundPulse, beats_s: Float64) -> Float64:
    """Return how likely the beat network takes each beat for a bar's first."""
    frames = ((beats_s + DELAY_S) / FRAME_S).astype(np.int64)
    return np.array([pulse.first[max(0, frame - 2) : frame + 3].max(initial=0.0) for frame in frames])


def find_beats(segments: Iterable[SegmentFeatures], *, sample_rate_hz: int) -> Records:
    """Return the beats of a whole recording, `BEAT` of shape (n,), ascending; none where there is no steady beat."""
    pulse = find_pulse(segments, sample_rate_hz=sample_rate_hz)
    if pulse is None:
        return np.zeros(0, dtype=BEAT)
    places = beat_places(pulse.heard, pulse.times_s)
    numbers = np.arange(len(pulse.times_s))
    times = np.interp(places, numbers, pulse.times_s)
    out = np.zeros(len(times), dtype=BEAT)
    out["time_s"] = _to_onsets(times, pulse.onsets_s)
    sure = np.where(_in_runs(pulse.confidence >= _LEAST_SURE), pulse.confidence, 0.0)
    out["confidence"] = np.interp(places, numbers, sure)
    out["bar_place"] = bar_places(pulse.heard, first_chance(pulse, times), times)
    out = out[(out["confidence"] >= _LEAST_SURE) & (out["time_s"] >= 0)]
    return out[np.r_[True, np.diff(out["time_s"]) > 0]] if len(out) >= _FEWEST_BEATS else out[:0]


def _in_runs(sure: Bool) -> Bool:
    """Return which of the sure ones are in a long run of them, or in one that is half of all: a few happen by chance."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], sure, [False]]).astype(np.int8)))
    kept = np.zeros(len(sure), dtype=bool)
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        kept[first:last] = last - first >= min(_LONG_RUN, len(sure) / 2)
    return kept


def _steadiness(pulses_s: Float64) -> Float64:
    """Return how steady the pulse is around each of its times: near 1 if one period is like the next, near 0 if it is not.

    A pulse that somebody keeps may become faster or slower, but it does so evenly; one that is laid through free playing is
    now longer and now shorter.
    """
    count, over = len(pulses_s), 2
    if count < 2 * over + 2:
        return np.ones(count)
    spans = np.maximum(1e-3, pulses_s[over:] - pulses_s[:-over])
    change = np.log(spans[over:] / spans[:-over]) / over  # times are on a grid: over one beat that would be most of a change
    mean = np.empty(count)
    for number in range(count):
        place = min(max(0, number - over), len(change) - 1)
        around = change[max(0, place - _STEADY_BEATS) : place + _STEADY_BEATS]
        away = np.sort(np.abs(around - np.median(around)))
        mean[number] = away[: len(away) - min(_STEPS, len(away) // 4)].mean()
    return np.asarray(1 / (1 + np.exp((mean - _STEADY) / _STEADY_WIDTH)))


def _to_onsets(times: Float64, onsets: Float64) -> Float64:
    """Return beats, each on the line through the onsets near quarters of the beats around it."""
    if len(times) < 4 or not len(onsets):
        return times
    number = np.interp(onsets, times, np.arange(len(times)), left=-9, right=-9)
    onsets, number = onsets[number >= 0], number[number >= 0]
    period = np.diff(times)
    place = np.round(4 * number) / 4
    grid = np.interp(place, np.arange(len(times)), times)
    away = onsets - grid
    near = np.abs(away) < _FIT_REACH * period[np.minimum(number.astype(int), len(period) - 1)]
    place, away = place[near], away[near]
    kind = np.where(place % 1 == 0, 1.0, np.where(place % 0.5 == 0, 0.6, 0.25))
    shift = np.zeros(len(times))
    for k in range(len(times)):
        x = place - k
        weight = kind * np.exp(-0.5 * (x / 1.5) ** 2)
        a, b, c = weight.sum() + 0.5, (weight * x).sum(), (weight * x**2).sum() + 2.0
        shift[k] = (c * (weight * away).sum() - b * (weight * x * away).sum()) / (a * c - b * b)
    return times + shift


def _sureness(observed: Float64, frames: Int64, rows: Int64) -> Float64:
    """Return how sure each beat is: how much better the path explains the beats around it than no metre does."""
    s = space()
    on, half, off, _ = observed.T
    gain = np.zeros(len(frames))
    for k, (frame, row) in enumerate(zip(frames, rows, strict=True)):
        end = min(len(observed), frame + int(s.lengths[row]))
        span, n = slice(frame, end), end - frame
        path = np.log(off[span] + s.on_beat[row, :n] * (on[span] - off[span]) + s.on_half[row, :n] * (half[span] - off[span]))
        no_metre = np.log(off[span] + s.even[row, 0] * (on[span] - off[span]) + s.even[row, 1] * (half[span] - off[span]))
        gain[k] = (path - no_metre).sum() / max(1, n) / FRAME_S
    width = 2 * _SURE_BEATS + 1
    around = np.convolve(np.pad(gain, _SURE_BEATS, mode="edge"), np.ones(width), "valid")
    return 1 / (1 + np.exp(-(around / width - _SURE_GAIN) / _GAIN_WIDTH))
