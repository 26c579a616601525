"""A session in time: its markers, and the beats that its partner went by.

Times are seconds of the input, from the first sample of the session on.
"""

import contextlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self

from musichal.errors import InputError
from musichal.live.session.event_log import Changed, Marked
from musichal.live.session.session import Session
from musichal.partner.decision import Decision
from musichal.partner.form import WISHES, Form, FormCourse
from musichal.partner.mode_controller import directed_by

MarkerKind = Literal["mark", "section", "mode", "key"]

_JUST_IN_S = 1e-6  # so that a time is not rounded to before its section
_SURE_KEY = 0.5
_KEY_HOLDS_S = 6.0
_FREE_US = 500_000  # 120 beats a minute, where no pulse is known
_FAR_BEATS, _APART_BEATS, _LEAST_BEATS = 32, 8, 8
_OFF_BEAT = 0.2
_SHORTEST_BEAT = 0.75


@dataclass(frozen=True)
class Marker:
    """Something at a time: a mark of the player's, a section of the form, a mode, or a key of the player."""

    at_s: float
    kind: MarkerKind
    text: str

    @property
    def words(self) -> str:
        """The marker as a DAW shows it."""
        return self.text if self.kind in ("mark", "section") else f"{self.kind} {self.text}"


def session_markers(session: Session) -> list[Marker]:
    """Return marks, sections, modes and keys of a session, in order of time."""
    end_s = session.input_samples / session.settings.sample_rate_hz
    _, form = directed_by(session.settings.partner.direction)
    rate_hz = session.settings.stream_rate_hz
    changes = [(e.at_sample / rate_hz, e.changes) for e in session.entries if isinstance(e, Changed)]
    wishes = [(at_s, asked) for at_s, asked in changes if not asked.keys().isdisjoint(WISHES)]
    found = [*_sections(form, wishes, end_s), *_modes(session.decisions), *_keys(session.decisions)]
    return sorted([*session_marks(session), *found], key=lambda marker: marker.at_s)


def session_marks(session: Session) -> list[Marker]:
    """Return the marks that the player made, in order of time."""
    marks = [entry for entry in session.entries if isinstance(entry, Marked)]
    rate_hz = session.settings.stream_rate_hz
    return [Marker(m.at_sample / rate_hz, "mark", m.text or f"mark {number}") for number, m in enumerate(marks, start=1)]


def _sections(form: Form, changes: Sequence[tuple[float, Mapping[str, object]]], end_s: float) -> list[Marker]:
    """Return when sections of a form began, as the player held it and moved it on: `changes` at their times."""
    course, found, now_s = FormCourse(form), list[Marker](), 0.0
    for at_s, wishes in [*changes, (end_s, {})]:
        while now_s < at_s:
            moment = course.at(now_s)
            text = "end of the form" if moment.has_ended else moment.name
            if text and (not found or found[-1].text != text):
                found.append(Marker(round(now_s, 5), "section", text))
            if moment.until_s is None or not now_s < moment.until_s < at_s:
                break
            now_s = moment.until_s + _JUST_IN_S
        now_s = at_s
        with contextlib.suppress(InputError):
            course.change(wishes, at_s)
    return found


def _modes(decisions: Iterable[Decision]) -> list[Marker]:
    found: list[Marker] = []
    for decision in decisions:
        if decision.mode and (not found or found[-1].text != decision.mode):
            found.append(Marker(decision.time_s, "mode", decision.mode))
    return found


def _keys(decisions: Iterable[Decision]) -> list[Marker]:
    """Return where the player's key changes, leaving out what is unsure or does not last."""
    sure = [(d.time_s, d.harmony.key) for d in decisions if d.harmony is not None and d.harmony.key_chance >= _SURE_KEY]
    runs: list[tuple[float, float, str]] = []
    for time_s, key in sure:
        start_s = runs.pop()[0] if runs and runs[-1][2] == key else time_s
        runs.append((start_s, time_s, key))
    found: list[Marker] = []
    for start_s, last_s, key in runs:
        if last_s - start_s >= _KEY_HOLDS_S and (not found or found[-1].text != key):
            found.append(Marker(start_s, "key", key))
    return found


# ── beats ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class TempoStep:
    """From `start_s` on, where beat number `beat` falls, a beat lasts `beat_us` microseconds, as MIDI files count."""

    start_s: float
    beat: int
    beat_us: int

    @property
    def bpm(self) -> float:
        """Beats per minute."""
        return 60e6 / self.beat_us


@dataclass(frozen=True)
class TempoMap:
    """Steps of tempo without a gap; the first begins at 0 s with beat 0, the last has no end."""

    steps: tuple[TempoStep, ...] = (TempoStep(0.0, 0, _FREE_US),)

    def beat_at(self, time_s: float) -> float:
        """Return how many beats have passed at a time."""
        step = self.steps[max(0, bisect_right(self.steps, time_s, key=lambda s: s.start_s) - 1)]
        return step.beat + (time_s - step.start_s) * 1e6 / step.beat_us

    @classmethod
    def through(cls, beats_s: Sequence[tuple[float, int]]) -> Self:
        """Return the map in which beats, numbered upwards from one at 0 s, fall at these times, to half a microsecond each."""
        steps: list[TempoStep] = []
        now_s = 0.0
        for (_, number), (next_s, next_number) in pairwise(beats_s):
            # Measured from where the steps so far really end, so that rounding does not add up.
            beat_us = max(1, round((next_s - now_s) * 1e6 / (next_number - number)))
            steps.append(TempoStep(now_s, number, beat_us))
            now_s += beat_us * (next_number - number) / 1e6
        if not steps:
            return cls()
        usual_us = round(now_s * 1e6 / beats_s[-1][1])
        return cls((*steps, TempoStep(now_s, beats_s[-1][1], usual_us)))


def tempo_map(decisions: Iterable[Decision], *, start_s: float = 0.0) -> TempoMap:
    """Return the beats that the partner went by, from `start_s` on, which becomes 0.

    Where it played in free time, beats are only counted: as many as fit at the tempo that follows.
    """
    grid: list[tuple[float, int]] = [(0.0, 0)]
    for run in _runs(decisions, start_s):
        period_s = (run[-1][0] - run[0][0]) / (run[-1][1] - run[0][1])
        while run and run[0][0] - grid[-1][0] < _SHORTEST_BEAT * period_s:
            run = run[1:]  # noqa: PLW2901
        if len(run) < 2:
            continue
        first = grid[-1][1] + max(1, round((run[0][0] - grid[-1][0]) / period_s))
        grid += [(at_s, first + number - run[0][1]) for at_s, number in run]
    return TempoMap.through(grid)


def _runs(decisions: Iterable[Decision], start_s: float) -> list[list[tuple[float, int]]]:
    """Return stretches of one pulse, each as some of its beats with their numbers."""
    runs: list[list[tuple[float, int]]] = []
    gone_by = [(d.begin_s, d.tempo_bpm, d.pulse.got) for d in decisions if d.pulse is not None and d.tempo_bpm is not None]
    for begin_s, tempo_bpm, got in sorted(gone_by):
        period_s = 60 / tempo_bpm
        at_s = begin_s - start_s - got * period_s
        if at_s < 0:
            continue
        if runs:
            before_s, number = runs[-1][-1]
            beats = round((at_s - before_s) / period_s)
            fits = abs(at_s - before_s - beats * period_s) <= _OFF_BEAT * period_s * max(1.0, beats / _APART_BEATS)
            if fits and beats <= _FAR_BEATS:
                if beats >= _APART_BEATS:
                    runs[-1].append((at_s, number + beats))
                continue
        runs.append([(at_s, 0)])
    return [run for run in runs if run[-1][1] >= _LEAST_BEATS]
