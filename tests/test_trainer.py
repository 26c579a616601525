import gc
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musichal.audio.recording import Recording, read_recording
from musichal.audio.recording_files import find_recordings
from musichal.cli import app
from musichal.errors import InputError
from musichal.hearing.percepts import SILENCE, SegmentFeatures
from musichal.hearing.vocabulary import fit_vocabulary
from musichal.memory.partner_file import load_partner, save_partner
from musichal.spec import PerceptionSpec
from musichal.training import trainer
from musichal.training.trainer import rehear, train, with_beats
from partners_by_hand import as_version_1
from players_by_hand import hear

SPEC = PerceptionSpec()


def part(recording: Recording, first_s: float, last_s: float) -> Recording:
    import dataclasses

    rate = recording.sample_rate_hz
    samples = recording.samples[round(first_s * rate) : round(last_s * rate)]
    return dataclasses.replace(recording, samples=samples, name=f"{first_s}.wav")


def test_hearing_again_keeps_tags_and_what_taught_the_vocabularies(trained, monkeypatch):
    monkeypatch.setattr(trainer, "train", lambda *_, **__: trained)
    own = tuple(replace(stored, tags=("solo",)) for stored in trained.recordings)
    model = replace(trained, recordings=own, archive={"hours": "1"})
    for refit, archive in ((False, {"hours": "1"}), (True, {})):
        again = rehear(model, model.spec, refit=refit).model
        assert ([stored.tags for stored in again.recordings], again.archive) == ([("solo",)] * len(own), archive)


def test_a_partner_of_real_music_has_something_to_say(trained):
    states, notes = trained.memory.states, trained.memory.notes
    assert len(states) > 20
    assert (states["note_count"] > 0).mean() > 0.3
    assert ((notes["pitch"] >= 21) & (notes["pitch"] <= 108)).all()
    assert [len(np.unique(row[row >= 0])) for row in trained.recordings[0].tokens] == [64, 64]
    assert states["start_s"][0] < 0.1
    assert states["start_s"][-1] + states["duration_s"][-1] == pytest.approx(10, abs=0.4)
    assert np.allclose(np.diff(states["start_s"]), states["duration_s"][:-1], atol=1e-4), "every moment is remembered"
    for vocabulary, row in zip(trained.vocabularies, trained.recordings[0].tokens, strict=True):
        assert vocabulary.counts.tolist() == np.bincount(row[row >= 0], minlength=64).tolist()


def test_an_old_partner_gets_its_beats_and_nothing_else_changes(trained_path, tmp_path):
    old = load_partner(as_version_1(trained_path, tmp_path / "old.hal"))
    save_partner(tmp_path / "new.hal", with_beats(old))
    assert (tmp_path / "new.hal").read_bytes() == trained_path.read_bytes()


def test_rehear_finds_the_beats_that_a_file_lacks_once(trained_path, tmp_path):
    old = as_version_1(trained_path, tmp_path / "old.hal")
    runner = CliRunner()
    done = runner.invoke(app, ["rehear", str(old)])
    assert done.exit_code == 0, done.stderr
    assert "Heard 1 recording again: found" in done.output
    assert old.read_bytes() == trained_path.read_bytes()
    model = load_partner(old)
    save_partner(old, replace(model, spec=replace(model.spec, drum_digest="")))  # hits by a drum model from before
    assert runner.invoke(app, ["rehear", str(old)]).exit_code == 0
    assert old.read_bytes() == trained_path.read_bytes()
    again = runner.invoke(app, ["rehear", str(old)])
    assert again.exit_code == 2
    assert "nothing to do" in again.output


def test_several_recordings_and_folders(rock_mix, ballad_guitar, short_mix, tmp_path):
    (tmp_path / "songs" / "b").mkdir(parents=True)
    (tmp_path / "songs" / "a.wav").write_bytes(short_mix.read_bytes())
    (tmp_path / "songs" / "b" / "c.WAV").write_bytes(short_mix.read_bytes())
    (tmp_path / "songs" / "readme.txt").write_text("no music")
    assert [p.name for p in find_recordings([tmp_path / "songs"]).files] == ["a.wav", "c.WAV"]
    recordings = [part(read_recording(rock_mix), 0, 5), part(read_recording(ballad_guitar), 3, 9)]
    told: list[tuple[str, float]] = []
    model = train(recordings, SPEC, keep_audio=False, progress=lambda what, share: told.append((what, share)))
    memory = model.memory
    assert sorted(set(memory.states["recording"].tolist())) == [0, 1]
    assert [r.name for r in model.recordings] == ["0.wav", "3.wav"]
    assert all(r.flac is None for r in model.recordings)
    first = int(np.flatnonzero(memory.states["recording"] == 1)[0])
    assert memory.successor(first - 1) is None
    assert memory.states["ioi_s"][first] == 0
    assert [i.sequence_starts().tolist() for i in memory.indexes] == [[first], [first]] or [
        i.sequence_starts().tolist() for i in memory.indexes
    ] == [[0, first], [0, first]]
    # The second recording sounds the same to a fresh listener, whatever came before it in training.
    percepts = hear(model, recordings[1].samples, recordings[1].sample_rate_hz)
    assert np.array_equal(np.concatenate([p.tokens for p in percepts], axis=1), model.recordings[1].tokens)
    save_partner(tmp_path / "two.hal", model)
    assert load_partner(tmp_path / "two.hal").memory.states.tobytes() == memory.states.tobytes()
    listening = [share for what, share in told if what.startswith("Listening")]
    assert listening == sorted(listening)
    assert listening[-1] == pytest.approx(1)
    assert told[-1] == ("Done", 1.0)
    assert all(0 <= share <= 1 + 1e-9 for _, share in told)
    assert {what for what, _ in told} >= {"Listening to 0.wav", "Listening to 3.wav"}


def test_features_do_not_stay_in_memory(short_mix, monkeypatch):
    """An hour of features is 160 MB, and nothing but the vocabulary needs them all."""
    kept: list[int] = []

    def learn(features, spec, **where):
        segments = [o for o in gc.get_objects() if type(o) is SegmentFeatures and id(o) not in before]
        kept.append(sum(array.nbytes for segment in segments for array in (*segment.features, segment.salience)))
        return fit_vocabulary(features, spec, **where)

    monkeypatch.setattr(trainer, "fit_vocabulary", learn)
    others = [o for o in gc.get_objects() if type(o) is SegmentFeatures]  # of other tests; the list keeps their ids theirs
    before = {id(o) for o in others}
    train([part(read_recording(short_mix), 0, 4)], SPEC, keep_audio=False)
    assert kept == [0, 0]


def test_a_vocabulary_is_learned_from_a_bounded_number_of_frames(short_mix, monkeypatch):
    learned_from: list[int] = []

    def learn(features, spec, **where):
        learned_from.append(features.shape[0])
        return fit_vocabulary(features, spec, **where)

    monkeypatch.setattr(trainer, "fit_vocabulary", learn)
    monkeypatch.setattr("musichal.training.heard._PART_FRAMES", 60)  # which must change nothing
    recordings = [part(read_recording(short_mix), 0, 4), part(read_recording(short_mix), 4, 8)]
    model = train(recordings, SPEC, keep_audio=False, sample_frames=150)
    assert all(100 < n <= 150 for n in learned_from)
    for stored, recording in zip(model.recordings, recordings, strict=True):
        percepts = hear(model, recording.samples, recording.sample_rate_hz)
        assert np.array_equal(np.concatenate([p.tokens for p in percepts], axis=1), stored.tokens)


def test_nothing_to_learn_from_is_refused(short_mix):
    with pytest.raises(InputError, match="no recording"):
        train([], SPEC)
    with pytest.raises(InputError, match=r"too little|fewer|sounds|frames"):
        train([part(read_recording(short_mix), 0, 0.5)], SPEC)


def test_a_recording_of_a_single_gesture_is_refused_in_words(short_mix, monkeypatch):
    monkeypatch.setattr(trainer.Tokenised, "__len__", lambda _self: 1)
    with pytest.raises(InputError, match="nothing changes in this recording"):
        train([part(read_recording(short_mix), 0, 4)], SPEC, keep_audio=False)


def test_a_source_that_is_nearly_silent_shuts_nobody_out(tmp_path):
    """A pad has nothing percussive above the gate: that source is SILENCE throughout, and the other is learned."""
    t = np.arange(6 * 24000) / 24000
    pad = sum(0.003 * np.sin(2 * np.pi * f * t * (1 + 0.0005 * k)) for k, f in enumerate((220.0, 277.2, 329.6, 440.0)))
    pad *= 0.7 + 0.3 * np.sin(2 * np.pi * 0.4 * t)
    warnings = []
    soundfile.write(tmp_path / "pad.wav", pad, 24000, subtype="PCM_24")
    model = train([read_recording(tmp_path / "pad.wav")], SPEC, warn=warnings.append)
    assert len(warnings) == 1
    assert "percussive" in warnings[0]
    harmonic, percussive = model.recordings[0].tokens
    assert (percussive == SILENCE).mean() > 0.9
    assert (harmonic != SILENCE).mean() > 0.5
