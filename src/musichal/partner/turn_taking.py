"""One turn: what the partner may do at one moment, with which settings, and what it has in mind.

Turn-taking: when the partner speaks, in phrases with beginnings and ends, and when and how long it is silent on purpose.

Lengths of phrases and breaths are drawn from the recordings' own (`musichal.partner.phrases`), times what the mode says. A
turn is either to speak, or to rest for a reason, with how long that is meant to last where it is known. A rest is a decision
like any other: it is never a failure to decide.

An answer that goes back over the player's phrase keeps that phrase's rhythm: each of its gestures begins where one of the
player's notes did, as much later as the answer is behind. So what was dense comes back dense, and what was held is held.
"""

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

import numpy as np

from musichal.partner.modes import Mode
from musichal.partner.phrases import PhraseMap
from musichal.partner.player import PlayerState, Situation
from musichal.partner.settings import PartnerSettings
from musichal.partner.timing import FREE, NoteTiming


@dataclass(frozen=True)
class Step:
    """A state that is to be played, as a part of something that comes back, and what that is in words."""

    state: int
    transposition: int
    words: str


@dataclass(frozen=True)
class Turn:
    """What the partner may do now.

    `situation` is what it answers to: the present, or a moment of the player's phrase that it goes back over. `rest` is the
    reason not to play, one of `musichal.partner.decision.REST_REASONS`; `expected_s` how long that is expected to last, where
    that is known, and `again_s` when to look again if nothing happens before. A rest that `keeps_phrase` is one inside a
    phrase. `mode` is the name of the mode that `settings` come from.

    Of a turn to play: `phrase` counts the partner's phrases, and this state `begins` it or should `close` it; `step` is what
    must be played; `gain_db` what form and fade make it louder; `answers` the stretch of the player's past that it answers, and
    `recall` the moment of that which it goes back to now, as it was; `timing` how its notes move in time.
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
    step: Step | None = None
    gain_db: float = 0.0
    recall: Situation | None = None
    answers: tuple[float, float] | None = None
    timing: NoteTiming = FREE


_SHORTEST_ANSWER_S, _LONGEST_ANSWER_S = 1.0, 12.0
_LONGEST_BREATH_S = 6.0
_OVERTIME = 1.25  # A phrase may last so much longer than meant, to end where its recording ends one.
_IMPATIENT = 1.3  # After so many times its patience it comes in at any moment.
_BREATHING = 0.1  # Evidence of an end that is enough to come in where the player never stops.
_UNSTRUCK_S, _UNSTRUCK_INTERVALS = 1.2, 4.0  # A player who sounds but strikes nothing for so long is followed anyway.
_ONSETS = 512
_FLAM_S = 0.08  # Strokes that are nearer together are one.


@dataclass(frozen=True)
class Floor:
    """Whether to speak now.

    Of a turn to speak: whether a phrase `begins` with it, whether it should `close` (the phrase is as long as it was meant to
    be), and which stretch of the player's past it `answers`, with how much of the phrase is over by now (`progress`, 0 to 1).
    Of an answer in the player's rhythm, `strikes` says that what begins now is one of their strokes, and `until_s` when the
    next one is due.
    Of a rest: why, how long it is expected to last, and when to look again if nothing happens before; None where only the
    player can end it.
    """

    speaks: bool
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
    """Takes turns with the player.

    Parameters
    ----------
    phrases : PhraseMap
        The recordings' phrases.
    rng : numpy.random.Generator
        For the lengths of phrases and breaths.
    """

    def __init__(self, phrases: PhraseMap, *, rng: np.random.Generator) -> None:
        self._phrases = phrases
        self._rng = rng
        self._phrase: _Phrase | None = None
        self._last_state: int | None = None
        self._breath_until_s = 0.0
        self._ended_s: float | None = None
        self._answered_s: float | None = None  # start of the player's phrase that was answered last
        self._onset_s: float | None = None
        self._onsets_s: deque[float] = deque(maxlen=_ONSETS)
        self._strokes = 0  # of the phrase, that were played
        self._struck_s: float | None = None
        self._phrases_ended = 0

    @property
    def phrases_ended(self) -> int:
        """How many phrases it has ended."""
        return self._phrases_ended

    @property
    def speaking(self) -> bool:
        """Whether a phrase is under way."""
        return self._phrase is not None

    def hear_onset(self, onset_s: float) -> None:
        """Take an onset of the player."""
        if not self._onsets_s or onset_s > self._onsets_s[-1]:
            self._onsets_s.append(onset_s)
        self._onset_s = onset_s if self._onset_s is None else max(self._onset_s, onset_s)

    def spoke(self, state: int, now_s: float = -math.inf) -> None:
        """Learn which state of memory was spoken with the last turn, and when."""
        self._last_state = state
        if self._phrase is not None:
            self._strokes = max(self._strokes, self._phrase.struck(now_s))
        self._struck_s = self._onset_s

    def shared(self) -> None:
        """Let what was spoken last answer the latest onset too."""
        self._struck_s = self._onset_s

    def end_phrase(self, now_s: float, mode: Mode, *, fullness: float = 1.0) -> None:
        """End the phrase, if there is one, and breathe."""
        if self._phrase is not None:
            self._phrases_ended += 1
            self._breathe(now_s, mode, fullness)
        self._phrase, self._last_state = None, None

    def begin_anew(self) -> None:
        """Forget the present phrase and breath: the next turn begins a phrase."""
        self._phrase, self._last_state = None, None
        self._breath_until_s = 0.0
        self._answered_s = None

    def floor(
        self,
        now_s: float,
        mode: Mode,
        player: PlayerState,
        *,
        silent_s: float,
        rest_after_silence_s: float,
        fullness: float = 1.0,
    ) -> Floor:
        """Return whose turn it is at a time.

        Parameters
        ----------
        now_s : float
        mode : Mode
        player : PlayerState
        silent_s : float
            How long nothing audible has been heard.
        rest_after_silence_s : float
            How long it plays on while the player is silent.
        fullness : float
            Makes phrases longer and breaths shorter by this factor.
        """
        if mode.turn == "rest":
            self.end_phrase(now_s, mode)
            return Floor(False, rest="on purpose")
        if self._phrase is not None and self._is_over(now_s):
            self.end_phrase(now_s, mode, fullness=fullness)
        if not player.heard and mode.turn != "own":
            return Floor(False, rest="waiting")
        if mode.trigger == "onset" and self._onset_s is not None:
            # The light path tells of an onset before the segment with its sound has been heard.
            silent_s = min(silent_s, max(0.0, now_s - self._onset_s))
        if silent_s > rest_after_silence_s:
            self.end_phrase(now_s, mode, fullness=fullness)
            return Floor(False, rest="silence")
        if mode.turn == "answer":
            return self._answer(now_s, mode, player, fullness)
        if self._phrase is None:
            return self._beginning(now_s, mode, player, fullness)
        return self._going_on(now_s, mode, player)

    def _going_on(self, now_s: float, mode: Mode, player: PlayerState) -> Floor:
        assert self._phrase is not None
        if mode.trigger == "onset" and not self._struck(now_s, player):
            return Floor(False, rest="next note", expected_s=player.ioi_s)
        over = self._phrase.over(now_s)
        strikes = self._phrase.struck(now_s) > self._strokes
        until_s = next((s for s in self._phrase.strikes_s if s > now_s + 1e-6), None)
        if until_s is not None and not strikes and until_s - now_s <= _UNSTRUCK_S:
            return Floor(False, rest="next note", expected_s=until_s - now_s, again_s=until_s)
        return Floor(
            True,
            closes=over >= 1,
            answers=self._phrase.answers,
            progress=min(1.0, over),
            strikes=strikes,
            until_s=until_s,
        )

    def _beginning(self, now_s: float, mode: Mode, player: PlayerState, fullness: float) -> Floor:
        if now_s < self._breath_until_s:
            return Floor(False, rest="breath", expected_s=self._breath_until_s - now_s, again_s=self._breath_until_s)
        if mode.trigger == "onset" and not self._struck(now_s, player):
            return Floor(False, rest="next note", expected_s=player.ioi_s)
        if mode.trigger == "phrase end" and player.kind == "playing" and not self._out_of_patience(now_s, mode, player):
            return Floor(False, rest="listening")
        if math.isinf(mode.phrase):
            return self._begin(now_s, math.inf)
        return self._begin(now_s, self._phrases.draw_length_s(self._rng, factor=mode.phrase * fullness))

    def _answer(self, now_s: float, mode: Mode, player: PlayerState, fullness: float) -> Floor:
        if self._phrase is not None:
            if self._phrase.yields and player.kind == "playing":
                self.end_phrase(now_s, mode, fullness=fullness)
                return Floor(False, rest="yields")
            return self._going_on(now_s, mode, player)
        start_s, end_s = player.phrase_start_s, player.phrase_end_s
        assert start_s is not None and end_s is not None
        impatient = player.kind == "playing" and self._out_of_patience(now_s, mode, player)
        if player.kind != "ended" and not impatient:
            return Floor(False, rest="listening")
        if player.kind == "ended" and self._answered_s is not None and start_s <= self._answered_s:
            return Floor(False, rest="your turn")
        if player.kind == "ended":
            # It breathes in before it answers, from the moment when the end was heard.
            if self._breath_until_s < player.since_s:
                self._breathe(player.since_s, mode, fullness)
            if now_s < self._breath_until_s:
                return Floor(False, rest="breath", expected_s=self._breath_until_s - now_s, again_s=self._breath_until_s)
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
        return self._begin(now_s, length_s, answers=(start_s, max(start_s, end_s)), yields=not impatient, recall=mode.recall)

    def _begin(
        self,
        now_s: float,
        length_s: float,
        *,
        answers: tuple[float, float] | None = None,
        yields: bool = False,
        recall: float = 0.0,
    ) -> Floor:
        length_s = max(0.05, length_s)
        strikes_s = () if answers is None else self._strikes_s(now_s, length_s, answers, recall)
        self._phrase = _Phrase(now_s, length_s, answers, yields, strikes_s)
        # A stroke that is all but due is what it begins with.
        self._strokes = bisect_right(strikes_s, now_s + _FLAM_S)
        until_s = strikes_s[self._strokes] if self._strokes < len(strikes_s) else None
        return Floor(True, begins=True, answers=answers, strikes=self._strokes > 0, until_s=until_s)

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
