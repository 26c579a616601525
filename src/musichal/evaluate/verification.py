"""The answer of `musichal verify`: a list of checks in groups, and the figures and pictures' data behind them.

Conventions
-----------
A check says what was expected and what was found, both as short texts for a person; `values` has the same as plain numbers
for a program. `passed` is None where a check only informs. Shares are from 0 to 1, times in seconds from the start of a
recording, positions in samples at the spec's rate, sources in the order of `SOURCES`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from musichal.arrays import Int16, Int64
from musichal.evaluate.token_diversity import Diversity

GROUPS = ("count", "parity", "diversity", "shift", "frame scaling", "repeatability", "spec")
"""The groups of checks, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was asked.

    `group` is one of `GROUPS`, `name` says what was asked, `expected` and `found` are texts, `passed` is None for
    information only. `detail` is a sentence more, `cause` the likely cause of a failure; both may be empty. `values` holds
    plain JSON values.
    """

    group: str
    name: str
    expected: str
    found: str
    passed: bool | None
    detail: str = ""
    cause: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self) | {"values": dict(self.values)}


@dataclass(frozen=True, kw_only=True)
class HeardRecording:
    """A recording as the partner holds it beside the same recording heard live, now.

    `frame_samples` (n,) are the positions of the stored frames, `stored_tokens` (sources, n); `live_frame_samples` (m,) and
    `live_tokens` (sources, m) are what live hearing gives. For a recording that the partner does not hold, the stored
    arrays are those of its first hearing (in blocks of one second) and `is_new` is True.
    """

    name: str
    duration_s: float
    is_new: bool
    frame_samples: Int64
    stored_tokens: Int16
    live_frame_samples: Int64
    live_tokens: Int16

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the streams."""
        return {
            "name": self.name,
            "duration_s": self.duration_s,
            "is_new": self.is_new,
            "frames": int(self.frame_samples.shape[0]),
            "live_frames": int(self.live_frame_samples.shape[0]),
        }


@dataclass(frozen=True, kw_only=True)
class DiversityRow:
    """One way of hearing in the table of diversity: `label` for a person, `stretch_s` of sound, one figure per source.

    `histograms` has one row of counts per source, each as long as the vocabulary; silence is left out.
    """

    label: str
    stretch_s: float
    diversity: tuple[Diversity, ...]
    histograms: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class ShiftRow:
    """How far tokens depend on the grid: `shares` per source of frame pairs that agree, for one offset."""

    offset_samples: int
    offset_s: float
    shares: tuple[float, ...]
    pairs: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Everything together.

    `partner` is the file's name, `fingerprint` its spec's. `complete` is False where something was left out: after
    `--quick`, or because there was nothing to hear.
    """

    partner: str
    fingerprint: str
    sample_rate_hz: int
    complete: bool
    checks: tuple[Check, ...]
    recordings: tuple[HeardRecording, ...]
    diversity: tuple[DiversityRow, ...]
    shift: tuple[ShiftRow, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """Return the checks that failed."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def group(self, name: str) -> tuple[Check, ...]:
        """Return the checks of one group, in order."""
        return tuple(check for check in self.checks if check.group == name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "partner": self.partner,
            "fingerprint": self.fingerprint,
            "sample_rate_hz": self.sample_rate_hz,
            "complete": self.complete,
            "passed": self.passed,
            "checks": [check.to_dict() for check in self.checks],
            "recordings": [recording.to_dict() for recording in self.recordings],
            "diversity": [row.to_dict() for row in self.diversity],
            "shift": [row.to_dict() for row in self.shift],
        }
