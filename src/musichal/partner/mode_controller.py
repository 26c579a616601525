"""The mode controller: modes, phrases, form and returns put together into one turn after the other.

It hears what the partner hears. Before each choice it says whether it is the partner's turn, with which settings, and what
to do: begin or close a phrase, go back over the player's, bring a motif back, end. What the player asks for overrides the
form, and the form overrides the partner's own change of modes.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from musichal.arrays import Bool, Float64, Int64
from musichal.errors import InputError
from musichal.hearing.percepts import Percept
from musichal.memory.beat_places import BeatPlace
from musichal.partner.form import WISHES, Form, FormCourse, Moment, parse_form
from musichal.partner.memory_pool import MemoryPool, has_beats
from musichal.partner.modes import AUTO, PLAIN, Mode, ModeKeeper, ModeTable, built_in_modes, parse_modes
from musichal.partner.phrases import MotifStore, Return, find_phrases
from musichal.partner.player import PhraseTracker, PlayerState, Situation
from musichal.partner.room_pulse import PulseKeeper, WhereBeats, beat_habit
from musichal.partner.settings import Direction, PartnerSettings
from musichal.partner.timing import BeatPlan, NoteTiming
from musichal.partner.turn_taking import Metre, ReturnStep, Turn, TurnState, TurnTaker
from musichal.pulse import Pulse
from musichal.text import unknown_name

BUTTONS = ("go_back", "more_like_this", "less_like_this", "change")
"""What the player can ask for without a value; False asks for nothing."""
_WISHES = frozenset(("mode", "region", "clock", "tap", *BUTTONS, *WISHES))

_MOMENTS = 128  # of the player's past, one for each percept
_OWN_PHRASES = 8
_PHRASE_LEARNED_S = 8.0  # longest stretch of the player's that is searched for a motif at once
_PAUSE_S = 0.5
_TASTE_S, _TASTE_STATES, _TASTE_REACH = 45.0, 24, 24
_OTHERWISE, _MORE = 0.3, "more like this"
_PHRASING, _ENDING = 0.7, 0.99  # how far what does not begin or end a phrase is held back at most
_ALSO = 16
_LAST_S = 1.5  # with less than this before the form's end, what is chosen is the last
_SHORTEST_ENDING_S = 0.3
AHEAD_S = 0.1
"""With a pulse, a choice is decided so long before it begins."""
_LISTENS_S = 3.0  # so long it listens for the pulse at the beginning
_ON_BEATS = 0.5  # with a pulse that is gone by so far, phrases begin on its beats
_REFRACTORY_S = 0.08
_RATE_FLOOR_HZ = 0.25


@dataclasses.dataclass
class _OwnPhrase:
    """A phrase of the partner's own, as it was played."""

    states: list[int] = dataclasses.field(default_factory=list)
    transpositions: list[int] = dataclasses.field(default_factory=list)
    times_s: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Taste:
    """States that the player asked for more of, or less, until a time."""

    states: Int64
    name: str
    until_s: float


class ModeController:
    """Gives turns.

    Raises `InputError` where a mode is unknown, the modes or the form are wrong, or a region is of no recording.

    * `settings`: Those that the user gave (`explicit`) hold in every mode.
    * `rng`: Draws the lengths of phrases, breaths and modes, and returns.
    * `sample_rate_hz`: Rate of the stream that percepts count in.
    * `follows_pulse`: Whether it looks for a pulse in what is heard.
    """

    def __init__(
        self,
        library: MemoryPool,
        settings: PartnerSettings,
        *,
        rng: np.random.Generator,
        sample_rate_hz: int,
        follows_pulse: bool = True,
    ) -> None:
        self._library = library
        self._rate_hz = sample_rate_hz
        self._rng = rng
        self._follows_pulse = follows_pulse
        self._by_hand = settings.given
        self._table, form = directed_by(settings.direction)
        self.course = FormCourse(form)
        for chosen in (settings, *(PartnerSettings().changed(dict(section.regions)) for section in form.sections)):
            _check_regions(chosen, library=library)
        self.keeper: ModeKeeper | None = None
        if settings.direction.mode or form.sections:
            self.keeper = ModeKeeper(self._table, settings.direction.mode or "auto", rng=rng)
            for mode in self._table.values():
                mode.applied(PartnerSettings(), self._by_hand)
        self._applied: dict[tuple[str, tuple[tuple[str, str], ...]], PartnerSettings] = {}
        self._phrase_map = library.base.memory.derived(find_phrases)
        self._player = PhraseTracker(sample_rate_hz=sample_rate_hz)
        self._taker = TurnTaker(self._phrase_map, rng=rng)
        self._pulse = PulseKeeper(sample_rate_hz=sample_rate_hz, habit=library.base.memory.derived(beat_habit))
        self._has_beats = library.base.memory.derived(has_beats)
        self._first_onset_s: float | None = None
        self._found_pulse = False
        self.news = ""
        """What the last change has to say to the player."""
        self._motifs = MotifStore(library)
        self._past: deque[tuple[float, Situation]] = deque(maxlen=_MOMENTS)
        self._said: deque[_OwnPhrase] = deque(maxlen=_OWN_PHRASES)
        self._learned: list[tuple[int, float, float]] = []
        self._return: tuple[Return, int] | None = None
        self._taste: _Taste | None = None
        self._usual_ioi_s = library.usual_ioi_s
        self._stretch = 1.0
        self._ended_before, self._phrases = 0, 0
        self._said_last = False
        self._played_s = -np.inf

    # ── hear ──

    def hear(self, percept: Percept, situation: Situation, now_s: float, settings: PartnerSettings, where: WhereBeats) -> None:
        """Take a percept and the situation after it, with the settings that hold; `where` tells memory's beats."""
        self._player.hear(percept, now_s)
        if self._follows_pulse:
            self._pulse.hear(percept, settings, where)
        for sample in percept.heard.onset_samples:
            self._taker.hear_onset(sample / self._rate_hz)
        self._past.append((now_s, dataclasses.replace(situation, pitch=self.pitch)))

    def hear_onset(self, onset_s: float, now_s: float) -> bool:
        """Take an onset as soon as it is known; return whether to answer it at once."""
        self._player.hear_onset(onset_s, now_s)
        self._pulse.hear_onset(onset_s)
        if self._first_onset_s is None:
            self._first_onset_s = onset_s
        self._taker.hear_onset(onset_s)
        moment = self.course.at(now_s)
        quiet = moment.silence or moment.has_ended or moment.closing or self.course.paused
        if now_s - self._played_s < _REFRACTORY_S:
            # A flam is one stroke: answered by itself, it would delay the answer to the next one.
            self._taker.answered()
            return False
        return self.mode.trigger == "onset" and not quiet

    def learned(self, state: int, *, start_s: float, duration_s: float, silent: bool) -> None:
        """Take a gesture of the player's that the library has learned, to find motifs in runs of them."""
        if self.keeper is None:
            return
        pause = bool(self._learned) and start_s - self._learned[-1][2] > _PAUSE_S
        long = bool(self._learned) and start_s + duration_s - self._learned[0][1] > _PHRASE_LEARNED_S
        if (silent and duration_s > _PAUSE_S) or pause or long:
            states = [s for s, _, _ in self._learned]
            self._motifs.keep(states, [0] * len(states), whose="yours", heard_s=[t for _, t, _ in self._learned])
            self._learned = []
        if not silent:
            self._learned.append((state, start_s, start_s + duration_s))

    # ── change ───────────────────────────────────────────────

    def change(self, changes: Mapping[str, object], now_s: float, settings: PartnerSettings) -> PartnerSettings:
        """Take changes by name; return `settings` with those that are settings.

        Raises `InputError` if one of them is refused; nothing changes then.
        """
        wishes = {name: value for name, value in changes.items() if name in _WISHES}
        plain = {name: value for name, value in changes.items() if name not in wishes}
        if "direction" in plain:
            raise InputError("direction cannot be changed while playing; set mode instead")
        if "region" in wishes:
            plain["use"] = () if wishes["region"] in (None, "") else wishes["region"]
        changed = settings.changed(plain)
        if not {"use", "avoid"}.isdisjoint(plain):
            _check_regions(changed, library=self._library)
        # New voices come with their own settings.
        kept = {name: value for name, value in self._by_hand.items() if "voices" not in plain or "." not in name}
        by_hand = {**kept, **plain}
        for mode in self._table.values() if self.keeper is not None else ():
            mode.applied(PartnerSettings(), by_hand)
        self._pulse.check(wishes, now_s)
        name = self._named(wishes.get("mode"))
        course = self.course.change(wishes, now_s)
        if name is not None:
            self._choose_mode(name, now_s)
        self._by_hand = by_hand
        pulse = self._pulse.change(wishes, now_s, changed)
        self._applied.clear()
        self._press(buttons := [button for button in BUTTONS if wishes.get(button)], now_s)
        now = f" (now {self.mode.name})" if self.mode.name else ""
        self.news = pulse or course or ", ".join(button.replace("_", " ") + now for button in buttons)
        return changed

    def _named(self, name: object) -> str | None:
        """Return the name of a mode that is wished for, if any."""
        if name is not None and not isinstance(name, str):
            raise InputError(f"mode must be one of {', '.join(self._table)}, got {name!r}")
        if name is not None and name != AUTO and name not in self._table:
            raise unknown_name("mode", name, [*self._table, AUTO])
        return name

    def _choose_mode(self, name: str, now_s: float) -> None:
        if self.keeper is None:
            self.keeper = ModeKeeper(self._table, name, rng=self._rng)
        self.keeper.choose(name, now_s)
        if name != "auto":
            self._anew()
        self._go_on(now_s)

    def _go_on(self, now_s: float) -> None:
        """Play on after the end of a form, if it is over."""
        if self.course.revive(now_s):
            self._said_last = False

    def _press(self, buttons: Sequence[str], now_s: float) -> None:
        recent = np.array([s for said in self._said for s in said.states][-_TASTE_STATES:], dtype=np.int64)
        if "more_like_this" in buttons:
            if self.keeper is not None:
                self.keeper.stay(now_s)
            self._taste = _Taste(recent, _MORE, now_s + _TASTE_S)
        if "less_like_this" in buttons:
            self._return = None
            self._taste = _Taste(recent, "less like this", now_s + _TASTE_S)
        if "change" in buttons:
            if self.keeper is not None:
                self.keeper.another(now_s)
            self._go_on(now_s)
            self._anew()
            self._taste = _Taste(recent, "something else", now_s + _TASTE_S)
        if "go_back" in buttons:
            if self.keeper is not None:
                self.keeper.back(now_s)
            # A phrase that has only just begun has no state yet.
            said = [phrase for phrase in self._said if phrase.states]
            before = said[-2] if self._taker.speaking and len(said) > 1 else said[-1] if said else None
            self._anew()
            self._taste = None
            if before is not None:
                states, moves = tuple(before.states), tuple(before.transpositions)
                self._return = Return("its own", before.times_s[0], states, moves, 0, 1.0, True, asked=True), 0

    def _anew(self) -> None:
        self._taker.begin_anew()
        self._return = None

    # ── turn ───────────────────────────────────────────────────────

    @property
    def mode(self) -> Mode:
        """The mode that holds."""
        return PLAIN if self.keeper is None else self.keeper.mode

    @property
    def pitch(self) -> float | None:
        """The mean MIDI pitch of the player's last notes, None before there are any."""
        return self._player.pitch

    def pulse(self, now_s: float, settings: PartnerSettings) -> Pulse | None:
        """Return the pulse in the room that is gone by, None for none."""
        return self._pulse.at(now_s, settings).pulse

    def beat_place(self, time_s: float, now_s: float, settings: PartnerSettings) -> BeatPlace:
        """Return the place in the beat of what was heard at a time."""
        return self._pulse.at(now_s, settings).place(time_s - settings.latency_ms / 1000)

    def settings(self, base: PartnerSettings, regions: tuple[tuple[str, str], ...] = ()) -> PartnerSettings:
        """Return `base` as the mode and the form's section change it."""
        if self.keeper is None and not regions:
            return base
        key = (self.mode.name, regions)
        if key not in self._applied:
            by_hand = {**dict(regions), **self._by_hand}
            self._applied[key] = self.mode.applied(dataclasses.replace(base, use=(), avoid=()), by_hand)
        return self._applied[key]

    def turn(self, situation: Situation, base: PartnerSettings, *, next_s: float | None = None) -> Turn:
        """Return what the partner may do at the situation's time; what it played last, if it goes on, ends at `next_s`."""
        now_s = situation.now_s
        moment = self.course.at(now_s)
        player = self._player.at(now_s)
        self._keep_mode(now_s, player, moment)
        settings = self.settings(base, moment.regions)
        room = self._pulse.at(now_s, settings)
        ahead_s = AHEAD_S if room.pulse is not None and self.mode.trigger != "onset" else 0.0
        # Where the next choice begins: where the last one ends, if there is time for that.
        start_s = next_s if ahead_s and next_s is not None and next_s >= now_s + ahead_s / 2 else now_s + ahead_s
        metre = Metre(room.pulse, settings.beat_offset) if room.pulse is not None and room.strength >= _ON_BEATS else None
        self._found_pulse = self._found_pulse or room.strength >= _ON_BEATS
        state = self._turn_state(now_s, start_s, player, situation, settings, moment, metre)
        if state.rest is not None:
            return Turn(
                settings, situation, rest=state.rest, expected_s=state.expected_s,
                again_s=None if state.again_s is None else state.again_s - (start_s - now_s),
                keeps_phrase=state.rest == "next note", mode=self.mode.name, room=room, ahead_s=ahead_s,
            )  # fmt: skip
        if state.begins:
            self._begin(now_s, situation, settings, player)
        elif self.mode.trigger == "onset" or math.isinf(self.mode.phrase) or settings.pace < 0:
            self._stretch = self._stretched(settings, player)
        last = moment.closing and moment.until_s is not None and moment.until_s - now_s <= _LAST_S
        step = None if last else self._step()
        recall = self._recalled(state)
        if recall is not None:
            # Over a player who plays on, it goes back in what it says, but stays in the harmony of now.
            harmony = situation if player.kind == "playing" else recall
            situation = dataclasses.replace(
                recall, now_s=now_s, silent_s=situation.silent_s, chroma=harmony.chroma, expected=harmony.expected
            )
        return Turn(
            settings,
            situation,
            mode=self.mode.name,
            room=room,
            ahead_s=ahead_s,
            phrase=self._phrases,
            begins=state.begins,
            closes=state.closes or last,
            step=step,
            gain_db=moment.gain_db,
            answers=state.answers,
            recall=recall,
            timing=NoteTiming(
                stretch=self._return[0].pace if step is not None and self._return is not None else self._stretch,
                plan=None
                if room.pulse is None
                else BeatPlan(
                    room.pulse,
                    room.strength,
                    start_s,
                    now_s,
                    settings.beat_offset,
                    bound=self.mode.trigger == "onset" or state.strikes,
                ),
                pulse=room.pulse if settings.quantise else None,
                quantise=settings.quantise,
                subdivision=settings.subdivision,
                last=last,
                at_once=self.mode.trigger == "onset" or state.strikes,
                until_s=state.until_s,
            ),
        )

    def _keep_mode(self, now_s: float, player: PlayerState, moment: Moment) -> None:
        if self.keeper is None:
            return
        ended = self._taker.phrases_ended != self._ended_before or (player.kind == "ended" and not self._taker.speaking)
        self._ended_before = self._taker.phrases_ended
        if self.keeper.step(
            now_s, phrase_ended=ended or self.mode.turn == "rest", section=moment.number, form_mode=moment.mode
        ):
            self._anew()

    def _turn_state(
        self, now_s: float, start_s: float, player: PlayerState, situation: Situation, settings: PartnerSettings,
        moment: Moment, metre: Metre | None,
    ) -> TurnState:  # fmt: skip
        """Return whose turn it is with what begins at `start_s`, the form before the turn-taking."""
        by_hand = self.keeper is not None and self.keeper.user_override
        if self.course.paused:
            self._taker.end_phrase(now_s, self.mode)
        if self.course.paused or moment.has_ended:
            return TurnState(rest="paused" if self.course.paused else "ended")
        if moment.silence and not by_hand:
            self._taker.end_phrase(now_s, self.mode)
            until_s = moment.until_s
            return TurnState(rest="score", expected_s=None if until_s is None else until_s - now_s, again_s=until_s)
        if moment.closing:
            assert moment.until_s is not None
            if self._said_last or moment.until_s - now_s < _SHORTEST_ENDING_S:
                return TurnState(rest="ending", expected_s=moment.until_s - now_s, again_s=moment.until_s)
            return TurnState(begins=not self._taker.speaking and now_s - self._played_s > _PAUSE_S)
        until_s = self._listens_until_s(now_s, settings)
        if until_s is not None:
            return TurnState(rest="pulse", expected_s=until_s - now_s, again_s=until_s + start_s - now_s)
        return self._taker.at(
            start_s, self.mode, player, silent_s=situation.silent_s, rest_after_silence_s=settings.rest_after_silence_s,
            fullness=moment.fullness, metre=metre,
        )  # fmt: skip

    def _listens_until_s(self, now_s: float, settings: PartnerSettings) -> float | None:
        """Return until when at most it listens for the pulse before its first phrase, None if it need not."""
        if self._found_pulse or self._first_onset_s is None or not self._has_beats or settings.time != "auto":
            return None
        by_itself = self.keeper is not None and not self.keeper.user_override
        if self._taker.speaking or self.mode.trigger != "own end" or not by_itself:
            return None
        until_s = self._first_onset_s + _LISTENS_S
        return until_s if now_s < until_s else None

    def _begin(self, now_s: float, situation: Situation, settings: PartnerSettings, player: PlayerState) -> None:
        """Begin a phrase: keep the last one for returns, and take up one of them, now and then."""
        if self.keeper is not None and self._said:
            before = self._said[-1]
            self._motifs.keep(before.states, before.transpositions, whose="its own", heard_s=before.times_s)
        self._phrases += 1
        self._said.append(_OwnPhrase())
        self._stretch = self._stretched(settings, player)
        if self._return is None and self.mode.returns and self._rng.random() < self.mode.returns:
            found = self._motifs.bring_back(
                now_s, chroma=situation.chroma, pace=self._stretch, max_transposition=settings.max_transposition, rng=self._rng
            )
            self._return = None if found is None else (found, 0)

    def _stretched(self, settings: PartnerSettings, player: PlayerState) -> float:
        """Return how much longer than recorded things last at the player's pace."""
        if not settings.pace or player.ioi_s is None or self._usual_ioi_s is None:
            return 1.0
        # To go along is to find the player's usual interval; to go against is to fill what they leave open right now.
        player_s = player.ioi_s if settings.pace > 0 else 1 / (player.onset_rate_hz + _RATE_FLOOR_HZ)
        ratio = float(np.clip(player_s / self._usual_ioi_s, 1 / settings.pace_limit, settings.pace_limit))
        return ratio**settings.pace

    def _step(self) -> ReturnStep | None:
        """Return the next state of what comes back, None where nothing does, or where it is no longer there."""
        if self._return is None:
            return None
        found, number = self._return
        if number >= len(found.states) or not self._library.holds(found.states[number]):
            self._return = None
            return None
        return ReturnStep(found.states[number], found.transpositions[number], found.words, found.asked)

    def _recalled(self, state: TurnState) -> Situation | None:
        """Return the moment of the player's phrase that is answered now, as it was."""
        if state.answers is None or not self.mode.recall:
            return None
        start_s, end_s = state.answers
        at_s = end_s - self.mode.recall * (1 - state.progress) * (end_s - start_s)
        heard = [past for heard_s, past in self._past if start_s < heard_s]
        return next((past for past in heard if past.now_s >= at_s), heard[-1]) if heard else None

    # ── candidates ────────────

    def also(self, turn: Turn) -> Int64:
        """Return states to weigh beside those that the player leads to: beginnings, endings, and what returns."""
        states = np.zeros(0, dtype=np.int64)
        if turn.timing.last:
            states = np.flatnonzero(self._phrase_map.ends)
        elif turn.begins and self.mode.turn == "own":
            states = np.flatnonzero(self._phrase_map.begins)
        if len(states) > _ALSO:
            states = np.sort(self._rng.choice(states, _ALSO, replace=False))
        return states if turn.step is None else np.union1d(states, [turn.step.state])

    def filters(self, states: Int64, turn: Turn) -> dict[str, Float64]:
        """Return factors of candidates by name, each of shape (n, 1): phrase beginnings and ends, and the player's taste."""
        factors: dict[str, Float64] = {}
        marks = self._phrase_map.ends if turn.closes else self._phrase_map.begins if turn.begins else None
        strength = _ENDING if turn.timing.last else _PHRASING * turn.settings.phrasing
        if marks is not None and strength:
            marked = _marked(states, marks)
            if marked.any():
                factors["phrase end" if turn.closes else "phrase beginning"] = np.where(marked, 1.0, 1 - strength)[:, None]
        taste = self._taste
        if taste is not None and turn.situation.now_s < taste.until_s and len(taste.states):
            near = (np.abs(states[:, None] - taste.states[None, :]) <= _TASTE_REACH).any(axis=1)
            factors[taste.name] = np.where(near == (taste.name == _MORE), 1.0, _OTHERWISE)[:, None]
        return factors

    def played(self, state: int, transposition: int, turn: Turn, *, now_s: float) -> None:
        """Take what was played in a turn."""
        self._taker.played(state, now_s)
        self._played_s = now_s
        self._said_last = self._said_last or turn.timing.last
        if not self._said:
            self._said.append(_OwnPhrase())
        said = self._said[-1]
        said.states.append(state)
        said.transpositions.append(transposition)
        said.times_s.append(now_s)
        if turn.step is not None and self._return is not None:
            found, number = self._return
            self._return = (found, number + 1) if number + 1 < len(found.states) else None


def directed_by(direction: Direction) -> tuple[ModeTable, Form]:
    """Return the table of modes and the form of a direction; raises `InputError` where they are wrong."""
    table = built_in_modes()
    if direction.modes:
        table = parse_modes(direction.modes, table, source="modes")
    form = parse_form(direction.form, table, source="form") if direction.form else Form()
    return table, form


def _check_regions(settings: PartnerSettings, *, library: MemoryPool) -> None:
    """Raise `InputError` for a region of a recording that the memory lacks: nothing would be played there."""
    for region in (*settings.use, *settings.avoid):
        if region.recording >= library.live_recording:
            raise InputError(f"recording must be in [0, {library.live_recording - 1}], got {region.recording}")


def _marked(states: Int64, marks: Bool) -> Bool:
    known = states < len(marks)
    return known & marks[np.where(known, states, 0)]
