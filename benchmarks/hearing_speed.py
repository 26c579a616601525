"""Speed and size of hearing and training, on real recordings.

Conventions
-----------
Training is timed from the first sample read to the partner written, on whatever cores there are, by the wall clock: that is
what a user waits for. Its memory is the peak resident set of the process. Hearing is timed by segment, on one thread: the
time that `Listener.push` takes for a block of one segment, resampling to gesture. Each measurement runs in a process of its
own.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.figure import Figure
from benchmarks.process import in_own_process, peak_memory_mb
from musichal.audio.recording import read_recording
from musichal.audio.resample import resampled_length
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.hearing.percepts import stream_frame_count
from musichal.memory.partner_file import load_partner, save_partner
from musichal.spec import PerceptionSpec
from musichal.training.trainer import train
from musichal.training.workers import usual_processes

MODULE = "benchmarks.hearing_speed"
_WARM_UP_SEGMENTS = 8


def measure_hearing(
    recordings: Sequence[Path],
    spec: PerceptionSpec | None = None,
    *,
    training_goal: float = 20,
    p99_goal_ms: float = 20,
    keep: Path | None = None,
) -> list[Figure]:
    """Measure training and hearing on each recording, with the default spec or another that is pinned.

    In a folder to `keep` them in, the partners stay as 0.hal, 1.hal, in the order of the recordings.

    Raises
    ------
    InputError
        For a recording that cannot be heard.
    """
    figures = []
    text = (spec or PerceptionSpec()).canonical_json()
    for number, path in enumerate(recordings):
        with tempfile.TemporaryDirectory() as folder:
            partner = str((keep or Path(folder)) / f"{number}.hal")
            trained = in_own_process(MODULE, "train", one_thread=False, recording=str(path), partner=partner, spec=text)
            heard = in_own_process(MODULE, "hear", recording=str(path), partner=partner)
        name = path.name
        figures += [
            Figure(
                f"training, {name} ({trained['duration_s']:.0f} s)",
                trained["speed"],
                "× real time",
                training_goal,
                at_least=True,
            ),
            Figure(f"training, {name}: peak memory", trained["peak_mb"], "MB", 1000),
            Figure(f"hearing a segment, {name}: median", heard["median_ms"], "ms"),
            Figure(f"hearing a segment, {name}: p99", heard["p99_ms"], "ms", p99_goal_ms),
            Figure(f"frames off the closed form, {name} ({heard['frames']:.0f})", heard["frames_off"], "frames", 0),
        ]
    return figures


def _train(recording: str, partner: str, spec: str, processes: int = 0) -> dict[str, float]:
    hearing = PerceptionSpec.from_dict(json.loads(spec))
    started_s = time.perf_counter()
    heard = read_recording(recording)
    save_partner(partner, train([heard], hearing, processes=processes or usual_processes(heard.duration_s)))
    took_s = time.perf_counter() - started_s
    return {"duration_s": heard.duration_s, "speed": heard.duration_s / took_s, "peak_mb": peak_memory_mb()}


def _hear(recording: str, partner: str) -> dict[str, float]:
    model = load_partner(partner)
    heard = read_recording(recording)
    spec = model.spec
    listener = Listener(spec, create_encoder(spec), model.vocabularies, source_rate_hz=heard.sample_rate_hz)
    block = round(spec.segment_samples * heard.sample_rate_hz / spec.sample_rate_hz)
    times_s, frames = [], 0
    for first in range(0, heard.samples.shape[0], block):
        started_s = time.perf_counter()
        percepts = listener.push(heard.samples[first : first + block]).percepts
        times_s.append(time.perf_counter() - started_s)
        frames += sum(p.tokens.shape[1] for p in percepts)
    frames += sum(p.tokens.shape[1] for p in listener.flush().percepts)
    expected = stream_frame_count(
        resampled_length(heard.samples.shape[0], source_rate_hz=heard.sample_rate_hz, target_rate_hz=spec.sample_rate_hz), spec
    )
    milliseconds = 1000 * np.array(times_s[_WARM_UP_SEGMENTS:])
    return {
        "median_ms": float(np.median(milliseconds)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "frames": frames,
        "frames_off": abs(frames - expected),
    }


if __name__ == "__main__":
    _settings = json.loads(sys.argv[1])
    _jobs: dict[str, Callable[..., dict[str, float]]] = {"train": _train, "hear": _hear}
    sys.stdout.write(json.dumps(_jobs[_settings.pop("job")](**_settings)) + "\n")
