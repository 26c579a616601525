"""How the level of the metre and its bars are told: songs of known beats in, `hearing/beat_level_model.safetensors` out.

Its material is the songs to *tune* on that `benchmarks.duo_material` makes; any folders of MIDI files whose notes lie on their
own tempo map, as those of `tools.beat_songs`, 40 s of each, with drums and without, rendered by FluidSynth; and random grooves
in bars of three, four, five and seven, played by the embedded instrument. In each stretch of a recording, the candidates whose
beats agree with the true ones best are right. Bars are learned where those are right. Conditional logits with a ridge penalty
are fitted to that; songs count alike, however long they are. Printed is the F-measure of songs that the weights of levels with
a whole recording in view were not fitted to, by kind, before, after and at best.

The packaged weights come from experiment forms of this script, which does not give them bit for bit. Those of bars, and of
levels while the music plays: 45 songs to tune on, chorales at three tempi too, 45 of the songs in Debian's openttd-openmsx,
simutrans-data and planetblupi-music-midi, and 33 grooves. Those of levels with a whole recording in view: 441 recordings of 197
songs, 38 of them to tune on, the others as `tools.beat_songs` makes them, of the packages named, and of Freedoom outside both
splits.

Run ``python -m tools.train_beat_level OUT.safetensors --material /work/data --midi FOLDER``. It needs an hour.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mir_eval
import numpy as np
from safetensors.numpy import save_file
from scipy.optimize import minimize

from benchmarks.duo_songs import FONTS, RATE_HZ, STEADY_R16, Song, concentration, level, read_song, render
from musichal.arrays import Bool, Float32, Float64
from musichal.audio.instrument import EmbeddedInstrument, render_notes
from musichal.audio.recording import read_recording
from musichal.hearing import bars
from musichal.hearing.beat_level import AS_FOUND, CANDIDATES, HOP, N_FEATURES, STRETCH, features, places_of
from musichal.hearing.beats import find_pulse, first_chance
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor
from musichal.note import PERCUSSION_CHANNEL as DRUM_CHANNEL
from musichal.note import Note
from musichal.spec import PerceptionSpec

HEARD_S, MIDI_S, LEAD_S = 60, 40.0, 8.0
RIDGE, WHOLE_RIDGE, FOLDS, GROOVES = 0.1, 0.01, 10, 36
_PARTS, _OTHER = {"band": 1.0, "mix": 1.0, "player": 0.7}, 0.6
_GOOD, _ALIKE = 0.8, 0.03


@dataclass(frozen=True)
class Stretch:
    """Features (candidates, n), NaN where one is out of the question, and which candidates are right.

    `scores` are the F-measures of levels, and 1 or 0 of bars.
    """

    song: str
    kind: str
    weight: float
    features: Float64
    scores: Float64


def stretches(
    song: str, kind: str, weight: float, samples: Float32, rate_hz: int, beats_s: Float64, downbeats_s: Float64
) -> Iterator[Stretch]:
    """Hear a recording and yield its stretches, those of bars under the kind "bars"."""
    spec = PerceptionSpec()
    segments = FeatureExtractor(spec, create_encoder(spec)).stream(samples, source_rate_hz=rate_hz)
    pulse = find_pulse(segments, sample_rate_hz=spec.sample_rate_hz)
    if pulse is None:
        return
    times_s = pulse.times_s
    numbers = np.arange(len(times_s))
    total = np.zeros(len(CANDIDATES))
    for first in range(0, max(1, len(numbers) - HOP), HOP):
        last = min(len(numbers) - 1, first + STRETCH)
        true_s = beats_s[(beats_s >= times_s[first] - 0.07) & (beats_s <= times_s[last] + 0.07)]
        if len(true_s) < 5 or last - first < HOP // 2:
            continue
        of = features(pulse.heard, times_s, first, last, whole=True)
        found = [np.interp(places_of(row, first, last + 0.5), numbers, times_s) for row in range(len(CANDIDATES))]
        scores = [0.0 if np.isnan(row[0]) else _f_measure(true_s, beats) for row, beats in zip(of, found, strict=True)]
        total += scores
        yield Stretch(song, kind, weight, of, np.array(scores))
    right_s = np.interp(places_of(int(total.argmax()), 0, len(numbers) - 0.5), numbers, times_s)
    if _f_measure(beats_s, right_s) > _GOOD and len(downbeats_s):
        first_beat = first_chance(pulse, right_s)
        for begin in range(0, max(1, len(right_s) - bars.HOP), bars.HOP):
            span = slice(begin, begin + bars.STRETCH)
            downs = np.abs(right_s[span, None] - downbeats_s).min(axis=1) < 0.08
            match = [float(np.array_equal(np.arange(len(downs)) % beats == place, downs)) for beats, place in bars.BARS]
            if any(match) and len(downs) > 13:
                of = bars.bar_features(pulse.heard, first_beat[span], right_s[span])
                yield Stretch(song, "bars", weight, of, np.array(match))


def _f_measure(true_s: Float64, found_s: Float64) -> float:
    return float(mir_eval.beat.f_measure(true_s, found_s)) if len(found_s) > 1 else 0.0


def of_material(folder: Path) -> Iterator[Stretch]:
    """Yield the stretches of the songs to tune on."""
    for file in sorted(folder.glob("*/*/truth.json")):
        truth, song = json.loads(file.read_text("utf-8")), file.parent.name.removesuffix("_push")
        if truth["split"] != "tune" or truth["set"] in ("free", "stems"):
            continue
        for part, weight in _PARTS.items():
            recording = read_recording(file.parent / f"{part}.wav")
            rate_hz, beats, downs = recording.sample_rate_hz, np.array(truth["beats_s"]), np.array(truth["downbeats_s"])
            kind, until = f"{truth['set']} {part}", HEARD_S
            beats, downs = beats[beats < until], downs[downs < until]
            yield from stretches(song, kind, weight, recording.samples[: until * rate_hz], rate_hz, beats, downs)
        print(f"heard {song}", flush=True)


def of_midi(folder: Path) -> Iterator[Stretch]:
    """Yield the stretches of MIDI files."""
    for path in sorted(folder.rglob("*.mid")):
        song = read_song(path.stem, path.read_bytes())
        first, beats_s, downbeats_s, on_grid = _excerpt(song)
        if not on_grid:
            continue
        parts = {note.part for note in song.notes}
        for kind, chosen in {
            "other songs": parts,
            "without drums": {part for part in parts if part[1] != DRUM_CHANNEL},
        }.items():
            if chosen and (kind == "other songs" or chosen != parts):
                samples = render(song, chosen, FONTS["timgm6mb"])[round(first * RATE_HZ) :]
                yield from stretches(song.name, kind, _OTHER, level(samples), RATE_HZ, beats_s, downbeats_s)
        print(f"heard {song.name}", flush=True)


def _excerpt(song: Song) -> tuple[float, Float64, Float64, bool]:
    """Cut a song to `MIDI_S` on a bar; return when it begins, beats, first beats, and whether its notes lie on that."""
    beats, downbeats, _ = song.beats()
    beats_s, downbeats_s = song.seconds(beats), song.seconds(downbeats)
    onsets = np.unique([note.onset for note in song.notes])
    begin_s = min(float(song.seconds(onsets[0])) + LEAD_S, max(0.0, float(song.seconds(onsets[-1])) - MIDI_S))
    first = float(downbeats_s[min(int(np.searchsorted(downbeats_s, begin_s)), len(downbeats_s) - 1)])
    end = round(float(np.interp(first + MIDI_S, beats_s, beats)))
    # Notes that are still held end there.
    ends = ("note_off", "note_on")
    song.events = [
        (min(tick, end), track, message)
        for tick, track, message in song.events
        if tick < end or (message.type in ends and not (message.type == "note_on" and message.velocity))
    ]
    phases = np.interp(onsets, beats, np.arange(len(beats)))[(song.seconds(onsets) >= first) & (onsets < end)]
    inside, downs = (times[(times >= first - 1e-6) & (times < first + MIDI_S)] - first for times in (beats_s, downbeats_s))
    return first, inside, downs, max(concentration(3 * phases), concentration(4 * phases)) > STEADY_R16


def grooves(rng: np.random.Generator, count: int) -> Iterator[Stretch]:
    """Yield the stretches of random grooves: strokes, bass and the rhythm of chords are the same in each bar."""
    for number in range(count):
        beats, beat_s = (5, 7, 5, 7, 3, 4)[number % 6], 60 / rng.uniform(90, 185)
        struck = {
            key: rng.random((beats, 2)) < chance for key, chance in ((36, (0.2, 0.12)), (38, (0.05, 0.03)), (42, (1, 0.5)))
        }
        bass, chords = (rng.random((beats, 2)) < chance for chance in ((0.6, 0.25), (0.25, 0.15)))
        struck[36][0, 0] = bass[0, 0] = True
        line, roots = rng.choice([0, 0, 0, 7, 5, 12, 3], (beats, 2)), rng.permutation([36, 41, 43, 45, 38, 40])
        struck[(36, 38)[rng.integers(2)]][beats - 2 - (beats > 4), 0] = struck[38][beats - 1, 0] = True
        notes = []
        whole = int(24 / beat_s) // beats * beats
        for half in range(2 * whole):
            (bar, place), at = divmod(half, 2 * beats), 0.2 + half * beat_s / 2 + max(-0.02, rng.normal(0, 0.006))
            here, root = divmod(place, 2), int(roots[bar % (2 + number % 3)])
            notes += [Note(at, 0.1, key, int(rng.integers(60, 115)), DRUM_CHANNEL) for key in struck if struck[key][here]]
            notes += [Note(at, 0.45 * beat_s, root + int(line[here]), 90)] * bool(bass[here])
            notes += [Note(at, 0.9 * beat_s, root + 12 + step, 70) for step in (0, 4, 7) if chords[here]]
        sound = render_notes(notes, EmbeddedInstrument(), sample_rate_hz=24000).mean(axis=1).astype(np.float32)
        beats_s = np.arange(whole, dtype=np.float64) * float(beat_s) + 0.2
        yield from stretches(f"groove {number}", "grooves", 1.0, sound, 24000, beats_s, beats_s[::beats])


def fit(of: list[Stretch], ridge: float = RIDGE, count: int | None = None) -> tuple[Float64, Float64]:
    """Return weights, and the offsets that features are taken from, of the first `count` features, or all."""
    whole = np.stack([stretch.features[:, :count] for stretch in of])
    possible = ~np.isnan(whole[..., 0])
    offsets, spread = whole[possible].mean(axis=0), whole[possible].std(axis=0) + 0.05
    rows = np.nan_to_num((whole - offsets) / spread)
    scores = np.stack([stretch.scores for stretch in of])
    right = (scores >= scores.max(axis=1, keepdims=True) - _ALIKE) & possible
    songs, counts = np.unique([stretch.song for stretch in of], return_counts=True)
    count_of = dict(zip(songs.tolist(), counts.tolist(), strict=True))
    share = np.array([stretch.weight / count_of[stretch.song] for stretch in of])
    share /= share.sum()

    def loss(weights: Float64) -> tuple[float, Float64]:
        chance = _chances(rows @ weights, possible)
        mass = np.maximum((chance * right).sum(axis=1, keepdims=True), 1e-12)
        slope = ((chance - chance * right / mass) * share[:, None]).reshape(-1) @ rows.reshape(-1, rows.shape[2])
        return -float(share @ np.log(mass[:, 0])) + ridge * float(weights @ weights), slope + 2 * ridge * weights

    found = minimize(loss, np.zeros(rows.shape[2]), jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return found.x / spread, offsets


def _chances(scores: Float64, possible: Bool) -> Float64:
    scores = np.where(possible, scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def report(of: list[Stretch], rng: np.random.Generator) -> None:
    """Print the F-measures of songs that weights were not fitted to."""
    songs = rng.permutation(sorted({stretch.song for stretch in of}))
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for fold in range(FOLDS):
        kept = set(songs[fold::FOLDS].tolist())
        weights, offsets = fit([stretch for stretch in of if stretch.song not in kept], WHOLE_RIDGE)
        for stretch in of:
            if stretch.song in kept:
                score = np.where(np.isnan(stretch.features[:, 0]), -np.inf, (stretch.features - offsets) @ weights)
                chosen = stretch.scores[int(np.argmax(score))]
                rows.setdefault(stretch.kind, []).append((stretch.scores[AS_FOUND], chosen, stretch.scores.max()))
    for kind, of_kind in sorted(rows.items()):
        before, after, best = np.mean(of_kind, axis=0)
        print(f"{kind}: {len(of_kind)} stretches, F as found {before:.3f}, as chosen {after:.3f}, at best {best:.3f}")


def main(path: Path, *, material: Path, midi: list[Path]) -> None:
    """Make the model and write it to `path`."""
    rng = np.random.default_rng(0)
    of = [*of_material(material), *(stretch for folder in midi for stretch in of_midi(folder)), *grooves(rng, GROOVES)]
    of = [stretch for stretch in of if stretch.scores.max() > _GOOD]
    levels = [stretch for stretch in of if stretch.kind not in ("bars", "grooves")]
    report(levels, rng)
    model = {}
    for kind, fitted in (
        ("", fit(levels, count=N_FEATURES)),
        ("whole_", fit(levels, WHOLE_RIDGE)),
        ("bar_", fit([stretch for stretch in of if stretch.kind == "bars"])),
    ):
        model |= {f"{kind}weights": fitted[0], f"{kind}offsets": fitted[1]}
    save_file({name: value.astype(np.float32) for name, value in model.items()}, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.train_beat_level", description="Train the level of the beat.")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument("--material", type=Path, required=True, help="what benchmarks.duo_material made")
    parser.add_argument("--midi", type=Path, nargs="*", default=[], help="folders of MIDI files")
    arguments = parser.parse_args()
    main(arguments.output, material=arguments.material, midi=arguments.midi)
