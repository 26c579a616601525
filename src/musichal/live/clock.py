"""The clock on stage: from samples of the input to `time.monotonic` and back.

The input's samples are the clock of all that is heard and decided; ports and screens live in `time.monotonic`. `InputClock`
maps one to the other by a filtered line (`audio.arrivals`): jitter of the blocks does not pass, the device's true rate does.
Where the two part for good (the system slept, or sound was lost and nobody counted it), it takes a new anchor and says so.
"""

from dataclasses import dataclass

from musichal.live.input.arrivals import ArrivalFilter, Line

JUMP_S = 0.05
"""Blocks that are all later (or one that is earlier) than this are no jitter."""


@dataclass(frozen=True)
class ClockJump:
    """The map was anchored anew at `sample`, later by `by_s` than it was (earlier where negative)."""

    sample: int
    by_s: float

    @property
    def text(self) -> str:
        """Say it to a person."""
        if self.by_s > 0:
            return f"the clock jumped by {self.by_s:.2f} s: the system slept, or sound was lost; it goes on from here"
        return f"the clock ran ahead by {-self.by_s:.2f} s: the input gave more samples than time passed; it goes on from here"


class InputClock:
    """The map from input samples to `time.monotonic`; fed by one thread, read by any.

    Parameters
    ----------
    nominal_rate_hz : float
        What the device says of itself.
    jump_s : float
        From which error on the map is anchored anew.

    Notes
    -----
    The line goes through the ends of the blocks, so a sample within a block has the time at which the device took it, not that
    at which the block was handed over; the latency of the converter and of the system is not in it, for what devices say of it
    cannot be trusted. At positions in the order in which they are fed, times never decrease.
    """

    def __init__(self, nominal_rate_hz: float, *, jump_s: float = JUMP_S) -> None:
        if nominal_rate_hz <= 0:
            raise ValueError(f"a rate must be positive, not {nominal_rate_hz}")
        self.jumps: tuple[ClockJump, ...] = ()
        self._nominal_rate_hz = nominal_rate_hz
        self._jump_s = jump_s
        self._filter = ArrivalFilter(nominal_rate_hz)
        self._last_sample: int | None = None

    def update(self, sample: int, monotonic_s: float) -> ClockJump | None:
        """Take the position behind a block and the time of its arrival; return the jump, if there was one.

        Positions count lost samples too, and never decrease.
        """
        if self._last_sample is not None and sample < self._last_sample:
            raise ValueError(f"the input went back from sample {self._last_sample} to {sample}")
        before = self._filter.line
        late_s = self._filter.observe(sample, monotonic_s)
        jump = None
        if late_s is not None and abs(late_s) > self._jump_s:
            assert before is not None
            assert self._last_sample is not None
            anchor_s = max(before.time_of(sample) + late_s, before.time_of(self._last_sample))
            self._filter.restart(sample, anchor_s)
            jump = ClockJump(sample, late_s)
            self.jumps += (jump,)
        self._last_sample = sample
        return jump

    def time_of(self, sample: float) -> float:
        """Return the `time.monotonic` at which the device took a sample, or will. Raises `ValueError` before any update."""
        return self._line().time_of(sample)

    def sample_at(self, monotonic_s: float) -> float:
        """Return which sample the device took at a time, or will. Raises `ValueError` before any update."""
        return self._line().position_at(monotonic_s)

    @property
    def rate_hz(self) -> float:
        """Return the input's true rate, as far as it is known."""
        line = self._filter.line
        return 1 / line.period_s if line else self._nominal_rate_hz

    @property
    def is_running(self) -> bool:
        """Return whether anything came in yet."""
        return self._filter.line is not None

    def _line(self) -> Line:
        if self._filter.line is None:
            raise ValueError("nothing came in yet: the clock has no time")
        return self._filter.line
