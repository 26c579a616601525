"""`musichal evaluate`: whether a partner listens, with baselines in the same run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from musichal.arrays import Float32
from musichal.audio.instrument import Instrument, find_instrument, render_notes
from musichal.audio.recording import Recording, read_recordings
from musichal.commands.options import EvaluateOptions, settings_from
from musichal.commands.play import direction
from musichal.commands.terminal import Terminal, table_of
from musichal.errors import InputError
from musichal.evaluate.answer_measures import MemoryUse, memory_use
from musichal.evaluate.answers import DeafWalker, Echo, MakePlayer, Progress, answer, cut_excerpts, joined, with_pauses
from musichal.evaluate.duos import choice_rows, duos_from, evaluate_duos, harmony_rows, text_of, time_rows
from musichal.evaluate.evaluation import Contestant, Effect, Evaluation, Room, chosen_trials, contest, parameter_effects
from musichal.evaluate.feedback import Feedback, Render, feedback, mean_feedback
from musichal.evaluate.listening import AT_ONCE_S, DIMENSIONS, Area
from musichal.evaluate.together import ANCHORS, DuoEvaluation, DuoSong
from musichal.live.output.files import REPORT, check_outputs
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.note import Note
from musichal.partner.partner import Partner
from musichal.partner.settings import Direction, PartnerSettings
from musichal.text import printable, shortened

PLAYING_MODES = ("shadow", "mirror", "couple", "lead", "contrast", "auto")
_ROOMS = 4
_ROOM_S, _ROOM_SILENT_S = 15.0, 12.0
_ELECTRIC_PIANO = 4
ECHO, DEAF = "echo (no memory)", "deaf (random walk)"


def evaluate_command(
    *,
    partner: Path,
    recordings: Sequence[Path] | None,
    terminal: Terminal,
    duo: bool = False,
    beats: Path | None = None,
    player_track: str | None = None,
    push: float = 0.0,
    jump: int = 0,
    exact: bool = False,
    train_share: float = 0.5,
    pairs: bool = False,
    excerpt: float = 30.0,
    most: int = 24,
    pause: float = 0.0,
    minutes: float = 15.0,
    mode: Sequence[str] | None = None,
    modes: Path | None = None,
    effects: bool = False,
    effect: Sequence[str] | None = None,
    processes: int = 1,
    room: bool = False,
    report: Path | None = None,
    seed: int = 0,
    set_: Sequence[str] | None = None,
    force: bool = False,
) -> Evaluation | DuoEvaluation:
    """Let a partner answer excerpts of recordings, and show how far its answers listen, remember, fit and breathe.

    With `duo`, `partner` and `recordings` are the files of duos instead, and what is shown is how far answers are together.
    Raises `MusicHalError` if the partner or a recording cannot be used, or the report cannot be written.
    """
    if duo:
        return evaluate_duo_command(
            files=[partner, *(recordings or ())],
            terminal=terminal,
            beats=beats,
            player_track=player_track,
            push=push / 100,
            jump=jump,
            exact=exact,
            train_share=train_share,
            pairs=pairs,
            directions={name: direction(name, modes, None) for name in mode or ["couple"]},
            report=report,
            seed=seed,
            set_=set_ or (),
            force=force,
        )
    if beats is not None or player_track is not None or push or jump or exact or pairs:
        raise InputError("--beats, --player-track, --push, --jump, --exact and --pairs are for --duo")
    if not recordings:
        raise InputError("give recordings of players behind the partner file, or --duo")
    trials_asked = chosen_trials(effect or []) if effects or effect else ()
    settings = settings_from(set_ or [])
    directions = {name: direction(name, modes, None) for name in mode or PLAYING_MODES}
    if report is not None:
        report = report / f"{shortened(partner.stem)}-evaluated.html" if report.is_dir() else report
        check_outputs([(report, REPORT)], inputs=[partner, *recordings], force=force)
    with terminal.progress("Loading the partner") as progress:
        model = load_partner(partner)
        heard = read_recordings(recordings, warn=terminal.warn, progress=progress)
        given = [with_pauses(recording, pause_s=pause) for recording in heard]
        excerpts = cut_excerpts(model, given, excerpt_s=excerpt, most=most, progress=progress)
        ways = players_of(model, settings, directions)
        players, contestants = contest(ways, excerpts, model.memory, seed=seed, progress=progress)
        stream = joined(excerpts, duration_s=60 * minutes)
        long_runs = {}
        for number, (way, make) in enumerate(ways.items()):
            progress(f"Playing {minutes:g} minutes as {way}", number / len(ways))
            long_runs[way] = memory_use(answer(stream, make(seed)), model.memory)
        done: tuple[Effect, ...] = ()
        if trials_asked:
            done = parameter_effects(
                model, settings, excerpts, trials_asked, file=partner, processes=processes, seed=seed, progress=progress
            )
        rooms = _rooms(model, settings, directions, given, seed=seed, progress=progress) if room else ()
        evaluation = Evaluation(
            printable(partner.name), excerpt, excerpts, players, contestants, 60 * minutes, long_runs, done, rooms
        )
        if report is not None:
            from musichal.plots.report import write_evaluation

            progress("Drawing the report", 1.0)
            write_evaluation(evaluation, report)
    terminal.result(evaluation.to_dict())
    for table in _tables(evaluation):
        terminal.show(table)
    if report is not None:
        terminal.say(f"Wrote {printable(report)}")
    return evaluation


def start_command(options: EvaluateOptions, terminal: Terminal) -> None:
    """Evaluate as the options say."""
    evaluate_command(terminal=terminal, **vars(options))


def players_of(model: PartnerModel, settings: PartnerSettings, directions: Mapping[str, Direction]) -> dict[str, MakePlayer]:
    """Return who is measured: the partner in each of its modes, one that only listens, and one that is deaf."""
    rate = model.spec.sample_rate_hz

    def playing(direction: Direction) -> MakePlayer:
        chosen = replace(settings, direction=direction)
        return lambda seed: Partner(model.memory, chosen, rng=np.random.default_rng(seed), sample_rate_hz=rate)

    return {
        **{name: playing(direction) for name, direction in directions.items()},
        ECHO: lambda _seed: Echo(),
        DEAF: lambda seed: DeafWalker(model.memory, rng=np.random.default_rng(seed)),
    }


def _rooms(
    model: PartnerModel,
    settings: PartnerSettings,
    directions: Mapping[str, Direction],
    recordings: Sequence[Recording],
    *,
    seed: int,
    progress: Progress,
) -> tuple[Room, ...]:
    """Return how the partner does in each mode where it hears itself, on the beginnings of a few recordings."""
    instrument = find_instrument()
    found = []
    few = recordings[:_ROOMS]
    for number, (name, by) in enumerate(directions.items()):
        runs: list[tuple[Feedback, ...]] = []
        for i, recording in enumerate(few):
            progress(f"Hearing itself as {name}", (number + i / len(few)) / len(directions))
            rate = recording.sample_rate_hz
            samples = recording.samples[: round(_ROOM_S * rate)]
            runs.append(
                feedback(
                    model,
                    np.concatenate([samples, np.zeros(round(_ROOM_SILENT_S * rate), dtype=np.float32)]),
                    _electric_piano(instrument, rate),
                    sample_rate_hz=rate,
                    player_s=samples.shape[0] / rate,
                    settings=replace(settings, direction=by),
                    seed=seed + i,
                )
            )
        found += [Room(name, mean_feedback(alike)) for alike in zip(*runs, strict=True)]
    return tuple(found)


def _electric_piano(instrument: Instrument, rate_hz: int) -> Render:
    @lru_cache(maxsize=2048)
    def sound(pitch: int, velocity: int, duration_s: float) -> Float32:
        notes = [Note(0.0, duration_s, pitch, velocity, 0)]
        stereo = render_notes(notes, instrument, sample_rate_hz=rate_hz, programs={0: _ELECTRIC_PIANO})
        return stereo.mean(axis=1, dtype=np.float32)

    return lambda note: sound(note.pitch, note.velocity, round(note.duration_s, 2))


def _tables(evaluation: Evaluation) -> Iterator[Table]:
    contestants = evaluation.contestants

    def table(title: str, columns: Sequence[str], cells: Callable[[Contestant], Sequence[str]]) -> Table:
        return table_of(title, ("", *columns), [(c.name, *cells(c)) for c in contestants], right=True)

    count = len(evaluation.excerpts)
    yield table(
        f"Listening: is the true input of {count} answers told from the others? 0.5 is deaf, 1 always (95 % interval)",
        ("together", *DIMENSIONS),
        lambda c: [_area(a) for a in (c.listening.together, *(c.listening.by_dimension[d] for d in DIMENSIONS))],
    )
    yield table(
        f"The same at once, {AT_ONCE_S:g} s behind the player: below 0.5 goes against",
        DIMENSIONS,
        lambda c: [_area(c.listening.at_once[d]) for d in DIMENSIONS],
    )
    yield table(
        f"Memory, in {evaluation.long_run_s / 60:g} minutes",
        ("goes on as recorded", "states in a row", "visited", "longest quote", "repeated", "the player's own"),
        lambda c: _use(evaluation.long_runs[c.name]),
    )
    yield table(
        "Harmony with what sounds",
        ("notes", "in harmony", "moved in time"),
        lambda c: [str(c.harmony.notes), f"{c.harmony.consonant:.1%}", f"{c.harmony.consonant_when_shifted:.1%}"],
    )
    first = contestants[0].phrasing
    yield table(
        f"Phrases (players: {first.player_silence:.0%} silent, phrases of {first.player_phrase_s:.1f} s;"
        f" memory: {first.memory_silence:.0%}, {first.memory_phrase_s:.1f} s)",
        ("gap after the player", "over the player", "silent", "phrases", "length"),
        lambda c: [
            "–" if c.phrasing.gap_s is None else f"{c.phrasing.gap_s:.2f} s",
            f"{c.phrasing.overlap:.0%}",
            f"{c.phrasing.silence:.0%}",
            str(c.phrasing.phrases),
            f"{c.phrasing.phrase_s:.1f} s",
        ],
    )
    if evaluation.rooms:
        yield _rooms_table(evaluation.rooms)
    if evaluation.effects:
        yield _effects_table(evaluation.effects)


def _rooms_table(rooms: Sequence[Room]) -> Table:
    columns = ("level", "plays on", "at most", "by itself", "its own among what it learned", "learned of the player")
    rows = []
    for level in [room for room in rooms if room.feedback.knows]:
        knows = level.feedback
        (other,) = [
            r.feedback for r in rooms if r.way == level.way and r.feedback.level_db == knows.level_db and not r.feedback.knows
        ]
        rows.append(
            (
                level.way,
                f"{knows.level_db:g} dB",
                f"{knows.on_s:.1f} s ({other.on_s:.1f} s)",
                f"{knows.longest_on_s:.1f} s ({other.longest_on_s:.1f} s)",
                f"{knows.alone_on_s:.1f} s",
                f"{knows.learned_own:.0%} ({other.learned_own:.0%})",
                f"{knows.kept:.0%} ({other.kept:.0%})",
                f"{knows.heard:.2f} ({other.heard:.2f})",
                f"{knows.harmony:.2f} ({other.harmony:.2f})",
                f"{knows.harmony_at_best:.2f}",
            )
        )
    title = "Hearing itself after the player stops, by level against the player; in brackets without knowing its own notes"
    return table_of(title, ("", *columns, "harmony heard", "its own harmony", "at best"), rows, right=True)


def _effects_table(effects: Sequence[Effect]) -> Table:
    rows = [
        (e.parameter, " to ".join(e.ends), e.outcome, f"{e.size:+.2f}", f"{e.p_value:.3f}", f"{e.others:.0%}")
        for e in sorted(effects, key=lambda e: -abs(e.size))
    ]
    columns = ("parameter", "ends", "moves most", "by", "p", "other notes")
    return table_of("Effect of each parameter, in standard deviations between its ends", columns, rows)


def _area(area: Area) -> str:
    return f"{area.value:.2f} ({area.low:.2f}–{area.high:.2f})"


def _use(use: MemoryUse) -> list[str]:
    shares = (f"{use.continued:.0%}", f"{use.mean_run:.1f}", f"{use.visited:.0%}")
    return [*shares, f"{use.longest_quote_s:.1f} s", f"{use.repeated:.1%}", f"{use.learned:.0%}"]


# ── duos ─────────────────────────────────────────────────────────────────────

_MAIN_TIME, _MAIN_HARMONY = (1, 2, 5, 6, 7), (1, 2, 3, 4, 5)


def evaluate_duo_command(
    *,
    files: Sequence[Path],
    terminal: Terminal,
    beats: Path | None,
    player_track: str | None,
    push: float,
    jump: int,
    exact: bool,
    train_share: float,
    pairs: bool,
    directions: Mapping[str, Direction],
    report: Path | None,
    seed: int,
    set_: Sequence[str],
    force: bool = False,
) -> DuoEvaluation:
    """Measure duos and show how each mode does beside the anchors.

    Raises `MusicHalError` if a file cannot be used, or the report cannot be written.
    """
    settings = settings_from(set_)
    if report is not None:
        report = report / f"{shortened(files[0].stem)}-duo.html" if report.is_dir() else report
        check_outputs([(report, REPORT)], inputs=files, force=force)
    with terminal.progress("Reading") as progress:
        changes: dict[str, Any] = {"player_track": player_track, "push": push, "jump": jump, "exact": exact}
        duos = duos_from(files, beats=beats, train_share=train_share, progress=progress, **changes)
        found = evaluate_duos(
            duos, directions, settings=settings, train_share=train_share, pairs=pairs, seed=seed, progress=progress
        )
        if report is not None:
            from musichal.plots.duo import write_duo

            progress("Drawing the report", 1.0)
            write_duo(found, report)
    terminal.result(found.to_dict())
    for table in duo_tables(found):
        terminal.show(table)
    if report is not None:
        terminal.say(f"Wrote {printable(report)}")
    return found


def duo_tables(evaluation: DuoEvaluation) -> Iterator[Table]:
    """Yield the tables of all contestants, of time and of harmony, and, for more than one song, one of the songs."""
    songs, chance = evaluation.songs, evaluation.chance_r
    count = f"{len(songs)} {'song' if len(songs) == 1 else 'songs'}"
    beats = sorted({"unknown" if song.beats is None else song.beats.source for song in songs})
    title = f"Together in time, {count}; beats: {', '.join(beats)}"
    if chance is not None:
        title += f"; R by chance is {chance:.2f}"
    notes = ", ".join(sorted({song.notes_from for song in songs}))
    for titles, rows, main in (
        ((title, "More of time"), time_rows(evaluation), _MAIN_TIME),
        ((f"Together in harmony, {count}; notes: {notes}", "More of harmony"), harmony_rows(evaluation), _MAIN_HARMONY),
    ):
        for columns in (main, [n for n in range(1, len(rows[0])) if n not in main]):  # for a window of 80 columns
            header, *picked = [(row[0], *(row[n] for n in columns)) for row in rows]
            yield table_of(titles[columns is not main], header, picked, right=True)
    header, *choices = choice_rows(evaluation)
    yield table_of("Choices", header, choices, right=True)
    if len(songs) > 1:
        ways = [c.name for c in evaluation.contestants if c.name not in ANCHORS]
        yield table_of(
            "By song: R on its grid / within 40 ms / agrees",
            ("", "grid", *ways),
            [(song.name, "triplets" if song.grid == 3 else "16ths", *(_summary(song, way) for way in ways)) for song in songs],
            right=True,
        )


def _summary(song: DuoSong, way: str) -> str:
    time, harmony = song.played[way].time, song.played[way].harmony
    parts = (("r_grid", time.r_grid), ("within", time.within), ("agreement", harmony.agreement))
    return " / ".join(text_of(name, value) for name, value in parts)
