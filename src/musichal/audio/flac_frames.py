"""The frames of a FLAC stream by their headers (RFC 9639), found without decoding: which follow one another, what is amiss."""

import mmap
import re
from array import array
from bisect import bisect_right
from functools import cache

Data = bytes | mmap.mmap

_FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9][\x10-\xfe][\x00-\xae]")
_CODED_SIZES = {1: 192, **{n: 576 << n - 2 for n in range(2, 6)}, **{n: 256 << n - 8 for n in range(8, 16)}}


class FlacFrames:
    """The frames of a FLAC stream by their headers: which follow one another, which are copies, and what is missing.

    `places` and `samples` say where each begins, in the file and in the sound, and then the end; `stretches` is the file
    without copies, `lost` how many samples are missing.
    """

    def __init__(self, data: Data, start: int, end: int) -> None:
        self._data, self._longest = data, int.from_bytes(data[start + 10 : start + 12], "big")
        self.places, self.samples = array("q"), array("q")
        self.stretches: list[tuple[int, int]] = []
        self.lost = self.twice = 0
        begun, alone, expected, kind = start, (0, 0, 0), 0, b""
        tail = 0  # where the frame ends that was kept last
        for found in _FLAC_SYNC.finditer(data, start + 42, end):
            place = found.start()
            header = self._header(place)
            if header is None or (kind and kind != self._kind(place)):
                continue
            sample, count = header
            tail = tail or place
            if self.places and sample < expected:
                row = max(0, bisect_right(self.samples, sample) - 1)
                copied = self.places[row]
                until = self.places[row + 1] if row + 1 < len(self.places) else tail
                if self.samples[row] == sample and data[copied:until] == data[place : place + until - copied]:
                    self.twice += 1
                    self.stretches.append((begun, place))
                    begun = place + until - copied
                continue
            if sample > expected and sample != alone[1] + alone[2]:  # two that follow one another are no chance
                alone = place, sample, count
                continue
            if self.places and alone[1] == expected < sample:  # the two before are the wrong way round
                second = self.places[-1]
                self.stretches += [(begun, alone[0]), (second, place), (alone[0], second)]
                begun = place
                self._keep(*alone[:2])
            elif sample > expected:
                if self.places:
                    self.lost += alone[1] - expected
                self._keep(*alone[:2])
            kind = kind or self._kind(place)
            self._keep(place, sample)
            tail = 0
            expected = sample + count
        self.stretches.append((begun, end))
        if self.places:
            self._keep(end, expected)

    def _keep(self, place: int, sample: int) -> None:
        self.places.append(place)
        self.samples.append(sample)

    def _kind(self, place: int) -> bytes:
        """Return what all frames of a stream share: how they are numbered, and the rate and size of samples."""
        return bytes([self._data[place + 1], self._data[place + 2] & 15, self._data[place + 3] & 15])

    def _header(self, place: int) -> tuple[int, int] | None:
        """Return the first sample and the number of samples of a frame, None where there is none."""
        header = self._data[place : place + 16].ljust(16, b"\0")  # the last frame may be shorter
        more = 8 - (~header[4] & 0xFF).bit_length()
        number = header[4] & 0x7F >> more
        if more == 1 or more > 7 or any(byte >> 6 != 2 for byte in header[5 : 4 + max(1, more)]):
            return None
        for byte in header[5 : 4 + max(1, more)]:
            number = number << 6 | byte & 63
        at, size, rate = 4 + max(1, more), header[2] >> 4, header[2] & 15
        wide = {6: 1, 7: 2}.get(size, 0)
        count = int.from_bytes(header[at : at + wide], "big") + 1 if wide else _CODED_SIZES[size]
        at += wide + {12: 1, 13: 2, 14: 2}.get(rate, 0)
        check = 0
        for byte in header[:at]:
            check = _crc8_step(check ^ byte)
        if check != header[at]:
            return None
        return (number if header[1] & 1 else number * self._longest), count


@cache
def _crc8_step(value: int) -> int:
    for _ in range(8):
        value = (value << 1 ^ 0x07 if value & 0x80 else value << 1) & 0xFF
    return value


def whole_frame(data: Data, start: int, end: int) -> bool:
    """Return whether a frame matches its check sum."""
    check = 0
    for byte in data[start:end]:
        check = (check << 8 & 0xFFFF) ^ _crc16_step(check >> 8 ^ byte)
    return check == 0


@cache
def _crc16_step(value: int) -> int:
    value <<= 8
    for _ in range(8):
        value = (value << 1 ^ 0x8005 if value & 0x8000 else value << 1) & 0xFFFF
    return value
