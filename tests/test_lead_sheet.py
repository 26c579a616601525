"""Chords from text, MIDI and MusicXML."""

import io
import zipfile

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.partner.chords import chord_number
from musichal.partner.lead_sheet import midi_chart, musicxml_chart, parse_chart, read_chart


def names(scenario):
    return " ".join("-" if label < 0 else scenario.name(step) for step, label in enumerate(scenario.labels))


def test_text_with_tempo_meter_repeats_and_halves():
    text = "# a blues\ntempo: 90\nmeter: 3/4\n|: Dm7 | G7 / F#m :| C Am | % |\n| N.C. || Bb/D |"
    scenario = parse_chart(text).scenario()
    assert scenario.seconds == pytest.approx(2.0 / 6)
    bars = ["Dm", "G G F#m", "Dm", "G G F#m", "C Am", "C Am", "-", "Bb"]
    assert names(scenario) == " ".join(
        " ".join(chord for chord in bar.split() for _ in range(6 // len(bar.split()))) for bar in bars
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "no chords"), ("| % |", "repeats the one before"), ("| H7 |", "is no chord"),
     ("| Cis |", "is no chord"), ("| Es7 |", "is no chord"), ("tempo: fast\n| C |", "tempo"),
     ("meter: 0/4\n| C |", "meter"), ("| N.C. |", "no chords"),
     ("| C D E F G | A B C D E F G | C D E F G A B C D E F |", "lengths")],
)  # fmt: skip
def test_a_text_that_is_no_chart_is_one_line(text, why):
    with pytest.raises(InputError, match=why):
        parse_chart(text).scenario()


def song(*tracks: list) -> bytes:
    out = io.BytesIO()
    mido.MidiFile(tracks=[mido.MidiTrack(track) for track in tracks], ticks_per_beat=480).save(file=out)
    return out.getvalue()


def chord_track(*chords: tuple[int, ...]) -> list:
    track = []
    for chord in chords:
        track += [mido.Message("note_on", note=pitch) for pitch in chord]
        track += [mido.Message("note_off", note=pitch, time=1920 if not n else 0) for n, pitch in enumerate(chord)]
    return track


def test_chords_of_a_midi_file_by_its_notes_and_by_its_markers():
    played = chord_track((48, 64, 67), (57, 60, 64), (53, 57, 60))
    assert names(midi_chart(song(played), name="x.mid").scenario()) == "C Am F"
    markers = [mido.MetaMessage("marker", text="Verse"), mido.MetaMessage("marker", text="G7")]
    markers += [mido.MetaMessage("marker", text="Em", time=2880)]
    scenario = midi_chart(song(played, markers), name="x.mid").scenario()
    assert (names(scenario), scenario.seconds) == ("G G G Em Em Em", pytest.approx(1.0))


XML = """<?xml version="1.0"?><score-partwise><part id="P1"><measure><attributes><divisions>2</divisions>
<time><beats>4</beats><beat-type>4</beat-type></time></attributes><sound tempo="60"/>
<harmony><root><root-step>D</root-step></root><kind>minor-seventh</kind></harmony><note><duration>4</duration></note>
<harmony><root><root-step>B</root-step><root-alter>-1</root-alter></root><kind>major</kind></harmony><note><duration>4</duration></note>
</measure><measure><note><duration>8</duration></note></measure></part></score-partwise>"""


def test_chords_of_musicxml_packed_or_not(tmp_path):
    scenario = musicxml_chart(XML.encode()).scenario()
    assert (names(scenario), scenario.seconds) == ("Dm Dm Bb Bb Bb Bb Bb Bb", pytest.approx(1.0))
    with zipfile.ZipFile(tmp_path / "song.mxl", "w") as packed:
        packed.writestr("META-INF/container.xml", "<x/>")
        packed.writestr("song.xml", XML)
    assert read_chart(tmp_path / "song.mxl") == scenario


@given(st.binary(max_size=80), st.sampled_from(["x.txt", "x.mid", "x.xml", "x.mxl"]))
def test_no_file_breaks_it(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("chart") / name
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_chart(path)


def test_entities_are_refused():
    with pytest.raises(InputError, match="entities"):
        musicxml_chart(b'<!DOCTYPE x [<!ENTITY a "b">]>' + XML.encode())


def test_typographic_signs_are_read():
    signs, plain = "｜ C♯7 │ B♭Δ – | Fø | G° | C–7 | Esus4 |", "| C#7 | Bbmaj7 / | Fm7b5 | Gdim | Cm7 | E |"
    assert parse_chart(signs) == parse_chart(plain)


@given(st.lists(st.sampled_from(["C", "Dm", "F#m", "Bb", "Ebm"]), min_size=1, max_size=12))
def test_a_chart_of_whole_bars_is_its_chords(chords):
    assert list(parse_chart("|".join(chords)).scenario().labels) == [chord_number(chord) for chord in chords]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_a_lead_sheet_is_read_in_the_encodings_of_other_tables(encoding, tmp_path):
    path = tmp_path / "chart.txt"
    path.write_bytes("# Café\r\n| Dm7 | G7 |\r\n".encode(encoding))
    if encoding in ("utf-8-sig", "utf-16"):
        assert read_chart(path).labels
    else:
        with pytest.raises(InputError, match=r"is not text in UTF-8.*; save it as UTF-8"):
            read_chart(path)
