"""Small texts: times, names, and the one reader of TOML."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musichal.errors import InputError
from musichal.evaluate.duos import read_beats
from musichal.text import clock, counted, parse_seconds, pitch_name, printable, read_toml, unknown_name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_texts_of_any_editor(tmp_path, encoding: str, newline: str) -> None:
    text = "# für élise\na = 'ü'\n\n[b]\nc = 1\n"
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    (tmp_path / "x.toml").write_bytes((mark + text.replace("\n", newline)).encode(encoding))
    assert read_toml(tmp_path / "x.toml") == {"a": "ü", "b": {"c": 1}}
    (tmp_path / "beats.csv").write_bytes(
        (mark + newline.join(["# s,beat", *(f"{n / 2};{n}" for n in range(9))])).encode(encoding)
    )
    assert read_beats(tmp_path / "beats.csv").tolist() == [n / 2 for n in range(9)]


@given(st.text(st.characters()))
def test_printable_text_is_one_line_and_stays(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    assert len(shown.splitlines()) <= 1
    shown.encode()


def test_names_and_counts() -> None:
    assert [pitch_name(p) for p in (0, 21, 60, 70, 127)] == ["C-1", "A0", "C4", "Bb4", "G9"]
    assert [counted(n, "note") for n in (0, 1, 2)] == ["0 notes", "1 note", "2 notes"]
    assert [clock(s) for s in (0, 62.5, 59.999, 3600.005, 0.004)] == ["0:00.00", "1:02.50", "1:00.00", "60:00.00", "0:00.00"]
    assert [clock(s, decimals=d) for s, d in ((59.96, 0), (61.24, 1), (3600, 0))] == ["1:00", "1:01.2", "60:00"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("350ms", 0.35),
        (" 0.35 s ", 0.35),
        ("10min", 600),
        ("2h", 7200),
        ("83", 83),
        ("83.5", 83.5),
        ("1:23", 83),
        (" 1:23.5 ", 83.5),
        ("1:02:03", 3723),
        ("90:00", 5400),
    ],
)
def test_times_that_can_be_read(text: str, seconds: float) -> None:
    assert parse_seconds(text, "--at") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "-1s", "1e3", "1:60", "1:61:00", "1:2:3:4", "5m", "1,5s", "9" * 30, "١s", "inf"])
def test_times_that_cannot(text: str) -> None:
    with pytest.raises(InputError, match="--at must be a time such as"):
        parse_seconds(text, "--at")


@given(st.floats(0, 86000))
def test_a_clock_is_read_as_it_is_written(seconds: float) -> None:
    assert parse_seconds(clock(seconds), "from") == pytest.approx(seconds, abs=0.0051)


def test_an_unknown_name_lists_what_is_valid_or_nearest() -> None:
    assert str(unknown_name("mode", "x", ("a", "b"))) == "unknown mode 'x'. Valid modes: a, b"
    many = [f"setting{n}" for n in range(20)] + ["temperature"]
    error = unknown_name("setting", "temprature", many, hint="`musichal parameters` lists them")
    assert str(error) == (
        "unknown setting 'temprature'. Valid settings: temperature, … (21 in all; `musichal parameters` lists them)"
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("a = 1".encode("utf-16")[:-1], "not text in UTF-16; save it as UTF-8"),
        (b"a = '\xe9'", "not text in UTF-8"),
        (b"a = " + b"[" * 3000, "not valid TOML"),
        (b"#" * 1_000_001, "too large"),
        (b"a = ", "not valid TOML"),
        (None, "cannot read"),
    ],
)
def test_files_that_are_no_toml_are_refused_in_one_line(tmp_path, data: bytes | None, says: str) -> None:
    file = tmp_path / "x.toml"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_toml(file)
    assert says in str(error.value) and str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_byte_order_mark_is_passed_over(tmp_path) -> None:
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert read_toml(tmp_path / "bom.toml") == {"a": 1}
