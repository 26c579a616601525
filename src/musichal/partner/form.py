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

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from musichal.errors import InputError
from musichal.partner.settings import PartnerSettings
from musichal.text import check_keys, clock, number_in, parse_seconds, parse_toml, text_in, unknown_name

_LONGEST_S = 24 * 3600.0
_FADED_DB = -24.0
_FADE_S = 4.0
_JUST_IN_S = 1e-6
_INTENSITY_DB, _MODERATE = 9.0, 0.5
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

    `number` counts sections and is None outside them; `until_s` is the end of the section, None if open. While `closing`, the
    partner comes to an end and fades by `fade_db`; afterwards the form `has_ended`.
    """

    number: int | None = None
    name: str = ""
    mode: str | None = None
    regions: tuple[tuple[str, str], ...] = ()
    silence: bool = False
    until_s: float | None = None
    intensity: float = _MODERATE
    fade_db: float = 0.0
    closing: bool = False
    has_ended: bool = False

    @property
    def gain_db(self) -> float:
        """The gain by intensity and fade."""
        return self.fade_db + _INTENSITY_DB * (2 * self.intensity - 1)

    @property
    def fullness(self) -> float:
        """What multiplies the lengths of phrases and divides those of pauses, 0.5 to 2."""
        return float(2 ** (2 * self.intensity - 1))


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
                    intensity=intensity,
                    fade_db=fade_db,
                    closing=closing and not section.silence,
                )
        later = [s.start_s for s in self.sections if s.start_s > now_s]
        until_s = min(later, default=self.end_s)
        return Moment(until_s=until_s, fade_db=fade_db, closing=closing)


WISHES = ("pause", "hold_section", "next_section", "end", "intensity")
"""What a player can ask of the course of a form."""


@dataclass(frozen=True, kw_only=True)
class FormPlace:
    """Where a form is: the section's number from 1, 0 outside of sections, and how many there are.

    `left_s` and `end_left_s` are the times left in the section and in the form, None where open or `held`; `next_name` is the
    section after this one, empty for none. `closing` says that it comes to its end, `has_ended` that it is over.
    """

    number: int = 0
    count: int = 0
    name: str = ""
    left_s: float | None = None
    next_name: str = ""
    end_left_s: float | None = None
    held: bool = False
    silence: bool = False
    closing: bool = False
    has_ended: bool = False


class FormCourse:
    """Goes through a form as time does, and as the player asks: it holds, goes on, jumps to the next section, or ends.

    An intensity that the player gives holds until the section is over.
    """

    def __init__(self, form: Form) -> None:
        self._form = form
        self._later_s = 0.0  # than the form says
        self._stands_s: float | None = None  # since when it stands still
        self.paused = self._held = False
        self._intensity: float | None = None  # of the player's, until this place
        self._intensity_until_s = math.inf

    def at(self, now_s: float) -> Moment:
        """Return what the form prescribes at a time, and until when on the clock of the player."""
        place_s = self._place_s(now_s)
        moment = self._form.at(place_s)
        if self._intensity is not None and place_s < self._intensity_until_s:
            moment = replace(moment, intensity=self._intensity)
        if moment.until_s is None or not (self._later_s or self._stands_s is not None):
            return moment
        return replace(moment, until_s=None if self._stands_s is not None else moment.until_s + self._later_s)

    def change(self, wishes: Mapping[str, object], now_s: float) -> str:
        """Take what the player asks for, of `WISHES`; return a sentence for them, empty if nothing was asked.

        Raises `InputError` for what this form cannot do; nothing changes then.
        """
        before = dict(vars(self))
        try:
            return self._changed(wishes, now_s)
        except InputError:
            vars(self).update(before)
            raise

    def _changed(self, wishes: Mapping[str, object], now_s: float) -> str:
        text = ""
        if "intensity" in wishes:
            text = self._intensify(now_s, wishes["intensity"])
        if "pause" in wishes:
            self._stand(now_s, paused=_over(self.paused, wishes["pause"]))
            text = "paused" if self.paused else "goes on"
        if "hold_section" in wishes:
            text = self._hold(now_s, _over(self._held, wishes["hold_section"]))
        if wishes.get("next_section"):
            text = self._next(now_s)
        if wishes.get("end"):
            text = self._end(now_s)
        return text

    def revive(self, now_s: float) -> bool:
        """Leave a form that is over; return whether it was."""
        if not self.at(now_s).has_ended:
            return False
        self._form, self._held = Form(), False
        return True

    def place(self, now_s: float) -> FormPlace | None:
        """Return where the form is, None where there is none."""
        at_s, moment, form = self._place_s(now_s), self.at(now_s), self._form
        if form.end_s is None and not form.sections:
            return None
        later = [s for s in form.sections if s.start_s > at_s]
        return FormPlace(
            number=0 if moment.number is None else moment.number + 1,
            count=len(form.sections),
            name=moment.name,
            left_s=None if moment.until_s is None else max(0.0, moment.until_s - now_s),
            next_name=later[0].name if later else "",
            end_left_s=None if form.end_s is None or self._stands_s is not None else max(0.0, form.end_s - at_s) or None,
            held=self._held,
            silence=moment.silence,
            closing=moment.closing,
            has_ended=moment.has_ended,
        )

    def _place_s(self, now_s: float) -> float:
        return (now_s if self._stands_s is None else self._stands_s) - self._later_s

    def _stand(self, now_s: float, *, paused: bool | None = None, held: bool | None = None) -> None:
        place_s = self._place_s(now_s)
        self.paused = self.paused if paused is None else paused
        self._held = self._held if held is None else held
        self._go(place_s, now_s)

    def _go(self, place_s: float, now_s: float) -> None:
        self._stands_s = now_s if self.paused or self._held else None
        self._later_s = now_s - place_s

    def _intensify(self, now_s: float, wanted: object) -> str:
        """Take the player's intensity until the section or the gap is over; "auto" gives it up."""
        if wanted == "auto":
            self._intensity = None
            return "intensity as the form has it" if self._form.sections else "intensity as the mode has it"
        self._intensity = number_in(wanted, 0, 1, "intensity, unless auto,")
        until_s = self._form.at(self._place_s(now_s)).until_s
        self._intensity_until_s = math.inf if until_s is None else until_s
        return f"intensity {self._intensity:.2f}"

    def _hold(self, now_s: float, held: bool) -> str:
        moment = self.at(now_s)
        if moment.number is None or moment.closing:
            raise InputError("there is no section to hold" + ("" if self._form.sections else ": a form has some (--form)"))
        self._stand(now_s, held=held)
        return f"holds {moment.name}" if held else f"{moment.name} goes on"

    def _next(self, now_s: float) -> str:
        if not self._form.sections:
            raise InputError("there is no next section: a form has some (--form)")
        following = next((s for s in self._form.sections if s.start_s > self._place_s(now_s)), None)
        if following is None:
            return self._end(now_s)
        self._held = False
        self._go(following.start_s + _JUST_IN_S, now_s)
        return f"now {following.name}"

    def _end(self, now_s: float) -> str:
        form, place_s, moment = self._form, self._place_s(now_s), self.at(now_s)
        if moment.has_ended or moment.closing:
            raise InputError("it has ended" if moment.has_ended else "it is coming to its end")
        end_s = place_s + (form.fade_s or _FADE_S)
        sections = tuple(
            replace(s, end_s=end_s if s.end_s > place_s else s.end_s)
            for s in form.sections
            if s.start_s <= place_s and not (s.silence and s.end_s > place_s)
        )
        self._form = replace(form, sections=sections, end_s=end_s, fade_s=end_s - place_s)
        if place_s < self._intensity_until_s:
            self._intensity_until_s = math.inf
        self._stand(now_s, held=False)
        return "comes to its end with a last phrase"


def _over(now: bool, wanted: object) -> bool:
    return not now if wanted is None else bool(wanted)


def parse_form(text: str, modes: Iterable[str], *, source: str) -> Form:
    """Return the form that a TOML text describes; `modes` are the names of the valid ones, `source` is the text's in messages.

    Raises `InputError` for an unknown key or mode, a value out of range, or a contradiction.
    """
    table = parse_toml(text, source=source)
    check_keys(table, _TOP, source)
    end_s = None if "end" not in table else _time_s(table["end"], f"{source}: end")
    fade_s = number_in(table.get("fade_s", _FADE_S if end_s is not None else 0.0), 0, _LONGEST_S, f"{source}: fade_s")
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
