"""Symbols of rhythm and loudness: what recurs of them, whatever the tempo and the level of the room.

Rhythm is the ratio of an inter-onset interval to the one before, in half octaves (a ratio of √2), without tempo. Loudness is
the step of the level from gesture to gesture, in steps of 3 dB, without the level of the room.
"""

import numpy as np

from musichal.arrays import AnyArray, Int64

LONGEST_IOI_S = 3.0
"""A longer interval is a pause: rhythm begins anew behind it."""
RHYTHM_EQUAL = 4
RHYTHM_BREAK = 9
CONTOUR_LEVEL = 3
CONTOUR_BREAK = 7
_STEP_DB = 3.0


def rhythm_symbols(iois_s: AnyArray) -> Int64:
    """Return the symbol of each interval, shape (n,): 0 to 8 for a ratio of 1/4 to 4 to the one before, or a break.

    NaN stands for a missing interval, as before the first onset of a recording.
    """
    iois = np.asarray(iois_s, dtype=np.float64)
    before = np.concatenate([[np.nan], iois[:-1]])[: len(iois)]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        known = (iois > 0) & (before > 0) & (iois <= LONGEST_IOI_S) & (before <= LONGEST_IOI_S)
        steps = np.rint(2 * np.log2(np.where(known, iois, 1) / np.where(known, before, 1)))
    return np.where(known, np.clip(steps, -4, 4) + RHYTHM_EQUAL, RHYTHM_BREAK).astype(np.int64)


def rhythm_symbol(before_s: float | None, ioi_s: float | None) -> int:
    """Return the symbol of one interval after another."""
    if before_s is None or ioi_s is None or not (0 < ioi_s <= LONGEST_IOI_S and 0 < before_s <= LONGEST_IOI_S):
        return RHYTHM_BREAK
    ratio = min(8.0, max(1 / 8, ioi_s / before_s))
    return min(4, max(-4, round(2 * float(np.log2(ratio))))) + RHYTHM_EQUAL


def contour_symbols(levels_db: AnyArray, silent: AnyArray) -> Int64:
    """Return the symbol of each gesture's level, shape (n,): 0 to 6 for a step of −9 to 9 dB or more, or a break.

    A break is the first gesture and what is silent or comes after silence.
    """
    levels = np.asarray(levels_db, dtype=np.float64)
    quiet = np.asarray(silent, dtype=bool)
    steps = np.rint(np.diff(levels, prepend=levels[:1]) / _STEP_DB)
    symbols = (np.clip(steps, -3, 3) + CONTOUR_LEVEL).astype(np.int64)
    broken = quiet | np.concatenate([[True], quiet[:-1]])[: len(quiet)]
    return np.where(broken, CONTOUR_BREAK, symbols)


def contour_symbol(before_db: float, level_db: float, *, was_silent: bool, silent: bool) -> int:
    """Return the symbol of one gesture's level after another's."""
    if silent or was_silent:
        return CONTOUR_BREAK
    return min(3, max(-3, round((level_db - before_db) / _STEP_DB))) + CONTOUR_LEVEL
