import contextlib
import errno
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.atomic import check_writable, open_atomically
from musichal.errors import InputError
from musichal.text import printable, reason

posix = pytest.mark.skipif(os.name == "nt", reason="a property of POSIX systems")


def write_atomically(path, write) -> None:
    with open_atomically(path) as stream:
        write(stream)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestOpenAtomically:
    def test_file_appears_only_when_complete(self, tmp_path):
        target = tmp_path / "partner.hal"
        with open_atomically(target) as stream:
            stream.write(b"whole")
            stream.flush()
            assert not target.exists()
            (partial,) = names(tmp_path)
            assert partial.endswith(".partial")
        assert target.read_bytes() == b"whole"
        assert names(tmp_path) == ["partner.hal"]

    def test_replaces_an_old_file(self, tmp_path):
        target = tmp_path / "a"
        target.write_bytes(b"old and longer")
        write_atomically(target, lambda stream: stream.write(b"new"))
        assert target.read_bytes() == b"new"

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("no"), MemoryError()])
    @pytest.mark.parametrize("old", [None, b"old"])
    def test_any_exception_leaves_the_old_file_and_nothing_else(self, tmp_path, error, old):
        target = tmp_path / "a"
        if old is not None:
            target.write_bytes(old)

        def write(stream):
            stream.write(bytes(100_000))
            raise error

        with pytest.raises(type(error)):
            write_atomically(target, write)
        assert names(tmp_path) == ([] if old is None else ["a"])
        assert old is None or target.read_bytes() == old

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_disk_that_is_full_at_the_last_step(self, tmp_path, monkeypatch, step):
        target = tmp_path / "a"
        target.write_bytes(b"old")

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        if step == "fsync":
            monkeypatch.setattr(os, "fsync", full)
        else:
            monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(InputError, match=r"cannot write .*a: the disk is full$"):
            write_atomically(target, lambda stream: stream.write(b"new"))
        assert target.read_bytes() == b"old"
        assert names(tmp_path) == ["a"]

    def test_a_disk_that_is_full_while_writing(self, tmp_path):
        def write(_stream):
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(InputError, match="the disk is full"):
            write_atomically(tmp_path / "a", write)
        assert names(tmp_path) == []

    def test_an_error_about_another_file_is_not_blamed_on_this_one(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="missing"):
            write_atomically(tmp_path / "a", lambda _: (tmp_path / "missing").open())
        assert names(tmp_path) == []

    @posix
    def test_permissions_of_a_replaced_file_stay_and_new_ones_follow_the_umask(self, tmp_path):
        old, new = tmp_path / "old", tmp_path / "new"
        old.write_bytes(b"")
        old.chmod(0o640)
        before = os.umask(0o027)
        try:
            write_atomically(old, lambda stream: stream.write(b"x"))
            write_atomically(new, lambda stream: stream.write(b"x"))
        finally:
            os.umask(before)
        assert stat.S_IMODE(old.stat().st_mode) == 0o640
        assert stat.S_IMODE(new.stat().st_mode) == 0o640

    @posix
    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / "real").mkdir()
        target, link = tmp_path / "real" / "a", tmp_path / "link"
        link.symlink_to(target)
        write_atomically(link, lambda stream: stream.write(b"x"))
        assert link.is_symlink()
        assert target.read_bytes() == b"x"

    def test_a_long_name_gets_a_partial_name_that_fits(self, tmp_path):
        target = tmp_path / ("音" * 80)  # 240 of the 255 bytes that common file systems allow
        write_atomically(target, lambda stream: stream.write(b"x"))
        assert target.read_bytes() == b"x"


@pytest.mark.parametrize("attempt", [check_writable, lambda path: write_atomically(path, lambda _: None)])
class TestRefusedPaths:
    def test_missing_folder(self, tmp_path, attempt):
        with pytest.raises(InputError, match=r"cannot write .*a\.hal: the folder .*nowhere does not exist$"):
            attempt(tmp_path / "nowhere" / "a.hal")

    def test_a_folder(self, tmp_path, attempt):
        with pytest.raises(InputError, match="it is a folder"):
            attempt(tmp_path)

    def test_a_file_as_folder(self, tmp_path, attempt):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(InputError, match=r"not a folder|does not exist"):
            attempt(tmp_path / "file" / "a.hal")

    @posix
    def test_a_device_is_never_replaced(self, attempt):
        with pytest.raises(InputError, match="not an ordinary file"):
            attempt("/dev/null")
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)

    @posix
    def test_a_name_too_long(self, tmp_path, attempt):
        with pytest.raises(InputError, match="the name is too long"):
            attempt(tmp_path / ("a" * 300))
        assert names(tmp_path) == []

    def test_a_write_protected_file_is_not_replaced_in_a_folder_that_would_allow_it(self, tmp_path, attempt, monkeypatch):
        old = tmp_path / "old"
        old.write_bytes(b"old")
        monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == old.resolve() and mode == os.W_OK))
        with pytest.raises(InputError, match="permission denied"):
            attempt(old)
        assert old.read_bytes() == b"old"

    @posix
    def test_no_permission(self, attempt):
        """Root may write anywhere, so this runs as nobody where it can, and in a folder that nobody may enter."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "old").write_bytes(b"old")
            (folder / "old").chmod(0o444)
            folder.chmod(0o555)
            try:
                with as_nobody():
                    for path in (folder / "new", folder / "old"):
                        with pytest.raises(InputError, match="permission denied"):
                            attempt(path)
                    assert names(folder) == ["old"]
            finally:
                folder.chmod(0o755)


@contextlib.contextmanager
def as_nobody():
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        # access(2) asks for the real user, which stays root
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "access", lambda path, _mode: Path(path).stat().st_mode & 0o002 != 0)
            yield
    finally:
        os.seteuid(0)


def test_check_writable_leaves_nothing_and_touches_nothing(tmp_path):
    old = tmp_path / "old"
    old.write_bytes(b"old")
    check_writable(tmp_path / "new")
    check_writable(old)
    assert names(tmp_path) == ["old"]
    assert old.read_bytes() == b"old"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE as Linux has it")
def test_a_file_larger_than_the_system_allows(tmp_path):
    target = tmp_path / "a"
    target.write_bytes(b"old")
    done = run(
        """
        import resource, sys
        from musichal.atomic import open_atomically
        from musichal.errors import InputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        try:
            with open_atomically(sys.argv[1]) as stream:
                stream.write(bytes(1 << 20))
        except InputError as error:
            print(error)
        """,
        target,
    )
    assert done.stdout == f"cannot write {target}: the file would be larger than the system allows\n", done.stderr
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a tmpfs")
def test_a_disk_that_is_really_full(tmp_path):
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    try:
        target = tmp_path / "a"
        target.write_bytes(b"old")
        with pytest.raises(InputError, match=r"a: the disk is full$"):
            write_atomically(target, lambda stream: stream.write(bytes(1 << 20)))
        assert target.read_bytes() == b"old"
        assert names(tmp_path) == ["a"]
    finally:
        subprocess.run(["/bin/umount", str(tmp_path)], check=True)


@posix
def test_ctrl_c_in_the_middle_of_writing(tmp_path):
    done = run(
        """
        import os, signal, sys
        from musichal.atomic import open_atomically
        def write(stream):
            stream.write(bytes(1 << 20))
            os.kill(os.getpid(), signal.SIGINT)
            stream.write(bytes(1 << 20))
        try:
            with open_atomically(sys.argv[1]) as stream:
                write(stream)
        except KeyboardInterrupt:
            print("interrupted")
        """,
        tmp_path / "a",
    )
    assert done.stdout == "interrupted\n", done.stderr
    assert names(tmp_path) == []


@given(st.text())
def test_printable_is_one_line_that_any_terminal_takes(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")], (
        "names of any script stay, controls go"
    )
    shown.encode("utf-8")
    assert not text.isprintable() or shown == text


def test_reason_has_words_for_any_error():
    assert reason(OSError(errno.ENOSPC, "x")) == "the disk is full"
    assert reason(OSError(99999, "strange")) == "strange"
    assert reason(OSError("only text")) == "only text"
    assert reason(OSError()) == "OSError"
