"""Chords and keys in what is played: two hidden Markov models over cells of chroma.

The 24 chords are the major and minor triads, the 24 keys are major and minor. A chord mostly stays, and goes on to one that
shares notes with it or lies a fifth away; a key stays for long (Sheh & Ellis, ISMIR 2003; key profiles: Temperley, Music
Perception 17(1), 1999). Live, both are followed forwards; a memory is in view as a whole, so that what comes later counts too.

Chords and keys are numbered 0 to 11 major from C, 12 to 23 minor.
"""

import re

import numpy as np

from musichal.arrays import AnyArray, Float64, Int64, rounded
from musichal.errors import InputError
from musichal.partner.harmony import unit_chroma
from musichal.text import pitch_name

CHORDS = 24
MINOR = 12
"""A minor chord is its root plus this."""
_CHORD = re.compile(r"([A-G])(##?|bb(?!\d)|b?)((?i:mi)|m(?!a(?!dd))|-)?([A-Za-z0-9#+°/-]*)")  # CM7 and Cma7 are major
_NO_CHORD = re.compile(r"B|(?i:is|es|s(?!us))")  # after a root: AB is no A, Cis is no C, and Es no E
TYPOGRAPHY = str.maketrans(
    {**dict.fromkeys("−–—", "-"), **dict.fromkeys("│｜¦", "|"), **dict.fromkeys("ΔΔ△", "maj7"), **dict.fromkeys("øØ", "m7b5")}
    | {"♯": "#", "♭": "b", "º": "°"}
)
"""What programs that set music, and text editors that correct, write in chords."""
_MAJOR, _MINOR = (0, 4, 7), (0, 3, 7)
_STAYS, _KEY_STAYS = 0.8, 0.98  # in each cell
_FOREIGN, _KEY_FOREIGN = 0.3, 0.2  # share of what is played that is none of the chord's, or the key's
_WEIGHT = 2.0  # of what is heard in a cell
_KEYS = (
    (5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0),
    (5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0),
)


def chord_name(chord: int) -> str:
    """Return the name of a chord, as "C" or "F#m"."""
    return pitch_name(12 + chord % 12)[:-1] + "m" * int(chord >= 12)


def key_name(key: int) -> str:
    """Return the name of a key, as "C major"."""
    return chord_name(key % 12) + (" minor" if key >= 12 else " major")


def key_number(name: str) -> int:
    """Return the number of a key by its name, in any spelling, as "Bb major"."""
    return _root(name[0], name[1]) + MINOR * name.endswith(" minor")


def chord_number(name: str) -> int:
    """Return the number of a chord such as C, F#m, Bbmaj7 or Dm7: its root, plus 12 if it is minor.

    What is added to the triad is not told apart. Raises `InputError` for what is no chord.
    """
    match = _CHORD.fullmatch(name.strip().translate(TYPOGRAPHY))
    if match is None or _NO_CHORD.match(match[4]):
        raise InputError(f"{name!r} is no chord such as C, F#m or Bb7")
    minor = match[3] is not None or match[4].lower().startswith(("dim", "°"))
    return _root(match[1], match[2]) + MINOR * minor


def _root(step: str, sign: str) -> int:
    return ("C D EF G A B".index(step) + sign.count("#") - sign.count("b")) % 12


def _emissions(profiles: Float64, foreign: float) -> Float64:
    shares = np.concatenate([[np.roll(profile, root) for root in range(12)] for profile in profiles])
    return np.asarray(np.log((1 - foreign) * shares / shares.sum(axis=1, keepdims=True) + foreign / 12))


def _transitions(stays: float) -> Float64:
    """Return the chance of each chord after each, shape (24, 24)."""
    shared = TONES @ TONES.T
    fifths = np.abs(np.arange(CHORDS)[:, None] % 12 - np.arange(CHORDS) % 12) % 12
    near = 0.3 + shared + 1.5 * ((fifths == 5) | (fifths == 7))
    np.fill_diagonal(near, 0)
    return np.asarray(stays * np.eye(CHORDS) + (1 - stays) * near / near.sum(axis=1, keepdims=True))


TONES: Float64 = np.concatenate(
    [[np.isin(np.arange(12), [(root + i) % 12 for i in triad]) for root in range(12)] for triad in (_MAJOR, _MINOR)]
).astype(np.float64)
"""Which pitch classes each chord has, shape (24, 12)."""
TONES.setflags(write=False)
_EMISSIONS: Float64 = np.stack([_emissions(TONES[[0, 12]], _FOREIGN), _emissions(np.array(_KEYS) ** 2, _KEY_FOREIGN)])
_MOVES: Float64 = np.stack([_transitions(_STAYS), _transitions(_KEY_STAYS)])


class ChordFollower:
    """Follows chord and key of a player, cell by cell; both are probabilities, shape (24,)."""

    def __init__(self) -> None:
        self._likely: Float64 = np.full((2, CHORDS), 1 / CHORDS)

    @property
    def chords(self) -> Float64:
        """The probability of each chord."""
        return self._likely[0]

    @property
    def keys(self) -> Float64:
        """The probability of each key."""
        return self._likely[1]

    def step(self, played: Float64) -> None:
        """Move on by a cell in which `played` (12,) was heard, the share of each pitch class; nothing is zero."""
        ahead = np.einsum("mi,mij->mj", self._likely, _MOVES) * np.exp(_WEIGHT * (_EMISSIONS @ played))
        self._likely = ahead / ahead.sum(axis=1, keepdims=True)


def chords_of(played: Float64) -> Float64:
    """Return the probability of each chord in each cell of a recording, shape (n, 24), from shares of pitch classes (n, 12)."""
    return _smoothed(played, 0)


def keys_of(played: Float64) -> Float64:
    """Return the probability of each key, as `chords_of` does for chords."""
    return _smoothed(played, 1)


def _smoothed(played: Float64, layer: int) -> Float64:
    moves = _MOVES[layer]
    likely = np.exp(_WEIGHT * (played @ _EMISSIONS[layer].T))
    forwards, backwards = np.empty_like(likely), np.empty_like(likely)
    before, behind = np.full(CHORDS, 1 / CHORDS), np.ones(CHORDS)
    for i in range(len(likely)):
        before = (before @ moves) * likely[i]
        before = forwards[i] = before / before.sum()
    for i in reversed(range(len(likely))):
        backwards[i] = behind
        behind = moves @ (behind * likely[i])
        behind = behind / behind.sum()
    both = forwards * backwards
    return both / both.sum(axis=1, keepdims=True)


def chord_labels(units: AnyArray) -> Int64:
    """Return the chord that each unit chroma fits best, `CHORDS` for none; shape (n,)."""
    fit = rounded(np.asarray(units, dtype=np.float64) @ unit_chroma(TONES).T)
    return np.where(fit.max(axis=1, initial=0.0) > 0.3, np.argmax(fit, axis=1), CHORDS).astype(np.int64)
