"""The pulse in the room: what is heard, where memory has the beat, what a clock says, and what the partner keeps up.

A pulse that was sure for some beats is held while the player rests, and let go when they play on without it. In between, the
partner goes by it in part: it fades. The record of a decision says what it went by, and why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from musichal.hearing.beats import PLACES, BeatHabit, BeatTracker, beat_part
from musichal.hearing.percepts import SILENCE, Percept
from musichal.memory.beat_places import NO_BEAT, BeatPlace, in_sure_beat
from musichal.memory.memory import Memory
from musichal.memory.ready import keepable
from musichal.partner.clocks import ClockKeeper
from musichal.partner.settings import PartnerSettings
from musichal.pulse import BeatChances, Pulse

_SURE_BEATS, _HOLD_BEATS = 8.0, 16.0  # a pulse that was sure for so long is held for so long while nothing is heard
_BINS_AN_OCTAVE = 24
_LET_GO = 0.6  # below this share of the least confidence nothing of it is left
# So many times likelier than where it is must a beat be elsewhere, by where memory is, to be moved there; and so many times
# likelier than where the tracker has it, to be left there.
_CLEARLY, _STILL = 7.0, 1.6

WhereBeats = Callable[[Pulse], BeatChances | None]
"""Returns where the beats of a pulse are likely to be by where memory is, None where that tells nothing."""


@dataclass(frozen=True)
class RoomPulse:
    """The pulse at one moment: the `pulse` (None for none), how far it is gone by (0 to 1), and why no further in words."""

    pulse: Pulse | None
    strength: float
    why: str

    def place(self, time_s: float) -> BeatPlace:
        """Return a time's place in the beat."""
        if self.pulse is None:
            return NO_BEAT
        phase = (time_s - self.pulse.beat_s) / self.pulse.period_s % 1
        return BeatPlace(phase, self.pulse.period_s, confidence=self.strength * self.pulse.confidence)


NO_PULSE = RoomPulse(None, 0.0, "")


keepable()(BeatHabit)


def beat_habit(memory: Memory) -> BeatHabit | None:
    """Return the periods of memory's beats and where in them its onsets are; None where it has no sure beat."""
    states = memory.states
    states = states[in_sure_beat(states)]
    states = states[(states["tokens"] != SILENCE).any(axis=1)]
    if not states["starts_at_onset"].any():
        return None
    octaves, lasts_s = np.log2(states["beat_period_s"].astype(np.float64)), states["duration_s"].astype(np.float64)
    _, of = np.unique(np.round(octaves * _BINS_AN_OCTAVE), return_inverse=True)
    lasted_s = np.bincount(of, lasts_s)
    periods_s = 2.0 ** (np.bincount(of, lasts_s * octaves) / lasted_s)
    phases = states["beat_phase"][states["starts_at_onset"]].astype(np.float64)
    struck = np.bincount(beat_part(phases), minlength=PLACES) / 1.0
    return BeatHabit(periods_s, lasted_s / lasted_s.sum(), struck / struck.max())


class PulseKeeper:
    """Keeps the pulse of a performance; beats of the `habit` of memory are likely beforehand."""

    def __init__(self, *, sample_rate_hz: int, habit: BeatHabit | None = None) -> None:
        self._rate_hz = sample_rate_hz
        self._tracker = BeatTracker(habit)
        self._clocks = ClockKeeper()
        self._sure_since_s: float | None = None
        self._held: tuple[Pulse, float] | None = None  # the last pulse that was sure for long, and when it was sure
        self._onset_s = 0.0
        self._pulse: Pulse | None = None
        self._later = 0  # steps by which memory has the beat later than the tracker

    def hear(self, percept: Percept, settings: PartnerSettings, where: WhereBeats | None = None) -> None:
        """Take a percept; `where` tells where the beats are by memory."""
        self._tracker.hear(percept, sample_rate_hz=self._rate_hz)
        for sample in percept.heard.onset_samples:
            self.hear_onset(sample / self._rate_hz)
        heard = percept.heard
        end_s = (heard.start_sample + heard.length_samples) / self._rate_hz
        pulse = self._pulse = self._placed(self._tracker.pulse(), where)
        if pulse is None or pulse.confidence < settings.pulse_confidence:
            self._sure_since_s = None
            return
        self._sure_since_s = end_s if self._sure_since_s is None else self._sure_since_s
        if end_s - self._sure_since_s >= _SURE_BEATS * pulse.period_s:
            self._held = pulse, end_s

    def hear_onset(self, onset_s: float) -> None:
        """Take an onset."""
        self._onset_s = max(self._onset_s, onset_s)

    @staticmethod
    def check(changes: Mapping[str, object], now_s: float) -> None:
        """Raise `InputError` for a clock or a tap that cannot be; take nothing."""
        ClockKeeper.check(changes, now_s)

    def change(self, changes: Mapping[str, object], now_s: float, settings: PartnerSettings) -> str:
        """Take clocks and taps; return a sentence for the player, or an empty text."""
        return self._clocks.change(changes, now_s, heard=self._heard(now_s, settings))

    def at(self, now_s: float, settings: PartnerSettings) -> RoomPulse:
        """Return the pulse to go by at a time; clocks and taps come before what is heard.

        Its beats lie `latency_ms` before those of the room: what is sent on them sounds on these.
        """
        if settings.time == "free":
            return RoomPulse(None, 0.0, "its time is free")
        least, heard = settings.pulse_confidence, self._heard(now_s, settings)
        given = self._clocks.at(now_s, heard=heard)
        pulse = heard if given is None or (heard is not None and given.confidence < min(least, heard.confidence)) else given
        if pulse is None:
            return RoomPulse(None, 0.0, "no pulse is heard")
        pulse = pulse.earlier(settings.latency_ms / 1000)
        if settings.time == "pulse":
            return RoomPulse(pulse, 1.0, "")
        # At 0 every pulse will do.
        share = (pulse.confidence / least - _LET_GO) / (1 - _LET_GO) if least else 1.0
        strength = min(1.0, max(0.0, share))
        why = "" if strength == 1 else f"the pulse is not sure enough ({pulse.confidence:.0%} of {least:.0%})"
        return RoomPulse(pulse if strength else None, strength, why)

    def _heard(self, now_s: float, settings: PartnerSettings) -> Pulse | None:
        """Return the pulse that is heard, or the one that is held while nothing is."""
        pulse = self._pulse
        if self._held is None or (pulse is not None and pulse.confidence >= settings.pulse_confidence):
            return pulse
        held, sure_s = self._held
        silent = now_s - self._onset_s > held.period_s
        if silent and now_s - sure_s <= _HOLD_BEATS * held.period_s:
            return held
        return pulse

    def _placed(self, pulse: Pulse | None, where: WhereBeats | None) -> Pulse | None:
        """Return a pulse with its beats where memory has them, where that is clear."""
        chances = None if pulse is None or where is None else where(pulse)
        if pulse is None or chances is None:
            self._later = 0
            return pulse
        best = chances.likeliest(pulse)
        present = chances.of(chances.later(pulse, self._later))
        if chances.of(chances.later(pulse, best)) > _CLEARLY * present:
            self._later = best
        elif present <= _STILL * chances.of(pulse):
            self._later = 0
        return chances.later(pulse, self._later)
