"""SoundFont 2 files: a reader that checks every index, and a player in NumPy and soxr.

Conventions
-----------
A font is not trusted: anything out of range raises one `InputError`, and generator values are clipped to the ranges of the
SoundFont 2.04 specification (E-mu 1998). Times are in seconds, levels in dB, pitch in cents, positions in samples of the font.
A *region* is a preset zone joined with an instrument zone. LFOs, modulators, pitch envelopes, reverb, chorus are not played.

Each region of a note is its sample resampled to the note's pitch, through its low-pass filter, its volume envelope
(linear attack, decay and release straight in dB) and its pan. Velocity v plays at (v / 127)², the default modulator of
the specification.

The synthesisers that pip installs are no substitute: symusic 0.5.8 plays looped samples out of tune, ignores velocity and
crashes on a damaged font; tinysoundfont has no wheels for half of our platforms.
"""

import bisect
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import soundfile
import soxr

from musichal.arrays import Float32, Float64, Int16, Records
from musichal.errors import InputError
from musichal.note import PERCUSSION_CHANNEL, Note
from musichal.text import PathLike, counted, open_file, pitch_name, printable, reason

_PERCUSSION_BANK = 128
_ENVELOPE_DB = 100.0  # a decay or release time is the time in which the level falls by this much
_SHORTEST_RELEASE_S = 0.02  # shorter ones click
_CENT_0_HZ = 8.176
_FILTER_STEP, _FILTER_CENTS = 128, 25  # samples and cents in which a moving cutoff is stepped
_ATTENUATION_SCALE = 0.4  # fonts are voiced by ear on hardware that plays so much of what they ask for; players follow it

_RECORDS: dict[bytes, list[Any]] = {
    b"phdr": [("name", "S20"), ("preset", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("unused", "<u4", 3)],
    b"pbag": [("gen", "<u2"), ("mod", "<u2")],
    b"pgen": [("oper", "<u2"), ("amount", "<i2")],
    b"inst": [("name", "S20"), ("bag", "<u2")],
    b"ibag": [("gen", "<u2"), ("mod", "<u2")],
    b"igen": [("oper", "<u2"), ("amount", "<i2")],
    b"shdr": [
        *(("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop_start", "<u4"), ("loop_end", "<u4")),
        *(("rate", "<u4"), ("key", "u1"), ("correction", "i1"), ("link", "<u2"), ("type", "<u2")),
    ],
}
_SAMPLE_IS_PACKED, _SAMPLE_IS_IN_ROM = 0x10, 0x8000
_MOST_REGIONS, _MOST_LISTED, _MOST_SAMPLES = 10_000, 8, 1 << 26
_DRUMS = (_PERCUSSION_BANK, 127)  # the second is XG's

# Generator numbers, from the specification.
_KEY_RANGE, _VELOCITY_RANGE, _INSTRUMENT, _SAMPLE = 43, 44, 41, 53
_OFFSETS = {"start": (0, 4), "end": (1, 12), "loop_start": (2, 45), "loop_end": (3, 50)}
_SAMPLE_MODES, _SCALE_TUNING, _EXCLUSIVE_CLASS, _ROOT_KEY, _KEY, _VELOCITY = 54, 56, 57, 58, 46, 47
_ONLY_IN_INSTRUMENTS = {0, 1, 2, 3, 4, 12, 45, 50, _KEY, _VELOCITY, _SAMPLE_MODES, _EXCLUSIVE_CLASS, _ROOT_KEY}
_VALUES = {  # number: (default, lowest, highest)
    8: (13500, 1500, 13500),
    9: (0, 0, 960),
    11: (0, -12000, 12000),
    17: (0, -500, 500),
    **dict.fromkeys((25, 27, 33, 35), (-12000, -12000, 5000)),
    **dict.fromkeys((26, 28, 30, 34, 36, 38), (-12000, -12000, 8000)),
    **dict.fromkeys((31, 32, 39, 40), (0, -1200, 1200)),
    29: (0, 0, 1000),
    37: (0, 0, 1440),
    48: (0, 0, 1440),
    51: (0, -120, 120),
    52: (0, -99, 99),
    _SCALE_TUNING: (100, 0, 1200),
    _SAMPLE_MODES: (0, 0, 3),
    _EXCLUSIVE_CLASS: (0, 0, 127),
    **dict.fromkeys((_ROOT_KEY, _KEY, _VELOCITY), (-1, -1, 127)),
}


@dataclass(frozen=True)
class _Envelope:
    """Times of an envelope, and how far it has fallen when its decay ends: `fall`, from 0 to 1.

    1 stands for silence, 100 dB down, in the envelope of the volume. Hold and decay times are those at key 60 and change
    by `*_key_cents` (timecents) per key below it. A decay or release time is that of the whole way from 0 to 1.
    """

    delay_s: float
    attack_s: float
    hold_s: float
    hold_key_cents: int
    decay_s: float
    decay_key_cents: int
    fall: float
    release_s: float

    def at(self, key: int, time_s: Float64, released_s: float) -> tuple[Float64, Float64]:
        """Return at `time_s` how far it has risen (0 to 1) and fallen since (0 upwards); the key is up at `released_s`.

        A volume is rise × 10^(−fall · 100 dB / 20), a modulation rise − fall.
        """
        held_s = np.minimum(time_s, released_s) - self.delay_s
        hold_s = self.hold_s * 2.0 ** ((60 - key) * self.hold_key_cents / 1200)
        decay_s = self.decay_s * 2.0 ** ((60 - key) * self.decay_key_cents / 1200)
        rise = (held_s / self.attack_s).clip(0, 1)
        fall = ((held_s - self.attack_s - hold_s) / decay_s).clip(0, self.fall)
        return rise, fall + (time_s - released_s).clip(0) / max(self.release_s, _SHORTEST_RELEASE_S)


@dataclass(frozen=True)
class _Region:
    """A sample and how it sounds for a range of keys and velocities (both ends included).

    `loop_mode` is 0 (none), 1 (always) or 3 (until released). `key` and `velocity` replace those played where they are
    not −1. The filter's cutoff, in cents above 8.176 Hz, is at `filter_cents` and rises by `filter_swing_cents` at the
    top of its envelope. `packed` is the row of a sample that is unpacked, −1 for others.
    """

    packed: int
    keys: tuple[int, int]
    velocities: tuple[int, int]
    start: int
    end: int
    loop_start: int
    loop_end: int
    loop_mode: int
    rate_hz: int
    root_key: int
    tuning_cents: float
    scale_cents: int
    key: int
    velocity: int
    exclusive_class: int
    attenuation_db: float
    pan: float
    filter_cents: float
    filter_q_db: float
    filter_swing_cents: float
    filter_envelope: _Envelope
    envelope: _Envelope


@dataclass(frozen=True)
class _Voice:
    """One region of one note, in samples of the output; it is cut `choke_s` after its start."""

    region: _Region
    key: int
    velocity: int
    channel: int
    start: int
    held: int
    rate_hz: int
    choke_s: float = math.inf

    @property
    def held_s(self) -> float:
        return self.held / self.rate_hz

    @property
    def speed_hz(self) -> float:
        """The rate at which the samples of the font are played; within 12 octaves down and 5 up."""
        region = self.region
        cents = (self.key - region.root_key) * region.scale_cents + region.tuning_cents
        return float(min(max(region.rate_hz * 2.0 ** (cents / 1200), self.rate_hz / 4096), self.rate_hz * 32))

    @property
    def length(self) -> int:
        """The samples of the output that pass before the voice is silent for good."""
        region = self.region
        _, fall = region.envelope.at(self.key, np.array([self.held_s]), self.held_s)
        released_s = self.held_s + max(region.envelope.release_s, _SHORTEST_RELEASE_S) * (1 - float(fall[0]))
        end_s = min(released_s, self.choke_s + _SHORTEST_RELEASE_S)
        if region.loop_mode == 0:
            end_s = min(end_s, (region.end - region.start) / self.speed_hz)
        return max(1, math.ceil(end_s * self.rate_hz))


class SoundFont:
    """A font that was opened with `open_soundfont`; an `Instrument`."""

    def __init__(self, name: str, samples: Int16, tables: dict[bytes, Records]) -> None:
        self.name = name
        self._samples = samples
        self._tables = tables
        self._regions: dict[tuple[int, int], tuple[_Region, ...]] = {}
        self._unpacked: dict[int, Int16] = {}
        self._left_out: set[str] = set()

    def remarks(self, program: int) -> tuple[str, ...]:
        """Return sentences on what plays instead of a program that there is not, keys without a sample, and damaged samples."""
        said = []
        bank, found = self._preset(0, program)
        if (bank, found) != (0, program):
            there = {(int(p["bank"]), int(p["preset"])): _name(p["name"]) for p in self._tables[b"phdr"][-2::-1]}
            names = [f"{p + 1} {name}" + f" (bank {b})" * (b > 0) for (b, p), name in sorted(there.items())]
            listed = ", ".join(names[:_MOST_LISTED])
            more = f", … ({len(there)} in all)" if len(there) > _MOST_LISTED else ""
            said.append(
                f"{self.name} has no program {program + 1}: {found + 1} {there[bank, found]} plays. It has {listed}{more}"
            )
        heard = {key for region in self._of(bank, found) for key in range(region.keys[0], region.keys[1] + 1)}
        if heard and (mute := [pitch_name(key) for key in range(36, 85) if key not in heard]):
            keys = f"{counted(len(mute), 'key')} from {mute[0]} to {mute[-1]}"
            said.append(f"{self.name}: program {found + 1} has no sample for {keys}: silent")
        if self._left_out:
            said.append(f"{self.name}: damaged samples are left out: {', '.join(sorted(self._left_out))}")
        return tuple(said)

    def _preset(self, bank: int, program: int) -> tuple[int, int]:
        """Return the bank and the program that play: those asked for, a variation of them, their family's, or the nearest."""
        there = {(int(p["bank"]), int(p["preset"])) for p in self._tables[b"phdr"][:-1]}
        own = [key for key in there if (key[0] in _DRUMS) == (bank == _PERCUSSION_BANK)] or list(there)
        if not own:
            raise _damaged(self.name)
        return min(
            own,
            key=lambda k: (
                k != (bank, program),
                k[1] != program,
                k[0] != bank,
                k[1] // 8 != program // 8,
                abs(k[1] - program),
                k,
            ),
        )

    def _of(self, bank: int, program: int) -> tuple[_Region, ...]:
        if (bank, program) not in self._regions:
            preset = self._preset(bank, program)
            there = bank != _PERCUSSION_BANK or preset[0] in _DRUMS
            self._regions[bank, program] = tuple(self._build(*preset)) if there else ()
        return self._regions[bank, program]

    def sounds(
        self, notes: Iterable[Note], *, sample_rate_hz: int, programs: Mapping[int, int]
    ) -> Iterator[tuple[int, Float32]]:
        """Yield the first sample and the stereo sound (n, 2) of each region of each note, in order of time.

        `programs` gives channels their General MIDI program (plus 128 a bank) or drum kit; where it is missing, see `remarks`.
        """
        for voice in _choked([voice for note in notes for voice in self._voices(note, sample_rate_hz, programs)]):
            region = voice.region
            pool = self._samples if region.packed < 0 else self._unpacked[region.packed]
            samples = pool[region.start : region.end].astype(np.float32) / np.float32(32768)
            loudness = (voice.velocity / 127) ** 2 * 10 ** (-_ATTENUATION_SCALE * region.attenuation_db / 20)
            angle = (region.pan + 1) * math.pi / 4
            sides = np.array([loudness * math.cos(angle), loudness * math.sin(angle)], np.float32)
            yield voice.start, _sound(voice, samples)[:, None] * sides

    def _voices(self, note: Note, rate_hz: int, programs: Mapping[int, int]) -> Iterator[_Voice]:
        bank, program = divmod(programs.get(note.channel, 0), 128)
        regions = self._of(_PERCUSSION_BANK if note.channel == PERCUSSION_CHANNEL else bank, program)
        start = round(note.onset_s * rate_hz)
        held = max(1, round((note.onset_s + note.duration_s) * rate_hz) - start)
        for region in regions:
            if _within(note.pitch, region.keys) and _within(note.velocity, region.velocities):
                key = note.pitch if region.key < 0 else region.key
                velocity = note.velocity if region.velocity < 0 else region.velocity
                yield _Voice(region, key, velocity, note.channel, start, held, rate_hz)

    def _build(self, bank: int, program: int) -> Iterator[_Region]:
        presets = self._tables[b"phdr"]
        (found,) = np.nonzero((presets["bank"][:-1] == bank) & (presets["preset"][:-1] == program))
        instruments, count, tried = self._tables[b"inst"], 0, 0
        for zone in self._zones(presets, int(found[0]), b"pbag", b"pgen", _INSTRUMENT):
            if zone[_INSTRUMENT] >= len(instruments) - 1:
                raise _damaged(self.name)
            added = {k: v for k, v in zone.items() if k not in _ONLY_IN_INSTRUMENTS}
            for own in self._zones(instruments, zone[_INSTRUMENT], b"ibag", b"igen", _SAMPLE):
                region, tried = self._region(added, own), tried + 1
                if region is not None:
                    yield region
                    count += 1
                if tried > _MOST_REGIONS:
                    raise _damaged(self.name)
        if not count and self._left_out:
            raise _damaged(self.name)

    def _zones(self, table: Records, row: int, bags: bytes, gens: bytes, last: int) -> Iterator[dict[int, int]]:
        """Yield the generators of each zone of a preset or instrument that ends in `last`, over those of its global zone."""
        bag_table, gen_table = self._tables[bags], self._tables[gens]
        first, end = int(table["bag"][row]), int(table["bag"][row + 1])
        if not first <= end < len(bag_table):
            raise _damaged(self.name)
        common: dict[int, int] = {}
        for bag in range(first, end):
            low, high = int(bag_table["gen"][bag]), int(bag_table["gen"][bag + 1])
            if not low <= high < len(gen_table) + 1:
                raise _damaged(self.name)
            zone = {int(g["oper"]): int(g["amount"]) for g in gen_table[low:high]}
            if last in zone:
                yield {**common, **zone, last: zone[last] & 0xFFFF}
            elif bag == first:
                common = zone

    def _region(self, added: dict[int, int], own: dict[int, int]) -> _Region | None:
        if own[_SAMPLE] >= len(self._tables[b"shdr"]) - 1:
            raise _damaged(self.name)
        header = self._tables[b"shdr"][own[_SAMPLE]]
        packed, pool = -1, self._samples
        if int(header["type"]) & _SAMPLE_IS_PACKED:  # of SF3: Ogg Vorbis, its loop counted from its start
            packed, pool = own[_SAMPLE], self._unpack(own[_SAMPLE])
            header = header.copy()
            header["start"], header["end"] = 0, len(pool)
        at = {k: int(header[k]) + own.get(f, 0) + 32768 * own.get(c, 0) for k, (f, c) in _OFFSETS.items()}
        keys, velocities = (_overlap(added.get(kind), own.get(kind)) for kind in (_KEY_RANGE, _VELOCITY_RANGE))
        if keys[0] > keys[1] or velocities[0] > velocities[1] or int(header["type"]) & _SAMPLE_IS_IN_ROM:
            return None
        rate_hz = int(header["rate"])
        if not (0 <= at["start"] < at["end"] <= len(pool) and 400 <= rate_hz <= 400_000):
            self._left_out.add(_name(header["name"]))
            return None

        def value(number: int) -> int:
            default, lowest, highest = _VALUES[number]
            return min(highest, max(lowest, own.get(number, default) + added.get(number, 0)))

        def envelope(first: int) -> _Envelope:
            delay, attack, hold, decay, release = (2.0 ** (value(first + k) / 1200) for k in (0, 1, 2, 3, 5))
            fall = min(1.0, value(first + 4) / 1000)
            return _Envelope(delay, attack, hold, value(first + 6), decay, value(first + 7), fall, release)

        loops = value(_SAMPLE_MODES) in (1, 3) and at["start"] <= at["loop_start"] < at["loop_end"] <= at["end"]
        header_key = int(header["key"]) if int(header["key"]) <= 127 else 60
        return _Region(
            **at,
            packed=packed,
            keys=keys,
            velocities=velocities,
            loop_mode=value(_SAMPLE_MODES) if loops else 0,
            rate_hz=rate_hz,
            root_key=value(_ROOT_KEY) if value(_ROOT_KEY) >= 0 else header_key,
            tuning_cents=100.0 * value(51) + value(52) + int(header["correction"]),
            scale_cents=value(_SCALE_TUNING),
            key=value(_KEY),
            velocity=value(_VELOCITY),
            exclusive_class=value(_EXCLUSIVE_CLASS),
            attenuation_db=value(48) / 10,
            pan=value(17) / 500,
            filter_cents=value(8),
            filter_q_db=value(9) / 10,
            filter_swing_cents=value(11),
            filter_envelope=envelope(25),
            envelope=envelope(33),
        )

    def _unpack(self, row: int) -> Int16:
        """Return a sample that is packed as Ogg Vorbis, empty where it cannot be read."""
        if row not in self._unpacked:
            header = self._tables[b"shdr"][row]
            data = self._samples.tobytes()[int(header["start"]) : int(header["end"])]
            try:
                with soundfile.SoundFile(io.BytesIO(data)) as sound:
                    samples: Int16 = sound.read(min(sound.frames, _MOST_SAMPLES), dtype="int16", always_2d=True)[:, 0]
            except soundfile.SoundFileError:
                samples = np.zeros(0, np.int16)
            self._unpacked[row] = samples
        return self._unpacked[row]


def _name(name: bytes) -> str:
    return printable(name.split(b"\0")[0].decode("latin-1")).strip()


def open_soundfont(path: PathLike) -> SoundFont:
    """Read a SoundFont 2 file into memory.

    Raises `InputError`, in one line, for a file that is missing, cannot be read, is not a font, or is damaged.
    """
    name = printable(path)
    try:
        with open_file(path) as file:
            data = memoryview(file.read())
    except OSError as error:
        raise InputError(f"cannot read the soundfont {name}: {reason(error)}") from error
    if len(data) < 12 or bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"sfbk":
        raise InputError(f"{name}: not a SoundFont 2 file")
    found: dict[bytes, memoryview] = {}
    end = 8 + int.from_bytes(data[4:8], "little")  # other bytes may follow; a size of 0 was never written
    for kind, body in _chunks(name, data[12:end] if 12 < end <= len(data) else data[12:]):
        if kind == b"LIST":
            found.update(_chunks(name, body[4:]))
    missing = sorted(kind.decode() for kind in {*_RECORDS, b"smpl"} - found.keys())
    if missing:
        raise InputError(f"{name}: damaged soundfont: it has no {', '.join(missing)}")
    tables = {}
    for kind, fields in _RECORDS.items():
        dtype: np.dtype[Any] = np.dtype(fields)
        body = found[kind]
        # Each table of names ends with a record that only closes the last one.
        if len(body) % dtype.itemsize or len(body) < dtype.itemsize:
            raise _damaged(name)
        tables[kind] = np.frombuffer(body, dtype)
    body = found[b"smpl"]
    return SoundFont(name, np.frombuffer(body[: len(body) // 2 * 2], "<i2"), tables)


def _chunks(name: str, data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        body = data[position + 8 : position + 8 + size]
        if len(body) < size:
            raise InputError(f"{name}: damaged soundfont: the file ends too early")
        yield bytes(data[position : position + 4]), body
        position += 8 + size + size % 2


def _damaged(name: str) -> InputError:
    return InputError(f"{name}: damaged soundfont: its tables do not fit together")


def _within(value: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _overlap(*amounts: int | None) -> tuple[int, int]:
    """Return what ranges, packed as low and high byte, have in common; a missing one holds everything."""
    ranges = [(0, 127) if amount is None else (amount & 0xFF, amount >> 8 & 0xFF) for amount in amounts]
    return max(low for low, _ in ranges), min(high for _, high in ranges)


def _choked(voices: Sequence[_Voice]) -> Iterator[_Voice]:
    """Yield `voices` in order of time, those of an exclusive class cut where its next note starts (hi-hats)."""
    ordered = sorted(voices, key=lambda v: (v.start, v.channel, v.key, v.velocity, v.held, v.region.start))
    starts: dict[tuple[int, int], list[int]] = {}
    for voice in ordered:
        starts.setdefault((voice.channel, voice.region.exclusive_class), []).append(voice.start)
    for voice in ordered:
        of_class = starts[voice.channel, voice.region.exclusive_class]
        following = bisect.bisect_right(of_class, voice.start)
        cut = voice.region.exclusive_class and following < len(of_class)
        yield replace(voice, choke_s=(of_class[following] - voice.start) / voice.rate_hz) if cut else voice


def _sound(voice: _Voice, samples: Float32) -> Float32:
    """Return the voice at full level, mono: its sample, unrolled, at its pitch, filtered, under its envelope."""
    speed_hz, n = voice.speed_hz, voice.length
    # A few samples more than are played, so that the end is not the edge of the resampler.
    source = _unrolled(voice, samples, math.ceil(n / voice.rate_hz * speed_hz) + 64)
    sound = _filtered(voice, soxr.resample(source, speed_hz, voice.rate_hz, quality="HQ")[:n])
    time_s = np.arange(len(sound)) / voice.rate_hz
    rise, fall = voice.region.envelope.at(voice.key, time_s, voice.held_s)
    sound *= (rise * (fall < 1)).astype(np.float32)
    sound *= np.exp(fall.astype(np.float32) * np.float32(-_ENVELOPE_DB * math.log(10) / 20))
    if voice.choke_s < math.inf:
        sound *= np.clip(1 - (time_s - voice.choke_s) / _SHORTEST_RELEASE_S, 0.0, 1.0).astype(np.float32)
    return sound


def _unrolled(voice: _Voice, samples: Float32, n: int) -> Float32:
    """Return the `n` samples of the font that are passed in playing, loops written out."""
    region = voice.region
    loop_start, loop_end = region.loop_start - region.start, region.loop_end - region.start
    if region.loop_mode == 0 or n <= loop_end:
        return samples[:n]
    looped_to = n if region.loop_mode == 1 else min(n, math.ceil(voice.held_s * voice.speed_hz))
    repeats = max(0, -(-(looped_to - loop_end) // (loop_end - loop_start)))
    rest = samples[loop_end:] if region.loop_mode == 3 else samples[:0]
    return np.concatenate([samples[:loop_end], np.tile(samples[loop_start:loop_end], repeats), rest])[:n]


def _filtered(voice: _Voice, sound: Float32) -> Float32:
    """Return `sound` through the region's resonant low-pass, whose cutoff follows its envelope in steps."""
    region, rate_hz = voice.region, voice.rate_hz
    time_s = np.arange(0, len(sound), _FILTER_STEP) / rate_hz
    cents = np.full(len(time_s), float(region.filter_cents))
    if region.filter_swing_cents:
        rise, fall = region.filter_envelope.at(voice.key, time_s, voice.held_s)
        cents += region.filter_swing_cents * (rise - fall).clip(0)
    # Above this the filter is out of the way: the specification's highest cutoff, or what the rate can carry.
    highest = min(13500.0, 1200 * math.log2(0.45 * rate_hz / _CENT_0_HZ))
    cents = np.minimum(np.round(cents / _FILTER_CENTS) * _FILTER_CENTS, highest)
    if cents.min() >= highest:
        return sound
    from scipy.signal import lfilter

    starts = np.flatnonzero(np.diff(cents, prepend=-1)) * _FILTER_STEP
    state = np.zeros(2)
    parts = []
    for start, end in itertools.pairwise([*starts.tolist(), len(sound)]):
        b, a = _low_pass(float(cents[start // _FILTER_STEP]), region.filter_q_db, rate_hz)
        part, state = lfilter(b, a, sound[start:end], zi=state)
        parts.append(part)
    return np.concatenate(parts).astype(np.float32)


@lru_cache(maxsize=1024)
def _low_pass(cents: float, q_db: float, rate_hz: int) -> tuple[Float64, Float64]:
    """Return numerator and denominator of a resonant low-pass of two poles, by the bilinear transform."""
    # A resonance of 0 dB is the flat (Butterworth) filter, 3.01 dB down at the cutoff.
    q = 10 ** ((q_db - 3.01) / 20)
    omega = 2 * math.pi * _CENT_0_HZ * 2.0 ** (cents / 1200) / rate_hz
    alpha, cosine = math.sin(omega) / (2 * q), math.cos(omega)
    b = np.array([(1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2]) / (1 + alpha)
    return b, np.array([1 + alpha, -2 * cosine, 1 - alpha]) / (1 + alpha)
