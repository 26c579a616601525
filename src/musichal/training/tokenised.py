"""What a vocabulary makes of a recording that was heard: its tokens and gestures, on disk."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from musichal.arrays import Int16, Int64, Records
from musichal.errors import PartnerFileError
from musichal.hearing.listener import Tokenizer, Vocabularies
from musichal.hearing.percepts import Gesture, Percept
from musichal.memory.container import Container, pack_arrays, read_container, write_container
from musichal.spec import PerceptionSpec
from musichal.training.heard import Heard

_MEMBER = "arrays/tokenised.safetensors"
_SCALARS = ("start_s", "duration_s", "level_db", "starts_at_onset", "tokens")


def tokenise(heard: Heard, spec: PerceptionSpec, vocabularies: Vocabularies, path: Path) -> None:
    """Write the tokens and gestures of a recording; raises `InputError` where the file cannot be written."""
    tokenizer = Tokenizer(spec, vocabularies)
    tokens: list[Int16] = []
    gestures: list[Gesture] = []
    counts = []
    for segment in heard.segments():
        percept = tokenizer.step(segment)
        tokens.append(percept.tokens)
        gestures += percept.gestures
        counts.append(len(percept.gestures))
    gestures += tokenizer.flush(heard.end_sample)
    arrays = {name: np.array([getattr(gesture, name) for gesture in gestures]) for name in _SCALARS}
    arrays |= {name: np.stack([getattr(gesture, name) for gesture in gestures]) for name in ("chroma", "vector")}
    arrays |= {"frame_tokens": np.concatenate(tokens, axis=1), "counts": np.array(counts)}
    write_container(path, content={"gestures": len(gestures)}, members={_MEMBER: pack_arrays(arrays)})


def is_whole(path: Path) -> bool:
    """Return whether there is a file of tokens, and it is not damaged."""
    try:
        read_container(path).read(_MEMBER)
    except PartnerFileError:
        return False
    return True


@dataclass(frozen=True)
class Tokenised:
    """A recording's tokens and gestures, in a file that `tokenise` wrote."""

    heard: Heard
    container: Container

    @classmethod
    def load(cls, heard: Heard, path: Path) -> "Tokenised":
        """Open a file; raises `PartnerFileError` where it is damaged."""
        return cls(heard, read_container(path))

    def __len__(self) -> int:
        """Return how many gestures there are."""
        return int(self.container.content["gestures"])

    def tokens(self) -> Int16:
        """Return the tokens of every frame, shape (sources, n)."""
        return self.container.read_arrays(_MEMBER)["frame_tokens"]

    def token_counts(self, size: int) -> Int64:
        """Return how often each token occurs, shape (sources, size)."""
        return np.stack([np.bincount(row[row >= 0], minlength=size) for row in self.tokens()])

    def vectors(self) -> Records:
        """Return the vectors of the gestures, shape (n, dims)."""
        return self.container.read_arrays(_MEMBER)["vector"]

    def gestures(self) -> list[Gesture]:
        """Return the gestures in order."""
        arrays = self.container.read_arrays(_MEMBER)
        rows = zip(*(arrays[name].tolist() for name in _SCALARS), arrays["chroma"], arrays["vector"], strict=True)
        return [
            Gesture(start_s, duration_s, (tokens[0], tokens[1]), level_db, chroma, vector, starts_at_onset)
            for start_s, duration_s, level_db, starts_at_onset, tokens, chroma, vector in rows
        ]

    def percepts(self) -> Iterator[Percept]:
        """Yield what was heard, segment by segment, without features."""
        arrays = self.container.read_arrays(_MEMBER)
        gestures, first, frame = self.gestures(), 0, 0
        for segment, count in zip(self.heard.segments(features=False), arrays["counts"].tolist(), strict=True):
            end = frame + len(segment.frame_samples)
            yield Percept(
                replace(segment, features=()), arrays["frame_tokens"][:, frame:end], tuple(gestures[first : first + count])
            )
            first, frame = first + count, end
