"""From moments to the frames of a sound system."""


class FrameLine:
    """From moments to frames: the line that JACK's reports lie about, followed slowly.

    `report` gives it (frame of the cycle's start, the moment of it); the first reports are averaged, later ones move the
    line by a 64th of their distance, and one that is off by more than `jump_s` (frames were lost) starts it anew.
    """

    def __init__(self, rate_hz: float, *, slowness: int = 64, jump_s: float = 0.005) -> None:
        self._rate_hz, self._slowness, self._jump_s = rate_hz, slowness, jump_s
        self._anchor, self._reports = (0, 0.0), 0

    def report(self, frame: int, moment_s: float) -> None:
        """Learn that the cycle at `frame` began at `moment_s`."""
        before_frame, before_s = self._anchor
        expected_s = before_s + (frame - before_frame) / self._rate_hz
        off_s = moment_s - expected_s
        if self._reports and abs(off_s) > self._jump_s:
            self._reports = 0
        self._reports = min(self._reports + 1, self._slowness)
        # One assignment: another thread may be asking.
        self._anchor = frame, expected_s + off_s / self._reports if self._reports > 1 else moment_s

    def frame_at(self, moment_s: float) -> int:
        """Return the frame nearest to a moment."""
        frame, anchor_s = self._anchor
        return frame + round((moment_s - anchor_s) * self._rate_hz)
