"""A performance offline: a partner answers a recording on the clock of the stream."""

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

CHANNEL = 0
"""MIDI channel of an answer, counted from 0."""
_BLOCK_S = 0.02


@dataclass(frozen=True)
class HeardStream:
    """What was heard of the player: `tokens` (sources, n) of frames at `frame_samples` (n,), levels (n,), chroma (n, 12)."""

    sample_rate_hz: int
    tokens: Int16
    frame_samples: Int64
    level_db: Float32
    chroma: Float32
    onset_samples: Int64


@dataclass(frozen=True)
class Performance:
    """A performance, in order of time.

    `entries` is the event log: what reached the partner, and when. `percept_lines` is what was heard of each segment, as a
    session stores it.
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
        Called with the share of the recording that was played, 0 to 1.
    on_drift : callable, optional
        Called when the input is no longer like the training, and when it is again.

    Raises
    ------
    InputError
        If the recording cannot be used, or is too short for a single frame.
    PartnerFileError
        If this installation's front end differs from the one the partner was trained with.
    """
    spec = model.spec
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=sample_rate_hz)
    partner = Partner(model.memory, settings, rng=np.random.default_rng(seed), sample_rate_hz=spec.sample_rate_hz)
    engine = Engine(listener, partner, sample_rate_hz=spec.sample_rate_hz, drift=DriftMonitor(model))
    drift: list[DriftReport] = []
    heard: list[HeardStream] = []
    lines: list[str] = []
    decisions: list[Decision] = []
    entries: list[Entry] = []
    block = max(1, round(_BLOCK_S * sample_rate_hz))
    for first in range(0, samples.shape[0] + block, block):
        step = engine.push(samples[first : first + block]) if first < samples.shape[0] else engine.finish()
        # Percepts hold the features of all frames; only what a performance needs is kept of them.
        heard += [_heard(percept, spec.sample_rate_hz) for percept in step.percepts]
        lines += [percept_to_json(percept) for percept in step.percepts]
        decisions += step.decisions
        drift += step.drift
        if on_drift is not None:
            for report in step.drift:
                on_drift(report)
        entries += entries_of(step.onsets, step.percepts)
        if progress is not None:
            progress(min(1.0, (first + block) / max(1, samples.shape[0])))
    if not heard:
        raise InputError("the input is too short: it has not one whole frame")
    entries.append(Ended(round(engine.now_s * spec.sample_rate_hz), plays_out=True))
    return Performance(_joined(heard), tuple(decisions), engine.now_s, tuple(drift), tuple(lines), tuple(entries))


def heard_stream(percepts: Sequence[Percept], sample_rate_hz: int) -> HeardStream:
    """Return the frames of percepts, at least one, as arrays."""
    return _joined([_heard(percept, sample_rate_hz) for percept in percepts])


def _heard(percept: Percept, sample_rate_hz: int) -> HeardStream:
    heard = percept.heard
    onsets = np.array(heard.onset_samples, dtype=np.int64)
    # A copy: `chroma` is a view of the whole window.
    return HeardStream(sample_rate_hz, percept.tokens, heard.frame_samples, heard.level_db, heard.chroma.copy(), onsets)


def _joined(parts: Sequence[HeardStream]) -> HeardStream:
    return HeardStream(
        sample_rate_hz=parts[0].sample_rate_hz,
        tokens=np.concatenate([p.tokens for p in parts], axis=1).reshape(len(SOURCES), -1),
        frame_samples=np.concatenate([p.frame_samples for p in parts]),
        level_db=np.concatenate([p.level_db for p in parts]),
        chroma=np.concatenate([p.chroma for p in parts]),
        onset_samples=np.concatenate([p.onset_samples for p in parts]),
    )


def note_events(decisions: Iterable[Decision], *, channel: int) -> list[Note]:
    """Return the notes of a performance as events on one channel, in order of decision."""
    return [
        Note(note.onset_s, note.duration_s, note.pitch, note.velocity, channel)
        for decision in decisions
        for note in decision.notes
    ]


def slice_events(decisions: Sequence[Decision], *, live_recording: int | None = None) -> list[Slice]:
    """Return the answer as slices of the partner's recordings: the sound of each state at the time it was played.

    States learned from the player are in recording `live_recording`; without one they are left out. Voices that share a state
    give one slice.
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
                    onset_s=decision.begin_s,
                    duration_s=decision.duration_s,
                    recording=live_recording if decision.live and live_recording is not None else decision.recording,
                    source_start_s=decision.source_start_s,
                    transposition_semitones=decision.transposition + 12 * decision.octaves,
                )
            )
    return events
