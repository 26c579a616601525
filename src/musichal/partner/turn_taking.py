"""Turn-taking: when the partner plays, in phrases with beginnings and ends, and when and how long it rests on purpose.

Lengths of phrases and breaths are drawn from those of the recordings (`musichal.partner.phrases`), times what the mode says. A
turn is either to play, or to rest for a reason, with the expected length of the rest where it is known.

An answer that goes back over the player's phrase keeps its rhythm: each of its states begins where a note of the player did,
as much later as the answer is behind.
"""

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from musichal.partner.modes import Mode
from musichal.partner.phrases import PhraseMap
from musichal.partner.player import PlayerState, Situation
from musichal.partner.room_pulse import NO_PULSE, RoomPulse
from musichal.partner.settings import PartnerSettings
from musichal.partner.timing import FREE, NoteTiming
from musichal.pulse import Pulse


@dataclass(frozen=True)
class ReturnStep:
    """The state that a motif's return plays next, what returns in words, and whether the performer `asked` for it."""

    state: int
    transposition: int
    words: str
    asked: bool


@dataclass(frozen=True)
class Turn:
    """What the partner may do at one moment, and how.

    `situation` is what it answers: the present, or a moment of the player's phrase that it goes back over (`recall`). `rest`
    is why it does not play, one of `musichal.partner.decision.REST_REASONS`; `expected_s` how long that may last, `again_s`
    when to look again if nothing happens before; a rest that `keeps_phrase` lies inside a phrase. `mode` names where `settings`
    come from.

    `phrase` counts the partner's phrases; this turn `begins` one or should `close` it. `step` is a state that must be played;
    `gain_db` what the form adds; `answers` the span of the player's past that is answered; `timing` how notes move in time.
    `room` is the pulse in the room; with one, choices are decided `ahead_s` before they begin.
    """

    settings: PartnerSettings
    situation: Situation
    rest: str | None = None
    expected_s: float | None = None
    again_s: float | None = None
    keeps_phrase: bool = False
    mode: str = ""
    phrase: int = 0
    begins: bool = False
    closes: bool = False
    step: ReturnStep | None = None
    gain_db: float = 0.0
    recall: Situation | None = None
    answers: tuple[float, float] | None = None
    timing: NoteTiming = FREE
    room: RoomPulse = NO_PULSE
    ahead_s: float = 0.0


_SHORTEST_ANSWER_S, _LONGEST_ANSWER_S = 1.0, 12.0
_LONGEST_BREATH_S = 6.0
_OVERTIME = 1.25  # A phrase may last so much longer than meant, to end where its recording ends one.
_IMPATIENT = 1.3  # After so many times its patience it comes in at any moment.
_BREATHING = 0.1  # Evidence of an end that is enough to come in where the player never stops.
_UNSTRUCK_S, _UNSTRUCK_INTERVALS = 1.2, 4.0  # A player who sounds but strikes nothing for so long is followed anyway.
_ONSETS = 512
_FLAM_S = 0.08  # Strokes that are nearer together are one.
_MISSED_BEATS = 0.25  # A beat that went by so long ago, while there was another reason to rest, is not gone by.
_LATE_BEATS = 0.06  # A phrase that could begin so soon after a beat begins on it.
_SAME_PACE = 1.25  # An answer that is to last so nearly as long as what it answers lasts as long, to be in its time.


@dataclass(frozen=True)
class Metre:
    """The beats on which phrases begin and end: those of a `pulse`, each later by the part `offset` of a beat."""

    pulse: Pulse
    offset: float = 0.0

    def from_s(self, time_s: float | None) -> "Metre":
        """Return the metre with its beats moved so that one falls at a time, or unmoved for None."""
        return self if time_s is None else Metre(replace(self.pulse, beat_s=time_s))

    def next_s(self, time_s: float) -> float:
        """Return the first beat that is not before a time, or all but."""
        moved_s = self.offset * self.pulse.period_s
        return self.pulse.next_s(time_s - moved_s - _LATE_BEATS * self.pulse.period_s) + moved_s

    def whole_s(self, duration_s: float) -> float:
        """Return a duration in whole beats, at least one."""
        return max(1, round(duration_s / self.pulse.period_s)) * self.pulse.period_s


@dataclass(frozen=True)
class TurnState:
    """Whose turn it is: to play, or to rest for a reason.

    To play: a phrase `begins` or should `close`; it `answers` a span of the player's past, and `progress` (0 to 1) of the
    phrase is over. Where the answer keeps the player's rhythm, `strikes` says that what begins now is one of their strokes,
    and `until_s` when the next one is due. To rest: why, how long it may last, and when to look again.
    """

    begins: bool = False
    closes: bool = False
    answers: tuple[float, float] | None = None
    progress: float = 0.0
    strikes: bool = False
    until_s: float | None = None
    rest: str | None = None
    expected_s: float | None = None
    again_s: float | None = None


@dataclass
class _Phrase:
    start_s: float
    length_s: float
    answers: tuple[float, float] | None
    yields: bool
    strikes_s: tuple[float, ...] = ()

    def struck(self, now_s: float) -> int:
        """Return how many of its strokes are due by now."""
        return bisect_right(self.strikes_s, now_s + 1e-6)

    def over(self, now_s: float) -> float:
        return (now_s - self.start_s) / self.length_s


class TurnTaker:
    """Takes turns with the player; `rng` draws the lengths of phrases and breaths."""

    def __init__(self, phrases: PhraseMap, *, rng: np.random.Generator) -> None:
        self._phrases = phrases
        self._rng = rng
        self._phrase: _Phrase | None = None
        self._last_state: int | None = None
        self._begins_s: float | None = None  # the beat that is waited for
        self._breath_until_s = 0.0
        self._ended_s: float | None = None
        self._answered_s: float | None = None  # start of the player's phrase that was answered last
        self._onset_s: float | None = None
        self._onsets_s: deque[float] = deque(maxlen=_ONSETS)
        self._strokes = 0  # of the phrase, that were played
        self._struck_s: float | None = None
        self.phrases_ended = 0

    @property
    def speaking(self) -> bool:
        """Whether a phrase is under way."""
        return self._phrase is not None

    def hear_onset(self, onset_s: float) -> None:
        """Take an onset of the player."""
        if not self._onsets_s or onset_s > self._onsets_s[-1]:
            self._onsets_s.append(onset_s)
        self._onset_s = onset_s if self._onset_s is None else max(self._onset_s, onset_s)

    def played(self, state: int, now_s: float = -math.inf) -> None:
        """Take the state that was played."""
        self._last_state = state
        if self._phrase is not None:
            self._strokes = max(self._strokes, self._phrase.struck(now_s))
        self._struck_s = self._onset_s

    def answered(self) -> None:
        """Count the latest onset as answered by what was played last."""
        self._struck_s = self._onset_s

    def end_phrase(self, now_s: float, mode: Mode, *, fullness: float = 1.0) -> None:
        """End the phrase, if there is one, and breathe."""
        if self._phrase is not None:
            self.phrases_ended += 1
            self._breathe(now_s, mode, fullness)
        self._phrase, self._last_state = None, None

    def begin_anew(self) -> None:
        """Forget the present phrase and breath: the next turn begins a phrase."""
        self._phrase, self._last_state = None, None
        self._breath_until_s = 0.0
        self._answered_s = None

    def at(
        self, now_s: float, mode: Mode, player: PlayerState, *, silent_s: float, rest_after_silence_s: float,
        fullness: float = 1.0, metre: Metre | None = None,
    ) -> TurnState:  # fmt: skip
        """Return whose turn it is at the time at which what is decided begins.

        `fullness` makes phrases longer and breaths shorter by this factor. With a `metre`, phrases begin on its beats and last
        whole beats.
        """
        if mode.turn == "rest":
            self.end_phrase(now_s, mode)
            return TurnState(rest="on purpose")
        if self._phrase is not None and self._is_over(now_s):
            self.end_phrase(now_s, mode, fullness=fullness)
        if not player.heard and mode.turn != "own":
            return TurnState(rest="waiting")
        if mode.trigger == "onset" and self._onset_s is not None:
            # The light path tells of an onset before the segment with its sound has been heard.
            silent_s = min(silent_s, max(0.0, now_s - self._onset_s))
        if silent_s > rest_after_silence_s:
            self.end_phrase(now_s, mode, fullness=fullness)
            return TurnState(rest="silence")
        if mode.turn == "answer":
            return self._answer(now_s, mode, player, fullness, metre)
        if self._phrase is None:
            return self._beginning(now_s, mode, player, fullness, metre)
        return self._going_on(now_s, mode, player)

    def _going_on(self, now_s: float, mode: Mode, player: PlayerState) -> TurnState:
        assert self._phrase is not None
        if mode.trigger == "onset" and not self._struck(now_s, player):
            return TurnState(rest="next note", expected_s=player.ioi_s)
        over = self._phrase.over(now_s)
        strikes = self._phrase.struck(now_s) > self._strokes
        until_s = next((s for s in self._phrase.strikes_s if s > now_s + 1e-6), None)
        if until_s is not None and not strikes and until_s - now_s <= _UNSTRUCK_S:
            return TurnState(rest="next note", expected_s=until_s - now_s, again_s=until_s)
        answers, progress = self._phrase.answers, min(1.0, over)
        return TurnState(closes=over >= 1, answers=answers, progress=progress, strikes=strikes, until_s=until_s)

    def _beginning(
        self, now_s: float, mode: Mode, player: PlayerState, fullness: float, metre: Metre | None
    ) -> TurnState:  # fmt: skip
        if now_s < self._breath_until_s:
            return TurnState(rest="breath", expected_s=self._breath_until_s - now_s, again_s=self._breath_until_s)
        if mode.trigger == "onset" and not self._struck(now_s, player):
            return TurnState(rest="next note", expected_s=player.ioi_s)
        if mode.trigger == "phrase end" and player.kind == "playing" and not self._out_of_patience(now_s, mode, player):
            return TurnState(rest="listening")
        if mode.trigger != "onset" and (waits := self._on_beat(now_s, metre)) is not None:
            return waits
        if math.isinf(mode.phrase):
            return self._begin(now_s, math.inf)
        length_s = self._phrases.draw_length_s(self._rng, factor=mode.phrase * fullness)
        return self._begin(now_s, length_s if metre is None else metre.whole_s(length_s))

    def _answer(
        self, now_s: float, mode: Mode, player: PlayerState, fullness: float, metre: Metre | None
    ) -> TurnState:  # fmt: skip
        if self._phrase is not None:
            if self._phrase.yields and player.kind == "playing":
                self.end_phrase(now_s, mode, fullness=fullness)
                return TurnState(rest="yields")
            return self._going_on(now_s, mode, player)
        start_s, end_s = player.phrase_start_s, player.phrase_end_s
        assert start_s is not None and end_s is not None
        impatient = player.kind == "playing" and self._out_of_patience(now_s, mode, player)
        if player.kind != "ended" and not impatient:
            return TurnState(rest="listening")
        if player.kind == "ended" and self._answered_s is not None and start_s <= self._answered_s:
            return TurnState(rest="your turn")
        if player.kind == "ended":
            # It breathes in before it answers, from the moment when the end was heard.
            if self._breath_until_s < player.since_s:
                self._breathe(player.since_s, mode, fullness)
            if now_s < self._breath_until_s:
                return TurnState(rest="breath", expected_s=self._breath_until_s - now_s, again_s=self._breath_until_s)
        # In time: whole beats after the player struck what it goes back over, or on a beat.
        anchor_s = max(start_s, end_s - _LONGEST_ANSWER_S) if mode.recall else None
        return self._on_beat(now_s, None if metre is None else metre.from_s(anchor_s)) or self._take_up(
            now_s, mode, start_s, end_s, impatient=impatient, fullness=fullness, metre=metre
        )

    def _take_up(
        self, now_s: float, mode: Mode, start_s: float, end_s: float, *, impatient: bool, fullness: float, metre: Metre | None
    ) -> TurnState:
        """Begin to answer the player's phrase from `start_s` to `end_s`, or, `impatient`, the last of what goes on."""
        if impatient:
            # The player goes on: what it answers is the last of it, and a phrase of its own is long enough.
            length_s = _answer_length_s(self._phrases.draw_length_s(self._rng, factor=mode.phrase * fullness))
            self._answered_s = max(start_s, self._ended_s or 0.0, now_s - mode.patience_s * _IMPATIENT)
            # As much of that as it has time for at the pace at which it was played.
            start_s = max(self._answered_s, end_s - length_s)
        else:
            self._answered_s = start_s
            length_s = _answer_length_s(max(0.0, end_s - start_s) * mode.phrase * fullness)
            start_s = max(start_s, end_s - _LONGEST_ANSWER_S)
            if metre is not None and 1 / _SAME_PACE <= length_s / max(end_s - start_s, 1e-9) <= _SAME_PACE:
                length_s = end_s - start_s
        return self._begin(now_s, length_s, answers=(start_s, max(start_s, end_s)), yields=not impatient, recall=mode.recall)

    def _begin(
        self, now_s: float, length_s: float, *, answers: tuple[float, float] | None = None, yields: bool = False,
        recall: float = 0.0,
    ) -> TurnState:  # fmt: skip
        length_s = max(0.05, length_s)
        strikes_s = () if answers is None else self._strikes_s(now_s, length_s, answers, recall)
        self._phrase = _Phrase(now_s, length_s, answers, yields, strikes_s)
        # A stroke that is all but due is what it begins with.
        self._strokes = bisect_right(strikes_s, now_s + _FLAM_S)
        until_s = strikes_s[self._strokes] if self._strokes < len(strikes_s) else None
        return TurnState(begins=True, answers=answers, strikes=self._strokes > 0, until_s=until_s)

    def _strikes_s(self, begins_s: float, length_s: float, answers: tuple[float, float], recall: float) -> tuple[float, ...]:
        """Return when an answer strikes: where the player did in what it goes back over, which fills its whole length."""
        reach_s = recall * (answers[1] - answers[0])
        if reach_s <= 0:
            return ()
        strikes_s: list[float] = []
        for onset_s in self._onsets_s:
            if answers[1] - reach_s <= onset_s <= answers[1]:
                at_s = begins_s + length_s * (1 - (answers[1] - onset_s) / reach_s)
                if not strikes_s or at_s - strikes_s[-1] >= _FLAM_S:
                    strikes_s.append(at_s)
        return tuple(strikes_s)

    def _is_over(self, now_s: float) -> bool:
        """Return whether the phrase has been long enough, and ended as its recording ends one, or overtime."""
        assert self._phrase is not None
        over = self._phrase.over(now_s)
        ended = self._last_state is not None and self._phrases.ends_with(self._last_state)
        return over >= _OVERTIME or (over >= 1 and ended) or (over >= 0.75 and ended and self._phrase.answers is None)

    def _breathe(self, now_s: float, mode: Mode, fullness: float) -> None:
        self._ended_s = now_s
        drawn_s = self._phrases.draw_breath_s(self._rng, factor=mode.breath / fullness) if mode.breath else 0.0
        self._breath_until_s = now_s + min(drawn_s, _LONGEST_BREATH_S)

    def _on_beat(self, now_s: float, metre: Metre | None) -> TurnState | None:
        """Return the rest until the next beat, None on a beat or without a metre.

        The beat that is waited for stays, however the pulse moves meanwhile: else one could always be about to come.
        """
        if metre is None:
            self._begins_s = None
            return None
        beat_s = self._begins_s
        if beat_s is None or now_s - beat_s > _MISSED_BEATS * metre.pulse.period_s:
            beat_s = self._begins_s = metre.next_s(now_s)
        if beat_s <= now_s + 1e-6:
            self._begins_s = None
            return None
        return TurnState(rest="beat", expected_s=beat_s - now_s, again_s=beat_s)

    def _struck(self, now_s: float, player: PlayerState) -> bool:
        """Return whether the player has struck a note since the last gesture, or plays on without striking any."""
        if self._onset_s is not None and self._onset_s != self._struck_s:
            return True
        waited_s = now_s - (self._onset_s or 0.0)
        return player.kind == "playing" and waited_s > max(_UNSTRUCK_S, _UNSTRUCK_INTERVALS * (player.ioi_s or 0.0))

    def _out_of_patience(self, now_s: float, mode: Mode, player: PlayerState) -> bool:
        since_s = max(player.phrase_start_s or 0.0, self._ended_s or 0.0)
        waited_s = now_s - since_s
        breathing = player.ending >= _BREATHING or player.kind == "pausing"
        return waited_s >= mode.patience_s * _IMPATIENT or (waited_s >= mode.patience_s and breathing)


def _answer_length_s(length_s: float) -> float:
    return float(np.clip(length_s, _SHORTEST_ANSWER_S, _LONGEST_ANSWER_S))
