"""The table of parameters: each number that a player can set, declared once.

A field of `PartnerParameters`, `VoiceParameters` or `ModeParameters` states a parameter's name, type, default, range, unit,
group and meaning, and the two values that `musichal evaluate --effects` compares. `PARAMETERS` is the whole table, with the
settings that take words. Settings, ``--set``, OSC, controller maps, TOML files and the documentation use it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from musichal.errors import InputError
from musichal.text import unknown_name

UNLIMITED = 1_000_000
"""The upper limit of a parameter that has none of its own."""
Scope = Literal["partner", "voice", "mode"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter.

    * `name`: As in ``--set NAME=VALUE``; a voice's is set as ``bass.NAME``, a mode's is a column of its table.
    * `group`: Heading of the reference that it stands under.
    * `low`, `high`: Range, both ends included; None where the parameter takes words.
    * `unit`: "s", "dB", "semitones", …; empty for plain numbers and factors.
    * `help`: What it does, in one sentence.
    * `ends`: The lowest and the highest value that anyone would use: `musichal evaluate --effects` compares them.
    * `usual`: What a fader goes through from one end to the other, unless it is told otherwise: the range that is of use in
      music.
    * `beside`: What else must be set for the parameter to have an effect; for a mode's, ``mode`` names the mode to try it in.
    """

    name: str
    scope: Scope = "partner"
    group: str
    default: Any
    low: float | None = None
    high: float | None = None
    unit: str = ""
    help: str
    ends: tuple[Any, Any]
    usual: tuple[float, float] = (0.0, 1.0)
    beside: Mapping[str, object] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["number", "integer", "words"]:
        """Return what values it takes."""
        return "words" if self.low is None else "integer" if isinstance(self.default, int) else "number"

    @property
    def range(self) -> str:
        """Return the range in mathematical notation, as "[0, 5]" or "[0, ∞)"; empty for words."""
        if self.low is None or self.high is None:
            return ""
        return f"[{self.low:g}, " + ("∞)" if self.high == UNLIMITED else f"{self.high:g}]")

    def check(self, value: object, name: str = "") -> int | float:
        """Return `value` in the parameter's type.

        Raises `InputError` if it is not a number, not an integer where one is needed, or out of range; `name` is what the
        message calls it.
        """
        name, whole = name or self.name, self.kind == "integer"
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise InputError(f"{name} must be {'an integer' if whole else 'a number'}, got {value!r}")
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:  # not so for NaN either
            given = f"{value:g}" if isinstance(value, float) or abs(value) <= UNLIMITED else "a larger number"
            raise InputError(f"{name} must be in {self.range}, got {given}")
        return value if whole else float(value)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("ends", "beside")}
        return {**values, "kind": self.kind, "range": self.range}


def _parameter(
    default: float,
    low: float,
    high: float,
    help_: str,
    *,
    group: str,
    unit: str = "",
    ends: tuple[float, float] | None = None,
    usual: tuple[float, float] | None = None,
    beside: Mapping[str, object] | None = None,
    scope: Scope = "partner",
) -> Any:
    """Return a dataclass field that carries its `Parameter`; its name is filled in when the table is made."""
    parameter = Parameter(
        name="", scope=scope, group=group, default=default, low=low, high=high, unit=unit, help=help_, ends=ends or (low, high),
        usual=usual or ends or (low, high), beside=beside or {},
    )  # fmt: skip
    return field(default=default, metadata={"parameter": parameter})


def _weight(default: float, help_: str) -> Any:
    return _parameter(default, 0, UNLIMITED, help_, group="Weights", ends=(0.0, 3.0))


@dataclass(frozen=True, kw_only=True)
class PartnerParameters:
    """The numbers among the partner's settings; each field's `help` says what it does."""

    harmonic_weight: float = _weight(1.2, "Weight of what followed the player's last harmonic tokens.")
    percussive_weight: float = _weight(0.6, "Weight of what followed the player's last percussive tokens.")
    likeness_weight: float = _weight(2.0, "Weight of what followed where memory's last seconds are like the player's.")
    pairs_weight: float = _weight(4.5, "Weight of what others did, in a memory of pairs, where a player sounded like now.")
    chroma_weight: float = _weight(0.7, "Weight of how well a candidate fits the present harmony.")
    rhythm_weight: float = _weight(0.6, "Weight of what followed the player's last rhythm.")
    loudness_weight: float = _weight(0.2, "Weight of what followed the player's last rise and fall of loudness.")
    own_weight: float = _weight(0.2, "Weight of what followed the partner's own last choices elsewhere in memory.")
    continuity_weight: float = _weight(0.9, "Weight of going on in recorded order.")
    activation_s: float = _parameter(
        1.5, 0.01, UNLIMITED, "Time constant with which a match fades while it travels along the memory.",
        group="Matching", unit="s", ends=(0.1, 10.0),
    )  # fmt: skip
    min_context: int = _parameter(
        1, 1, UNLIMITED, "Shortest matching context, in gestures, that makes a place in memory a candidate.",
        group="Matching", unit="gestures", ends=(1, 4),
    )  # fmt: skip
    max_candidates: int = _parameter(
        48, 1, 1024, "Largest number of candidates for each kind of context.", group="Matching", ends=(1, 64)
    )
    chroma_candidates: int = _parameter(
        16, 0, 1024, "Number of candidates that are added because their harmony fits best.",
        group="Matching", ends=(0, 64), beside={"max_candidates": 1},
    )  # fmt: skip
    no_repeat: int = _parameter(
        24, 0, 10_000, "A state is not played again while it is among this many states played last.",
        group="Course", unit="states", ends=(0, 40),
    )  # fmt: skip
    jump_after: int = _parameter(
        16, 0, UNLIMITED, "After this many states in recorded order each further one counts half as much as the one before.",
        group="Course", unit="states", ends=(0, 100),
    )  # fmt: skip
    max_run: int = _parameter(
        24, 1, UNLIMITED, "After this many states in recorded order the partner must jump.",
        group="Course", unit="states", ends=(1, 100),
    )  # fmt: skip
    noteless_factor: float = _parameter(
        0.7, 0, 1, "Factor of the score of a state without notes, if the memory has notes; half as far from 1 going on.",
        group="Course",
    )  # fmt: skip
    follow_harmony: float = _parameter(
        0.4, -1, 1, "Holds back states that clash with what the player sounds now; if negative, those that fit.",
        group="Following",
    )  # fmt: skip
    tension: float = _parameter(
        0.0, 0, 1, "Share of what is played that lies outside the harmony: 0 leaves out every note that clashes, 1 none.",
        group="Following", beside={"follow_harmony": 1.0},
    )  # fmt: skip
    follow_density: float = _parameter(
        0.2, -1, 1, "Holds back states that are sparser or denser than the player; if negative, those that are alike.",
        group="Following",
    )  # fmt: skip
    follow_loudness: float = _parameter(
        0.2, -1, 1, "Holds back states of another loudness than the player's; if negative, those of the same.",
        group="Following",
    )  # fmt: skip
    dynamics: float = _parameter(
        0.3, -1, 1, "How far velocities follow the player's loudness instead of the recording's; if negative, oppose it.",
        group="Following",
    )  # fmt: skip
    gain_db: float = _parameter(
        0.0, -40, 40, "Gain of everything that is played.",
        group="Range and loudness", unit="dB", ends=(-20.0, 20.0), usual=(-20.0, 6.0),
    )  # fmt: skip
    low_pitch: int = _parameter(
        0, 0, 127, "Lowest pitch; states with lower notes are held back, and such notes move by octaves.",
        group="Range and loudness", unit="MIDI pitch", ends=(0, 72),
    )  # fmt: skip
    high_pitch: int = _parameter(
        127, 0, 127, "Highest pitch; states with higher notes are held back, and such notes move by octaves.",
        group="Range and loudness", unit="MIDI pitch", ends=(50, 127),
    )  # fmt: skip
    follow_register: float = _parameter(
        0.0, -1, 1, "Holds back states in another register than the player's; if negative, those in the same.",
        group="Following",
    )  # fmt: skip
    phrasing: float = _parameter(
        0.0, 0, 1, "Holds back phrases that do not begin and end where their recording's phrases do.",
        group="Time", beside={"direction": {"mode": "couple"}},
    )  # fmt: skip
    pace: float = _parameter(
        0.0, -1, 1, "How far recorded time is stretched to the player's pace; if negative, against it.", group="Time"
    )
    pace_limit: float = _parameter(
        2.0, 1, 8, "Largest factor by which `pace` stretches or shortens time.",
        group="Time", ends=(1.0, 4.0), beside={"pace": 1.0},
    )  # fmt: skip
    quantise: float = _parameter(
        0.0, 0, 1, "How far notes move onto the pulse of the clock or, without a clock, of the player.", group="Time"
    )
    subdivision: int = _parameter(
        4, 1, 24, "Number of places in a beat that `quantise` moves notes to.",
        group="Time", ends=(1, 8), beside={"quantise": 1.0},
    )  # fmt: skip
    pulse_confidence: float = _parameter(
        0.4, 0, 1, "Confidence from which on the player's pulse is gone by in full.", group="Time"
    )
    beat_weight: float = _parameter(
        1.5,
        0,
        100,
        "How sharply places in memory are held back that lie elsewhere in the beat.",
        group="Time",
        ends=(0.0, 10.0),
    )
    beat_offset: float = _parameter(
        0.0, 0, 1, "Plays by this part of a beat behind memory's place in the beat; 0.5 is the off-beat.",
        group="Time", unit="beats", ends=(0.0, 0.5), beside={"time": "pulse"},
    )  # fmt: skip
    latency_ms: float = _parameter(
        0.0, 0, 1000, "How much earlier notes on the pulse are sent than they are to sound; live: `--latency` and the input's.",
        group="Time", unit="ms", ends=(0.0, 200.0), beside={"quantise": 1.0, "subdivision": 1},
    )  # fmt: skip
    rest_below: float = _parameter(
        0.06, 0, UNLIMITED, "Rests if less than this share of what the player can contribute speaks for the best candidate.",
        group="Rests", ends=(0.0, 0.9),
    )  # fmt: skip
    rest_after_silence_s: float = _parameter(
        2.0, 0, UNLIMITED, "Rests once the player has been silent for this long.", group="Rests", unit="s", ends=(0.1, 100.0)
    )
    max_transposition: int = _parameter(
        6,
        0,
        6,
        "Largest transposition up or down; 6 allows all twelve.",
        group="Transposition",
        unit="semitones",
        beside={"scenario": "B E A"},
    )
    transposition_penalty: float = _parameter(
        0.03, 0, UNLIMITED, "What each semitone takes off a transposition's chance, and off the chroma influence.",
        group="Transposition", ends=(0.0, 0.5), beside={"scenario": "B E A"},
    )  # fmt: skip
    temperature: float = _parameter(
        0.03, 0, 5,
        "0 takes the best candidate; above 0, candidates are drawn with probability exp(score / best score / temperature).",
        group="Choice", ends=(0.0, 1.0), usual=(0.0, 0.3),
    )  # fmt: skip
    floor: float = _parameter(
        0.5, 0, 1, "Candidates with less than this part of the best score are never drawn.",
        group="Choice", ends=(0.0, 1.0), beside={"temperature": 1.0},
    )  # fmt: skip
    memory_gestures: int = _parameter(
        32, 1, 64, "Number of the player's last gestures that are matched.", group="Matching", unit="gestures", ends=(1, 32)
    )
    chroma_s: float = _parameter(
        1.0, 0.001, UNLIMITED, "Time constant of the harmony that candidates are fitted to.",
        group="Matching", unit="s", ends=(0.02, 30.0),
    )  # fmt: skip
    live_weight: float = _parameter(
        0.8,
        0,
        1,
        "Factor of the score of the player's own gestures of this performance; 0 learns nothing.",
        group="Learning",
        beside={"likeness_weight": 0.0, "continuity_weight": 0.0},
    )
    live_gestures: int = _parameter(
        2000, 1, 4000, "Largest number of the player's last gestures that can be played.",
        group="Learning", unit="gestures", ends=(1, 2000), beside={"live_weight": 1.0, "temperature": 0.3},
    )  # fmt: skip
    live_s: float = _parameter(
        600.0, 0, UNLIMITED, "How far back the player's gestures that can be played may lie.",
        group="Learning", unit="s", ends=(0.0, 600.0), beside={"live_weight": 1.0, "temperature": 0.3},
    )  # fmt: skip


def _of_voice(default: float, low: float, high: float, help_: str, *, ends: tuple[float, float], unit: str = "") -> Any:
    return _parameter(default, low, high, help_, group="Voices", unit=unit, ends=ends, scope="voice")


@dataclass(frozen=True, kw_only=True)
class VoiceParameters:
    """The numbers among a voice's settings."""

    low_pitch: int = _of_voice(
        0, 0, 127, "Lowest pitch; lower notes move by octaves.", ends=(0, 41), unit="MIDI pitch"
    )  # fmt: skip
    high_pitch: int = _of_voice(
        127, 0, 127, "Highest pitch; higher notes move by octaves.", ends=(39, 96), unit="MIDI pitch"
    )  # fmt: skip
    most_per_s: float = _of_voice(
        0.0, 0, 1000, "Largest number of attacks; 0 is as many as the memory has.", ends=(0.5, 0.0), unit="1/s"
    )
    gain_db: float = _of_voice(0.0, -40, 40, "Gain of the voice.", ends=(-20.0, 20.0), unit="dB")
    hold: float = _of_voice(
        0.0, 0, 1, "How far notes are held, from their own length to the end of what was chosen.", ends=(0.0, 1.0)
    )
    mute: int = _of_voice(0, 0, 1, "1 plays nothing in this voice.", ends=(0, 1))
    solo: int = _of_voice(0, 0, 1, "1 plays nothing in the voices without it.", ends=(0, 1))


def _of_mode(
    default: float, low: float, high: float, help_: str, *, mode: str, unit: str = "", ends: tuple[float, float] | None = None
) -> Any:
    return _parameter(
        default, low, high, help_, group="Modes", unit=unit, ends=ends, beside={"mode": mode}, scope="mode"
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModeParameters:
    """The numbers among a mode's columns."""

    phrase: float = _of_mode(
        1.0, 0.1, 10.0, "Length of phrases, as a factor of the recordings'.", mode="couple", ends=(0.3, 5.0)
    )
    breath: float = _of_mode(
        1.0, 0.0, 10.0, "Length of the pauses between phrases, as a factor of the recordings'; at most 6 s.", mode="couple"
    )
    patience_s: float = _of_mode(
        9.0, 1.0, 600.0, "How long it waits for the end of the player's phrase.", mode="mirror", unit="s", ends=(1.0, 30.0)
    )
    recall: float = _of_mode(
        0.0,
        0.0,
        1.0,
        "How far an answer goes back over the player's phrase: 0 to its end only, 1 over all of it.",
        mode="mirror",
    )
    returns: float = _of_mode(0.0, 0.0, 1.0, "Probability that a phrase brings a motif back.", mode="couple")


def table_of(owner: type) -> dict[str, Parameter]:
    """Return the parameters that the fields of a dataclass declare, by name."""
    fields = {f.name: f.metadata.get("parameter") for f in dataclasses.fields(owner)}
    return {name: dataclasses.replace(p, name=name) for name, p in fields.items() if p is not None}


def _words(name: str, default: str, help_: str, ends: tuple[object, object], group: str = "Material") -> Parameter:
    return Parameter(name=name, group=group, default=default, help=help_, ends=ends)


def _column(name: str, default: str, help_: str, mode: str, ends: tuple[str, str], unit: str = "") -> Parameter:
    return Parameter(
        name=name, scope="mode", group="Modes", default=default, unit=unit, help=help_, ends=ends, beside={"mode": mode}
    )  # fmt: skip


NUMBERS: Mapping[str, Parameter] = MappingProxyType(table_of(PartnerParameters))
"""The partner's parameters that take numbers, by name."""
VOICE_NUMBERS: Mapping[str, Parameter] = MappingProxyType(table_of(VoiceParameters))
"""A voice's, by name without the voice."""
MODE_NUMBERS: Mapping[str, Parameter] = MappingProxyType(table_of(ModeParameters))
"""A mode's."""
WORDS: Mapping[str, Parameter] = MappingProxyType(
    {
        p.name: p
        for p in (
            _words("use", "all", 'Regions of the recordings to play from, as "0:10-20.5, 2" or "all".', ((), "0:0-3")),
            _words("avoid", "none", 'Regions not to play from, as "0:10-20.5" or "none".', ((), "0:0-5")),
            _words(
                "voices", "all", "What plays the notes: names of all, melody, bass, chords and drums, as melody,bass.",
                ("all", "melody,bass,chords"),
            ),
            _words(
                "time", "auto", "How far it goes by the pulse: auto as far as that is sure, pulse always, free never.",
                ("free", "pulse"), group="Time",
            ),
            _words("scenario", "", 'Chords to follow, as "C Am F G"; empty for none.', ("", "B E A")),
        )
    }
)  # fmt: skip
"""The partner's settings that take words, by name."""
MODE_WORDS: Mapping[str, Parameter] = MappingProxyType(
    {
        p.name: p
        for p in (
            _column("turn", "along", "When it plays: along, answer, own or rest.", "couple", ('"along"', '"own"')),
            _column(
                "trigger", "own end", "What starts its next gesture: onset, own end, phrase end or never.", "couple",
                ('"own end"', '"onset"'),
            ),
            _column(
                "stay_s", "[30, 90]", "Shortest and longest stay before the mode changes by itself.", "auto",
                ("[1, 2]", "[60, 90]"), "s",
            ),
            _column(
                "next", "{}", "Modes that may come next, and how likely, as { couple = 2, mirror = 1 }.", "auto",
                ("{ rest = 1 }", "{ lead = 1 }"),
            ),
        )
    }
)  # fmt: skip
"""A mode's columns that do not take one number."""
PARAMETERS: tuple[Parameter, ...] = tuple(
    parameter for table in (NUMBERS, WORDS, VOICE_NUMBERS, MODE_NUMBERS, MODE_WORDS) for parameter in table.values()
)
"""The whole table."""


def setting(name: str) -> Parameter:
    """Return the parameter of a setting's name, such as ``temperature``, ``voices`` or ``bass.low_pitch``.

    Raises `InputError` if there is none; the message lists the nearest names.
    """
    voice, _, own = name.rpartition(".")
    found = VOICE_NUMBERS.get(own) if voice else NUMBERS.get(name) or WORDS.get(name)
    if found is None:
        hint = "`musichal parameters` lists them"
        raise unknown_name("setting", name, [f"{voice}.{n}" for n in VOICE_NUMBERS] if voice else [*NUMBERS, *WORDS], hint=hint)
    return found
