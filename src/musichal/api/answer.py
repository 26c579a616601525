"""An answer, whole or in progress: notes, reasons, MIDI, sound."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from musichal.api.sound import Audio, floats_of
from musichal.arrays import Float32, Records
from musichal.atomic import open_atomically
from musichal.audio.instrument import find_instrument, render_notes
from musichal.audio.levels import at_loudness, mix
from musichal.audio.recording import ingest
from musichal.audio.slices import render_slices
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.live.drift import DriftReport
from musichal.live.engine import CHANNEL, Engine, Performance, note_events, slice_events
from musichal.live.output.files import MIDI, check_outputs
from musichal.live.output.routing import Routing, routed_parts
from musichal.live.session.export import TempoMap, score_bytes
from musichal.live.session.session import reply_bytes
from musichal.machine import single_blas_thread
from musichal.memory.partner_file import PartnerModel
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain
from musichal.partner.partner import Partner as Improviser
from musichal.partner.settings import PartnerSettings
from musichal.text import PathLike

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

NOTE = np.dtype(
    [("onset_s", np.float64), ("duration_s", np.float64), ("pitch", np.int16), ("velocity", np.int16), ("voice", "U16")]
)
"""A note of an answer."""


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
    notes : tuple of notes
        What it plays.
    record : Decision
        The whole record: influences with their shares, filters, runners-up.
    """

    time_s: float
    kind: str
    voice: str
    reason: str
    source: Source | None
    notes: tuple[Note, ...]
    record: Decision


class Answer:
    """The answer to a recording.

    Attributes
    ----------
    model : PartnerModel
        The partner that answers.
    performance : Performance
        All that was heard and decided.
    y : ndarray of shape (n,)
        The player.
    sr : int
        Rate of `y` in Hz.
    routing : Routing or None
        By which channels, ranges and programs voices are written and sound; None plays all on one channel.
    """

    def __init__(self, model: PartnerModel, performance: Performance, y: Float32, sr: int) -> None:
        self.model, self.performance, self.y, self.sr = model, performance, y, sr
        self.routing: Routing | None = None

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
        names = [recording.name for recording in self.model.recordings]
        return [explained(decision, names) for decision in self.performance.decisions]

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

    def to_midi(self, path: PathLike | None = None, *, program: int = 4, force: bool = False) -> bytes:
        """Return the answer as a Standard MIDI File, and write it to `path` if one is given.

        Parameters
        ----------
        path : str or path-like, optional
        program : int
            General MIDI program, counted from 0; 4 is an electric piano.
        force : bool
            Replace a file that MusicHal did not write, too.

        Returns
        -------
        bytes

        Raises
        ------
        InputError
            If the path cannot be written, or is a file that MusicHal did not write.

        Examples
        --------
        >>> import musichal as mh
        >>> y, sr = mh.read_audio(mh.example("band"))
        >>> answer = mh.train((y[: 10 * sr], sr)).respond(y[: 5 * sr], sr)
        >>> answer.to_midi()[:4]
        b'MThd'
        """
        if self.routing is None:
            data = reply_bytes(self.performance.decisions, channel=CHANNEL, program=program)
        else:
            data = score_bytes(routed_parts(self.performance.decisions, self.routing, program=program), TempoMap())
        if path is not None:
            check_outputs([(path, MIDI)], force=force, remedy="force=True")
            with open_atomically(path) as stream:
                stream.write(data)
        return data

    def to_audio(
        self, sr: int = 44100, *, sound: str = "soundfont", program: int = 4, soundfont: PathLike | None = None
    ) -> Float32:
        """Return the answer as sound, at a loudness of -20 dBFS over its sounding parts.

        Parameters
        ----------
        sr : int
            Sample rate in Hz.
        sound : {"soundfont", "slices"}
            An instrument, or slices of the partner's own recordings.
        program : int
            General MIDI program, counted from 0.
        soundfont : str or path-like, optional
            A SoundFont 2 file. Without one, an installed one, else the embedded instrument.

        Returns
        -------
        ndarray of shape (n,) or (n, 2), float32
            As long as the performance at least.

        Raises
        ------
        InputError
            If the soundfont cannot be used.
        PartnerFileError
            For slices, if the partner was trained without keeping its recordings.
        """
        if sound == "slices":
            # What was learned from the player sounds as the player did.
            sources = [*((r.samples(), r.sample_rate_hz) for r in self.model.recordings), (ingest(self.y), self.sr)]
            slices = slice_events(self.performance.decisions, live_recording=len(self.model.recordings))
            answer = render_slices(slices, sources, sample_rate_hz=sr)
        else:
            notes, programs = note_events(self.performance.decisions, channel=CHANNEL), {CHANNEL: program}
            if self.routing is not None:
                parts = routed_parts(self.performance.decisions, self.routing, program=program)
                programs = {part.channel: part.program for part in parts if part.program is not None}
                notes = [note for part in parts for note in part.notes]
            answer = render_notes(notes, find_instrument(soundfont), sample_rate_hz=sr, programs=programs)
        missing = max(0, round(self.duration_s * sr) - answer.shape[0])
        return at_loudness(np.pad(answer, [(0, missing)] + [(0, 0)] * (answer.ndim - 1)), sample_rate_hz=sr)

    def to_mix(self, answer: Float32, sr: int = 44100) -> Float32:
        """Return player and answer together, equally loud, the player on the left.

        Parameters
        ----------
        answer : ndarray of shape (n,) or (n, 2)
            From `to_audio`, at the rate `sr`.
        sr : int
            Sample rate in Hz.

        Returns
        -------
        ndarray of shape (n, 2), float32
        """
        player = at_loudness(self.y, sample_rate_hz=self.sr)
        rates = {"player_rate_hz": self.sr, "answer_rate_hz": sr, "sample_rate_hz": sr}
        return mix(player, answer, **rates)

    def to_figure(self) -> "Figure":
        """Return the performance as a matplotlib figure, as `musichal.plot.performance` does."""
        from musichal.plots.performance import draw_performance

        return draw_performance(
            self.performance,
            self.y,
            sample_rate_hz=self.sr,
            recording_names=[recording.name for recording in self.model.recordings],
            notes=note_events(self.performance.decisions, channel=CHANNEL),
        )


class Stream:
    """A performance in progress: blocks of sound in, notes out.

    Made by `Partner.stream`.
    """

    def __init__(self, model: PartnerModel, sr: int, *, settings: PartnerSettings, seed: int) -> None:
        self._model, self._sr, self._seed, self._settings = model, sr, seed, settings
        self.reset()

    def reset(self) -> Self:
        """Begin anew, with the settings and the seed of the beginning; return the stream."""
        model = self._model
        rate_hz = model.spec.sample_rate_hz
        listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=self._sr)
        self._player = Improviser(model.memory, self._settings, rng=np.random.default_rng(self._seed), sample_rate_hz=rate_hz)
        self._engine = Engine(listener, self._player, sample_rate_hz=rate_hz)
        self._decisions: list[Decision] = []
        self._waiting: list[Note] = []
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
        names = [recording.name for recording in self._model.recordings]
        return [explained(decision, names) for decision in self._decisions]

    @single_blas_thread()
    def push(self, block: Audio) -> list[Note]:
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
        return waiting + self._taken(self._engine.push(floats_of(block)).decisions)

    @single_blas_thread()
    def finish(self) -> list[Note]:
        """End the stream; return the last notes."""
        waiting, self._waiting = self._waiting, []
        return waiting + self._taken(self._engine.finish().decisions)

    def set(self, **settings: Any) -> None:
        """Change settings from now on, as ``set(temperature=0.8)`` or ``set(mode="mirror")``.

        ``set(tap=True)`` says that a beat is now, ``set(tap={"at_s": 3.21})`` where it was in the stream.

        Raises
        ------
        InputError
            For an unknown name or a value out of range; nothing changes then.
        """
        self._waiting += self._taken(self._engine.change(settings).decisions)

    def _taken(self, decisions: Iterable[Decision]) -> list[Note]:
        taken = list(decisions)
        self._decisions += taken
        return [note for decision in taken for note in decision.notes]


def explained(decision: Decision, names: Sequence[str]) -> ExplainedDecision:
    """Return a decision with its reason in words; `names` are those of the recordings."""
    source = None
    if decision.recording is not None and decision.source_start_s is not None:
        source = Source(None if decision.live else names[decision.recording], decision.source_start_s)
    return ExplainedDecision(
        decision.time_s, decision.kind, decision.voice, explain(decision, names), source, decision.notes, decision
    )
