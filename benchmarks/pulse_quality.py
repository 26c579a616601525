"""How well the beat is found: F-measure by `mir_eval.beat`, of beats that are predicted while the music plays.

The clips' tempo is known from the song that they are cut from: they begin on a beat. A predicted beat counts when it lies
within 70 ms of a true one; the first 5 s are left out, as is the rule. Where onsets alone cannot tell which level of the metre
is the beat, and whether it is on or off, "any level" (AMLt) says how much of the time the pulse as such was right. The peer
is librosa's tracker, which is offline: it has heard the whole clip before it says where the first beat was.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figure import Figure
from musichal.arrays import Float64
from musichal.audio.recording import Recording, read_recording
from musichal.commands.play import RECORDING
from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.hearing.beats import predicted_beats
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import FeatureExtractor
from musichal.hearing.percepts import Percept
from musichal.spec import PerceptionSpec

AUDIO = Path(__file__).resolve().parents[3] / "tests" / "audio"
"""The clips, in a checkout."""
CLIPS = ("rock140_guitar", "rock140_mix", "rock140_backing", "ballad95_guitar", "ballad95_mix", "ballad95_backing")


def heard_beats(recording: Recording, spec: PerceptionSpec) -> Float64:
    """Return the beats that are predicted while a recording plays, in seconds."""
    extractor = FeatureExtractor(spec, create_encoder(spec))
    heard = list(extractor.stream(recording.samples, source_rate_hz=recording.sample_rate_hz))
    no_tokens = np.zeros((2, 0), dtype=np.int16)
    return predicted_beats([Percept(h, no_tokens) for h in heard], sample_rate_hz=spec.sample_rate_hz)


def beat_scores(truth: Float64, beats: Float64) -> tuple[float, float]:
    """Return F-measure and AMLt of beats, behind the first 5 s. Raises `MissingExtraError` without the ``bench`` extra."""
    beat = _module("mir_eval.beat")
    true, found = beat.trim_beats(truth), beat.trim_beats(beats)
    if len(found) < 2:
        return 0.0, 0.0
    return float(beat.f_measure(true, found)), float(beat.continuity(true, found)[3])


def measure_pulse() -> list[Figure]:
    """Return F-measure and AMLt of each clip, beside librosa's.

    Raises
    ------
    MissingExtraError
        Without the ``bench`` extra.
    InputError
        Without a checkout: the clips are in its tests.
    """
    if not AUDIO.is_dir():
        raise InputError(f"the clips with known tempo are in a checkout's tests/audio only, beside {RECORDING.name}")
    librosa = _module("librosa")
    spec = PerceptionSpec()
    figures, ours, theirs = [], [], []
    for clip in CLIPS:
        recording = read_recording(AUDIO / f"{clip}.ogg")
        truth = np.array(json.loads((AUDIO / f"{clip.split('_')[0]}.json").read_text("utf-8"))["beats"], dtype=np.float64)
        mono = recording.samples.reshape(recording.samples.shape[0], -1).mean(axis=1)
        _, offline = librosa.beat.beat_track(y=mono, sr=recording.sample_rate_hz, units="time")
        own, peer = beat_scores(truth, heard_beats(recording, spec)), beat_scores(truth, np.asarray(offline))
        ours.append(own)
        theirs.append(peer)
        for name, mine, other in zip(("F", "any level"), own, peer, strict=True):
            figures.append(Figure(f"beats ({name}): {clip}", mine, "", peer="librosa, offline", peer_value=other))
    for name, mine, other in zip(("F", "any level"), np.mean(ours, axis=0), np.mean(theirs, axis=0), strict=True):
        figures.append(
            Figure(
                f"beats ({name}), mean", float(mine), "", float(other), True, peer="librosa, offline", peer_value=float(other)
            )
        )
    return figures


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name.split('.', maxsplit=1)[0]} is not installed; {install_hint('bench')}") from error
