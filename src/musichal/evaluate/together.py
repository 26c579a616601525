"""Duos: a partner learns one part of a band, answers the player on another, and is measured against what the band played there.

What is heard does not depend on who answers: a duo is trained and heard once (`hear_duo`) and answered by each contestant
through the event loop of a performance. Beside the partner's modes there are four anchors: the *real part* (each part of the
band beside the others, or the player beside the band where parts are not known), the real part of *another* song or place, a
*deaf* walk in memory, and an *echo* of the player's notes `ECHO_S` later.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from musichal.arrays import Float64
from musichal.audio.recording import Recording
from musichal.errors import InputError
from musichal.evaluate.answers import DeafWalker, Excerpt, MakePlayer, answer, hear_excerpt, notes_of
from musichal.evaluate.harmony_together import (
    HarmonyTogether,
    PitchedNotes,
    PitchTruth,
    beats_until_in_tune,
    harmony_together,
)
from musichal.evaluate.time_together import (
    BeatMap,
    TimeTogether,
    beats_until_back,
    chance_concentration,
    grid_of,
    intervals,
    mean_over,
    struck,
    time_together,
)
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor
from musichal.hearing.percepts import SegmentFeatures
from musichal.memory.partner_file import PartnerModel
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.partner.settings import Direction, PartnerSettings
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

REAL, OTHER, DEAF, ECHO = "the real part", "a real part of elsewhere", "deaf", "echo of the player"
ANCHORS = (REAL, OTHER, DEAF, ECHO)
ECHO_S = 0.02
_ELSEWHERE_S = 5.83
"""Not a multiple of a bar at any usual tempo."""
_SHORTEST_S = 8.0
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Duo:
    """A player's and a band's recording of one song, with what is known of it; times are seconds from their start.

    * `player`, `band`: Of one length.
    * `beats`: None where they are not known.
    * `parts_s`: Onsets of each part of the band; empty where they are not known.
    * `player_s`: Onsets of the player, None where they are not known.
    * `push_s`: Where the player changes tempo.
    * `pitches`: None where notes are not known.
    """

    name: str
    player: Recording
    band: Recording
    beats: BeatMap | None = None
    parts_s: tuple[Float64, ...] = ()
    player_s: Float64 | None = None
    push_s: float | None = None
    pitches: PitchTruth | None = None


@dataclass(frozen=True)
class HeardDuo:
    """A duo with its partner, trained on the band up to `start_s`, and the player from there on, heard by it.

    `beats`, `parts_s`, `player_s` and `pitches` count from `start_s`; `parts_are_known` says whether the parts are apart.
    """

    name: str
    model: PartnerModel
    excerpt: Excerpt
    start_s: float
    beats: BeatMap | None
    parts_s: tuple[Float64, ...]
    parts_are_known: bool
    learned: PitchedNotes
    player_s: Float64
    push_s: float | None
    pitches: PitchTruth

    @property
    def band_s(self) -> Float64:
        """Return the onsets of the whole band, chords once."""
        return struck(np.concatenate(self.parts_s)) if self.parts_s else np.zeros(0)

    @property
    def grid(self) -> int:
        """Return the parts of a beat that band and player are on: 4, or 3 for triplets."""
        together_s = np.concatenate([self.band_s, self.player_s])
        return 4 if self.beats is None else grid_of(self.beats.places(together_s))


@dataclass(frozen=True)
class Played:
    """What one contestant played in one duo: its notes (for a real part, its onsets alone) and how they lie beside the others.

    `back_beats` is how many beats behind the player's change of tempo it was in time again; None without one, or if never.
    `tune_beats` is the same for each jump of the key: when it was in tune again.
    """

    contestant: str
    onsets_s: Float64
    notes: tuple[Note, ...]
    time: TimeTogether
    harmony: HarmonyTogether
    back_beats: float | None = None
    tune_beats: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class DuoSong:
    """One duo and what each contestant played in it, by name."""

    name: str
    start_s: float
    duration_s: float
    beats: BeatMap | None
    grid: int
    band_s: Float64
    player_s: Float64
    pushed: bool
    notes_from: str
    played: Mapping[str, Played]


@dataclass(frozen=True)
class DuoContestant:
    """How one contestant did over all duos: means, 95 % intervals over songs, and beats until in time or tune after changes."""

    name: str
    time: TimeTogether
    time_intervals: Mapping[str, tuple[float, float]]
    harmony: HarmonyTogether
    harmony_intervals: Mapping[str, tuple[float, float]]
    back_beats: float | None
    never_back: int
    tune_beats: float | None
    never_in_tune: int


@dataclass(frozen=True)
class DuoEvaluation:
    """Everything that was measured, contestants in the order of the table; `chance_r` is R of as many onsets anywhere."""

    songs: tuple[DuoSong, ...]
    contestants: tuple[DuoContestant, ...]
    chance_r: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "songs": [
                {
                    "name": song.name,
                    "start_s": song.start_s,
                    "duration_s": song.duration_s,
                    "beats": None if song.beats is None else len(song.beats.beats_s),
                    "beats_from": None if song.beats is None else song.beats.source,
                    "grid": song.grid,
                    "notes_from": song.notes_from,
                    "played": {
                        name: {
                            "time": dataclasses.asdict(played.time),
                            "harmony": dataclasses.asdict(played.harmony),
                            "back_beats": played.back_beats,
                            "tune_beats": list(played.tune_beats),
                        }
                        for name, played in song.played.items()
                    },
                }
                for song in self.songs
            ],
            "contestants": [dataclasses.asdict(c) for c in self.contestants],
            "chance_r": self.chance_r,
        }


def hear_duo(
    duo: Duo,
    *,
    train_share: float = 0.5,
    pairs: bool = False,
    model: PartnerModel | None = None,
    progress: Progress | None = None,
) -> HeardDuo:
    """Train a partner on the first part of the band, with `pairs` beside the player, and hear the player on the rest.

    A `model` that has learned this already is taken as it is.
    """
    tell = progress or (lambda _what, _share: None)
    name = duo.name
    if abs(duo.player.duration_s - duo.band.duration_s) > 0.5:
        raise InputError(
            f"{name}: the player's recording lasts {duo.player.duration_s:.1f} s and the band's {duo.band.duration_s:.1f} s;"
            " they must be of one performance, and of one length"
        )
    start_s = train_share * duo.band.duration_s
    if min(start_s, duo.player.duration_s - start_s) < _SHORTEST_S:
        raise InputError(f"{name}: {duo.band.duration_s:.1f} s is too short; each part needs {_SHORTEST_S:g} s or more")
    learned, rest = _cut(duo.band, 0.0, start_s), _cut(duo.player, start_s, duo.player.duration_s)
    if not np.any(np.abs(rest.samples) > 1e-4):
        raise InputError(f"{name}: the player is silent from {start_s:.1f} s on, where the partner answers")
    if model is None:
        tell(f"Learning the band of {name}", 0.0)
        beside = [_cut(duo.player, 0.0, start_s)] if pairs else []
        model = train([*beside, learned], PerceptionSpec(), keep_audio=False, pairs=[(0, 1)] if pairs else ())
    tell(f"Listening to the player of {name}", 0.4)
    excerpt = hear_excerpt(model, rest.samples, sample_rate_hz=rest.sample_rate_hz, name=name, start_s=start_s, take=rest.take)
    beats, parts, pitches = duo.beats, duo.parts_s, duo.pitches
    if beats is None or not parts or pitches is None:
        tell(f"Listening to the band of {name}", 0.7)
        segments = _segments(duo.band, model.spec)
        rate = model.spec.sample_rate_hz
        if beats is None:
            beats = beats_of(segments, sample_rate_hz=rate)
        if not parts:
            parts = (np.array([onset / rate for segment in segments for onset in segment.onset_samples]),)
        if pitches is None:
            band = PitchedNotes.of([note for segment in segments for note in segment.notes])
            pitches = PitchTruth((band,), PitchedNotes.of([]), "heard")
    player_s = duo.player_s
    heard_s = np.array([onset.sample for onset in excerpt.onsets]) / excerpt.sample_rate_hz
    end_s = start_s + excerpt.duration_s
    learned_notes, pitches = pitches.band.cut(0.0, start_s), pitches.cut(start_s, end_s)
    if duo.pitches is None:
        pitches = replace(pitches, player=PitchedNotes.of(excerpt.notes))
    return HeardDuo(
        name=name,
        model=model,
        excerpt=excerpt,
        start_s=start_s,
        beats=None if beats is None else _beats_within(beats, start_s, end_s),
        parts_s=tuple(struck(part[(part >= start_s) & (part < end_s)] - start_s) for part in parts),
        parts_are_known=bool(duo.parts_s),
        learned=learned_notes,
        player_s=struck(heard_s if player_s is None else player_s[(player_s >= start_s) & (player_s < end_s)] - start_s),
        push_s=None if duo.push_s is None else duo.push_s - start_s,
        pitches=pitches,
    )


def beats_of(segments: Sequence[SegmentFeatures], *, sample_rate_hz: int) -> BeatMap | None:
    """Return the beats that are found offline in what was heard; None where there are none."""
    from musichal.hearing.beats import find_beats

    found = find_beats(segments, sample_rate_hz=sample_rate_hz)
    return None if len(found) < 4 else BeatMap(found["time_s"].astype(np.float64), "found in the band")


def play_duo(
    heard: HeardDuo,
    directions: Mapping[str, Direction],
    *,
    settings: PartnerSettings | None = None,
    seed: int = 0,
    elsewhere: HeardDuo | None = None,
    anchors: bool = True,
) -> DuoSong:
    """Let each contestant answer a duo and measure it; `elsewhere` is another song, whose band is the anchor `OTHER`."""
    rate, memory = heard.model.spec.sample_rate_hz, heard.model.memory
    played: dict[str, Played] = {}

    def playing(direction: Direction) -> MakePlayer:
        chosen = replace(settings or PartnerSettings(), direction=direction)
        return lambda number: Partner(memory, chosen, rng=np.random.default_rng(number), sample_rate_hz=rate)

    for name, direction in directions.items():
        played[name] = _answered(name, answer(heard.excerpt, playing(direction)(seed)), heard)
    if anchors:
        played[REAL] = _real_part(heard)
        if elsewhere is None:
            length_s = heard.excerpt.duration_s
            other_s = np.sort((heard.band_s + _ELSEWHERE_S) % length_s)
            other = heard.pitches.band.moved(_ELSEWHERE_S, duration_s=length_s)
        else:
            other_s, other = elsewhere.band_s, elsewhere.pitches.band
        played[OTHER] = _measured(OTHER, struck(other_s), other, heard)
        deaf = DeafWalker(memory, rng=np.random.default_rng(seed))
        played[DEAF] = _answered(DEAF, answer(heard.excerpt, deaf), heard)
        echo = heard.pitches.player.moved(ECHO_S, duration_s=heard.excerpt.duration_s)
        played[ECHO] = _measured(ECHO, heard.player_s + ECHO_S, echo, heard)
    return DuoSong(
        name=heard.name,
        start_s=heard.start_s,
        duration_s=heard.excerpt.duration_s,
        beats=heard.beats,
        grid=heard.grid,
        band_s=heard.band_s,
        player_s=heard.player_s,
        pushed=heard.push_s is not None,
        notes_from=heard.pitches.source,
        played=played,
    )


def evaluation_of(songs: Sequence[DuoSong], *, seed: int = 0) -> DuoEvaluation:
    """Return the means of all contestants over songs."""
    rng = np.random.default_rng(seed)
    found = []
    for name in songs[0].played:
        items = [song.played[name] for song in songs]
        times, harmonies = [item.time for item in items], [item.harmony for item in items]
        jumps = [beats for item in items for beats in item.tune_beats]
        in_tune = [beats for beats in jumps if beats is not None]
        pushed = [song.played[name].back_beats for song in songs if song.pushed]
        back = [beats for beats in pushed if beats is not None]
        found.append(
            DuoContestant(
                name=name,
                time=mean_over(times),
                time_intervals=intervals(times, rng=rng),
                harmony=mean_over(harmonies),
                harmony_intervals=intervals(harmonies, rng=rng),
                back_beats=float(np.median(back)) if back else None,
                never_back=len(pushed) - len(back),
                tune_beats=float(np.median(in_tune)) if in_tune else None,
                never_in_tune=len(jumps) - len(in_tune),
            )
        )
    answered = [item.time.onsets for song in songs for name, item in song.played.items() if name not in ANCHORS]
    chances = [chance for count in answered if (chance := chance_concentration(count)) is not None]
    return DuoEvaluation(tuple(songs), tuple(found), float(np.mean(chances)) if chances else None)


def _answered(name: str, decisions: Sequence[Decision], heard: HeardDuo) -> Played:
    notes = [note for note in notes_of(decisions) if note.onset_s < heard.excerpt.duration_s]
    played = _measured(name, struck([note.onset_s for note in notes]), PitchedNotes.of(notes), heard, decisions)
    return replace(played, notes=tuple(notes))


def _measured(
    name: str, onsets_s: Float64, pitched: PitchedNotes, heard: HeardDuo, decisions: Sequence[Decision] = ()
) -> Played:  # fmt: skip
    length_s, beats = heard.excerpt.duration_s, heard.beats
    onsets_s = onsets_s[onsets_s < length_s]
    chosen = () if name == DEAF else decisions
    time = time_together(onsets_s, heard.band_s, beats, duration_s=length_s, grid=heard.grid, decisions=chosen)
    memory = heard.model.memory if decisions else None
    harmony = harmony_together(
        pitched, heard.pitches, beats, duration_s=length_s, decisions=decisions, memory=memory,
        learned=heard.learned if decisions else None,
    )  # fmt: skip
    back = tune = None
    if heard.push_s is not None and beats is not None:
        back = beats_until_back(onsets_s, beats, push_s=heard.push_s, grid=heard.grid)
    if beats is not None:
        tune = beats_until_in_tune(pitched, heard.pitches, beats, duration_s=length_s)
    return Played(name, onsets_s, (), time, harmony, back, tune or ())


def _real_part(heard: HeardDuo) -> Played:
    """Return the band's own notes; what is together is each part with the others, or the player with the band."""
    whole = _measured(REAL, heard.band_s, heard.pitches.band, heard)
    return replace(whole, time=_real_time(whole.time, heard), harmony=_real_harmony(whole.harmony, heard))


def _real_time(whole: TimeTogether, heard: HeardDuo) -> TimeTogether:
    measured = []
    for number, part in enumerate(heard.parts_s if heard.parts_are_known and len(heard.parts_s) > 1 else ()):
        others = struck(np.concatenate([p for i, p in enumerate(heard.parts_s) if i != number]))
        if len(part) and len(others):
            measured.append(time_together(part, others, heard.beats, duration_s=heard.excerpt.duration_s, grid=heard.grid))
    if not measured:
        measured = [
            time_together(heard.player_s, heard.band_s, heard.beats, duration_s=heard.excerpt.duration_s, grid=heard.grid)
        ]
    counts = np.array([item.onsets for item in measured], dtype=np.float64)
    within, moved = _weighed(measured, counts, ("within", "within_moved"))
    return replace(whole, within=within, within_moved=moved)


def _real_harmony(whole: HarmonyTogether, heard: HeardDuo) -> HarmonyTogether:
    """Return the harmony of real parts: each beside the others and the player, weighed by how long it sounds."""
    truth, measured, lengths_s = heard.pitches, [], []
    sounding = [part for part in truth.parts if part.duration_s]
    for number, part in enumerate(sounding if len(sounding) > 1 else ()):
        others = replace(truth, parts=tuple(p for i, p in enumerate(sounding) if i != number))
        measured.append(harmony_together(part, others, None, duration_s=heard.excerpt.duration_s))
        lengths_s.append(part.duration_s)
    if not measured:
        alone = replace(truth, player=PitchedNotes.joined([]))
        measured = [harmony_together(truth.player, alone, None, duration_s=heard.excerpt.duration_s)]
        lengths_s = [truth.player.duration_s]
    names = ("agreement", "agreement_moved", "band", "band_moved", "band_above_moved")
    means: dict[str, Any] = dict(zip(names, _weighed(measured, np.array(lengths_s), names), strict=True))
    return replace(whole, **means)


def _weighed(items: Sequence[Any], weights: Float64, names: Sequence[str]) -> list[float | None]:
    """Return weighed means of measures; None where the weights are none."""
    total = float(weights.sum())
    return [float(np.sum(weights * [getattr(i, name) or 0.0 for i in items]) / total) if total else None for name in names]


def _cut(recording: Recording, start_s: float, end_s: float) -> Recording:
    rate = recording.sample_rate_hz
    take = None if recording.take is None else recording.take.between(start_s, end_s)
    return replace(recording, samples=recording.samples[round(start_s * rate) : round(end_s * rate)], take=take)


def _segments(recording: Recording, spec: PerceptionSpec) -> list[SegmentFeatures]:
    return list(FeatureExtractor(spec, create_encoder(spec)).stream(recording.samples, source_rate_hz=recording.sample_rate_hz))


def _beats_within(beats: BeatMap, start_s: float, end_s: float) -> BeatMap | None:
    """Return the beats of a stretch, counted from its start, with the one before and behind it."""
    first = max(0, int(np.searchsorted(beats.beats_s, start_s)) - 1)
    last = int(np.searchsorted(beats.beats_s, end_s)) + 1
    there = beats.beats_s[first:last] - start_s
    return BeatMap(there, beats.source) if len(there) > 3 and there[0] < end_s - start_s else None
