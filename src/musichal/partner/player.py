"""What the player is doing now, and whether their phrase goes on, pauses or has ended; heard causally.

A phrase has ended when two things agree: nothing new has come for longer than the player's pace suggests (the gap, as a
multiple of their recent inter-onset intervals), and what came last has died away (silence, or a level well below the peak
of the last event). Gap and change as evidence of a boundary are from Cambouropoulos (The Local Boundary Detection Model, ICMC
2001); here the boundary is waited for. Either alone is not enough: a held note is no end, however long, and neither is
the silence inside a staccato.

New is an onset, or another token in another harmony: a legato run and a drum roll have few onsets that can be told apart,
but their sound goes on changing, or stays loud.

Conventions
-----------
Times are seconds of the input stream. Levels are in dBFS. While a segment is incomplete, its level counts for nothing, and
onsets count from the moment that they are decided.
"""

from collections import deque
from collections.abc import Reversible, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from musichal.arrays import AnyArray, Float32, Float64, Int16, rounded
from musichal.hearing.percepts import SILENCE, SILENT_DB, SOURCES, Gesture, Percept
from musichal.partner.harmony import unit_chroma
from musichal.partner.likeness import pasts
from musichal.partner.settings import PartnerSettings
from musichal.partner.sounds import SOUNDS_S
from musichal.partner.symbols import contour_symbol, rhythm_symbol

_LEVEL_S = 1.0
_USUAL_LEVEL_S = 20.0
_FALLS_DB_PER_S = 12.0
_RATE_S = 3.0
_RATE_GAP_S, _LEAST_RATE_SPAN_S = 1.2, 1.0
_SAME_ONSET_S = 0.05
_MOST_GESTURES = 65
_MOST_ONSETS = 64
# A gap speaks for an end between so many times the usual interval between onsets: a quantile of the last ones, within limits.
_GAP_FROM, _GAP_FULL = 1.25, 3.0
_USUAL_QUANTILE, _INTERVALS = 0.8, 16
_SHORTEST_USUAL_S, _LONGEST_USUAL_S = 0.12, 0.6
# A level speaks for it between so many dB below the peak of the last event. The product of both is the evidence.
_DROP_FROM_DB, _DROP_FULL_DB = 4.0, 12.0
_PAUSING, _ENDED = 0.25, 0.75  # evidence of a pause, and of an end
_LEAST_GAP_S = 0.3
_SAME_HARMONY = 0.8  # a token is new with a chroma whose cosine to the one before is below
_RECENT_S = 3.0  # for onset rate and level


@dataclass(frozen=True)
class Situation:
    """The player, at one moment.

    `tokens` are the tokens of the last closed gestures, oldest first, one tuple per source, `contour` the rise and fall of
    their loudness, `rhythm` the ratios of the last inter-onset intervals (see `musichal.partner.memory_pool`); `starts_s` when
    those gestures began, `onsets_s` the onsets that end those intervals, `ended_s` when the last gesture ended. `chroma` (12,)
    is the recent chroma, zero before anything was heard, `sounds` (v,) the recent harmonic tokens (see
    `musichal.partner.sounds`); `silent_s` how long nothing audible has been heard. `level_db` is how
    much louder the player is than usual, `onset_rate_hz` how many onsets a second came lately, `pitch` the mean pitch of the
    last notes, None before there are any. `heard` counts gestures and onsets. `past` is the player's at the end of the last
    gesture (see `musichal.partner.likeness`), and `last_chroma` (12,) of that gesture. `expected` (12,) is the harmony that is
    expected to sound next, None where nothing is.
    """

    now_s: float
    tokens: tuple[tuple[int, ...], tuple[int, ...]]
    chroma: Float32
    silent_s: float
    contour: tuple[int, ...] = ()
    rhythm: tuple[int, ...] = ()
    starts_s: tuple[float, ...] = ()
    onsets_s: tuple[float, ...] = ()
    ended_s: float | None = None
    level_db: float = 0.0
    onset_rate_hz: float | None = None
    heard: int = 0
    harmonic_share: float = 1.0
    pitch: float | None = None
    past: AnyArray | None = None
    last_chroma: AnyArray | None = None
    sounds: Float64 = field(default_factory=lambda: np.zeros(1))
    expected: Float64 | None = None

    @property
    def harmony(self) -> AnyArray:
        """Return the harmony to fit: the one expected, else the one that sounds."""
        return self.chroma if self.expected is None else self.expected

    @property
    def room_db(self) -> float:
        """Return what there is to go against: the player's level, which falls while they are silent."""
        return self.level_db - _FALLS_DB_PER_S * self.silent_s


class SituationTracker:
    """Follows the player percept by percept."""

    def __init__(self, *, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._gestures: deque[Gesture] = deque(maxlen=_MOST_GESTURES)
        self._contour: deque[int] = deque(maxlen=_MOST_GESTURES)
        self._rhythm: deque[int] = deque(maxlen=_MOST_ONSETS)
        self._onsets_s: deque[float] = deque(maxlen=_MOST_ONSETS)
        self._struck_s: deque[float] = deque(maxlen=_MOST_ONSETS)
        self._previous: Gesture | None = None
        self._ioi_s: float | None = None
        self._chroma: Float32 = np.zeros(12, dtype=np.float32)
        self._keys: Float32 = np.zeros(12, dtype=np.float32)
        self._sounds = np.zeros(1)
        self._energies = np.zeros(len(SOURCES))
        self._heard_until = 0
        self._audible_until = 0
        self._audible_s = 0.0
        self._level_db = 0.0
        self._usual_level_db = 0.0
        self._count = 0
        self._past: tuple[int, int, dict[str, Any]] | None = None

    def hear(self, percept: Percept, settings: PartnerSettings) -> None:
        """Take the next percept."""
        self._keys[:] = 0
        heard = percept.heard
        end = heard.start_sample + heard.length_samples
        audible = heard.audible.any(axis=0)
        # Each frame's chroma fades with its age at the end of the segment; silence adds nothing, so the last harmony stays.
        age_s = (end - heard.frame_samples) / self._rate_hz
        weight = np.where(audible, np.exp(-age_s / settings.chroma_s), 0).astype(np.float32)
        self._hear_sounds(percept.tokens[0], age_s, faded_s=(end - self._heard_until) / self._rate_hz)
        if audible.any():
            fade = np.float32(np.exp(-(end - self._heard_until) / self._rate_hz / settings.chroma_s))
            self._chroma = fade * self._chroma + weight @ heard.chroma
            energies = 10 ** (heard.source_level_db.astype(np.float64) / 10)
            self._energies = float(fade) * self._energies + energies @ weight.astype(np.float64)
            self._audible_until = int(heard.frame_samples[audible][-1])
            self._hear_level(float(heard.level_db[audible].mean()), heard.length_samples / self._rate_hz)
        self._heard_until = end
        for sample in heard.onset_samples:
            self._struck_s.append(sample / self._rate_hz)
            if not self._onsets_s or sample / self._rate_hz > self._onsets_s[-1] + _SAME_ONSET_S:
                self._hear_onset(sample / self._rate_hz)
        for gesture in percept.gestures:
            self._hear_gesture(gesture)

    def strike(self, pitches: Sequence[int]) -> None:
        """Take the pitches of a MIDI player at once: until the next percept they count as much as all that sounded lately."""
        self._keys += np.bincount([pitch % 12 for pitch in pitches], minlength=12).astype(np.float32)

    def _hear_sounds(self, tokens: Int16, age_s: Float64, *, faded_s: float) -> None:
        """Take harmonic tokens (n,) into the recent sounds; silence adds nothing, so the last sounds stay."""
        sounding = tokens != SILENCE
        if not sounding.any():
            return
        new = np.bincount(tokens[sounding], np.exp(-age_s[sounding] / SOUNDS_S), minlength=len(self._sounds))
        new[: len(self._sounds)] += self._sounds * np.exp(-faded_s / SOUNDS_S)
        self._sounds = rounded(np.asarray(new, dtype=np.float64))

    @property
    def chroma(self) -> Float32:
        """The recent chroma, shape (12,)."""
        if not self._keys.any():
            return self._chroma.copy()
        struck = float(np.linalg.norm(self._keys))
        return self._chroma + self._keys * np.float32((float(np.linalg.norm(self._chroma)) or 1.0) / struck)

    def silent_since(self, time_s: float) -> None:
        """Count the player as silent since a time: what was heard then was not theirs."""
        self._audible_until = min(self._audible_until, round(time_s * self._rate_hz))

    def _hear_level(self, level_db: float, duration_s: float) -> None:
        """Follow the level of what is audible, quickly and slowly; both are means at first."""
        self._audible_s += duration_s
        quick = max(duration_s / self._audible_s, 1 - np.exp(-duration_s / _LEVEL_S))
        slow = max(duration_s / self._audible_s, 1 - np.exp(-duration_s / _USUAL_LEVEL_S))
        self._level_db += quick * (level_db - self._level_db)
        self._usual_level_db += slow * (level_db - self._usual_level_db)

    def _hear_gesture(self, gesture: Gesture) -> None:
        silent = gesture.tokens == (SILENCE, SILENCE)
        before = self._previous
        self._previous = gesture
        before_db = gesture.level_db if before is None else before.level_db
        was_silent = before is not None and before.tokens == (SILENCE, SILENCE)
        symbol = contour_symbol(before_db, gesture.level_db, was_silent=was_silent, silent=silent)
        if silent:
            return
        self._count += 1
        self._gestures.append(gesture)
        self._contour.append(symbol)
        # Most onsets were heard at once, before the gesture that one begins was closed.
        if gesture.starts_at_onset and (not self._onsets_s or gesture.start_s > self._onsets_s[-1] + _SAME_ONSET_S):
            self._hear_onset(gesture.start_s)

    def _hear_onset(self, onset_s: float) -> None:
        ioi_s = onset_s - self._onsets_s[-1] if self._onsets_s else None
        self._rhythm.append(rhythm_symbol(self._ioi_s, ioi_s))
        self._ioi_s = ioi_s
        self._onsets_s.append(onset_s)
        self._count += 1

    def at(
        self, now_s: float, settings: PartnerSettings, *, pitch: float | None = None, expected: Float64 | None = None
    ) -> Situation:
        """Return the situation at a time, with the player's `pitch` and the harmony that is `expected`."""
        return Situation(
            now_s=now_s,
            chroma=self.chroma,
            sounds=self._sounds,
            silent_s=max(0.0, now_s - self._audible_until / self._rate_hz),
            level_db=self._level_db - self._usual_level_db,
            onset_rate_hz=lately_hz(self._struck_s, now_s, window_s=_RATE_S) if now_s > 0 else None,
            heard=self._count,
            harmonic_share=self._harmonic_share(),
            pitch=pitch,
            expected=expected,
            **self._past_of(settings.memory_gestures),
        )

    def _past_of(self, kept: int) -> dict[str, Any]:
        """Return the fields of a situation that change with a gesture or an onset only, and are asked for more often."""
        if self._past is None or self._past[:2] != (self._count, kept):
            last = tuple(self._gestures)[-kept:]
            past: dict[str, Any] = {
                "tokens": (tuple(g.tokens[0] for g in last), tuple(g.tokens[1] for g in last)),
                "contour": tuple(self._contour)[-kept:],
                "rhythm": tuple(self._rhythm)[-kept:],
                "starts_s": tuple(g.start_s for g in last),
                "onsets_s": tuple(self._onsets_s)[-kept:],
                "ended_s": last[-1].start_s + last[-1].duration_s if last else None,
            }
            if last:
                past |= {"past": self._likeness(past["ended_s"]), "last_chroma": last[-1].chroma}
            self._past = self._count, kept, past
        return self._past[2]

    def _likeness(self, ended_s: float) -> AnyArray:
        """Return the player's past, which goes further back than what is matched exactly."""
        starts_s = np.array([g.start_s for g in self._gestures])
        ends_s = starts_s + [g.duration_s for g in self._gestures]
        units = unit_chroma(np.concatenate([g.chroma for g in self._gestures]).reshape(-1, 12))
        return np.asarray(pasts(starts_s, ends_s, units, np.array([ended_s]))[0])

    def _harmonic_share(self) -> float:
        total = float(self._energies.sum())
        return min(1.0, 2 * float(self._energies[0]) / total) if total > 0 else 1.0


_UNKNOWN_INTERVAL_S = 0.5

Kind = Literal["playing", "pausing", "ended"]


@dataclass(frozen=True)
class PlayerState:
    """The player, as far as phrases go.

    `kind` has held since `since_s`. `phrase_start_s` is where the present phrase, or the last one if it has ended, began;
    `phrase_end_s` where the last thing in it was heard; None before anything was. `ending` (0 to 1) is the evidence that it
    is over. `ioi_s` is the usual interval between onsets, None before there are two; `level_db` how loud the last audible
    seconds were, and `pitch` the mean MIDI pitch of the last notes, None before there are any.
    """

    kind: Kind
    since_s: float
    phrase_start_s: float | None
    phrase_end_s: float | None
    ending: float
    onset_rate_hz: float
    ioi_s: float | None
    level_db: float
    pitch: float | None

    @property
    def heard(self) -> bool:
        """Whether anything has been heard yet."""
        return self.phrase_start_s is not None

    @property
    def phrase_s(self) -> float:
        """How long the phrase is, or was, up to the last thing that was heard of it."""
        if self.phrase_start_s is None or self.phrase_end_s is None:
            return 0.0
        return max(0.0, self.phrase_end_s - self.phrase_start_s)


class PhraseTracker:
    """Follows the player's phrases, percept by percept and onset by onset."""

    _SMOOTH_FRAMES = 5  # about 70 ms
    _PITCHES, _PITCHES_S = 12, 2.0

    def __init__(self, *, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._onsets: deque[float] = deque(maxlen=512)
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)
        self._usual_s = min(max(_UNKNOWN_INTERVAL_S, _SHORTEST_USUAL_S), _LONGEST_USUAL_S)
        self._ioi_s: float | None = None
        self._pitches: deque[tuple[float, int]] = deque(maxlen=self._PITCHES)  # (onset in s, pitch)
        self.pitch: float | None = None
        """The mean MIDI pitch of the last notes, those within a few seconds, None before there are any."""
        self._level_times_s, self._levels = np.zeros(0), np.zeros(0)  # seconds and dBFS of audible frames
        self._tail: Float32 = np.full(self._SMOOTH_FRAMES - 1, SILENT_DB, dtype=np.float32)
        self._peak_db = SILENT_DB
        self._level_db = SILENT_DB
        self._loudness_db = SILENT_DB
        self._silent_since_s: float | None = 0.0
        self._heard_until_s = 0.0
        self._new_s: float | None = None  # the last thing that was new
        self._audible_s: float | None = None
        self._tokens: tuple[int, int] | None = None
        self._chroma: Float32 = np.zeros(12, dtype=np.float32)
        self._phrase_start_s: float | None = None
        self._kind: Kind = "ended"
        self._since_s = 0.0

    def hear_onset(self, onset_s: float, now_s: float) -> None:
        """Take an onset as soon as it is decided."""
        if self._onsets and onset_s <= self._onsets[-1]:
            return
        self._update(now_s)
        if self._onsets and self._kind != "ended":
            self._intervals.append(onset_s - self._onsets[-1])
            self._follow_pace()
        self._onsets.append(onset_s)
        self._something_new(onset_s)
        # What has died away is measured from this event's own peak, which is not heard yet.
        self._peak_db = SILENT_DB
        self._update(now_s)

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the next percept; onsets in it that are known already do not count twice."""
        self._update(now_s)
        for sample in percept.heard.onset_samples:
            self.hear_onset(sample / self._rate_hz, now_s)
        self._hear_levels(percept)
        if percept.heard.notes:
            self._pitches.extend((note.onset_s, note.pitch) for note in percept.heard.notes)
            from_s = max(onset_s for onset_s, _ in self._pitches) - self._PITCHES_S
            lately = [pitch for onset_s, pitch in self._pitches if onset_s >= from_s]
            self.pitch = sum(lately) / len(lately)
        for gesture in percept.gestures:
            if self._is_new(gesture):
                self._something_new(gesture.start_s)
                self._peak_db = min(self._peak_db, gesture.level_db)
        self._update(now_s)

    def at(self, now_s: float) -> PlayerState:
        """Return the player's state at a time that does not lie before the last thing heard."""
        self._update(now_s)
        return PlayerState(
            kind=self._kind,
            since_s=self._since_s,
            phrase_start_s=self._phrase_start_s,
            phrase_end_s=None if self._audible_s is None else max(self._audible_s, self._new_s or 0.0),
            ending=self._ending(now_s),
            onset_rate_hz=lately_hz(self._onsets, now_s, window_s=_RECENT_S),
            ioi_s=self._ioi_s,
            level_db=self._loudness_db,
            pitch=self.pitch,
        )

    def _is_new(self, gesture: Gesture) -> bool:
        """Return whether a gesture is another sound in another harmony; the tail of a chord is not."""
        novel = gesture.tokens not in (self._tokens, (SILENCE, SILENCE))
        size = float(np.linalg.norm(gesture.chroma)) * float(np.linalg.norm(self._chroma))
        moved = size <= 0 or float(gesture.chroma @ self._chroma) < _SAME_HARMONY * size
        self._tokens, self._chroma = gesture.tokens, gesture.chroma
        return novel and moved

    def _follow_pace(self) -> None:
        """Update the usual interval and the median."""
        ordered = sorted(self._intervals)
        self._usual_s = min(max(_quantile(ordered, _USUAL_QUANTILE), _SHORTEST_USUAL_S), _LONGEST_USUAL_S)
        self._ioi_s = _quantile(ordered, 0.5)

    def _something_new(self, at_s: float) -> None:
        self._new_s = at_s if self._new_s is None else max(self._new_s, at_s)
        self._audible_s = at_s if self._audible_s is None else max(self._audible_s, at_s)
        if self._phrase_start_s is None or self._kind == "ended":
            # A gesture that began before the phrase's end was noticed belongs to the phrase that ended.
            if self._phrase_start_s is not None and at_s < self._since_s:
                return
            self._phrase_start_s = at_s
            self._kind, self._since_s = "playing", at_s

    def _hear_levels(self, percept: Percept) -> None:
        heard = percept.heard
        times = heard.frame_samples / self._rate_hz
        self._heard_until_s = (heard.start_sample + heard.length_samples) / self._rate_hz
        if not len(times):
            return
        audible = heard.audible.any(axis=0)
        joined = np.concatenate([self._tail, heard.level_db])
        self._tail = joined[len(joined) - self._SMOOTH_FRAMES + 1 :]
        last_onset_s = self._onsets[-1] if self._onsets else -np.inf
        since = times >= last_onset_s
        if since.any():
            self._peak_db = max(self._peak_db, float(heard.level_db[since].max()))
        self._level_db = float(joined[-self._SMOOTH_FRAMES :].mean())
        if not audible.any():
            if self._silent_since_s is None:
                self._silent_since_s = float(times[0])
            return
        last = int(np.flatnonzero(audible)[-1])
        self._silent_since_s = None if last == len(times) - 1 else float(times[last + 1])
        self._audible_s = max(self._audible_s or 0.0, float(times[last]))
        if self._phrase_start_s is None or (self._kind == "ended" and self._new_s is None):
            self._something_new(float(times[int(np.flatnonzero(audible)[0])]))
        elif self._kind == "ended" and self._level_db > self._peak_db - _DROP_FROM_DB:
            # A beginning without an attack.
            self._something_new(float(times[int(np.flatnonzero(audible)[0])]))
        first = int(self._level_times_s.searchsorted(times[last] - _RECENT_S))
        self._level_times_s = np.concatenate([self._level_times_s[first:], times[audible]])
        self._levels = np.concatenate([self._levels[first:], heard.level_db[audible]])
        power = float(np.mean(10 ** (self._levels / 10)))
        self._loudness_db = float(10 * np.log10(max(power, 1e-12)))

    def _ending(self, now_s: float) -> float:
        if self._new_s is None:
            return 1.0
        # Behind what has been heard there may be more of it: there, only onsets can be missed.
        gap_s = now_s - self._new_s
        if gap_s < _LEAST_GAP_S or self._new_s > self._heard_until_s:
            return 0.0
        gap = min(1.0, max(0.0, (gap_s / self._usual_s - _GAP_FROM) / (_GAP_FULL - _GAP_FROM)))
        if self._silent_since_s is not None:
            return gap
        drop_db = self._peak_db - self._level_db
        return gap * min(1.0, max(0.0, (drop_db - _DROP_FROM_DB) / (_DROP_FULL_DB - _DROP_FROM_DB)))

    def _update(self, now_s: float) -> None:
        if self._phrase_start_s is None:
            return
        ending = self._ending(now_s)
        kind: Kind = "playing"
        if ending >= _ENDED or (self._kind == "ended" and ending > 0):
            kind = "ended"
        elif ending >= _PAUSING:
            kind = "pausing"
        if kind != self._kind and not (self._kind == "ended" and kind != "playing"):
            self._kind, self._since_s = kind, now_s


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return what `numpy.quantile` does, to the last bit, of a few numbers in order, twenty times as fast."""
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 1)
    low, high, part = ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


def lately_hz(times_s: Reversible[float], now_s: float, *, window_s: float) -> float:
    """Return the recent rate of some times, which are in order.

    Only times after the last gap count, and none further back than `window_s`. While nothing comes, the rate falls.
    """
    count, first_s, last_s = 0, now_s, now_s
    for time_s in reversed(times_s):
        if time_s > now_s:
            continue
        if count and first_s - time_s > _RATE_GAP_S:
            break
        if now_s - time_s > window_s:
            # They have gone on for longer than the window is.
            first_s = now_s - window_s if count else first_s
            break
        last_s = last_s if count else time_s
        count, first_s = count + 1, time_s
    if not count:
        return 0.0
    span_s = max(_LEAST_RATE_SPAN_S, now_s - first_s)
    return min(count / span_s, 1 / max(_LEAST_RATE_SPAN_S, now_s - last_s)) if now_s - last_s > _RATE_GAP_S else count / span_s
