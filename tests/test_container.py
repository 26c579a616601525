"""The archive under a partner file: the same bytes, safe whatever a stranger wrote, one line for all that is wrong."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from musichal.errors import InputError, PartnerFileError
from musichal.memory import container
from musichal.memory.container import FORMAT, FORMAT_VERSION, MANIFEST, pack_arrays, read_container, write_container
from musichal.text import parse_json

COLUMNS = {"token": np.arange(50, dtype=np.int16), "vector": np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)}
CONTENT = {"spec": {"segment_samples": 8400, "policy": "grid"}, "names": ["Übung 1.wav", "b"], "gain": 0.1, "none": None}
ARRAYS = "arrays/memory.safetensors"
MEMBERS = {ARRAYS: pack_arrays(COLUMNS), "arrays/a.safetensors": b"12345678", "recordings/000.flac": bytes(range(256))}


@pytest.fixture
def partner(tmp_path: Path) -> Path:
    path = tmp_path / "partner.hal"
    write_container(path, content=CONTENT, members=MEMBERS)
    return path


def read_all(path: Path) -> dict[str, bytes]:
    opened = read_container(path)
    return {name: opened.read(name) for name in opened.members}


def refusal(path: Path) -> str:
    """Return why a file is refused, when it is opened or when its members are read, without its name."""
    with pytest.raises(PartnerFileError) as caught:
        read_all(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert message.isprintable()
    return message.removeprefix(f"{path} ")


def by_hand(path: Path, manifest: bytes, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in ((MANIFEST, manifest), *members):
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def manifest_of(held: dict[str, bytes], /, **changes: object) -> bytes:
    table = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in held.items()}
    return json.dumps({"format": FORMAT, "version": FORMAT_VERSION, "members": table, "content": CONTENT, **changes}).encode()


def test_what_was_written_is_read_and_equal_content_makes_equal_bytes(partner, tmp_path):
    opened = read_container(partner)
    assert opened.content == CONTENT
    assert {name: opened.read(name) for name in opened.members} == MEMBERS
    arrays = opened.read_arrays(ARRAYS)
    assert arrays.keys() == COLUMNS.keys()
    for name, column in COLUMNS.items():
        assert arrays[name].dtype == column.dtype
        assert np.array_equal(arrays[name], column)
    other = tmp_path / "other.hal"
    write_container(other, content=dict(reversed(CONTENT.items())), members=dict(reversed(MEMBERS.items())))
    assert other.read_bytes() == partner.read_bytes()


@pytest.mark.parametrize(
    ("version", "digest"),
    [
        (1, "1c9cf7566199b3dc5927b2db4ef716fe9edd73ada9a3ea45f230cd39af9a8349"),
        (2, "cdde737cd75ead21738774882bdf540227a90339f79a617311522114e39a2544"),
    ],
)
def test_bytes_stay_those_of_their_version(tmp_path, monkeypatch, version, digest):
    """Partners that were trained before must load: a change of these bytes needs a new version."""
    path, content = tmp_path / "a.hal", {"a": [1, 0.5, "ü"]}
    with monkeypatch.context() as patch:
        patch.setattr(container, "FORMAT_VERSION", version)
        write_container(path, content=content, members={"arrays/a.safetensors": b"12345678"})
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    opened = read_container(path)
    assert (opened.version, opened.content) == (version, content)


def test_any_zip_tool_can_open_it(partner):
    with zipfile.ZipFile(partner) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == [MANIFEST, *sorted(MEMBERS)]
    if shutil.which("unzip"):
        subprocess.run([shutil.which("unzip"), "-tq", partner], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("content", "members"),
    [
        ({}, {"../x.flac": b""}),
        ({}, {"arrays/x.pkl": b""}),
        ({}, {"manifest.json": b""}),
        ({"a": (1, 2)}, {}),
        ({1: 2}, {}),
        ({"a": float("nan")}, {}),
        ({"a": "\ud800"}, {}),
        ({"a": b"1"}, {}),
    ],
)
def test_what_a_container_cannot_hold_is_a_mistake_of_the_program(tmp_path, content, members):
    with pytest.raises((ValueError, TypeError)):
        write_container(tmp_path / "a.hal", content=content, members=members)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "count", "what"), [({"a": "b" * (1 << 20)}, 0, "bytes of manifest"), ({}, 4097, "4096 members")]
)
def test_what_is_too_large_to_be_read_is_not_written(tmp_path, content, count, what, monkeypatch):
    members = {f"arrays/{k}.safetensors": b"" for k in range(count)}
    monkeypatch.setattr(container, "MAX_MANIFEST_BYTES", 1 << 20)
    monkeypatch.setattr(container, "MAX_MEMBERS", 4096)
    with pytest.raises(InputError, match=what):
        write_container(tmp_path / "a.hal", content=content, members=members)
    monkeypatch.setattr(container, "MAX_ARCHIVE_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1000 bytes, and this needs"):
        write_container(tmp_path / "a.hal", content={}, members={ARRAYS: bytes(1000)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [2000, 5000, 20_000, 30_000])
def test_what_is_larger_than_zip_holds_is_written_as_zip64(tmp_path, monkeypatch, limit):
    """The limit of zip without extensions is 2 GB; here it is lower."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    members = {f"arrays/{k}.safetensors": bytes([k]) * k * 1000 for k in range(8)}
    (tmp_path / "part").write_bytes(members["arrays/7.safetensors"])
    path, again = tmp_path / "a.hal", tmp_path / "b.hal"
    write_container(path, content={}, members={**members, "arrays/7.safetensors": tmp_path / "part"})
    opened = read_container(path)
    assert {name: opened.read(name) for name in opened.members} == members
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in members} == members
    write_container(again, content={}, members={name: opened.blob(name) for name in members})
    assert again.read_bytes() == path.read_bytes()
    write_container(again, content={"changed": 1}, members={name: opened.blob(name) for name in members})
    write_container(path, content={}, members={"arrays/7.safetensors": b"other"})
    with pytest.raises(PartnerFileError, match="was changed since it was opened"):
        opened.blob("arrays/7.safetensors").read()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_a_cut_or_an_addition_is_refused_or_changes_nothing(partner, data):
    whole = partner.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "added"]))
    damaged = partner.with_name("damaged.hal")
    if kind == "flip":  # the reader needs nothing of the zip records of members
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
        try:
            opened = read_container(damaged)
            assert opened.content == CONTENT
            assert {name: opened.read(name) for name in opened.members} == MEMBERS
        except PartnerFileError:
            refusal(damaged)
    else:
        damaged.write_bytes(whole[:at] if kind == "cut" else whole[:at] + b"x" + whole[at:])
        refusal(damaged)


def test_every_byte_of_manifest_and_members_counts(partner):
    whole = bytearray(partner.read_bytes())
    manifest_bytes = int.from_bytes(whole[22:26], "little")
    spans = [(43, 43 + manifest_bytes), *((m.offset, m.offset + m.size) for m in read_container(partner).members.values())]
    for at in (at for span in spans for at in range(*span, 7)):
        whole[at] ^= 1
        partner.write_bytes(whole)
        refusal(partner)
        whole[at] ^= 1


def test_strangers_archives_are_refused(tmp_path):
    held = {"arrays/a.safetensors": b"12345678"}
    good, member = manifest_of(held), ("arrays/a.safetensors", b"12345678")
    path = tmp_path / "a.hal"
    by_hand(path, good, member)
    assert read_container(path).read("arrays/a.safetensors") == b"12345678"
    assert "added to it" in refusal(by_hand(path, good))
    assert "added to it" in refusal(by_hand(path, good, member, ("evil.txt", b"boo")))
    assert "digest" in refusal(by_hand(path, good, ("arrays/a.safetensors", b"12345679")))
    assert "do not belong" in refusal(by_hand(path, manifest_of({"../evil.flac": b""}), ("../evil.flac", b"")))
    for key, value in {"size": 2**62, "sha256": "0" * 63}.items():
        wrong = json.loads(good)
        wrong["members"]["arrays/a.safetensors"][key] = value
        refusal(by_hand(path, json.dumps(wrong).encode(), member))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(MANIFEST, b" " * 50_000_000)
    assert "not a partner file" in refusal(path)
    path.write_bytes(
        struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(b""), 2**31, 2**31, 13, 0) + b"manifest.json"
    )
    assert "larger than" in refusal(path)
    os.truncate(path, 0)
    assert "empty" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other"}, "not a partner file"),
        ({"version": None}, "names no version"),
        ({"version": True}, "names no version"),
        ({"version": FORMAT_VERSION + 1}, "newer MusicHal"),
        ({"version": 0}, "older MusicHal .*train it again"),
        ({"content": []}, "lacks required fields"),
        ({"more": 1}, "lacks required fields"),
        ({"members": [1]}, "do not belong"),
        ({"members": {"arrays/a.safetensors": {"size": -1, "sha256": "0" * 64}}}, "describes .* wrongly"),
    ],
)
def test_a_manifest_of_something_else_is_refused(tmp_path, changes, says):
    with pytest.raises(PartnerFileError, match=says):
        read_container(by_hand(tmp_path / "a.hal", manifest_of({}, **changes)))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'{"a": 1, "a": 2}', b"[NaN]", b"[1e999]", b"[" * 33 + b"]" * 33, b'"\\ud800"', b'"\xff"', b"[" * 100_000],
)
def test_improper_json_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        parse_json(text, max_depth=32)
    assert parse_json(b'["[[[[", {"\\"{": 1.5}]', max_depth=2) == ["[[[[", {'"{': 1.5}]


def test_arrays_are_stored_whatever_their_layout_and_nothing_else_is_read(tmp_path):
    wide = np.arange(24, dtype=">f4").reshape(4, 6)
    assert pack_arrays({"a": wide.T}) == pack_arrays({"a": np.ascontiguousarray(wide.T).astype("<f4")})
    for bad in ({"a": np.array(["x"])}, {"a": np.array([None])}, {"": wide}, {"__metadata__": wide}, {"a\n": wide}):
        with pytest.raises(ValueError, match="array"):
            pack_arrays(bad)
    whole = safetensors.numpy.save({"a": np.arange(6, dtype=np.float32)})
    for data in (b"", b"\x80\x04N.", whole[:-1], struct.pack("<Q", 2**62) + whole[8:], whole.replace(b"[0,24]", b"[0,99]")):
        path = tmp_path / "a.hal"
        write_container(path, content={}, members={ARRAYS: data})
        with pytest.raises(PartnerFileError, match="holds no arrays"):
            read_container(path).read_arrays(ARRAYS)


@given(
    st.dictionaries(
        st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=4),
        st.sampled_from(["u8", "i8", "f8", "f4", "u4", "i4", "f2", "u2", "i2", "i1", "u1", "?"]).flatmap(
            lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        ),
        max_size=5,
    )
)
def test_arrays_are_written_as_safetensors_writes_them(arrays):
    assert pack_arrays(arrays) == safetensors.numpy.save(arrays)
