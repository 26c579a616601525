"""The Python API: what a researcher does in a notebook."""

import doctest
import importlib
import io
import re
import subprocess
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

import musichal as mh
from musichal.audio.recording import Recording
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train

pytestmark = pytest.mark.usefixtures("heard_once")


@pytest.fixture(scope="module")
def partner(trained: PartnerModel) -> mh.Partner:
    return mh.Partner(trained)


@pytest.fixture(scope="module")
def player(short_guitar: Path) -> tuple[np.ndarray, int]:
    return mh.read_audio(short_guitar)


@pytest.fixture(scope="module")
def trained_before() -> dict[str, PartnerModel]:
    return {}


def test_the_import_loads_nothing_heavy() -> None:
    code = "import musichal, sys; print(sorted({'numpy', 'scipy', 'matplotlib'} & sys.modules.keys()), dir(musichal)[0])"
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["[]", "Analysis"]


def test_every_public_name_is_there() -> None:
    assert all(getattr(mh, name) is not None for name in mh.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mh.nothing


@pytest.mark.parametrize(
    "name", ["musichal", "musichal.api.sound", "musichal.api.partner", "musichal.api.answer", "musichal.plot"]
)
def test_the_examples_run(name: str, monkeypatch: pytest.MonkeyPatch, trained_before: dict[str, PartnerModel]) -> None:
    """Examples that train on the same sound share the partner: training it again would show nothing new."""

    def train_once(recordings: list[Recording], spec: PerceptionSpec, **how: object) -> PartnerModel:
        key = repr(([recording.digest for recording in recordings], spec, {**how, "progress": None}))
        if key not in trained_before:
            trained_before[key] = train(recordings, spec, **how)  # type: ignore[arg-type]
        return trained_before[key]

    monkeypatch.setattr("musichal.api.partner.train_model", train_once)
    assert doctest.testmod(importlib.import_module(name), raise_on_error=False).failed == 0


@pytest.mark.parametrize(("mode", "settings"), [("shadow", {}), ("couple", {"voices": "melody,bass"}), ("lead", {})])
def test_stream_and_respond_give_the_same_notes(
    partner: mh.Partner, player: tuple[np.ndarray, int], mode: str, settings: dict[str, object]
) -> None:
    y, sr = player
    y = y[: 6 * sr]
    answer = partner.respond(y, sr, mode=mode, seed=3, **settings)
    stream = partner.stream(sr, mode=mode, seed=3, **settings)
    for _ in range(2):
        notes = [note for i in range(0, len(y), 777) for note in stream.push(y[i : i + 777])] + stream.finish()
        streamed = sorted((n.onset_s, n.pitch, n.duration_s, n.velocity) for n in notes)
        whole = sorted((n["onset_s"], n["pitch"], n["duration_s"], n["velocity"]) for n in answer.notes)
        assert len(notes) > 2
        assert streamed == whole
        assert [d.reason for d in stream.decisions] == [d.reason for d in answer.decisions]
        stream.reset()


def test_sound_goes_in_as_soundfile_and_librosa_give_it(partner: mh.Partner, short_guitar: Path) -> None:
    y, sr = soundfile.read(short_guitar)
    y = y[: 4 * sr]
    expected = partner.respond(y, sr, mode="shadow").to_midi()
    assert len(expected) > 200
    both = np.stack([y, y], axis=1)
    whole = np.round(y * 2**15).astype(np.int16)
    for form in (y.astype(np.float32), both, both.T, whole):
        assert partner.respond(form, sr, mode="shadow").to_midi() == expected


def test_an_answer_has_notes_reasons_and_sources(partner: mh.Partner, player: tuple[np.ndarray, int], tmp_path: Path) -> None:
    answer = partner.respond(*player, mode="shadow", temperature=0.1)
    assert answer.notes.dtype.names == ("onset_s", "duration_s", "pitch", "velocity", "voice")
    assert np.all(np.diff(answer.notes["onset_s"]) >= 0)
    played = [d for d in answer.decisions if d.kind == "play"]
    assert played[0].source is not None
    assert played[0].source.recording == partner.recordings[0].name
    assert f"{played[0].time_s // 60:.0f}:{played[0].time_s % 60:05.2f}" in played[0].reason
    answer.to_midi(tmp_path / "reply.mid")
    file = mido.MidiFile(file=io.BytesIO((tmp_path / "reply.mid").read_bytes()))
    assert sum(m.type == "note_on" and m.velocity > 0 for m in file) == len(answer.notes)
    sound = answer.to_audio(22050)
    assert sound.shape[0] >= round(answer.duration_s * 22050)
    assert np.abs(sound).max() > 0.01


def test_training_twice_is_the_same_and_seeds_differ(rock_guitar: Path, tmp_path: Path) -> None:
    y, sr = mh.read_audio(rock_guitar)
    y = y[8 * sr : 13 * sr]
    shares: list[float] = []
    first = mh.train((y, sr), seed=1, progress=lambda _what, share: shares.append(share))
    again, other = mh.train([(y, sr)], seed=1), mh.train((y, sr), seed=2)
    assert np.array_equal(first.recordings[0].tokens, again.recordings[0].tokens)
    assert not np.array_equal(first.recordings[0].tokens, other.recordings[0].tokens)
    assert shares[-1] == 1
    first.save(tmp_path / "a.hal")
    loaded = mh.load(tmp_path / "a.hal")
    analysis = mh.analyse(y, sr, spec=loaded)
    assert re.fullmatch(r"<Analysis: \d+ frames, \d+ onsets, \d+ notes, \d+ drum hits, \d+ beats>", repr(analysis))
    assert np.array_equal(analysis.tokens, first.recordings[0].tokens)
    assert np.array_equal(analysis.beats, loaded.recordings[0].beats)
    assert len(analysis.hits) == len(loaded.memory.hits)


def test_settings_change_while_it_streams(partner: mh.Partner, player: tuple[np.ndarray, int]) -> None:
    y, sr = player
    stream = partner.stream(sr, mode="shadow")
    stream.push(y[:sr])
    stream.set(temperature=0.7, mode="mirror")
    assert stream.settings["temperature"] == 0.7
    before = len(stream.decisions)
    stream.push(y[sr:])
    stream.finish()
    assert {d.record.mode for d in stream.decisions[before:]} == {"mirror"}
    with pytest.raises(mh.InputError, match=r"temperature must be in \[0, 5\]"):
        stream.set(temperature=99)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda p, y, sr: p.respond(y, sr, mode="nonsense"), "nonsense"),
        (lambda p, y, sr: p.respond(y, sr, nonsense=1), "nonsense"),
        (lambda p, y, sr: p.respond(y, 0), "sr must be"),
        (lambda p, y, sr: p.respond(y, sr, seed=-1), "seed must be"),
        (lambda p, y, sr: p.respond(y[:0], sr), "empty"),
        (lambda p, y, sr: p.respond(np.full(sr, np.nan), sr), "finite"),
        (lambda p, y, sr: p.respond(y[:50], sr), "short"),
        (lambda p, y, sr: p.respond(y.astype(complex), sr), "complex"),
        (lambda p, y, sr: mh.analyse(y[:50], sr, spec=p), "short"),
        (lambda p, y, sr: mh.train([]), "no recording"),
        (lambda p, y, sr: mh.train(pairs=("me.wav", "band.wav")), r"pairs must be a list .* an item of it is 'me\.wav'"),
        (lambda p, y, sr: mh.train(pairs=((y, sr), (y, sr))), "pairs must be a list .* an item of it is a tuple"),
        (lambda p, y, sr: mh.train((y, sr), segment_s=0.001), r"segment must be in \[17, 20000\] ms, got 1"),
        (lambda p, y, sr: mh.load("nowhere.hal"), "nowhere.hal"),
        (lambda p, y, sr: mh.read_audio("nowhere.wav"), "nowhere.wav"),
        (lambda p, y, sr: mh.example("drums"), "drums"),
    ],
)
def test_what_cannot_be_used_is_one_clear_value_error(
    partner: mh.Partner, player: tuple[np.ndarray, int], call: object, why: str
) -> None:
    with pytest.raises(mh.MusicHalError, match=why) as caught:
        call(partner, *player)  # type: ignore[operator]
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_pictures_are_figures(partner: mh.Partner, player: tuple[np.ndarray, int]) -> None:
    assert mh.plot.performance(partner.respond(*player)).axes
    assert mh.plot.partner(partner).axes
