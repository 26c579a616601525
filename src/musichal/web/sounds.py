"""Sound and memory for the page: moments of the partner's recordings, a session's whole duo, and what the memory looks like.

The engine's process names the files; a page names only numbers. The page's process loads the partner for itself, so that
nothing of this is done beside the music.
"""

import contextlib
import io
import itertools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from musichal.arrays import Float32
from musichal.audio.instrument import find_instrument
from musichal.errors import MusicHalError
from musichal.live.session.export import Duo, score_bytes, session_markers, tempo_map
from musichal.live.session.session import Session, read_session
from musichal.memory.container import as_bytes
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.plots.partner import repeats

_BEFORE_S, _AFTER_S = 0.5, 0.5
_COLUMNS = 1200
_ARCS = 60
_MOST_NOTES = 40_000
_LONGEST_WHOLE_S = 3600.0
_PREPARED_S = 600.0
_RINGS_S = 5.0


class Sounds:
    """Finds sounds and pictures of files. Its methods are for any thread but the one that serves.

    * `files`: Paths of the ``partner``, and of the ``session`` that is shown.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._lock, self._rendering = threading.Lock(), threading.Lock()
        self._files = dict(files)
        self._model: PartnerModel | None = None
        self._session: Session | None = None
        self._whole: bytes | None = None
        self._duo: Duo | None = None

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

    def prepare(self) -> None:
        """Make the sound of a session that is not long before anybody asks for it."""
        session = self._played()
        if session is not None and session.input_samples <= _PREPARED_S * session.settings.sample_rate_hz:
            self.whole()

    def whole(self) -> bytes | None:
        """Return a session's duo as FLAC, the player on the left and the partner on the right; None where there is none."""
        session = self._played()
        if session is None or not 0 < session.input_samples <= _LONGEST_WHOLE_S * session.settings.sample_rate_hz:
            return None
        with self._rendering, contextlib.suppress(MusicHalError):
            if self._whole is None:
                duo = self._both(session)
                end_s = max(duo.duration_s, min(duo.notes_s, duo.duration_s + _RINGS_S))
                both = duo.mixed(duo.player(0.0, end_s), duo.answer(0.0, end_s))
                self._whole = _sound(both, duo.rate_hz, "FLAC")
            return self._whole
        return None

    def exported(self, kind: str, start_s: float, end_s: float) -> bytes | None:
        """Return a stretch of a session as ``musichal export`` writes it: its MIDI, or both as sound (``wav``).

        None where there is none, or where it is longer than an hour.
        """
        session = self._played()
        if session is None:
            return None
        with self._rendering, contextlib.suppress(MusicHalError):
            duo = self._both(session)
            end_s = min(end_s, max(duo.duration_s, duo.notes_s))
            if not 0 < end_s - start_s <= _LONGEST_WHOLE_S:
                return None
            if kind == "wav":
                return _sound(duo.mixed(duo.player(start_s, end_s), duo.answer(start_s, end_s)), duo.rate_hz, "WAV")
            own = duo.player_part(start_s, end_s)
            parts = [*duo.parts(start_s, end_s), *([] if own is None else [own])]
            markers = [(m.at_s - start_s, m.words) for m in session_markers(session) if start_s <= m.at_s < end_s]
            return score_bytes(parts, tempo_map(session.decisions, start_s=start_s), markers)
        return None

    def _both(self, session: Session) -> Duo:
        if self._duo is None:
            self._duo = Duo(session, find_instrument())
        return self._duo


def _wav(samples: Float32, rate: int) -> bytes:
    return _sound(samples, rate, "WAV")


def _sound(samples: Float32, rate: int, kind: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype="PCM_16")
    return out.getvalue()
