"""Real and damaged MIDI files: each is read, rendered and kept, or refused in one line, within 5 s of computing.

``python -m benchmarks.midi_files 1000 FOLDER…`` takes the MIDI files in folders, and in WAD files of games such as Debian's
freedoom, and damages copies of them until there are so many.
"""

import hashlib
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from musichal.audio.midi_recording import read_midi_recording
from musichal.audio.recording_files import MIDI_SUFFIXES
from musichal.errors import MusicHalError

LONGEST_S = 5.0
_MOST_S = 450.0


class TooSlowError(BaseException):
    """A file took too long."""


def real_files(folders: list[Path]) -> dict[str, bytes]:
    """Return different MIDI files by name."""
    found: dict[str, bytes] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if path.suffix.lower() in MIDI_SUFFIXES:
            data = path.read_bytes()
            found.setdefault(hashlib.sha256(data).hexdigest(), data)
        elif path.suffix.lower() == ".wad":
            data = path.read_bytes()
            for piece in data.split(b"MThd")[1:]:
                whole = (b"MThd" + piece)[: _length(b"MThd" + piece)]
                found.setdefault(hashlib.sha256(whole).hexdigest(), whole)
    return {digest[:12]: data for digest, data in found.items()}


def _length(data: bytes) -> int:
    """Return how long the MIDI file is that data begins with."""
    at = 14
    for _ in range(int.from_bytes(data[10:12], "big")):
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "big")
    return at


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a damaged copy: cut short, bytes changed, a stretch lost, doubled or moved, or numbers at their limits."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(0, len(out))), int(rng.integers(1, 1 + min(400, len(out) // 2)))
        match int(rng.integers(0, 6)):
            case 0:
                del out[max(20, at) :]
            case 1:
                for place in rng.integers(0, len(out), 1 + length // 8):
                    out[place] = int(rng.integers(0, 256))
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length]
            case 4:
                out[at : at + 4] = bytes(rng.choice([0x00, 0x7F, 0x80, 0xFF], 4).tolist())
            case _:
                place = int(rng.choice([8, 9, 10, 11, 12, 13, 18, 19, 20, 21]))
                out[place] = int(rng.integers(0, 256))
        if len(out) < 24:
            return bytes(out)
    return bytes(out)


def cases(real: dict[str, bytes], count: int) -> Iterator[tuple[str, bytes]]:
    """Yield every real file, then damaged ones."""
    yield from real.items()
    rng, names = np.random.default_rng(0), sorted(real)
    for number in range(count - len(real)):
        name = names[number % len(names)]
        yield f"{name}-{number}", damaged(real[name], rng)


def outcome(path: Path) -> str:
    """Read a file; return what became of it."""
    try:
        recording = read_midi_recording(path)
    except MusicHalError as error:
        return "refused" if "\n" not in str(error) and len(str(error)) < 600 else f"FAILED: {error!s:.80}"
    except TooSlowError:
        return "TOO SLOW"
    except Exception:
        return f"FAILED: {traceback.format_exc(limit=-1).splitlines()[-1][:80]}"
    return "read" if recording.take is not None and np.isfinite(recording.samples).all() else "FAILED: not finite"


def main() -> int:
    """Run."""
    count, folders = int(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]]
    until_s = time.monotonic() + _MOST_S

    def stop(*_: object) -> None:
        raise TooSlowError

    signal.signal(signal.SIGPROF, stop)
    found: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    real = real_files(folders)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in cases(real, count):
            path = Path(folder) / "case.mid"
            path.write_bytes(data)
            began_s = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
            result = outcome(path)
            signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = sorted([*slowest, (time.process_time() - began_s, name)])[-5:]
            found[result] += 1
            if result not in ("read", "refused"):
                sys.stdout.write(f"{name}: {result}\n")
                sys.stdout.flush()
                Path(f"midi-case-{name}.mid").write_bytes(data)
            if list(Path(folder).iterdir()) != [path]:
                sys.stdout.write(f"{name}: left files\n")
            if time.monotonic() > until_s:
                break
    sys.stdout.write(f"{sum(found.values())} files, {len(real)} of them real: {dict(found)}; slowest {slowest}\n")
    return int(any(result not in ("read", "refused") for result in found))


if __name__ == "__main__":
    sys.exit(main())
