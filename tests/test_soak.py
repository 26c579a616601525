"""Three minutes and half an hour on the virtual clock: nothing grows, drifts, hangs or is lost."""

import pytest
import soundfile

from benchmarks.soak import soak


@pytest.mark.slow
@pytest.mark.parametrize("hours", [0.05, 0.5])
def test_hours_on_stage_lose_nothing_and_end_every_note(trained, short_guitar, hours):
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    found = soak(trained, samples, sample_rate_hz=rate, hours=hours)
    assert found.struck == found.ended > 60 * hours
    assert found.decisions > 60 * hours
    assert found.segments_lost == 0
    assert found.samples_missing == 0
    # Noise of the arrivals moves the slope of a short run; the filter must still be within a millisecond.
    assert found.clock_error_ms < 1.0
    if hours >= 0.5:
        assert abs(found.drift_ms_per_h) < 1.0
        assert found.grown_mb < 32
        assert found.objects_grown < 100
