"""Partners and performances made by hand, small enough to know every number in them."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from musichal.arrays import AnyArray
from musichal.audio.files import encode_flac
from musichal.audio.recording import ingest, samples_digest
from musichal.hearing.beats import BEAT
from musichal.hearing.percepts import Gesture, stream_frame_count
from musichal.hearing.vocabulary import Vocabulary
from musichal.live.engine import HeardStream, Performance
from musichal.memory import container
from musichal.memory.beat_places import BeatPlace, beat_places
from musichal.memory.container import pack_arrays, read_container, write_container
from musichal.memory.memory import Memory, assign_notes
from musichal.memory.partner_file import PartnerModel, StoredRecording
from musichal.note import HeardNote, Note
from musichal.partner.decision import Decision, Influence
from musichal.spec import PerceptionSpec

SPEC = PerceptionSpec()
RATE = SPEC.sample_rate_hz


def grid_positions(n_samples: int) -> np.ndarray:
    """Return the centres of the frames of a stream on the default grid: 26 per segment of 8400 samples."""
    centres = [s + 320 * f + 200 for s in range(0, n_samples, 8400) for f in range(26) if s + 320 * f + 400 <= n_samples]
    assert len(centres) == stream_frame_count(n_samples, SPEC)
    return np.array(centres, dtype=np.int64)


def gesture(start_s: float, duration_s: float, tokens: tuple[int, int], vector: Sequence[float] = (0.0, 0.0)) -> Gesture:
    return Gesture(
        start_s=start_s,
        duration_s=duration_s,
        tokens=tokens,
        level_db=-20.0,
        chroma=np.eye(12, dtype=np.float32)[tokens[0] % 12],
        vector=np.array(vector, dtype=np.float32),
        starts_at_onset=True,
    )


def recording(
    name: str, gestures: Sequence[Gesture], *, seconds: float, rate: int = RATE, keep_audio: bool = True,
    beats: AnyArray | None = None,
) -> StoredRecording:  # fmt: skip
    """Return a recording whose frames have the tokens of the gesture that they lie in, silence outside."""
    n = round(seconds * rate)
    centres = grid_positions((2 * n * RATE + rate) // (2 * rate))
    times_s, tokens = centres / RATE, np.full((2, len(centres)), -1, dtype=np.int16)
    for g in gestures:
        first, end = np.searchsorted(times_s, (g.start_s, g.start_s + g.duration_s))
        tokens[:, first:end] = np.array(g.tokens)[:, None]
    period = rate // math.gcd(220, rate)  # a whole number of waves of 220 Hz
    samples = ingest(np.resize((0.5 * np.sin(2 * np.pi * 220 * np.arange(period) / rate)).astype(np.float32), n))
    return StoredRecording(
        name=name,
        sample_rate_hz=rate,
        n_samples=n,
        digest=samples_digest(samples),
        tokens=tokens,
        frame_samples=centres,
        level_db=np.full(len(centres), -9.0, dtype=np.float32),
        onset_samples=np.array([round(g.start_s * RATE) for g in gestures], dtype=np.int64),
        flac=encode_flac(samples, rate) if keep_audio else None,
        beats=np.zeros(0, dtype=BEAT) if beats is None else beats,
    )


def partner(
    parts: Sequence[tuple[StoredRecording, Sequence[Gesture], Sequence[HeardNote]]], spec: PerceptionSpec = SPEC,
    hits: Sequence[HeardNote] = (),
) -> PartnerModel:  # fmt: skip
    """Return a partner; each of its recordings has the same drum hits."""
    memory = Memory(dims=2, threshold=0.5)
    for number, (stored, gestures, notes) in enumerate(parts):
        places = beat_places(stored.beats, [g.start_s for g in gestures])
        assigned = (assign_notes(gestures, heard) for heard in (notes, hits))
        for g, own, struck, place in zip(gestures, *assigned, places, strict=True):
            memory.append(g, own, recording=number, beat=BeatPlace.of(place), hits=struck)
    vocabulary = Vocabulary(
        normalisation="scale",
        centres=np.zeros((64, 1), dtype=np.float32),
        scale=1.0,
        mean=np.zeros(0, dtype=np.float32),
        projection=np.zeros((0, 0), dtype=np.float32),
        spread=1.0,
        counts=np.zeros(64, dtype=np.int64),
    )
    return PartnerModel(
        spec, (vocabulary, vocabulary), memory, tuple(r for r, _, _ in parts), "MIT, no weights", {"musichal": "0"}
    )


def as_version_1(source: Path, target: Path, *, spec_too: bool = False) -> Path:
    """Write a partner file as MusicHal wrote it before it kept beats and drum hits; its spec, too, or that of `source`."""
    opened = read_container(source)
    left_out = ("arrays/beats-", "arrays/hits.")
    members = {name: opened.read(name) for name in opened.members if not name.startswith(left_out)}
    states = opened.read_arrays("arrays/states.safetensors")
    members["arrays/states.safetensors"] = pack_arrays({n: a for n, a in states.items() if n not in ("first_hit", "hit_count")})
    content = copy.deepcopy(opened.content)
    if spec_too:
        for name in ("strange_cost", "silent_share", "percussive_scale"):
            del content["spec"]["gestures"][name]
        del content["spec"]["onsets"]["dip_db"]
        content["spec"]["notes"] |= {"begin": 0.5, "min_duration_s": 0.08}
        content["fingerprint"] = PerceptionSpec.from_dict(content["spec"]).fingerprint()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "FORMAT_VERSION", 1)
        write_container(target, content=content, members=members)
    return target


def row_of_gestures(tokens: Sequence[tuple[int, int]], *, each_s: float = 0.25) -> list[Gesture]:
    """Return gestures one after the other; equal tokens get equal vectors."""
    return [gesture(i * each_s, each_s, pair, (pair[0], pair[1])) for i, pair in enumerate(tokens)]


def song(name: str, harmonic: Sequence[int], percussive: Sequence[int], notes: Sequence[HeardNote] = (), **kwargs: object):
    """Return one part of a partner: a quarter of a second per pair of tokens."""
    gestures = row_of_gestures(list(zip(harmonic, percussive, strict=True)))
    seconds = max(0.35, 0.25 * len(gestures))
    return recording(name, gestures, seconds=seconds, **kwargs), gestures, list(notes)


def played(
    number: int, time_s: float, source_s: float, duration_s: float, *, by: str = "harmonic", jumped: bool = False,
    recording: int = 0, pitches: Sequence[int] = (),
) -> Decision:  # fmt: skip
    others = [n for n in ("harmonic", "percussive", "chroma", "continuity") if n != by]
    shares = [Influence(by, 1.0, 1.0, 0.7), Influence(others[0], 0.5, 1.0, 0.3), Influence(others[1], 0.0, 1.0, 0.0)]
    return Decision(
        number=number, time_s=time_s, kind="play", state=number, recording=recording, source_start_s=source_s,
        duration_s=duration_s, jumped=jumped, score=1.0, earnable=3.3, influences=tuple(shares),
        notes=tuple(Note(time_s, duration_s, p, 90) for p in pitches),
    )  # fmt: skip


def rested(number: int, time_s: float, why: str) -> Decision:
    return Decision(number=number, time_s=time_s, kind="rest", rest=why)


def performance(decisions: Sequence[Decision], *, seconds: float, tokens: np.ndarray | None = None) -> Performance:
    centres = grid_positions(round(seconds * RATE))
    n = len(centres)
    if tokens is None:
        tokens = np.stack([np.arange(n) // 20 % 5, np.full(n, -1)]).astype(np.int16)
    heard = HeardStream(
        sample_rate_hz=RATE,
        tokens=tokens,
        frame_samples=centres,
        level_db=np.full(n, -20, dtype=np.float32),
        chroma=np.zeros((n, 12), dtype=np.float32),
        onset_samples=np.zeros(0, dtype=np.int64),
    )
    return Performance(heard, tuple(decisions), seconds)
