"""A performance offline: a recording is played to a partner on the virtual clock, and its answer collected."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float32, Int16, Int64
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import SOURCES, Percept
from musichal.live.drift import DriftMonitor, DriftReport
from musichal.live.engine import Engine
from musichal.live.session.event_log import Ended, Entry, entries_of, percept_to_json
from musichal.memory.partner_file import PartnerModel
from musichal.note import Note, Slice
from musichal.own_process import single_blas_thread
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import PartnerSettings

_BLOCK_S = 0.02


@dataclass(frozen=True)
class HeardStream:
    """What was heard of the player: tokens (sources, n) of frames at `frame_samples` (n,), with level and onsets."""

    sample_rate_hz: int
    tokens: Int16
    frame_samples: Int64
    level_db: Float32
    chroma: Float32
    onset_samples: Int64


@dataclass(frozen=True)
class Performance:
    """Everything that happened, in order of time.

    `entries` are what reached the partner, and when; `percept_lines` what was heard of each segment, as a session keeps it.
    """

    heard: HeardStream
    decisions: tuple[Decision, ...]
    duration_s: float
    drift: tuple[DriftReport, ...] = ()
    percept_lines: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


@single_blas_thread()
def perform(
    model: PartnerModel,
    samples: Float32,
    *,
    sample_rate_hz: int,
    settings: PartnerSettings,
    seed: int,
    progress: Callable[[float], None] | None = None,
    on_drift: Callable[[DriftReport], None] | None = None,
) -> Performance:
    """Let a partner answer a recording.

    The same partner, samples, settings and seed give the same performance.

    Parameters
    ----------
    model : PartnerModel
    samples : array of shape (n,) or (n, channels)
    sample_rate_hz : int
    settings : PartnerSettings
    seed : int
        For the partner's choices.
    progress : callable, optional
        Told how much of the recording has been played, 0 to 1.
    on_drift : callable, optional
        Told when what is heard is no longer like the training, and when it is again.

    Raises
    ------
    InputError
        If the recording cannot be heard, or is too short for a single frame.
    PartnerFileError
        If this installation hears in another way than the partner was trained with.
    """
    spec = model.spec
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=sample_rate_hz)
    partner = Partner(model.memory, settings, rng=np.random.default_rng(seed), sample_rate_hz=spec.sample_rate_hz)
    monitor = DriftMonitor(model, subscribers=() if on_drift is None else (on_drift,))
    engine = Engine(listener, partner, sample_rate_hz=spec.sample_rate_hz, drift=monitor)
    drift: list[DriftReport] = []
    percepts: list[Percept] = []
    decisions: list[Decision] = []
    entries: list[Entry] = []
    block = max(1, round(_BLOCK_S * sample_rate_hz))
    for first in range(0, samples.shape[0] + block, block):
        step = engine.push(samples[first : first + block]) if first < samples.shape[0] else engine.finish()
        percepts += step.percepts
        decisions += step.decisions
        drift += step.drift
        entries += entries_of(step.onsets, step.percepts)
        if progress is not None:
            progress(min(1.0, (first + block) / max(1, samples.shape[0])))
    if not percepts:
        raise InputError("the input is too short: there is not one whole frame of sound in it")
    entries.append(Ended(round(engine.now_s * spec.sample_rate_hz), plays_out=True))
    heard = heard_stream(percepts, spec.sample_rate_hz)
    lines = tuple(percept_to_json(percept) for percept in percepts)
    return Performance(heard, tuple(decisions), engine.now_s, tuple(drift), lines, tuple(entries))


def heard_stream(percepts: Sequence[Percept], sample_rate_hz: int) -> HeardStream:
    """Return what percepts, at least one, hold frame by frame."""
    return HeardStream(
        sample_rate_hz=sample_rate_hz,
        tokens=np.concatenate([p.tokens for p in percepts], axis=1).reshape(len(SOURCES), -1),
        frame_samples=np.concatenate([p.heard.frame_samples for p in percepts]),
        level_db=np.concatenate([p.heard.level_db for p in percepts]),
        chroma=np.concatenate([p.heard.chroma for p in percepts]),
        onset_samples=np.array([o for p in percepts for o in p.heard.onset_samples], dtype=np.int64),
    )


def note_events(decisions: Iterable[Decision], *, channel: int) -> list[Note]:
    """Return the notes of a performance as events on one channel, in order of decision."""
    return [
        Note(note.onset_s, note.duration_s, note.pitch, note.velocity, channel)
        for decision in decisions
        for note in decision.notes
    ]


def slice_events(decisions: Sequence[Decision], *, live_recording: int | None = None) -> list[Slice]:
    """Return the answer as slices of the partner's recordings: the sound of each state, where it was played.

    What was learned from the player is in recording `live_recording`; without one it has no sound, and is left out. Voices
    that share a state are one slice.
    """
    events = []
    choices: set[tuple[int, float]] = set()
    for decision in decisions:
        if (decision.choice, decision.time_s) in choices or (decision.live and live_recording is None):
            continue
        if decision.recording is not None and decision.source_start_s is not None:
            choices.add((decision.choice, decision.time_s))
            events.append(
                Slice(
                    onset_s=decision.time_s,
                    duration_s=decision.duration_s,
                    recording=live_recording if decision.live and live_recording is not None else decision.recording,
                    source_start_s=decision.source_start_s,
                    transposition_semitones=decision.transposition + 12 * decision.octaves,
                )
            )
    return events
