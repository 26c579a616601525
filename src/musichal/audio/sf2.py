"""Reader of SoundFont 2 files: the regions of a preset and their samples, with every index checked.

Conventions
-----------
A font is not trusted: anything out of range is one `InputError`, and generator values are clipped to the ranges of the
SoundFont 2.04 specification (E-mu 1998). Times are in seconds, levels in dB, pitch in cents, positions in samples of
the font. A *region* is a preset zone joined with an instrument zone.

What a region does not carry, because nothing here plays it: LFOs, modulators, envelopes of the pitch, reverb, chorus.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from musichal.arrays import Float32, Int16, Records
from musichal.errors import InputError
from musichal.text import PathLike, printable, reason

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
_MOST_REGIONS = 10_000
_PERCUSSION_BANK = 128

# Generator numbers, from the specification.
_KEY_RANGE, _VELOCITY_RANGE, _INSTRUMENT, _SAMPLE = 43, 44, 41, 53
_OFFSETS = {"start": (0, 4), "end": (1, 12), "loop_start": (2, 45), "loop_end": (3, 50)}
_SAMPLE_MODES, _SCALE_TUNING, _EXCLUSIVE_CLASS, _ROOT_KEY, _KEY, _VELOCITY = 54, 56, 57, 58, 46, 47
_ONLY_IN_INSTRUMENTS = {0, 1, 2, 3, 4, 12, 45, 50, _KEY, _VELOCITY, _SAMPLE_MODES, _EXCLUSIVE_CLASS, _ROOT_KEY}
# number: (default, lowest, highest)
_VALUES = {
    8: (13500, 1500, 13500),
    9: (0, 0, 960),
    11: (0, -12000, 12000),
    25: (-12000, -12000, 5000),
    26: (-12000, -12000, 8000),
    27: (-12000, -12000, 5000),
    28: (-12000, -12000, 8000),
    29: (0, 0, 1000),
    30: (-12000, -12000, 8000),
    31: (0, -1200, 1200),
    32: (0, -1200, 1200),
    17: (0, -500, 500),
    33: (-12000, -12000, 5000),
    34: (-12000, -12000, 8000),
    35: (-12000, -12000, 5000),
    36: (-12000, -12000, 8000),
    37: (0, 0, 1440),
    38: (-12000, -12000, 8000),
    39: (0, -1200, 1200),
    40: (0, -1200, 1200),
    48: (0, 0, 1440),
    51: (0, -120, 120),
    52: (0, -99, 99),
    _SCALE_TUNING: (100, 0, 1200),
    _SAMPLE_MODES: (0, 0, 3),
    _EXCLUSIVE_CLASS: (0, 0, 127),
    _ROOT_KEY: (-1, -1, 127),
    _KEY: (-1, -1, 127),
    _VELOCITY: (-1, -1, 127),
}


@dataclass(frozen=True)
class Envelope:
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


@dataclass(frozen=True)
class Region:
    """A sample and how it sounds for a range of keys and velocities (both ends included).

    `loop_mode` is 0 (none), 1 (always) or 3 (until released). `key` and `velocity` replace those played where they are
    not −1. The filter's cutoff, in cents above 8.176 Hz, is at `filter_cents` and rises by `filter_swing_cents` at the
    top of its envelope.
    """

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
    filter_envelope: Envelope
    envelope: Envelope


class SoundFont:
    """A font that was opened with `open_soundfont`."""

    def __init__(self, name: str, samples: Int16, tables: dict[bytes, Records]) -> None:
        self.name = name
        self._samples = samples
        self._tables = tables
        self._regions: dict[tuple[int, int], tuple[Region, ...]] = {}

    def samples(self, start: int, end: int) -> Float32:
        """Return samples [start, end) in [−1, 1)."""
        return self._samples[start:end].astype(np.float32) / np.float32(32768)

    def regions(self, program: int, *, percussion: bool = False) -> tuple[Region, ...]:
        """Return the regions of a General MIDI program, or of a drum kit; `InputError` where the font has none."""
        bank = _PERCUSSION_BANK if percussion else 0
        if (bank, program) not in self._regions:
            self._regions[bank, program] = self._build(bank, program)
        return self._regions[bank, program]

    def _build(self, bank: int, program: int) -> tuple[Region, ...]:
        presets = self._tables[b"phdr"]
        (found,) = np.nonzero((presets["bank"][:-1] == bank) & (presets["preset"][:-1] == program))
        if not found.size:
            raise InputError(f"{self.name}: the soundfont has no {'drum kit' if bank else 'program'} {program}")
        instruments, regions = self._tables[b"inst"], []
        for zone in self._zones(presets, int(found[0]), b"pbag", b"pgen", _INSTRUMENT):
            number = zone[_INSTRUMENT]
            if number >= len(instruments) - 1:
                raise _damaged(self.name)
            added = {k: v for k, v in zone.items() if k not in _ONLY_IN_INSTRUMENTS}
            for own in self._zones(instruments, number, b"ibag", b"igen", _SAMPLE):
                region = self._region(added, own)
                if region is not None:
                    regions.append(region)
                if len(regions) > _MOST_REGIONS:
                    raise _damaged(self.name)
        return tuple(regions)

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

    def _region(self, added: dict[int, int], own: dict[int, int]) -> Region | None:
        keys = _overlap(_range(added.get(_KEY_RANGE)), _range(own.get(_KEY_RANGE)))
        velocities = _overlap(_range(added.get(_VELOCITY_RANGE)), _range(own.get(_VELOCITY_RANGE)))
        if own[_SAMPLE] >= len(self._tables[b"shdr"]) - 1:
            raise _damaged(self.name)
        header = self._tables[b"shdr"][own[_SAMPLE]]
        if int(header["type"]) & _SAMPLE_IS_PACKED:
            raise InputError(f"{self.name}: compressed soundfonts (SF3) are not supported; use an .sf2 file")
        at = {k: int(header[k]) + own.get(f, 0) + 32768 * own.get(c, 0) for k, (f, c) in _OFFSETS.items()}
        if keys is None or velocities is None or int(header["type"]) & _SAMPLE_IS_IN_ROM:
            return None
        rate_hz = int(header["rate"])
        if not (0 <= at["start"] < at["end"] <= len(self._samples) and 400 <= rate_hz <= 400_000):
            raise _damaged(self.name)

        def value(number: int) -> int:
            default, lowest, highest = _VALUES[number]
            return min(highest, max(lowest, own.get(number, default) + added.get(number, 0)))

        def envelope(first: int, *, deepest: int) -> Envelope:
            delay, attack, hold, decay, release = (2.0 ** (value(first + k) / 1200) for k in (0, 1, 2, 3, 5))
            hold_key, decay_key = value(first + 6), value(first + 7)
            fall = min(1.0, value(first + 4) / deepest)
            return Envelope(delay, attack, hold, hold_key, decay, decay_key, fall, release)

        loops = value(_SAMPLE_MODES) in (1, 3) and at["start"] <= at["loop_start"] < at["loop_end"] <= at["end"]
        header_key = int(header["key"]) if int(header["key"]) <= 127 else 60
        return Region(
            keys=keys,
            velocities=velocities,
            start=at["start"],
            end=at["end"],
            loop_start=at["loop_start"],
            loop_end=at["loop_end"],
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
            filter_envelope=envelope(25, deepest=1000),
            envelope=envelope(33, deepest=1000),
        )


def open_soundfont(path: PathLike) -> SoundFont:
    """Read a SoundFont 2 file into memory.

    Raises `InputError`, in one line, for a file that is missing, cannot be read, is not a font, or is damaged.
    """
    name = printable(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path of any kind
            data = memoryview(file.read())
    except OSError as error:
        raise InputError(f"cannot read the soundfont {name}: {reason(error)}") from error
    if len(data) < 12 or bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"sfbk":
        raise InputError(f"{name}: not a SoundFont 2 file")
    found: dict[bytes, memoryview] = {}
    for kind, body in _chunks(name, data[12:]):
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


def _range(amount: int | None) -> tuple[int, int]:
    return (0, 127) if amount is None else (amount & 0xFF, amount >> 8 & 0xFF)


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int] | None:
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low <= high else None
