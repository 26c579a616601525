"""Influences: what can speak for a place in memory, and where the player's past points to as time goes on.

Six kinds of context are followed. Harmonic tokens, percussive tokens, rhythm and loudness find the places whose past agrees
longest with the present, exactly, with back-off to shorter contexts (`musichal.memory.token_index`). Likeness finds those whose
past is like the present, in any transposition (`musichal.partner.likeness`), and the partner's own last choices those that the
links of the Audio Oracle lead to. Somax2's influences (Borg; Assayag et al., Computer Music Journal 46(4)), after which this
is made, look up contexts of one fixed length. A match of n symbols has a strength of n / (n + 1); for loudness n counts only
what is not steady.

A match sets a peak on the memory's line of time. Peaks fade with exp(−Δt / τ) and travel along the line at the player's
pace, so that an old match predicts what would sound *now*. Of the peaks that come to one state, the strongest counts. Peaks lie
in rings of fixed size, one for each kind of context.

Where memory knows how a player sounded beside the others, the player's context is looked up in the player's past, and the
place found is that of the others at the time; likeness also in the others' own past, as far as this one plays something else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from musichal.arrays import Bool, Float64, Int64, Records
from musichal.hearing.percepts import SILENCE
from musichal.memory.token_index import TokenIndex
from musichal.partner.likeness import EDGES_S, Alike
from musichal.partner.memory_pool import (
    MemoryPool,
    MemorySegment,
    PlayersSegment,
)
from musichal.partner.player import Situation
from musichal.partner.settings import PartnerSettings
from musichal.partner.symbols import CONTOUR_BREAK, CONTOUR_LEVEL, RHYTHM_BREAK

CONTEXTS = ("harmonic", "percussive", "rhythm", "loudness", "own", "likeness")
"""Influences by a context that memory shares with the present."""
INFLUENCES = ("harmonic", "percussive", "likeness", "pairs", "chroma", "rhythm", "loudness", "own", "continuity")
PLAYER_INFLUENCES = ("harmonic", "percussive", "likeness", "pairs", "chroma", "rhythm", "loudness")
"""Those that depend on the player."""
OF_PLAYER: Float64 = np.array([float(name in PLAYER_INFLUENCES) for name in INFLUENCES])
"""1 for those in the order of `INFLUENCES`, 0 for the others."""
OF_PLAYER.setflags(write=False)

_weights = attrgetter(*(f"{name}_weight" for name in INFLUENCES))
# So much do these count beside a player's past, which says in part the same: its places are in the harmony expected, and go on.
_BESIDE_PAIRS = {"chroma": 0.75, "continuity": 0.75}
_SLOWEST, _FASTEST = 0.5, 2.0
_NOTHING: Int64 = np.zeros(1, dtype=np.int64)
_NOTHING.setflags(write=False)


def weights(settings: PartnerSettings) -> Float64:
    """Return the weight of each influence, shape (9,)."""
    return np.array(_weights(settings))


def worth(memory: MemorySegment) -> Float64:
    """Return by what to multiply the weights for a partner's memory, shape (9,)."""
    paired = float(memory.players.paired.mean()) if memory.players is not None and len(memory) else 0.0
    beside = np.array([1 - paired * (1 - _BESIDE_PAIRS.get(name, 1.0)) for name in INFLUENCES])
    return beside * [memory.memory.worth.get(name, 1.0) for name in INFLUENCES]


MATCH = np.dtype(
    [
        ("segment", np.int64),
        ("state", np.int64),
        ("heard", np.int64),
        ("length", np.int32),
        ("transposition", np.int32),
        ("strength", np.float64),
        ("line_s", np.float64),
        ("since_s", np.float64),
        ("pace", np.float64),
    ],
    align=True,
)
"""A place in a memory whose past agrees with the present.

`state` is the last one that agrees, counted in the segment whose first state is `segment`. Where a player's past agrees,
`heard` is its last state that does, and `state` the last of the others before what they did next; else `heard` is −1.
`length` is how many symbols agree, `strength` their worth (0 to 1), `transposition` how far the place is moved to agree. Memory
was at `line_s` of its line of time at the stream's `since_s`, and moves on at `pace`.
"""


@dataclass(frozen=True)
class Recent:
    """The last symbols of one kind of context: when the last one ended, and when each began, or nothing."""

    symbols: tuple[int, ...]
    since_s: float
    starts_s: tuple[float, ...]


def player_contexts(situation: Situation) -> dict[str, Recent]:
    """Return the player's recent symbols by context, without contexts that end in a silence or a break."""
    out: dict[str, Recent] = {}
    ended_s = situation.now_s if situation.ended_s is None else situation.ended_s
    for name, heard, nothing in (
        ("harmonic", situation.tokens[0], SILENCE),
        ("percussive", situation.tokens[1], SILENCE),
        ("loudness", situation.contour, CONTOUR_BREAK),
    ):
        symbols, starts_s, since_s = heard, situation.starts_s, ended_s
        if name in ("harmonic", "percussive"):
            # A source that fell silent meanwhile, as drums do between strokes, still points on from its last sound.
            silent = next((i for i, symbol in enumerate(reversed(symbols)) if symbol != nothing), len(symbols))
            if 0 < silent < len(symbols) == len(starts_s):
                since_s, symbols, starts_s = starts_s[-silent], symbols[:-silent], starts_s[:-silent]
        if symbols and symbols[-1] != nothing:
            out[name] = Recent(symbols, since_s, starts_s)
    if situation.rhythm and situation.rhythm[-1] != RHYTHM_BREAK and situation.onsets_s:
        out["rhythm"] = Recent(situation.rhythm, situation.onsets_s[-1], situation.onsets_s)
    return out


def find_matches(
    library: MemoryPool,
    name: str,
    recent: Recent,
    *,
    settings: PartnerSettings,
) -> Records:
    """Return where memory was in the same situation, `MATCH` of shape (k,), in each segment the longest common past first.

    Leaves out places that nothing follows; at most `PartnerSettings.max_candidates` in each segment.
    """
    found = [
        (segment, players, looked_up, _index(looked_up, name).candidates(
            recent.symbols, limit=settings.max_candidates, min_length=settings.min_context,
            max_length=settings.memory_gestures,
        ))
        for segment, players, looked_up in _where_to_look(library, name)
    ]  # fmt: skip
    matches = np.empty(sum(len(candidates) for *_, candidates in found), dtype=MATCH)
    kept, memory_s = np.empty(len(matches), dtype=bool), np.zeros(len(matches))
    first = 0
    for segment, players, looked_up, candidates in found:
        ends, lengths, own = candidates["position"], candidates["length"], slice(first, first + len(candidates))
        first = own.stop
        begins = ends - lengths + 1
        if name == "rhythm":
            ends, begins = looked_up.onset_states.take(ends), looked_up.onset_states.take(begins)
        here = matches[own]
        here["length"], here["transposition"] = lengths, 0
        kept[own] = _place(here, ends, segment, players, looked_up, name=name)
        if len(recent.starts_s) > 1:
            memory_s[own] = looked_up.line_s.take(ends) - looked_up.line_s.take(begins)
    lengths = matches["length"]
    speaks = _counted(recent.symbols).take(lengths) if name == "loudness" else lengths
    matches["strength"] = speaks / (speaks + 1)
    matches["since_s"] = recent.since_s
    matches["pace"] = _pace(memory_s, recent.starts_s, lengths)
    if name == "loudness":
        kept &= speaks > 0
    return matches if kept.all() else matches[kept]


def find_alike(
    library: MemoryPool, situation: Situation, transpositions: Int64, *, home: int, familiar: float, settings: PartnerSettings
) -> Records:
    """Return where memory's past is like the player's, not equal, in one of the transpositions (t,), `MATCH` of shape (k,).

    Another transposition than the one at `home` must be better by some. What was beside a player counts by that player's past
    as far as this player is `familiar` (0 to 1), and else by its own.
    """
    if situation.past is None or situation.last_chroma is None or not situation.past.any():
        return np.zeros(0, dtype=MATCH)
    found: list[Records] = []
    first: Alike | None = None
    for segment, players, looked_up in _where_to_look(library, "likeness"):
        alike = looked_up.pasts.alike(
            situation.past, situation.last_chroma, transpositions, home=home, penalty=settings.transposition_penalty,
            most=settings.max_candidates, turn=situation.heard,
        )  # fmt: skip
        # What was learned while playing is too little to say what is usual.
        first, states = first if first is not None and segment.live else alike, alike.states
        here = np.zeros(len(states), dtype=MATCH)
        here["transposition"], here["pace"] = alike.transpositions, 1.0
        here["since_s"] = since_s = situation.now_s if situation.ended_s is None else situation.ended_s
        here["strength"] = alike.strengths(first.usual, first.spread)
        if looked_up is not segment:
            here["strength"] *= familiar
        elif players is not None:
            here["strength"] *= np.where(players.paired.take(states), 1 - familiar, 1.0)
        kept = _place(here, states, segment, players, looked_up, name="likeness") & (here["strength"] > FAINTEST)
        if looked_up.live:
            # What the player has just played is like itself.
            kept &= looked_up.memory.states["start_s"].take(states) < since_s - EDGES_S[-1]
        found.append(here[kept])
    return np.concatenate(found)


def find_linked(library: MemoryPool, state: int, since_s: float, *, most: int) -> Records:
    """Return where the links of the Audio Oracle lead from a state that was played until `since_s`, `MATCH` of shape (k,).

    Those are places whose past is like that of the state, as far back as the oracle knows: so many gestures are counted as
    symbols are. The oracle of what was learned while playing grows with it.
    """
    segment, local = library.find(state)
    linked = segment.memory.oracle.alike(local + 1, most)
    ends = np.array([place - 1 for place, _ in linked], dtype=np.int64)
    matches = np.zeros(len(linked), dtype=MATCH)
    lengths = np.array([length for _, length in linked], dtype=np.int64)
    matches["strength"], matches["since_s"], matches["pace"] = lengths / (lengths + 1), since_s, 1.0
    return matches[_place(matches, ends, segment, segment.players, segment, name="own") & (lengths > 0)]


def _place(
    here: Records, ends: Int64, segment: MemorySegment, players: PlayersSegment | None, looked_up: MemorySegment, *, name: str
) -> Bool:
    """Fill in where memory is after states that agreed, and return which of them lead on."""
    here["segment"], here["state"], here["heard"] = segment.first, ends, -1
    # An onset was heard when it came; a gesture when it had ended, and memory is where the next one begins.
    here["line_s"] = looked_up.line_s.take(ends if name == "rhythm" else ends + 1, mode="clip")
    kept: Bool = ends < looked_up.last_of_recording(ends)
    if looked_up is not segment:
        kept &= _answer(segment, players, here, ends)
    elif players is not None and name not in ("own", "likeness"):
        kept &= ~players.paired.take(ends)
    return kept


def _where_to_look(library: MemoryPool, name: str) -> Iterator[tuple[MemorySegment, PlayersSegment | None, MemorySegment]]:
    """Yield each memory with its players and where to look a kind of context up: in the memory itself, or in theirs."""
    for segment in library.segments:
        players = segment.players
        if players is not None and name != "own":
            yield segment, players, players.segment
        if players is None or name in ("own", "likeness") or not players.paired.all():
            yield segment, players, segment


def _answer(segment: MemorySegment, players: PlayersSegment | None, here: Records, ends: Int64) -> Bool:
    """Move matches that end at states of the players to where the others were then; return which have a place there."""
    assert players is not None
    at_s = here["line_s"] + players.shift_s.take(ends)
    # The one before the state that begins nearest to what comes next.
    after = segment.line_s.searchsorted(at_s)
    before = np.maximum(after - 1, 0)
    nearer = at_s - segment.line_s.take(before) < segment.line_s.take(after, mode="clip") - at_s
    following = np.where(nearer, before, after)
    firsts, lasts = players.firsts.take(ends), players.lasts.take(ends)
    here["heard"], here["line_s"], here["state"] = ends, at_s, np.maximum(following - 1, firsts)
    return (following >= firsts) & (following <= lasts)


def _index(segment: MemorySegment, name: str) -> TokenIndex:
    if name == "rhythm":
        return segment.rhythm
    return segment.contour if name == "loudness" else segment.memory.indexes[int(name == "percussive")]


def _counted(symbols: tuple[int, ...]) -> Int64:
    """Return how many of the last 0, 1, … symbols of loudness are not steady, shape (n + 1,)."""
    spoke = (np.array(symbols) != CONTOUR_LEVEL).astype(np.int64)
    return np.concatenate([_NOTHING, np.add.accumulate(spoke[::-1])])


def _pace(memory_s: Float64, starts_s: tuple[float, ...], lengths: Int64) -> Float64:
    """Return how fast memory goes by for the player: its time over the player's, between the first and the last start."""
    if len(starts_s) < 2:
        return np.ones(len(memory_s))
    starts = np.array(starts_s)
    firsts = len(starts) - lengths
    player_s = starts[-1] - starts.take(np.maximum(firsts, 0))
    known = (firsts >= 0) & (player_s > 0) & (memory_s > 0)
    pace = np.minimum(np.maximum(memory_s / np.where(known, player_s, 1.0), _SLOWEST), _FASTEST)
    return np.where(known, pace, 1.0)


PEAKS = 1024
"""How many peaks of one kind of context there can be, a power of 2."""
_PASTS = 512
_ROUNDS = 1.5 * 2.0**22  # added and taken off, it rounds to 2^-30, the same on every processor
FAINTEST = 0.05
"""A peak that is weaker is over."""
_RANKS = 1.5 * 2.0**32  # and this one to 2^-20
# Of equally strong peaks the newest count: no two ranks are equal, so that no way of sorting can matter. At [f] is what to add
# to the places of a ring in which f is the oldest.
_NEWER: Float64 = np.lib.stride_tricks.sliding_window_view(np.tile(np.arange(PEAKS) * (2.0**-21 / PEAKS), 2), PEAKS)[PEAKS:0:-1]


@dataclass(frozen=True)
class Active:
    """Where the past points to now: places (k,), of those of one state and context the strongest last.

    The peak `peaks` (k,) of the context with the number `contexts` (k,) points to the state `states` (k,) by `values` (k,).
    """

    states: Int64
    contexts: Int64
    peaks: Int64
    values: Float64


class Activation:
    """The peaks that the past of the player and of the partner set on a memory."""

    def __init__(self) -> None:
        self._peaks = np.zeros((len(CONTEXTS), PEAKS), dtype=MATCH)
        # What ranks all peaks lies together. Of two peaks the one of the higher rank is the stronger one at any time.
        self._ranks = np.full((len(CONTEXTS), PEAKS), -np.inf)
        self._pasts_of = np.zeros((len(CONTEXTS), PEAKS), dtype=np.int64)
        self._counts = [0] * len(CONTEXTS)
        self._pasts: list[tuple[int, ...]] = [()] * _PASTS
        self._past = 0
        # The strongest peaks of each context, as they are asked for with this time constant and number, and of all together.
        self._asked = 0.0, 0
        self._strongest: list[Float64 | None] = [None] * len(CONTEXTS)
        self._together: Float64 | None = None

    def clear(self, name: str) -> None:
        """Let go of the peaks of one kind of context."""
        row = CONTEXTS.index(name)
        self._peaks["strength"][row], self._ranks[row] = 0, -np.inf
        self._strongest[row] = self._together = None

    def insert(self, name: str, matches: Records, symbols: tuple[int, ...]) -> None:
        """Set peaks for `MATCH`es of the context that ended in `symbols`."""
        row = CONTEXTS.index(name)
        count = self._counts[row]
        first, last = max(0, len(matches) - PEAKS), len(matches)
        while first < last:
            # As many as there is room for up to the ring's end, then the rest from its beginning.
            place = (count + first) % PEAKS
            end = min(last, first + PEAKS - place)
            places = slice(place, place + end - first)
            self._peaks[row, places] = matches[first:end]
            self._pasts_of[row, places] = self._past % _PASTS
            self._rank(row, places)
            first = end
        self._pasts[self._past % _PASTS] = symbols
        self._counts[row] = count + len(matches)
        self._past += 1
        self._strongest[row] = self._together = None

    def prepare(self, *, time_constant_s: float, most: int) -> Float64:
        """Find the `most` strongest peaks of each kind of context, so that `active` need not wait.

        Returns a column for each, by segment, then by strength: since when, strength, line, pace, segment, state, peak.
        """
        if (time_constant_s, most) != self._asked:
            self._asked = time_constant_s, most
            for row in range(len(CONTEXTS)):
                self._rank(row, slice(None))
            self._strongest, self._together = [None] * len(CONTEXTS), None
        if self._together is None:
            strongest = [
                self._find_strongest(row, most) if known is None else known for row, known in enumerate(self._strongest)
            ]
            self._strongest[:] = strongest
            columns = np.concatenate(strongest, axis=1)
            self._together = columns.take(np.lexsort((columns[0], columns[5])), axis=1)[1:]
        return self._together

    def _find_strongest(self, row: int, most: int) -> Float64:
        keys = self._ranks[row] + _NEWER[self._counts[row] % PEAKS]
        places = (keys > -np.inf).nonzero()[0]
        if len(places) > most:
            places = keys.argpartition(PEAKS - most)[PEAKS - most :]
        peaks = self._peaks[row].take(places)
        out = np.empty((8, len(places)))
        out[0] = keys.take(places)
        for column, name in enumerate(("since_s", "strength", "line_s", "pace", "segment", "state"), start=1):
            out[column] = peaks[name]
        out[7] = row * PEAKS + places
        return out

    def active(self, library: MemoryPool, now_s: float, *, time_constant_s: float, most: int) -> Active:
        """Return the states pointed to at `now_s`, by the `most` strongest peaks of each kind of context."""
        peaks = self.prepare(time_constant_s=time_constant_s, most=most)
        values = np.exp(np.minimum(peaks[0] - now_s, 0) / time_constant_s)
        values = (values * peaks[1] + _ROUNDS) - _ROUNDS
        loud = (values >= FAINTEST).nonzero()[0]
        since_s, _, line_s, pace, owners, matched, places = peaks.take(loud, axis=1)
        at_s = line_s + pace * np.maximum(0, now_s - since_s)
        reached = _reached(library, owners.astype(np.int64), matched.astype(np.int64), at_s)
        there = (reached >= 0).nonzero()[0]
        numbers = places.take(there).astype(np.int64)
        contexts = numbers // PEAKS
        return Active(reached.take(there), contexts, numbers - contexts * PEAKS, values.take(loud).take(there))

    def _rank(self, row: int, places: slice) -> None:
        """Rank peaks: log(strength · exp(since / τ)) · τ, rounded."""
        peaks = self._peaks[row, places]
        with np.errstate(divide="ignore"):
            ranks = peaks["since_s"] + self._asked[0] * np.log(peaks["strength"])
        self._ranks[row, places] = (ranks + _RANKS) - _RANKS

    def moves(self, name: str, peaks: Int64) -> Int64:
        """Return the transpositions in which peaks of a kind of context agree."""
        moves: Int64 = self._peaks["transposition"][CONTEXTS.index(name), peaks].astype(np.int64)
        return moves

    def source(self, name: str, peak: int, now_s: float) -> tuple[Records, tuple[int, ...], float]:
        """Return the `MATCH` behind a peak, the symbols that agreed, and its age in seconds."""
        row = CONTEXTS.index(name)
        match = self._peaks[row, peak]
        symbols = self._pasts[int(self._pasts_of[row, peak])][-int(match["length"]) :]
        return match, symbols, max(0.0, now_s - float(match["since_s"]))


def _reached(library: MemoryPool, owners: Int64, matched: Int64, at_s: Float64) -> Int64:
    """Return the state whose beginning is nearest to each place on the line of time, −1 for none.

    It lies behind the state that `matched`, in the same recording. `owners`, ascending, are the first states of the segments.
    """
    edges = owners.searchsorted([edge for segment in library.segments for edge in (segment.first, segment.first + 1)]).tolist()
    n = len(owners)
    after, lasts, counts = np.zeros(n, dtype=np.int64), np.full(n, -1), np.zeros(n, dtype=np.int64)
    before_s, after_s, lasts_s = np.zeros((3, n))
    for segment, begin, end in zip(library.segments, edges[::2], edges[1::2], strict=True):
        if begin < end:
            own, line_s = slice(begin, end), segment.line_s
            next_one = after[own] = line_s.searchsorted(at_s[own])
            counts[own] = len(line_s)
            before = np.maximum(next_one - 1, 0)
            # None but the one behind the last is out of bounds; "clip" only spares a copy.
            line_s.take(before, out=before_s[own], mode="clip")
            line_s.take(next_one, out=after_s[own], mode="clip")
            lasts_s[own] = segment.memory.states["duration_s"][before]
            lasts[own] = segment.last_of_recording(matched[own])
    since_s = at_s - before_s
    nearer = (after == counts) | (since_s < after_s - at_s)
    nearest = np.maximum(after - nearer, matched + 1)
    # Behind a recording's last state nothing is left to play.
    there = (nearest <= lasts) & ~(nearer & (since_s > lasts_s))
    return np.where(there, nearest + owners, -1)
