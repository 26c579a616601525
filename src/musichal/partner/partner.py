"""The partner: hears the player, keeps a place in memory, and decides what to play next.

It follows the player through its memory by several kinds of context at once, weighs where they lead, holds back what does
not fit, and plays one state of memory after another; or it rests, and says why. It plays nothing that it did not find.

`Partner.decide` is one decision: the situation (`player`), whose turn it is (`mode_controller`), candidates with their
influences and filters (`candidates`), one choice (`choice`), who plays which note when (`voices`, `timing`), and the record
(`decision`).
"""

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from musichal.arrays import Float32, Float64, Int64, Records, rounded_number
from musichal.hearing.percepts import SILENCE, Percept
from musichal.memory.memory import Memory
from musichal.partner.candidates import (
    Draw,
    Filtered,
    Sounding,
    apply_filters,
    draw,
    find_candidates,
    proposing,
    scores,
    search_ahead,
    sounding,
    transpositions,
    wanted_pitch,
)
from musichal.partner.decision import Decision
from musichal.partner.expectation import Expectation, HarmonyFollower, harmonic_cells
from musichal.partner.explanation import PartnerStatus, partner_status
from musichal.partner.harmony import KeptTransposition, clashes_below
from musichal.partner.influences import (
    CONTEXTS,
    OF_PLAYER,
    Activation,
    Recent,
    find_alike,
    find_linked,
    find_matches,
    player_contexts,
    weights,
    worth,
)
from musichal.partner.learner import Learner
from musichal.partner.memory_pool import MemoryPool
from musichal.partner.mode_controller import ModeController
from musichal.partner.player import Situation, SituationTracker
from musichal.partner.record import (
    NoOption,
    Options,
    choice_record,
    harmony_use,
    in_beat,
    pulse_use,
    rest_record,
    ruled_out,
)
from musichal.partner.scenario import WEIGHT, Guide, Plan
from musichal.partner.self_cancellation import SelfCancellation
from musichal.partner.settings import PartnerSettings
from musichal.partner.timing import in_time, struck_places
from musichal.partner.tuning import PlayerTuning
from musichal.partner.turn_taking import Turn
from musichal.partner.voices import Voices, gain_db, middle_pitch, octaves_towards, without_clashes

_OWN_PLACES = 16
_SHORTEST_S = 0.02
_FITS = 0.5  # the factor of harmony from which a motif returns
_LIKELY = 0.5  # the probability from which a pitch class is played in a clear harmony
_OUTSIDE = 0.5  # from so much tension on, it plays outside the harmony on purpose


class Partner:
    """Decides what to play, one state of memory at a time.

    The memory is never changed: what is learned while playing is kept beside it. `rng` is the only source of chance, and
    percepts count in a stream at `sample_rate_hz`. Only measurements ask for one that does not subtract its own sound from what
    it hears (`knows_its_sound`), or does not look for a pulse (`follows_pulse`), and then hears in half the time.

    Raises `InputError` where the settings' direction names an unknown mode, or its modes or form are wrong.
    """

    def __init__(
        self,
        memory: Memory,
        settings: PartnerSettings,
        *,
        rng: np.random.Generator,
        sample_rate_hz: int,
        knows_its_sound: bool = True,
        follows_pulse: bool = True,
    ) -> None:
        self.library = MemoryPool(memory)
        self._worth = worth(self.library.base)
        base = self.library.base
        # Of a large memory these take long to make: not in the first percept or the first decision in time.
        for segment in (base, *([base.players.segment] if base.players else [])):
            _ = segment.pasts
        memory.derived(struck_places)
        self.settings = settings
        self._knows_its_sound = knows_its_sound
        self._rng = rng
        directed = settings.direction.mode or settings.direction.form
        self._modes = ModeController(
            self.library,
            settings,
            rng=rng.spawn(1)[0] if directed else rng,
            sample_rate_hz=sample_rate_hz,
            follows_pulse=follows_pulse,
        )
        self._tracker = SituationTracker(sample_rate_hz=sample_rate_hz)
        self._last_key_s, self._hears_sound = -1.0, False
        self._own_sound = SelfCancellation(sample_rate_hz=sample_rate_hz)
        self._tuning = PlayerTuning(sample_rate_hz=sample_rate_hz)
        self._follower = HarmonyFollower(memory.derived(harmonic_cells), sample_rate_hz=sample_rate_hz)
        self._expected: Expectation | None = None
        self._key = KeptTransposition()
        self._learner = Learner()
        self._activation = Activation()
        self._voices = Voices()
        self._guide: Guide | None = None
        # What is prepared before a decision is asked for.
        self._sounds: Sounding | None = None
        self._prepared: Options | None = None
        self._heard = 0  # gestures and onsets, when contexts were last matched
        self._recalled: int | None = None  # the same, of the moment that is gone back over
        # Where it is in memory, and what it played.
        self._position: int | None = None
        self._transposition = self._run = self._number = self._choices = 0
        self._played: deque[int] = deque(maxlen=10_000)
        self._last_choice: tuple[int, float] | None = None  # state and end, until its context is matched
        self._resting: str | None = None
        self._due_s: float | None = None
        self._next_s: float | None = None  # when what it played last is over

    @property
    def due_s(self) -> float | None:
        """When to decide next: when what it plays or rests for is over, or at once after something new."""
        return self._due_s

    def status(self, now_s: float) -> PartnerStatus:
        """Return what it is about, for those who show it."""
        return partner_status(self._modes, now_s, self._modes.pulse(now_s, self._modes.settings(self.settings)))

    @property
    def harmony(self) -> Float32:
        """The recent chroma of the player without the partner's own sound, shape (12,)."""
        return self._tracker.chroma

    # ── hear ─────────────────────────────────────────────────────────────────

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the next percept of the player."""
        self._match_own()
        settings = self._modes.settings(self.settings)
        by_keys = self._last_key_s >= 0 and not self._hears_sound
        if not by_keys:  # no sound of ours comes through a MIDI input
            percept = self._tuning.corrected(self._own_sound.without(percept), percept.heard.chroma)
        self._tracker.hear(percept, settings)
        if self._own_sound.alone_since_s is not None:
            self._tracker.silent_since(self._own_sound.alone_since_s)
        self._learn(percept, now_s)
        pulse = self._modes.pulse(now_s, settings)  # early by the latency of the output: the player is not
        self._follower.hear(percept, pulse and pulse.earlier(-settings.latency_ms / 1000))
        self._expected = self._follower.expected(self._tracker.chroma)
        situation = self._at(now_s, settings)
        self._modes.hear(percept, situation, now_s, settings, self._follower.beat_chances)
        if situation.heard != self._heard:
            self._heard = situation.heard
            for name, recent in player_contexts(situation).items():
                self._activate(name, recent)
            alike = self._alike(situation, self._shifts(self._key), self._key.transposition, settings)
            self._activation.insert("likeness", alike, ())
        self._search_sounds(situation, settings)
        if self._modes.mode.trigger == "onset" and not by_keys:  # a key changes the harmony, so all is weighed after it
            options = self._weigh(Turn(settings, self._at(now_s, settings, pitch=self._modes.pitch)))
            self._prepared = options if isinstance(options, Options) else None
        if self._due_s is None:
            self._due_s = now_s

    def hear_onset(self, onset_s: float, now_s: float, pitches: Sequence[int] = (), *, is_drum: bool = False) -> None:
        """Take an onset before its percept; in a mode that answers each onset, a decision is due at once.

        `pitches` are those of a MIDI player. Another key of the same chord comes with the same onset. Keys of a drum kit have
        no harmony.
        """
        self._hears_sound = self._hears_sound or not pitches
        if pitches:
            if not is_drum:
                self._tracker.strike(pitches)
                settings = self._modes.settings(self.settings)
                self._expected = self._follower.expected(self._tracker.chroma)
                self._search_sounds(self._at(now_s, settings), settings)
            if onset_s <= self._last_key_s:
                return
            self._last_key_s = onset_s
        elif self._own_sound.struck(onset_s):
            return  # if it was the player's after all, the percept will tell
        if self._modes.hear_onset(onset_s, now_s):
            self._due_s = now_s

    def _search_sounds(self, situation: Situation, settings: PartnerSettings) -> None:
        """Search what fits the harmony before a decision is asked for, so that it need not wait."""
        self._sounds = self._sounding(situation, settings, self._shifts(self._next_key(settings)))
        _ = self._expected and self._expected.named
        search_ahead(self.library, self._activation, self._follower, self._sounds, settings=settings, turn=self._choices)
        self._prepared = None

    def change(self, changes: Mapping[str, object], now_s: float) -> str:
        """Change settings by name, and "mode", "region", "clock", "tap", `mode_controller.BUTTONS` and `form.WISHES`.

        Returns a sentence for the player, mostly an empty one. Raises `InputError` for what is unknown or not possible;
        nothing changes then.
        """
        self._match_own()
        self.settings = self._modes.change(changes, now_s, self.settings)
        if set(changes) - {"clock", "tap"}:  # a clock moves notes and does not choose them, and comes every few seconds
            self._prepared = None
            if self._resting is not None:
                self._due_s = now_s
        return self._modes.news

    def _at(self, now_s: float, settings: PartnerSettings, *, pitch: float | None = None) -> Situation:
        """Return the situation at a time, with the player's `pitch`."""
        expected = None if self._expected is None else self._expected.classes
        return self._tracker.at(now_s, settings, pitch=pitch, expected=expected)

    def _next_key(self, settings: PartnerSettings, *, begins: bool = False) -> KeptTransposition:
        """Return the transposition to play in next; where a phrase `begins`, less has to speak for another one."""
        if self._expected is None:
            return self._key
        likely, begins = self._expected.transpositions, begins or self._position is None
        return self._key.at(likely, transpositions(settings), penalty=settings.transposition_penalty, begins=begins)

    def _shifts(self, key: KeptTransposition) -> Int64:
        """Return the transpositions to look in while a phrase goes on: that of memory, and of what was learned."""
        return np.array(sorted({key.transposition, 0} if len(self.library.segments) > 1 else {key.transposition}))

    def _sounding(self, situation: Situation, settings: PartnerSettings, shifts: Int64) -> Sounding:
        return sounding(
            self.library, situation.chroma, settings, self._sounds, expected=situation.expected, shifts=shifts
        )  # fmt: skip

    def _learn(self, percept: Percept, now_s: float) -> None:
        """Take the player's gestures into memory as soon as they are complete."""
        if not self.settings.live_weight:
            return
        self._learner.hear(percept)
        for heard in self._learner.complete(now_s):
            gesture = heard.gesture
            silent = gesture.tokens == (SILENCE, SILENCE)
            if not silent or len(self.library.segments) > 1:
                state = self.library.learn(
                    gesture, heard.notes, most=self.settings.live_gestures, hits=heard.hits,
                    beat=self._modes.beat_place(gesture.start_s, now_s, self.settings),
                )  # fmt: skip
                self._modes.learned(state, start_s=gesture.start_s, duration_s=gesture.duration_s, silent=silent)
        if self._position is not None and not self.library.holds(self._position):
            self._position, self._run = None, 0

    def _activate(self, name: str, recent: Recent) -> None:
        """Set peaks wherever memory was in this situation."""
        matches = find_matches(self.library, name, recent, settings=self.settings)
        self._activation.insert(name, matches, recent.symbols)

    def _alike(self, situation: Situation, shifts: Int64, home: int, settings: PartnerSettings) -> Records:
        """Return where memory's last seconds are like the player's."""
        return find_alike(self.library, situation, shifts, home=home, familiar=self._follower.familiar, settings=settings)

    def _match_own(self) -> None:
        """Let the oracle's links lead on from the partner's own last choice, once it is out."""
        if self._last_choice is None:
            return
        (state, end_s), self._last_choice = self._last_choice, None
        self._activation.clear("own")
        self._activation.insert("own", find_linked(self.library, state, end_s, most=_OWN_PLACES), ())

    # ── decide ───────────────────────────────────────────────────────────────

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Decide what to play from `now_s` on: a state of memory for its duration, or a rest.

        Returns one record for each voice that plays. A rest has one record, which is repeated only if its reason changes.
        """
        self._match_own()
        situation = self._at(now_s, self._modes.settings(self.settings), pitch=self._modes.pitch)
        turn = self._modes.turn(situation, self.settings, next_s=None if self._position is None else self._next_s)
        options = self._options(turn)
        if isinstance(options, NoOption):
            return self._rest(options, situation, turn)
        options = in_beat(self.library, options, turn)
        drawn = draw(options.scores, temperature=turn.settings.temperature, floor=turn.settings.floor, rng=self._rng)
        return self._play(options, drawn, situation, turn)

    def _options(self, turn: Turn) -> Options | NoOption:
        """Return what a turn can play, prepared if possible, or why nothing."""
        if turn.rest is not None and not (turn.rest == "silence" and self._follow_scenario(turn) is not None):
            return NoOption(turn.rest)  # a scenario goes on in silence
        prepared, self._prepared = self._prepared, None
        plain = turn.step is None and turn.recall is None and not (turn.begins or turn.closes)
        if prepared is not None and plain and prepared.turn.settings == turn.settings:
            return prepared
        return self._weigh(turn)

    def _weigh(self, turn: Turn) -> Options | NoOption:
        """Return the candidates of a turn with their scores, or why nothing can be played."""
        settings, situation = turn.settings, turn.situation
        self._recall(turn)
        plan = self._follow_scenario(turn)
        also = self._modes.also(turn)
        free = plan is None and turn.step is None
        self._key = self._next_key(settings, begins=turn.begins) if free else self._key
        self._sounds = self._sounding(situation, settings, self._shifts(self._key) if free else transpositions(settings))
        found = find_candidates(
            self.library, self._activation, self._follower, situation, self._sounds, position=self._position,
            transposition=self._transposition, settings=settings, turn=self._choices,
            also=also if plan is None else np.concatenate([also, plan.states]),
        )  # fmt: skip
        if not len(found.states):
            return NoOption("no match")
        fixed = turn.step is not None or turn.timing.last
        filtered = apply_filters(
            self.library, situation, found.states, found.transpositions,
            played=() if fixed else list(islice(reversed(self._played), settings.no_repeat)),
            following=None if self._position is None or fixed else self.library.successor(self._position),
            run=self._run, tonal=found.tonal, settings=settings, key=self._key.transposition if free else None,
            least_likely=self._least_likely(found.tonal, situation, settings),
        )  # fmt: skip
        filtered.factors.update(self._modes.filters(found.states, turn))
        importance, asked = weights(settings) * self._worth, tuple[str, ...]()
        if plan is not None and self._guide is not None:
            value = self._guide.value(found.states, found.transpositions, plan)
            fits = self._guide.fits(found.states, found.transpositions, plan)
            found = dataclasses.replace(found, influences=np.concatenate([found.influences, value[None]]))
            filtered = Filtered({**filtered.factors, "scenario": fits.astype(np.float64)})
            importance, asked = np.append(importance, WEIGHT), ("scenario",)
        factors = filtered.product(found.influences.shape[1:])
        values = scores(found.influences, importance, factors)
        if turn.begins and len(also) and not values.any():
            # Nothing has been heard that speaks for any place: it proposes, with the beginning of a recorded phrase.
            found = proposing(found, also, self._transposition)
            values = scores(found.influences, importance, factors)
        if turn.step is not None:
            # What comes back is played whatever else speaks for it; where it cannot be, or nobody asked for it and most of its
            # notes would clash, the phrase goes on without it.
            here = (found.states == turn.step.state)[:, None] & (found.transpositions == turn.step.transposition)[None, :]
            if (here & (turn.step.asked | (filtered.factors.get("harmony", np.ones(1)) >= _FITS))).any():
                found = dataclasses.replace(found, influences=np.concatenate([found.influences, here[None]]))
                importance, asked = np.append(importance, 1.0), (*asked, "return")
                values = np.where(here, scores(found.influences, importance, factors), -np.inf)
                return Options(turn, found, filtered, importance, values, plan, asked=asked)
        values[values <= 0] = -np.inf
        # Continuity alone is no reason to play: the player must speak for a candidate. But an ending is owed.
        least = settings.rest_below * self._earnable(settings, situation)
        may_rest = plan is None and not turn.timing.last
        if may_rest and self._follower.foreign and found.tonal * settings.follow_harmony > 0 and settings.tension < _OUTSIDE:
            return NoOption("no key", len(found.states))
        if may_rest and least > 0:
            evidence = scores(found.influences, importance * OF_PLAYER, factors)
            values[evidence < rounded_number(least)] = -np.inf
        if np.maximum.reduce(values, axis=None) == -np.inf:
            return NoOption(ruled_out(found, importance, filtered), len(found.states) if factors.any() else 0)
        return Options(turn, found, filtered, importance, values, plan, asked=asked)

    def weigh_all(self, now_s: float, states: Int64) -> Float64:
        """Return what each influence makes of these states of its memory now, (influences, n), to measure that."""
        settings = self._modes.settings(self.settings)
        situation = self._at(now_s, settings)
        sounds = self._sounding(situation, settings, self._shifts(self._key))
        found = find_candidates(
            self.library, self._activation, self._follower, situation, sounds, position=None, transposition=0,
            settings=settings, also=states,
        )  # fmt: skip
        return found.influences[:, found.states.searchsorted(states), 0]

    def _follow_scenario(self, turn: Turn) -> Plan | None:
        """Return how memory can follow the scenario now, None where there is nothing to follow."""
        scenario = turn.settings.scenario
        if scenario is None or turn.rest == "waiting" or not len(self.library.base):
            return None
        if self._guide is None or self._guide.scenario != scenario:
            self._guide = Guide(scenario, self.library)
        return self._guide.ask(turn.situation.now_s, transpositions(turn.settings))

    def _recall(self, turn: Turn) -> None:
        """Let the recalled moment of the player's phrase point on from now, instead of the present."""
        past = turn.recall
        if past is None:
            self._recalled = None
            return
        if past.heard == self._recalled:
            return
        if self._recalled is None:
            for name in CONTEXTS:
                self._activation.clear(name)
        self._recalled = past.heard
        later_s = turn.situation.now_s - past.now_s
        for name, recent in player_contexts(past).items():
            starts_s = tuple(start_s + later_s for start_s in recent.starts_s)
            self._activate(name, Recent(recent.symbols, recent.since_s + later_s, starts_s))
        alike = self._alike(past, transpositions(turn.settings), self._transposition, turn.settings)
        alike["since_s"] += later_s
        self._activation.insert("likeness", alike, ())

    def _earnable(self, settings: PartnerSettings, situation: Situation) -> float:
        """Return the most that the player's influences can contribute with this memory.

        Harmony counts only as far as both have it: a memory of drums and a player of drums must not be held to harmony, but
        noise, which sounds and has none, must.
        """
        harmony = settings.harmonic_weight + settings.likeness_weight + settings.chroma_weight
        can_have = situation.harmonic_share if self.library.has_notes else 0.0
        return settings.player_weight - harmony * (1 - can_have)

    def _least_likely(self, tonal: float, situation: Situation, settings: PartnerSettings) -> float:
        """Return how likely a pitch class must be to be played, in a harmony as `tonal` as that."""
        # A mode that answers each onset leaves none without a note for being unlikely.
        if situation.expected is None or self._modes.mode.trigger == "onset":
            return 0.0
        return _LIKELY * clashes_below(tonal, settings.tension)

    # ── play or rest ─────────────────────────────────────────────────────────

    def _play(self, options: Options, drawn: Draw, situation: Situation, turn: Turn) -> tuple[Decision, ...]:
        """Play what was drawn, and return its records."""
        settings, now_s, answered = turn.settings, situation.now_s, options.turn.situation
        state = int(options.found.states[drawn.candidate])
        transposition = int(options.found.transpositions[drawn.transposition])
        jumped = self._position is None or state != self.library.successor(self._position)
        self._run = 1 if jumped else self._run + 1
        self._position, self._transposition, self._key = state, transposition, self._key.played(transposition)
        self._played.append(state)
        middle, wanted = middle_pitch(self.library, state), wanted_pitch(self.library, answered, settings)
        octaves = octaves_towards(wanted, None if middle is None else middle + transposition, settings.follow_register)
        louder_db = gain_db(self.library, state, answered, settings) + turn.gain_db
        begin_s, timing = now_s, turn.timing
        if timing.plan is not None and options.fit is not None:
            begin_s = timing.plan.begin_s(options.fit, drawn.candidate)
            stretch = timing.plan.stretch(options.fit, drawn.candidate)
            timing = timing if stretch is None else timing.stretched(stretch)
        duration_s = self.library.place(state).duration_s
        parts = self._voices.share(
            self.library, state, transposition=transposition + 12 * octaves, now_s=begin_s, duration_s=duration_s,
            gain_db=louder_db, settings=settings,
        )  # fmt: skip
        left_out: tuple[int, ...] = ()
        if options.plan is None:  # a scenario names its harmony itself
            tonal = options.found.tonal
            parts, left_out = without_clashes(
                parts, answered.harmony, least=clashes_below(tonal, settings.tension),
                least_likely=self._least_likely(tonal, answered, settings),
            )  # fmt: skip
        parts, duration_s = in_time(parts, timing, start_s=begin_s, duration_s=duration_s)
        parts = self._voices.strike(parts, settings)
        if self._knows_its_sound:
            self._own_sound.played(sorted((n for notes in parts.values() for n in notes), key=lambda n: n.onset_s))
        choice = choice_record(
            self.library, self._activation, options, drawn, turn,
            choice=self._choices, run=self._run, jumped=jumped, earnable=self._earnable(settings, answered),
            scenario="" if self._guide is None else self._guide.told(options.plan),
            start_s=begin_s if begin_s != now_s else None, duration_s=duration_s, stretch=timing.stretch,
            harmony=self._expected and harmony_use(self._expected, self._key.says(transposition), left_out, self._tuning.cents),
            pulse=pulse_use(options, drawn, turn, begin_s), octaves=octaves, gain_db=louder_db, silent_s=situation.silent_s,
        )  # fmt: skip
        # A voice without notes has no record, but the first one has one of every choice.
        heard = [(voice, notes) for number, (voice, notes) in enumerate(parts.items()) if notes or not number]
        decisions = tuple(
            Decision(number=self._number + number, time_s=now_s, kind="play", voice=voice, notes=notes, **choice)
            for number, (voice, notes) in enumerate(heard)
        )
        self._number += len(decisions)
        self._choices += 1
        if options.plan is not None and self._guide is not None:
            self._guide.played()
        self._modes.played(state, transposition, turn, now_s=begin_s)
        self._next_s = begin_s + max(_SHORTEST_S, duration_s)
        self._last_choice = state, begin_s + duration_s
        self._due_s, self._resting = max(now_s + _SHORTEST_S, self._next_s - turn.ahead_s), None
        return decisions

    def _rest(self, why: NoOption, situation: Situation, turn: Turn) -> tuple[Decision, ...]:
        """Rest until the next percept, or until the turn's own end; return a record if the reason is new."""
        if not turn.keeps_phrase:
            # A rest ends the phrase: what comes after it is a new beginning, not a continuation.
            self._position, self._transposition, self._run = None, 0, 0
            self._activation.clear("own")
        self._due_s = turn.again_s if turn.again_s is not None and turn.again_s > situation.now_s else None
        before, self._resting = self._resting, why.why
        if why.why == before:
            return ()
        self._number += 1
        earnable = self._earnable(turn.settings, situation)
        return (rest_record(why, situation, turn, number=self._number - 1, choice=self._choices, earnable=earnable),)
