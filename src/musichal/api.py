"""The Python API: what ``import musichal as mh`` offers. The commands use the same functions.

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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from musichal.arrays import AnyArray, Float32, Float64, Int16, Records
from musichal.atomic import open_atomically
from musichal.audio.recording import Recording, collect_recordings, ingest, read_recording
from musichal.errors import InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.live.drift import DriftReport
from musichal.live.engine import Engine
from musichal.live.performance import Performance, note_events, perform
from musichal.live.session.session import reply_bytes
from musichal.memory.memory import Memory
from musichal.memory.partner_file import PartnerModel, StoredRecording, load_partner, save_partner
from musichal.note import HeardNote, Note
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain
from musichal.partner.partner import Partner as Improviser
from musichal.partner.settings import Direction, PartnerSettings
from musichal.partner.timing import predicted_beats
from musichal.spec import PerceptionSpec
from musichal.text import PathLike
from musichal.training.trainer import train as train_model

if TYPE_CHECKING:
    import pandas

Audio = npt.NDArray[Any]
Progress = Callable[[str, float], None]
NOTE = np.dtype(
    [("onset_s", np.float64), ("duration_s", np.float64), ("pitch", np.int16), ("velocity", np.int16), ("voice", "U16")]
)
"""A note of an answer."""
HEARD_NOTE = np.dtype([(name, NOTE[name]) for name in ("onset_s", "duration_s", "pitch", "velocity")])
"""A note that was heard."""
_MOST_CHANNELS = 64
_EXAMPLES = {"band": "rock140_mix.ogg", "guitar": "rock140_guitar.ogg"}


def example(name: str) -> Path:
    """Return the path of a bundled recording.

    Parameters
    ----------
    name : {"band", "guitar"}
        34 s of a rock band, or the solo guitar of the same song (C. Viola Iborra, MIT licence).

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        For another name.

    Examples
    --------
    >>> import musichal as mh
    >>> mh.example("guitar").name
    'rock140_guitar.ogg'
    """
    if name not in _EXAMPLES:
        raise InputError(f"unknown example {name!r}. Available: {', '.join(_EXAMPLES)}")
    return Path(str(files("musichal") / "demo" / _EXAMPLES[name]))


def read_audio(path: PathLike) -> tuple[Float32, int]:
    """Read a sound file as MusicHal hears it: mono, on a grid of 24 bits.

    Parameters
    ----------
    path : str or path-like
        WAV, AIFF, FLAC, OGG, MP3, CAF or AU.

    Returns
    -------
    y : ndarray of shape (n,), float32
    sr : int
        Sample rate in Hz.

    Raises
    ------
    InputError
        If the file cannot be read, is empty or is damaged.

    Examples
    --------
    >>> import musichal as mh
    >>> y, sr = mh.read_audio(mh.example("guitar"))
    >>> y.dtype, sr
    (dtype('float32'), 44100)
    """
    recording = read_recording(path)
    return recording.samples, recording.sample_rate_hz


def train(
    paths: PathLike | tuple[Audio, int] | Sequence[PathLike | tuple[Audio, int]],
    *,
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
    """
    spec = (spec or PerceptionSpec()).varied(seed=seed, **options)
    recordings: list[Recording] = []
    for item in [paths] if isinstance(paths, str | os.PathLike | tuple) else paths:
        if isinstance(item, str | os.PathLike):
            recordings += [read_recording(path) for path in collect_recordings([item])]
        else:
            recordings.append(_recording(*item, name=f"recording {len(recordings) + 1}"))
    return Partner(train_model(recordings, spec, keep_audio=keep_audio, progress=progress))


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
    beats_s : ndarray of shape (beats,)
        Beats, each predicted before it was heard.
    """

    tokens: Int16
    times_s: Float64
    onsets_s: Float64
    notes: Records
    chroma: Float32
    level_db: Float32
    beats_s: Float64


def analyse(y: Audio, sr: int, *, spec: "PerceptionSpec | Partner | None" = None) -> Analysis:
    """Hear a sound: tokens, onsets, notes, chroma, beats.

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
    >>> analysis.tokens.shape[0], analysis.chroma.shape[1]
    (2, 12)
    """
    partner = spec if isinstance(spec, Partner) else train((y, sr), spec=spec, keep_audio=False)
    model, rate_hz = partner.model, partner.model.spec.sample_rate_hz
    listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=_rate(sr))
    result = listener.listen(_sound(y))
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
        beats_s=predicted_beats(percepts, sample_rate_hz=rate_hz),
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
        """Its memory: one state per gesture of the recordings."""
        return self.model.memory

    @property
    def recordings(self) -> tuple[StoredRecording, ...]:
        """The recordings it learned from, each with `name`, `duration_s`, `tokens` and, if kept, `samples()`."""
        return self.model.recordings

    def save(self, path: PathLike) -> None:
        """Write the partner to a file, whole or not at all.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        InputError
            If the path cannot be written.
        """
        save_partner(path, self.model)

    def respond(
        self,
        y: Audio,
        sr: int,
        *,
        mode: str = "auto",
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        **settings: Any,
    ) -> "Answer":
        """Answer a recording of a player.

        Parameters
        ----------
        y : ndarray of shape (n,), (n, channels) or (channels, n)
        sr : int
            Sample rate in Hz.
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
        samples = _sound(y)
        chosen = _settings(mode, settings)
        performance = perform(
            self.model, samples, sample_rate_hz=_rate(sr), settings=chosen, seed=_seed(seed), progress=progress
        )
        return Answer(self, performance, samples, sr)

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
        return Stream(self, sr, mode=mode, seed=seed, settings=settings)


@dataclass(frozen=True)
class Source:
    """Where in memory a decision comes from.

    `recording` is the name of the recording, None for what the player played in this performance; `start_s` the second in it.
    """

    recording: str | None
    start_s: float


@dataclass(frozen=True)
class ExplainedDecision:
    """A decision and its reason.

    Attributes
    ----------
    time_s : float
    kind : {"play", "rest"}
    voice : str
    reason : str
        Why, in words, computed from the record.
    source : Source or None
        None for a rest.
    notes : tuple
        What it plays.
    record : Decision
        The whole record: influences with their shares, filters, runners-up.
    """

    time_s: float
    kind: str
    voice: str
    reason: str
    source: Source | None
    notes: tuple[Any, ...]
    record: Decision


class Answer:
    """The answer to a recording.

    Attributes
    ----------
    partner : Partner
    performance : Performance
        All that was heard and decided.
    y : ndarray of shape (n,)
        The player.
    sr : int
        Rate of `y` in Hz.
    """

    def __init__(self, partner: Partner, performance: Performance, y: Float32, sr: int) -> None:
        self.partner, self.performance, self.y, self.sr = partner, performance, y, sr

    def __repr__(self) -> str:
        """Return what it is."""
        return f"<Answer: {len(self.notes)} notes in {self.duration_s:.1f} s>"

    @property
    def duration_s(self) -> float:
        """Length of the performance."""
        return self.performance.duration_s

    @property
    def notes(self) -> Records:
        """Notes in order of onset: a structured array with fields onset_s, duration_s, pitch, velocity, voice."""
        rows = [(n.onset_s, n.duration_s, n.pitch, n.velocity, d.voice) for d in self.performance.decisions for n in d.notes]
        return np.sort(np.array(rows, dtype=NOTE), order=("onset_s", "voice", "pitch"))

    @property
    def decisions(self) -> list[ExplainedDecision]:
        """Decisions in order, each with its reason and its source."""
        names = [recording.name for recording in self.partner.recordings]
        return [_explained(decision, names) for decision in self.performance.decisions]

    @property
    def alarms(self) -> tuple[DriftReport, ...]:
        """When the player did not sound like the training, and why."""
        return self.performance.drift

    def to_frame(self) -> "pandas.DataFrame":
        """Return the notes as a pandas DataFrame.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas

        return pandas.DataFrame({name: self.notes[name] for name in NOTE.names or ()})

    def to_midi(self, path: PathLike | None = None, *, program: int = 4) -> bytes:
        """Return the answer as a Standard MIDI File, and write it to `path` if one is given.

        Parameters
        ----------
        path : str or path-like, optional
        program : int
            General MIDI program, counted from 0; 4 is an electric piano.

        Returns
        -------
        bytes

        Examples
        --------
        >>> import musichal as mh
        >>> y, sr = mh.read_audio(mh.example("band"))
        >>> answer = mh.train((y[: 10 * sr], sr)).respond(y[: 5 * sr], sr)
        >>> answer.to_midi()[:4]
        b'MThd'
        """
        data = reply_bytes(self.performance.decisions, channel=0, program=program)
        if path is not None:
            with open_atomically(path) as stream:
                stream.write(data)
        return data

    def to_audio(self, sr: int = 44100, *, program: int = 4, soundfont: PathLike | None = None) -> Float32:
        """Return the answer as sound.

        Parameters
        ----------
        sr : int
            Sample rate in Hz.
        program : int
            General MIDI program, counted from 0.
        soundfont : str or path-like, optional
            A SoundFont 2 file. Without one, the first that is found, or the built-in instrument.

        Returns
        -------
        ndarray of shape (n, 2), float32
            As long as the performance at least.
        """
        from musichal.audio.instrument import find_instrument, render_notes

        sound = render_notes(self._events(), find_instrument(soundfont), sample_rate_hz=sr, programs={0: program})
        missing = max(0, round(self.duration_s * sr) - sound.shape[0])
        return np.pad(sound, [(0, missing), (0, 0)])

    def _events(self) -> list[Note]:
        return note_events(self.performance.decisions, channel=0)


class Stream:
    """A performance in progress: blocks of sound in, notes out.

    Made by `Partner.stream`.
    """

    def __init__(self, partner: Partner, sr: int, *, mode: str, seed: int, settings: dict[str, Any]) -> None:
        self._partner, self._sr, self._seed = partner, _rate(sr), _seed(seed)
        self._settings = _settings(mode, settings)
        self.reset()

    def reset(self) -> Self:
        """Begin anew, with the settings and the seed of the beginning; return the stream."""
        model = self._partner.model
        rate_hz = model.spec.sample_rate_hz
        listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=self._sr)
        self._player = Improviser(model.memory, self._settings, rng=np.random.default_rng(self._seed), sample_rate_hz=rate_hz)
        self._engine = Engine(listener, self._player, sample_rate_hz=rate_hz)
        self._decisions: list[Decision] = []
        self._waiting: list[Any] = []
        return self

    @property
    def now_s(self) -> float:
        """How much of the stream was heard, in seconds."""
        return self._engine.now_s

    @property
    def settings(self) -> dict[str, Any]:
        """The settings now, by name."""
        return self._player.settings.to_dict()

    @property
    def decisions(self) -> list[ExplainedDecision]:
        """What was decided so far, with reasons."""
        names = [recording.name for recording in self._partner.recordings]
        return [_explained(decision, names) for decision in self._decisions]

    def push(self, block: Audio) -> list[Any]:
        """Take a block of sound of any length; return the notes that were decided.

        Parameters
        ----------
        block : ndarray of shape (n,) or (n, channels)

        Returns
        -------
        list of notes
            Each with onset_s, duration_s, pitch, velocity. An onset may lie a little ahead of `now_s`.

        Raises
        ------
        InputError
            If a sample is not finite.
        """
        waiting, self._waiting = self._waiting, []
        return waiting + self._taken(self._engine.push(_floats(block)).decisions)

    def finish(self) -> list[Any]:
        """End the stream; return the last notes."""
        waiting, self._waiting = self._waiting, []
        return waiting + self._taken(self._engine.finish().decisions)

    def set(self, **settings: Any) -> None:
        """Change settings from now on, as ``set(temperature=0.8)`` or ``set(mode="mirror")``.

        Raises
        ------
        InputError
            For an unknown name or a value out of range; nothing changes then.
        """
        self._waiting += self._taken(self._engine.change(settings).decisions)

    def _taken(self, decisions: Iterable[Decision]) -> list[Any]:
        taken = list(decisions)
        self._decisions += taken
        return [note for decision in taken for note in decision.notes]


# ── what goes in ─────────────────────────────────────────────────────────────


def _floats(y: Audio) -> AnyArray:
    y = np.asarray(y)
    if y.ndim not in (1, 2) or not np.issubdtype(y.dtype, np.number) or np.issubdtype(y.dtype, np.complexfloating):
        raise InputError(f"sound must be an array of shape (n,) or (n, channels), got shape {y.shape} of {y.dtype}")
    if y.ndim == 2 and y.shape[0] < y.shape[1] and y.shape[0] <= _MOST_CHANNELS:
        y = y.T
    if np.issubdtype(y.dtype, np.integer):
        y = y / float(np.iinfo(y.dtype).max + 1)
    return y if y.dtype == np.float32 else y.astype(np.float64)


def _sound(y: Audio) -> Float32:
    samples = ingest(_floats(y))
    if not samples.size:
        raise InputError("the sound is empty")
    return samples


def _rate(sr: int) -> int:
    if isinstance(sr, bool) or int(sr) != sr or sr <= 0:
        raise InputError(f"sr must be a positive whole number of Hz, got {sr!r}")
    return int(sr)


def _seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed must be a whole number from 0, got {seed!r}")
    return int(seed)


def _recording(y: Audio, sr: int, *, name: str) -> Recording:
    samples = _sound(y)
    samples.setflags(write=False)
    return Recording(name, _rate(sr), samples)


def _settings(mode: str, settings: dict[str, Any]) -> PartnerSettings:
    chosen = PartnerSettings().changed(settings)
    return replace(chosen, direction=replace(chosen.direction or Direction(), mode=mode))


def _heard_notes(notes: Sequence[HeardNote]) -> Records:
    rows = [(n.onset_s, n.duration_s, n.pitch, n.velocity) for n in notes]
    return np.sort(np.array(rows, dtype=HEARD_NOTE), order=("onset_s", "pitch"))


def _explained(decision: Decision, names: Sequence[str]) -> ExplainedDecision:
    source = None
    if decision.recording is not None and decision.source_start_s is not None:
        source = Source(None if decision.live else names[decision.recording], decision.source_start_s)
    return ExplainedDecision(
        decision.time_s, decision.kind, decision.voice, explain(decision, names), source, decision.notes, decision
    )
