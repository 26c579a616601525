"""`musichal export`: what independent readers find in it lies together to the sample."""

import csv
import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from musichal.cli import app
from musichal.live.engine import slice_events
from musichal.live.session.event_log import Silences, Staged, as_sounded
from musichal.live.session.export import Part, TempoMap, _sections, reaper_project, score_bytes, tempo_map
from musichal.live.session.session import read_session
from musichal.note import Note
from musichal.partner.decision import PulseUse
from musichal.partner.form import parse_form
from partners_by_hand import played

pytestmark = pytest.mark.usefixtures("heard_once")

SAMPLE_S = 1 / 44100


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def take(trained_path, short_guitar, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "take"
    result = run("play", trained_path, "--input", short_guitar, "--session", folder, "--set", "voices=melody,bass,drums")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def exported(take) -> Path:
    folder = take.parent / "out"
    result = run("export", take, "-o", folder, "--json")
    assert result.exit_code == 0, result.output
    assert sorted(json.loads(result.stdout)["written"]) == sorted(map(str, folder.iterdir()))
    return folder


def onsets_of(track: mido.MidiTrack, steps: list[tuple[int, int]], per_beat: int) -> list[tuple[float, int]]:
    """Return seconds and pitch of each note of a track, by our own count from the tempo track."""
    found, tick = [], 0
    for message in track:
        tick += message.time
        if message.type == "note_on" and message.velocity:
            ends = [*(at for at, _ in steps[1:]), 1 << 60]
            past = [(min(tick, end) - at) * us for (at, us), end in zip(steps, ends, strict=True) if at < tick]
            found.append((sum(past) / per_beat / 1e6, message.note))
    return found


def by_pitch(notes: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return sorted(notes, key=lambda note: note[::-1])


def tempo_of(file: mido.MidiFile) -> list[tuple[int, int]]:
    steps, tick = [], 0
    for message in file.tracks[0]:
        tick += message.time
        if message.type == "set_tempo":
            steps.append((tick, message.tempo))
    return steps


def expected(take: Path) -> dict[str, list[tuple[float, int]]]:
    session = read_session(take)
    sounded = as_sounded(session.decisions, session.entries, sample_rate_hz=24000)
    notes: dict[str, list[tuple[float, int]]] = {}
    for decision in sounded:
        notes.setdefault(decision.voice, []).extend((n.onset_s, n.pitch) for n in decision.notes)
    return {voice: by_pitch(found) for voice, found in notes.items() if found}


def test_the_input_is_one_file_and_all_begin_at_one_zero(take, exported, short_guitar):
    original, rate = soundfile.read(short_guitar, dtype="float32")
    sounds = {name: soundfile.read(exported / f"{name}.wav", dtype="float32") for name in ("input", "answer", "mix")}
    assert {file_rate for _, file_rate in sounds.values()} == {rate}
    assert np.abs(sounds["input"][0] - (original if original.ndim == 1 else original.mean(axis=1))).max() < 2**-22
    assert len(sounds["answer"][0]) == len(sounds["mix"][0]) >= len(original)
    # The answer's first sound is where its first note is.
    answer = np.abs(sounds["answer"][0]).max(axis=1)
    first_s = min(at for notes in expected(take).values() for at, _ in notes)
    assert 0 <= np.flatnonzero(answer > 1e-5)[0] - round(first_s * rate) <= 0.005 * rate
    # What is in the mix is the input and the answer, without a shift.
    left = sounds["mix"][0][:, 0].astype(float)
    parts = np.stack([np.pad(sounds["input"][0], (0, len(left) - len(original))), *sounds["answer"][0].T], axis=1)
    fitted = parts @ np.linalg.lstsq(parts, left, rcond=None)[0]
    assert np.abs(fitted - left).max() < 1e-4


def test_a_midi_track_for_each_voice_that_played_lies_on_the_sample(take, exported):
    file = mido.MidiFile(exported / "answer.mid")
    wanted = expected(take)
    assert {track.name for track in file.tracks[1:]} == set(wanted)
    for track in file.tracks[1:]:
        found = by_pitch(onsets_of(track, tempo_of(file), file.ticks_per_beat))
        assert [pitch for _, pitch in found] == [pitch for _, pitch in wanted[track.name]]
        assert max(abs(a - b) for (a, _), (b, _) in zip(found, wanted[track.name], strict=True)) < SAMPLE_S
        alone = mido.MidiFile(exported / f"answer-{track.name}.mid")
        assert by_pitch(onsets_of(alone.tracks[1], tempo_of(alone), alone.ticks_per_beat)) == found
    markers = [message.text for message in file.tracks[0] if message.type == "marker"]
    assert any(text.startswith("mode ") for text in markers)
    with (exported / "markers.csv").open() as stream:
        assert [row["Name"] for row in csv.DictReader(stream)] == markers


def test_the_reaper_project_holds_the_same_notes_and_files(take, exported):
    text = (exported / "session.rpp").read_text()
    blocks = [line.strip().split()[0] for line in text.splitlines() if line.strip()[:1] in "<>"]
    depth = np.cumsum([1 if block.startswith("<") else -1 for block in blocks])
    assert depth[-1] == 0 and (depth[:-1] > 0).all(), "blocks are balanced"
    assert set(re.findall(r'FILE "(.*)"', text)) == {"input.wav", "answer.wav", "mix.wav"}
    points = [(float(t), float(bpm)) for t, bpm in re.findall(r"PT (\S+) (\S+)", text)]
    beats = np.cumsum([0.0, *(bpm / 60 * (after - t) for (t, bpm), (after, _) in pairwise(points))])
    for voice, notes in expected(take).items():
        source = re.search(rf'NAME "{voice}"\n\s+<SOURCE MIDI\n(.*?)>', text, re.S)[1]
        per_beat = int(re.search(r"HASDATA 1 (\d+) QN", source)[1])
        tick, onsets = 0, []
        for delta, status in re.findall(r"E (\d+) (\w\w)", source):
            tick += int(delta)
            if status[0] == "9":
                row = max(0, np.searchsorted(beats, tick / per_beat, side="right") - 1)
                onsets.append(points[row][0] + (tick / per_beat - beats[row]) * 60 / points[row][1])
        assert np.allclose(sorted(onsets), sorted(at for at, _ in notes), atol=SAMPLE_S)


def test_a_stretch_is_the_same_sound_and_notes_from_its_own_zero(take, exported, tmp_path):
    result = run("export", take, "-o", tmp_path / "part", "--from", "2", "--to", "0:05.5")
    assert result.exit_code == 0, result.output
    whole, part = (soundfile.read(folder / "input.wav", dtype="float32")[0] for folder in (exported, tmp_path / "part"))
    assert np.array_equal(part, whole[2 * 44100 : round(5.5 * 44100)])
    # The answer is at a loudness of its own: the same but for one factor, once what rang before has died away.
    whole, part = (soundfile.read(folder / "answer.wav")[0] for folder in (exported, tmp_path / "part"))
    cut = whole[2 * 44100 : round(5.5 * 44100)]
    assert np.corrcoef(part.reshape(-1), cut.reshape(-1))[0, 1] > 0.9999
    file = mido.MidiFile(tmp_path / "part" / "answer.mid")
    onsets = [at for track in file.tracks[1:] for at, _ in onsets_of(track, tempo_of(file), file.ticks_per_beat)]
    inside = [at - 2 for notes in expected(take).values() for at, _ in notes if 2 <= at < 5.5]
    assert all(min(abs(at - other) for other in onsets) < SAMPLE_S for at in inside)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "5", "--to", "3"), "nothing lies between 0:05.00 and 0:03.00"),
        (("--from", "9:00"), "the session ends at 0:0"),
        (("--marks",), "has no marks; --from and --to choose a stretch"),
        (("--marks", "--from", "1"), "leave --from and --to out"),
        (("--sound", "noise"), "--sound must be one of"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(take, arguments, words, tmp_path):
    result = run("export", take, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert words in result.output.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(take, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    result = run("export", take, "-o", tmp_path)
    assert result.exit_code == 2
    assert "it is not an empty folder" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@given(periods=st.lists(st.floats(0.2, 1.5), min_size=1, max_size=40), first=st.floats(0.3, 20))
def test_beats_stay_where_they_are_however_many_steps_there_are(periods, first):
    times = [(0.0, 0), (first, 3), *((first + sum(periods[: n + 1]), 4 + n) for n in range(len(periods)))]
    tempo = TempoMap.through(times)
    assert all(abs(tempo.beat_at(at_s) - number) < 1e-4 for at_s, number in times)
    onsets = [at_s for at_s, _ in times]
    file = mido.MidiFile(file=io.BytesIO(score_bytes([Part("p", tuple(Note(t, 0.05, 60, 9) for t in onsets))], tempo)))
    found = [at for at, _ in onsets_of(file.tracks[1], tempo_of(file), file.ticks_per_beat)]
    assert np.allclose(found, onsets, atol=1.5 / 30_720)


def test_the_beats_are_those_that_the_partner_went_by():
    steady = [
        replace(played(n, t, 0.0, 0.3, pitches=[60]), tempo_bpm=100.0, pulse=PulseUse("heard", 1.0, 1.0, 0.25, 0.25, 0.25))
        for n, t in enumerate(np.arange(2.15, 30, 1.2).tolist())
    ]
    tempo = tempo_map(steady)
    assert all(abs(tempo.beat_at(2.0 + 0.6 * n) % 1 - 0.5) > 0.49 for n in range(40))
    assert tempo.steps[-1].bpm == pytest.approx(100, rel=0.05)
    assert tempo_map([replace(d, pulse=None) for d in steady]) == TempoMap(), "free time has no beats"


def test_a_table_of_voices_holds_offline_too(trained_path, short_guitar, tmp_path):
    table, reply = tmp_path / "voices.toml", tmp_path / "reply.mid"
    low = '[voice.bass]\nport = "none:"\nchannel = 2\nrange = [28, 50]\nprogram = 34\n'
    table.write_text(low + '[voice.melody]\nport = "Synth 1"\ntranspose = 12\n[voice.drums]\nport = "none:"\n')
    options = (
        "--input",
        short_guitar,
        "--voices",
        table,
        "--session",
        tmp_path / "take",
        "--audio-out",
        tmp_path / "reply.wav",
    )
    result = run("play", trained_path, *options, "--midi-out", reply)
    assert result.exit_code == 0, result.output
    file = mido.MidiFile(reply)
    tracks = {track.name: [m for m in track if m.type == "note_on"] for track in file.tracks[1:]}
    session = read_session(tmp_path / "take")
    assert [v.name for v in session.settings.partner.voices] == ["bass", "melody", "drums"]
    assert set(tracks) == {d.voice for d in session.decisions if d.notes}
    channels = {"bass": {1}, "melody": {0}, "drums": {9}}
    assert {name: {m.channel for m in own} for name, own in tracks.items()} == {name: channels[name] for name in tracks}
    assert all(28 <= m.note <= 50 for m in tracks.get("bass", []))
    programs = [m.program for track in file.tracks for m in track if m.type == "program_change" and m.channel == 1]
    assert programs == [33] * ("bass" in tracks)
    pitches = [n.pitch for d in session.decisions if d.voice == "melody" for n in d.notes]
    assert {m.note for m in tracks.get("melody", [])} == {pitch + 12 for pitch in pitches}
    assert run("replay", tmp_path / "take").exit_code == 0
    table.write_text(low)
    refused = run("play", trained_path, *options[:4], "--set", "voices=melody", "--midi-out", tmp_path / "x.mid")
    assert refused.exit_code == 2
    assert "has no route for the voice 'melody'" in refused.output.replace("\n", " ")


def test_a_name_of_two_lines_is_one_line_of_a_reaper_project():
    text = reaper_project([], [], TempoMap(), [(1.0, "solo\n>\r\nlast")], sample_rate_hz=44100)
    assert 'MARKER 1 1.000000000000 "solo > last" 0' in text.splitlines()[-2]


def test_slices_fall_silent_with_the_notes():
    decisions = [played(n, float(n), 0.0, 1.0, pitches=[60]) for n in range(6)]
    entries = [Staged(round(at_s * 1000), control) for at_s, control in ((1.5, "mute"), (3.5, "unmute"), (4.25, "panic"))]
    silences = Silences(entries, sample_rate_hz=1000)
    sounded = [(s.onset_s, s.duration_s) for s in slice_events(decisions, sounded=silences.sounded)]
    notes = [n for d in as_sounded(decisions, entries, sample_rate_hz=1000) for n in d.notes]
    assert sounded == [(n.onset_s, n.duration_s) for n in notes] == [(0, 1), (1, 0.5), (4, 0.25), (5, 1)]


def test_sections_are_where_the_player_moved_them():
    text = 'end = "0:30"\n' + "".join(
        f'[[section]]\nname = "{n}"\nfrom = "0:{s:02d}"\n' for n, s in (("a", 0), ("b", 10), ("c", 20))
    )
    form = parse_form(text, ["couple"], source="form")

    def told(*changes):
        return [(round(marker.at_s, 3), marker.text) for marker in _sections(form, changes, 60.0)]

    assert told() == [(0, "a"), (10, "b"), (20, "c"), (30, "end of the form")]
    moved = told((4.0, {"hold_section": True}), (13.0, {"next_section": True}), (26.0, {"pause": 1}), (31.0, {"pause": 0}))
    assert moved == [(0, "a"), (13, "b"), (23, "c"), (38, "end of the form")]
