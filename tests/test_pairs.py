"""A memory of pairs: how a player sounded, beside what the others played then."""

from dataclasses import replace

import mido
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musichal.api.partner import Partner
from musichal.audio.pairs import read_pair
from musichal.audio.recording import Recording, read_recording
from musichal.cli import app
from musichal.errors import InputError
from musichal.evaluate.verify import subjects, verify_partner
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.partner.decision import Decision
from musichal.spec import PerceptionSpec
from musichal.training.alignment import Sounding, aligned
from musichal.training.trainer import train

pytestmark = pytest.mark.usefixtures("heard_once")

LEARNED_S, OFFSET_S = 12.0, 0.4


def cut(recording: Recording, first_s: float, last_s: float) -> Recording:
    rate = recording.sample_rate_hz
    return replace(recording, samples=recording.samples[round(first_s * rate) : round(last_s * rate)])


@pytest.fixture(scope="module")
def guitar(rock_guitar) -> Recording:
    return read_recording(rock_guitar)


@pytest.fixture(scope="module")
def backing(audio_dir) -> Recording:
    return read_recording(audio_dir / "rock140_backing.ogg")


@pytest.fixture(scope="module")
def paired(guitar, backing) -> PartnerModel:
    """Return a partner of a guitar and its band, whose recording begins a little later."""
    warnings: list[str] = []
    recordings = [cut(guitar, 0.0, LEARNED_S), cut(backing, OFFSET_S, LEARNED_S)]
    model = train(recordings, PerceptionSpec(), pairs=[(0, 1)], warn=warnings.append)
    assert not any("swapped" in warning for warning in warnings)
    return model


def test_a_pair_is_aligned_and_kept_apart(paired, tmp_path):
    past = paired.memory.players
    assert past is not None
    assert past.pairs[0].offset_s == pytest.approx(-OFFSET_S, abs=0.03)
    assert set(past.memory.states["recording"]) == {0}
    assert set(paired.memory.states["recording"]) == {1}
    save_partner(tmp_path / "a.hal", paired)
    save_partner(tmp_path / "b.hal", load_partner(tmp_path / "a.hal"))
    assert (tmp_path / "a.hal").read_bytes() == (tmp_path / "b.hal").read_bytes()


def test_parity_holds_for_both_sides(paired):
    found = verify_partner(paired, subjects(paired), quick=True)
    assert found.passed
    assert len(found.recordings) == 2


def test_the_present_is_asked_of_the_players_past_and_the_others_answer(paired, guitar):
    heard = cut(guitar, 0.0, LEARNED_S)
    answer = Partner(paired).respond(heard.samples, heard.sample_rate_hz, mode="couple", seed=1, live_weight=0)
    played = [d for d in answer.performance.decisions if d.kind == "play"]
    assert {d.recording for d in played} == {1}
    contexts = [(d, c) for d in played for c in d.contexts if c.source != "own"]
    assert len(contexts) > 20
    others = [c for _, c in contexts if not c.paired]
    assert all(c.recording == 0 for _, c in contexts if c.paired)
    assert {c.source for c in others} <= {"likeness"}  # as far as the player plays something else than then
    assert len(others) < 0.1 * len(contexts)
    # The same guitar again: the longest matches lead to where the band was then.
    known = [(d, c) for d, c in contexts if len(c.tokens) > 4 and c.source == "harmonic"]
    assert known
    apart_s = [d.source_start_s - (c.end_s - OFFSET_S + c.age_s * c.pace) for d, c in known]
    assert np.median(np.abs(apart_s)) < 0.3


def test_how_the_player_sounded_speaks_for_what_they_did_then(paired, guitar):
    """Without exact matches, the guitar of the second half is still answered from where it sounded alike."""
    heard = cut(guitar, LEARNED_S, 2 * LEARNED_S)

    def played(**settings: float) -> list[Decision]:
        answer = Partner(paired).respond(heard.samples, heard.sample_rate_hz, mode="couple", seed=1, **settings)
        return [d for d in answer.performance.decisions if d.kind == "play"]

    decisions = played()
    learned = ("pairs", "likeness", "harmonic", "percussive")
    shares = [sum(i.share for i in d.influences if i.name in learned) for d in decisions if not d.live]
    assert np.mean(shares) > 0.4
    assert {c.paired for d in decisions for c in d.contexts if c.source == "likeness" and not d.live} == {True, False}
    for decision in decisions:
        assert decision.beside is None if decision.live else decision.beside is not None
    assert [d.state for d in decisions] != [d.state for d in played(pairs_weight=0.0)]


def test_what_is_no_pair_is_refused_in_one_line(guitar, backing):
    a, b = cut(guitar, 8, 16), cut(backing, 8, 16)
    warnings: list[str] = []
    train((b, a), PerceptionSpec(), pairs=[(0, 1)], keep_audio=False, warn=warnings.append)
    assert "are the player and the others swapped?" in " ".join(warnings)
    silent = replace(a, samples=np.zeros_like(a.samples), name="silent.wav")
    for pair, why in (
        ((a, cut(backing, 0, 12)), "8.0 s and the other 12.0 s"),
        ((a, replace(a, name="again.wav")), "the same sound"),
        ((silent, b), "silent.wav is silent"),
    ):
        with pytest.raises(InputError, match=why):
            train(pair, PerceptionSpec(), pairs=[(0, 1)])


def test_a_doubtful_offset_is_asked_about():
    def sounding(name, onsets):
        return Sounding(name, onsets, np.zeros((len(onsets) // 10, 12)), np.zeros(0))

    own, other = np.random.default_rng(0).normal(size=(2, 6000))
    asked: list[str] = []
    assert aligned(sounding("me", own), sounding("band", own + 1.2 * other), warn=asked.append) == 0.0
    assert not asked
    assert aligned(sounding("me", own), sounding("band", np.roll(own + 2.2 * other, 300)), warn=asked.append) == 3.0
    assert len(asked) == 1
    assert asked[0].startswith("me and band agree by 0.4")
    assert "(+3.00 s apart)" in asked[0]


def test_a_channel_or_a_track_can_be_the_player(guitar, backing, tmp_path):
    rate = guitar.sample_rate_hz
    left, right = guitar.samples[: 4 * rate], backing.samples[: 4 * rate]
    soundfile.write(tmp_path / "both.wav", np.stack([left, right], axis=1), rate, subtype="PCM_24")
    player, others = read_pair("left", tmp_path / "both.wav")
    assert np.array_equal(player.samples, left)
    assert np.array_equal(others.samples, right)
    assert (player.name, others.name) == ("both.wav (channel 1)", "both.wav (the others)")
    for which, why in (("3", "channels 1 to 2"), ("0", "channels 1 to 2"), ("none.wav", "no such file")):
        with pytest.raises(InputError, match=why):
            read_pair(which, tmp_path / "both.wav")
    midi = mido.MidiFile()
    for name, pitch in (("Lead", 72), ("Bass", 40)):
        messages = [mido.MetaMessage("track_name", name=name)]
        for _ in range(4):
            messages += [mido.Message("note_on", note=pitch, velocity=90), mido.Message("note_off", note=pitch, time=480)]
        midi.tracks.append(mido.MidiTrack(messages))
    midi.save(tmp_path / "song.mid")
    player, others = read_pair("lead", tmp_path / "song.mid")
    assert (player.name, others.name) == ("song.mid (Lead)", "song.mid (the others)")
    assert player.duration_s == others.duration_s
    with pytest.raises(InputError, match="has no track 'Oboe'"):
        read_pair("Oboe", tmp_path / "song.mid")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--player", "a.wav"], "--player and --others go in pairs, and there are 1 player and 0 recordings of others"),
        (["--player", "a.wav", "--others", "a.wav"], "a.wav is given twice"),
        (["b.wav", "--player", "a.wav", "--others", "b.wav"], "b.wav is given twice"),
        ([], "no recording was given"),
    ],
)
def test_pairs_that_make_no_sense_are_one_line(options, line, short_mix, short_guitar, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes(short_guitar.read_bytes())
    (tmp_path / "b.wav").write_bytes(short_mix.read_bytes())
    done = CliRunner().invoke(app, ["train", *options, "-o", "p.hal"])
    assert (done.exit_code, done.stderr.strip()) == (2, f"musichal: {line}")
    assert not (tmp_path / "p.hal").exists()


def test_it_says_when_they_answered_so_and_lets_both_moments_be_heard(paired, guitar, tmp_path):
    save_partner(tmp_path / "p.hal", paired)
    heard = cut(guitar, 0.0, 8.0)
    soundfile.write(tmp_path / "me.wav", heard.samples, heard.sample_rate_hz, subtype="PCM_24")
    runner, take = CliRunner(), tmp_path / "take"
    options = ["play", str(tmp_path / "p.hal"), "--input", str(tmp_path / "me.wav"), "--session", str(take), "--mode", "couple"]
    done = runner.invoke(app, options)
    assert done.exit_code == 0, done.output
    every = runner.invoke(app, ["explain", str(take), "--all"]).output
    said = [line for line in every.splitlines() if "when you played this before, at rock140_guitar.ogg 0:0" in line]
    at = said[-1].removeprefix("At ").split()[0]
    done = runner.invoke(app, ["explain", str(take), "--at", at, "--listen", str(tmp_path / "moment")])
    assert done.exit_code == 0, done.output
    assert sorted(path.stem.split("-", 1)[1] for path in (tmp_path / "moment").iterdir()) == [
        "answer", "player", "player-then", "source",
    ]  # fmt: skip
