"""Hearing again: a partner's own recordings through another runtime or precision, everything else as it was.

A machine that cannot compute as a partner was trained hears its recordings anew in what it can. The vocabularies stay,
unless asked otherwise, so that a sound keeps its number; tokens, gestures and memory are made from what is heard now.
"""

from dataclasses import dataclass

import numpy as np

from musichal.arrays import Float32
from musichal.audio.recording import Recording
from musichal.errors import PartnerFileError
from musichal.hearing.percepts import SILENCE, SOURCES
from musichal.memory.partner_file import PartnerModel, StoredRecording
from musichal.spec import PerceptionSpec
from musichal.training.trainer import Progress, train


@dataclass(frozen=True)
class Reheard:
    """A partner heard again: `same` and `frames` count, per source, frames whose token is what it was, of those not silent.

    With vocabularies learned anew numbers mean other sounds, and `same` is None.
    """

    model: PartnerModel
    same: tuple[int, ...] | None
    frames: tuple[int, ...]

    @property
    def unchanged(self) -> bool:
        """Whether the other runtime gave every token as it was."""
        return self.same == self.frames


def as_recording(stored: StoredRecording, samples: Float32) -> Recording:
    """Return a partner's recording as one to train on; `samples` (n,) are its sound."""
    return Recording(stored.name, stored.sample_rate_hz, samples)


def own_recordings(model: PartnerModel) -> list[Recording]:
    """Return the recordings that a partner holds.

    Raises
    ------
    PartnerFileError
        If the sound of one was left out, or is damaged.
    """
    left_out = [stored.name for stored in model.recordings if stored.flac is None]
    if left_out:
        raise PartnerFileError(
            f"this partner cannot hear its recordings again: {left_out[0]} was left out of it (--no-audio);"
            " train it anew from the recordings"
        )
    return [as_recording(stored, stored.samples()) for stored in model.recordings]


def rehear(
    model: PartnerModel,
    spec: PerceptionSpec,
    *,
    refit: bool = False,
    processes: int = 1,
    progress: Progress | None = None,
) -> Reheard:
    """Return the partner as it hears its recordings with another spec, whose frames must be those of the first.

    Raises
    ------
    PartnerFileError
        If it does not hold its recordings.
    MusicHalError
        As `train` does.
    """
    again = train(
        own_recordings(model),
        spec,
        processes=processes,
        vocabularies=None if refit else model.vocabularies,
        progress=progress,
    )
    same, frames = [], []
    for source in range(len(SOURCES)):
        pairs = [(a.tokens[source], b.tokens[source]) for a, b in zip(model.recordings, again.recordings, strict=True)]
        before, now = (np.concatenate(side) for side in zip(*pairs, strict=True))
        heard = (before != SILENCE) | (now != SILENCE)
        same.append(int((before == now)[heard].sum()))
        frames.append(int(heard.sum()))
    return Reheard(again, None if refit else tuple(same), tuple(frames))
