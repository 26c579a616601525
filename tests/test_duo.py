"""`musichal evaluate --duo` and `mh.evaluate.duo`."""

import json
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import musichal as mh
from conftest import _cut
from musichal.audio.instrument import EmbeddedInstrument
from musichal.audio.score import read_score
from musichal.cli import app
from musichal.errors import InputError
from musichal.evaluate import together
from musichal.evaluate.duos import duo_of_score, evaluate_duos, read_beats
from musichal.partner.settings import Direction, PartnerSettings

pytestmark = pytest.mark.usefixtures("heard_once")

AUDIO = Path(__file__).parent / "audio"
GUITAR, BACKING = AUDIO / "rock140_guitar.ogg", AUDIO / "rock140_backing.ogg"


def write_song(path, *, beats=48, bpm=120):
    """Write a lead, a bass and a hi-hat, each on the beat or its halves."""
    midi = mido.MidiFile(ticks_per_beat=480)
    midi.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm))]))
    for name, channel, program, step, pitches in (
        ("Lead", 0, 0, 240, (60, 64, 67, 72, 71, 67, 65, 62, 69)),
        ("Bass", 1, 33, 480, (36, 43, 41, 38)),
        ("Hats", 9, 0, 240, (42,)),
    ):
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
        track.append(mido.Message("program_change", channel=channel, program=program))
        for i in range(beats * 480 // step):
            pitch = pitches[i % len(pitches)]
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=90))
            track.append(mido.Message("note_off", channel=channel, note=pitch, time=step))
        midi.tracks.append(track)
    midi.save(path)
    return path


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    return write_song(tmp_path_factory.mktemp("duo") / "song.mid")


@pytest.fixture(scope="module")
def heard(song):
    return together.hear_duo(duo_of_score(read_score(song), instrument=EmbeddedInstrument(), push=0.08))


def test_a_score_is_a_duo_whose_truth_is_exact(song):
    duo = duo_of_score(read_score(song), instrument=EmbeddedInstrument())
    assert (duo.name, duo.player.name, duo.band.name) == ("song", "Lead", "the band")
    assert duo.player.duration_s == duo.band.duration_s == 24.0
    assert np.diff(duo.beats.beats_s) == pytest.approx(0.5)
    assert [len(part) for part in duo.parts_s] == [48, 96]
    assert duo_of_score(read_score(song), player_track="bass", instrument=EmbeddedInstrument()).player.name == "Bass"


def test_the_anchors_bracket_the_answer(heard):
    played = together.play_duo(heard, {"shadow": Direction(mode="shadow")})
    assert list(played.played) == ["shadow", *together.ANCHORS]
    real, other, echo = (played.played[name].time for name in (together.REAL, together.OTHER, together.ECHO))
    assert (real.r8, real.within) == pytest.approx((1.0, 2 / 3), abs=1e-3), "half of the hats have no bass"
    assert other.within < 0.5
    assert echo.asynchrony_ms == pytest.approx(20.0)
    assert echo.r8 == pytest.approx(1.0, abs=0.01)
    shadow = played.played["shadow"]
    assert shadow.time.onsets == len(shadow.onsets_s) > 5
    assert 0 <= shadow.time.in_time <= 1
    harmony = {name: item.harmony for name, item in played.played.items()}
    assert harmony[together.ECHO].agreement == pytest.approx(1.0), "the player's notes agree with the player"
    assert harmony["shadow"].learned is not None
    assert harmony[together.DEAF].learned is None
    assert played.played[together.REAL].back_beats == played.played[together.ECHO].back_beats == 0.0


def test_an_exact_duo_is_learned_and_played_with_its_own_notes(song):
    found = together.hear_duo(duo_of_score(read_score(song), exact=True))
    notes = [note for percept in found.excerpt.percepts for note in percept.heard.notes]
    assert [note.pitch for note in notes][:3] == [(60, 64, 67, 72, 71, 67, 65, 62, 69)[n % 9] for n in (48, 49, 50)]
    assert notes[0].onset_s == pytest.approx(0.0, abs=1e-6)
    assert {60, 64} <= {pitch for onset in found.excerpt.onsets for pitch in onset.pitches}
    memory = found.model.memory
    assert (sorted(set(memory.notes["pitch"].tolist())), len(memory.notes)) == ([36, 38, 41, 43], 24)
    assert set(memory.hits["pitch"].tolist()) == {42}
    assert found.model.recordings[0].beats["time_s"][:3] == pytest.approx([0, 0.5, 1])


def test_the_key_jumps_and_the_truth_with_it(song):
    """24 s at 120 beats a minute: the half that is answered begins at 12 s, its thirds at the bars of 16 and 20 s."""
    duo = duo_of_score(read_score(song), instrument=EmbeddedInstrument(), jump=6)
    assert duo.pitches.jumps_s == (16.0, 20.0)
    bass = duo.pitches.band
    at = {float(onset_s): int(pitch) for onset_s, pitch in zip(bass.onsets_s, bass.pitches, strict=True)}
    assert [at[s] for s in (15.5, 16.0, 16.5, 19.5, 20.0)] == [38, 42, 49, 44, 36]
    assert len(duo.pitches.parts) == 1, "hats have no pitch"
    with pytest.raises(InputError, match=r"in \[-11, 11\] semitones"):
        duo_of_score(read_score(song), instrument=EmbeddedInstrument(), jump=12)


def test_what_is_measured_is_the_performance(heard, song):
    """The same notes as `musichal play` gives for the same sound."""
    duo = duo_of_score(read_score(song), instrument=EmbeddedInstrument(), push=0.08)
    rate = duo.player.sample_rate_hz
    samples = duo.player.samples[round(heard.start_s * rate) :]
    assert duo.push_s == pytest.approx(18.0)
    answer = mh.Partner(heard.model).respond(samples, rate, mode="shadow", seed=3)
    played = together.play_duo(heard, {"shadow": Direction(mode="shadow")}, seed=3).played["shadow"]
    onsets_s = answer.notes["onset_s"]
    assert [note.onset_s for note in played.notes] == onsets_s[onsets_s < heard.excerpt.duration_s].tolist()


def test_the_means_are_over_songs(heard):
    directions = {"shadow": Direction(mode="shadow")}
    found = together.evaluation_of(
        [together.play_duo(heard, directions), together.play_duo(replace(heard, name="again"), directions)]
    )
    values = json.loads(json.dumps(found.to_dict()))
    assert [song["name"] for song in values["songs"]] == ["song", "again"]
    first = values["contestants"][0]
    assert first["name"] == "shadow"
    assert first["time"]["r16"] == pytest.approx(values["songs"][0]["played"]["shadow"]["time"]["r16"])
    assert first["time_intervals"]["r16"][0] == pytest.approx(first["time_intervals"]["r16"][1])
    assert 0 < values["chance_r"] < 0.5


def test_the_picture_is_drawn(heard):
    from musichal.plots.report import draw_duo, duo_html

    song = together.play_duo(heard, {"shadow": Direction(mode="shadow")})
    figure = draw_duo(song, duration_s=6.0)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["answer", "band", "player"]
    html = duo_html(together.evaluation_of([song]))
    assert "echo of the player" in html
    assert "data:image/png;base64" in html


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", "--duo", *map(str, arguments)])


def test_the_command_measures_recordings_with_given_beats(tmp_path):
    guitar, backing = _cut(GUITAR, tmp_path / "guitar.wav", 8, 28), _cut(BACKING, tmp_path / "backing.wav", 8, 28)
    beats_s = (0.06 + i * 60 / 140 - 8 for i in range(19, 65))
    (tmp_path / "beats.txt").write_text("".join(f"{beat_s:.4f}\tx\n" for beat_s in beats_s))
    result = run(guitar, backing, "--beats", tmp_path / "beats.txt", "--json", "--report", tmp_path)
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["songs"][0]["beats_from"] == "given"
    times = {c["name"]: c["time"] for c in values["contestants"]}
    assert times[together.REAL]["r16"] > 0.5
    assert times["couple"]["within_moved"] is not None
    assert (tmp_path / "guitar-duo.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([GUITAR], "rock140_guitar.ogg is a player without a band: a duo is two recordings, or one MIDI file"),
        ([GUITAR, "{short}"], "rock140_guitar: the player's recording lasts 34.3 s and the band's 5.0 s"),
        (["{silent}", BACKING], "the player is silent from 17.1 s on, where the partner answers"),
        ([GUITAR, BACKING, "--mode", "x"], "unknown mode 'x'"),
        ([GUITAR, BACKING, "--push", "8"], "the player's track, changes of tempo and key, and exact notes are for MIDI"),
        ([GUITAR, BACKING, "--beats", "{words}"], "each line must begin with the time of a beat in seconds"),
        (["{song}", "--player-track", "Horn"], "song.mid has no track 'Horn'; there are: 1 Lead, 2 Bass, 3 Hats"),
        (["{song}", "--beats", "{words}"], "a file of beats goes with a single pair of recordings"),
    ],
)
def test_bad_input_is_one_line(arguments, message, song, tmp_path):
    samples, rate = soundfile.read(BACKING, dtype="float32")
    soundfile.write(tmp_path / "short.wav", samples[: 5 * rate], rate)
    soundfile.write(tmp_path / "silent.wav", samples * (np.arange(len(samples)) < 5 * rate), rate)
    (tmp_path / "words.txt").write_text("one two\n")
    files = {"song": song, **{name: tmp_path / f"{name}.wav" for name in ("short", "silent")}, "words": tmp_path / "words.txt"}
    result = run(*(str(argument).format(**files) for argument in arguments))
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert len(result.stderr.strip().splitlines()) == 1


def test_options_of_duos_are_refused_without_one():
    result = CliRunner().invoke(app, ["evaluate", "a.hal", "b.wav", "--push", "8"])
    assert (result.exit_code, result.stderr) == (
        2,
        "musichal: --beats, --player-track, --push, --jump, --exact and --pairs are for --duo\n",
    )


def test_a_band_without_beats_is_one_line(monkeypatch, tmp_path):
    from musichal.evaluate import duos

    duo = duos.duo_of_recordings(_cut(GUITAR, tmp_path / "a.wav", 8, 28), _cut(BACKING, tmp_path / "b.wav", 8, 28))
    monkeypatch.setattr(together, "beats_of", lambda _segments, *, sample_rate_hz: None)
    with pytest.raises(InputError, match="no steady beat is found in the band"):
        evaluate_duos([duo], {"shadow": Direction(mode="shadow")}, settings=PartnerSettings())


def test_beats_must_ascend(tmp_path):
    (tmp_path / "a.txt").write_text("0.5\n0.4\n1.0\n2.0\n")
    with pytest.raises(InputError, match="at least 4 beats, ascending"):
        read_beats(tmp_path / "a.txt")
