import dataclasses
import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from musichal.audio.flac import decode_flac, encode_flac
from musichal.audio.recording import read_recording
from musichal.errors import InputError, PartnerFileError
from musichal.memory.container import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    Limits,
    pack_arrays,
    parse_json,
    read_container,
    unpack_arrays,
    write_container,
)
from musichal.memory.stored_zip import (
    ArchiveError,
    archive_size,
    read_directory,
    read_entry,
    read_first_entry,
    write_stored_zip,
)

COLUMNS = {"token": np.arange(50, dtype=np.int16), "vector": np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)}
CONTENT = {"spec": {"segment_samples": 8400, "policy": "grid"}, "names": ["Übung 1.wav", "b"], "gain": 0.1, "none": None}
MEMBERS = {
    "arrays/memory.safetensors": pack_arrays(COLUMNS),
    "arrays/vocabulary-0.safetensors": pack_arrays({"centres": np.ones((64, 3), dtype=np.float32)}),
    "recordings/000.flac": encode_flac(np.linspace(-1, 0.5, 9, dtype=np.float32) * 0, 44_100),
}
within_a_test = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def partner(tmp_path: Path) -> Path:
    path = tmp_path / "partner.hal"
    write_container(path, content=CONTENT, members=MEMBERS)
    return path


def manifest_of(held: dict[str, bytes], /, **changes: object) -> bytes:
    table = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in held.items()}
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "members": table, "content": CONTENT, **changes}
    return json.dumps(manifest).encode()


def archive(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    write_stored_zip(out, members)
    return out.getvalue()


def refusal(path: Path, **how: object) -> str:
    """Return why a file is refused, wherever that comes to light, without the file's name."""
    with pytest.raises(PartnerFileError) as caught:
        read_container(path, **how).check()
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert message.isprintable()
    return message.removeprefix(f"{path} ")


class TestRoundTrip:
    def test_what_was_written_is_read(self, partner):
        container = read_container(partner)
        assert container.content == CONTENT
        assert list(container.members) == sorted(MEMBERS)
        assert {name: container.read(name) for name in container.members} == MEMBERS
        arrays = container.read_arrays("arrays/memory.safetensors")
        assert arrays.keys() == COLUMNS.keys()
        for name, column in COLUMNS.items():
            assert arrays[name].dtype == column.dtype
            assert np.array_equal(arrays[name], column)
        container.check()

    def test_equal_content_makes_equal_bytes(self, partner, tmp_path):
        other = tmp_path / "other.hal"
        write_container(other, content=dict(reversed(CONTENT.items())), members=dict(reversed(MEMBERS.items())))
        assert other.read_bytes() == partner.read_bytes()

    def test_bytes_stay_those_of_version_1(self, tmp_path):
        """A change of these bytes is a change of the format: it needs a new version and a migration."""
        path = tmp_path / "a.hal"
        write_container(path, content={"a": [1, 0.5, "ü"]}, members={"arrays/a.safetensors": b"12345678"})
        assert path.stat().st_size == 440
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest == "1c9cf7566199b3dc5927b2db4ef716fe9edd73ada9a3ea45f230cd39af9a8349"

    def test_any_zip_tool_can_open_it(self, partner):
        with zipfile.ZipFile(partner) as opened:
            assert opened.testzip() is None
            assert opened.namelist() == [MANIFEST, *sorted(MEMBERS)]
            assert {name: opened.read(name) for name in MEMBERS} == MEMBERS
            assert all(info.compress_type == zipfile.ZIP_STORED for info in opened.infolist())
        if shutil.which("unzip"):
            subprocess.run([shutil.which("unzip"), "-tq", partner], check=True, capture_output=True)

    def test_a_real_recording_comes_back(self, tmp_path, ballad_guitar):
        recording = read_recording(ballad_guitar)
        path = tmp_path / "a.hal"
        data = encode_flac(recording.samples, recording.sample_rate_hz)
        write_container(path, content={"digest": recording.digest}, members={"recordings/000.flac": data})
        container = read_container(path)
        samples, rate = decode_flac(container.read("recordings/000.flac"), max_samples=recording.samples.size)
        assert rate == recording.sample_rate_hz
        assert samples.tobytes() == recording.samples.tobytes()

    def test_no_members(self, tmp_path):
        write_container(tmp_path / "a.hal", content={}, members={})
        assert read_container(tmp_path / "a.hal").content == {}

    @given(
        st.dictionaries(
            st.text(),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=20,
            ),
        ),
        st.dictionaries(
            st.from_regex(r"(arrays/[a-z0-9_-]{1,64}\.safetensors|recordings/[a-z0-9_-]{1,64}\.flac)", fullmatch=True),
            st.binary(),
            max_size=5,
        ),
    )
    @settings(within_a_test, max_examples=50)
    def test_any_content_and_any_members(self, tmp_path, content, members):
        path = tmp_path / "a.hal"
        try:
            write_container(path, content=content, members=members)
        except UnicodeEncodeError:  # half a surrogate pair is not text
            return
        container = read_container(path)
        assert container.content == content
        assert {name: read() for name, read in container.members.items()} == members

    @pytest.mark.parametrize(
        "content",
        [
            {1: "a"},
            {"a": (1, 2)},
            {"a": {"b": {3: 4}}},
            {"a": float("nan")},
            {"a": float("inf")},
            {"a": np.int64(1)},
            {"a": b"x"},
            {"a": {1}},
            {"a": "\ud800"},
            {"a": json.loads("[" * 40 + "]" * 40)},
        ],
        ids=range(10),
    )
    def test_content_that_is_not_plain_json_is_a_mistake_of_the_program(self, tmp_path, content):
        with pytest.raises((ValueError, TypeError)):
            write_container(tmp_path / "a.hal", content=content, members={})
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "a",
            "model.pkl",
            "manifest.json",
            "arrays/../x.safetensors",
            "/arrays/x.safetensors",
            "arrays/x.pkl",
            "arrays\\x.safetensors",
            "arrays/X.safetensors",
            "arrays/x.safetensors\n",
            "C:arrays/x.safetensors",
        ],
    )
    def test_closed_list_of_members(self, tmp_path, name):
        with pytest.raises(ValueError, match="no place for a member"):
            write_container(tmp_path / "a.hal", content={}, members={name: b""})

    def test_too_large_is_known_before_writing(self, tmp_path):
        class Huge(bytes):
            def __len__(self) -> int:
                return 1 << 32

        with pytest.raises(InputError, match=r"a\.hal: a partner file holds at most 4294967294 bytes, and this"):
            write_container(tmp_path / "a.hal", content={}, members={"recordings/a.flac": Huge()})
        members = {f"recordings/{n}.flac": b"" for n in range(4096)}
        with pytest.raises(InputError, match="at most 4096 members, and this needs 4097; train on fewer"):
            write_container(tmp_path / "a.hal", content={}, members=members)
        with pytest.raises(InputError, match="at most 1048576 bytes of manifest"):
            write_container(tmp_path / "a.hal", content={"a": "x" * (1 << 20)}, members={})
        assert list(tmp_path.iterdir()) == []

    def test_the_most_members(self, tmp_path):
        members = {f"recordings/{n}.flac": b"" for n in range(4095)}
        write_container(tmp_path / "a.hal", content={}, members=members)
        assert read_container(tmp_path / "a.hal").members.keys() == members.keys()

    def test_a_full_disk_keeps_the_old_partner(self, partner, monkeypatch):
        before = partner.read_bytes()

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="the disk is full"):
            write_container(partner, content={}, members={})
        assert partner.read_bytes() == before
        assert list(partner.parent.iterdir()) == [partner]


class TestDamage:
    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read anything")
    def test_no_permission(self, partner):
        partner.chmod(0)
        assert refusal(partner) == "cannot be read: permission denied"

    def test_not_a_file(self, tmp_path):
        assert refusal(tmp_path) == "is a folder, not a partner file"
        assert refusal(tmp_path / "nowhere.hal") == "cannot be read: no such file or folder"
        (tmp_path / "empty.hal").write_bytes(b"")
        assert refusal(tmp_path / "empty.hal") == "is empty"

    @pytest.mark.skipif(os.name == "nt", reason="no such files")
    def test_a_pipe_is_refused_without_waiting_for_it(self, tmp_path):
        os.mkfifo(tmp_path / "a.hal")
        assert refusal(tmp_path / "a.hal") == "is not an ordinary file"

    def test_a_bit_of_every_byte(self, partner):
        """In all of the archive's own records and the manifest, and in part of the members."""
        whole = partner.read_bytes()
        with partner.open("rb") as stream:
            members = read_directory(stream, max_entries=10)[1:]
        inside = {at for entry in members for at in range(entry.offset, entry.offset + entry.size)}
        for at in [at for at in range(len(whole)) if at not in inside or at % 37 == 0]:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << at * 5 % 8
            partner.write_bytes(damaged)
            refusal(partner)

    def test_many_lengths(self, partner):
        whole = partner.read_bytes()
        for size in {*range(0, len(whole), 5), *range(len(whole) - 100, len(whole))}:
            partner.write_bytes(whole[:size])
            refusal(partner)

    @given(st.data())
    @within_a_test
    def test_anything_else_than_the_whole_file(self, partner, data):
        whole = partner.read_bytes()
        start, end = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
        changed = whole[:start] + data.draw(st.binary(max_size=40) | st.just(whole[start:end] * 2)) + whole[end:]
        partner.write_bytes(changed)
        if changed != whole:
            refusal(partner)
        partner.write_bytes(whole)

    @given(st.binary(max_size=500), st.sampled_from([b"", b"PK\3\4", b"PK\5\6" + bytes(18)]))
    @example(b"", b"PK\5\6" + bytes(18))
    @within_a_test
    def test_any_bytes(self, tmp_path, data, start):
        path = tmp_path / "a.hal"
        path.write_bytes(start + data)
        refusal(path)

    def test_wrong_digest(self, tmp_path):
        """Changed by someone who put the zip's own sums right."""
        path = tmp_path / "a.hal"
        members = {"arrays/a.safetensors": b"the right bytes"}
        path.write_bytes(archive((MANIFEST, manifest_of(members)), ("arrays/a.safetensors", b"the wrong bytes")))
        container = read_container(path)
        with pytest.raises(PartnerFileError, match=r"a\.hal is damaged: its member arrays/a\.safetensors does not match"):
            container.read("arrays/a.safetensors")

    def test_members_are_read_when_asked_for_and_checked_then(self, partner):
        container = read_container(partner)
        whole = bytearray(partner.read_bytes())
        at = whole.index(MEMBERS["recordings/000.flac"]) + 30
        whole[at] ^= 1
        partner.write_bytes(whole)
        assert container.read("arrays/memory.safetensors") == MEMBERS["arrays/memory.safetensors"]
        with pytest.raises(PartnerFileError, match=r"recordings/000\.flac was changed"):
            container.read("recordings/000.flac")
        with pytest.raises(PartnerFileError, match=r"lacks its member recordings/001\.flac"):
            container.read("recordings/001.flac")
        partner.unlink()
        with pytest.raises(PartnerFileError, match="no such file"):
            container.read("arrays/memory.safetensors")

    @pytest.mark.parametrize(
        ("held", "listed"), [((), ("a", "b")), (("a",), ("a", "b")), (("a", "b"), ("a",)), (("a", "c"), ("a", "b"))]
    )
    def test_missing_and_extra_members(self, tmp_path, held, listed):
        path = tmp_path / "a.hal"
        name = "arrays/{}.safetensors".format
        manifest = manifest_of({name(part): b"x" for part in listed})
        path.write_bytes(archive((MANIFEST, manifest), *((name(part), b"x") for part in held)))
        assert refusal(path) == "is damaged: it does not hold the members that its manifest lists"

    @pytest.mark.parametrize("name", ["arrays/a.safetensors", MANIFEST])
    def test_a_member_twice(self, tmp_path, name):
        path = tmp_path / "a.hal"
        data = {"arrays/a.safetensors": b"x"}
        path.write_bytes(archive((MANIFEST, manifest_of(data)), *data.items(), (name, b"x")))
        assert refusal(path) == "has two members of one name"


class TestHostile:
    @pytest.mark.parametrize(
        "name",
        [
            "model.pkl",
            "../x",
            "arrays/../../x.safetensors",
            "/etc/passwd",
            "C:\\x",
            "C:/x",
            "arrays\\a.safetensors",
            "arrays/a.safetensors/",
            "arrays/",
            "arrays/con.txt",
            "recordings/a.wav",
            "Manifest.json",
            "arrays/A.safetensors",
        ],
    )
    def test_names_outside_the_closed_list(self, tmp_path, name):
        path = tmp_path / "a.hal"
        path.write_bytes(archive((MANIFEST, manifest_of({name: b"x"})), (name, b"x")))
        assert refusal(path) == f"has a member that does not belong into a partner file: {name}"

    def test_a_pickle_is_never_opened(self, tmp_path):
        path, trap = tmp_path / "a.hal", tmp_path / "sprung"

        class Trap:
            def __reduce__(self):
                return (Path.touch, (trap,))

        data = pickle.dumps(Trap())
        path.write_bytes(archive((MANIFEST, manifest_of({"model.pkl": data})), ("model.pkl", data)))
        assert "model.pkl" in refusal(path)
        member = "arrays/model.safetensors"
        path.write_bytes(archive((MANIFEST, manifest_of({member: data})), (member, data)))
        with pytest.raises(PartnerFileError, match=r"a\.hal is damaged: its arrays .* \(in arrays/model\.safetensors\)$"):
            read_container(path).read_arrays(member)
        assert not trap.exists()
        pickle.loads(data)  # noqa: S301
        assert trap.exists()  # the trap works

    def by_zipfile(self, path: Path, *, change=lambda info: None, method: int = zipfile.ZIP_STORED) -> Path:
        members = {"arrays/a.safetensors": bytes(5000)}
        with zipfile.ZipFile(path, "w") as out:
            for name, data in {MANIFEST: manifest_of(members), **members}.items():
                info = zipfile.ZipInfo(name)
                info.create_system = 3
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                info.compress_type = method if name != MANIFEST else zipfile.ZIP_STORED
                if name != MANIFEST:
                    change(info)
                out.writestr(info, data)
        return path

    def test_the_helper_writes_what_is_read(self, tmp_path):
        """Otherwise the tests below would pass whatever they change."""
        assert read_container(self.by_zipfile(tmp_path / "a.hal")).content == CONTENT

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_compressed(self, tmp_path, method):
        assert refusal(self.by_zipfile(tmp_path / "a.hal", method=method)).startswith("has a compressed member")

    def test_a_bomb_costs_nothing(self, tmp_path):
        path = tmp_path / "a.hal"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr(MANIFEST, bytes(100 << 20))
        tracemalloc.start()
        try:
            assert refusal(path) == f"has a compressed member, {MANIFEST}"
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()

    def test_a_link(self, tmp_path):
        def link(info):
            info.external_attr = (stat.S_IFLNK | 0o777) << 16

        assert "that MusicHal did not write" in refusal(self.by_zipfile(tmp_path / "a.hal", change=link))

    def test_extra_fields_comments_and_dates(self, tmp_path):
        for field, value in (("extra", b"\1\0\2\0xx"), ("comment", b"hello"), ("date_time", (2024, 1, 1, 0, 0, 0))):
            path = self.by_zipfile(tmp_path / "a.hal", change=lambda info, f=field, v=value: setattr(info, f, v))
            refusal(path)
        self.by_zipfile(path)
        with zipfile.ZipFile(path, "a") as out:
            out.comment = b"hello"
        refusal(path)

    def test_encrypted(self, partner):
        whole = bytearray(partner.read_bytes())
        at = whole.index(b"PK\1\2", whole.index(b"PK\1\2") + 1)
        whole[at + 8] |= 1
        partner.write_bytes(whole)
        assert refusal(partner) == "has an encrypted member, arrays/memory.safetensors"

    def test_zip64(self, tmp_path):
        path = tmp_path / "a.hal"
        data = manifest_of({})
        with zipfile.ZipFile(path, "w") as out, out.open(zipfile.ZipInfo(MANIFEST), "w", force_zip64=True) as member:
            member.write(data)
        refusal(path)

    def test_entries_that_share_their_bytes(self, tmp_path):
        """Many names for one large member: what unpacks to terabytes elsewhere."""
        path = tmp_path / "a.hal"
        name = "arrays/a.safetensors"
        whole = archive((MANIFEST, manifest_of({name: bytes(1000)})), (name, bytes(1000)))
        start = whole.index(b"PK\1\2")
        directory, end = whole[start:-22], whole[-22:]
        second = directory[directory.index(b"PK\1\2", 4) :]
        directory += second
        fields = struct.pack("<HHLL", 3, 3, len(directory), start)
        path.write_bytes(whole[:start] + directory + end[:8] + fields + end[20:])
        assert "is damaged" in refusal(path) or "did not write" in refusal(path)

    @pytest.mark.parametrize("size", [5001, 1 << 31, 0xFFFFFFFF])
    def test_sizes_beyond_the_file(self, tmp_path, size):
        path = tmp_path / "a.hal"
        member = b"x" * 5000
        whole = archive((MANIFEST, manifest_of({"arrays/a.safetensors": member})), ("arrays/a.safetensors", member))
        true, false = struct.pack("<LL", 5000, 5000), struct.pack("<LL", size, size)
        path.write_bytes(whole.replace(true, false))
        tracemalloc.start()
        try:
            refusal(path)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()

    def test_too_many_members(self, tmp_path):
        path = tmp_path / "a.hal"
        members = {f"arrays/{n}.safetensors": b"" for n in range(100)}
        path.write_bytes(archive((MANIFEST, manifest_of(members)), *members.items()))
        assert len(read_container(path).members) == 100
        assert refusal(path, limits=Limits(max_members=100)).startswith("has too many members (101, at most 100")

    def test_something_in_front_between_and_behind(self, partner):
        whole = partner.read_bytes()
        directory = whole.index(b"PK\1\2")
        for changed in (b"#!/bin/sh\n" + whole, whole + b"\0", whole[:directory] + b"hidden" + whole[directory:]):
            partner.write_bytes(changed)
            refusal(partner)

    @pytest.mark.parametrize("where", ["before the directory", "behind its records"])
    def test_bytes_that_belong_to_no_member(self, tmp_path, where):
        """Hidden by someone who put the end record right."""
        path = tmp_path / "a.hal"
        whole = archive((MANIFEST, manifest_of({})))
        start = whole.index(b"PK\1\2")
        members, directory, end = whole[:start], whole[start:-22], whole[-22:]
        if where == "before the directory":
            members += b"hidden"
        else:
            directory += b"hidden"
        end = end[:12] + struct.pack("<LL", len(directory), len(members)) + end[20:]
        path.write_bytes(members + directory + end)
        assert refusal(path) == "is damaged: it holds bytes that belong to no member"

    def test_a_zip_of_something_else(self, tmp_path):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as out:
            out.writestr("photo.jpg", b"x")
        assert refusal(path) == "is not a partner file: it does not begin with its manifest.json"


class TestManifest:
    def put(self, path: Path, manifest: bytes) -> Path:
        path.write_bytes(archive((MANIFEST, manifest)))
        return path

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"\xff\xfe",
            b"{",
            b'{"format": NaN}',
            b'{"format": Infinity}',
            b'{"format": 1e999}',
            b'{"format": "musichal-partner", "format": "musichal-partner"}',
            b'{"format": "\\ud800"}',
            b'{"format": ' + b"1" * 100_000 + b"}",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"[" * 33 + b"]" * 33,
            b'"\\',
        ],
        ids=[
            "empty",
            "not UTF-8",
            "open",
            "NaN",
            "infinity",
            "overflow",
            "key twice",
            "half a surrogate",
            "long number",
            "deep",
            "deep objects",
            "33 deep",
            "open text",
        ],
    )
    def test_improper_json(self, tmp_path, text):
        assert refusal(self.put(tmp_path / "a.hal", text)) == "is damaged: its manifest is not proper JSON"

    def test_brackets_within_text_are_not_levels(self):
        text = json.dumps({"a": "[" * 100 + '\\"{' * 50}).encode()
        assert parse_json(text, max_depth=1) == json.loads(text)

    @pytest.mark.parametrize("text", [b"[]", b"1", b"null", b"{}", b'{"format": "zip"}'])
    def test_another_format(self, tmp_path, text):
        assert refusal(self.put(tmp_path / "a.hal", text)) == "is not a partner file"

    @pytest.mark.parametrize("version", ["1", 1.0, True, None, -1, [1]])
    def test_no_version(self, tmp_path, version):
        path = self.put(tmp_path / "a.hal", manifest_of({}, version=version))
        assert refusal(path) == "is damaged: its manifest names no version"

    @pytest.mark.parametrize(
        "changes", [{"extra": 1}, {"content": []}, {"content": None}, {"members": []}, {"members": {"arrays/b": 1}}]
    )
    def test_other_parts(self, tmp_path, changes):
        assert refusal(self.put(tmp_path / "a.hal", manifest_of({}, **changes))).startswith("is damaged")

    @pytest.mark.parametrize(
        "described",
        [
            None,
            [],
            {},
            {"size": 1},
            {"size": 2, "sha256": "0" * 64},
            {"size": True, "sha256": "0" * 64},
            {"size": 1.0, "sha256": "0" * 64},
            {"size": 1, "sha256": "0" * 63},
            {"size": 1, "sha256": "A" * 64},
            {"size": 1, "sha256": 0},
            {"size": 1, "sha256": "0" * 64 + "\n"},
            {"size": 1, "sha256": "0" * 64, "x": 1},
        ],
        ids=range(12),
    )
    def test_members_described_wrongly(self, tmp_path, described):
        path, name = tmp_path / "a.hal", "arrays/a.safetensors"
        path.write_bytes(archive((MANIFEST, manifest_of({}, members={name: described})), (name, b"x")))
        assert refusal(path) == f"is damaged: its manifest describes {name} wrongly"

    def test_a_huge_manifest_is_not_read(self, tmp_path):
        path = self.put(tmp_path / "a.hal", manifest_of({}, content={"a": " " * (2 << 20)}))
        tracemalloc.start()
        try:
            assert refusal(path).startswith("manifest.json is too large (20")
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()

    def test_the_worst_manifest_takes_bounded_memory(self, tmp_path):
        path = self.put(tmp_path / "a.hal", b"[" + b"[]," * 340_000 + b"[]]")
        tracemalloc.start()
        try:
            assert refusal(path) == "is not a partner file"
            assert tracemalloc.get_traced_memory()[1] < 48 << 20
        finally:
            tracemalloc.stop()


class TestVersions:
    def test_newer(self, tmp_path):
        """Whatever a newer version puts behind its manifest."""
        path = tmp_path / "a.hal"
        whole = archive((MANIFEST, manifest_of({}, version=3, more=[1])), ("tensors.bin", b"x"))
        for data in (whole, whole[:-30]):
            path.write_bytes(data)
            assert refusal(path) == ("was made by a newer MusicHal (format 3, this one reads up to 1): upgrade MusicHal")

    def test_older_is_migrated(self, tmp_path):
        """A made-up version 0 called its spec otherwise and kept the columns under another name."""
        path, name = tmp_path / "a.hal", "arrays/states.safetensors"
        members = {name: pack_arrays(COLUMNS)}
        path.write_bytes(archive((MANIFEST, manifest_of(members, version=0, content={"config": 1})), *members.items()))
        assert "was made by an older MusicHal (format 0)" in refusal(path)

        def up(old):
            return dataclasses.replace(
                old,
                content={"spec": old.content["config"]},
                members={"arrays/memory.safetensors": old.members[name]},
            )

        container = read_container(path, migrations={0: up})
        assert container.content == {"spec": 1}
        assert np.array_equal(container.read_arrays("arrays/memory.safetensors")["token"], COLUMNS["token"])

    def test_an_older_file_that_the_migration_cannot_read(self, tmp_path):
        path = tmp_path / "a.hal"
        path.write_bytes(archive((MANIFEST, manifest_of({}, version=0, content={}))))
        for up in (lambda old: old.content["config"], lambda old: old.read("arrays/a.safetensors"), lambda _: int("x")):
            assert "damaged" in refusal(path, migrations={0: up}) or "lacks its member" in refusal(path, migrations={0: up})


class TestArrays:
    @given(
        st.dictionaries(
            st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8),
            hnp.arrays(
                hnp.boolean_dtypes()
                | hnp.integer_dtypes(endianness="?")
                | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
                hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
            ),
            max_size=5,
        )
    )
    def test_round_trip(self, arrays):
        data = pack_arrays(arrays)
        back = unpack_arrays(data)
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():
            assert back[name].shape == array.shape
            assert back[name].dtype == array.dtype.newbyteorder("<")
            assert back[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()
        assert pack_arrays(dict(reversed(arrays.items()))) == data

    def test_memory_layout_does_not_matter(self):
        array = np.arange(24, dtype=np.float32).reshape(4, 6)
        plain = pack_arrays({"a": array})
        strided = np.zeros((8, 6), dtype=np.float32)
        strided[::2] = array
        for other in (np.asfortranarray(array), strided[::2], array.T.copy().T, array.astype(">f4")):
            assert pack_arrays({"a": other}) == plain

    def test_columns_of_a_structured_array(self):
        records = np.zeros(5, dtype=[("token", "<i2"), ("start_s", "<f8")])
        records["start_s"] = np.arange(5)
        with pytest.raises(ValueError, match="cannot be stored"):
            pack_arrays({"records": records})
        back = unpack_arrays(pack_arrays({name: records[name] for name in records.dtype.names}))
        assert np.array_equal(back["start_s"], records["start_s"])

    @pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(2, dtype=complex)])
    def test_other_types(self, array):
        with pytest.raises(ValueError, match="cannot be stored"):
            pack_arrays({"a": array})

    @pytest.mark.parametrize("name", ["", "a\nb", "__metadata__"])
    def test_other_names(self, name):
        with pytest.raises(ValueError, match="not a name"):
            pack_arrays({name: np.zeros(1)})

    @pytest.mark.parametrize(
        "header",
        [
            {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
            {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
            {"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
            {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
            {"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 8]}},
            {"a": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}},
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            },
            {"a": {"dtype": "object", "shape": [1], "data_offsets": [0, 8]}},
            {"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}},
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            {"a": 1},
            {"a": {"dtype": "F32", "shape": [[[[[[2]]]]]], "data_offsets": [0, 8]}},
            [],
        ],
        ids=[
            "terabytes",
            "too much",
            "offset",
            "negative",
            "overflow",
            "empty overflow",
            "overlap",
            "object",
            "bf16",
            "left over",
            "number",
            "deep",
            "list",
        ],
    )
    def test_header_that_lies(self, header):
        text = json.dumps(header).encode()
        with pytest.raises(ArchiveError, match="header"):
            unpack_arrays(struct.pack("<Q", len(text)) + text + bytes(8))

    @pytest.mark.parametrize("length", [0, 9, 1 << 20, 1 << 40, (1 << 64) - 1])
    def test_header_longer_than_the_data(self, length):
        with pytest.raises(ArchiveError):
            unpack_arrays(struct.pack("<Q", length) + b"{}      ")

    def test_header_of_bounded_length(self):
        for length, allowed in ((1 << 20, True), ((1 << 20) + 8, False)):
            data = struct.pack("<Q", length) + b"{}".ljust(length)
            if allowed:
                assert unpack_arrays(data) == {}
            else:
                with pytest.raises(ArchiveError, match="longer than it can be"):
                    unpack_arrays(data)

    @given(st.data())
    def test_damage(self, data):
        whole = bytearray(pack_arrays(COLUMNS))
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        whole[bit // 8] ^= 1 << bit % 8
        try:
            arrays = unpack_arrays(bytes(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))]))
        except ArchiveError:
            return
        assert sum(array.nbytes for array in arrays.values()) <= len(whole)


class TestStoredZip:
    @given(
        st.lists(
            st.tuples(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20), st.binary()),
            unique_by=lambda member: member[0],
            max_size=6,
        )
    )
    def test_round_trip(self, members):
        data = archive(*members)
        assert len(data) == archive_size([(name, len(member)) for name, member in members])
        stream = io.BytesIO(data)
        entries = read_directory(stream, max_entries=6)
        assert [(entry.name, read_entry(stream, entry)) for entry in entries] == members
        assert all(entry.crc == zlib.crc32(member) for entry, (_, member) in zip(entries, members, strict=True))
        with zipfile.ZipFile(stream) as opened:
            assert opened.testzip() is None
        if members:
            name, first = members[0]
            assert read_first_entry(stream, name=name, max_bytes=1 << 20) == first
