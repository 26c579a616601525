"""Repeatability: whether training again gives the same bytes, and another number of threads the same tokens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from musichal.evaluate.verification import Check
from musichal.memory.container import read_container
from musichal.memory.partner_file import PartnerModel, load_partner

_READ_BYTES = 1 << 20

Retrain = Callable[[int], Path]
"""Train again with so many threads, in a process of its own, and return the new partner file."""


def repeatability_checks(
    model: PartnerModel, partner: Path, retrain: Retrain, *, same_installation: bool, processors: int
) -> tuple[Check, ...]:
    """Return the checks of training again with one thread and with two.

    `retrain` makes partners with the `trained_with` of the first, so that equal training makes equal bytes. On another
    installation than the one that trained the partner, other bytes inform; they are no fault.
    """
    once, twice = retrain(1), retrain(2)
    again = same_bytes(partner, once)
    other = differing_members(partner, once) if not again else ()
    excuse = "" if same_installation else "; this is not the installation that trained it"
    bytes_check = Check(
        group="repeatability",
        name="trained again",
        expected="the same bytes",
        found="the same bytes" if again else "other bytes",
        passed=True if again else (False if same_installation else None),
        detail=f"{partner.stat().st_size} bytes" if again else f"differs in {', '.join(other)}{excuse}",
        cause="" if again or not same_installation else "training depends on something beside recordings, spec and versions",
        values={"identical": again, "differs_in": list(other)},
    )
    return bytes_check, _threads(model, once, twice, processors=processors)


def _threads(model: PartnerModel, once: Path, twice: Path, *, processors: int) -> Check:
    first, second = load_partner(once), load_partner(twice)
    same = [
        np.array_equal(a.tokens, b.tokens) and np.array_equal(a.frame_samples, b.frame_samples)
        for a, b in zip(first.recordings, second.recordings, strict=True)
    ]
    asked = processors > 1
    return Check(
        group="repeatability",
        name="trained with one thread and with two",
        expected="the same tokens",
        found="the same tokens" if all(same) else f"other tokens in {same.count(False)} of {len(same)} recordings",
        passed=all(same) if asked or not all(same) else None,
        detail=("the same bytes, too" if same_bytes(once, twice) else "the files differ otherwise")
        if asked
        else "there is one processor here, and libraries may use no second thread on it",
        cause="" if all(same) else "a sum whose order depends on the number of threads decides a token",
        values={"same": same, "processors": processors, "frames": sum(len(r.frame_samples) for r in model.recordings)},
    )


def same_bytes(first: Path, second: Path) -> bool:
    """Return whether two files hold the same bytes."""
    if first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while part := one.read(_READ_BYTES):
            if part != other.read(_READ_BYTES):
                return False
    return True


def differing_members(first: Path, second: Path) -> tuple[str, ...]:
    """Return the names of what differs between two partner files, the manifest last."""
    one, other = (read_container(path) for path in (first, second))
    digests = [{name: member.sha256 for name, member in opened.members.items()} for opened in (one, other)]
    names = sorted(name for name in digests[0].keys() | digests[1] if digests[0].get(name) != digests[1].get(name))
    return (*names, *(["manifest"] if one.content != other.content or not names else []))
