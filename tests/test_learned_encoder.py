"""A learned encoder in hearing: every frame of the segment, the same bytes each time, live as in training, without torch."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.encoder_speed import random_weights
from benchmarks.random_checkpoint import write_random_checkpoint
from learned_by_hand import EXTRA, learned_spec, part
from musichal.audio.recording import Recording, read_recording
from musichal.cli import app
from musichal.errors import InputError, MissingExtraError, PartnerFileError
from musichal.evaluate.verify import subjects, verify_partner
from musichal.hearing.encoders import create_encoder, runtimes
from musichal.hearing.encoders import learned as encoder_module
from musichal.hearing.encoders.conversion import GraphKey, find_graph
from musichal.hearing.encoders.learned import (
    LearnedEncoder,
    _opened,
    find,
    first_seen_sample,
    graph_of,
    network_input,
    parse_encoder,
    unmeasured_spec,
    with_choice,
)
from musichal.hearing.encoders.runtimes import (
    Choice,
    installed_choices,
    open_runtime,
)
from musichal.hearing.front_end import FrontEnd
from musichal.hearing.listener import FeatureExtractor, resolve_spec
from musichal.hearing.percepts import PitchFrames, Stems, frame_count, stream_frame_count
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.spec import PerceptionSpec
from musichal.training.trainer import rehear, train
from musichal.training.workers import worker_pool

for package in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason=EXTRA)

CHOICES = installed_choices()
IDS = [str(choice) for choice in CHOICES]
EXACT = Choice("onnxruntime", "fp32")
NO_PITCH = PitchFrames(*(np.zeros(shape, np.float32) for shape in ((0, 0), (0, 61), (0, 12), (2, 0, 12), (0, 3))))


@pytest.fixture(scope="module")
def spec(tiny_mert: Path) -> PerceptionSpec:
    return learned_spec(tiny_mert, EXACT)


@pytest.fixture(scope="module")
def music(short_mix: Path) -> Recording:
    return part(read_recording(short_mix), 0, 3)


@pytest.fixture(scope="module")
def partner(spec: PerceptionSpec, music: Recording) -> PartnerModel:
    return train([music], spec)


@pytest.fixture(scope="module")
def partner_path(partner: PartnerModel, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("learned") / "tiny.hal"
    save_partner(path, partner)
    return path


def stems(spec: PerceptionSpec, seed: int = 0) -> Stems:
    both = np.random.default_rng(seed).standard_normal((2, spec.window_samples)).astype(np.float32)
    return Stems(harmonic=both[0], percussive=both[1])


@pytest.mark.parametrize("context", [0, 4200, 4160, 8400, 319])
def test_the_segments_frames_come_out_of_a_whole_number_of_strides(spec, context) -> None:
    spec = dataclasses.replace(spec, context_samples=context)
    encoder = LearnedEncoder(spec)
    given_stems = stems(spec)
    features = encoder.encode(given_stems, NO_PITCH)
    assert [f.shape for f in features] == [(26, 24), (26, 24)]
    # The same windows through the network by hand: frame i of the segment is where its own samples begin.
    start = context % 320
    batch = network_input(given_stems, spec)
    assert batch.shape == (2, spec.window_samples - start)
    runtime = open_runtime(graph_of(spec.encoder, "fp32").path, EXACT, batch=2, samples=batch.shape[1])
    every = runtime.run(batch)
    first = (context - start) // 320
    assert np.array_equal(np.stack(features), every[:, first : first + 26])
    assert first_seen_sample(spec) == start
    # What lies before the first whole stride is not seen at all.
    changed = Stems(harmonic=given_stems.harmonic.copy(), percussive=given_stems.percussive.copy())
    changed.harmonic[:start] = 9
    assert np.array_equal(encoder.encode(changed, NO_PITCH)[0], features[0])


@pytest.mark.parametrize("segment", [400, 2400, 8400, 12_000, 24_000])
def test_every_frame_of_a_segment_of_any_length_comes_out_once(spec, segment) -> None:
    spec = dataclasses.replace(spec, segment_samples=segment, hop_samples=segment, min_segment_samples=400)
    assert [len(f) for f in LearnedEncoder(spec).encode(stems(spec), NO_PITCH)] == [frame_count(segment)] * 2


def test_context_and_lookahead_are_seen(spec) -> None:
    one = stems(spec)
    encoder = LearnedEncoder(spec)
    for sample in (first_seen_sample(spec), spec.window_samples - 1):
        other = Stems(harmonic=one.harmonic.copy(), percussive=one.percussive)
        other.harmonic[sample] += 50
        assert not np.array_equal(encoder.encode(one, NO_PITCH)[0], encoder.encode(other, NO_PITCH)[0])


@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_identical_stems_give_identical_bytes_whatever_came_before(choice, tiny_mert) -> None:
    spec = learned_spec(tiny_mert, choice)
    encoder = create_encoder(resolve_spec(spec))
    expected: dict[int, bytes] = {}

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 4))
    def heard(seed: int) -> None:
        found = b"".join(f.tobytes() for f in encoder.encode(stems(spec, seed), NO_PITCH))
        assert expected.setdefault(seed, found) == found

    heard()


@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_verify_passes_on_every_runtime(choice, tiny_mert, music, tmp_path) -> None:
    model = train([music], learned_spec(tiny_mert, choice))
    assert (model.spec.encoder.runtime, model.spec.encoder.precision) == (choice.runtime, choice.precision)
    save_partner(tmp_path / "p.hal", model)
    loaded = load_partner(tmp_path / "p.hal")
    verification = verify_partner(loaded, subjects(loaded), quick=True)
    assert verification.passed, list(verification.failed)
    parity = [c for c in verification.checks if c.group == "parity"]
    assert len(parity) >= 2
    assert all(c.values["share"] == 1.0 for c in parity if "share" in c.values)
    frames = stream_frame_count(3 * 24_000, loaded.spec)
    assert loaded.recordings[0].tokens.shape == (2, frames)


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_verify_passes_at_the_true_size(choice, short_mix, tmp_path) -> None:
    model = train([read_recording(short_mix)], learned_spec(random_weights(), choice), processes=2)
    save_partner(tmp_path / "p.hal", model)
    loaded = load_partner(tmp_path / "p.hal")
    verification = verify_partner(loaded, subjects(loaded), quick=True)
    assert verification.passed, list(verification.failed)


def test_an_encoder_that_is_only_asked_what_it_is_opens_no_model(spec, monkeypatch) -> None:
    opened = []
    monkeypatch.setattr(encoder_module, "_opened", lambda *model: opened.append(model) or _opened(*model))
    asked = create_encoder(resolve_spec(spec), ready=False)
    assert (asked.digest, asked.licence) == (create_encoder(spec, ready=False).digest, "CC0-1.0")
    assert opened == []
    ready = create_encoder(spec)
    assert len(opened) == 1
    for _ in range(2):
        given = [encoder.encode(stems(spec), NO_PITCH) for encoder in (asked, ready)]
        assert [f.tobytes() for f in given[0]] == [f.tobytes() for f in given[1]]
    assert len(opened) == 2


def test_processes_change_nothing(spec, music, partner, tmp_path, monkeypatch) -> None:
    second = part(music, 1, 2.5)
    one = train([music, second], spec)
    with monkeypatch.context() as patched:  # in this process alone: those that listen open theirs
        patched.setattr(encoder_module, "_opened", lambda *_model: pytest.fail("a model is opened that nobody listens by"))
        two = train([music, second], spec, processes=2)
    save_partner(tmp_path / "one.hal", one)
    save_partner(tmp_path / "two.hal", two)
    assert (tmp_path / "one.hal").read_bytes() == (tmp_path / "two.hal").read_bytes()
    assert np.array_equal(one.recordings[0].tokens.shape, partner.recordings[0].tokens.shape)
    assert active_children() == []


def test_an_interrupt_ends_every_process(spec, music) -> None:
    def progress(what: str, share: float) -> None:
        if share > 0.3:
            raise KeyboardInterrupt

    before = dict(os.environ)
    with pytest.raises(KeyboardInterrupt):
        train([music], spec, processes=2, progress=progress)
    assert active_children() == []
    assert dict(os.environ) == before, "what the processes were told is not left behind"


def test_a_process_that_dies_is_one_clear_line(spec, music) -> None:
    windows = list(FrontEnd(spec, source_rate_hz=music.sample_rate_hz).push(music.samples).windows)

    def kill_while_they_start():
        yield from windows
        for child in active_children():
            os.kill(child.pid, signal.SIGKILL)
        yield from windows

    with (
        pytest.raises(InputError, match="a process of the training died"),
        worker_pool(resolve_spec(spec), processes=2) as analyse,
    ):
        list(analyse(kill_while_they_start()))
    assert active_children() == []


PLAY_WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "huggingface_hub", "onnx", "onnxscript"):
            raise ImportError(f"{name} is not for playing")
sys.meta_path.insert(0, Refuse())
from musichal.cli import app
app(["play", sys.argv[1], "--input", sys.argv[2], "--midi-out", sys.argv[3]], standalone_mode=False)
loaded = {name.split(".")[0] for name in sys.modules}
print("LOADED", *sorted(loaded & {"torch", "transformers", "huggingface_hub", "onnx", "onnxruntime", "openvino"}))
"""


@pytest.mark.parametrize("choice", [EXACT, Choice("openvino", "fp32")], ids=str)
def test_playing_needs_no_torch(choice, tiny_mert, music, short_guitar, tmp_path) -> None:
    save_partner(tmp_path / "p.hal", train([music], learned_spec(tiny_mert, choice)))
    arguments = [sys.executable, "-c", PLAY_WITHOUT_TORCH, *map(str, (tmp_path / "p.hal", short_guitar, tmp_path / "o.mid"))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("LOADED")] == [f"LOADED {choice.runtime}"]
    assert (tmp_path / "o.mid").stat().st_size > 30


def test_the_partner_carries_the_licence_and_the_names(partner_path, partner) -> None:
    loaded = load_partner(partner_path)
    encoder = loaded.spec.encoder
    assert loaded.encoder_licence == "CC0-1.0"
    assert encoder.title == "mert: layer 1 of tiny-mert, onnxruntime fp32"
    assert encoder.normalise
    assert loaded.spec.vocabulary.normalisation == "l2-pca"
    assert loaded.trained_with["onnxruntime"]
    assert loaded.spec == partner.spec


def test_each_number_of_the_encoder_changes_its_digest(spec) -> None:
    encoder = resolve_spec(spec).encoder
    others = {"weights_digest": "0" * 64, "layer": 0, "normalise": False, "runtime": "openvino", "precision": "bf16"}
    digests = {encoder_module.encoder_digest(dataclasses.replace(encoder, **{name: value})) for name, value in others.items()}
    assert len(digests | {encoder.digest}) == len(others) + 1


# What a stranger's partner, or another machine, can bring.


def refused(spec: PerceptionSpec) -> str:
    with pytest.raises(InputError) as caught:
        create_encoder(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_are_not_here_are_named_with_the_command_that_fetches_them(spec, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    named = dataclasses.replace(spec.encoder, weights="m-a-p/MERT-v1-95M", revision="0123abc")
    said = refused(dataclasses.replace(spec, encoder=named))
    assert "are missing or damaged; fetch and convert them once: musichal encoder m-a-p/MERT-v1-95M --revision 0123abc" in said
    assert "musichal encoder FOLDER --convert --layer 1" in refused(spec)
    hostile = dataclasses.replace(spec.encoder, weights="a/b; rm -rf ~")
    assert "rm -rf" not in refused(dataclasses.replace(spec, encoder=hostile)).partition("musichal encoder")[2]


def test_a_folder_that_a_partner_names_is_not_read(spec, tiny_mert, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MUSICHAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tiny_mert.parent)
    for name in (tiny_mert.name, str(tiny_mert), f"hf:{tiny_mert}", f"./{tiny_mert.name}"):
        named = dataclasses.replace(spec.encoder, weights=name)
        assert "are missing" in refused(dataclasses.replace(spec, encoder=named))
    assert find_graph(GraphKey(spec.encoder.weights_digest, 1, "fp32")) is None


def test_a_precision_that_is_not_here_offers_to_rehear(spec, monkeypatch) -> None:
    monkeypatch.setattr(runtimes, "_precisions_here", lambda _runtime: ("fp32",))
    said = refused(with_choice(spec, Choice("openvino", "bf16")))
    assert "hears by openvino in bf16, but this processor cannot compute in bf16" in said
    assert "musichal rehear PARTNER.hal" in said


def test_a_missing_runtime_is_one_line_with_the_command(spec, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'onnxruntime is not installed; .*pip install "musichal\[onnxruntime\]"'):
        create_encoder(spec)


def test_a_spec_without_weights_or_with_another_digest_is_refused(spec) -> None:
    assert "needs weights and a runtime" in refused(
        dataclasses.replace(spec, encoder=dataclasses.replace(spec.encoder, runtime=""))
    )
    digest = dataclasses.replace(spec.encoder, digest="1" * 64)
    assert "is not the one this partner was trained with" in refused(dataclasses.replace(spec, encoder=digest))


def test_a_spec_of_another_rate_or_other_frames_than_the_weights_is_refused(spec) -> None:
    slow = dataclasses.replace(spec, sample_rate_hz=16_000)
    with pytest.raises(InputError, match="encoder mert needs 24000 Hz, but the spec has 16000 Hz"):
        FeatureExtractor(slow, create_encoder(slow))
    said = refused(dataclasses.replace(spec, encoder=dataclasses.replace(spec.encoder, stride_samples=160)))
    assert "frames of 400 samples every 320, but the spec has 400 every 160" in said


def test_mert_asked_for_and_another_network_found(tmp_path) -> None:
    write_random_checkpoint(tmp_path / "hubert", tiny=True, safe=True, config={"model_type": "hubert"})
    request = parse_encoder("mert")
    assert request is not None
    with pytest.raises(InputError, match="hubert is not MERT but hubert; train with --encoder hf:"):
        find(dataclasses.replace(request, source=str(tmp_path / "hubert")))


def test_what_can_be_asked_for() -> None:
    assert parse_encoder("spectral") is None
    assert parse_encoder("mertle") is None
    mert, seven, other = parse_encoder("mert"), parse_encoder("mert:7"), parse_encoder("hf:facebook/hubert-base-ls960")
    assert mert is not None and seven is not None and other is not None
    assert (mert.name, mert.source, mert.layer) == ("mert", "m-a-p/MERT-v1-95M", None)
    assert seven.layer == 7
    assert (other.name, other.source) == ("hf", "facebook/hubert-base-ls960")
    for wrong in ("mert:seven", "mert:-1", "hf:"):
        with pytest.raises(InputError, match="--encoder"):
            parse_encoder(wrong)


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """A checkpoint at 16 kHz, as those for speech are."""
    folder = tmp_path_factory.mktemp("weights") / "speech"
    config = {"model_type": "hubert", "sample_rate": 16_000}
    preprocessor = {"sampling_rate": 16_000, "do_normalize": False}
    write_random_checkpoint(folder, tiny=True, safe=True, config=config, preprocessor=preprocessor)
    return folder


def test_a_network_at_16_khz_hears_the_same_durations(speech) -> None:
    request = parse_encoder(f"hf:{speech}")
    assert request is not None
    plain = unmeasured_spec(request, find(request))
    assert (plain.sample_rate_hz, plain.segment_samples, plain.context_samples) == (16_000, 5600, 2800)
    assert (plain.encoder.frame_samples, plain.encoder.stride_samples, plain.encoder.normalise) == (400, 320, False)
    assert (plain.separation.n_fft, plain.onsets.hop_samples, plain.gate.window_samples) == (1024, 107, 683)


@pytest.mark.slow
def test_a_network_at_16_khz_is_as_parallel_as_any(speech, music) -> None:
    model = train([music], learned_spec(speech, EXACT, encoder=f"hf:{speech}"))
    assert model.recordings[0].tokens.shape[1] == stream_frame_count(3 * 16_000, model.spec)
    assert verify_partner(model, subjects(model), quick=True).passed


# Hearing again.


def test_rehearing_keeps_vocabularies_and_takes_what_is_heard_now(partner, spec, tmp_path) -> None:
    other = Choice("onnxruntime", "int8")
    graph_of(spec.encoder, "int8")
    again = rehear(partner, with_choice(partner.spec, other))
    assert again.model.spec.encoder.precision == "int8"
    assert [v.digest() for v in again.model.vocabularies] == [v.digest() for v in partner.vocabularies]
    stored, before = again.model.recordings[0], partner.recordings[0]
    assert again.frames == tuple(int(((a >= 0) | (b >= 0)).sum()) for a, b in zip(stored.tokens, before.tokens, strict=True))
    assert again.same is not None
    for source in range(2):
        silent = ((stored.tokens[source] < 0) & (before.tokens[source] < 0)).sum()
        assert again.same[source] == (stored.tokens[source] == before.tokens[source]).sum() - silent
        counts = again.model.vocabularies[source].counts
        assert counts.tolist() == np.bincount(stored.tokens[source][stored.tokens[source] >= 0], minlength=16).tolist()
    save_partner(tmp_path / "again.hal", again.model)
    loaded = load_partner(tmp_path / "again.hal")
    assert loaded.keeps_vocabularies
    assert "vocabularies" not in loaded.versions
    assert verify_partner(loaded, subjects(loaded), quick=True).passed


def test_rehearing_with_what_it_was_is_the_same_partner(partner) -> None:
    again = rehear(partner, partner.spec)
    assert again.unchanged
    assert np.array_equal(again.model.memory.states, partner.memory.states)
    assert np.array_equal(again.model.recordings[0].tokens, partner.recordings[0].tokens)
    refitted = rehear(partner, partner.spec, refit=True)
    assert refitted.same is None
    assert not refitted.model.keeps_vocabularies
    assert [v.digest() for v in refitted.model.vocabularies] == [v.digest() for v in partner.vocabularies]


def test_a_partner_without_its_sound_cannot_rehear(spec, music) -> None:
    model = train([music], spec, keep_audio=False)
    with pytest.raises(PartnerFileError, match=r"was left out of it \(--no-audio\); train it anew"):
        rehear(model, spec)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_train_and_rehear_on_the_command_line(tiny_mert, short_mix, tmp_path) -> None:
    path = tmp_path / "p.hal"
    options = ("--encoder", "mert", "--weights", tiny_mert, "--vocabulary", 16, "--processes", 1, "--json")
    done = run("train", short_mix, "-o", path, *options)
    assert done.exit_code == 0, done.stderr
    assert "under this licence: CC0-1.0" in done.stderr
    trained = load_partner(path)
    assert trained.spec.encoder.runtime in ("openvino", "onnxruntime")
    assert trained.spec.context_samples == 4200
    done = run("rehear", path, "--runtime", "onnxruntime", "--precision", "fp32", "--processes", 1, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["runtime"], told["precision"], told["refit"]) == ("onnxruntime", "fp32", False)
    assert load_partner(path).spec.encoder.runtime == "onnxruntime"
    assert all(told["same"][source] > 0.9 * told["frames"][source] for source in ("harmonic", "percussive"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--layer", 3), "--layer is for encoders with weights"),
        (("--runtime", "openvino"), "--runtime is for encoders with weights"),
        (("--encoder", "mert", "--weights", "/nowhere"), "--weights must be a folder"),
        (("--encoder", "mert:2", "--layer", 3), "ask for two layers"),
        (("--encoder", "mert", "--runtime", "tensorrt"), "unknown --runtime 'tensorrt'"),
        (("--encoder", "mert", "--precision", "fp8"), "unknown --precision 'fp8'"),
        (("--encoder", "mert", "--runtime", "onnxruntime", "--precision", "bf16"), "onnxruntime has no precision 'bf16'"),
        (("--encoder", "mert", "--offline"), "is not in the cache of this machine"),
        (("--encoder", "mret"), "unknown encoder 'mret'"),
    ],
)
def test_wrong_options_are_one_line(options, said, short_mix, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    result = run("train", short_mix, "-o", tmp_path / "p.hal", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert not (tmp_path / "p.hal").exists()


def test_spectral_partners_have_nothing_to_rehear(trained_path, tmp_path) -> None:
    result = run("rehear", trained_path, "-o", tmp_path / "p.hal")
    assert result.exit_code == 2
    assert "hears with 'spectral', which is the same on every machine" in result.stderr
