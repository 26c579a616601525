"""A form: a score of minutes, modes, regions, intensity and silence, with a fade and an ending, as a TOML file.

    title = "Arc"
    end = "3:00"
    fade_s = 8

    [[section]]
    from = "0:00"
    mode = "mirror"
    intensity = 0.4

    [[section]]
    from = "1:00"
    until = "1:10"
    silence = true

Times are minutes:seconds, or seconds, of the stream's own clock. A section lasts until its `until`, or the next one begins,
or the form ends. In gaps between sections the partner chooses its modes itself. A form that contradicts itself is
refused with both sides of the contradiction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musichal.errors import InputError
from musichal.partner.settings import PartnerSettings
from musichal.text import check_keys, clock, number_in, parse_seconds, parse_toml, printable, read_text, text_in, unknown_name

_LONGEST_S = 24 * 3600.0
_FADED_DB = -24.0
_INTENSITY_DB = 9.0
_TOP = ("title", "end", "fade_s", "section")
_COLUMNS = ("name", "from", "until", "mode", "intensity", "use", "avoid", "silence")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A stretch of a form. `intensity` moves from its first value to its second; 0.5 leaves the mode as it is."""

    name: str
    start_s: float
    end_s: float
    mode: str | None = None
    intensity: tuple[float, float] = (0.5, 0.5)
    regions: tuple[tuple[str, str], ...] = ()
    silence: bool = False


@dataclass(frozen=True)
class Moment:
    """What a form prescribes at one time.

    `number` counts sections and is None outside them; `until_s` is the end of the section, None if open. `gain_db` is the gain
    by intensity and fade; `fullness` (0.5 to 2) multiplies the lengths of phrases and divides those of pauses. While
    `closing`, the partner comes to an end; afterwards the form `has_ended`.
    """

    number: int | None = None
    name: str = ""
    mode: str | None = None
    regions: tuple[tuple[str, str], ...] = ()
    silence: bool = False
    until_s: float | None = None
    gain_db: float = 0.0
    fullness: float = 1.0
    closing: bool = False
    has_ended: bool = False


_FREE = Moment()
"""What an empty form prescribes at any time."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A whole form; with `end_s` None it goes on until the player stops."""

    title: str = ""
    sections: tuple[Section, ...] = ()
    end_s: float | None = None
    fade_s: float = 0.0

    def at(self, now_s: float) -> Moment:
        """Return what the form prescribes at a time."""
        if self.end_s is None and not self.sections:
            return _FREE
        if self.end_s is not None and now_s >= self.end_s:
            return Moment(has_ended=True)
        closing, fade_db = False, 0.0
        if self.end_s is not None and self.fade_s and now_s >= self.end_s - self.fade_s:
            closing = True
            fade_db = _FADED_DB * (now_s - self.end_s + self.fade_s) / self.fade_s
        for number, section in enumerate(self.sections):
            if section.start_s <= now_s < section.end_s:
                part = (now_s - section.start_s) / min(section.end_s - section.start_s, _LONGEST_S)
                intensity = section.intensity[0] + part * (section.intensity[1] - section.intensity[0])
                return Moment(
                    number=number,
                    name=section.name,
                    mode=section.mode,
                    regions=section.regions,
                    silence=section.silence,
                    until_s=None if section.end_s >= _LONGEST_S else section.end_s,
                    gain_db=fade_db + _INTENSITY_DB * (2 * intensity - 1),
                    fullness=2 ** (2 * intensity - 1),
                    closing=closing and not section.silence,
                )
        later = [s.start_s for s in self.sections if s.start_s > now_s]
        until_s = min(later, default=self.end_s)
        return Moment(until_s=until_s, gain_db=fade_db, closing=closing)


def read_form(path: Path, modes: Iterable[str]) -> Form:
    """Return the form of a file; see `parse_form`."""
    return parse_form(read_text(path), modes, source=printable(path))


def parse_form(text: str, modes: Iterable[str], *, source: str) -> Form:
    """Return the form that a TOML text describes.

    Parameters
    ----------
    text : str
    modes : iterable of str
        Names of the valid modes.
    source : str
        Name of the text in messages.

    Raises
    ------
    InputError
        For an unknown key or mode, a value out of range, or a contradiction.
    """
    table = parse_toml(text, source=source)
    check_keys(table, _TOP, source)
    end_s = None if "end" not in table else _time_s(table["end"], f"{source}: end")
    fade_s = number_in(table.get("fade_s", 4.0 if end_s is not None else 0.0), 0, _LONGEST_S, f"{source}: fade_s")
    rows = table.get("section", [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{source}: a form must have at least one section; begin each with a line [[section]]")
    if end_s is not None and not end_s > 0:
        raise InputError(f"{source}: end must be later than 0:00")
    if end_s is None and "fade_s" in table:
        raise InputError(f"{source}: fade_s needs end: a form without an end cannot fade")
    if end_s is not None and fade_s > end_s:
        raise InputError(f"{source}: fade_s of {fade_s:g} s contradicts end at {clock(end_s)}: it would begin before 0:00")
    sections = _sections(rows, tuple(modes), end_s, source)
    return Form(title=text_in(table.get("title", ""), f"{source}: title"), sections=sections, end_s=end_s, fade_s=fade_s)


def _sections(rows: list[dict[str, Any]], modes: tuple[str, ...], end_s: float | None, source: str) -> tuple[Section, ...]:
    starts = []
    for number, row in enumerate(rows, start=1):
        if "from" not in row:
            raise InputError(f'{source}: section {number} needs from, such as from = "1:30"')
        starts.append(_time_s(row["from"], f"{source}: section {number}: from"))
    sections: list[Section] = []
    for number, (row, start_s) in enumerate(zip(rows, starts, strict=True), start=1):
        where = _where(source, number, row)
        check_keys(row, _COLUMNS, where)
        following = starts[number] if number < len(starts) else (end_s if end_s is not None else _LONGEST_S)
        if number < len(starts) and following < start_s:
            raise InputError(
                f"{source}: section {number + 1} begins at {clock(following)}, before section {number} at {clock(start_s)}:"
                " put them in order"
            )
        until_s = following if "until" not in row else _time_s(row["until"], f"{where}: until")
        if end_s is not None and max(start_s, until_s) > end_s:
            late = f"begins at {clock(start_s)}" if start_s >= end_s else f"lasts until {clock(until_s)}"
            raise InputError(f"{where} {late}, but the form ends at {clock(end_s)}")
        if until_s <= start_s:
            raise InputError(f"{where} would end at {clock(until_s)}, but it begins at {clock(start_s)}")
        if until_s > following:
            raise InputError(
                f"{where} lasts until {clock(until_s)} and overlaps section {number + 1}, which begins at {clock(following)}"
            )
        sections.append(_section(row, start_s, until_s, modes, where, number))
    return tuple(sections)


def _section(row: Mapping[str, Any], start_s: float, end_s: float, modes: tuple[str, ...], where: str, number: int) -> Section:
    silence = row.get("silence", False)
    if not isinstance(silence, bool):
        raise InputError(f"{where}: silence must be true or false, got {silence!r}")
    meant = [column for column in ("mode", "intensity", "use", "avoid") if column in row]
    if silence and meant:
        raise InputError(f"{where}: silence contradicts {', '.join(meant)}")
    mode = row.get("mode")
    if mode is not None and mode not in modes:
        raise unknown_name("mode", mode, modes, where=where)
    name = text_in(row.get("name", f"section {number}"), f"{where}: name")
    regions = tuple((column, row[column]) for column in ("use", "avoid") if column in row)
    try:
        PartnerSettings().changed(dict(regions))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return Section(
        name=name,
        start_s=start_s,
        end_s=end_s,
        mode=mode,
        intensity=_intensity(row.get("intensity", 0.5), where),
        regions=regions,
        silence=silence,
    )


def _intensity(value: object, where: str) -> tuple[float, float]:
    values = value if isinstance(value, list) else [value, value]
    if len(values) != 2:
        raise InputError(f"{where}: intensity must be a number, or two as [first, last], got {value!r}")
    first, last = (number_in(v, 0, 1, f"{where}: intensity") for v in values)
    return first, last


def _where(source: str, number: int, row: Mapping[str, Any]) -> str:
    return f"{source}: section {number}" + (f" ({row['name']})" if isinstance(row.get("name"), str) else "")


def _time_s(value: object, where: str) -> float:
    time_s = parse_seconds(value, where) if isinstance(value, str) else value
    if isinstance(time_s, bool) or not isinstance(time_s, int | float) or not 0 <= time_s <= _LONGEST_S:
        raise InputError(f'{where} must be a time such as "1:30", or seconds in [0, {_LONGEST_S:g}], got {value!r}')
    return float(time_s)
