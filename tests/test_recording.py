import contextlib
import hashlib
import io
import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from musichal.audio.files import decode_flac, encode_flac
from musichal.audio.recording import ingest, read_recording
from musichal.audio.recording_files import AUDIO_SUFFIXES, find_recordings
from musichal.commands.archive import length_s
from musichal.errors import InputError
from musichal.training.manifest import Entry

GRID = 2**23
RATE = 44_100
ENCODINGS = [  # format, subtype, suffix, worst error in steps of the 16-bit grid (None: lossy)
    ("WAV", "PCM_U8", "wav", 256),
    ("WAV", "PCM_16", "wav", 0),
    ("WAV", "PCM_24", "wav", 0),
    ("WAV", "PCM_32", "wav", 0),
    ("WAV", "FLOAT", "wav", 0),
    ("WAV", "DOUBLE", "wav", 0),
    ("WAV", "ULAW", "wav", 1024),
    ("WAVEX", "PCM_16", "wav", 0),
    ("RF64", "PCM_24", "rf64", 0),
    ("W64", "PCM_16", "w64", 0),
    ("AIFF", "PCM_24", "aiff", 0),
    ("AIFF", "FLOAT", "aifc", 0),
    ("CAF", "PCM_16", "caf", 0),
    ("AU", "PCM_16", "au", 0),
    ("FLAC", "PCM_16", "flac", 0),
    ("OGG", "VORBIS", "ogg", None),
    ("OGG", "OPUS", "opus", None),
    ("MP3", "MPEG_LAYER_III", "mp3", None),
]
encodings = pytest.mark.parametrize("encoding", ENCODINGS, ids=[f"{e[0]}-{e[1]}" for e in ENCODINGS])


@pytest.fixture(scope="module")
def music(rock_guitar: Path) -> np.ndarray:
    """Three seconds of a real guitar on the 16-bit grid, so that most formats can hold it exactly."""
    samples, _ = soundfile.read(rock_guitar, start=5 * RATE, frames=3 * RATE)
    return np.rint(samples * 0.9 * 2**15).clip(-(2**15), 2**15 - 1) / 2**15 + 0.0


def sound_file(path: Path, samples: np.ndarray, rate: int = RATE, **how: str) -> Path:
    if how.get("subtype") == "OPUS":
        rate = 48_000
    soundfile.write(path, samples, rate, **how)
    return path


def cut_short(path: Path) -> str:
    """Return the warning of a file that is heard as far as it goes, and that strictness refuses."""
    warning = read_recording(path).warnings[0]
    assert refusal(path, strict=True) == f"{path}: {warning}"
    assert "cut short" in warning
    return warning


def refusal(path: Path, **how: object) -> str:
    with pytest.raises(InputError) as caught:
        read_recording(path, **how)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


class TestIngest:
    @given(
        hnp.arrays(
            st.sampled_from([np.float32, np.float64]),
            hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=9),
            elements=st.floats(-4, 4, width=32),
        ),
        st.lists(st.integers(0, 9), max_size=4),
    )
    def test_result_is_on_the_grid_and_cuts_change_nothing(self, block, cuts):
        whole = ingest(block)
        assert whole.dtype == np.float32
        assert whole.shape == block.shape[:1]
        scaled = whole.astype(np.float64) * GRID
        assert np.array_equal(scaled, np.rint(scaled))
        assert scaled.min() >= -GRID
        assert scaled.max() <= GRID - 1
        assert not np.signbit(whole[whole == 0]).any()
        assert np.array_equal(ingest(whole), whole)
        parts = [ingest(part) for part in np.split(block, sorted(cuts))]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
        assert ingest(np.asfortranarray(block)).tobytes() == whole.tobytes()
        assert ingest(np.repeat(block, 2, axis=0)[::2]).tobytes() == whole.tobytes()

    def test_numbers(self):
        step = 1 / GRID
        given_ = np.array([0.0, -0.0, 1.0, -1.0, 7.0, -7.0, 0.4 * step, 0.5 * step, 1.5 * step, -0.6 * step, 0.25])
        expected = [0, 0, GRID - 1, -GRID, GRID - 1, -GRID, 0, 0, 2, -1, GRID // 4]
        assert (ingest(given_).astype(np.float64) * GRID).tolist() == expected

    def test_channels_are_averaged_before_they_are_limited(self):
        assert ingest(np.array([[1.5, -0.5], [0.5, 0.25]])).tolist() == [0.5, 0.375]
        assert ingest(np.array([[0.5] * 7 + [0.0]])).tolist() == [0.4375]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad):
        for block in (np.array([0.0, bad]), np.array([[0.0, 0.1], [bad, 0.0]], dtype=np.float32)):
            with pytest.raises(InputError, match="NaN or infinite"):
                ingest(block)

    def test_other_types_and_shapes_are_mistakes_of_the_program(self):
        with pytest.raises(TypeError, match="int16"):
            ingest(np.zeros(3, dtype=np.int16))
        for shape in ((), (3, 0), (2, 2, 2)):
            with pytest.raises(ValueError, match="shape"):
                ingest(np.zeros(shape))

    def test_empty_block(self):
        assert ingest(np.zeros((0, 2))).shape == (0,)


class TestHeard:
    @encodings
    def test_formats(self, tmp_path, music, encoding):
        format_, subtype, suffix, steps = encoding
        path = sound_file(tmp_path / f"a.{suffix}", music, format=format_, subtype=subtype)
        recording = read_recording(path)
        assert recording.name == path.name
        assert recording.samples.size == music.size
        assert recording.warnings == ()
        if steps is None:
            assert np.corrcoef(recording.samples, music)[0, 1] > 0.95
        else:
            assert np.abs(recording.samples * 2.0**15 - music * 2**15).max() <= steps

    @pytest.mark.parametrize("channels", range(1, 9))
    @pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 48_000, 96_000, 192_000])
    def test_channels_and_rates(self, tmp_path, music, channels, rate):
        gains = np.arange(1, channels + 1) / 10
        part = music[: 1 << 15]
        block = part[:, None] * gains[None, :]
        recording = read_recording(sound_file(tmp_path / "a.wav", block, rate, subtype="DOUBLE"))
        assert recording.sample_rate_hz == rate
        assert recording.duration_s == part.size / rate
        assert np.abs(recording.samples - part * gains.mean()).max() <= 0.6 / GRID
        assert np.array_equal(recording.samples, ingest(block))

    def test_a_real_clip_is_what_ingest_makes_of_it(self, rock_mix):
        samples, rate = soundfile.read(rock_mix)
        recording = read_recording(rock_mix)
        assert recording.sample_rate_hz == rate
        assert np.array_equal(recording.samples, ingest(samples))
        as_integers = (recording.samples.astype(np.float64) * GRID).astype("<i4")
        assert recording.digest == hashlib.sha256(as_integers.tobytes()).hexdigest()
        assert not recording.samples.flags.writeable

    def test_clipped(self, tmp_path, music):
        recording = read_recording(sound_file(tmp_path / "a.wav", np.clip(music * 20, -1, 1), subtype="PCM_16"))
        assert recording.warnings[0].startswith("clipped: ")
        assert 5 < float(recording.warnings[0].split()[1]) < 100

    @pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
    def test_a_tone_at_full_scale_is_not_called_clipped(self, tmp_path, subtype):
        tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
        recording = read_recording(sound_file(tmp_path / "a.wav", tone, subtype=subtype))
        assert not [warning for warning in recording.warnings if "clipped" in warning]

    def test_clipping_across_a_block_border_is_counted_once(self, tmp_path):
        samples = np.full((1 << 18) + 10, 0.1)
        samples[(1 << 18) - 3 : (1 << 18) + 3] = 1.0
        recording = read_recording(sound_file(tmp_path / "a.wav", samples, subtype="FLOAT"))
        assert recording.warnings[0] == (f"clipped: {400 / samples.size:.2g} % of it is flat at full scale")  # 4 of the 6

    def test_hot_float(self, tmp_path, music):
        recording = read_recording(sound_file(tmp_path / "a.wav", music / np.abs(music).max() * 2, subtype="FLOAT"))
        assert recording.warnings == ("peaks at +6.0 dBFS: turned down by 6.0 dB to full scale",)
        assert np.abs(recording.samples - music / np.abs(music).max()).max() < 2 / GRID

    @pytest.mark.filterwarnings("error")
    def test_the_largest_numbers_there_are(self, tmp_path, music):
        block = np.stack([music] * 4, axis=1)
        block[1000] = np.finfo(np.float64).max
        recording = read_recording(sound_file(tmp_path / "a.wav", block, subtype="DOUBLE"))
        assert recording.samples[1000] == np.float32(1 - 1 / GRID)
        assert np.abs(recording.samples - music)[1001:].max() < 1 / GRID  # a click does not silence the rest
        assert len(recording.warnings) == 1

    def test_dc_offset(self, tmp_path, music):
        recording = read_recording(sound_file(tmp_path / "a.wav", music / 2 + 0.2, subtype="PCM_24"))
        assert recording.warnings == (f"DC offset of {0.2 + music.mean() / 2:+.3f}",)

    def test_quiet_and_inverted(self, tmp_path, music):
        quiet = read_recording(sound_file(tmp_path / "q.wav", music / 1000, subtype="PCM_24"))
        assert quiet.warnings[0].startswith("very quiet: its peak is -6")
        both = np.stack([music, -0.98 * music], axis=1)
        inverted = read_recording(sound_file(tmp_path / "i.wav", both, subtype="PCM_24"))
        assert "inverted" in inverted.warnings[-1]

    def test_any_suffix_and_any_name(self, tmp_path, music):
        source = sound_file(tmp_path / "a.wav", music)
        odd = "Gitarre ü 音.txt" if os.name == "nt" else "Gitarre \n ü 音.txt"
        for name in ("noise.mp3", "no suffix", odd):
            path = tmp_path / name
            path.write_bytes(source.read_bytes())
            assert read_recording(path).name.isprintable()

    def test_wav_that_came_out_of_a_pipe(self, tmp_path, music):
        """A program that cannot seek back leaves the size open."""
        wav = bytearray(sound_file(tmp_path / "a.wav", music, subtype="PCM_16").read_bytes())
        at = wav.index(b"data") + 4
        wav[at : at + 4] = wav[4:8] = b"\xff\xff\xff\xff"
        (tmp_path / "a.wav").write_bytes(wav)
        assert np.array_equal(read_recording(tmp_path / "a.wav").samples, music)

    def test_memory_is_that_of_the_samples_and_a_block(self, tmp_path):
        rng = np.random.default_rng(0)
        path = tmp_path / "long.wav"
        with soundfile.SoundFile(path, "w", RATE, 8, "PCM_16") as out:
            for _ in range(40):
                out.write(rng.uniform(-0.5, 0.5, (RATE, 8)))
        tracemalloc.start()
        try:
            recording = read_recording(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert recording.samples.nbytes == 40 * RATE * 4  # 7 MB; the file as float64 is 113 MB
        assert peak < recording.samples.nbytes + 16e6


def test_midi_is_known_by_its_first_bytes_and_sound_too(tmp_path, music):
    song, sound = tmp_path / "song.wav", tmp_path / "sound.mid"
    note = b"\x00\x90\x3c\x50\x60\x80\x3c\x00\x00\xff\x2f\x00"
    song.write_bytes(b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk" + len(note).to_bytes(4, "big") + note)
    assert (take := read_recording(song).take) is not None and [n.pitch for n in take.notes] == [60]
    sound_file(tmp_path / "a.wav", music).rename(sound)
    assert read_recording(sound).take is None


class TestRefused:
    def test_missing_folder_and_empty(self, tmp_path):
        assert refusal(tmp_path / "nowhere.wav").endswith("no such file")
        assert refusal(tmp_path).endswith("is a folder, not a recording")
        (tmp_path / "a.wav").write_bytes(b"")
        assert refusal(tmp_path / "a.wav").endswith("the file is empty")

    @pytest.mark.skipif(os.name == "nt", reason="no such devices")
    @pytest.mark.parametrize("name", ["a.wav", "a.mid"])
    def test_a_pipe_is_refused_without_waiting_for_it(self, tmp_path, name):
        os.mkfifo(tmp_path / name)
        assert length_s(Entry(tmp_path / name)) == 0
        assert refusal(tmp_path / name).endswith("is not an ordinary file")

    @encodings
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_truncated(self, tmp_path, music, encoding, share):
        format_, subtype, suffix, _ = encoding
        path = sound_file(tmp_path / f"a.{suffix}", music, format=format_, subtype=subtype)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        if format_ == "OGG" and share == 0.1:  # nothing but headers
            refusal(path)
        else:
            cut_short(path)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_how_much_of_a_truncated_flac_can_be_read(self, tmp_path, rock_guitar, share):
        """The cut falls inside the first block that is read, and inside a later one."""
        samples, rate = soundfile.read(rock_guitar)
        path = sound_file(tmp_path / "a.flac", samples, rate, format="FLAC")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        found = re.search(r"cut short or damaged: ([0-9.]+) of ([0-9.]+) s can be heard$", cut_short(path))
        heard_s, promised_s = float(found[1]), float(found[2])
        assert promised_s == pytest.approx(len(samples) / rate, abs=0.05)
        assert heard_s == pytest.approx(share * promised_s, abs=0.1 * promised_s)  # louder parts take more bytes

    @pytest.mark.parametrize("encoding", ENCODINGS[:-1], ids=lambda encoding: "-".join(encoding[:2]))  # MP3 has slack
    def test_a_few_bytes_short(self, tmp_path, music, encoding):
        format_, subtype, suffix, _ = encoding
        path = sound_file(tmp_path / f"a.{suffix}", music, format=format_, subtype=subtype)
        path.write_bytes(path.read_bytes()[:-3])
        cut_short(path)

    @pytest.mark.parametrize("name", ["rock140_guitar.ogg", "ballad95_mix.ogg"])
    def test_a_real_clip_truncated(self, tmp_path, audio_dir, name):
        whole = (audio_dir / name).read_bytes()
        path = tmp_path / name
        for size in (1, 10, 200, 4_000):
            path.write_bytes(whole[:size])
            refusal(path)
        for size in (100_000, len(whole) - 1):
            path.write_bytes(whole[:size])
            cut_short(path)

    @pytest.mark.parametrize("hole", ["taken out", "zeroed"])
    def test_a_real_clip_with_a_hole(self, tmp_path, rock_guitar, hole):
        """libsndfile would give the full length without a word, and silence or a jump in the middle."""
        whole = rock_guitar.read_bytes()
        path = tmp_path / "a.ogg"
        path.write_bytes(whole[:100_000] + (bytes(20_000) if hole == "zeroed" else b"") + whole[120_000:])
        recording = read_recording(path)
        assert "pages are missing or damaged" in recording.warnings[0]
        assert 30 < recording.duration_s < 34.2857

    def test_a_page_is_missing(self, tmp_path, rock_guitar):
        whole = rock_guitar.read_bytes()
        start = whole.index(b"OggS\0", len(whole) // 2)
        end = whole.index(b"OggS\0", start + 4)
        path = tmp_path / "a.ogg"
        path.write_bytes(whole[:start] + whole[end:])
        assert "pages are missing or damaged at 1 place" in read_recording(path).warnings[0]
        path.write_bytes(whole + b"TAG".ljust(128, b"\0"))  # as some programs add to any file
        assert np.array_equal(read_recording(path).samples, read_recording(rock_guitar).samples)

    @pytest.mark.parametrize("suffix", ["wav", "mp3", "flac", "ogg", "txt"])
    @pytest.mark.parametrize(
        "data",
        [
            b"Dear band, the rehearsal is on Tuesday.\n" * 200,
            b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
            b"PK\3\4" + bytes(range(256)) * 20,
            b"\x80\x04\x95" + bytes(500),
            bytes(10_000),
            b"\xff" * 5_000,
            b"RIFF\x00\x10\x00\x00ACON" + bytes(4_096),
            b"R",
        ],
        ids=["text", "png", "zip", "pickle", "zeros", "ones", "cursor", "one byte"],
    )
    def test_not_sound(self, tmp_path, capfd, data, suffix):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(data)
        assert "is not a recording in a known format (WAV," in refusal(path)
        assert capfd.readouterr() == ("", "")  # libsndfile's MP3 reader would talk

    @pytest.mark.parametrize("format_", ["WAV", "AIFF", "FLAC", "OGG"])
    def test_zero_length(self, tmp_path, format_):
        path = sound_file(tmp_path / "a", np.zeros(0), format=format_)
        refusal(path)

    def test_raw(self, tmp_path, music):
        path = sound_file(tmp_path / "a.raw", music, format="WAV")
        assert "save them as WAV" in refusal(path)

    def test_zero_length_wav_says_so(self, tmp_path):
        assert refusal(sound_file(tmp_path / "a.wav", np.zeros(0))).endswith("holds no sound: its length is zero")

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
    def test_not_finite(self, tmp_path, music, bad, subtype):
        block = np.stack([music, music, music], axis=1)
        block[int(1.5 * RATE), 1] = bad
        path = sound_file(tmp_path / "a.wav", block, subtype=subtype)
        assert refusal(path).endswith("has NaN or infinite samples, the first at 1.500 s")

    def test_silence(self, tmp_path, music):
        assert refusal(sound_file(tmp_path / "a.wav", np.zeros((RATE, 2)))).endswith("is digital silence throughout")
        opposite = np.stack([music, -music], axis=1)
        assert "cancel one another" in refusal(sound_file(tmp_path / "b.wav", opposite, subtype="FLOAT"))

    def test_too_short_and_too_long(self, tmp_path, music):
        path = sound_file(tmp_path / "a.wav", music)
        assert refusal(path, min_duration_s=3.5).endswith("lasts 3 s; a recording must last at least 3.5 s")
        assert read_recording(path, min_duration_s=3.0).duration_s == 3.0
        assert "longer than the 0.04535 minutes supported at 44100 Hz" in refusal(path, max_samples=120_000)

    @pytest.mark.parametrize("rate", [1, 4_000, 7_999, 192_001, 384_000, 100_003])
    def test_absurd_rates(self, tmp_path, music, rate):
        assert f"sample rate of {rate} Hz" in refusal(sound_file(tmp_path / "a.wav", music, rate))

    def test_a_flac_file_that_lies_about_its_length_costs_nothing(self, tmp_path, music):
        data = bytearray(sound_file(tmp_path / "a.flac", music).read_bytes())
        data[21] |= 0x0F
        data[22:26] = b"\xff\xff\xff\xff"
        (tmp_path / "a.flac").write_bytes(data)
        assert "3.0 of 1558264.8 s can be heard" in cut_short(tmp_path / "a.flac")

    def test_more_than_the_memory_of_this_machine(self, tmp_path, music, monkeypatch):
        def full(*_, **__):
            raise MemoryError

        path = sound_file(tmp_path / "a.wav", music)
        monkeypatch.setattr(np, "full", full)
        assert "does not fit into the memory" in refusal(path)

    @pytest.mark.skipif(os.name == "nt", reason="a property of POSIX systems")
    def test_errors_of_the_system(self, tmp_path):
        assert refusal(tmp_path / ("a" * 300)).endswith("the name is too long")
        (tmp_path / "a.wav").symlink_to(tmp_path / "a.wav")
        assert refusal(tmp_path / "a.wav").endswith("no such file")

    @given(st.data())
    def test_damage_is_refused_or_heard_but_never_crashes(self, tmp_path_factory, music, data):
        format_, subtype, suffix, _ = data.draw(st.sampled_from(ENCODINGS))
        path = tmp_path_factory.mktemp("damage") / f"a.{suffix}"
        whole = bytearray(sound_file(path, music[:8_000], format=format_, subtype=subtype).read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, min(400, len(whole) - 1)) | st.integers(0, len(whole) - 1))
            whole[at] = data.draw(st.integers(0, 255))
        path.write_bytes(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))])
        with contextlib.suppress(InputError):
            assert np.isfinite(read_recording(path, max_samples=1 << 22).samples).all()


class TestCollect:
    def test_folders_in_a_fixed_order(self, tmp_path):
        for name in ("b/2.wav", "b/10.FLAC", "a.ogg", "b/c/x.mp3", ".hidden/a.wav", "b/.x.wav", "b/note.txt", "z.aiff"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        found = [path.relative_to(tmp_path).as_posix() for path in find_recordings([tmp_path]).files]
        assert found == ["a.ogg", "b/10.FLAC", "b/2.wav", "b/c/x.mp3", "z.aiff"]

    def test_files_keep_their_order_and_come_once(self, tmp_path):
        for name in ("a.wav", "b.wav"):
            (tmp_path / name).write_bytes(b"")
        again = tmp_path / "x" / ".." / "b.wav"
        (tmp_path / "x").mkdir()
        assert list(find_recordings([tmp_path / "b.wav", tmp_path, again]).files) == [tmp_path / "b.wav", tmp_path / "a.wav"]

    def test_a_named_file_needs_no_suffix(self, tmp_path):
        (tmp_path / "take").write_bytes(b"")
        assert list(find_recordings([str(tmp_path / "take")]).files) == [tmp_path / "take"]

    def test_refused(self, tmp_path):
        with pytest.raises(InputError, match="no recording was given"):
            find_recordings([])
        with pytest.raises(InputError, match="nowhere: no such file or folder"):
            find_recordings([tmp_path / "nowhere"])
        (tmp_path / "note.txt").write_bytes(b"")
        with pytest.raises(InputError, match="the folder holds no recording"):
            find_recordings([tmp_path])

    @pytest.mark.skipif(os.name == "nt", reason="links need rights there")
    def test_a_link_in_a_circle_ends(self, tmp_path):
        (tmp_path / "a.wav").write_bytes(b"")
        (tmp_path / "loop").symlink_to(tmp_path)
        assert list(find_recordings([tmp_path]).files) == [tmp_path / "a.wav"]

    def test_real_folder(self, audio_dir):
        assert list(find_recordings([audio_dir]).files) == sorted(audio_dir.glob("*.ogg"))
        assert ".ogg" in AUDIO_SUFFIXES


class TestFlac:
    @given(
        hnp.arrays(np.int32, st.integers(1, 3_000), elements=st.integers(-GRID, GRID - 1)),
        st.sampled_from([8_000, 8_001, 11_025, 22_050, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000]),
    )
    def test_round_trip_is_exact(self, integers, rate):
        samples = (integers / GRID).astype(np.float32)
        back, back_rate = decode_flac(encode_flac(samples, rate), max_samples=samples.size)
        assert back_rate == rate
        assert back.tobytes() == (samples + np.float32(0)).tobytes()

    @pytest.mark.parametrize("name", ["rock140_mix.ogg", "ballad95_guitar.ogg"])
    def test_real_music(self, audio_dir, name):
        recording = read_recording(audio_dir / name)
        data = encode_flac(recording.samples, recording.sample_rate_hz)
        assert data == encode_flac(recording.samples, recording.sample_rate_hz)
        back, rate = decode_flac(data, max_samples=recording.samples.size)
        assert rate == recording.sample_rate_hz
        assert back.tobytes() == recording.samples.tobytes()

    def test_a_stored_recording_reads_as_the_same_recording(self, tmp_path, rock_guitar):
        recording = read_recording(rock_guitar)
        path = tmp_path / "a.flac"
        path.write_bytes(encode_flac(recording.samples, recording.sample_rate_hz))
        assert read_recording(path).digest == recording.digest

    def test_only_samples_on_the_grid(self):
        for wrong in ([0.1], [1.0], [-1.5], [np.nan]):
            with pytest.raises(ValueError, match="grid"):
                encode_flac(np.array(wrong, dtype=np.float32), RATE)
        for shape in ((0,), (2, 2)):
            with pytest.raises(ValueError, match="vector"):
                encode_flac(np.zeros(shape, dtype=np.float32), RATE)
        for rate in (0, 100_003, 700_000):
            with pytest.raises(InputError, match="rate"):
                encode_flac(np.zeros(4, dtype=np.float32), rate)

    @given(st.data())
    def test_damage_never_passes_for_music(self, music, data):
        samples = music[:5_000].astype(np.float32)
        good = encode_flac(samples, RATE)
        bad = bytearray(good)
        bit = data.draw(st.integers(0, 8 * 42 - 1) | st.integers(0, 8 * len(good) - 1))
        bad[bit // 8] ^= 1 << bit % 8
        bad = bad[: data.draw(st.just(len(bad)) | st.integers(0, len(bad)))]
        with contextlib.suppress(InputError):
            back, rate = decode_flac(bytes(bad), max_samples=10_000)
            assert back.tobytes() == samples.tobytes()
            assert rate == RATE or bad[18:21] != good[18:21]

    @given(st.binary(max_size=200), st.booleans())
    def test_any_bytes(self, data, with_head):
        head = encode_flac(np.zeros(10, dtype=np.float32), RATE)[:42] if with_head else b""
        with pytest.raises(InputError):
            decode_flac(head + data, max_samples=1000)

    def test_declared_length_is_bounded_before_memory_is_taken(self):
        with pytest.raises(InputError, match="declares 2000 samples, more than the 1999"):
            decode_flac(encode_flac(np.zeros(2_000, dtype=np.float32), RATE), max_samples=1_999)

    def test_a_length_that_is_not_what_the_frames_hold(self):
        data = bytearray(encode_flac(np.linspace(-0.5, 0.5, 9_001).astype(np.float32) * 0, RATE))
        for declared, why in ((9_000, "damaged|more"), (9_002, "cut short|damaged")):
            data[22:26] = declared.to_bytes(4, "big")
            with pytest.raises(InputError, match=why):
                decode_flac(bytes(data), max_samples=1 << 20)

    def test_stereo_is_not_what_a_partner_keeps(self, music):
        out = io.BytesIO()
        soundfile.write(out, np.stack([music, music], axis=1), RATE, format="FLAC", subtype="PCM_24")
        with pytest.raises(InputError, match="mono"):
            decode_flac(out.getvalue(), max_samples=1 << 20)
