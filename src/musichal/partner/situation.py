"""What the player is doing now, as far as the partner's choice depends on it."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float32
from musichal.hearing.percepts import SILENCE, SOURCES, Gesture, Percept
from musichal.partner.settings import PartnerSettings
from musichal.partner.streams import contour_symbol, lately_hz, rhythm_symbol

_LEVEL_S = 1.0
_USUAL_LEVEL_S = 20.0
_FALLS_DB_PER_S = 12.0
_RATE_S = 3.0
_SAME_ONSET_S = 0.05
_MOST_GESTURES = 65
_MOST_ONSETS = 64


@dataclass(frozen=True)
class Situation:
    """The player, at one moment.

    `tokens` are the tokens of the last closed gestures, oldest first, one tuple per source, `contour` the rise and fall of
    their loudness, `rhythm` the ratios of the last inter-onset intervals (see `musichal.partner.streams`); `starts_s` when
    those gestures began, `onsets_s` the onsets that end those intervals, `ended_s` when the last gesture ended. `chroma` (12,)
    is the recent chroma, zero before anything was heard; `silent_s` how long nothing audible has been heard. `level_db` is how
    much louder the player is than usual, `onset_rate_hz` how many onsets a second came lately, `pitch` the mean pitch of the
    last notes, None before there are any. `heard` counts gestures and onsets.
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

    @property
    def room_db(self) -> float:
        """Return what there is to go against: the player's level, which falls while they are silent."""
        return self.level_db - _FALLS_DB_PER_S * self.silent_s


@dataclass(frozen=True)
class _Past:
    """What of a situation changes with a gesture or an onset only; see `Situation`."""

    tokens: tuple[tuple[int, ...], tuple[int, ...]]
    contour: tuple[int, ...]
    rhythm: tuple[int, ...]
    starts_s: tuple[float, ...]
    onsets_s: tuple[float, ...]
    ended_s: float | None


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
        self._energies = np.zeros(len(SOURCES))
        self._heard_until = 0
        self._audible_until = 0
        self._audible_s = 0.0
        self._level_db = 0.0
        self._usual_level_db = 0.0
        self._count = 0
        self._past: tuple[int, int, _Past] | None = None

    def hear(self, percept: Percept, settings: PartnerSettings) -> None:
        """Take the next percept."""
        heard = percept.heard
        end = heard.start_sample + heard.length_samples
        audible = heard.audible.any(axis=0)
        # Each frame's chroma fades with its age at the end of the segment; silence adds nothing, so the last harmony stays.
        age_s = (end - heard.frame_samples) / self._rate_hz
        weight = np.where(audible, np.exp(-age_s / settings.chroma_s), 0).astype(np.float32)
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

    @property
    def chroma(self) -> Float32:
        """The recent chroma, shape (12,)."""
        return self._chroma.copy()

    def silent_since(self, time_s: float) -> None:
        """Learn that what has been heard since a time was not the player."""
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

    def at(self, now_s: float, settings: PartnerSettings, *, pitch: float | None = None) -> Situation:
        """Return the situation at a time, in seconds of the stream, with the player's `pitch`."""
        past = self._past_of(settings.memory_gestures)
        return Situation(
            now_s=now_s,
            tokens=past.tokens,
            chroma=self._chroma.copy(),
            silent_s=max(0.0, now_s - self._audible_until / self._rate_hz),
            contour=past.contour,
            rhythm=past.rhythm,
            starts_s=past.starts_s,
            onsets_s=past.onsets_s,
            ended_s=past.ended_s,
            level_db=self._level_db - self._usual_level_db,
            onset_rate_hz=lately_hz(self._struck_s, now_s, window_s=_RATE_S) if now_s > 0 else None,
            heard=self._count,
            harmonic_share=self._harmonic_share(),
            pitch=pitch,
        )

    def _past_of(self, kept: int) -> _Past:
        """Return the player's last gestures and onsets: they are asked for more often than new ones come."""
        if self._past is None or self._past[:2] != (self._count, kept):
            last = tuple(self._gestures)[-kept:]
            past = _Past(
                tokens=(tuple(g.tokens[0] for g in last), tuple(g.tokens[1] for g in last)),
                contour=tuple(self._contour)[-kept:],
                rhythm=tuple(self._rhythm)[-kept:],
                starts_s=tuple(g.start_s for g in last),
                onsets_s=tuple(self._onsets_s)[-kept:],
                ended_s=last[-1].start_s + last[-1].duration_s if last else None,
            )
            self._past = self._count, kept, past
        return self._past[2]

    def _harmonic_share(self) -> float:
        total = float(self._energies.sum())
        return min(1.0, 2 * float(self._energies[0]) / total) if total > 0 else 1.0
