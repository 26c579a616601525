"""The likeliest course through stretches of a recording, each of which has a chance for each of some candidates."""

import numpy as np

from musichal.arrays import Float64, Int64


def log_chances(scores: Float64) -> Float64:
    """Return the logarithm of the chance of each candidate of a conditional logit; a score of minus infinity has none."""
    top = scores.max()
    if not np.isfinite(top):
        return np.zeros(len(scores))
    return np.asarray(scores - top - np.log(np.exp(scores - top).sum()))


def likeliest_course(log_chance: Float64, change: float) -> Int64:
    """Return the candidate of each stretch on the likeliest course (Viterbi); `log_chance` is (stretches, candidates).

    A change of candidate from one stretch to the next costs `change` nepers.
    """
    best, came = log_chance[0], []
    for row in log_chance[1:]:
        leap = best.max() - change
        came.append(np.where(best >= leap, np.arange(len(best)), int(best.argmax())))
        best = np.maximum(best, leap) + row
    course = [int(best.argmax())]
    for back in reversed(came):
        course.append(int(back[course[-1]]))
    return np.array(course[::-1])
