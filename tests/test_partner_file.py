import contextlib
import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musichal.arrays import AnyArray
from musichal.audio.files import encode_flac
from musichal.errors import PartnerFileError
from musichal.hearing.beats import BEAT
from musichal.live.engine import note_events, slice_events
from musichal.memory.container import Blob, as_bytes, pack_arrays, read_container, write_container
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.note import HeardNote
from musichal.spec import PerceptionSpec
from partners_by_hand import as_version_1, partner, song
from players_by_hand import answer, percept

Content = dict
Members = dict[str, bytes]
STATES, NOTES, HITS, ORACLE = (f"arrays/{n}.safetensors" for n in ("states", "notes", "hits", "oracle"))
RECORDING, BEATS = (f"arrays/{n}-0000.safetensors" for n in ("recording", "beats"))
VOCABULARY = "arrays/vocabulary-harmonic.safetensors"
FLAC = "recordings/0000.flac"


def small_partner(**kwargs) -> PartnerModel:
    notes = [HeardNote(0.3, 0.1, 60, 80), HeardNote(0.55, 0.3, 127, 1), HeardNote(0.8, 0.1, 0, 127)]
    beats = np.array([(0.125, 1.0, 0), (0.5, 0.5, 1), (1.0, 0.5, 2)], dtype=BEAT)
    first = song("one.wav", [0, 1, 2, 0, 1, 3], [4, 5, 4, 5, 4, 5], notes, beats=beats, **kwargs)
    hits = [HeardNote(0.26, 0.05, 36, 90), HeardNote(0.51, 0.05, 42, 60)]
    return partner([first, song("two.wav", [0, 1, 3, 2], [4, 4, 5, 5], notes, **kwargs)], hits=hits)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.hal"
    save_partner(path, small_partner())
    return path


def unpacked(path: Path) -> tuple[Content, Members]:
    container = read_container(path)
    return copy.deepcopy(container.content), {name: container.read(name) for name in container.members}


def refused(path: Path) -> str:
    """Return the one line with which a partner file is refused."""
    with pytest.raises(PartnerFileError) as caught:
        load_partner(path)
    line = str(caught.value)
    assert str(path) in line
    assert line.isprintable()
    return line


def loaded_or_refused(path: Path) -> PartnerModel | None:
    try:
        return load_partner(path)
    except PartnerFileError:
        refused(path)
        return None


def equal(a: PartnerModel, b: PartnerModel) -> bool:
    assert (a.spec, a.encoder_licence, dict(a.trained_with)) == (b.spec, b.encoder_licence, dict(b.trained_with))
    for x, y in zip(a.vocabularies, b.vocabularies, strict=True):
        assert x.digest() == y.digest()
        assert np.array_equal(x.counts, y.counts)
        assert (x.scale, x.spread) == (y.scale, y.spread)
    assert a.memory.states.tobytes() == b.memory.states.tobytes()
    assert a.memory.notes.tobytes() == b.memory.notes.tobytes()
    assert a.memory.hits.tobytes() == b.memory.hits.tobytes()
    for x, y in zip(a.memory.indexes, b.memory.indexes, strict=True):
        assert np.array_equal(x.symbols(), y.symbols())
        assert np.array_equal(x.sequence_starts(), y.sequence_starts())
    for name, array in a.memory.oracle.to_arrays().items():
        assert array.tobytes() == b.memory.oracle.to_arrays()[name].tobytes(), name
    for x, y in zip(a.recordings, b.recordings, strict=True):
        for name in vars(x):
            value, other = (as_bytes(v) if isinstance(v, Blob) else v for v in (getattr(x, name), getattr(y, name)))
            assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other, name
    return True


def test_a_real_partner_comes_back_bit_for_bit_and_makes_the_same_bytes(trained, trained_path, tmp_path):
    loaded = load_partner(trained_path)
    assert equal(trained, loaded)
    save_partner(tmp_path / "again.hal", loaded)
    assert (tmp_path / "again.hal").read_bytes() == trained_path.read_bytes()
    assert np.array_equal(loaded.recordings[0].samples(), trained.recordings[0].samples())


def test_without_audio_all_else_is_kept(small, tmp_path):
    save_partner(tmp_path / "mute.hal", small_partner(keep_audio=False))
    mute = load_partner(tmp_path / "mute.hal")
    assert [r.flac for r in mute.recordings] == [None, None]
    assert mute.memory.states.tobytes() == load_partner(small).memory.states.tobytes()
    with pytest.raises(PartnerFileError, match=r"two\.wav was left out"):
        mute.recordings[1].samples()


def test_places_in_the_beat_come_from_the_grid_of_each_recording(small):
    states = load_partner(small).memory.states
    assert states["beat_phase"][:6] == pytest.approx([2 / 3, 1 / 3, 0, 0.5, 0, 0.5])
    assert states["beat_period_s"][:6] == pytest.approx([0.375, 0.375, 0.5, 0.5, 0.5, 0.5])
    assert states["bar_place"].tolist() == [-1, 0, 1, 1, 2, 2, *([-1] * 4)]
    assert states["beat_confidence"].tolist() == [1, 0.5, 0.5, 0.5, 0.5, 0.5, *([0] * 4)]


def test_a_file_of_version_1_is_loaded_without_beats_and_says_so(small, tmp_path):
    now, old = load_partner(small), load_partner(as_version_1(small, tmp_path / "old.hal"))
    assert [r.beats for r in old.recordings] == [None, None]
    assert not old.knows_beats
    assert "`musichal rehear` finds them" in old.beats_advice
    assert now.knows_beats
    assert now.beats_advice == ""
    assert len(old.memory.hits) == 0
    assert not old.memory.states["beat_period_s"].any()
    assert old.memory.notes.tobytes() == now.memory.notes.tobytes()
    # What it does not know it does not claim to know when it is written again.
    save_partner(tmp_path / "again.hal", old)
    assert equal(old, load_partner(tmp_path / "again.hal"))


def test_files_of_version_1_are_those_that_were_written(tmp_path):
    """The bytes are those that MusicHal wrote before it kept beats."""
    save_partner(tmp_path / "now.hal", small_partner(keep_audio=False))
    old = as_version_1(tmp_path / "now.hal", tmp_path / "old.hal", spec_too=True)
    assert hashlib.sha256(old.read_bytes()).hexdigest() == "58f05a12e53201975ecc337248bfb43638309525720a2cb74776c754af685d9f"
    assert "train it again" in load_partner(old).beats_advice


def array(member: str, name: str, change: Callable[[AnyArray], AnyArray | None]):
    """Change one array in place, or replace it."""

    def tamper(_content: Content, members: Members) -> None:
        arrays = {k: v.copy() for k, v in safetensors.numpy.load(members[member]).items()}
        changed = change(arrays[name])
        if changed is not None:
            arrays[name] = changed
        members[member] = pack_arrays(arrays)

    return tamper


def entry(index: object, value: object) -> Callable[[AnyArray], None]:
    def change(array: AnyArray) -> None:
        array[index] = value

    return change


def leaf(*path: object, value: object):
    def tamper(content: Content, _members: Members) -> None:
        table = content
        for key in path[:-1]:
            table = table[key]
        assert path[-1] in table if isinstance(table, dict) else path[-1] < len(table)
        table[path[-1]] = value

    return tamper


def without(*path: object):
    def tamper(content: Content, _members: Members) -> None:
        table = content
        for key in path[:-1]:
            table = table[key]
        del table[path[-1]]

    return tamper


def refingerprinted(**changes: object):
    """Change the spec, and make its fingerprint fit."""

    def tamper(content: Content, _members: Members) -> None:
        table = PerceptionSpec().to_dict() | changes
        content["spec"] = table
        content["fingerprint"] = PerceptionSpec.from_dict(table).fingerprint()

    return tamper


def revocabularied(change: Callable[[dict, dict], None]):
    """Change a vocabulary, and make its digest fit."""

    def tamper(content: Content, members: Members) -> None:
        values = content["vocabularies"][0]
        arrays = {k: v.copy() for k, v in safetensors.numpy.load(members[VOCABULARY]).items()}
        change(values, arrays)
        members[VOCABULARY] = pack_arrays(arrays)
        from musichal.hearing.vocabulary import Vocabulary

        try:
            values["digest"] = Vocabulary(
                values["normalisation"], arrays["centres"], values["scale"], arrays["mean"], arrays["projection"],
                values["spread"], arrays["counts"],
            ).digest()  # fmt: skip
        except TypeError:
            values["digest"] = "0" * 64

    return tamper


def set_value(name: str, value: object):
    return revocabularied(lambda values, _: values.update({name: value}))


def set_array(name: str, change: Callable[[AnyArray], AnyArray]):
    return revocabularied(lambda _, arrays: arrays.update({name: change(arrays[name])}))


def drop(member: str):
    return lambda _content, members: members.pop(member)


def replace(member: str, data: bytes):
    return lambda _content, members: members.update({member: data})


TAMPERED: Mapping[str, Callable[[Content, Members], object]] = {
    "spec missing": without("spec"),
    "spec no table": leaf("spec", value=[1]),
    "spec field missing": without("spec", "gate"),
    "spec field unknown": lambda c, _: c["spec"].update(gait=1),
    "spec of a newer version": leaf("spec", "version", value=2),
    "spec segment zero": leaf("spec", "segment_samples", value=0),
    "spec number as text": leaf("spec", "sample_rate_hz", value="24000"),
    "spec number huge": leaf("spec", "gate", "open_db", value=10**400),
    "spec changed, fingerprint not": leaf("spec", "segment_samples", value=8000),
    "fingerprint wrong": leaf("fingerprint", value="0" * 64),
    "fingerprint null": leaf("fingerprint", value=None),
    "vocabulary of another size than the spec": refingerprinted(
        vocabulary=PerceptionSpec().vocabulary.to_dict() | {"size": 32}
    ),
    "one vocabulary": without("vocabularies", 1),
    "three vocabularies": lambda c, _: c["vocabularies"].append(c["vocabularies"][0]),
    "vocabularies no list": leaf("vocabularies", value=7),
    "vocabulary null": leaf("vocabularies", 0, value=None),
    "vocabulary digest wrong": leaf("vocabularies", 0, "digest", value="0" * 64),
    "vocabulary scale changed": leaf("vocabularies", 0, "scale", value=2.0),
    "vocabulary scale zero": set_value("scale", 0.0),
    "vocabulary scale tiny": set_value("scale", 1e-300),
    "vocabulary scale huge": set_value("scale", 1e300),
    "vocabulary scale text": set_value("scale", "1.0"),
    "vocabulary scale null": set_value("scale", None),
    "vocabulary scale beyond floats": set_value("scale", 10**400),
    "vocabulary spread negative": set_value("spread", -1.0),
    "vocabulary normalised another way": set_value("normalisation", "l2-pca"),
    "vocabulary normalisation null": set_value("normalisation", None),
    "vocabulary centres NaN": set_array("centres", lambda a: a + np.float32(np.nan)),
    "vocabulary centres infinite": set_array("centres", lambda a: a + np.float32(np.inf)),
    "vocabulary centres whose squares overflow": set_array("centres", lambda a: a + np.float32(1e30)),
    "vocabulary centres fewer": set_array("centres", lambda a: a[:-1]),
    "vocabulary centres wider": set_array("centres", lambda a: np.hstack([a, a])),
    "vocabulary centres flat": set_array("centres", lambda a: a.ravel()),
    "vocabulary centres of doubles": set_array("centres", lambda a: a.astype(np.float64)),
    "vocabulary counts short": set_array("counts", lambda a: a[:-1]),
    "vocabulary counts negative": set_array("counts", lambda a: a - 1),
    "vocabulary arrays missing": drop(VOCABULARY),
    "states missing": drop(STATES),
    "states token too high": array(STATES, "tokens", entry((0, 0), 64)),
    "states token too low": array(STATES, "tokens", entry((0, 1), -2)),
    "states recording missing": array(STATES, "recording", entry(-1, 2)),
    "states recording huge": array(STATES, "recording", entry(-1, 2**32 - 1)),
    "states start behind the end": array(STATES, "start_s", entry(-1, 100.0)),
    "states start NaN": array(STATES, "start_s", entry(0, np.nan)),
    "states duration beyond the end": array(STATES, "duration_s", entry(-1, 1e6)),
    "states duration negative": array(STATES, "duration_s", entry(0, -0.1)),
    "states duration that stops the clock": array(STATES, "duration_s", entry(0, 1e-30)),
    "states count huge": array(STATES, "note_count", entry(0, 2**32 - 1)),
    "states one fewer": array(STATES, "start_s", lambda a: a[:-1]),
    "states of another type": array(STATES, "start_s", lambda a: a.astype(np.float32)),
    "states chroma of 11": array(STATES, "chroma", lambda a: np.ascontiguousarray(a[:, :11])),
    "states chroma NaN": array(STATES, "chroma", entry((0, 0), np.nan)),
    "states without a column": lambda _, m: m.update({STATES: pack_arrays({"start_s": np.zeros(3)})}),
    "states scalar": array(STATES, "recording", lambda _: np.uint32(0).reshape(())),
    "notes pitch": array(NOTES, "pitch", entry(0, 128)),
    "notes velocity zero": array(NOTES, "velocity", entry(0, 0)),
    "notes duration NaN": array(NOTES, "duration_s", entry(0, np.nan)),
    "notes duration beyond the end": array(NOTES, "duration_s", entry(0, 1e6)),
    "notes offset beyond the end": array(NOTES, "offset_s", entry(0, 1e9)),
    "notes one fewer": lambda _, m: m.update(
        {NOTES: pack_arrays({k: v[1:] for k, v in safetensors.numpy.load(m[NOTES]).items()})}
    ),
    "states with a derived column": lambda _, m: m.update(
        {STATES: pack_arrays({**safetensors.numpy.load(m[STATES]), "beat_phase": np.zeros(10, np.float32)})}
    ),
    "hits missing": drop(HITS),
    "hits velocity zero": array(HITS, "velocity", entry(0, 0)),
    "hits offset beyond the end": array(HITS, "offset_s", entry(0, 1e9)),
    "hits counted elsewhere": array(STATES, "hit_count", entry(0, 1)),
    "beats out of order": array(BEATS, "time_s", entry(0, 0.5)),
    "beats behind the end": array(BEATS, "time_s", entry(-1, 100.0)),
    "beats NaN": array(BEATS, "time_s", entry(-1, np.nan)),
    "beats surer than sure": array(BEATS, "confidence", entry(0, 2.0)),
    "beats unsure": array(BEATS, "confidence", entry(0, np.nan)),
    "beats before the bar": array(BEATS, "bar_place", entry(0, -2)),
    "beats of another type": array(BEATS, "bar_place", lambda a: a.astype(np.int16)),
    "beats one fewer": array(BEATS, "time_s", lambda a: a[:-1]),
    "beats scalar": array(BEATS, "time_s", lambda _: np.array(0.5)),
    "oracle missing": drop(ORACLE),
    "oracle threshold NaN": array(ORACLE, "threshold", lambda _: np.array(np.nan)),
    "oracle threshold zero": array(ORACLE, "threshold", lambda _: np.array(0.0)),
    "oracle threshold many": array(ORACLE, "threshold", lambda _: np.ones(2)),
    "oracle vectors NaN": array(ORACLE, "vectors", entry((0, 0), np.nan)),
    "oracle vectors fewer": array(ORACLE, "vectors", lambda a: a[:-1]),
    "oracle vectors wider": array(ORACLE, "vectors", lambda a: np.hstack([a, a])),
    "oracle vectors flat": array(ORACLE, "vectors", lambda a: a.ravel()),
    "oracle link forward": array(ORACLE, "suffix_links", entry(0, 5)),
    "oracle link negative": array(ORACLE, "suffix_links", entry(3, -1)),
    "oracle repeat too long": array(ORACLE, "repeat_lengths", entry(3, 4)),
    "oracle repeat negative": array(ORACLE, "repeat_lengths", entry(3, -4)),
    "oracle forward nowhere": array(ORACLE, "forward_links", entry((-1, 1), 100)),
    "oracle forward of another shape": array(ORACLE, "forward_links", lambda a: a.ravel()),
    "no recordings": leaf("recordings", value=[]),
    "one recording fewer": without("recordings", 1),
    "one recording more": lambda c, _: c["recordings"].append(c["recordings"][0]),
    "recordings no list": leaf("recordings", value=None),
    "recording without a name": without("recordings", 0, "name"),
    "recording name null": leaf("recordings", 0, "name", value=None),
    "recording name that speaks to the terminal": leaf("recordings", 0, "name", value="\x1b]0;gotcha\x07"),
    "recording name of two lines": leaf("recordings", 0, "name", value="a\nb"),
    "recording name endless": leaf("recordings", 0, "name", value="a" * 10_000),
    "recording digest": leaf("recordings", 0, "digest", value="zz"),
    "recording rate zero": leaf("recordings", 0, "sample_rate_hz", value=0),
    "recording rate text": leaf("recordings", 0, "sample_rate_hz", value="24000"),
    "recording rate huge": leaf("recordings", 0, "sample_rate_hz", value=10**12),
    "recording length negative": leaf("recordings", 0, "n_samples", value=-5),
    "recording length huge": leaf("recordings", 0, "n_samples", value=10**15),
    "recording length beyond floats": leaf("recordings", 0, "n_samples", value=10**400),
    "recording length true": leaf("recordings", 0, "n_samples", value=True),
    "recording shorter than its states": leaf("recordings", 0, "n_samples", value=100),
    "recording arrays missing": drop(RECORDING),
    "recording token": array(RECORDING, "tokens", entry((0, 0), 64)),
    "recording tokens of one source": array(RECORDING, "tokens", lambda a: a[:1]),
    "recording frames fewer": array(RECORDING, "frame_samples", lambda a: a[:-1]),
    "recording frames out of order": array(RECORDING, "frame_samples", lambda a: a[::-1].copy()),
    "recording frames behind the end": array(RECORDING, "frame_samples", entry(-1, 2**62)),
    "recording frames negative": array(RECORDING, "frame_samples", entry(0, -5)),
    "recording level NaN": array(RECORDING, "level_db", entry(0, np.nan)),
    "recording onsets out of order": array(RECORDING, "onset_samples", lambda a: a[::-1].copy()),
    "recording onsets behind the end": array(RECORDING, "onset_samples", entry(-1, 2**62)),
    "trained_with no table": leaf("trained_with", value=[1]),
    "trained_with speaks to the terminal": leaf("trained_with", value={"numpy": "\x1b[2J"}),
    "licence null": leaf("encoder_licence", value=None),
    "content empty": lambda c, _: c.clear(),
}


def repacked(source: Path, target: Path, tamper: Callable[[Content, Members], object]) -> Path:
    content, members = unpacked(source)
    tamper(content, members)
    write_container(target, content=content, members=members)
    return target


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_well_formed_file_with_a_wrong_value_is_refused_in_one_line(small, tmp_path, tamper):
    refused(repacked(small, tmp_path / "tampered.hal", tamper))


@pytest.mark.parametrize(
    ("tampered", "says"),
    [
        ("recording token", "tokens of recording 0 must be in [-1, 63], got 64"),
        ("recording frames negative", "frames of recording 0 must be in [0, "),
        ("recording level NaN", "levels of recording 0 must be in [-1e+06, 1e+06], got nan"),
        ("recording length true", "a count must be an integer in [1, 2764800000], got True"),
        ("vocabulary spread negative", "scale and spread of the harmonic vocabulary must be in [1e-12, 1e+12], got -1"),
        ("notes offset beyond the end", " s, got 1e+09 s"),
    ],
)
def test_the_refusal_says_what_was_expected_and_found(small, tmp_path, tampered, says):
    with pytest.raises(PartnerFileError, match=re.escape(says)):
        load_partner(repacked(small, tmp_path / "tampered.hal", TAMPERED[tampered]))


def test_repacking_alone_changes_nothing(small, tmp_path):
    same = repacked(small, tmp_path / "same.hal", lambda _c, _m: None)
    assert same.read_bytes() == small.read_bytes()


def test_a_sound_that_is_not_the_recordings_is_refused_when_it_is_asked_for(small, tmp_path):
    tone = (np.sin(np.arange(400)) * 0.5 * 2**23).round() / 2**23
    n = load_partner(small).recordings[0].n_samples
    for flac in (
        encode_flac(tone.astype(np.float32), 24000),
        encode_flac(np.tile(tone, n)[:n].astype(np.float32), 48000),
        b"fLaC",
        b"RIFF",
    ):
        model = load_partner(repacked(small, tmp_path / "other.hal", replace(FLAC, flac)))
        with pytest.raises(PartnerFileError, match=r"one\.wav"):
            model.recordings[0].samples()


def fuzz(examples: int):
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz(25)
@given(data=st.data())
def test_any_changed_byte_or_cut_is_refused_in_one_line_or_changes_nothing(small, tmp_path, data):
    whole = small.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path / "damaged.hal"
    if data.draw(st.booleans()):
        path.write_bytes(whole[:at])
        refused(path)
    else:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
        model = loaded_or_refused(path)
        assert model is None or equal(model, load_partner(small))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's count of bytes read")
def test_loading_reads_each_byte_once(trained_path):
    def read_so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    load_partner(trained_path)  # imports what it needs
    before = read_so_far()
    load_partner(trained_path)
    assert read_so_far() - before < 1.1 * trained_path.stat().st_size + 10_000


def leaves(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [found for k, v in value.items() for found in leaves(v, (*path, k))]
    if isinstance(value, list):
        return [found for k, v in enumerate(value) for found in leaves(v, (*path, k))]
    return [path]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
ARRAY_TYPES = [np.float32, np.float64, np.int16, np.int32, np.int64, np.uint8, np.uint32, np.bool_]


def use(model: PartnerModel) -> None:
    """Do with a loaded partner what a performance does with it."""
    chroma = np.eye(12)[0]
    decisions = answer(model.memory, [percept(i, chroma=chroma) for i in range(12)])
    note_events(decisions, channel=0)
    slice_events(decisions)
    for recording in model.recordings:
        with contextlib.suppress(PartnerFileError):
            recording.samples()


@fuzz(25)
@given(data=st.data())
def test_a_stranger_may_write_anything_the_partner_is_refused_or_plays(small, tmp_path, data):
    content, members = unpacked(small)
    if data.draw(st.booleans()):
        *path, last = data.draw(st.sampled_from([p for p in leaves(content) if p[0] != "spec"]))
        table = content
        for key in path:
            table = table[key]
        table[last] = data.draw(JSON)
    else:
        member = data.draw(st.sampled_from([m for m in members if m.endswith(".safetensors")]))
        arrays = {k: v.copy() for k, v in safetensors.numpy.load(members[member]).items()}
        name = data.draw(st.sampled_from(sorted(arrays)))
        changed = arrays[name]
        kind = data.draw(st.sampled_from(["type", "shape", "value"]))
        if kind == "type":
            arrays[name] = changed.astype(data.draw(st.sampled_from(ARRAY_TYPES)))
        elif kind == "shape":
            arrays[name] = (
                data.draw(st.sampled_from([changed[:0], changed[..., None], changed.ravel()[1:]]))
                if changed.ndim
                else changed[None]
            )
        elif changed.size:
            bits = data.draw(st.binary(min_size=changed.itemsize, max_size=changed.itemsize))
            raw = changed.view() if changed.ndim else changed.reshape(1)
            raw = raw.reshape(-1)
            raw[data.draw(st.integers(0, raw.size - 1))] = (
                np.frombuffer(bits, changed.dtype)[0] if changed.dtype != bool else bits[0] > 127
            )
            arrays[name] = raw.reshape(changed.shape)
        members[member] = pack_arrays(arrays)
    path = tmp_path / "strange.hal"
    write_container(path, content=content, members=members)
    model = loaded_or_refused(path)
    if model is not None:
        use(model)


def test_the_manifest_says_what_a_reader_wants_to_know(trained_path):
    content, members = unpacked(trained_path)
    assert json.loads(json.dumps(content)) == content
    assert set(content) == {"spec", "fingerprint", "encoder_licence", "trained_with", "vocabularies", "recordings"}
    assert FLAC in members
    assert content["trained_with"]["numpy"] == np.__version__
    assert content["recordings"][0]["name"] == "mix.wav"
