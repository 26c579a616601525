"""A microphone and a keyboard together: one stream, exact keys, and what is found in the sound beside them."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from midi_receiver import MidiSender
from musichal.audio.keyboard import KeyPress
from musichal.cli import app
from musichal.commands.options import PlayOptions
from musichal.errors import InputError
from musichal.hearing.exact_notes import ExactNotes, OnsetQueue
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.percepts import Onset, SegmentFeatures
from musichal.live.input.blocks import Block
from musichal.live.input.midi_input import ALL, Mix, MixedInput, parse_mix
from musichal.live.live_performance import LivePerformance, LiveRequest
from musichal.live.session.event_log import Played, Struck
from musichal.live.session.session import read_session
from musichal.memory.partner_file import save_partner
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec
from stage_by_hand import KeptEntries

RATE_HZ = 24_000


@pytest.mark.parametrize(
    ("text", "mix"),
    [
        ("Scarlett + midi:Keys", Mix("Scarlett", "Keys")),
        ("0.5 Scarlett 2i2 + 2 midi:Keys", Mix("Scarlett 2i2", "Keys", 0.5, 2.0)),
        ("1 + midi:Keys", Mix("1", "Keys")),
        ("Mic for sound + midi:TD-17 for onsets, notes", Mix("Mic", "TD-17", 1, 1, frozenset({"sound"}), ALL - {"sound"})),
        ("Box for kids + midi:Keys for two", Mix("Box for kids", "Keys for two")),
        ("midi:Keys", None),
        ("Scarlett", None),
        ("A + B", None),
    ],
)
def test_two_inputs_have_names_and_weights(text, mix):
    assert parse_mix(text) == mix


def test_a_file_whose_name_is_that_of_a_port_is_the_file(tmp_path):
    for name in ("a + midi:x.wav", "midi:keys.mid", "Scarlett"):
        options = PlayOptions(partner=Path("p.hal"), input=str(tmp_path / name))
        wanted = replace(options, input=name)
        assert wanted.is_live
        (tmp_path / name).touch()
        assert not options.is_live


def test_a_microphone_is_for_its_sound():
    with pytest.raises(InputError, match="Mic can be for sound, or for all"):
        parse_mix("Mic for notes + midi:Keys")


@pytest.mark.parametrize(
    ("taken", "sounds", "pressed", "ended"),
    [("sound", True, 0, 0), ("onsets", False, 1, 0), ("notes", False, 0, 1), ("sound,onsets,notes", True, 1, 1)],
)
def test_keys_are_taken_for_what_they_are_named_for(taken, sounds, pressed, ended):
    class Opened(MixedInput):
        sample_rate_hz, clock = RATE_HZ, SimpleNamespace(position_at=None)

    mixed = Opened(parse_mix(f"Mic + midi:Keys for {taken}"), spec_rate_hz=RATE_HZ)
    key, note = KeyPress(0, 60, 90, 0), HeardNote(0.0, 0.1, 60, 90)
    played = Block(np.full(64, 0.25, np.float32), 0.0, 0, 0, pressed=(key,), ended=(note,), ended_hits=(note,))
    mixed._midi = SimpleNamespace(beside=lambda *_: played)
    block = mixed._mixed(Block(np.full(64, 0.5, np.float32), 0.0, 0, 0))
    assert np.allclose(block.samples, 0.75 if sounds else 0.5)
    assert (len(block.pressed), len(block.ended), len(block.ended_hits)) == (pressed, ended, ended)


def clicks(at: list[int]) -> np.ndarray:
    sound = np.zeros(3 * RATE_HZ, np.float32)
    for sample in at:
        sound[sample : sample + 2400] += np.hanning(4800)[2400:].astype(np.float32) * np.sin(np.arange(2400) * 0.3) * 0.5
    return sound


@pytest.mark.parametrize("block", [100, 1000, 72_000])
def test_onsets_of_keys_are_known_and_those_of_the_sound_are_found_beside_them(block):
    spec = PerceptionSpec()
    known = OnsetQueue([Onset(24_000, 24_001, (60,))], beside=True)
    front_end = FrontEnd(spec, source_rate_hz=RATE_HZ, known=known)
    onsets = [o for result in front_end.stream(clicks([12_000, 24_000, 48_000]), block_samples=block) for o in result.onsets]
    assert [bool(onset.pitches) for onset in onsets] == [False, True, False]
    assert [onset.sample for onset in onsets] == pytest.approx([12_000, 24_000, 48_000], abs=480)


def test_what_is_found_beside_keys_does_not_depend_on_the_blocks():
    clicked = [6000 * n for n in range(1, 8)]
    # Before a click, with it, soon after it is decided, and 80 more in one block.
    struck = sorted([5500, 12_000, 18_800, 24_300, 31_500, *range(40_000, 40_800, 10)])

    def of(block: int) -> list[object]:
        known = OnsetQueue([Onset(at, at + 1, (60,)) for at in struck], beside=True)
        front_end = FrontEnd(PerceptionSpec(), source_rate_hz=RATE_HZ, known=known)
        results = list(front_end.stream(clicks(clicked)[:45_000], block_samples=block))
        windows = [(w.start_sample, w.available_at, w.onset_samples) for result in results for w in result.windows]
        return [[onset for result in results for onset in result.onsets], windows]

    first = of(256)
    assert sum(not onset.pitches for onset in first[0]) == 4
    assert all(of(block) == first for block in (1024, 45_000))


def heard(*notes: HeardNote) -> SegmentFeatures:
    none = np.zeros(0)
    return SegmentFeatures(0, 0, 0, 0, none, (), none, none, none, none, none, (), notes)  # type: ignore[arg-type]


def test_a_note_that_repeats_a_key_is_left_out_and_a_sung_one_stays():
    exact = ExactNotes(beside=True)
    exact.strike(1.0, Onset(24_000, 24_001, (60,)))
    key, sung = HeardNote(1.0, 0.5, 60, 90), HeardNote(1.02, 0.5, 64, 70)
    exact.end([key])
    assert exact.put_in(heard(HeardNote(1.03, 0.4, 72, 50), sung)).notes == (key, sung)


def test_a_hit_is_left_out_only_beside_a_key_of_the_same_drum():
    exact = ExactNotes(beside=True)
    exact.strike(1.0, Onset(24_000, 24_001, (36,)))  # a key of a piano
    exact.strike(1.0, Onset(24_000, 24_001, (38,), is_drum=True))
    kick, snare, hat = (HeardNote(1.02, 0.1, drum, 90) for drum in (36, 38, 42))
    note = HeardNote(1.02, 0.1, 62, 90)
    left = exact.put_in(replace(heard(note), hits=(kick, snare, hat)))
    assert (left.notes, left.hits) == ((note,), (kick, hat))


@pytest.mark.live
def test_a_pianist_sings_live_and_the_session_replays(jack_server, fake_microphone, trained, tmp_path):
    partner, session, heard = tmp_path / "p.hal", tmp_path / "session", KeptEntries()
    save_partner(partner, trained)
    voice = np.tile(clicks([6000, 30_000, 54_000]), 4)
    soundfile.write(tmp_path / "voice.wav", np.interp(np.arange(2 * len(voice)) / 2, np.arange(len(voice)), voice), 48_000)
    microphone = fake_microphone(tmp_path / "voice.wav", before_s=0.5)
    with MidiSender("piano") as piano:
        wanted = f"{microphone.name} + 0.5 midi:piano"
        request = LiveRequest(partner=partner, input=wanted, midi_out="none:", session=session)
        with LivePerformance(request, observers=[heard]) as live:
            microphone.go()
            for pitch in (60, 64, 67):
                piano.send(0x90, pitch, 90)
                time.sleep(0.4)
                piano.send(0x80, pitch, 0)
            until = time.monotonic() + 30
            while 67 not in heard.played() and time.monotonic() < until:
                live.wait(0.1)
    entries = read_session(session).entries
    assert [p for e in entries if isinstance(e, Struck) for p in e.onset.pitches] == [60, 64, 67]
    assert [n.pitch for e in entries if isinstance(e, Played) for n in e.notes] == [60, 64, 67]
    assert [e for e in entries if isinstance(e, Struck) and not e.onset.pitches], "the voice is found"
    again = CliRunner().invoke(app, ["replay", str(session)])
    assert again.exit_code == 0, again.output
