"""Malformed files of every kind that is read: refused with one line or taken, never a crash, never endless.

The default suite takes some hundreds; ``run.py test fuzz`` goes on for ``MUSICHAL_FUZZ_S`` seconds (60) with other seeds.
"""

import contextlib
import io
import itertools
import os
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from musichal.audio.decoding import decode_foreign
from musichal.audio.recording import read_recording
from musichal.audio.score import parse_score
from musichal.audio.soundfont import open_soundfont
from musichal.audio.streams import Foreign, Spliced
from musichal.errors import MusicHalError
from musichal.evaluate.duos import read_beats
from musichal.live.control import read_cc_map
from musichal.live.input.osc import osc_message, read_datagram
from musichal.live.output.routing import read_routing
from musichal.live.session.session import read_session
from musichal.memory.partner_file import load_partner
from musichal.partner.form import parse_form
from musichal.partner.modes import built_in_modes, read_modes
from musichal.text import read_text
from test_soundfont import small_font

RATE = 8_000
MOST_S = 10.0
SOUNDS = [
    *[(kind, "PCM_16") for kind in ("WAV", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC")],
    *[("WAV", "IMA_ADPCM"), ("WAV", "FLOAT"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
]
TABLES = {
    "modes": b'[modes.mine]\nbase = "shadow"\nabout = "x"\ntemperature = 0.5\n',
    "form": b'[[section]]\nmode = "shadow"\nlength = "30s"\n\n[[section]]\nmode = "lead"\nlength = "1min"\n',
    "map": b'[[cc]]\ncontroller = 1\ncommand = "temperature"\nlow = 0.0\nhigh = 2.0\n\n[[note]]\nnote = 36\ncommand = "mute"\n',
    "voices": b'[voices.melody]\nport = "file:a.mid"\nchannel = 1\n',
    "beats": b"0.5\n1.0\n1.5\n2.0\n2.5\n",
}


def datagram(data: bytes) -> None:
    """Read a packet as the receiver does, which drops what is no OSC."""
    with contextlib.suppress(ValueError):
        read_datagram(data)


READERS: dict[str, Callable[[Path], object]] = {
    "modes": read_modes,
    "form": lambda path: parse_form(read_text(path), built_in_modes(), source=str(path)),
    "map": read_cc_map,
    "voices": read_routing,
    "beats": read_beats,
    "font": open_soundfont,
    "midi": lambda path: parse_score(path.read_bytes(), name=path.name),
    "osc": lambda path: datagram(path.read_bytes()),
    "partner": load_partner,
}


def sound(kind: str, subtype: str) -> bytes:
    rate = 48_000 if subtype == "OPUS" else 16_000 if kind == "MP3" else RATE
    samples = 0.3 * np.sin(np.arange(3_000) * 0.2) + 0.1 * np.random.default_rng(0).normal(size=3_000)
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


def midi() -> bytes:
    file, out = mido.MidiFile(), io.BytesIO()
    track = file.add_track("melody")
    track.append(mido.MetaMessage("set_tempo", tempo=400_000))
    for pitch in range(60, 80):
        track.append(mido.Message("note_on", note=pitch, time=100))
        track.append(mido.Message("note_off", note=pitch, time=200))
    file.save(file=out)
    return out.getvalue()


def mutated(good: bytes, seed: int) -> bytes:
    """Return a file with something wrong: bits, bytes, sizes, a cut, a hole, a part twice, junk before or behind."""
    rng = np.random.default_rng(seed)
    data = bytearray(good)
    for _ in range(int(rng.integers(1, 4))):
        near = int(rng.integers(0, min(len(data), 200) or 1))
        at = near if rng.random() < 0.6 else int(rng.integers(0, len(data) or 1))
        match int(rng.integers(0, 9)):
            case 0:
                data[at : at + 1] = bytes([int(rng.integers(256))])
            case 1:
                data[at : at + 4] = struct.pack("<I", [0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000][int(rng.integers(5))])
            case 2:
                data[at : at + 4] = struct.pack(">I", [0, 1, 0xFFFFFFFF, 0x7FFFFFFF, len(data)][int(rng.integers(5))])
            case 3:
                del data[at:]
            case 4:
                del data[at : at + int(rng.integers(1, 400))]
            case 5:
                data[at:at] = data[at : at + int(rng.integers(1, 400))]
            case 6:
                data[at : at + int(rng.integers(1, 400))] = bytes(int(rng.integers(1, 400)))
            case 7:
                data[:0] = rng.bytes(int(rng.integers(1, 300)))
            case _:
                data += rng.bytes(int(rng.integers(1, 300)))
    return bytes(data)


def check(read: Callable[[Path], object], path: Path) -> None:
    """Read a file: whatever happens is one line, soon, and the folder is as it was."""
    before, since_s = sorted(path.parent.iterdir()), time.process_time()
    said = ""
    try:
        read(path)
    except MusicHalError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1
    assert time.process_time() - since_s < MOST_S
    assert sorted(path.parent.iterdir()) == before


def check_seed(kind: str, good: bytes, read: Callable[[Path], object], seed: int, folder: Path) -> None:
    path = folder / "malformed.bin"
    path.write_bytes(mutated(good, seed))
    try:
        check(read, path)
    except BaseException:
        (Path(tempfile.gettempdir()) / f"malformed-{kind}-{seed}.bin").write_bytes(path.read_bytes())  # to look at it
        raise


def goods(trained_path: Path) -> dict[str, tuple[bytes, Callable[[Path], object]]]:
    """Return a good file of each kind, and what reads it."""
    found = {f"{kind} {subtype}": (sound(kind, subtype), read_recording) for kind, subtype in SOUNDS}
    found |= {name: (table, READERS[name]) for name, table in TABLES.items()}
    found["midi"] = (midi(), READERS["midi"])
    found["osc"] = (osc_message("/musichal/set", ["temperature", 0.5, 3, True]), READERS["osc"])
    found["font"] = (small_font(), READERS["font"])
    found["partner"] = (trained_path.read_bytes(), READERS["partner"])
    return found


@pytest.mark.filterwarnings("ignore")
def test_hundreds_of_malformed_files(trained_path, tmp_path, capfd):
    done = 0
    for kind, (good, read) in goods(trained_path).items():
        for seed in range(8 if kind == "partner" else 28):
            check_seed(kind, good, read, seed, tmp_path)
            done += 1
    assert done >= 500
    assert "Traceback" not in "".join(capfd.readouterr())


def test_malformed_sessions(trained_path, short_guitar, tmp_path):
    from typer.testing import CliRunner

    from musichal.cli import app

    folder = tmp_path / "session"
    result = CliRunner().invoke(app, ["play", str(trained_path), "--input", str(short_guitar), "--session", str(folder)])
    assert result.exit_code == 0, result.output
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for seed in range(6):
            file.write_bytes(mutated(whole, seed))
            check(lambda _path: read_session(folder).samples(), folder / "x")
        file.write_bytes(whole)


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore")
def test_fuzz(trained_path, tmp_path):
    until_s = time.monotonic() + float(os.environ.get("MUSICHAL_FUZZ_S", "60"))
    files = goods(trained_path)
    first = int(time.time()) << 8
    for seed in itertools.count(first):
        for kind, (good, read) in files.items():
            if time.monotonic() > until_s:
                return
            check_seed(kind, good, read, seed, tmp_path)


def test_many_channels_are_read_by_ffmpegs_libraries_too():
    pytest.importorskip("av")
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (3000, 12)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    found = decode_foreign(file, Foreign("WAV", "wav"))
    assert found.channels == 12
    assert np.array_equal(np.concatenate(list(found.blocks)), samples)


def test_pieces_behind_the_end_of_a_file_are_cut_off():
    spliced = Spliced(b"0123456789", [b"ab", (8, 12), (11, 15), (5, 3), (2, 4)])
    assert spliced.read() == b"ab8923"
    assert spliced.seek(0, 2) == 6
