"""How the partner plays: weights, limits, filters, voices. Nothing here changes how it hears."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from musichal.errors import InputError
from musichal.parameters import (
    NUMBERS,
    UNLIMITED,
    VOICE_NUMBERS,
    WORDS,
    Parameter,
    PartnerParameters,
    VoiceParameters,
    setting,
)
from musichal.partner.scenario import Scenario
from musichal.text import unknown_name

PARTS = ("all", "melody", "bass", "chords", "drums")
"""What a voice can take of a state's notes and drum hits."""
TIMES = ("auto", "pulse", "free")
"""How far the partner goes by the pulse: as far as that is sure, whenever there is one, never."""
_INFERRED = frozenset({"?"})
"""Stands for names that nobody recorded; see `PartnerSettings.explicit`."""


def _check_numbers(settings: PartnerParameters | VoiceParameters, table: Mapping[str, Parameter], prefix: str = "") -> None:
    for name, parameter in table.items():
        parameter.check(getattr(settings, name), prefix + name)
    if settings.high_pitch - settings.low_pitch < 11:
        raise InputError(f"{prefix}low_pitch and {prefix}high_pitch must leave an octave between them")


@dataclass(frozen=True, kw_only=True)
class VoiceSettings(VoiceParameters):
    """One voice: what it takes of the state that was chosen for all voices, and how it plays it.

    * `name`: Its name in decisions and for routing.
    * `part`: One of `PARTS`: the highest notes, the lowest, those between, or all of them; or the drum hits.
    """

    name: str = "all"
    part: str = "all"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", self.name):
            raise InputError(f"a voice's name must be a word of small letters and digits, got {self.name!r}")
        if self.part not in PARTS:
            raise InputError(f"{self.name}.part must be one of {', '.join(PARTS)}, got {self.part!r}")
        _check_numbers(self, VOICE_NUMBERS, f"{self.name}.")


VOICES = (
    VoiceSettings(),
    VoiceSettings(name="melody", part="melody", low_pitch=57, high_pitch=96, most_per_s=8.0),
    VoiceSettings(name="bass", part="bass", low_pitch=28, high_pitch=52, most_per_s=3.0, hold=1.0),
    VoiceSettings(name="chords", part="chords", low_pitch=48, high_pitch=72, most_per_s=2.0, gain_db=-4.0, hold=1.0),
    VoiceSettings(name="drums", part="drums", most_per_s=16.0),
)
"""Voices that can be asked for by name."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A stretch of a recording of the memory, in seconds."""

    recording: int
    start_s: float = 0.0
    end_s: float = float(UNLIMITED)

    def __post_init__(self) -> None:
        if not (self.recording >= 0 and 0 <= self.start_s < self.end_s <= UNLIMITED):
            given = f"{self.recording}:{self.start_s:g}-{self.end_s:g}"
            raise InputError(f"a region must be a recording's number with a start before its end, got {given}")


@dataclass(frozen=True, kw_only=True)
class Direction:
    """The mode, the table of modes and the form that the partner plays by.

    All three are text, so that a session holds them whole. `mode` is the name of the first mode, ``"auto"`` leaves the
    choice to the partner, and empty means to play by the settings alone. `modes` and `form` are what files of
    `musichal.partner.modes` and `musichal.partner.form` hold, or empty.
    """

    mode: str = ""
    modes: str = ""
    form: str = ""


@dataclass(frozen=True, kw_only=True)
class PartnerSettings(PartnerParameters):
    """Settings of a performance; each changes what is played. `musichal.parameters` describes the numbers.

    * `use`, `avoid`: Where in the recordings to play from (everywhere, if empty), and where not.
    * `voices`: What plays the notes of the chosen state.
    * `direction`: Mode, modes and form.
    * `scenario`: What to follow.
    * `time`: One of `TIMES`.
    * `explicit`: Names of the settings that the user gave, whatever their values: no mode changes these. `changed` keeps it.
      Where nobody recorded the names, as in sessions of older versions, these are the settings that differ from the defaults.
    """

    use: tuple[Region, ...] = ()
    avoid: tuple[Region, ...] = ()
    voices: tuple[VoiceSettings, ...] = VOICES[:1]
    direction: Direction = Direction()
    scenario: Scenario | None = None
    time: str = "auto"
    explicit: frozenset[str] = _INFERRED

    def __post_init__(self) -> None:
        _check_numbers(self, NUMBERS)
        if not self.total_weight:
            raise InputError("at least one weight must be positive")
        names = [voice.name for voice in self.voices]
        if not names or len(set(names)) < len(names):
            raise InputError(f"voices must have different names, and be at least one; got {', '.join(names) or 'none'}")
        if self.explicit == _INFERRED:
            differing = (f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)
            object.__setattr__(self, "explicit", frozenset(differing) & _GIVEN_NAMES)
        elif not self.explicit <= _GIVEN_NAMES:
            raise InputError(f"explicit must be names of settings, got {', '.join(sorted(self.explicit - _GIVEN_NAMES))}")

    @property
    def plays_drums(self) -> bool:
        """Return whether a voice plays drum hits."""
        return any(voice.part == "drums" for voice in self.voices)

    @property
    def plays_notes(self) -> bool:
        """Return whether a voice plays notes."""
        return any(voice.part != "drums" for voice in self.voices)

    @property
    def total_weight(self) -> float:
        """Return the score of a candidate that fits in every way."""
        return self.player_weight + self.pairs_weight + self.own_weight + self.continuity_weight

    @property
    def player_weight(self) -> float:
        """Return the part of `total_weight` that the player's playing contributes."""
        tokens = self.harmonic_weight + self.percussive_weight
        return tokens + self.likeness_weight + self.chroma_weight + self.rhythm_weight + self.loudness_weight

    @property
    def given(self) -> dict[str, Any]:
        """Return the settings that the user gave, by name."""
        return {name: getattr(self, name) for name in sorted(self.explicit)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}
        scenario = None if self.scenario is None else self.scenario.to_dict()
        return values | {"scenario": scenario, "explicit": sorted(self.explicit)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings of `to_dict`'s values, or of a part of them.

        Where ``explicit`` is missing, the settings that differ from the defaults count as given.
        """
        others = {name: value for name, value in values.items() if name != "explicit"}
        explicit = values.get("explicit", list(_INFERRED))
        if not isinstance(explicit, list) or not all(isinstance(name, str) for name in explicit):
            raise InputError(f"explicit must be a list of names of settings, got {explicit!r}")
        return dataclasses.replace(cls().changed(others), explicit=frozenset(explicit))

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return these settings with changes, whose names are then `explicit`.

        Numbers go by their names, those of a voice as in ``bass.most_per_s``. `voices` takes names as in
        ``"melody, bass, chords"``, `use` and `avoid` take regions as in ``"0:10-20.5, 2"`` (a recording's number, and
        seconds if not all of it), ``"all"`` (none to avoid: ``"none"``), or one region as the numbers 0, 10, 20.5; `scenario`
        chords as in ``"C Am F G"``; all take what `to_dict` gives, too.

        Raises `InputError`: Names what is unknown, of the wrong type or out of range.
        """
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name == "voices":
                values[name] = _voices(value)
            elif name in ("use", "avoid"):
                values[name] = _regions(name, value)
            elif name == "direction":
                values[name] = _direction(value)
            elif name == "scenario":
                values[name] = Scenario.from_value(value)
            elif name == "time":
                values[name] = _time(value)
            elif "." not in name:
                values[name] = setting(name).check(value)
        voices = values.get("voices", self.voices)
        for name, value in changes.items():
            if "." in name:
                voices = values["voices"] = _with_voice_setting(voices, name, value)
        return dataclasses.replace(self, **values, explicit=self.explicit | (values.keys() & _GIVEN_NAMES))


_GIVEN_NAMES = frozenset((*NUMBERS, *WORDS))


def _voices(value: object) -> tuple[VoiceSettings, ...]:
    if isinstance(value, str):
        named = {voice.name: voice for voice in VOICES}
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if name not in named:
                raise unknown_name("voice", name, named)
        return tuple(named[name] for name in names)
    voices = []
    for entry in value if isinstance(value, list | tuple) else [value]:
        if isinstance(entry, VoiceSettings):
            voices.append(entry)
            continue
        if not isinstance(entry, Mapping) or not entry.keys() <= {*VOICE_NUMBERS, "name", "part"}:
            raise InputError(f"voices must be names such as melody,bass,chords, or tables, got {entry!r}")
        own: dict[str, Any] = {}
        for name, given in entry.items():
            if name in ("name", "part") and not isinstance(given, str):
                raise InputError(f"a voice's {name} must be a word, got {given!r}")
            own[name] = given if name in ("name", "part") else VOICE_NUMBERS[name].check(given, f"voices.{name}")
        voices.append(VoiceSettings(**own))
    return tuple(voices)


def _with_voice_setting(voices: tuple[VoiceSettings, ...], name: str, value: object) -> tuple[VoiceSettings, ...]:
    who, _, what = name.partition(".")
    if who not in (names := [voice.name for voice in voices]):
        heard = "the only voice is all" if names == ["all"] else f"the voices are {', '.join(names)}"
        raise InputError(f"{name} needs a voice {who!r}; {heard}. Choose voices first, as voices=melody,bass,chords")
    changes: dict[str, Any] = {what: setting(name).check(value, name)}
    return tuple(dataclasses.replace(v, **changes) if v.name == who else v for v in voices)


def _direction(value: object) -> Direction:
    if isinstance(value, Direction):
        return value
    known = [f.name for f in dataclasses.fields(Direction)]
    if not isinstance(value, Mapping) or not all(name in known and isinstance(text, str) for name, text in value.items()):
        raise InputError(f"direction must be a table of texts ({', '.join(known)}), got {value!r}")
    return Direction(**value)


def _time(value: object) -> str:
    if value not in TIMES:
        raise InputError(f"time must be one of {', '.join(TIMES)}, got {value!r}")
    return str(value)


def _whole_if_it_is(value: Any) -> int | float:
    number: int | float = value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _regions(name: str, value: object) -> tuple[Region, ...]:
    wrong = f"{name} must be regions such as 0:10-20.5, got "
    if isinstance(value, str):
        if value.strip() == WORDS[name].default:
            return ()
        regions = []
        for part in filter(None, (p.strip() for p in value.split(","))):
            match = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}(?:\.\d+)?)-(\d{1,9}(?:\.\d+)?))?", part)
            if match is None:
                raise InputError(f"{wrong}{part!r}")
            span = {} if match[2] is None else {"start_s": float(match[2]), "end_s": float(match[3])}
            regions.append(Region(recording=int(match[1]), **span))
        return tuple(regions)
    entries: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    if 1 <= len(entries) <= 3 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in entries):
        # One region as controllers send it: a recording's number, its start and its end.
        entries = [dict(zip(("recording", "start_s", "end_s"), map(_whole_if_it_is, entries), strict=False))]
    out = []
    for entry in entries:
        if isinstance(entry, Region):
            out.append(entry)
            continue
        if not isinstance(entry, Mapping) or not {"recording"} <= set(entry) <= {"recording", "start_s", "end_s"}:
            raise InputError(f"{wrong}{entry!r}")
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in entry.values()) or entry["recording"] % 1:
            raise InputError(f"{wrong}{entry!r}")
        times = {name: float(value) for name, value in entry.items() if name != "recording"}
        out.append(Region(recording=int(entry["recording"]), **times))
    return tuple(out)
