"""Sound and memory for the page: moments of the partner's recordings, a session's whole duo, and what the memory looks like.

The engine's process names the files; a page names only numbers. The page's process loads the partner for itself, so that
nothing of this is done beside the music.
"""

import io
import itertools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from musichal.arrays import Float32
from musichal.audio.instrument import find_instrument, render_notes
from musichal.errors import MusicHalError
from musichal.live.engine import note_events
from musichal.live.session.event_log import as_sounded
from musichal.live.session.session import Session, read_session
from musichal.memory.container import as_bytes
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.plots.partner import repeats

_BEFORE_S, _AFTER_S = 0.5, 0.5
_COLUMNS = 1200
_ARCS = 60
_MOST_NOTES = 40_000
_LONGEST_WHOLE_S = 3600.0
_PLAYER_GAIN, _PARTNER_GAIN = 0.7, 0.7


class Sounds:
    """Finds sounds and pictures of files. Its methods are for any thread but the one that serves.

    Parameters
    ----------
    files : mapping
        Paths of the ``partner``, and of the ``session`` that is shown, with the ``clock_rate_hz`` of that.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._lock, self._rendering = threading.Lock(), threading.Lock()
        self._files = dict(files)
        self._model: PartnerModel | None = None
        self._session: Session | None = None
        self._whole: bytes | None = None

    def _partner(self) -> PartnerModel | None:
        with self._lock:
            if self._model is None and "partner" in self._files:
                try:
                    self._model = load_partner(Path(self._files["partner"]))
                except (MusicHalError, OSError):
                    self._files = {name: path for name, path in self._files.items() if name != "partner"}
            return self._model

    def _played(self) -> Session | None:
        with self._lock:
            if self._session is None and "session" in self._files:
                try:
                    self._session = read_session(Path(self._files["session"]))
                except (MusicHalError, OSError):
                    self._files = {name: path for name, path in self._files.items() if name != "session"}
            return self._session

    def memory(self) -> dict[str, Any] | None:
        """Return the message of what the memory looks like; None where there is no partner.

        `rows` are the recordings with their level in columns, `arcs` what comes back (recording, start and end of both
        stretches), `notes` all that can be played (recording, start, duration, pitch), up to `_MOST_NOTES`.
        """
        model = self._partner()
        if model is None:
            return None
        states = model.memory.states
        rows = []
        total_s = sum(r.duration_s for r in model.recordings)
        for recording in model.recordings:
            columns = max(8, round(_COLUMNS * recording.duration_s / max(total_s, 1e-9)))
            edges = np.linspace(0, len(recording.level_db), columns + 1).astype(int)
            parts = [recording.level_db[a:b] for a, b in itertools.pairwise(edges)]
            level = [round(float(part.max()), 0) if len(part) else -120.0 for part in parts]
            rows.append({"name": recording.name, "duration_s": round(recording.duration_s, 3), "level_db": level})
        starts, ends = states["start_s"], states["start_s"] + states["duration_s"]
        arcs = []
        for source, index in enumerate(model.memory.indexes):
            for first, again, length in zip(*(a.tolist() for a in repeats(index, most=_ARCS)), strict=True):
                stretches = [
                    (int(states["recording"][s]), float(starts[s]), float(ends[s + length - 1])) for s in (first, again)
                ]
                arcs.append([source, *[round(v, 2) for stretch in stretches for v in stretch]])
        owners = np.repeat(np.arange(len(states)), states["note_count"])[:_MOST_NOTES]
        notes = model.memory.notes[:_MOST_NOTES]
        begin = starts[owners] + notes["offset_s"]
        rows_of_notes = zip(
            states["recording"][owners].tolist(),
            begin.tolist(),
            notes["duration_s"].tolist(),
            notes["pitch"].tolist(),
            strict=True,
        )
        return {
            "k": "memory",
            "rows": rows,
            "arcs": arcs,
            "notes": [[r, round(b, 2), round(d, 2), p] for r, b, d, p in rows_of_notes],
            "states": len(states),
            "total_notes": len(model.memory.notes),
            "has_sound": all(r.flac is not None for r in model.recordings),
        }

    def moment(self, number: int, start_s: float, length_s: float) -> bytes | None:
        """Return a stretch of recording number `number` as WAV; None where there is none.

        Recording -1 is what the player played, where a session is shown.
        """
        if number == -1:
            session = self._played()
            if session is None:
                return None
            rate = session.settings.sample_rate_hz
            first, last = (round(at_s * rate) for at_s in (start_s - _BEFORE_S, start_s + length_s + _AFTER_S))
            return _wav(session.stretch(max(0, first), last), rate)
        model = self._partner()
        flac = None if model is None or not 0 <= number < len(model.recordings) else model.recordings[number].flac
        if flac is None:
            return None
        try:
            data = as_bytes(flac)
        except MusicHalError:  # the file was replaced while it plays
            return None
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            rate = int(sound.samplerate)
            first = min(max(0, round((start_s - _BEFORE_S) * rate)), int(sound.frames))
            sound.seek(first)
            samples = sound.read(round((length_s + _BEFORE_S + _AFTER_S) * rate), dtype="float32")
        return _wav(np.asarray(samples, dtype=np.float32), rate)

    def whole(self) -> bytes | None:
        """Return a session's duo as FLAC, the player on the left and the partner on the right; None where there is none."""
        session = self._played()
        if session is None or not 0 < session.input_samples <= _LONGEST_WHOLE_S * session.settings.sample_rate_hz:
            return None
        with self._rendering:
            if self._whole is None:
                self._whole = _duo(session, self._clock_rate_hz)
            return self._whole

    @property
    def _clock_rate_hz(self) -> int:
        return int(self._files.get("clock_rate_hz", "24000"))


def _duo(session: Session, clock_rate_hz: int) -> bytes:
    settings = session.settings
    player, rate = session.samples(), settings.sample_rate_hz
    events = note_events(as_sounded(session.decisions, session.entries, sample_rate_hz=clock_rate_hz), channel=settings.channel)
    answer = render_notes(events, find_instrument(), sample_rate_hz=rate, programs={settings.channel: settings.program})
    answer = answer.mean(axis=1)
    length = max(len(player), min(len(answer), len(player) + 5 * rate))
    both = np.zeros((length, 2), dtype=np.float32)
    mine, theirs = _PLAYER_GAIN * _levelled(player), _PARTNER_GAIN * _levelled(answer[:length])
    both[: len(mine), 0] += mine
    both[: len(mine), 1] += 0.4 * mine
    both[: len(theirs), 1] += theirs
    both[: len(theirs), 0] += 0.4 * theirs
    both /= max(1.0, float(np.abs(both).max()))
    out = io.BytesIO()
    soundfile.write(out, both, rate, format="FLAC", subtype="PCM_16")
    return out.getvalue()


def _levelled(samples: Float32) -> Float32:
    return samples / max(float(np.abs(samples).max(initial=0.0)), 1e-6)


def _wav(samples: Float32, rate: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()
