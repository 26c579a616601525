"""Alignment: whether live hearing is what training heard, token by token, and if not, where and why.

A recording is pushed through the live path in random block sizes, and its tokens, gestures, notes, drum hits and beats are
compared with those that the partner holds. If anything differs, `musichal.evaluate.stages` finds the stage of hearing where it
arises.

Conventions
-----------
Positions are samples at the spec's rate. `frame_samples` has shape (n,), tokens (sources, n). Comparisons are exact.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from musichal.arrays import AnyArray, Bool, Float32, Int16, Int64, Records
from musichal.audio.midi_take import MidiTake
from musichal.audio.recording import ingest, samples_digest
from musichal.errors import InputError
from musichal.evaluate.checks import Check
from musichal.evaluate.stages import SampleAudit, compare_stages, token_words
from musichal.hearing.beats import BEAT
from musichal.hearing.encoders import create_encoder
from musichal.hearing.exact_notes import OnsetQueue, is_exact, known_of, known_or_found_beats, with_notes
from musichal.hearing.listener import Listener, Tap
from musichal.hearing.percepts import SILENCE, SOURCES, Gesture, Percept
from musichal.memory.beat_places import BeatPlace, beat_places
from musichal.memory.memory import NOTE, STATE, Memory, assign_notes, note_rows, state_row
from musichal.memory.partner_file import PartnerModel, StoredRecording
from musichal.note import HeardNote

LARGEST_BLOCK_S = 1.5
STRETCH_S = 60.0
"""How much of a recording is compared stage by stage although nothing differs."""
_BEYOND_S = 5.0  # behind the first difference, to see whether it lasts
_FEW = 0.2  # a share of frames
_ROUNDING = 1e-4  # squared distances are sums of some hundred float32 products


@dataclass(frozen=True)
class LiveStream:
    """What a live pass over a recording gave.

    `frame_samples` (n,), `tokens` and `audible` (sources, n), `features` one (n, dims) array per source, `segments` (n,) the
    index of each frame's segment; `gestures`, `notes` and `hits` in the order in which they came; `beats` the grid. The notes
    of a MIDI player are `is_exact`.
    """

    frame_samples: Int64
    tokens: Int16
    audible: Bool
    features: tuple[Float32, ...]
    segments: Int64
    gestures: tuple[Gesture, ...]
    notes: tuple[HeardNote, ...]
    hits: tuple[HeardNote, ...]
    beats: Records
    is_exact: bool = False


@dataclass(frozen=True)
class Subject:
    """A recording to check with: its sound (n,), and what the partner holds of it (None if it is new to the partner).

    `take` is what is known of a MIDI player in a new one.
    """

    name: str
    sample_rate_hz: int
    samples: Float32
    stored: StoredRecording | None
    take: MidiTake | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples.shape[0] / self.sample_rate_hz

    def beginning(self, seconds: float) -> Float32:
        """Return the first `seconds` of the sound."""
        return self.samples[: round(seconds * self.sample_rate_hz)]


@dataclass(frozen=True, kw_only=True)
class HeardRecording:
    """A recording as the partner holds it, beside the same recording heard live, now.

    For a recording that the partner does not hold, `is_new` is True and the stored arrays are those of a first hearing.
    """

    name: str
    duration_s: float
    is_new: bool
    frame_samples: Int64
    stored_tokens: Int16
    live_frame_samples: Int64
    live_tokens: Int16

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the streams."""
        frames = {"frames": len(self.frame_samples), "live_frames": len(self.live_frame_samples)}
        return {"name": self.name, "duration_s": self.duration_s, "is_new": self.is_new, **frames}


@dataclass(frozen=True)
class Parity:
    """How far live hearing of a recording agrees with training.

    `equal` of `frames` tokens of both sources agree; `agreement` is their share. `cause` is the likely cause of a difference
    and `stage` (one of `stages.STAGES`) where it arises; both are empty if there is none, or if it lies in the stored stream.
    `checks` hold the details, and `heard` both token streams.
    """

    frames: int
    equal: int
    stage: str
    cause: str
    checks: tuple[Check, ...] = field(repr=False)
    heard: HeardRecording = field(repr=False)
    live: LiveStream = field(repr=False)

    @property
    def agreement(self) -> float:
        """Share of equal tokens, 0 to 1."""
        return self.equal / self.frames


class _HasModel(Protocol):
    """A `musichal.Partner`."""

    model: PartnerModel


def parity(partner: _HasModel | PartnerModel, y: Float32, sr: int, *, seed: int = 0) -> Parity:
    """Check that a partner hears a recording live exactly as in training.

    The recording goes through the live path in random block sizes. It is compared with the tokens stored in the partner if
    the partner was trained on it, and else with a second pass in other block sizes.

    Parameters
    ----------
    partner : Partner
    y : ndarray of shape (n,)
        Mono samples, −1 to 1.
    sr : int
        Sample rate in Hz.
    seed : int
        Seed of the block sizes.

    Returns
    -------
    Parity
        Its `agreement` is 1.0 if every token is equal.

    Raises
    ------
    InputError
        If the recording is too short, or the encoder is not the partner's.

    Examples
    --------
    >>> import musichal as mh
    >>> y, sr = mh.read_audio(mh.example("band"))
    >>> partner = mh.train((y[: 10 * sr], sr))
    >>> mh.evaluate.parity(partner, y[: 10 * sr], sr).agreement
    1.0
    """
    model = partner if isinstance(partner, PartnerModel) else partner.model
    samples = ingest(np.ascontiguousarray(y, dtype=np.float32))
    known = {(r.digest, r.sample_rate_hz): r for r in model.recordings}
    subject = Subject("recording", sr, samples, known.get((samples_digest(samples), sr)))
    return check_recording(model, subject, random_blocks(subject, [seed, 0]))


def random_blocks(
    subject: Subject, seed: Sequence[int] | np.random.Generator, *, largest_s: float = LARGEST_BLOCK_S
) -> tuple[int, ...]:
    """Return block sizes from one sample to `largest_s`, evenly spread over orders of magnitude, for a whole recording."""
    rng, left, sizes = np.random.default_rng(seed), len(subject.samples), []
    largest = round(largest_s * subject.sample_rate_hz)
    while left:
        sizes.append(min(left, int(np.exp(rng.uniform(0.0, np.log(largest + 1))))))
        left -= sizes[-1]
    return tuple(sizes)


def even_blocks(n_samples: int, size: int) -> tuple[int, ...]:
    """Return block sizes of `size`, the last one shorter, that add up to `n_samples`."""
    return tuple(min(size, n_samples - first) for first in range(0, n_samples, size))


def hear_live(
    model: PartnerModel,
    samples: Float32,
    *,
    sample_rate_hz: int,
    blocks: Iterable[int],
    tap: Tap | None = None,
    progress: Callable[[float], None] | None = None,
    with_beats: bool = True,
    take: MidiTake | None = None,
) -> LiveStream:
    """Push samples (n,) through the live path in blocks of the given sizes; `tap` sees each window on its way.

    Without `with_beats` none are looked for. `take` is what is known of a MIDI player.
    """
    spec = model.spec
    known = known_of(take, spec)
    onsets = OnsetQueue(known.onsets) if known is not None else None
    encoder = create_encoder(spec)
    listener = Listener(spec, encoder, model.vocabularies, source_rate_hz=sample_rate_hz, tap=tap, known=onsets)
    percepts: list[Percept] = []
    first = 0
    for size in blocks:
        percepts += listener.push(samples[first : first + size]).percepts
        first += size
        if progress is not None:
            progress(first / samples.shape[0])
    rest = listener.flush()
    percepts += rest.percepts
    if not percepts:
        raise InputError("the recording is too short: there is not one whole frame of sound in it")
    if known is not None:
        percepts = list(with_notes(percepts, known, sample_rate_hz=spec.sample_rate_hz))
    beats = np.zeros(0, dtype=BEAT)
    if with_beats:
        beats = known_or_found_beats(take, (p.heard for p in percepts), sample_rate_hz=spec.sample_rate_hz)
    return LiveStream(
        frame_samples=np.concatenate([p.heard.frame_samples for p in percepts]),
        tokens=np.concatenate([p.tokens for p in percepts], axis=1),
        audible=np.concatenate([p.heard.audible for p in percepts], axis=1),
        features=tuple(np.concatenate([p.heard.features[s] for p in percepts]) for s in range(len(SOURCES))),
        segments=np.concatenate([np.full(p.tokens.shape[1], p.heard.index, dtype=np.int64) for p in percepts]),
        gestures=tuple(g for p in percepts for g in p.gestures) + rest.gestures,
        notes=tuple(n for p in percepts for n in p.heard.notes) + rest.notes if take is None else take.notes,
        hits=tuple(h for p in percepts for h in p.heard.hits) + rest.hits if take is None else take.hits,
        beats=beats,
        is_exact=is_exact(take),
    )


def check_recording(
    model: PartnerModel,
    subject: Subject,
    blocks: Sequence[int],
    *,
    always_s: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> Parity:
    """Hear a recording through the live path and compare it with what the partner holds.

    Stages are compared over the first `always_s`, and up to the first difference if there is one.
    """
    rate = subject.sample_rate_hz
    audit = SampleAudit(model.spec, subject.samples, sample_rate_hz=rate)
    take = subject.stored.take if subject.stored is not None else subject.take
    live = hear_live(model, subject.samples, sample_rate_hz=rate, blocks=blocks, tap=audit.tap, progress=progress, take=take)
    stored, is_new = subject.stored, subject.stored is None
    beats: Records | None
    if stored is None:
        other = even_blocks(len(subject.samples), rate)
        again = hear_live(model, subject.samples, sample_rate_hz=rate, blocks=other, take=take)
        positions, tokens, held, beats = again.frame_samples, again.tokens, as_states(again), again.beats
    else:
        positions, tokens, beats = stored.frame_samples, stored.tokens, stored.beats
        number = _number(model, stored)
        held = stored_states(model.memory.of_recording(number), number)
    heard = HeardRecording(
        name=subject.name,
        duration_s=subject.duration_s,
        is_new=is_new,
        frame_samples=positions,
        stored_tokens=tokens,
        live_frame_samples=live.frame_samples,
        live_tokens=live.tokens,
    )
    of_tokens = token_checks(model, heard, live)
    if beats is None:  # from before beats and hits were kept: there is nothing to compare with
        live = replace(live, beats=np.zeros(0, dtype=BEAT), hits=())
    of_states = state_checks(subject.name, held, as_states(live), is_new=is_new)
    if beats is not None:
        of_states += (_beat_check(subject.name, beats, live.beats, is_new=is_new),)
    parted = [s for s in (audit.first_s, *(c.values["parts_at_s"] for c in of_tokens)) if s is not None]
    ends = [*(s + _BEYOND_S for s in parted), *([always_s] if always_s else [])]
    of_stages: tuple[Check, ...] = ()
    stage = cause = ""
    if ends:
        compared = compare_stages(
            model, subject.samples, sample_rate_hz=rate, blocks=blocks, audit=audit, until_s=max(ends), progress=progress
        )
        of_stages, stage, cause = compared.checks(subject.name), compared.stage, compared.cause
    # What was seen stage by stage says more than tokens or states alone.
    of_tokens, of_states = (
        tuple(c if c.passed or not cause else replace(c, cause=cause) for c in checks) for checks in (of_tokens, of_states)
    )
    return Parity(
        frames=sum(c.values["frames"] for c in of_tokens),
        equal=sum(c.values["equal"] for c in of_tokens),
        stage=stage,
        cause=cause or next((c.cause for c in of_tokens if not c.passed), ""),
        checks=(*of_tokens, audit.check(subject.name), *of_states, *of_stages),
        heard=heard,
        live=live,
    )


def _number(model: PartnerModel, stored: StoredRecording) -> int:
    """Return the number of a recording in the memory; of two that are the same, its own."""
    same = [n for n, r in enumerate(model.recordings) if (r.digest, r.sample_rate_hz) == (stored.digest, stored.sample_rate_hz)]
    return next((n for n in same if model.recordings[n] is stored), same[0])


# Tokens


def token_checks(model: PartnerModel, heard: HeardRecording, live: LiveStream) -> tuple[Check, ...]:
    """Return one check per source: live tokens against the stored ones."""
    return tuple(_token_check(model, heard, live, source) for source in range(len(SOURCES)))


def _token_check(model: PartnerModel, heard: HeardRecording, live: LiveStream, source: int) -> Check:
    positions, tokens, rate = heard.frame_samples, heard.stored_tokens[source], model.spec.sample_rate_hz
    n, longest = sorted((len(positions), len(live.frame_samples)))
    differs = (tokens[:n] != live.tokens[source, :n]) | (positions[:n] != live.frame_samples[:n])
    same = n - int(differs.sum())
    passed = same == longest
    detail = "new to the partner: heard twice, in other blocks" if heard.is_new else "blocks of random sizes"
    first: dict[str, Any] | None = None
    parts_at_s = None if passed else float(positions[max(0, n - 1)]) / rate if len(positions) else 0.0
    if differs.any():
        frame = int(differs.argmax())
        vocabulary = model.vocabularies[source]
        x = vocabulary.normalise(live.features[source][frame : frame + 1])
        distances = vocabulary.distances(x)[0] / vocabulary.spread
        stored, now = int(tokens[frame]), int(live.tokens[source, frame])
        parts_at_s = float(positions[frame]) / rate
        first = {
            "source": SOURCES[source],
            "frame": frame,
            "time_s": parts_at_s,
            "stored": stored,
            "live": now,
            "distance_to_stored": None if stored == SILENCE else float(distances[stored]),
            "distance_to_live": None if now == SILENCE else float(distances[now]),
        }
        words = [
            token_words(token) + ("" if token == SILENCE else f" (distance {distances[token]:.4g})") for token in (stored, now)
        ]
        detail = f"first at frame {frame} ({parts_at_s:.3f} s): stored {words[0]}, live {words[1]};"
        detail += " distances in units of the vocabulary's spread"
    return Check(
        group="parity",
        name=f"{heard.name}, {SOURCES[source]}, {'heard again' if heard.is_new else 'live'}",
        expected=f"{longest} of {longest}",
        found=f"{same} of {longest}" + ("" if passed else f" ({same / longest:.4%})"),
        passed=passed,
        detail=detail,
        cause="" if passed else _stored_cause(model, heard, live, source),
        values={"frames": longest, "equal": same, "share": same / longest, "parts_at_s": parts_at_s, "first_difference": first},
    )


def _stored_cause(model: PartnerModel, heard: HeardRecording, live: LiveStream, source: int) -> str:
    """Return why the stored stream differs although this installation agrees with itself at every stage."""
    stored, now = heard.stored_tokens[source], live.tokens[source]
    if not np.array_equal(heard.frame_samples, live.frame_samples):
        return f"live has {len(now)} frames, training {len(stored)}: another rate, or sound was lost"
    differs = stored != now
    if ((stored == SILENCE) != (now == SILENCE))[differs].mean() > 0.5:
        return "mostly silence against sound: another level or another gate"
    vocabulary = model.vocabularies[source]
    frames = np.flatnonzero(differs & (stored != SILENCE) & (now != SILENCE))
    distances = vocabulary.distances(vocabulary.normalise(live.features[source][frames])) / vocabulary.spread
    each = np.arange(frames.size)
    to_stored, to_live = distances[each, stored[frames]], distances[each, now[frames]]
    if float((to_stored - to_live).max(initial=0.0)) <= _ROUNDING * max(1.0, float(to_live.max(initial=0.0))):
        return "rounding only: the libraries or the processor compute the last bits in another way than where it was trained"
    if float(differs.mean()) < _FEW:
        return "a few features are a little off: other library versions than where it was trained"
    return "features and vocabulary do not belong together: another encoder, or another recording's vocabulary"


# Gestures, notes, hits and beats


@dataclass(frozen=True)
class States:
    """One recording's part of a memory: `STATE` (n,), the vectors (n, dims), notes and drum hits, each `NOTE` (m,)."""

    states: AnyArray
    vectors: Float32
    notes: AnyArray
    hits: AnyArray

    def owners(self, kind: Literal["note", "hit"]) -> AnyArray:
        """Return which states the notes or hits belong to, shape (m,)."""
        return np.repeat(np.arange(len(self.states)), self.states[f"{kind}_count"])


def stored_states(memory: Memory, recording: int) -> States:
    """Return what a memory holds of one of its recordings."""
    own = np.flatnonzero(memory.states["recording"] == recording)
    states = memory.states[own]
    parts = []
    for kind, rows in (("note", memory.notes), ("hit", memory.hits)):
        first = int(states[f"first_{kind}"][0]) if len(own) else 0
        parts.append(rows[first : first + int(states[f"{kind}_count"].sum())])
    return States(states, memory.oracle.vectors(own), *parts)


def as_states(live: LiveStream) -> States:
    """Return a live pass as the trainer would store it in a memory."""
    states, notes, hits = np.zeros(len(live.gestures), dtype=STATE), np.zeros(0, dtype=NOTE), np.zeros(0, dtype=NOTE)
    before_s = None
    places = beat_places(live.beats, [g.start_s for g in live.gestures])
    assigned = (assign_notes(live.gestures, heard, exact=live.is_exact) for heard in (live.notes, live.hits))
    for number, (gesture, own, struck, place) in enumerate(zip(live.gestures, *assigned, places, strict=True)):
        states[number] = state_row(
            gesture,
            recording=0,
            previous_start_s=before_s,
            notes=(len(notes), len(own)),
            hits=(len(hits), len(struck)),
            beat=BeatPlace.of(place),
        )
        notes = np.concatenate([notes, note_rows(gesture, own)])
        hits = np.concatenate([hits, note_rows(gesture, struck)])
        before_s = gesture.start_s
    vectors = np.stack([g.vector for g in live.gestures]) if live.gestures else np.zeros((0, 0), np.float32)
    return States(states, vectors, notes, hits)


def state_checks(name: str, held: States, live: States, *, is_new: bool) -> tuple[Check, ...]:
    """Return the checks that live gestures, notes and drum hits are the stored ones in every value."""
    apart = {"recording", "first_note", "note_count", "first_hit", "hit_count"}
    names = [n for n in STATE.names or () if n not in apart]
    gestures = {**{n: (held.states[n], live.states[n]) for n in names}, "vector": (held.vectors, live.vectors)}
    starts_s = held.states["start_s"]
    checks = [_rows_check(name, "gesture", gestures, starts_s, is_new=is_new)]
    kinds: tuple[tuple[Literal["note", "hit"], AnyArray, AnyArray], ...]
    kinds = (("note", held.notes, live.notes), ("hit", held.hits, live.hits))
    for kind, kept, now in kinds:
        owners = held.owners(kind)
        columns = {"state": (owners, live.owners(kind)), **{n: (kept[n], now[n]) for n in NOTE.names or ()}}
        if kind == "note" or len(kept) or len(now):
            times_s = starts_s[owners] + kept["offset_s"] if len(kept) else starts_s
            checks.append(_rows_check(name, kind, columns, times_s, is_new=is_new))
    return tuple(checks)


def _beat_check(name: str, kept: Records, live: Records, *, is_new: bool) -> Check:
    """Return the check that the beats found in live hearing are the stored ones in every value."""
    columns = {n: (kept[n], live[n]) for n in BEAT.names or ()}
    return _rows_check(name, "beat", columns, kept["time_s"], is_new=is_new)


def _rows_check(
    name: str, kind: str, columns: Mapping[str, tuple[AnyArray, AnyArray]], times_s: AnyArray, *, is_new: bool
) -> Check:
    """Return the check that rows of one kind, the kept and the live one of each column, are equal; kept ones at `times_s`."""
    counts = [len(column) for column in next(iter(columns.values()))]
    n, longest = sorted(counts)
    differs = {value: _rows_that_differ(a[:n], b[:n]) for value, (a, b) in columns.items()}
    anywhere = np.logical_or.reduce(list(differs.values()))
    same = n - int(anywhere.sum())
    detail, first = "every value, bit for bit", None
    if same != longest:
        first = int(anywhere.argmax()) if anywhere.any() else n
        values = [value.removesuffix("_s") for value in differs if first < n and differs[value][first]]
        where = f" ({times_s[first]:.3f} s): another {', '.join(values)}" if values else ""
        detail = f"first at {kind} {first}" + (where or f": live has {counts[1]}, not {counts[0]}")
    return Check(
        group="parity",
        name=f"{name}, {kind}s, {'heard again' if is_new else 'live'}",
        expected=f"{longest} of {longest}",
        found=f"{same} of {longest}",
        passed=same == longest,
        detail=detail,
        cause="" if same == longest else "follows from what differs before it, or else: gesture smoothing, note model",
        values={
            "kept": counts[0],
            "live": counts[1],
            "equal": same,
            "first_difference": first,
            "differing": {value: int(rows.sum()) for value, rows in differs.items()},
        },
    )


def _rows_that_differ(a: AnyArray, b: AnyArray) -> AnyArray:
    """Return which rows differ in any value, shape (n,)."""
    if a.shape != b.shape:
        return np.ones(len(a), dtype=bool)
    differs = a != b
    return differs if differs.ndim == 1 else np.asarray(differs.any(axis=1))
