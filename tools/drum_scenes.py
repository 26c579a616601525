"""Scenes of drums, with and without a band, whose every hit is known: what `tools.train_drums` learns from.

A kit is its single strokes, a few velocities for each key of General MIDI. Kits are those of soundfonts (played by FluidSynth
through pyfluidsynth), of Hydrogen (folders of samples with a drumkit.xml), the embedded instrument's, and kits synthesised from
random numbers.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree as ET  # files of an installed Debian package

import numpy as np
import soundfile
import soxr

from musichal.arrays import AnyArray, Float32
from musichal.audio.instrument import EmbeddedInstrument, render_notes
from musichal.note import PERCUSSION_CHANNEL, Note

RATE_HZ = 24000
CLASSES = ((35, 36), (37, 38, 39, 40), (42, 44), (46,), (41, 43, 45, 47, 48, 50), (49, 51, 52, 53, 55, 57, 59))
"""Keys of each drum, in the order of `musichal.note.DRUMS`."""
CLASS_OF_KEY = {key: number for number, keys in enumerate(CLASSES) for key in keys}
OTHER_KEYS = (54, 56, 60, 61, 62, 63, 64, 69, 70, 75, 76, 80, 81, 82)
FONTS = {
    "fluid": Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    "timgm6mb": Path("/usr/share/sounds/sf2/TimGM6mb.sf2"),
    "musescore": Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"),
}
HALF_OPEN = 146
"""A kit's own half-open hat, which General MIDI has no key for."""
_PROGRAMS = (0, 8, 16, 24, 25, 32, 40)
_VELOCITIES = (45, 85, 118)
_LONG_S = {46: 1.0, 49: 1.6, 51: 1.2, 52: 1.4, 53: 1.2, 55: 1.2, 57: 1.6, 59: 1.2}
_NAMES = (
    (r"ride.*bell", 53), (r"(hh|hat).*(semi|half)", HALF_OPEN), (r"(hh|hat).*open|open.*(hh|hat)", 46),
    (r"(hh|hat).*(ped|foot)", 44), (r"hh|hat", 42),
    (r"kick|bass ?drum|bd", 36), (r"stick|rim", 37), (r"clap", 39), (r"snare|sd|flam", 38), (r"tom|floor", 45), (r"crash", 49),
    (r"splash", 55), (r"china", 52), (r"ride|cymbal", 51), (r"conga|bongo", 62), (r"shaker|maraca|cabasa", 70), (r"tamb", 54),
    (r"cowbell", 56),
)  # fmt: skip
_NEXT_KEY = {45: 47, 47: 48, 48: 41, 38: 40, 36: 35, 49: 57, 51: 59}

Kit = Mapping[int, Sequence[tuple[int, Float32]]]
"""By key: velocities and their sounds."""
Stroke = tuple[float, int, int]
"""When, which key, how hard."""


def font_kits(name: str, path: Path) -> dict[str, Kit]:
    """Return every drum kit of a soundfont, by name and program."""
    fluidsynth = import_module("fluidsynth")
    synth = fluidsynth.Synth(samplerate=2.0 * RATE_HZ, gain=0.5)
    synth.setting("synth.reverb.active", 0)
    synth.setting("synth.chorus.active", 0)
    font, kits = synth.sfload(str(path)), {}
    for program in _PROGRAMS:
        if synth.program_select(PERCUSSION_CHANNEL, font, 128, program) != 0:
            continue
        kit: dict[int, list[tuple[int, Float32]]] = {}
        for key in (*CLASS_OF_KEY, *OTHER_KEYS):
            for velocity in _VELOCITIES:
                synth.noteon(PERCUSSION_CHANNEL, key, velocity)
                sound = np.asarray(synth.get_samples(round(2 * RATE_HZ * _LONG_S.get(key, 0.7))), dtype=np.float64)
                synth.all_sounds_off(PERCUSSION_CHANNEL)
                synth.get_samples(RATE_HZ // 5)
                mono = soxr.resample(sound.reshape(-1, 2).mean(axis=1) / 32768, 2 * RATE_HZ, RATE_HZ).astype(np.float32)
                if np.abs(mono).max() > 1e-4:
                    kit.setdefault(key, []).append((velocity, mono))
        kits[f"{name}:{program}"] = kit
    synth.delete()
    return kits


def hydrogen_kit(folder: Path) -> Kit:
    """Return the kit of a folder with a drumkit.xml; what an instrument is, its name says."""
    text = re.sub(r'\s(xmlns(:\w+)?|xsi:\w+)="[^"]*"', "", (folder / "drumkit.xml").read_text("utf-8", errors="replace"))
    kit: dict[int, list[tuple[int, Float32]]] = {}
    for instrument in ET.fromstring(text).iter("instrument"):  # noqa: S314
        name = (instrument.findtext("name") or "").lower()
        key = next((key for pattern, key in _NAMES if re.search(pattern, name)), None)
        while key in kit:
            key = _NEXT_KEY.get(key or 0)
        layers = [file.text or "" for file in instrument.iter("filename")]
        if key is None or not layers:
            continue
        chosen = layers if len(layers) <= 3 else [layers[0], layers[len(layers) // 2], layers[-1]]
        for velocity, layer in zip(_VELOCITIES[-len(chosen) :], chosen, strict=True):
            try:
                samples, rate_hz = soundfile.read(folder / layer, always_2d=True)
            except (OSError, soundfile.LibsndfileError):
                continue
            mono = soxr.resample(samples.mean(axis=1)[: round(1.8 * rate_hz)], rate_hz, RATE_HZ).astype(np.float32)
            loud = np.flatnonzero(np.abs(mono) > 0.02 * np.abs(mono).max())
            if len(loud):  # the attack comes 2 ms after the stroke
                kit.setdefault(key, []).append((velocity, 0.5 * mono[max(0, loud[0] - RATE_HZ // 500) :]))
    return kit


def embedded_kit() -> Kit:
    """Return the kit of the embedded instrument."""
    return {
        key: [
            (velocity, render_notes([Note(0.0, 0.1, key, velocity, PERCUSSION_CHANNEL)], EmbeddedInstrument(),
                                    sample_rate_hz=RATE_HZ).mean(axis=1)) for velocity in _VELOCITIES
        ] for key in (*CLASS_OF_KEY, *OTHER_KEYS)
    }  # fmt: skip


def random_kit(rng: np.random.Generator) -> Kit:
    """Return a synthesised kit of random tones, noises and decays."""
    u = rng.uniform

    def noise(n: int, low_hz: float, high_hz: float) -> AnyArray:
        hz = np.maximum(np.fft.rfftfreq(n, 1 / RATE_HZ), 1)
        spectrum = np.fft.rfft(rng.standard_normal(n)) / (1 + (low_hz / hz) ** 4) / (1 + (hz / high_hz) ** 4)
        sound = np.fft.irfft(spectrum, n)
        return sound / np.abs(sound).max()

    def falling(n: int, decay_s: float, attack_s: float = 0.001) -> AnyArray:
        time_s = np.arange(n) / RATE_HZ
        return np.exp(-time_s / decay_s) * np.minimum(1, time_s / attack_s)

    def tone(n: int, pitch_hz: float, bend: float, bend_s: float, decay_s: float) -> AnyArray:
        hz = pitch_hz * (1 + (bend - 1) * np.exp(-np.arange(n) / RATE_HZ / bend_s))
        return np.sin(2 * np.pi * np.cumsum(hz) / RATE_HZ) * falling(n, decay_s)

    short, middle, long = round(0.6 * RATE_HZ), RATE_HZ, round(1.6 * RATE_HZ)
    click = noise(short, u(200, 1500), u(2000, 9000)) * falling(short, u(0.003, 0.012))
    bell = sum(np.sin(2 * np.pi * u(2500, 9000) * np.arange(long) / RATE_HZ + u(0, 6)) for _ in range(5)) / 5
    sounds = {
        36: (0.35, tone(short, u(40, 70), u(1.5, 6), u(0.01, 0.05), u(0.06, 0.3)) + u(0, 0.4) * click),
        38: (0.35, u(0.1, 0.8) * tone(short, u(140, 260), u(1, 1.8), 0.02, u(0.03, 0.12))
             + u(0.4, 1) * noise(short, u(200, 1500), u(5000, 11000)) * falling(short, u(0.04, 0.18))),
        39: (0.25, noise(short, u(500, 1000), u(3000, 8000)) * falling(short, u(0.03, 0.1))),
        42: (0.1, noise(short, u(4000, 8000), 11500) * falling(short, u(0.008, 0.04))),
        44: (0.08, noise(short, u(3500, 7000), 11000) * falling(short, u(0.015, 0.05), 0.004)),
        46: (0.12, noise(middle, u(4000, 8000), 11500) * falling(middle, u(0.12, 0.45))),
        49: (0.25, noise(long, u(700, 3000), 11500) * falling(long, u(0.4, 1.2))),
        51: (0.1, u(0.2, 0.6) * bell * falling(long, u(0.2, 0.8))
             + u(0.2, 0.7) * noise(long, u(2500, 6000), 11500) * falling(long, u(0.1, 0.7))),
    }  # fmt: skip
    for key, low_hz, high_hz in ((41, 60, 90), (45, 95, 140), (48, 145, 220)):
        skin = tone(short, u(low_hz, high_hz), u(1.1, 2), u(0.02, 0.08), u(0.1, 0.3))
        sounds[key] = 0.3, skin + u(0, 0.3) * noise(short, 150, 3000) * falling(short, u(0.005, 0.05))
    loudest = max(_VELOCITIES)
    return {
        key: [(v, (sound * (peak * (v / loudest) ** 2 / np.abs(sound).max())).astype(np.float32)) for v in _VELOCITIES]
        for key, (peak, sound) in sounds.items()
    }


# ── what is played ───────────────────────────────────────────────────────────

Hit = tuple[float, int, int]
"""When, which of `CLASSES`, how hard."""


def groove(rng: np.random.Generator, seconds: float) -> list[Hit]:
    """Return a groove with a backbeat, hats or a ride, fills and crashes, straight or swung, in 3 to 5 beats."""
    beat_s, per = 60 / rng.uniform(65, 185), int(rng.choice([4, 4, 4, 3]))
    steps = per * int(rng.choice([4, 4, 4, 3, 5]))
    swing = rng.uniform(0.5, 0.67) if per == 4 and rng.random() < 0.3 else 0.5
    jitter_s, base = rng.uniform(0, 0.008), rng.uniform(55, 110, len(CLASSES))
    kick, snare = rng.random(steps) < 0.12, rng.random(steps) < 0.06
    kick[0] = snare[per :: 2 * per] = True
    if rng.random() < 0.4:
        kick[::per] = True
    which = int(rng.choice([2, 2, 5, 3], p=[0.45, 0.25, 0.2, 0.1]))
    every = int(rng.choice([1, 2, 2, 4] if per == 4 else [1, 3]))
    top = (np.arange(steps) % every == 0) & (rng.random(steps) > rng.uniform(0, 0.25))
    opened = rng.random(steps) < rng.choice([0, 0.06, 0.15, 0.5])
    hits: list[Hit] = []
    bar_s, start_s = steps / per * beat_s, float(rng.uniform(0.05, 0.5))
    for bar, at_s in enumerate(np.arange(start_s, seconds, bar_s).tolist()):
        fills = bar % 4 == 3 and rng.random() < 0.5
        if bar % 4 == 0 and rng.random() < 0.5:
            hits.append((at_s, 5, int(base[5] + 10)))
        for step in range(steps):
            place = step % per - 1 + 2 * swing if per == 4 and step % 2 else step % per
            time_s = at_s + (step // per + place / per) * beat_s
            drums = [0] * bool(kick[step]) + [1] * bool(snare[step])
            if top[step]:
                drums.append(3 if which == 2 and opened[step] else which)
            if fills and step >= steps - 2 * per:
                drums = [4 if rng.random() < 0.7 else 1] * (rng.random() < 0.7) + [0] * (rng.random() < 0.4)
            for drum in drums:
                velocity = base[drum] + rng.normal(0, 9) + (8 if step % per == 0 else 0)
                hits.append((time_s + rng.normal(0, jitter_s), drum, int(np.clip(velocity, 15, 127))))
    return hits


def random_hits(rng: np.random.Generator, seconds: float) -> list[Hit]:
    """Return random strokes, each drum at a rate of its own, and sometimes a roll."""
    hits: list[Hit] = []
    for drum in range(len(CLASSES)):
        rate_hz = rng.uniform(0.3, 1.2 if drum == 5 else 2.5)
        times = np.cumsum(rng.exponential(1 / rate_hz, round(2 * rate_hz * seconds) + 4))
        if rng.random() < 0.75:
            hits += [(float(t), drum, int(rng.integers(30, 125))) for t in times[times < seconds]]
    if rng.random() < 0.3:
        start_s, gap_s, drum = rng.uniform(0, seconds - 2), rng.uniform(0.05, 0.12), int(rng.choice([1, 4, 2]))
        hits += [(start_s + i * gap_s, drum, int(rng.integers(40, 115))) for i in range(int(rng.integers(6, 24)))]
    return hits


def keyed(hits: Sequence[Hit], kit: Kit, rng: np.random.Generator) -> list[Stroke]:
    """Return hits as strokes on keys that the kit has, one key of each drum for most of the time."""
    keys = [rng.permutation([key for key in drum if key in kit]).tolist() for drum in CLASSES]
    return [
        (t, keys[drum][0] if drum != 4 and rng.random() < 0.9 else int(rng.choice(keys[drum])), velocity)
        for t, drum, velocity in hits
        if keys[drum]
    ]


def mixed_kit(kits: Sequence[Kit], rng: np.random.Generator) -> Kit:
    """Return a kit whose every drum is that of one of `kits`; its hats belong together."""
    mixed: dict[int, Sequence[tuple[int, Float32]]] = {}
    hats_of = kits[int(rng.integers(len(kits)))]
    for number, keys in enumerate((*CLASSES, (*OTHER_KEYS, HALF_OPEN))):
        of = hats_of if number in (2, 3) else kits[int(rng.integers(len(kits)))]
        mixed |= {key: of[key] for key in keys if key in of}
    return mixed


def coloured(sound: Float32, rng: np.random.Generator) -> Float32:
    """Return a stroke with a tilted spectrum, as loud as it was."""
    tilted = np.append(sound[:1], sound[1:] - np.float32(rng.uniform(-0.5, 0.6)) * sound[:-1])
    return (tilted * np.float32(np.abs(sound).max() / max(1e-9, np.abs(tilted).max()))).astype(np.float32)


def half_open(sound: Float32, rng: np.random.Generator) -> Float32:
    """Return an open hat's stroke as it sounds with the pedal half down: it rings for a tenth to half a second."""
    ring_s = np.exp(rng.uniform(np.log(0.05), np.log(0.3)))
    return (sound * np.exp(-np.arange(len(sound)) / (ring_s * RATE_HZ))).astype(np.float32)


def played(strokes: Sequence[Stroke], kit: Kit, seconds: float, rng: np.random.Generator) -> Float32:
    """Return the sound of strokes, each key of the kit at a speed, each drum with a gain of this scene's own."""
    out = np.zeros(round((seconds + 3) * RATE_HZ), dtype=np.float32)
    speeds = {key: 2 ** (rng.uniform(-3, 3) / 12) if rng.random() < 0.6 else 1.0 for key in kit}
    gains = 10 ** (rng.normal(0, 3, len(CLASSES)) / 20)
    hats = sorted(t for t, key, _ in strokes if key in (42, 44, 46))
    half = rng.random() < 0.35
    moved: dict[tuple[int, int], Float32] = {}
    for time_s, key, velocity in strokes:
        if key not in kit or not 0 <= time_s < seconds:
            continue
        of, sound = min(kit[key], key=lambda shot: abs(shot[0] - velocity))
        if (key, of) not in moved:
            sound = half_open(sound, rng) if key == 46 and half else sound
            sound = coloured(sound, rng) if rng.random() < 0.3 else sound
            moved[key, of] = soxr.resample(sound, RATE_HZ * speeds[key], RATE_HZ, quality="MQ").astype(np.float32)
        sound = moved[key, of] * np.float32((velocity / of) ** 2 * gains[CLASS_OF_KEY.get(key, 0)])
        damped = [round((t - time_s) * RATE_HZ) for t in hats if t > time_s + 0.01] if key == 46 else []
        if damped and damped[0] < len(sound):
            sound = sound[: damped[0] + RATE_HZ // 50].copy()
            sound[damped[0] :] *= np.linspace(1, 0, len(sound) - damped[0], dtype=np.float32)
        first = round(time_s * RATE_HZ)
        out[first : first + len(sound)] += sound[: len(out) - first]
    return out[: round(seconds * RATE_HZ)]
