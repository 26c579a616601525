"""What each influence is worth for one partner: its weight there, against the usual one.

The partner hears its own recordings, in a memory of pairs the player's. At moments about a second apart each influence values
the states of memory, in the recorded key; those near the moment are left out, so that it cannot find itself. How much more
alike the three states valued most go on than all do is the influence's *lift*: chroma of the next second, correlated. Its part
of all lifts, against the part that is usual (`USUAL`), is its worth, drawn half way to 1, for a recording is short.

Over eight held-out duos, what is so found in the first half of a song says more of the order of the influences in the second
half than their usual order does (mean rank correlation 0.36 and 0.18; of pairs 0.14 and 0.11).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from musichal.arrays import Float64, rounded
from musichal.hearing.percepts import N_PITCHES, Percept
from musichal.memory.memory import Memory
from musichal.partner.harmony import unit_chroma
from musichal.partner.influences import INFLUENCES
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings

_NAMES = ("harmonic", "percussive", "likeness", "pairs", "chroma", "rhythm", "loudness")
USUAL: Mapping[bool, Mapping[str, float]] = {
    False: dict(zip(_NAMES, (0.22, 0.07, 0.28, 0.0, 0.33, 0.05, 0.05), strict=True)),
    True: dict(zip(_NAMES, (0.09, 0.05, 0.14, 0.18, 0.42, 0.04, 0.08), strict=True)),
}
"""The usual part of each influence in all lifts, of a memory without and with pairs: means over 17 songs to tune on."""
_APART_S, _STEP_S, _SPAN_S = 8.0, 1.0, 1.0
_MOST_S, _LEAST_S = 600.0, 20.0  # so much is heard in all, and of each recording at least
MOST_REHEARSALS = int(_MOST_S / _LEAST_S)
"""Of more recordings so many are enough."""
_LEAST_MOMENTS, _MOST_STATES, _BEST = 12, 2048, 3
_LEAST, _MOST = 0.5, 2.0


@dataclass(frozen=True)
class Rehearsal:
    """What was heard of a recording that memory is asked with; t is t + `offset_s` in the `recording` that is played from."""

    recording: int
    offset_s: float
    percepts: Callable[[], Iterable[Percept]]


def influence_worth(memory: Memory, rehearsals: Sequence[Rehearsal], *, sample_rate_hz: int) -> dict[str, float]:
    """Return what each influence is worth, `_LEAST` to `_MOST`; empty where there is too little to tell."""
    usual = {name: part for name, part in USUAL[memory.players is not None].items() if part}
    lifts = _lifts(memory, rehearsals, list(usual), sample_rate_hz)
    if lifts is None or lifts.sum() <= 0:
        return {}
    worth = np.sqrt(lifts / lifts.sum() / np.array(list(usual.values())))
    return dict(zip(usual, np.clip(np.round(worth, 2), _LEAST, _MOST).tolist(), strict=True))


def _lifts(memory: Memory, rehearsals: Sequence[Rehearsal], names: Sequence[str], rate_hz: int) -> Float64 | None:
    """Return the lift of each influence, shape (k,), at least 0; None where there are too few moments."""
    rows, columns = memory.states, [INFLUENCES.index(name) for name in names]
    states = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST_STATES)).astype(np.int64))
    follows = _followed_by(memory)
    longest_s = max(_LEAST_S, _MOST_S / len(rehearsals))
    found: list[Float64] = []
    settings = PartnerSettings(live_weight=0.0, max_transposition=0)
    for rehearsal in rehearsals:
        rng = np.random.default_rng(0)
        partner = Partner(memory, settings, rng=rng, sample_rate_hz=rate_hz, follows_pulse=False)
        own = np.flatnonzero(rows["recording"] == rehearsal.recording)
        next_s = _STEP_S
        for percept in rehearsal.percepts():
            now_s = percept.heard.available_at / rate_hz
            if now_s > longest_s:
                break
            # Training does not keep what tells the pulse and the tuning; the influences do not ask for them.
            salience = np.zeros((len(percept.heard.frame_samples), N_PITCHES), dtype=np.float32)
            partner.hear(replace(percept, heard=replace(percept.heard, salience=salience, thirds=None)), now_s)
            at_s = now_s + rehearsal.offset_s
            if now_s < next_s or not len(own) or not rows["start_s"][own[0]] <= at_s <= rows["start_s"][own[-1]]:
                continue
            next_s = now_s + _STEP_S
            here = own[np.searchsorted(rows["start_s"][own], at_s, side="right") - 1]
            apart = (rows["recording"][states] != rehearsal.recording) | (np.abs(rows["start_s"][states] - at_s) > _APART_S)
            others = states[apart]
            alike = follows[others] @ follows[here]
            if len(others) < 2 * _BEST or not follows[here].any():
                continue
            values = partner.weigh_all(now_s, others)[columns]
            best = np.argsort(-rounded(values), axis=1, kind="stable")[:, :_BEST]
            speaks = values.max(axis=1) > 0
            found.append(np.where(speaks, alike[best].mean(axis=1) - alike.mean(), 0.0))
    if len(found) < _LEAST_MOMENTS:
        return None
    return np.maximum(np.mean(found, axis=0), 0.0)


def _followed_by(memory: Memory) -> Float64:
    """Return the harmony of the second from each state on, `unit_chroma` of shape (n, 12)."""
    rows = memory.states
    sums = np.concatenate(
        [np.zeros((1, 12)), np.cumsum(rows["chroma"] * rows["duration_s"][:, None].astype(np.float64), axis=0)]
    )
    ends = np.empty(len(rows), dtype=np.int64)
    edges = [0, *(np.flatnonzero(np.diff(rows["recording"])) + 1).tolist(), len(rows)]
    for first, end in pairwise(edges):
        starts_s = rows["start_s"][first:end]
        ends[first:end] = first + np.searchsorted(starts_s, starts_s + _SPAN_S)
    return unit_chroma(sums[ends] - sums[np.arange(len(rows))])
