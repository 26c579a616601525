"""Partners: train, load, analyse, respond, stream.

Conventions
-----------
Sound is float, in [-1, 1), of shape ``(n,)``, ``(n, channels)`` as soundfile gives it, or ``(channels, n)`` as librosa gives
it; integer samples are scaled. Times are seconds from the start of the sound, pitches MIDI numbers (60 is C4), velocities 1 to
127. Token arrays have the sources on the first axis: 0 is harmonic, 1 percussive; -1 is silence. What cannot be used raises
`InputError`, which is a `MusicHalError` and a `ValueError`.

References
----------
.. [1] Dubnov, S., Assayag, G., Cont, A.: Audio Oracle: A New Algorithm for Fast Learning of Audio Structures. ICMC 2007.
.. [2] Borg, J.: Somax 2: A Real-time Framework for Human-Machine Improvisation. IRCAM, 2019.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from musichal.api.answer import Answer, Stream
from musichal.api.sound import Audio, as_recording, rate_of, seed_of, sound_of, warn_of
from musichal.arrays import Float32, Float64, Int16, Records
from musichal.audio.midi_recording import read_take
from musichal.audio.midi_take import MidiChoice, MidiTake
from musichal.audio.pairs import read_pair
from musichal.audio.recording import Recording, read_recording, read_recordings
from musichal.errors import InputError
from musichal.hearing.beats import find_beats, predicted_beats
from musichal.hearing.encoders import create_encoder
from musichal.hearing.exact_notes import KnownNotes
from musichal.hearing.listener import Listener
from musichal.live.drift import DriftReport
from musichal.live.engine import perform
from musichal.live.output.files import PARTNER, check_outputs
from musichal.machine import single_blas_thread
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel, StoredRecording, load_partner, save_partner
from musichal.note import HeardNote
from musichal.partner.settings import PartnerSettings
from musichal.spec import PerceptionSpec
from musichal.text import PathLike
from musichal.training.trainer import train as train_model

Progress = Callable[[str, float], None]
HEARD_NOTE = np.dtype([("onset_s", np.float64), ("duration_s", np.float64), ("pitch", np.int16), ("velocity", np.int16)])
"""A note that was heard."""


def train(
    paths: PathLike | tuple[Audio, int] | Sequence[PathLike | tuple[Audio, int]] = (),
    *,
    pairs: Sequence[tuple[PathLike | tuple[Audio, int], PathLike | tuple[Audio, int]]] = (),
    notes: Sequence[PathLike | None] = (),
    tracks: Sequence[str | int] = (),
    channels: Sequence[int] = (),
    soundfont: PathLike | None = None,
    spec: PerceptionSpec | None = None,
    seed: int | None = None,
    keep_audio: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> "Partner":
    """Train a partner: learn 64 sounds per source, and how they follow one another.

    Parameters
    ----------
    paths : path, (y, sr), or a list of these
        Recordings; folders are searched. The same recordings, spec and seed give the same partner, bit for bit, on the same
        machine and installation.
    pairs : list of (player, others)
        Recordings of a player and of what the others played beside them: the partner plays what the others did where the
        player sounded like now. Of one file with both, `player` names the channel ("left", 2) or the MIDI track.
    notes : list of path or None
        For each recording in turn the MIDI file of the same performance, whose notes are kept in the place of those heard.
    tracks, channels : sequence, optional
        What is learned of MIDI files, where not all: tracks by name or number, or "melody", "drums", "no-drums"; channels, 1 to
        16.
    soundfont : path, optional
        What plays MIDI files; the built-in instrument.
    spec : PerceptionSpec, optional
        Every number that shapes a token.
    seed : int, optional
        Seed of k-means; replaces that of the spec.
    keep_audio : bool
        Whether the partner holds the recordings themselves, to check it and to play from them.
    progress : callable, optional
        Called as ``progress(what, share)``, with `share` from 0 to 1.
    **options
        Other values of the spec, as `PerceptionSpec.varied` takes them: `segment_s`, `hop_s`, `context_s`, `lookahead_s`,
        `policy`, `resampler`, `vocabulary`.

    Returns
    -------
    Partner

    Raises
    ------
    InputError
        If there is nothing to hear, or too little of it, or an option cannot be used.

    Examples
    --------
    >>> import musichal as mh
    >>> y, sr = mh.read_audio(mh.example("band"))
    >>> partner = mh.train((y[: 10 * sr], sr), seed=0)
    >>> partner.vocabulary_size, len(partner.memory) > 10
    (64, True)
    >>> guitar, _ = mh.read_audio(mh.example("guitar"))
    >>> partner = mh.train(pairs=[((guitar[: 10 * sr], sr), (y[: 10 * sr], sr))])
    >>> len(partner.recordings)
    2
    """
    spec = (spec or PerceptionSpec()).varied(seed=seed, **options)
    recordings: list[Recording] = []
    names = tuple(map(str, [tracks] if isinstance(tracks, str) else tracks))
    midi = MidiChoice(names, frozenset(channels), None if soundfont is None else Path(soundfont))

    def heard(item: PathLike | tuple[Audio, int]) -> Recording:
        if isinstance(item, str | os.PathLike):
            return read_recordings([item], warn=warn_of, midi=midi)[0]
        return as_recording(*item, name=f"recording {len(recordings) + 1}")

    for item in [paths] if isinstance(paths, str | os.PathLike) or (paths and isinstance(paths, tuple)) else paths:
        if isinstance(item, str | os.PathLike):
            recordings += read_recordings([item], warn=warn_of, midi=midi)
        else:
            recordings.append(heard(item))
    numbers = []
    for pair in pairs:
        player, others = _pair(pair)
        numbers.append((len(recordings), len(recordings) + 1))
        if isinstance(player, tuple) or isinstance(others, tuple):
            for item in (player, others):
                recordings.append(heard(item))
        else:
            recordings += read_pair(player, others)
    takes = {number: read_take(file, midi) for number, file in enumerate(notes) if file is not None}
    model = train_model(recordings, spec, keep_audio=keep_audio, pairs=numbers, notes=takes, progress=progress)
    return Partner(model)


def load(path: PathLike) -> "Partner":
    """Load a partner file. No code in it is ever run.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Partner

    Raises
    ------
    PartnerFileError
        If the file is damaged, or was made by a newer MusicHal.

    Notes
    -----
    A file from before MusicHal kept beats loads without them; ``musichal rehear`` finds them.

    Examples
    --------
    >>> import musichal as mh, tempfile, pathlib
    >>> y, sr = mh.read_audio(mh.example("band"))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "rock.hal"
    >>> mh.train((y[: 10 * sr], sr)).save(path)
    >>> mh.load(path).recordings[0].duration_s
    10.0
    """
    return Partner(load_partner(path))


@dataclass(frozen=True)
class Analysis:
    """What was heard in a sound.

    Attributes
    ----------
    tokens : ndarray of shape (2, frames), int16
        Harmonic and percussive tokens; -1 is silence.
    times_s : ndarray of shape (frames,)
        Centre of each frame.
    onsets_s : ndarray of shape (onsets,)
    notes : structured ndarray of shape (notes,)
        Fields onset_s, duration_s, pitch, velocity.
    chroma : ndarray of shape (frames, 12), float32
        Bin 0 is C.
    level_db : ndarray of shape (frames,), float32
        RMS level in dBFS.
    hits : structured ndarray of shape (hits,)
        Drum hits, with the fields of notes; `pitch` is the key of General MIDI's drum kit: 36 kick, 38 snare, 42 closed hat,
        46 open hat, 45 tom, 49 cymbal.
    beats : structured ndarray of shape (beats,)
        Beats, found with the whole sound in view. Fields time_s, confidence (0 to 1), bar_place (0 for the first beat of a
        bar, -1 if not known). Empty if there is no steady beat.
    predicted_beats_s : ndarray of shape (predicted,)
        Beats as a partner has them while it listens, each predicted before it was heard.
    """

    tokens: Int16
    times_s: Float64
    onsets_s: Float64
    notes: Records
    chroma: Float32
    level_db: Float32
    hits: Records
    beats: Records
    predicted_beats_s: Float64

    def __repr__(self) -> str:
        """Return how much was heard."""
        counts = {"onsets": self.onsets_s, "notes": self.notes, "drum hits": self.hits, "beats": self.beats}
        return f"<Analysis: {len(self.times_s)} frames, {', '.join(f'{len(found)} {name}' for name, found in counts.items())}>"


@single_blas_thread()
def analyse(y: Audio, sr: int, *, spec: "PerceptionSpec | Partner | None" = None) -> Analysis:
    """Hear a sound: tokens, onsets, notes, drum hits, chroma, beats.

    Parameters
    ----------
    y : ndarray of shape (n,), (n, channels) or (channels, n)
    sr : int
        Sample rate in Hz.
    spec : Partner or PerceptionSpec, optional
        With a partner, tokens are those of its vocabulary. With a spec alone (or none), the vocabulary is learned from this
        sound first, as training does.

    Returns
    -------
    Analysis

    Raises
    ------
    InputError
        If the sound is too short, or not finite.

    Examples
    --------
    >>> import musichal as mh
    >>> y, sr = mh.read_audio(mh.example("guitar"))
    >>> analysis = mh.analyse(y[: 10 * sr], sr)
    >>> analysis.tokens.shape[0], analysis.chroma.shape[1], analysis.beats.dtype.names
    (2, 12, ('time_s', 'confidence', 'bar_place'))
    """
    partner = spec if isinstance(spec, Partner) else train((y, sr), spec=spec, keep_audio=False)
    model, rate_hz = partner.model, partner.model.spec.sample_rate_hz
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=rate_of(sr))
    result = listener.listen(sound_of(y))
    percepts = result.percepts
    if not percepts:
        raise InputError("the sound is too short: it holds no whole frame")
    heard = [percept.heard for percept in percepts]
    notes = [note for h in heard for note in h.notes] + list(result.notes)
    return Analysis(
        tokens=np.concatenate([p.tokens for p in percepts], axis=1),
        times_s=np.concatenate([h.frame_samples for h in heard]) / rate_hz,
        onsets_s=np.array([onset for h in heard for onset in h.onset_samples], dtype=np.float64) / rate_hz,
        notes=_heard_notes(notes),
        chroma=np.concatenate([h.chroma for h in heard]),
        level_db=np.concatenate([h.level_db for h in heard]),
        hits=_heard_notes([hit for h in heard for hit in h.hits] + list(result.hits)),
        beats=find_beats(heard, sample_rate_hz=rate_hz),
        predicted_beats_s=predicted_beats(percepts, sample_rate_hz=rate_hz),
    )


class Partner:
    """A trained partner.

    Made by `train` or `load`. It never changes: what is learned while playing is kept beside it.
    """

    def __init__(self, model: PartnerModel) -> None:
        self.model = model

    def __repr__(self) -> str:
        """Return what it is."""
        names = ", ".join(recording.name for recording in self.recordings)
        return f"<Partner: {len(self.memory)} gestures of {names}>"

    @property
    def spec(self) -> PerceptionSpec:
        """How it hears: every number that shapes a token."""
        return self.model.spec

    @property
    def vocabulary_size(self) -> int:
        """How many sounds it knows per source."""
        return self.model.spec.vocabulary.size

    @property
    def memory(self) -> Memory:
        """Its memory: one state per gesture of the recordings.

        `states` is a structured array of them, with `beat_phase` (0 to 1), `beat_period_s` (0 outside a beat), `bar_place` and
        `beat_confidence`; `notes_of` and `hits_of` return the notes and drum hits of a state.
        """
        return self.model.memory

    @property
    def recordings(self) -> tuple[StoredRecording, ...]:
        """The recordings it learned from, each with `name`, `duration_s`, `tokens`, `beats` and, if kept, `samples()`.

        `beats` is a structured array as `Analysis` has it, or None in a partner from before MusicHal kept beats.
        """
        return self.model.recordings

    def save(self, path: PathLike, *, force: bool = False) -> None:
        """Write the partner to a file, whole or not at all.

        Parameters
        ----------
        path : str or path-like
        force : bool
            Replace a file that is no partner, too.

        Raises
        ------
        InputError
            If the path cannot be written, or is a file that is no partner.
        """
        check_outputs([(path, PARTNER)], force=force, remedy="force=True")
        save_partner(path, self.model)

    def respond(
        self,
        y: Audio | PathLike,
        sr: int | None = None,
        *,
        mode: str = "auto",
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        **settings: Any,
    ) -> "Answer":
        """Answer a recording of a player.

        Parameters
        ----------
        y : ndarray of shape (n,), (n, channels) or (channels, n), or path
            A file may be sound or MIDI, whose notes are taken exactly.
        sr : int, optional
            Sample rate of an array in Hz.
        mode : str
            How it plays with the player: shadow, mirror, couple, lead, contrast, rest, or auto to let it change by itself.
        seed : int
            Seed of its choices. The same sound, settings and seed give the same notes.
        progress : callable, optional
            Called with the share that is played, 0 to 1.
        **settings
            Parameters by name, as ``temperature=0.4``; `musichal parameters` lists them.

        Returns
        -------
        Answer

        Raises
        ------
        InputError
            If the sound or a setting cannot be used.

        Examples
        --------
        >>> import musichal as mh
        >>> y, sr = mh.read_audio(mh.example("band"))
        >>> partner = mh.train((y[: 10 * sr], sr))
        >>> answer = partner.respond(y[: 6 * sr], sr, mode="shadow", seed=1, temperature=0.1)
        >>> len(answer.notes) > 0 and answer.notes["pitch"].dtype
        dtype('int16')
        """
        chosen = settings_of(settings, mode=mode)
        if isinstance(y, str | os.PathLike):
            heard = read_recording(y)
            for warning in heard.warnings:
                warn_of(warning)
            sound, rate_hz, take = heard.samples, heard.sample_rate_hz, heard.take
        elif sr is None:
            raise InputError("an array of sound needs its sample rate, sr")
        else:
            sound, rate_hz, take = sound_of(y), rate_of(sr), None
        return respond(self.model, sound, rate_hz, settings=chosen, seed=seed_of(seed), progress=progress, take=take)

    def stream(self, sr: int, *, mode: str = "auto", seed: int = 0, **settings: Any) -> "Stream":
        """Answer block by block: the loop of the stage, without a sound card.

        Parameters
        ----------
        sr : int
            Sample rate of the blocks in Hz.
        mode, seed, **settings
            As for `respond`, which gives the same notes.

        Returns
        -------
        Stream

        Examples
        --------
        >>> import musichal as mh
        >>> y, sr = mh.read_audio(mh.example("band"))
        >>> partner = mh.train((y[: 10 * sr], sr))
        >>> stream = partner.stream(sr, mode="shadow")
        >>> notes = [note for i in range(0, 6 * sr, 512) for note in stream.push(y[i : i + 512])]
        >>> notes[0].onset_s < 6
        True
        """
        return Stream(self.model, rate_of(sr), settings=settings_of(settings, mode=mode), seed=seed_of(seed))


def respond(
    model: PartnerModel,
    samples: Float32,
    sr: int,
    *,
    settings: PartnerSettings,
    seed: int,
    progress: Callable[[float], None] | None = None,
    on_drift: Callable[[DriftReport], None] | None = None,
    take: MidiTake | None = None,
) -> Answer:
    """Answer samples that hearing takes as they are: what `Partner.respond` and `musichal play` call."""
    known = None if take is None else KnownNotes.of(take, model.spec)
    performance = perform(
        model, samples, sample_rate_hz=sr, settings=settings, seed=seed, progress=progress, on_drift=on_drift, known=known
    )
    return Answer(model, performance, samples, sr)


def settings_of(values: Mapping[str, Any], *, mode: str) -> PartnerSettings:
    """Return settings by name, in a mode."""
    chosen = PartnerSettings().changed(values)
    return replace(chosen, direction=replace(chosen.direction, mode=mode))


def _pair(item: Any) -> tuple[Any, Any]:
    """Return a player and others, as `train` takes them."""
    if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[1], str | os.PathLike | tuple):
        return item[0], item[1]
    got = repr(item) if isinstance(item, str) else f"a {type(item).__name__}"
    raise InputError(f'pairs must be a list of (player, others), as [("me.wav", "band.wav")]; an item of it is {got}')


def _heard_notes(notes: Sequence[HeardNote]) -> Records:
    rows = [(n.onset_s, n.duration_s, n.pitch, n.velocity) for n in notes]
    return np.sort(np.array(rows, dtype=HEARD_NOTE), order=("onset_s", "pitch"))
