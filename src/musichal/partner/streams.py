"""Strings in which places of a memory are found again, besides its tokens: rhythm and loudness as symbols.

Rhythm is the ratio of an inter-onset interval to the one before it, in half octaves (a ratio of √2): tempo is not in it.
Loudness is the step of the level from gesture to gesture, in steps of 3 dB: how loud a room or a recording is, is not in it.
Both are made by the same functions for a memory and for the player.
"""

from collections.abc import Reversible

import numpy as np

from musichal.arrays import AnyArray, Int64

LONGEST_IOI_S = 3.0
"""A longer interval is a pause: rhythm begins anew behind it."""
RHYTHM_EQUAL = 4
RHYTHM_BREAK = 9
CONTOUR_LEVEL = 3
CONTOUR_BREAK = 7
_STEP_DB = 3.0
_GAP_S, _LEAST_SPAN_S = 1.2, 1.0


def rhythm_symbols(iois_s: AnyArray) -> Int64:
    """Return the symbol of each interval, shape (n,): 0 to 8 for a ratio of 1/4 to 4 to the one before, or a break.

    NaN stands for an interval that is not there (before the first onset of a recording).
    """
    iois = np.asarray(iois_s, dtype=np.float64)
    before = np.concatenate([[np.nan], iois[:-1]])[: len(iois)]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        known = (iois > 0) & (before > 0) & (iois <= LONGEST_IOI_S) & (before <= LONGEST_IOI_S)
        steps = np.rint(2 * np.log2(np.where(known, iois, 1) / np.where(known, before, 1)))
    return np.where(known, np.clip(steps, -4, 4) + RHYTHM_EQUAL, RHYTHM_BREAK).astype(np.int64)


def rhythm_symbol(before_s: float | None, ioi_s: float | None) -> int:
    """Return the symbol of one interval after another."""
    if before_s is None or ioi_s is None or not (0 < before_s <= LONGEST_IOI_S and 0 < ioi_s <= LONGEST_IOI_S):
        return RHYTHM_BREAK
    # Of two intervals next to nothing the ratio can be 0 or infinite.
    ratio = min(8.0, max(0.125, ioi_s / before_s))
    return min(4, max(-4, int(np.rint(2 * np.log2(ratio))))) + RHYTHM_EQUAL


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
    if was_silent or silent:
        return CONTOUR_BREAK
    return min(3, max(-3, round((float(level_db) - float(before_db)) / _STEP_DB))) + CONTOUR_LEVEL


def lately_hz(times_s: Reversible[float], now_s: float, *, window_s: float) -> float:
    """Return how many of some times in order there were a second, of late.

    Counted are those behind the last gap, as far as `window_s` back: who begins again is as dense as they begin. While nothing
    comes, the rate falls with one over that time.
    """
    count, first_s, last_s = 0, now_s, now_s
    for time_s in reversed(times_s):
        if time_s > now_s:
            continue
        if count and first_s - time_s > _GAP_S:
            break
        if now_s - time_s > window_s:
            # They have gone on for longer than the window is.
            first_s = now_s - window_s if count else first_s
            break
        last_s = last_s if count else time_s
        count, first_s = count + 1, time_s
    if not count:
        return 0.0
    span_s = max(_LEAST_SPAN_S, now_s - first_s)
    return min(count / span_s, 1 / max(_LEAST_SPAN_S, now_s - last_s)) if now_s - last_s > _GAP_S else count / span_s
