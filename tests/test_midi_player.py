"""A MIDI keyboard as the player: its sound, its exact notes, offline, live, and again."""

import json
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import musichal as mh
from midi_receiver import MidiSender
from musichal.audio.instrument import StruckKeys
from musichal.audio.keyboard import KeyboardSynth
from musichal.audio.midi_take import Control
from musichal.audio.recording import read_recording
from musichal.cli import app
from musichal.errors import InputError
from musichal.evaluate import parity
from musichal.evaluate.alignment import check_recording
from musichal.evaluate.answers import cut_excerpts
from musichal.evaluate.compare import compare_partners
from musichal.evaluate.verify import subjects
from musichal.hearing.encoders import create_encoder
from musichal.hearing.exact_notes import KeyOnsets, KnownNotes, OnsetQueue
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import Onset
from musichal.live.input import midi_input
from musichal.live.live_performance import LivePerformance, LiveRequest
from musichal.live.output import midi_ports
from musichal.live.session.event_log import Entry, Played, Struck, entry_from_json, entry_to_json
from musichal.live.session.session import read_session
from musichal.memory.partner_file import load_partner, save_partner
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec
from stage_by_hand import KeptEntries

RATE_HZ = 24_000
PLAYED = [
    (100, b"\x90\x3c\x64"),
    (2000, b"\x91\x40\x50"),
    (3000, b"\xb1\x40\x7f"),  # pedal
    (5000, b"\x81\x40\x00"),
    (9000, b"\x80\x3c\x00"),
    (20_000, b"\xb1\x40\x00"),
    (21_000, b"\x99\x2e\x64"),  # an open hi-hat, and a closed one that ends it
    (22_000, b"\x99\x2a\x64"),
]


def rendered(blocks: list[int], played: list[tuple[int, bytes]] = PLAYED) -> tuple[np.ndarray, KeyboardSynth]:
    synth, waiting, parts = KeyboardSynth(RATE_HZ), list(played), []
    for block in blocks:
        while waiting and waiting[0][0] < synth.position + block:
            at, data = waiting.pop(0)
            synth.take(data, at)
        parts.append(synth.render(block))
    return np.concatenate(parts), synth


@given(cuts=st.lists(st.integers(1, 30_000), max_size=12, unique=True))
def test_sound_and_notes_do_not_depend_on_the_blocks(cuts):
    whole, synth = rendered([30_000])
    cut, other = rendered(np.diff([0, *sorted(cut for cut in cuts if cut < 30_000), 30_000]).tolist())
    assert np.array_equal(whole, cut)
    assert (synth.pressed(), synth.ended()) == (other.pressed(), other.ended())


def test_a_note_lasts_as_long_as_its_key_and_sounds_as_long_as_the_pedal():
    sound, synth = rendered([30_000])
    assert [(n.onset_s * RATE_HZ, n.duration_s * RATE_HZ, n.pitch, n.velocity) for n in synth.ended()[0]] == [
        (100, pytest.approx(8900), 60, 100),
        (2000, pytest.approx(3000), 64, 80),
    ]
    assert np.abs(sound[15_000:19_000]).max() > 0.01, "the pedal holds it"
    assert np.abs(sound[28_000:]).max() < 1e-4
    assert [key.pitch for key in synth.pressed()] == [60, 64, 46, 42]


def test_drum_hits_are_exact_and_a_pad_that_sends_no_end_has_one():
    struck = [(0, b"\x99\x24\x64"), (1000, b"\x99\x24\x50"), (2000, b"\x99\x26\x40"), (3000, b"\x89\x26\x40")]
    _, synth = rendered([6000], struck)
    synth.silence()
    notes, hits = synth.ended()
    assert not notes
    assert [(round(h.onset_s * RATE_HZ), h.pitch, h.velocity) for h in hits] == [(0, 36, 100), (1000, 36, 80), (2000, 38, 64)]


def test_a_key_struck_again_ends_in_the_order_of_striking_and_all_notes_off_ends_all():
    struck = [
        (0, b"\x90\x3c\x64"),
        (1000, b"\x90\x3c\x50"),
        (2000, b"\x80\x3c\x00"),
        (3000, b"\x90\x40\x40"),
        (4000, b"\xb0\x7b\x00"),
    ]
    _, synth = rendered([6000], struck)
    assert [(round(n.onset_s * RATE_HZ), round(n.duration_s * RATE_HZ), n.velocity) for n in synth.ended()[0]] == [
        (0, 2000, 100),
        (1000, 3000, 80),
        (3000, 1000, 64),
    ]


def cents_of(sound: np.ndarray, hz: float) -> float:
    """Return how far above `hz` the loudest partial near it is."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 19))
    found = np.fft.rfftfreq(1 << 19, 1 / RATE_HZ)
    near = (found > hz / 3) & (found < hz * 3)
    return float(1200 * np.log2(found[near][np.argmax(spectrum[near])] / hz))


@pytest.mark.parametrize(
    ("before", "bend", "cents"),
    [
        ([], b"\xe0\x00\x60", 100),
        ([], b"\xe0\x00\x40", 0),
        ([b"\xb0\x65\x00", b"\xb0\x64\x00", b"\xb0\x06\x0c"], b"\xe0\x00\x00", -1200),
        ([b"\xbf\x65\x00", b"\xbf\x64\x06", b"\xbf\x06\x0f"], b"\xe0\x00\x50", 1200),  # MPE
        ([b"\xb0\x65\x00", b"\xb0\x64\x02", b"\xb0\x06\x41"], b"\xd0\x10", 100),  # coarse tuning
    ],
)
def test_bends_and_tunings_are_heard_and_kept(before, bend, cents):
    struck = [(0, b"\x90\x3c\x64"), *((6000, data) for data in [*before, bend])]
    sound, synth = rendered([8000, 13_000, 9000], struck)
    assert cents_of(sound[:6000], 261.63) == pytest.approx(0, abs=8)
    assert cents_of(sound[6200:], 261.63 * 2 ** (cents / 1200)) == pytest.approx(0, abs=8)
    assert [control.data for control in synth.controls()] == [*before, bend]


@pytest.mark.parametrize(
    ("before", "after", "gain"),
    [
        ([b"\xb0\x07\x32"], [], 0.25),  # at the onset: at once
        ([], [b"\xb0\x07\x7f"], 1.27**2),
        ([], [b"\xb0\x0b\x40"], (64 / 127) ** 2),
        ([], [b"\xd0\x7f"], 2),
        ([], [b"\xa0\x3c\x7f", b"\xa0\x40\x10"], 2),
        ([b"\xd0\x7f", b"\xb0\x0b\x40"], [b"\xa0\x3c\x7f", b"\xb0\x79\x00"], 1),
        ([b"\xb1\x07\x00"], [b"\xb1\x0b\x00"], 1),  # another channel
    ],
)
def test_volume_expression_and_pressure_set_the_level(before, after, gain):
    struck = [(50, data) for data in before] + [(50, b"\x90\x3c\x64")] + [(4000, data) for data in after]
    usual, _ = rendered([8000], [(50, b"\x90\x3c\x64")])
    sound, synth = rendered([8000], struck)
    assert np.allclose(sound[4240:], usual[4240:] * gain, rtol=1e-5, atol=1e-7)
    assert before == [] or gain == 1 or np.allclose(sound[:4000], usual[:4000] * gain, atol=1e-7)
    assert [control.data for control in synth.controls()] == [*before, *after]


@given(
    cuts=st.lists(st.integers(1, 20_000), max_size=8, unique=True),
    sent=st.lists(st.tuples(st.sampled_from([b"\xb0\7", b"\xb0\x0b", b"\xa0\x3c", b"\xd0"]), st.integers(0, 127)), max_size=12),
)
def test_levels_do_not_depend_on_the_blocks(cuts, sent):
    played = [(900 * n, head + bytes([value])) for n, (head, value) in enumerate(sent)]
    played += [(500, b"\x90\x3c\x64"), (2000, b"\x80\x3c\x00"), (6000, b"\x90\x3c\x30")]
    played.sort(key=lambda one: one[0])
    whole, _ = rendered([20_000], played)
    cut, _ = rendered(np.diff([0, *sorted({*cuts, 20_000})]).tolist(), played)
    assert np.array_equal(whole, cut)


def test_notes_that_are_over_take_no_voice_whatever_the_blocks():
    played = [(0, bytes((0x90, 60, 90))), *((200 * hit, bytes((0x99, 37, 90))) for hit in range(1, 100))]
    whole, _ = rendered([20_000], played)
    cut, _ = rendered([1000] * 20, played)
    assert np.array_equal(whole, cut)


@given(cuts=st.lists(st.integers(1, 20_000), max_size=8, unique=True), bends=st.lists(st.integers(0, 127), max_size=12))
def test_a_bent_sound_does_not_depend_on_the_blocks(cuts, bends):
    played = [
        (0, b"\x90\x3c\x64"),
        *((900 * n, bytes([0xE0, 7, bend])) for n, bend in enumerate(bends)),
        (9000, b"\x80\x3c\x00"),
    ]
    whole, _ = rendered([20_000], played)
    cut, _ = rendered(np.diff([0, *sorted({*cuts, 20_000})]).tolist(), played)
    assert np.array_equal(whole, cut)


def test_however_far_a_note_is_bent_no_more_of_its_sound_is_made_than_there_is():
    asked = []

    class Counted(StruckKeys):
        def sound(self, note, first, last, *, sample_rate_hz, program):
            asked.append(last - first)
            return super().sound(note, first, last, sample_rate_hz=sample_rate_hz, program=program)

    synth = KeyboardSynth(RATE_HZ, Counted())
    for data in (b"\xb0\x65\x00", b"\xb0\x64\x00", b"\xb0\x06\x7f", b"\xb0\x64\x02", b"\xb0\x06\x7f", b"\xe0\x7f\x7f"):
        synth.take(data, 0)
    synth.take(b"\x90\x3c\x64", 0)
    assert len(synth.render(1024)) == 1024
    assert not synth.render(1024).any()
    assert max(asked) <= 8 * RATE_HZ + 2


def test_sostenuto_holds_what_was_down_when_it_went_down():
    pedal = b"\xb0\x42"
    played = [
        (0, b"\x90\x3c\x64"), (100, pedal + b"\x7f"), (200, b"\x90\x43\x64"), (300, pedal + b"\x7f"),
        (400, b"\x80\x3c\x00"), (400, b"\x80\x43\x00"),
    ]  # fmt: skip
    sound, _ = rendered([20_000], played)
    alone, _ = rendered([20_000], [played[0]])
    assert np.allclose(sound[4000:], alone[4000:], atol=1e-6)


@given(st.lists(st.tuples(st.integers(-5, 3000), st.binary(max_size=4)), max_size=60))
def test_no_message_breaks_it(messages):
    synth = KeyboardSynth(RATE_HZ)
    for at, data in messages:
        synth.take(data, at)
        assert np.isfinite(synth.render(16)).all()
    synth.silence()
    synth.render(RATE_HZ)
    assert not synth.render(RATE_HZ).any()


def test_keys_of_a_chord_are_one_onset_with_all_their_pitches():
    _, synth = rendered([6000], [(0, b"\x90\x3c\x64"), (200, b"\x90\x40\x64"), (5000, b"\x90\x43\x64")])
    onsets = KeyOnsets(PerceptionSpec()).of(synth.pressed())
    assert [(o.sample, o.decided_at, o.pitches) for o in onsets] == [(0, 1, (60,)), (0, 201, (64,)), (5000, 5001, (67,))]


def test_the_log_keeps_exact_notes():
    entries: list[Entry] = [Struck(7, onset) for onset in KeyOnsets(PerceptionSpec()).of(rendered([3000])[1].pressed())]
    entries.append(Struck(8, Onset(5, 6, (36,), is_drum=True)))
    entries.append(Played(9, (HeardNote(0.25, 0.1, 60, 90),), (HeardNote(0.5, 0.1, 36, 80),), (Control(1.5, b"\xe0\x00\x50"),)))
    assert [entry_from_json(entry_to_json(entry)) for entry in entries] == entries
    for wrong in ('{"at":1,"notes":[[0,0,60,90]]}', '{"at":1,"notes":[[0,1,160,90]]}', '{"at":1,"onset":[1,2,200]}'):
        with pytest.raises(ValueError, match=r"not a note|expected an integer"):
            entry_from_json(wrong)


@pytest.fixture(scope="module")
def melody(tmp_path_factory) -> Path:
    """Four bars of quarters and eighths with a pedal, at 100 beats a minute."""
    track = mido.MidiTrack(
        [
            mido.MetaMessage("set_tempo", tempo=600_000),
            mido.MetaMessage("marker", text="Theme"),
            mido.MetaMessage("key_signature", key="Bbm"),
            mido.Message("control_change", control=64, value=127),
            mido.Message("program_change", program=4),
        ]
    )
    for number, pitch in enumerate([60, 64, 67, 72, 71, 67, 64, 62] * 3):
        length = 480 if number % 3 else 240
        track.append(mido.Message("note_on", note=pitch, velocity=60 + number, time=0))
        track.append(mido.Message("note_off", note=pitch, time=length))
    path = tmp_path_factory.mktemp("melody") / "melody.mid"
    mido.MidiFile(tracks=[track], ticks_per_beat=480).save(path)
    return path


def test_a_midi_file_is_a_recording_with_its_notes(melody):
    recording = read_recording(melody)
    notes = [m for m in mido.MidiFile(melody) if m.type == "note_on"]
    assert [(n.pitch, n.velocity) for n in recording.take.notes] == [(m.note, m.velocity) for m in notes]
    assert recording.take.notes[1].onset_s == pytest.approx(0.3)
    assert recording.take.beats_s[:3].tolist() == pytest.approx([0, 0.6, 1.2])
    assert np.array_equal(recording.samples, read_recording(melody).samples)


@pytest.fixture(scope="module")
def taught(tmp_path_factory, melody) -> Path:
    partner = tmp_path_factory.mktemp("taught") / "taught.hal"
    run = CliRunner().invoke(app, ["train", str(melody), "-o", str(partner)])
    assert run.exit_code == 0, run.output
    return partner


def test_a_memory_of_a_midi_file_has_its_notes_and_beats_exactly_and_verifies(taught, melody):
    model, take = load_partner(taught), read_recording(melody).take
    states, notes = model.memory.states, model.memory.notes
    owner = np.repeat(np.arange(len(states)), states["note_count"])
    onsets_s = states["start_s"][owner] + notes["offset_s"]
    assert onsets_s.tolist() == pytest.approx([n.onset_s for n in take.notes], abs=0.001)
    for name in ("duration_s", "pitch", "velocity"):
        assert notes[name].tolist() == pytest.approx([getattr(n, name) for n in take.notes], abs=0.001)
    assert model.recordings[0].take.controls == take.controls
    assert [control.data for control in take.controls] == [b"\xb0\x40\x7f", b"\xc0\x04"]
    assert [(label.kind, label.text) for label in model.recordings[0].take.labels] == [
        ("marker", "Theme"),
        ("key", "Bb minor"),
    ]
    assert model.recordings[0].beats["time_s"].tolist() == take.beats_s.tolist()
    assert model.recordings[0].beats["bar_place"].tolist()[:5] == [0, 1, 2, 3, 0]
    found = parity(model, model.recordings[0].samples(), RATE_HZ)
    assert found.agreement == 1
    assert not [check for check in found.checks if not check.passed]


def test_a_midi_file_is_heard_exactly_wherever_a_recording_is(taught, melody, tmp_path):
    partner, recording = mh.load(taught), read_recording(melody)
    notes = [(n.onset_s, n.pitch) for n in recording.take.notes]
    answer = partner.respond(melody, mode="shadow")
    played = [n for entry in answer.performance.entries if isinstance(entry, Played) for n in entry.notes]
    assert [(n.onset_s, n.pitch) for n in played] == notes
    with pytest.raises(InputError, match="sample rate"):
        partner.respond(recording.samples)
    excerpts = cut_excerpts(partner.model, [recording], excerpt_s=1.5, most=8, progress=lambda *_: None)
    begun = [o.pitches[0] for excerpt in excerpts for o in excerpt.onsets]
    assert begun == [pitch for onset_s, pitch in notes if onset_s < 1.5 * len(excerpts)]
    (subject,) = subjects(partner.model, [replace(recording, samples=recording.samples * np.float32(0.5))])
    assert not [check for check in check_recording(partner.model, subject, [5000] * 99).checks if not check.passed]
    assert compare_partners(
        partner.model, partner.model, recording.samples, name="", sample_rate_hz=RATE_HZ, take=recording.take
    )


def test_a_memory_has_chords_and_regions_by_their_markers(taught, melody, tmp_path):
    run = CliRunner().invoke(app, ["inspect", str(taught), "--json"])
    (chords,) = json.loads(run.output)["chords"]
    assert next(iter(chords["shares"])) == "C"
    assert chords["regions"][0][:2] == ["Theme", 0.0]
    (take,) = json.loads(run.output)["overview"]["takes"]
    assert (take["key"], take["key_share"], take["key_is_said"]) == ("Bb minor", 1.0, True)
    assert "(file)" in CliRunner().invoke(app, ["inspect", str(taught)]).output
    play = ["play", str(taught), "--input", str(melody), "--midi-out", str(tmp_path / "x.mid"), "--set"]
    assert CliRunner().invoke(app, [*play, "use=theme"]).exit_code == 0
    wrong = CliRunner().invoke(app, [*play, "use=coda"])
    assert "unknown region 'coda'. Valid regions: theme" in wrong.output


@settings(max_examples=4)
@given(block=st.integers(50, 30_000))
def test_gestures_of_a_midi_player_do_not_depend_on_blocks(taught, melody, block):
    model, recording = load_partner(taught), read_recording(melody)
    known = OnsetQueue(KnownNotes.of(recording.take, model.spec).onsets)
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=RATE_HZ, known=known)
    heard = listener.listen(recording.samples[: 4 * RATE_HZ], block_samples=block)
    gestures = [g.start_s for p in heard.percepts for g in p.gestures]
    assert gestures == model.memory.states["start_s"][: len(gestures)].tolist()


def test_a_midi_player_is_answered_offline_and_replayed(trained, melody, tmp_path):
    partner, session = tmp_path / "p.hal", tmp_path / "session"
    save_partner(partner, trained)
    run = CliRunner().invoke(app, ["play", str(partner), "--input", str(melody), "--mode", "shadow", "--session", str(session)])
    assert run.exit_code == 0, run.output
    played = [note for entry in read_session(session).entries if isinstance(entry, Played) for note in entry.notes]
    known = KnownNotes.of(read_recording(melody).take, trained.spec)
    assert played == list(known.notes)[: len(played)]
    assert len(played) > 20
    again = CliRunner().invoke(app, ["replay", str(session)])
    assert again.exit_code == 0, again.output
    assert "byte for byte" in again.output
    take = read_recording(session).take
    assert list(take.notes) == played
    assert take.controls == ()
    kept = CliRunner().invoke(app, ["keep", str(session), "--alone", "-o", str(tmp_path / "kept.hal")])
    assert kept.exit_code == 0, kept.output
    notes = load_partner(tmp_path / "kept.hal").memory.notes
    assert sorted(zip(notes["pitch"], notes["velocity"], strict=True)) == sorted((n.pitch, n.velocity) for n in played)
    (session / "transcript.jsonl").write_bytes((session / "transcript.jsonl").read_bytes()[:-1] + b'{"at":9,"notes":[[1,')
    assert read_recording(session).take.notes == take.notes, "a line that was cut off is left out"


class FakeClient:
    """RtMidi's, of a port that is there or not, and may refuse to be opened."""

    system = "ALSA"

    def __init__(self, port: dict) -> None:
        self.port, self.take, self.is_closed = port, None, False

    def names(self):
        if self.is_closed:
            raise SystemError("deleted")
        return ["piano"] if self.port["there"] else []

    def again(self):
        return FakeClient(self.port)

    def open(self, number, name):
        if self.port["refusals"]:
            self.port["refusals"] -= 1
            raise SystemError("busy")

    def receive(self, take):
        self.port["client"] = self

    def close(self):
        self.is_closed = True


def test_a_port_that_refuses_when_it_is_back_is_tried_again():
    port = {"there": True, "refusals": 0}
    clients = [FakeClient(port)]
    check = midi_ports._receive(midi_ports._Found("piano", clients[0], 0), print, clients, virtual=False)
    assert check()
    port.update(there=False, refusals=2)
    assert not check()
    port["there"] = True
    for _ in range(2):
        with pytest.raises(SystemError, match="busy"):
            check()
    assert check()
    assert clients == [port["client"]]
    assert not clients[0].is_closed


def test_blocks_go_by_the_beat_of_the_last_message(monkeypatch):
    @contextmanager
    def opened(_name, take):
        opened.take = take
        yield midi_ports.MidiInputPort("piano", lambda: True)

    monkeypatch.setattr(midi_input, "open_midi_input", opened)
    now, waits = [100.0], []
    monkeypatch.setattr(midi_input, "now_s", lambda: now[0])
    with midi_input.MidiInput("piano", sample_rate_hz=RATE_HZ, block_samples=240) as live:
        monkeypatch.setattr(live._arrived, "wait", waits.append)
        now[0] = 100.003
        opened.take(bytes([0x90, 60, 80]))
        for at_s in (100.0031, 100.0139, 100.0237):
            now[0] = at_s
            live.read()
            live.wait(1.0)
    assert np.allclose(np.array([100.0031, 100.0139, 100.0237]) + waits, [100.0134, 100.0234, 100.0334])


def test_a_flood_of_messages_loses_no_note_and_leaves_none_sounding(monkeypatch):
    """3,000 messages a second: notes, bends, controllers, system exclusive, active sensing, and notes without end."""

    @contextmanager
    def opened(_name, take):
        opened.take = take
        yield midi_ports.MidiInputPort("piano", lambda: True)

    monkeypatch.setattr(midi_input, "open_midi_input", opened)
    flood = [b"\xf0\x7e\x7f\xf7", b"\xfe", b"\xe0\x00\x50", b"\xb0\x01\x40", b"\xd0\x20", b"\xf8"]
    with midi_input.MidiInput("piano", sample_rate_hz=RATE_HZ) as live:
        pressed, ended = [], []
        started = time.monotonic()
        for number in range(100):
            for data in flood * 4:
                opened.take(data)
            opened.take(bytes([0x90, 30 + number % 64, 80]))
            if number % 2:
                opened.take(bytes([0x80, 30 + number % 64, 0]))
            time.sleep(max(0.0, started + number * 0.0085 - time.monotonic()))
            for block in live.read():
                pressed += block.pressed
                ended += block.ended
        live._synth.silence()
        ended += live._synth.ended()[0]
        assert live.xruns == 0
    assert len(pressed) == len(ended) == 100


@pytest.mark.live
def test_a_keyboard_plays_live_its_port_goes_and_comes_back_and_the_session_replays(jack_server, trained, tmp_path):
    partner, session, heard = tmp_path / "p.hal", tmp_path / "session", KeptEntries()
    save_partner(partner, trained)
    with MidiSender("piano") as piano:
        request = LiveRequest(partner=partner, input="midi:piano", midi_out="none:", session=session)
        with LivePerformance(request, observers=[heard]):
            for pitch in (60, 64, 67):
                piano.send(0x90, pitch, 90)
                time.sleep(0.3)
                piano.send(0x80, pitch, 0)
            piano.send(0x90, 72, 90)  # never released
            wait_until(lambda: 72 in heard.struck())
            piano.__exit__()
            wait_until(lambda: any(told.startswith("input-gone") for told in heard.told))
            with MidiSender("piano") as back:
                wait_until(lambda: any(told.startswith("input-returned") for told in heard.told))
                back.send(0x90, 48, 70)
                back.send(0x80, 48, 0)
                wait_until(lambda: 48 in heard.played())
    entries = read_session(session).entries
    assert [p for e in entries if isinstance(e, Struck) for p in e.onset.pitches] == [60, 64, 67, 72, 48]
    assert [n.pitch for e in entries if isinstance(e, Played) for n in e.notes] == [60, 64, 67, 72, 48]
    again = CliRunner().invoke(app, ["replay", str(session)])
    assert again.exit_code == 0, again.output


@pytest.mark.live
def test_what_is_played_is_heard_on_the_monitor_and_ends_with_its_port(jack_server, trained, tmp_path):
    from test_slices_port import FeatureExtractor  # a JACK client

    partner = tmp_path / "p.hal"
    save_partner(partner, trained)
    request = LiveRequest(partner=partner, input="midi:piano", midi_out="none:", monitor="default")
    with MidiSender("piano") as piano, FeatureExtractor() as ear, LivePerformance(request):
        ear.listen_to("PortAudio")
        piano.send(0x90, 69, 110)
        wait_until(lambda: np.abs(ear.heard()[-9600:]).max(initial=0.0) > 0.01)
        time.sleep(0.2)
        sound = ear.heard()[-9600:]
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 18))
        assert np.argmax(spectrum) / (1 << 18) * jack_server.rate_hz == pytest.approx(440, rel=0.01)
        piano.__exit__()  # with the key down
        wait_until(lambda: not ear.heard()[-4800:].any())


@pytest.mark.live
def test_a_midi_input_that_is_not_there_is_refused(jack_server, trained, tmp_path):
    partner = tmp_path / "p.hal"
    save_partner(partner, trained)
    with (
        pytest.raises(InputError, match="no MIDI input has 'no such' in the name"),
        LivePerformance(LiveRequest(partner=partner, input="midi:no such", midi_out="none:")),
    ):
        pass


def wait_until(condition, timeout_s=30.0):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_damaged_file_in_a_folder_is_named_by_its_path(tmp_path):
    (tmp_path / "takes").mkdir()
    (tmp_path / "takes" / "x.mid").write_bytes(b"MThd")
    with pytest.raises(InputError, match=r"takes.x\.mid is a damaged MIDI file"):
        read_recording(tmp_path / "takes" / "x.mid")


def test_a_file_whose_volume_is_0_is_silent(tmp_path):
    track = mido.MidiTrack([mido.Message("control_change", control=7, value=0), mido.Message("note_on", note=60)])
    mido.MidiFile(tracks=[mido.MidiTrack([*track, mido.Message("note_off", note=60, time=480)])]).save(tmp_path / "x.mid")
    with pytest.raises(InputError, match="digital silence throughout: its volume"):
        read_recording(tmp_path / "x.mid")
