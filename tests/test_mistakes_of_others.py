"""Mistakes that earlier systems of this kind made, each held off by a test that fails if it is made again.

The list is the design's. Where a room has its own tests of the same thing, these are the short ones that name the mistake.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from musichal.arrays import Float32
from musichal.audio.recording import Recording, read_recording
from musichal.cli import app
from musichal.errors import PartnerFileError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor, Listener
from musichal.hearing.onsets import OnsetDetector
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.hearing.pitch import PitchAnalyser
from musichal.hearing.separation import separate
from musichal.hearing.vocabulary import fit_vocabulary
from musichal.live.engine import Performance, perform
from musichal.live.output.note_scheduler import Active, ActiveNotes
from musichal.memory.audio_oracle import AudioOracle
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.memory.token_index import TokenIndex
from musichal.note import HeardNote
from musichal.partner.settings import PartnerSettings
from musichal.spec import OnsetSpec, PerceptionSpec, VocabularySpec

RATE = 24_000
SRC = Path(__file__).resolve().parents[1] / "src" / "musichal"
SPEC = PerceptionSpec()


@pytest.fixture(scope="module")
def recording(short_mix: Path) -> Recording:
    return read_recording(short_mix)


@pytest.fixture(scope="module")
def model(trained: PartnerModel) -> PartnerModel:
    return trained


@pytest.fixture(scope="module")
def performance(model: PartnerModel, rock_guitar: Path) -> Performance:
    player = read_recording(rock_guitar)
    return perform(
        model, player.samples[: 10 * 44_100], sample_rate_hz=player.sample_rate_hz, settings=PartnerSettings(), seed=1
    )


@pytest.fixture(scope="module")
def partner_path(trained_path: Path) -> Path:
    return trained_path


def tone(midi: float, length_s: float = 2.0, level: float = 0.2, partials: int = 5) -> Float32:
    t = np.arange(int(length_s * RATE)) / RATE
    hz = 440 * 2 ** ((midi - 69) / 12)
    return (sum(level / k * np.sin(2 * np.pi * k * hz * t) for k in range(1, partials + 1))).astype(np.float32)


# Masks transformed back instead of the stems: correlation with the true stems 0.00


def test_separation_returns_the_stems() -> None:
    sustained = tone(57) + tone(61)
    hits = np.zeros_like(sustained)
    noise = np.random.default_rng(0).standard_normal(300) * np.exp(-np.arange(300) / 60)
    for start in range(2000, len(hits) - 300, 6000):
        hits[start : start + 300] = 0.5 * noise
    stems = separate(sustained + hits, SPEC.separation)
    assert np.corrcoef(stems.harmonic, sustained)[0, 1] > 0.98
    assert np.corrcoef(stems.percussive, hits)[0, 1] > 0.9


# A suffix link search that finds the state itself; transitions to every frame within a threshold: a near-complete graph


def test_no_state_is_its_own_suffix(model: PartnerModel) -> None:
    oracle = model.memory.oracle
    links = oracle.suffix_links()
    assert all(oracle.suffix_link(state) < state for state in range(1, len(oracle) + 1))
    assert len(links) >= len(oracle)
    for index in model.memory.indexes:
        assert all(index.repeat_position(i) < i for i in range(len(index)))


@pytest.mark.parametrize("threshold", [1e-3, 0.3, 1.0, 1e3])
def test_the_oracle_never_becomes_a_complete_graph(model: PartnerModel, threshold: float) -> None:
    """Where equality is transitive there are fewer than two links to a state, as in every factor oracle, else few more."""
    vectors = model.memory.oracle.vectors()
    oracle = AudioOracle.from_vectors(vectors, threshold=threshold)
    assert len(oracle) <= oracle.link_count < (2 if threshold in (1e-3, 1e3) else 2.5) * len(oracle)


# A query that restarts at state 0 on each call, takes tokens for state numbers, and whose result is then discarded


def test_a_query_goes_on_from_where_it_was(model: PartnerModel) -> None:
    index = model.memory.indexes[0]
    symbols = index.symbols().tolist()
    start = len(symbols) // 2
    lengths = [index.longest_context(symbols[start : start + n]).length for n in range(1, 21)]
    # A piece of the memory itself is followed token by token; a query that starts again each time stays at 1.
    assert lengths == list(range(1, 21))


def test_tokens_are_not_taken_for_states() -> None:
    """The tokens are larger than any position here, and the answer is where they were, not their own number."""
    index = TokenIndex.from_symbols([900, 901, 902, 900, 901, 903])
    found = index.candidates([900, 901])
    assert found["position"].tolist() == [4, 1]
    assert found["length"].tolist() == [2, 2]


def test_what_was_found_is_what_is_played(model: PartnerModel, performance: Performance) -> None:
    """Each context that a decision names ended right before the state that was played, in the memory's own tokens."""
    played = [d for d in performance.decisions if d.kind == "play"]
    assert len(played) > 5
    named = 0
    for decision in played:
        assert decision.state is not None
        for context in decision.contexts:
            if context.source not in SOURCES or context.live:
                continue
            symbols = model.memory.indexes[SOURCES.index(context.source)].symbols().tolist()
            end = context.state + 1
            assert tuple(symbols[end - len(context.tokens) : end]) == context.tokens
            # A match travels along the memory with time, at the player's pace, until something is played for it.
            starts_s = model.memory.states["start_s"]
            travelled_s = float(starts_s[decision.state] - starts_s[end])
            assert decision.state >= end
            longest_s = float(model.memory.states["duration_s"][end : decision.state + 1].max())
            assert travelled_s <= context.age_s * max(1.0, context.pace) + longest_s
            named += 1
    assert named > 0


def test_another_past_makes_another_choice(model: PartnerModel, rock_guitar: Path, ballad_guitar: Path) -> None:
    """If the result of the query were discarded, what the player does would make no difference."""
    answers = []
    for path in (rock_guitar, ballad_guitar):
        player = read_recording(path)
        heard = perform(
            model, player.samples[: 5 * 44_100], sample_rate_hz=player.sample_rate_hz, settings=PartnerSettings(), seed=1
        )
        answers.append([d.state for d in heard.decisions])
    assert answers[0] != answers[1]


# A fixed onset threshold on raw magnitudes: 98 % of the hops of a steady sine; a pitch tracker that always returns a pitch


@pytest.mark.parametrize("level", [0.01, 0.1, 0.9])
def test_a_steady_sine_is_one_onset_at_most(level: float) -> None:
    found = OnsetDetector(OnsetSpec(), sample_rate_hz=RATE).push(tone(69, 5.0, level, partials=1)).onsets
    assert len(found) <= 1


def test_loudness_alone_makes_no_onsets(recording: Recording) -> None:
    """A threshold on raw magnitudes finds ten times more in louder music."""
    counts = []
    for gain in (0.25, 1.0):
        samples = (gain * recording.samples[: 10 * 44_100]).astype(np.float32)
        segments = FeatureExtractor(SPEC, create_encoder(SPEC)).stream(samples, source_rate_hz=recording.sample_rate_hz)
        counts.append(sum(len(segment.onset_samples) for segment in segments))
    assert 0.6 < counts[0] / counts[1] < 1.4


def notes_in(samples: Float32) -> list[HeardNote]:
    extractor = FeatureExtractor(SPEC, create_encoder(SPEC))
    notes = [note for segment in extractor.stream(samples, source_rate_hz=RATE) for note in segment.notes]
    return notes + list(extractor.flush())


def test_where_there_is_no_pitch_none_is_returned() -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal(4 * RATE)).astype(np.float32)
    assert notes_in(np.zeros(4 * RATE, dtype=np.float32)) == []
    assert len(notes_in(noise)) <= 2
    heard = notes_in(np.concatenate([np.zeros(RATE, dtype=np.float32), tone(60), np.zeros(RATE, dtype=np.float32)]))
    assert 60 in [n.pitch for n in heard]


# Chroma whose bin 0 is not C


@pytest.mark.parametrize("root", range(12))
@pytest.mark.parametrize("triad", [(0, 4, 7), (0, 3, 7)])
def test_chroma_bin_0_is_c(root: int, triad: tuple[int, ...]) -> None:
    spec = PerceptionSpec()
    n = spec.window_samples
    chord = sum((tone(60 + root + step, partials=3)[:n] for step in triad), np.zeros(n, dtype=np.float32))
    chroma = PitchAnalyser(spec).analyse(separate(chord, spec.separation).harmonic).chroma.mean(axis=0)
    assert set(np.argsort(-chroma)[:3].tolist()) == {(root + step) % 12 for step in triad}


# Unseeded k-means repairs: two trainings of one recording differ


def test_training_twice_gives_the_same_bytes(partner_path: Path, short_mix: Path, tmp_path: Path) -> None:
    """Also in another process, with other hashes and more threads."""
    script = (
        "import sys; from musichal.audio.recording import read_recording; from musichal.training.trainer import train;"
        "from musichal.memory.partner_file import save_partner; from musichal.spec import PerceptionSpec;"
        "save_partner(sys.argv[2], train([read_recording(sys.argv[1])], PerceptionSpec()))"
    )
    env = os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", script, str(short_mix), str(tmp_path / "other.hal")], check=True, env=env)
    assert (tmp_path / "other.hal").read_bytes() == partner_path.read_bytes()


def test_repairs_of_empty_clusters_draw_no_numbers() -> None:
    """Many equal frames leave clusters empty on the way; what replaces them is the same in every run."""
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.standard_normal((80, 6)), rng.integers(1, 200, 80), axis=0).astype(np.float32)
    digests = {fit_vocabulary(frames, VocabularySpec(size=64), source="harmonic").digest() for _ in range(3)}
    assert len(digests) == 1


# "The newest file in the folder" as the model


def test_a_folder_is_not_a_partner(partner_path: Path) -> None:
    with pytest.raises(PartnerFileError):
        load_partner(partner_path.parent)


def calls(tree: ast.AST) -> Iterator[tuple[int, str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def sources(*rooms: str, having: Sequence[str] = ("",)) -> list[tuple[Path, ast.Module]]:
    """Return the modules of some rooms, or of all, that have one of these words in them."""
    paths = [p for room in rooms for p in sorted((SRC / room).rglob("*.py"))] if rooms else sorted(SRC.rglob("*.py"))
    assert paths
    return [(p, parsed(p)) for p in paths if any(word in p.read_text("utf-8") for word in having)]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def test_nothing_asks_which_file_is_newer() -> None:
    stamps = ("st_mtime", "st_ctime", "getmtime")
    for path, tree in sources(having=stamps):
        asked = {id(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in stamps}
        # How old a file is, is another question.
        ages = {
            id(n.right)
            for n in ast.walk(tree)
            if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Sub) and ast.unparse(n.left) == "time.time()"
        }
        assert asked <= ages, path


# Sleeping in the audio worker; note-offs sent when a queue happens to be idle; ports with fixed names that must exist


def test_nothing_sleeps_where_sound_passes() -> None:
    for path, tree in sources("hearing", "audio", "memory", "partner", having=("sleep",)):
        assert not [line for line, name, _ in calls(tree) if name.split(".")[-1] == "sleep"], path
    engine = ast.parse((SRC / "live" / "engine.py").read_text("utf-8"))
    assert not [line for line, name, _ in calls(engine) if name.split(".")[-1] == "sleep"]


def test_notes_end_in_time_however_busy_it_is() -> None:
    """A stream of notes without a pause: each is ended when it is due, not when nothing else is left to send."""
    ledger, ended = ActiveNotes(), []
    for tick in range(200):
        ended += [(tick, note.key[1]) for note in ledger.end_due(tick)]
        ledger.strike(Active((0, tick % 100), tick, tick + 7, 64))
        assert len(ledger.sounding) <= 8
    assert ended == [(tick, (tick - 7) % 100) for tick in range(7, 200)]


def test_no_port_has_a_fixed_name() -> None:
    openers = ("open_output", "open_input", "open_ioport", "open_port", "open_virtual_port")
    for path, tree in sources("live", "commands", having=openers):
        for line, name, call in calls(tree):
            if name.split(".")[-1] in openers:
                assert not [a for a in call.args[:1] if isinstance(a, ast.Constant)], f"{path}:{line}"


# Displayed figures made up from other figures


@pytest.fixture(scope="module")
def displayed(partner_path: Path) -> dict[str, object]:
    done = CliRunner().invoke(app, ["inspect", str(partner_path), "--json"])
    assert done.exit_code == 0, done.stderr
    values: dict[str, object] = json.loads(done.stdout)
    return values


def test_displayed_diversity_is_that_of_the_tokens(displayed: dict, partner_path: Path) -> None:
    recording = load_partner(partner_path).recordings[0]
    for source, name in enumerate(("harmonic", "percussive")):
        tokens = recording.tokens[source]
        audible = tokens[tokens != SILENCE]
        counts = np.array([np.sum(audible == t) for t in range(64)], dtype=np.float64)
        shares = counts[counts > 0] / len(audible)
        shown = displayed["diversity"][name]
        assert shown["frames"] == len(tokens)
        assert shown["unique"] == len(set(audible.tolist()))
        assert shown["top_share"] == pytest.approx(shares.max())
        assert shown["top_three_share"] == pytest.approx(np.sort(shares)[-3:].sum())
        assert shown["perplexity"] == pytest.approx(2 ** -np.sum(shares * np.log2(shares)))
        assert shown["silent_share"] == pytest.approx(np.mean(tokens == SILENCE))
        assert shown["changes_per_second"] == pytest.approx(np.sum(tokens[1:] != tokens[:-1]) / recording.duration_s)


def test_displayed_counts_are_those_of_the_arrays(displayed: dict, partner_path: Path, recording: Recording) -> None:
    model = load_partner(partner_path)
    stored, shown = model.recordings[0], displayed["recordings"][0]
    assert shown["frames"] == stored.tokens.shape[1]
    assert shown["onsets"] == len(stored.onset_samples)
    assert shown["duration_s"] == pytest.approx(len(recording.samples) / recording.sample_rate_hz)
    assert shown["digest"] == recording.digest
    memory, states, notes = displayed["memory"], model.memory.states, model.memory.notes
    assert memory["states"] == len(states)
    assert memory["notes"] == len(notes) == int(states["note_count"].sum())
    assert memory["median_duration_s"] == pytest.approx(float(np.median(states["duration_s"])))
    assert memory["share_with_notes"] == pytest.approx(np.mean([c > 0 for c in states["note_count"].tolist()]))
    assert memory["notes_per_second"] == pytest.approx(len(notes) / recording.duration_s)
    assert (memory["lowest_pitch"], memory["highest_pitch"]) == (notes["pitch"].min(), notes["pitch"].max())
    assert displayed["hearing"]["fingerprint"] == model.spec.fingerprint()


def test_displayed_repetition_is_found_by_brute_force(displayed: dict, partner_path: Path) -> None:
    for shown, index in zip(displayed["repetition"], load_partner(partner_path).memory.indexes, strict=True):
        symbols = index.symbols().tolist()
        text = "".join(chr(s + 100) for s in symbols)
        lengths = []
        for end in range(len(text)):
            length = 0
            # The longest suffix that ends here and had ended somewhere earlier.
            while length <= end and text[end - length : end + 1] in text[:end]:
                length += 1
            lengths.append(length)
        assert shown["mean_repeat"] == pytest.approx(np.mean(lengths))


# And the worst one: live tokens from another pipeline than the trained ones


def test_live_and_trained_tokens_use_the_whole_vocabulary_alike(model: PartnerModel, recording: Recording) -> None:
    """On stage an earlier system used 8 to 48 of its 64 tokens, because it computed features in another way."""
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=recording.sample_rate_hz)
    percepts = listener.listen(recording.samples, block_samples=512).percepts
    live = np.concatenate([p.tokens for p in percepts], axis=1)
    np.testing.assert_array_equal(live, model.recordings[0].tokens)
    assert [len(set(source[source != SILENCE].tolist())) for source in live] == [64, 64]
