"""How the partner plays: weights, limits, filters, voices. Nothing here changes how it hears."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from musichal.errors import InputError
from musichal.partner.scenario import Scenario

_LARGEST = 1_000_000
"""No setting means anything beyond this."""

WORD_SETTINGS = ("voices", "use", "avoid", "scenario")
"""Settings that take words rather than a number."""
PARTS = ("all", "melody", "bass", "chords")
"""What a voice can take of a state's notes."""


def _number(default: float, low: float = 0, high: float = _LARGEST) -> Any:
    """Return a field of a number from `low` to `high`, whole where its default is."""
    return field(default=default, metadata={"low": low, "high": high})


def _check_ranges(settings: "PartnerSettings | VoiceSettings", prefix: str = "") -> None:
    for f in dataclasses.fields(settings):
        if f.metadata:
            value, low, high = getattr(settings, f.name), f.metadata["low"], f.metadata["high"]
            if not low <= value <= high:  # not so for NaN either
                raise InputError(
                    f"partner setting {prefix}{f.name} must be a number from {low} to {high}, not {value:.6g}"
                )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VoiceSettings:
    """One voice: what it takes of the state that was chosen for all, and how it plays it.

    Parameters
    ----------
    name : str
        What it is called, in decisions and for routing.
    part : str
        One of `PARTS`: the highest notes, the lowest, those between, or all of them.
    low_pitch, high_pitch : int
        Its register; notes outside it move by octaves.
    most_per_s : float
        How many times a second it may strike at most; 0 is as often as memory did.
    gain_db : float
        How much louder it plays than was remembered.
    hold : float
        0 to 1: how far its notes are held, from their own length to the end of what was chosen.
    """

    name: str = "all"
    part: str = "all"
    low_pitch: int = _number(0, 0, 127)
    high_pitch: int = _number(127, 0, 127)
    most_per_s: float = _number(0.0, 0, 1000)
    gain_db: float = _number(0.0, -40, 40)
    hold: float = _number(0.0, 0, 1)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", self.name):
            raise InputError(f"a voice's name is a word of small letters and digits, not {self.name!r}")
        if self.part not in PARTS:
            raise InputError(f"partner setting {self.name}.part must be one of {', '.join(PARTS)}, not {self.part!r}")
        _check_ranges(self, f"{self.name}.")
        if self.high_pitch - self.low_pitch < 11:
            raise InputError(f"partner settings {self.name}.low_pitch and high_pitch must leave an octave between them")


VOICES = (
    VoiceSettings(),
    VoiceSettings(name="melody", part="melody", low_pitch=57, high_pitch=96, most_per_s=8.0),
    VoiceSettings(name="bass", part="bass", low_pitch=28, high_pitch=52, most_per_s=3.0, hold=1.0),
    VoiceSettings(name="chords", part="chords", low_pitch=48, high_pitch=72, most_per_s=2.0, gain_db=-4.0, hold=1.0),
)
"""Voices that can be asked for by name."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A stretch of a recording of the memory, in seconds."""

    recording: int
    start_s: float = 0.0
    end_s: float = float(_LARGEST)

    def __post_init__(self) -> None:
        if not (self.recording >= 0 and 0 <= self.start_s < self.end_s <= _LARGEST):
            raise InputError(
                f"a region is a recording's number and seconds from start to end, not {self.recording}:"
                f"{self.start_s:g}-{self.end_s:g}"
            )


@dataclass(frozen=True, kw_only=True)
class Direction:
    """What the partner plays by: a mode, a table of modes, a form.

    All three are text, so that a session holds them whole. `mode` is the name of the first mode, ``"auto"`` leaves the
    choice to the partner, and empty means to play by the settings alone. `modes` and `form` are what files of
    `musichal.partner.modes` and `musichal.partner.form` hold, or empty.
    """

    mode: str = ""
    modes: str = ""
    form: str = ""


@dataclass(frozen=True, kw_only=True)
class PartnerSettings:
    """Settings of a performance; each changes what is played.

    Parameters
    ----------
    harmonic_weight, percussive_weight, chroma_weight, rhythm_weight, loudness_weight, own_weight, continuity_weight : float
        Weight of each influence on a candidate's score: what followed the player's last harmonic and percussive tokens, what
        fits the harmony, what followed the player's last rhythm and rise and fall of loudness, what followed the partner's own
        last choices elsewhere in memory, and what goes on in recorded order.
    activation_s : float
        Time constant with which a match fades while it travels along the memory.
    min_context : int
        Shortest context that makes a place in memory a candidate.
    max_candidates : int
        How many places are weighed for each kind of context.
    chroma_candidates : int
        How many places are weighed because their harmony fits best, whatever came before them.
    no_repeat : int
        A state is not played again while it is among the last so many states played.
    jump_after : int
        After so many states in recorded order, each further one is worth half as much as the one before.
    max_run : int
        After so many states in recorded order the partner must jump.
    noteless_factor : float
        What the score of a state without a note is multiplied by, at most 1, in a memory that has notes.
    follow_harmony, follow_density, follow_loudness : float
        −1 to 1: how far a state is held back whose notes do not sound with what the player sounds now, whose events are
        sparser or denser than the player's, whose loudness is another. Negative turns it round: held back is what sounds with
        the player's notes, what is dense where the player is dense, what is loud where the player is loud.
    dynamics : float
        −1 to 1: how far the velocities follow the player's loudness rather than that of the recording, or go against it.
    gain_db : float
        How much louder than remembered everything is played.
    low_pitch, high_pitch : int
        The register; states with notes outside are held back, and such notes move by octaves.
    follow_register : float
        −1 to 1: how far a state is held back that lies higher or lower than what the player plays; negative turns it round,
        about the middle of the memory.
    phrasing : float
        0 to 1: how far a phrase is held back that does not begin, or end, where its recording begins or ends one.
    pace : float
        −1 to 1: how far memory's time is stretched to the player's pace, at most `pace_limit` times, either way; or against it:
        the faster they play, the slower.
    quantise : float
        0 to 1: how far notes move onto the pulse: the clock's, if there is one, or else the player's, where it is known with
        a confidence of `pulse_confidence`. A beat has `subdivision` places.
    rest_below : float
        How much of what the player can speak for a candidate (without its own choices and continuity) must be there.
    rest_after_silence_s : float
        It rests once the player has been silent for so long.
    max_transposition : int
        Largest transposition in semitones, up or down; 6 is all twelve.
    transposition_penalty : float
        What each semitone of transposition takes off the chroma influence.
    temperature : float
        0 takes the best candidate; above, candidates are drawn with probability exp(score / temperature).
    memory_gestures : int
        How many of the player's gestures are remembered for matching.
    chroma_s : float
        Time constant of the chroma that candidates are fitted to.
    live_weight : float
        What the score of the player's own gestures of this performance is multiplied by, at most 1; 0 learns nothing.
    live_gestures : int
        How many of the player's last gestures can be played, at most.
    live_s : float
        How far back they may lie.
    use, avoid : tuple of Region
        Where in the recordings to play from (everywhere, if none is named), and where not.
    voices : tuple of VoiceSettings
        What plays the notes of the chosen state.
    direction : Direction
        Mode, modes and form.
    scenario : Scenario or None
        What to follow.
    """

    harmonic_weight: float = _number(1.2)
    percussive_weight: float = _number(0.6)
    chroma_weight: float = _number(1.0)
    rhythm_weight: float = _number(0.6)
    loudness_weight: float = _number(0.2)
    own_weight: float = _number(0.2)
    continuity_weight: float = _number(0.9)
    activation_s: float = _number(1.5, 0.01)
    min_context: int = _number(1, 1)
    max_candidates: int = _number(48, 1, 1024)
    chroma_candidates: int = _number(16, 0, 1024)
    no_repeat: int = _number(24, 0, 10_000)
    jump_after: int = _number(16)
    max_run: int = _number(24, 1)
    noteless_factor: float = _number(0.7, 0, 1)
    follow_harmony: float = _number(0.4, -1, 1)
    follow_density: float = _number(0.2, -1, 1)
    follow_loudness: float = _number(0.2, -1, 1)
    dynamics: float = _number(0.3, -1, 1)
    gain_db: float = _number(0.0, -40, 40)
    low_pitch: int = _number(0, 0, 127)
    high_pitch: int = _number(127, 0, 127)
    follow_register: float = _number(0.0, -1, 1)
    phrasing: float = _number(0.0, 0, 1)
    pace: float = _number(0.0, -1, 1)
    pace_limit: float = _number(2.0, 1, 8)
    quantise: float = _number(0.0, 0, 1)
    subdivision: int = _number(4, 1, 24)
    pulse_confidence: float = _number(0.4, 0, 1)
    rest_below: float = _number(0.12)
    rest_after_silence_s: float = _number(2.0)
    max_transposition: int = _number(6, 0, 6)
    transposition_penalty: float = _number(0.03)
    temperature: float = _number(0.03)
    memory_gestures: int = _number(32, 1, 64)
    chroma_s: float = _number(1.0, 0.001)
    live_weight: float = _number(0.8, 0, 1)
    live_gestures: int = _number(2000, 1, 4000)
    live_s: float = _number(600.0)
    use: tuple[Region, ...] = ()
    avoid: tuple[Region, ...] = ()
    voices: tuple[VoiceSettings, ...] = VOICES[:1]
    direction: Direction = Direction()
    scenario: Scenario | None = None

    def __post_init__(self) -> None:
        _check_ranges(self)
        if not self.total_weight:
            raise InputError("one of the weights in the partner settings must be positive")
        if self.high_pitch - self.low_pitch < 11:
            raise InputError("partner settings low_pitch and high_pitch must leave an octave between them")
        names = [voice.name for voice in self.voices]
        if not names or len(set(names)) < len(names):
            raise InputError(f"a partner has at least one voice, and each has another name; not {', '.join(names) or 'none'}")

    @property
    def total_weight(self) -> float:
        """Return the score of a candidate that fits in every way."""
        return self.player_weight + self.own_weight + self.continuity_weight

    @property
    def player_weight(self) -> float:
        """Return the part of it that the player speaks for."""
        tokens = self.harmonic_weight + self.percussive_weight
        return tokens + self.chroma_weight + self.rhythm_weight + self.loudness_weight

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}
        return values | {"scenario": None if self.scenario is None else self.scenario.to_dict()}

    def summary(self) -> str:
        """Return all settings in the form in which they can be set, on one line."""
        numbers = [f"{f.name}={getattr(self, f.name):g}" for f in dataclasses.fields(self) if f.metadata]
        voices = ",".join(voice.name for voice in self.voices)
        regions = [
            f"{name}=" + ",".join(f"{r.recording}:{r.start_s:g}-{r.end_s:g}" for r in getattr(self, name))
            for name in ("use", "avoid")
        ]
        return ", ".join([*numbers, *regions, f"voices={voices}", "scenario="])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return settings from `to_dict`'s values, or from a part of them; see `changed`."""
        return cls().changed(values)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return these settings with changes.

        Numbers go by their names, those of a voice as in ``bass.most_per_s``. `voices` takes names as in
        ``"melody, bass, chords"``, `use` and `avoid` take regions as in ``"0:10-20.5, 2"`` (a recording's number, and
        seconds if not all of it), ``"all"`` (none to avoid: ``"none"``), or one region as the numbers 0, 10, 20.5; `scenario`
        chords as in ``"C Am F G"``; all take what `to_dict` gives, too.

        Raises
        ------
        InputError
            Names what is unknown, of the wrong type or out of range.
        """
        known = {f.name: f for f in dataclasses.fields(self)}
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
            elif name in known:
                values[name] = _checked_number(name, value, known[name].default)
            elif "." not in name:
                raise InputError(f"unknown partner setting {name!r}; there are: {', '.join(known)}")
        voices = values.get("voices", self.voices)
        for name, value in changes.items():
            if "." in name:
                voices = values["voices"] = _with_voice_setting(voices, name, value)
        return dataclasses.replace(self, **values)


def _checked_number(name: str, value: object, default: object) -> int | float:
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        kind = "a whole number" if whole else "a number"
        raise InputError(f"partner setting {name} must be {kind} like {default}, not {value!r}")
    if isinstance(value, int) and abs(value) > _LARGEST:  # before it is made a float, which may be too small for it
        raise InputError(f"partner setting {name} must be a number up to {_LARGEST}")
    return value if whole else float(value)


def _voices(value: object) -> tuple[VoiceSettings, ...]:
    if isinstance(value, str):
        names = [name.strip() for name in value.split(",")]
        named = {voice.name: voice for voice in VOICES}
        unknown = [name for name in names if name not in named]
        if unknown:
            raise InputError(f"there is no voice {unknown[0]!r}; there are: {', '.join(named)}")
        return tuple(named[name] for name in names)
    known = {f.name: f for f in dataclasses.fields(VoiceSettings)}
    voices = []
    for entry in value if isinstance(value, list | tuple) else [value]:
        if isinstance(entry, VoiceSettings):
            voices.append(entry)
            continue
        if not isinstance(entry, Mapping) or not set(entry) <= set(known):
            raise InputError(f"partner setting voices takes names such as melody,bass,chords, or tables, not {entry!r}")
        own: dict[str, Any] = {}
        for name, setting in entry.items():
            text = isinstance(known[name].default, str)
            if text and not isinstance(setting, str):
                raise InputError(f"a voice's {name} must be a word, not {setting!r}")
            own[name] = setting if text else _checked_number(f"voices.{name}", setting, known[name].default)
        voices.append(VoiceSettings(**own))
    return tuple(voices)


def _with_voice_setting(voices: tuple[VoiceSettings, ...], name: str, value: object) -> tuple[VoiceSettings, ...]:
    who, _, what = name.partition(".")
    known = {f.name: f.default for f in dataclasses.fields(VoiceSettings) if f.metadata}
    if who not in [voice.name for voice in voices]:
        raise InputError(f"unknown partner setting {name!r}: the voices are {', '.join(v.name for v in voices)}")
    if what not in known:
        raise InputError(f"unknown partner setting {name!r}; a voice has: {', '.join(known)}")
    changes: dict[str, Any] = {what: _checked_number(name, value, known[what])}
    return tuple(dataclasses.replace(v, **changes) if v.name == who else v for v in voices)


def _direction(value: object) -> Direction:
    if isinstance(value, Direction):
        return value
    known = [f.name for f in dataclasses.fields(Direction)]
    if not isinstance(value, Mapping) or not all(name in known and isinstance(text, str) for name, text in value.items()):
        raise InputError(f"partner setting direction is a table of texts: {', '.join(known)}; not {value!r}")
    return Direction(**value)


def _whole_if_it_is(value: Any) -> int | float:
    number: int | float = value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _regions(name: str, value: object) -> tuple[Region, ...]:
    if isinstance(value, str):
        if value.strip() == ("all" if name == "use" else "none"):
            return ()
        regions = []
        for part in filter(None, (p.strip() for p in value.split(","))):
            match = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}(?:\.\d+)?)-(\d{1,9}(?:\.\d+)?))?", part)
            if match is None:
                raise InputError(f"partner setting {name} takes regions such as 0:10-20.5, not {part!r}")
            span = {} if match[2] is None else {"start_s": float(match[2]), "end_s": float(match[3])}
            regions.append(Region(recording=int(match[1]), **span))
        return tuple(regions)
    entries: Sequence[object] = value if isinstance(value, list | tuple) else [value]
    if 1 <= len(entries) <= 3 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in entries):
        # One region as controllers send it: a recording's number, from where on, and up to where.
        entries = [dict(zip(("recording", "start_s", "end_s"), map(_whole_if_it_is, entries), strict=False))]
    out = []
    for entry in entries:
        if isinstance(entry, Region):
            out.append(entry)
            continue
        if not isinstance(entry, Mapping) or not {"recording"} <= set(entry) <= {"recording", "start_s", "end_s"}:
            raise InputError(f"partner setting {name} takes regions such as 0:10-20.5, not {entry!r}")
        number = _checked_number(f"{name}.recording", entry["recording"], 0)
        times = {k: _checked_number(f"{name}.{k}", v, 0.0) for k, v in entry.items() if k != "recording"}
        out.append(Region(recording=int(number), **times))
    return tuple(out)
