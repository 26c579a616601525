"""The light path: from blocks of samples to windows of sound and onsets.

Cheap enough to run where sound arrives; what a window sounds like is heard later, and elsewhere if need be. Both come out
with the sample of the stream at which they were complete, and depend on the stream alone, not on its blocks.
"""

from dataclasses import dataclass, replace

from musichal.arrays import AnyArray, Float32
from musichal.audio.recording import ingest
from musichal.audio.resample import StreamResampler
from musichal.hearing.highpass import HighPass
from musichal.hearing.onsets import OnsetDetector
from musichal.hearing.percepts import Onset, Window
from musichal.hearing.segments import Segmenter
from musichal.spec import PerceptionSpec


@dataclass(frozen=True)
class FrontEndResult:
    """What a block completed: windows to be heard, and onsets that are known before the segment they lie in."""

    windows: tuple[Window, ...]
    onsets: tuple[Onset, ...]


class FrontEnd:
    """Takes blocks at any rate and channel count; filters, resamples, finds onsets and cuts segments.

    Parameters
    ----------
    spec : PerceptionSpec
    source_rate_hz : int
        Rate of the samples that will be pushed.

    Raises
    ------
    InputError
        For a rate that cannot be heard.
    """

    def __init__(self, spec: PerceptionSpec, *, source_rate_hz: int) -> None:
        self.samples_heard = 0
        # Before the resampler, which would make a click of an offset's beginning.
        self._highpass = HighPass(cutoff_hz=spec.highpass_hz, sample_rate_hz=source_rate_hz)
        self._resampler = StreamResampler(
            source_rate_hz=source_rate_hz, target_rate_hz=spec.sample_rate_hz, quality=spec.resampler
        )
        self._onset_detector = OnsetDetector(spec.onsets, sample_rate_hz=spec.sample_rate_hz)
        self._segmenter = Segmenter(spec)
        self._onsets: list[Onset] = []

    def push(self, block: AnyArray) -> FrontEndResult:
        """Take a block of shape (n,) or (n, channels).

        Raises
        ------
        InputError
            If a sample is not finite.
        """
        return self._advance(self._resampler.push(self._highpass.push(ingest(block))))

    def flush(self) -> FrontEndResult:
        """End the stream and return what is left of it."""
        taken = self._advance(self._resampler.flush())
        rest = tuple(self._with_onsets(window) for window in self._segmenter.flush())
        return FrontEndResult(taken.windows + rest, taken.onsets)

    def _advance(self, samples: Float32) -> FrontEndResult:
        self.samples_heard += samples.shape[0]
        found = self._onset_detector.push(samples)
        self._onsets.extend(found.onsets)
        windows = self._segmenter.push(samples, found.onsets, found.decided_until)
        return FrontEndResult(tuple(self._with_onsets(window) for window in windows), found.onsets)

    def _with_onsets(self, window: Window) -> Window:
        """Give a window the onsets decided by its end: the same ones whatever else the last block brought."""
        decided = [onset for onset in self._onsets if onset.decided_at <= window.available_at]
        self._onsets = self._onsets[len(decided) :]
        return replace(window, onset_samples=tuple(onset.sample for onset in decided))
