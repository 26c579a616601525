"""Duos from files: pairs of recordings, and multitrack MIDI files that are rendered."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from musichal.arrays import Float64
from musichal.audio.instrument import Instrument
from musichal.audio.midi_recording import played_recording
from musichal.audio.pairs import render_pair
from musichal.audio.recording import read_recording
from musichal.audio.recording_files import MIDI_SUFFIXES
from musichal.audio.score import Score, melody_of, read_score
from musichal.errors import InputError
from musichal.evaluate.harmony_together import PitchedNotes, PitchTruth
from musichal.evaluate.time_together import BeatMap
from musichal.evaluate.together import (
    ANCHORS,
    Duo,
    DuoContestant,
    DuoEvaluation,
    HeardDuo,
    Progress,
    evaluation_of,
    hear_duo,
    play_duo,
)
from musichal.machine import single_blas_thread
from musichal.partner.modes import built_in_modes
from musichal.partner.settings import Direction, PartnerSettings
from musichal.text import PathLike, printable, read_text, unknown_name

TRAIN_SHARE = 0.5
_MOST_BEATS = 1_000_000
_LARGEST_PUSH = 0.25
_LARGEST_JUMP = 11


@single_blas_thread()
def duo(
    *songs: PathLike | tuple[PathLike, PathLike],
    modes: Sequence[str] = ("couple",),
    beats: PathLike | None = None,
    player_track: str | None = None,
    push: float = 0.0,
    jump: int = 0,
    exact: bool = False,
    train_share: float = TRAIN_SHARE,
    pairs: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> DuoEvaluation:
    """Measure whether a partner's answers are together with a band that it does not hear.

    For each song a partner learns the first part of the band and answers the player on the rest. Its answers are compared
    with what the band played there, beside a real part, a part of elsewhere, a deaf partner and an echo.

    Parameters
    ----------
    *songs : (player, band), or path
        Recordings of a player and of a band, of one performance; or a multitrack MIDI file, whose beats and notes are exact.
    modes : sequence of str
        How the partner plays.
    beats : path, optional
        A text file with the time of a beat in seconds at the start of each line, for a single pair of recordings. Without one
        the beats are found in the band.
    player_track : str, optional
        Name or number of the player's track in the MIDI files; default: the most melodic.
    push : float
        In MIDI files, the player's tempo changes by this share, such as 0.08, in the middle of what is answered.
    jump : int
        In MIDI files, player and band jump by so many semitones for the middle third of what is answered.
    exact : bool
        MIDI files are learned and play with their own notes, as in `train` and `Live`, instead of as recordings.
    train_share : float
        Part of the band that is learned, 0.2 to 0.8.
    pairs : bool
        Learn how the band sounded beside the player: a memory of pairs.
    seed : int
        Seed of the partner's choices.
    progress : callable, optional
        Called as ``progress(what, share)``.
    **settings
        Parameters of the partner by name.

    Returns
    -------
    DuoEvaluation

    Raises
    ------
    InputError
        If a file, a track, a mode or a setting cannot be used.

    Examples
    --------
    >>> import musichal as mh
    >>> found = mh.evaluate.duo((mh.example("guitar"), mh.example("band")), modes=["shadow"])
    >>> [contestant.name for contestant in found.contestants][:2]
    ['shadow', 'the real part']
    """
    for mode in modes:
        if mode not in (names := [*built_in_modes(), "auto"]):
            raise unknown_name("mode", mode, names)
    if not songs:
        raise InputError("there is no duo: give a player's and a band's recording, or a multitrack MIDI file")
    files = [Path(part) for song in songs for part in (song if isinstance(song, tuple) else (song,))]
    return evaluate_duos(
        duos_from(
            files,
            beats=beats,
            player_track=player_track,
            push=push,
            jump=jump,
            exact=exact,
            train_share=train_share,
            progress=progress,
        ),
        {mode: Direction(mode=mode) for mode in modes},
        settings=PartnerSettings().changed(settings),
        train_share=train_share,
        pairs=pairs,
        seed=seed,
        progress=progress,
    )


def evaluate_duos(
    duos: Sequence[Duo],
    directions: Mapping[str, Direction],
    *,
    settings: PartnerSettings,
    train_share: float = TRAIN_SHARE,
    pairs: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> DuoEvaluation:
    """Train, hear and answer duos, and measure them together."""
    tell = progress or (lambda _what, _share: None)
    if not 0.2 <= train_share <= 0.8:
        raise InputError(f"the share of the band that is learned must be in [0.2, 0.8], got {train_share!r}")
    heard: list[HeardDuo] = []
    for number, item in enumerate(duos):

        def telling(what: str, share: float, number: int = number) -> None:
            tell(what, 0.7 * (number + share) / len(duos))

        heard.append(hear_duo(item, train_share=train_share, pairs=pairs, progress=telling))
        if heard[-1].beats is None:
            raise InputError(f"{item.name}: no steady beat is found in the band where the partner answers; --beats can give it")
    played = []
    for number, song in enumerate(heard):
        tell(f"Answering the player of {song.name}", 0.7 + 0.3 * number / len(heard))
        elsewhere = heard[(number + 1) % len(heard)] if len(heard) > 1 else None
        played.append(play_duo(song, directions, settings=settings, seed=seed, elsewhere=elsewhere))
    return evaluation_of(played, seed=seed)


def duos_from(
    files: Sequence[Path],
    *,
    beats: PathLike | None = None,
    player_track: str | None = None,
    push: float = 0.0,
    jump: int = 0,
    exact: bool = False,
    train_share: float = TRAIN_SHARE,
    progress: Progress | None = None,
) -> list[Duo]:
    """Return files as duos: a MIDI file is one, recordings are pairs of a player's and a band's, in this order."""
    tell = progress or (lambda _what, _share: None)
    songs: list[tuple[Path, ...]] = []
    waiting: tuple[Path, ...] = ()
    for file in files:
        waiting = (*waiting, file)
        if len(waiting) == 2 or file.suffix.lower() in MIDI_SUFFIXES:
            songs.append(waiting)
            waiting = ()
    if waiting or any(len(song) == 2 and song[1].suffix.lower() in MIDI_SUFFIXES for song in songs):
        alone = (waiting or next(song for song in songs if len(song) == 2 and song[1].suffix.lower() in MIDI_SUFFIXES))[0]
        raise InputError(f"{printable(alone)} is a player without a band: a duo is two recordings, or one MIDI file")
    pairs = sum(len(song) == 2 for song in songs)
    if beats is not None and (pairs != 1 or len(songs) > 1):
        raise InputError("a file of beats goes with a single pair of recordings")
    if pairs and (player_track is not None or push or jump or exact):
        raise InputError("the player's track, changes of tempo and key, and exact notes are for MIDI files")
    found = []
    for number, song in enumerate(songs):
        tell(f"Reading {printable(song[0].name)}", number / len(songs) / 10)
        if len(song) == 2:
            found.append(duo_of_recordings(*song, beats=beats))
        else:
            score = read_score(song[0])
            changes: dict[str, Any] = {"player_track": player_track, "push": push, "jump": jump, "exact": exact}
            found.append(duo_of_score(score, train_share=train_share, **changes))
    return found


def duo_of_recordings(player: PathLike, band: PathLike, *, beats: PathLike | None = None) -> Duo:
    """Return two recordings as a duo; raises `InputError` where one cannot be used."""
    known = None if beats is None else BeatMap(read_beats(beats), "given")
    player_recording, band_recording = read_recording(player), read_recording(band)
    return Duo(printable(Path(player).stem), player_recording, band_recording, beats=known)


def duo_of_score(
    score: Score,
    *,
    player_track: str | None = None,
    push: float = 0.0,
    jump: int = 0,
    exact: bool = False,
    train_share: float = TRAIN_SHARE,
    instrument: Instrument | None = None,
) -> Duo:
    """Return a score as a duo: rendered, one track as the player, the rest as the band; where `exact`, with their notes.

    With `push` the tempo changes by this share in the middle of the part that is answered, with `jump` all but drums moves by
    so many semitones at the bar a third into it, and back at the bar two thirds into it.
    """
    if not abs(push) <= _LARGEST_PUSH:
        raise InputError(f"a change of tempo must be in [-{_LARGEST_PUSH:.0%}, {_LARGEST_PUSH:.0%}], got {push:+.0%}")
    chosen = melody_of(score) if player_track is None else score.track(player_track)
    number = next(n for n, track in enumerate(score.tracks) if track is chosen)
    push_s = None
    if push:
        middle_s = (1 + train_share) / 2 * score.duration_s
        push_s = float(score.beats_s[np.searchsorted(score.beats_s, middle_s)])
        score = score.with_tempo(1 + push, from_s=push_s)
    jumps_s: tuple[float, ...] = ()
    if jump:
        if not abs(jump) <= _LARGEST_JUMP:
            raise InputError(f"a jump of the key must be in [-{_LARGEST_JUMP}, {_LARGEST_JUMP}] semitones, got {jump:+d}")
        thirds_s = [(train_share + part * (1 - train_share) / 3) * score.duration_s for part in (1, 2)]
        bars = np.searchsorted(score.downbeats_s, thirds_s).clip(max=len(score.downbeats_s) - 1)
        jumps_s = tuple(score.downbeats_s[bars].tolist())
        score = score.transposed(jump, from_s=jumps_s[0], to_s=jumps_s[1])
    others = [track for n, track in enumerate(score.tracks) if n != number]
    if exact:
        player, band = (
            played_recording(score, tracks, duration_s=score.duration_s) for tracks in ([score.tracks[number]], others)
        )
    else:
        player, band = render_pair(score, number, instrument=instrument)
    return Duo(
        name=score.name.removesuffix(Path(score.name).suffix),
        player=replace(player, name=score.tracks[number].name),
        band=replace(band, name="the band"),
        beats=BeatMap(score.beats_s, "of the MIDI file"),
        parts_s=tuple(track.onsets_s for track in others),
        player_s=score.tracks[number].onsets_s,
        push_s=push_s,
        pitches=PitchTruth(
            tuple(PitchedNotes.of(track.notes) for track in others if not track.is_drums),
            PitchedNotes.of(score.tracks[number].notes),
            "of the MIDI file",
            jumps_s=jumps_s,
        ),
    )


def read_beats(path: PathLike) -> Float64:
    """Return the beats of a text file: seconds at the start of each line (the format of `mir_eval`, or CSV), ascending."""
    lines = [re.split(r"[,;\s]+", line.strip())[0] for line in read_text(path, limit=30 * _MOST_BEATS).splitlines()]
    try:
        beats = np.array([float(first) for first in lines if first and not first.startswith("#")])
    except ValueError as error:
        raise InputError(f"{printable(path)}: each line must begin with the time of a beat in seconds") from error
    if len(beats) < 4 or not np.all(np.isfinite(beats)) or not np.all(np.diff(beats) > 0.05):
        raise InputError(f"{printable(path)}: there must be at least 4 beats, ascending, more than 0.05 s apart")
    return beats


# ── tables ───────────────────────────────────────────────────────────────────

Rows = list[tuple[str, ...]]

TIME = MappingProxyType(
    {
        "onsets": "onsets",
        "r16": "R 16ths",
        "r8": "R 8ths",
        "r_triplets": "R triplets",
        "r_grid": "R their grid",
        "within": "within 40 ms",
        "within_moved": "moved in time",
        "asynchrony_ms": "asynchrony",
        "spread_ms": "spread",
        "phrase_beats": "phrase",
        "in_time": "in time",
    }
)
HARMONY = MappingProxyType(
    {
        "agreement": "agrees",
        "agreement_moved": "moved in time",
        "band": "band alone",
        "band_moved": "moved in time",
        "band_above_moved": "above moved",
        "in_chord": "in the chord",
        "consonant": "consonant",
        "unsupported": "unsupported",
    }
)
CHOICES = MappingProxyType(
    {
        "entropy_bits": "note lengths",
        "longest_quote": "longest quote",
        "memory_used": "memory used",
        "learned": "learned",
        "like_above_any": "like the band",
        "transposition_changes": "moves the key",
        "no_support": "no support",
        "under_half": "under half",
    }
)
_PLAIN = ("r16", "r8", "r_triplets", "r_grid")
_INTERVALS = ("r16", "r_grid", "within", "agreement", "band_above_moved", "in_chord", "like_above_any")


def time_rows(evaluation: DuoEvaluation) -> Rows:
    """Return how each contestant was in time."""
    pushed = any(song.pushed for song in evaluation.songs)
    rows = _rows(evaluation.contestants, "time", TIME)
    if pushed:
        backs = [_back(c.back_beats, c.never_back) for c in evaluation.contestants]
        rows = [(*row, more) for row, more in zip(rows, ["back after a push", *backs], strict=True)]
    return rows


def harmony_rows(evaluation: DuoEvaluation) -> Rows:
    """Return how each contestant was in harmony."""
    rows = _rows(evaluation.contestants, "harmony", HARMONY)
    if any(played.tune_beats for song in evaluation.songs for played in song.played.values()):
        backs = [_back(c.tune_beats, c.never_in_tune) for c in evaluation.contestants]
        rows = [(*row, more) for row, more in zip(rows, ["back after a jump", *backs], strict=True)]
    return rows


def choice_rows(evaluation: DuoEvaluation) -> Rows:
    """Return what the choices of each mode were made of."""
    return _rows([c for c in evaluation.contestants if c.name not in ANCHORS], "harmony", CHOICES)


def text_of(name: str, value: float | None) -> str:
    """Return the value of a measure as text."""
    if value is None:
        return "–"
    if name in ("onsets", "longest_quote"):
        return f"{value:.0f}"
    if name in _PLAIN:
        return f"{value:.2f}"
    if name == "band_above_moved":
        return f"{value:+.0%}"
    if name == "like_above_any":
        return f"{value:+.2f}"
    units = {"asynchrony_ms": "+.0f ms", "spread_ms": ".0f ms", "phrase_beats": ".1f beats", "entropy_bits": ".1f bits"}
    form, _, unit = units.get(name, ".0%").partition(" ")
    return f"{value:{form}} {unit}".rstrip()


def _rows(contestants: Sequence[DuoContestant], kind: str, columns: Mapping[str, str]) -> Rows:
    return [("", *columns.values()), *((c.name, *(_cell(c, kind, name) for name in columns)) for c in contestants)]


def _cell(contestant: DuoContestant, kind: str, name: str) -> str:
    text = text_of(name, getattr(getattr(contestant, kind), name))
    intervals = getattr(contestant, f"{kind}_intervals")
    if name in _INTERVALS and name in intervals:
        text += " ({}–{})".format(*(text_of(name, edge) for edge in intervals[name]))
    return text


def _back(beats: float | None, never: int) -> str:
    return ("–" if beats is None else f"{beats:.1f} beats") + (f", {never} never" if never else "")
