"""Every recording of a partner can be told from the others by its name."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.training.manifest import distinct_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.ogg", "x/b.ogg"], ["a.ogg", "b.ogg"]),
        (["a/same.ogg", "same.ogg"], ["a/same.ogg", "same.ogg"]),
        (["a/same.ogg", "b/same.ogg", "b/other.ogg"], ["a/same.ogg", "b/same.ogg", "other.ogg"]),
        (["1/cd/s.ogg", "2/cd/s.ogg", "2/dvd/s.ogg"], ["1/cd/s.ogg", "2/cd/s.ogg", "2/dvd/s.ogg"]),
        (["/music/1/s.ogg", "/music/2/s.ogg"], ["1/s.ogg", "2/s.ogg"]),
        (["/r/a/s.ogg", "a/s.ogg"], ["r/a/s.ogg", "a/s.ogg"]),
        (["a\x1b/s.ogg", "b/s.ogg"], ["a\\x1b/s.ogg", "b/s.ogg"]),
        ([], []),
    ],
)
def test_names_have_as_many_folders_as_needed(paths: list[str], names: list[str]) -> None:
    assert distinct_names([PurePosixPath(p) for p in paths]) == names


def test_folders_are_parted_alike_on_every_system() -> None:
    assert distinct_names([PureWindowsPath(r"c:\a\s.ogg"), PureWindowsPath(r"c:\b\s.ogg")]) == ["a/s.ogg", "b/s.ogg"]


parts = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.booleans(), parts), max_size=12, unique_by=str))
def test_different_files_have_different_names(files: list[tuple[bool, list[str]]]) -> None:
    paths = [PurePosixPath("/" if rooted else "", *folders) for rooted, folders in files]
    names = distinct_names(paths)
    assert len(set(names)) == len(paths)
    for path, name in zip(paths, names, strict=True):
        assert str(path).endswith(name)
