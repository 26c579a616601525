"""`musichal verify`: what it says of a partner that is as it was trained, and of ones that are not."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from conftest import _cut
from musichal.audio.recording import read_recording
from musichal.cli import app
from musichal.commands.check import retrain_from
from musichal.evaluate import diversity, parity, verify
from musichal.evaluate.alignment import (
    HeardRecording,
    LiveStream,
    Subject,
    as_states,
    hear_live,
    random_blocks,
    state_checks,
    stored_states,
    token_checks,
)
from musichal.evaluate.checks import (
    GROUPS,
    Check,
    count_checks,
    differing_members,
    grid_counts,
    repeatability_checks,
    scaling_checks,
)
from musichal.evaluate.diversity import averaged_tokens
from musichal.evaluate.partner_stats import token_diversity
from musichal.evaluate.verify import Verification, grid_offsets, subjects, verify_partner
from musichal.hearing.encoders.spectral import SpectralEncoder
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.spec import EncoderSpec, PerceptionSpec
from musichal.training.trainer import train

WINDOWS_S = 2.0


@pytest.fixture(scope="module", autouse=True)
def _short():
    """The long ways of hearing take a few seconds of the clip instead of a minute: the same code, less often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diversity, "DENSE_STRETCH_S", WINDOWS_S)
        patch.setattr(verify, "STRETCH_S", 4.0)
        yield


@pytest.fixture(scope="module")
def brief_mix(short_mix, tmp_path_factory) -> Path:
    """Five seconds of the rock band: nothing here depends on how long it is."""
    return _cut(short_mix, tmp_path_factory.mktemp("brief") / "mix.wav", 0, 5)


@pytest.fixture(scope="module")
def trained(brief_mix, partner_of) -> PartnerModel:
    return partner_of(brief_mix)


@pytest.fixture(scope="module")
def trained_path(trained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("brief") / "rock.hal"
    save_partner(path, trained)
    return path


@pytest.fixture(scope="module")
def whole(trained, trained_path) -> Verification:
    """Everything but training again, of a partner as it was trained."""
    return verify_partner(trained, subjects(trained), name="rock.hal", partner=trained_path)


@pytest.fixture(scope="module")
def live(trained) -> LiveStream:
    (subject,) = subjects(trained)
    blocks = random_blocks(subject, [5])
    return hear_live(trained, subject.samples, sample_rate_hz=subject.sample_rate_hz, blocks=blocks)


def named(checks, start: str) -> Check:
    (check,) = [c for c in checks if c.name.startswith(start)]
    return check


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def test_a_partner_as_it_was_trained_passes_everything(whole):
    assert [f"{c.name}: {c.found}" for c in whole.failed] == []
    assert whole.passed
    assert whole.complete
    asked = {group: {c.passed for c in whole.group(group)} for group in GROUPS}
    assert asked["count"] == asked["frame scaling"] == {True}
    assert asked["shift"] == {None}
    assert True in asked["parity"]
    assert True in asked["diversity"]
    assert True in asked["spec"]


def test_every_token_of_both_sources_is_the_stored_one(whole, trained):
    frames = trained.recordings[0].tokens.shape[1]
    for source in SOURCES:
        check = named(whole.checks, f"mix.wav, {source}, live")
        assert (check.values["frames"], check.values["equal"], check.values["share"]) == (frames, frames, 1.0)
    assert np.array_equal(whole.recordings[0].live_tokens, trained.recordings[0].tokens)


def test_live_diversity_is_that_of_training_and_averaging_loses_it(whole):
    rows = {row.label: row for row in whole.diversity}
    assert rows["training"].diversity == rows["live, all frames"].diversity
    beside = rows[f"live, all frames, {WINDOWS_S:.0f} s"]
    for number, _ in enumerate(SOURCES):
        trained = rows["training"].diversity[number]
        assert rows["live, frames averaged"].diversity[number].perplexity < trained.perplexity
        dense = rows[f"350 ms every 7 ms, averaged, {WINDOWS_S:.0f} s"].diversity[number]
        assert dense.perplexity < beside.diversity[number].perplexity
    # Two seconds less a window, every 7 ms.
    assert rows[f"350 ms every 7 ms, averaged, {WINDOWS_S:.0f} s"].diversity[0].frames == (48_000 - 8400) // 168 + 1


def test_shift_has_eight_offsets_on_whole_frames_and_one_between(whole, trained):
    assert [round(row.offset_samples / 320, 2) % 1 for row in whole.shift] == [0.0] * 8 + [0.5]
    assert grid_offsets(trained.spec)[:8] == tuple(row.offset_samples for row in whole.shift[:8])
    for source in range(len(SOURCES)):
        grid = [row.shares[source] for row in whole.shift[:8]]
        # Chance would be under a tenth; between frames less stays than on them.
        assert min(grid) > 0.5
        assert whole.shift[8].shares[source] < np.mean(grid)


def test_frame_scaling_is_asked_of_the_real_encoder(trained, monkeypatch):
    sound = trained.recordings[0].samples()[:48_000]
    found = [c.values["found"] for c in scaling_checks(trained.spec, sound)]
    assert found == [[n, n] for n in (7, 14, 26, 37, 74)]
    encode = SpectralEncoder.encode
    # An encoder that gives a mean has one frame, and the ear needs as many as its grid has: it must not pass.
    monkeypatch.setattr(SpectralEncoder, "encode", lambda *a: tuple(f[:-1] for f in encode(*a)))
    assert [c.passed for c in scaling_checks(trained.spec, sound)] == [False] * 5


def test_the_same_seed_gives_the_same_answer(trained):
    asked = subjects(trained)
    first, again = (verify_partner(trained, asked, quick=True, seed=3).to_dict() for _ in range(2))
    assert first == again
    json.dumps(first, allow_nan=False)
    assert first["complete"] is False


def test_the_closed_form_is_that_of_the_documents(trained):
    # 347.2 s at 24 kHz: 992 segments of 26 frames, both sources. Earlier documents said 49,600, 49,865 and 51,584.
    recording = replace(trained.recordings[0], n_samples=round(347.2 * 24_000), sample_rate_hz=24_000)
    assert grid_counts(recording, PerceptionSpec())[2:] == (992, 26, 25_792)


def _without(model: PartnerModel, frames: int) -> PartnerModel:
    recording = model.recordings[0]
    return replace(
        model,
        recordings=(
            replace(
                recording,
                tokens=recording.tokens[:, :-frames],
                frame_samples=recording.frame_samples[:-frames],
                level_db=recording.level_db[:-frames],
            ),
        ),
    )


def test_one_missing_frame_fails_the_count_and_the_parity(trained):
    verification = verify_partner(_without(trained, 1), subjects(_without(trained, 1)), quick=True)
    failed = [(c.group, c.name) for c in verification.failed]
    assert ("count", "frames of mix.wav") in failed
    assert ("count", "harmonic vocabulary") in failed
    assert ("parity", "mix.wav, harmonic, live") in failed


def test_a_vocabulary_of_as_many_other_frames_fails_the_count(trained):
    vocabulary = trained.vocabularies[0]
    moved = replace(vocabulary, counts=np.roll(vocabulary.counts, 1))
    checks = count_checks(replace(trained, vocabularies=(moved, trained.vocabularies[1])))
    assert [c.name for c in checks if not c.passed] == ["harmonic vocabulary"]


def test_a_source_learned_from_below_the_gate_counts_every_frame(tmp_path):
    # A pure tone has next to nothing percussive.
    seconds, rate = 6, 24_000
    t = np.arange(seconds * rate) / rate
    glide = 0.5 * np.sin(2 * np.pi * (220 * t + 20 * t**2))
    soundfile.write(tmp_path / "tone.wav", glide, rate, subtype="PCM_24")
    spec = PerceptionSpec(gate=replace(PerceptionSpec().gate, open_db=-16.0, close_db=-17.0))
    model = train([read_recording(tmp_path / "tone.wav")], spec)
    checks = count_checks(model)
    below = named(checks, "percussive")
    assert below.values["below_gate"]
    assert below.values["silent"] > below.values["frames"] - 64
    assert below.values["found"] == below.values["frames"]
    assert all(c.passed for c in checks)


def test_onset_policy_has_no_closed_form_but_parity(brief_mix):
    model = train([read_recording(brief_mix)], PerceptionSpec(policy="onset"))
    verification = verify_partner(model, subjects(model), quick=True)
    assert verification.passed
    assert named(verification.checks, "frames of").passed is None
    assert {c.passed for c in verification.group("parity")} == {True}


def _judge(model: PartnerModel, stream: LiveStream, source: int = 0) -> Check:
    stored = model.recordings[0]
    heard = HeardRecording(
        name="x", duration_s=stored.duration_s, is_new=False, frame_samples=stored.frame_samples, stored_tokens=stored.tokens,
        live_frame_samples=stream.frame_samples, live_tokens=stream.tokens,
    )  # fmt: skip
    return token_checks(model, heard, stream)[source]


def test_no_difference_has_no_cause(trained, live):
    for source in range(len(SOURCES)):
        check = _judge(trained, live, source)
        assert check.passed
        assert check.cause == ""


def test_the_first_difference_is_shown_with_both_distances(trained, live):
    tokens = live.tokens.copy()
    tokens[1, 40] = (tokens[1, 40] + 1) % 64
    check = _judge(trained, replace(live, tokens=tokens), 1)
    assert not check.passed
    first = check.values["first_difference"]
    assert (first["frame"], first["stored"], first["live"]) == (40, int(live.tokens[1, 40]), int(tokens[1, 40]))
    vocabulary = trained.vocabularies[1]
    x = vocabulary.normalise(live.features[1][40:41])[0].astype(np.float64)
    for which in ("stored", "live"):
        exact = np.square(x - vocabulary.centres[first[which]]).sum() / vocabulary.spread
        assert first[f"distance_to_{which}"] == pytest.approx(exact, rel=1e-3)
    assert first["distance_to_stored"] < first["distance_to_live"]
    assert f"{first['time_s']:.3f} s" in check.detail


def test_the_cause_of_a_stored_stream_that_differs(trained, live):
    """What is said where this installation agrees with itself at every stage, and only the partner holds other tokens."""
    (subject,) = subjects(trained)
    quiet = (subject.samples * np.float32(10 ** (-40 / 20))).astype(np.float32)
    harmonic, percussive = trained.vocabularies
    shuffled = replace(trained, vocabularies=(replace(harmonic, centres=harmonic.centres[::-1].copy()), percussive))
    for model, samples, words in (
        (trained, np.delete(subject.samples, slice(88_000, 104_000)), "sound was lost"),
        (trained, quiet, "another level"),
        (shuffled, subject.samples, "vocabulary"),
    ):
        stream = hear_live(model, samples, sample_rate_hz=subject.sample_rate_hz, blocks=[len(samples)])
        assert words in _judge(model, stream).cause
    # Two centres that are the same sound: which of them is taken says nothing about hearing.
    vocabulary = trained.vocabularies[0]
    token = int(np.bincount(live.tokens[0][live.tokens[0] != SILENCE]).argmax())
    centres, tokens = vocabulary.centres.copy(), live.tokens.copy()
    centres[(token + 1) % 64] = centres[token]
    tokens[0][tokens[0] == token] = (token + 1) % 64
    tied = replace(trained, vocabularies=(replace(vocabulary, centres=centres), trained.vocabularies[1]))
    assert "rounding" in _judge(tied, replace(live, tokens=tokens)).cause


def test_the_public_function_says_how_far_hearing_agrees(trained, brief_mix, short_guitar):
    y, sr = soundfile.read(brief_mix, dtype="float32")
    found = parity(trained, y, sr, seed=3)
    frames = 2 * trained.recordings[0].tokens.shape[1]
    assert (found.agreement, found.equal, found.frames, found.stage, found.cause) == (1.0, frames, frames, "", "")
    assert not found.heard.is_new
    guitar, sr = soundfile.read(short_guitar, dtype="float32")
    assert (new := parity(trained, guitar[: 2 * sr], sr)).agreement == 1.0
    assert new.heard.is_new
    recording = trained.recordings[0]
    tokens = recording.tokens.copy()
    tokens[0, 3] = (tokens[0, 3] + 1) % 64
    found = parity(replace(trained, recordings=(replace(recording, tokens=tokens),)), y, sr)
    assert found.agreement == (frames - 1) / frames
    assert "library versions" in found.cause


def test_a_failed_parity_is_looked_into_stage_by_stage(trained):
    recording = trained.recordings[0]
    tokens = recording.tokens.copy()
    tokens[0, 3] = (tokens[0, 3] + 1) % 64
    model = replace(trained, recordings=(replace(recording, tokens=tokens),))
    verification = verify_partner(model, subjects(model), quick=True)
    failed = {c.name for c in verification.failed}
    assert "mix.wav, harmonic, live" in failed
    assert "live, all frames" in failed  # the diversity of another stream
    assert [c for c in verification.group("parity") if "stage by stage" in c.name]


def test_gestures_and_notes_are_those_of_the_memory(whole, trained):
    memory = trained.memory
    gestures, notes = (named(whole.checks, f"mix.wav, {kind}, live") for kind in ("gestures", "notes"))
    assert (gestures.values["kept"], gestures.values["equal"]) == (len(memory), len(memory))
    assert (notes.values["kept"], notes.values["equal"]) == (len(memory.notes), len(memory.notes))
    assert len(memory.notes) > 20


@pytest.mark.parametrize(
    ("column", "value", "kind", "words"),
    [
        ("start_s", 1e-9, "gesture", "another start"),
        ("duration_s", 0.001, "gesture", "another duration"),
        ("tokens", 1, "gesture", "another tokens"),
        ("chroma", 1e-6, "gesture", "another chroma"),
        ("beat_period_s", 1e-3, "gesture", "another beat_period"),
        ("vector", 1e-6, "gesture", "another vector"),
        ("pitch", 1, "note", "another pitch"),
        ("velocity", 1, "note", "another velocity"),
        ("offset_s", 1e-6, "note", "another offset"),
    ],
)
def test_one_value_of_a_gesture_or_a_note_that_is_another_is_found(trained, live, column, value, kind, words):
    kept = stored_states(trained.memory, 0)
    assert all(c.passed for c in state_checks("x", kept, as_states(live), is_new=False))
    where = {"gesture": "states", "note": "notes"}[kind] if column != "vector" else "vectors"
    changed = getattr(kept, where).copy()
    row = changed[7:8] if where == "vectors" else changed[column][7:8]
    row += np.asarray(value, dtype=row.dtype)
    checks = state_checks("x", replace(kept, **{where: changed}), as_states(live), is_new=False)
    check = checks[kind == "note"]
    assert [c.name for c in checks if not c.passed] == [f"x, {kind}s, live"]
    assert check.values["first_difference"] == 7
    assert check.values["kept"] - check.values["equal"] == 1
    assert f"first at {kind} 7" in check.detail
    assert check.detail.endswith(words)


def test_a_note_that_is_missing_is_found(trained, live):
    heard = as_states(replace(live, notes=live.notes[:-1]))
    check = state_checks("x", stored_states(trained.memory, 0), heard, is_new=False)[1]
    assert not check.passed
    assert check.values["live"] == check.values["kept"] - 1


def test_other_rates_agree(whole):
    rates = [c for c in whole.group("parity") if " Hz" in c.name]
    assert [c.values["rate_hz"] for c in rates] == [48_000, 96_000, 22_050]
    assert [c.passed for c in rates] == [True, True, None]
    assert min(rates[2].values["shares"]) > 0.9


def test_a_rate_that_is_heard_otherwise_fails(whole, trained, monkeypatch):
    genuine = verify.at_rate
    monkeypatch.setattr(verify, "at_rate", lambda s, **k: genuine(s[::-1].copy(), **k))
    (subject,) = subjects(trained)
    checks = verify.rate_checks(trained, subject, whole.recordings[0], rng=np.random.default_rng(0))
    assert {c.passed for c in checks} == {False, None}


def test_a_new_recording_is_heard_as_new(trained, short_guitar):
    asked = subjects(trained, [read_recording(short_guitar)])
    assert [s.stored for s in asked] == [None]
    verification = verify_partner(trained, asked, quick=True)
    assert verification.passed
    assert verification.recordings[0].is_new
    assert [c.name for c in verification.group("parity") if ", hits, " not in c.name] == [
        *(f"guitar.wav, {source}, heard again" for source in SOURCES),
        "guitar.wav, samples, live",
        "guitar.wav, gestures, heard again",
        "guitar.wav, notes, heard again",
        "guitar.wav, beats, heard again",
    ]
    assert named(verification.group("diversity"), "live, all frames").passed is None


def test_a_recording_is_matched_by_its_samples_not_its_name(trained, brief_mix, tmp_path):
    moved = tmp_path / "another name.flac"
    samples, rate = soundfile.read(brief_mix, dtype="float32")
    soundfile.write(moved, samples, rate, subtype="PCM_24")
    (subject,) = subjects(trained, [read_recording(moved)])
    assert subject.stored is trained.recordings[0]


def test_another_encoder_is_not_heard_with(trained):
    spec = replace(trained.spec, encoder=replace(EncoderSpec(), digest="0" * 64))
    model = dataclasses.replace(trained, spec=spec)
    verification = verify_partner(model, subjects(model))
    assert [c.name for c in verification.failed] == ["encoder spectral"]
    assert verification.failed[0].values["partner"] == "0" * 64
    assert named(verification.checks, "live against training").passed is None


def test_versions_that_differ_are_named_and_judged_by_parity(trained):
    model = replace(trained, trained_with={**trained.trained_with, "numpy": "1.0.0"})
    verification = verify_partner(model, subjects(model), quick=True)
    check = named(verification.group("spec"), "numpy")
    assert (check.expected, check.passed, check.values["differs"]) == ("1.0.0", None, True)
    assert "does not matter" in check.detail
    assert verification.passed


def test_without_sound_nothing_is_claimed(trained):
    model = replace(trained, recordings=(replace(trained.recordings[0], flac=None),))
    verification = verify_partner(model, subjects(model))
    assert named(verification.checks, "live against training").found == "not asked"
    assert verification.recordings == verification.diversity == ()
    assert not verification.complete


def test_two_recordings_each_have_their_tokens(brief_mix, short_guitar):
    model = train([read_recording(brief_mix), read_recording(short_guitar)], PerceptionSpec())
    verification = verify_partner(model, subjects(model), quick=True)
    assert verification.passed
    kinds = (*SOURCES, "samples", "gestures", "notes", "beats")
    assert [c.name for c in verification.group("parity") if ", hits, " not in c.name] == [
        f"{name}, {what}, live" for name in ("mix.wav", "guitar.wav") for what in kinds
    ]
    # Each recording's gestures and notes are its own part of the memory.
    held = model.memory.states["recording"]
    assert [named(verification.checks, f"{n}, gestures").values["kept"] for n in ("mix.wav", "guitar.wav")] == [
        int((held == number).sum()) for number in (0, 1)
    ]
    # The guitar's last second is silent, and its silent frames were no training.
    total = named(verification.checks, "samples of both").values
    assert total["silent"] > 2 * 60
    assert total["expected"] == total["found"] == 2 * total["frames"] - total["silent"]


def test_half_a_second_is_enough(trained):
    recording = trained.recordings[0]
    half = Subject("half", recording.sample_rate_hz, recording.samples()[: recording.sample_rate_hz // 2], None)
    verification = verify_partner(trained, [half])
    assert verification.passed
    assert verification.shift == ()


def test_training_again_gives_the_same_bytes_and_a_change_is_named(trained, trained_path, tmp_path):
    again = tmp_path / "again.hal"
    save_partner(again, retrain_from(trained))
    assert again.read_bytes() == trained_path.read_bytes()
    recording = trained.recordings[0]
    tokens = recording.tokens.copy()
    tokens[0, 0] = (tokens[0, 0] + 1) % 64
    other = tmp_path / "other.hal"
    save_partner(other, replace(trained, recordings=(replace(recording, tokens=tokens),)))
    assert "arrays/recording-0000.safetensors" in differing_members(trained_path, other)

    def judge(once: Path, twice: Path, **kwargs) -> list[bool | None]:
        made = {1: once, 2: twice}
        checks = repeatability_checks(trained, trained_path, made.__getitem__, **{"processors": 2, **kwargs})
        return [c.passed for c in checks]

    assert judge(again, again, same_installation=True) == [True, True]
    assert judge(again, again, same_installation=True, processors=1) == [True, None]
    assert judge(other, other, same_installation=True) == [False, True]
    assert judge(other, other, same_installation=False) == [None, True]
    assert judge(again, other, same_installation=True) == [True, False]


@given(n=st.integers(0, 100_000), largest=st.integers(1, 70_000), seed=st.integers(0, 99))
def test_random_blocks_add_up(n, largest, seed):
    # Blocks of one sample each would take long to list.
    largest = max(largest, n // 2000 + 1)
    sizes = random_blocks(Subject("x", 1, np.zeros(n, np.float32), None), [seed], largest_s=largest)
    assert sum(sizes) == n
    assert all(1 <= size <= largest for size in sizes)


def test_averaging_takes_one_vector_per_segment(trained, live):
    tokens = averaged_tokens(trained, live)
    assert tokens.shape == (2, live.segments[-1] + 1)
    first = live.features[1][live.segments == 0].mean(axis=0)
    distances = np.square(trained.vocabularies[1].normalise(first[None]) - trained.vocabularies[1].centres).sum(axis=1)
    assert tokens[1, 0] == distances.argmin()
    assert token_diversity([tokens[0]], size=64, duration_s=10).frames == tokens.shape[1]


@pytest.mark.slow
def test_command_passes_in_json(trained_path, tmp_path):
    result = run("verify", trained_path, "--json", "--report", tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["passed"]
    assert values["complete"]
    assert {c["group"] for c in values["checks"]} == set(GROUPS)
    again = next(c for c in values["checks"] if c["name"] == "trained again")
    assert (again["passed"], again["values"]["identical"]) == (True, True)
    assert (tmp_path / "report.html").read_text("utf-8").lstrip().lower().startswith("<!doctype html")


def test_command_passes_in_words(trained_path, tmp_path):
    words = run("verify", trained_path, "--quick", "--report", tmp_path).stdout
    assert (tmp_path / "rock-verified.html").exists()
    assert "Token diversity" in words
    assert "checks passed" in words


def test_command_fails_with_one(trained_path, tmp_path):
    model = load_partner(trained_path)
    recording = model.recordings[0]
    tokens = recording.tokens.copy()
    tokens[1, 7] = (tokens[1, 7] + 1) % 64
    wrong = tmp_path / "wrong.hal"
    save_partner(wrong, replace(model, recordings=(replace(recording, tokens=tokens),)))
    result = run("verify", wrong, "--quick", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["passed"] is False
    assert "parity: mix.wav, percussive, live" in result.stderr
    assert result.stderr.count("musichal: ") == 1


def test_command_without_sound_takes_the_recording(trained, brief_mix, tmp_path):
    silent = tmp_path / "silent.hal"
    save_partner(silent, replace(trained, recordings=(replace(trained.recordings[0], flac=None),)))
    again = retrain_from(load_partner(silent), [read_recording(brief_mix)])
    save_partner(tmp_path / "again.hal", again)
    assert (tmp_path / "again.hal").read_bytes() == silent.read_bytes()
    result = run("verify", silent, brief_mix, "--quick", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["recordings"] == [
        {"name": "mix.wav", "duration_s": 5.0, "is_new": False, "frames": 371, "live_frames": 371}
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.hal"], "missing.hal"),
        (["{partner}", "missing.wav"], "missing.wav"),
        (["{partner}", "--report", "no/such/folder/report.html"], "report.html"),
        (["{partner}", "--report", "{partner}"], "it is read by this command"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_two(arguments, words, trained_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("verify", *(a.format(partner=trained_path) for a in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_subject_knows_its_length_and_its_beginning():
    subject = Subject("x", 100, np.zeros(250, np.float32), None)
    assert subject.duration_s == 2.5
    assert len(subject.beginning(1.5)) == 150
