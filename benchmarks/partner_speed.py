"""Speed of deciding and learning: a partner with a large memory, every influence, filter and voice at work.

Conventions
-----------
Each measurement runs in a process of its own with one BLAS thread; times are CPU time where the platform's clock is fine
enough for it. The memory is music-like: phrases of gestures that come back varied, with a harmony that wanders, notes, and a
rhythm. The player plays phrases of the same kind, in another key now and then, so that contexts of all lengths match.

The way is that of a performance on stage: a `EventLoop` tells the partner of onsets and percepts in the order in which they
are known and asks for what falls due before each; Python's collector leaves alone what was there at the beginning.
A decision is `Partner.decide`: candidates by activation and harmony in 12 transpositions, all filters, one choice, three
voices, the record. Learning is one gesture with its notes into the memory of this performance; hearing is `Partner.hear` as a
whole, three gestures a percept. Of the first decisions, which find caches cold and little learned, `_WARM` are not counted.

The peer's figure is its published one, measured by others on another machine of the same class; it is no part of this run.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.figure import Figure
from benchmarks.memory_speed import token_string
from benchmarks.process import in_own_process, peak_memory_mb
from musichal.arrays import AnyArray, Int64
from musichal.hearing.percepts import Gesture, Onset, Percept, SegmentFeatures
from musichal.live.engine import EventLoop
from musichal.machine import short_pauses
from musichal.memory.audio_oracle import AudioOracle
from musichal.memory.memory import NOTE, STATE, Memory
from musichal.note import HeardNote
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings

PEER = "Somax2 2.7, core alone, p99 with 7 transpositions on 10,671 events, published"
_PEER_P99_MS = 35.0
_MODULE = "benchmarks.partner_speed"
_RATE = 24_000
_SEGMENT = 8_400
_DIMS = 1
_KINDS = 10
"""How many kinds of vectors the player's gestures have, about as many as in a recording."""
_DECIDED_AFTER = 720
"""How many samples after an onset the light path has decided it."""
_WARM = 200
BUSY = PartnerSettings.from_dict(
    {
        "avoid": "0:1-2",
        "low_pitch": 28,
        "high_pitch": 100,
        "voices": "melody,bass,chords",
        "follow_register": 0.3,
        "rest_below": 0.0,
        "rest_after_silence_s": 1e6,
    }
)
"""Settings under which every filter has work to do and the partner never rests."""


def measure_partner(*, small: int = 10_000, large: int = 1_000_000, decisions: int = 3000, seed: int = 0) -> tuple[Figure, ...]:
    """Measure decisions and learning at two sizes of memory, in about two minutes at full size."""
    figures: list[Figure] = []
    for n, goal_ms in ((small, 2.0), (large, 3.0)):
        got, free = (
            in_own_process(_MODULE, "perform", n=n, decisions=decisions, seed=seed, when=when) for when in ("pulse", "free")
        )
        at = f"at {n:,} gestures"
        peer = {"peer": PEER, "peer_value": _PEER_P99_MS} if n == small else {}
        figures += [
            Figure(f"decision p99 {at}", got["decide_p99_ms"], "ms", goal=goal_ms, **peer),  # type: ignore[arg-type]
            Figure(f"decision p99 in time, of that in free time, {at}", got["decide_p99_ms"] / free["decide_p99_ms"], ""),
            Figure(f"decision median {at}", got["decide_median_ms"], "ms"),
            Figure(f"decision max {at}", got["decide_max_ms"], "ms"),
            Figure(f"learning a live gesture p99 {at}", got["learn_p99_ms"], "ms", goal=0.5),
            Figure(f"learning a live gesture median {at}", got["learn_median_ms"], "ms"),
            Figure(f"hearing a percept p99 {at}", got["hear_p99_ms"], "ms"),
            Figure(f"hearing a percept median {at}", got["hear_median_ms"], "ms"),
            Figure(f"growth over {decisions:,} decisions {at}", got["growth_mb"], "MB", goal=16.0),
            Figure(f"making ready {at}", got["ready_s"], "s"),
        ]
    return tuple(figures)


def music_like_memory(n: int, *, rng: np.random.Generator) -> Memory:
    """Return a memory of `n` gestures."""
    states = np.zeros(n, dtype=STATE)
    harmonic, percussive = token_string("phrases", n, rng=rng), token_string("markov", n, rng=rng)
    states["tokens"][:, 0], states["tokens"][:, 1] = harmonic, percussive
    # Sixteenths at 120 beats a minute, of lengths that belong to the token, so that rhythm comes back with the phrase.
    states["duration_s"] = 0.125 * (1 + harmonic % 4)
    states["start_s"] = np.concatenate([[0.0], np.cumsum(states["duration_s"].astype(np.float64))[:-1]])
    states["ioi_s"][1:] = np.diff(states["start_s"])
    states["level_db"] = -20 + 3 * (harmonic % 5) + rng.normal(size=n)
    states["chroma"] = chroma_of(harmonic, key=(np.arange(n) // 200 * 7) % 12, rng=rng)
    states["starts_at_onset"] = True
    states["beat_phase"], states["beat_period_s"] = states["start_s"] / 0.5 % 1, 0.5
    states["bar_place"], states["beat_confidence"] = -1, 0.9
    counts = harmonic % 4
    states["note_count"] = counts
    states["first_note"] = np.concatenate([[0], np.cumsum(counts)[:-1]])
    notes = np.zeros(int(counts.sum()), dtype=NOTE)
    owner = np.repeat(np.arange(n), counts)
    notes["pitch"] = 40 + (7 * harmonic[owner] + 5 * (np.arange(len(notes)) - states["first_note"][owner])) % 48
    notes["duration_s"], notes["velocity"] = 0.2, 80
    # A sound for each token, so that the oracle has as many clusters, and repeats as they do.
    oracle = AudioOracle.from_vectors(harmonic[:, None].astype(np.float32), threshold=0.5)
    return Memory.restore(states, notes, oracle)


def chroma_of(tokens: Int64, *, key: AnyArray, rng: np.random.Generator) -> AnyArray:
    """Return a chroma for each token: a triad on a degree of the key, with noise; shape (n, 12)."""
    roots = (np.asarray(key) + np.array([0, 2, 4, 5, 7, 9])[tokens % 6]) % 12
    chroma = 0.15 * rng.random((len(tokens), 12))
    for step, strength in ((0, 1.0), (4, 0.7), (7, 0.8)):
        chroma[np.arange(len(tokens)), (roots + step) % 12] += strength
    return chroma.astype(np.float32)


def player(n: int, *, rng: np.random.Generator, dims: int = _DIMS) -> Iterator[Percept]:
    """Yield `n` percepts of a player of the same kind, three gestures a percept, with vectors of `dims`."""
    harmonic = token_string("phrases", 3 * n, rng=rng)
    percussive = token_string("markov", 3 * n, rng=rng)
    chromas = chroma_of(harmonic, key=np.arange(3 * n) // 120, rng=rng)
    each_s = _SEGMENT / _RATE / 3
    for index in range(n):
        gestures, notes = [], []
        for i in range(3 * index, 3 * index + 3):
            tokens = (int(harmonic[i]), int(percussive[i]))
            vector = np.zeros(dims, np.float32)
            vector[0] = tokens[0] % _KINDS
            gestures.append(Gesture(i * each_s, each_s, tokens, -20.0 + tokens[0] % 7, chromas[i], vector, True))
            notes.append(HeardNote(i * each_s, 0.2, 48 + tokens[0] % 24, 90))
        start, frames = index * _SEGMENT, np.arange(26) * 320 + 200
        yield Percept(
            SegmentFeatures(
                index=index, start_sample=start, length_samples=_SEGMENT, available_at=start + _SEGMENT,
                frame_samples=frames + start, features=(np.zeros((26, 1), np.float32),) * 2,
                source_level_db=np.full((2, 26), -20, np.float32), audible=np.ones((2, 26), dtype=np.bool_),
                level_db=np.full(26, -20, np.float32), chroma=np.repeat(chromas[3 * index : 3 * index + 1], 26, axis=0),
                salience=np.zeros((26, 61), np.float32), onset_samples=(start, start + _SEGMENT // 2), notes=tuple(notes),
            ),
            np.zeros((2, 26), np.int16),
            tuple(gestures),
        )  # fmt: skip


class TimedPartner:
    """A partner whose times are taken: of each decision, percept and gesture, in seconds by `clock`."""

    def __init__(self, partner: Partner, clock: Callable[[], float]) -> None:
        self._partner, self._clock = partner, clock
        self.decide_s: list[float] = []
        self.hear_s: list[float] = []
        self.learn_s: list[float] = []
        partner.library.learn = self._timed(partner.library.learn, self.learn_s)  # type: ignore[method-assign]

    def _timed(self, call: Callable[..., Any], took_s: list[float]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began_s = self._clock()
            returned = call(*args, **kwargs)
            took_s.append(self._clock() - began_s)
            return returned

        return timed

    @property
    def due_s(self) -> float | None:
        """When it wants to decide next."""
        return self._partner.due_s

    def hear(self, percept: Percept, now_s: float) -> None:
        """Take the next percept."""
        self._timed(self._partner.hear, self.hear_s)(percept, now_s)

    def hear_onset(self, onset_s: float, now_s: float, pitches: Sequence[int] = (), *, is_drum: bool = False) -> None:
        """Learn of an onset."""
        self._partner.hear_onset(onset_s, now_s, pitches, is_drum=is_drum)

    def change(self, changes: Mapping[str, object], now_s: float) -> None:
        """Take the player's wishes."""
        self._partner.change(changes, now_s)

    def decide(self, now_s: float) -> tuple[Decision, ...]:
        """Decide what is due."""
        decided: tuple[Decision, ...] = self._timed(self._partner.decide, self.decide_s)(now_s)
        return decided


def _perform(n: int, decisions: int, seed: int, when: str) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    memory = music_like_memory(n, rng=rng)
    clock = time.process_time if time.get_clock_info("process_time").resolution < 1e-6 else time.perf_counter
    start = clock()
    partner = Partner(memory, BUSY.changed({"time": when}), rng=np.random.default_rng(seed), sample_rate_hz=_RATE)
    ready_s = clock() - start
    return {"ready_s": ready_s, **decided(TimedPartner(partner, clock), decisions, rng=rng)}


def decided(timed: TimedPartner, decisions: int, *, rng: np.random.Generator, dims: int = _DIMS) -> dict[str, float]:
    """Let a partner play with a player until it has decided so often; return its times, and how its memory grew."""
    loop = EventLoop(timed, sample_rate_hz=_RATE)
    before_mb: float | None = None
    warm = min(_WARM, decisions // 5)
    with short_pauses():
        for percept in player(2 * (warm + decisions), rng=rng, dims=dims):
            onsets = [Onset(sample, sample + _DECIDED_AFTER) for sample in percept.heard.onset_samples]
            loop.listen([*onsets, percept], until=percept.heard.available_at)
            if before_mb is None and len(timed.decide_s) >= warm:
                before_mb, heard, learned = peak_memory_mb(), len(timed.hear_s), len(timed.learn_s)
            if len(timed.decide_s) >= warm + decisions:
                break
    assert before_mb is not None, "it has decided"
    return {
        "growth_mb": peak_memory_mb() - before_mb,
        **_spread("decide", timed.decide_s[warm:]),
        **_spread("hear", timed.hear_s[heard:]),
        **_spread("learn", timed.learn_s[learned:]),
    }


def _spread(name: str, took_s: list[float]) -> dict[str, float]:
    """Return median, 99th percentile and largest of a list of times, in milliseconds."""
    median, p99, largest = (1000 * np.quantile(took_s, [0.5, 0.99, 1.0])).tolist()
    return {f"{name}_median_ms": median, f"{name}_p99_ms": p99, f"{name}_max_ms": largest}


def _main(settings: dict[str, Any]) -> None:
    settings.pop("job")
    sys.stdout.write(json.dumps(_perform(**settings)))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
