"""A quarter of an hour on the virtual clock: nothing grows, drifts, hangs or is lost."""

import pytest
import soundfile

from benchmarks.soak import soak


@pytest.mark.slow(50)
def test_a_quarter_of_an_hour_on_stage_loses_nothing_and_ends_every_note(trained, short_guitar):
    samples, rate = soundfile.read(short_guitar, dtype="float32")
    found = soak(trained, samples, sample_rate_hz=rate, hours=0.25)
    assert found.struck == found.ended > 30
    assert found.decisions > 30
    assert found.segments_lost == 0
    assert found.samples_missing == 0
    # Noise of the arrivals moves the slope of a run; the filter must still be within a millisecond.
    assert found.clock_error_ms < 1.0
    assert abs(found.drift_ms_per_h) < 1.0
    assert found.grown_mb < 16
    assert found.objects_grown < 50
