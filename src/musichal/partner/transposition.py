"""The transposition that memory is played in: chosen where a phrase begins, and kept unless the harmony moves."""

from dataclasses import dataclass

from musichal.arrays import Float64, Int64

_ANOTHER = 2.0  # so many times likelier must another one be where a phrase begins
_MOVED, _SURELY = 6.0, 0.6  # so many times likelier, and so likely, inside of one


@dataclass(frozen=True)
class KeptTransposition:
    """A `transposition` in semitones, and `why` it is that one, in words."""

    transposition: int = 0
    why: str = ""

    def at(self, likely: Float64, allowed: Int64, *, penalty: float, begins: bool) -> "KeptTransposition":
        """Return the transposition to play in now, one of those `allowed` (t,).

        Memory moved up by t is in the player's key with the probability `likely` (12,), of which each semitone takes off the
        share `penalty`. A phrase that `begins` may take another one; else it takes one only where the harmony moved.
        """
        worth = {t: float(likely[t % 12]) * max(0.0, 1 - penalty * abs(t)) for t in allowed.tolist()}
        best = max(worth, key=lambda t: (worth[t], -abs(t)))
        kept = worth.get(self.transposition, 0.0)
        if best == self.transposition:
            return KeptTransposition(best, "" if begins else self.why)
        if begins and worth[best] > _ANOTHER * kept:
            return KeptTransposition(best, f"it fits your key ({likely[best % 12]:.0%} likely)")
        if worth[best] > _MOVED * kept and likely[best % 12] >= _SURELY:
            return KeptTransposition(best, f"your harmony has moved ({likely[best % 12]:.0%} likely)")
        return self if self.transposition in worth else KeptTransposition(best)
