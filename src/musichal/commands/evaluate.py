"""`musichal evaluate`: whether a partner listens, with baselines in the same run."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from rich.table import Table

from musichal.arrays import Float32
from musichal.audio.instrument import Instrument, find_instrument, render_notes
from musichal.audio.recording import Recording, read_recordings
from musichal.commands.options import EvaluateOptions, settings_from
from musichal.commands.play import direction
from musichal.commands.terminal import Terminal, table_of
from musichal.errors import InputError
from musichal.evaluate.answers import (
    DeafWalker,
    Echo,
    Harmony,
    MakePlayer,
    MemoryUse,
    Progress,
    answer,
    cut_excerpts,
    joined,
    memory_use,
    with_pauses,
)
from musichal.evaluate.duos import choice_rows, duos_from, evaluate_duos, harmony_rows, text_of, time_rows
from musichal.evaluate.evaluation import (
    Contestant,
    Effect,
    Evaluation,
    Room,
    Sheet,
    chosen_trials,
    contest,
    parameter_effects,
)
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


def evaluate_command(options: EvaluateOptions, terminal: Terminal) -> Evaluation | DuoEvaluation:
    """Let a partner answer excerpts of recordings, and show how far its answers listen, remember, fit and breathe.

    With `duo`, the files are those of duos instead, and what is shown is how far answers are together.
    """
    if options.duo:
        return _evaluate_duos(options, terminal)
    for_duos = (options.push, options.jump, options.exact, options.pairs)
    if options.beats is not None or options.player_track is not None or any(for_duos):
        raise InputError("--beats, --player-track, --push, --jump, --exact and --pairs are for --duo")
    if not options.recordings:
        raise InputError("give recordings of players behind the partner file, or --duo")
    trials_asked = chosen_trials(options.effect or []) if options.effects or options.effect else ()
    settings = settings_from(options.set_ or [])
    directions = {name: direction(name, options.modes, None) for name in options.mode or PLAYING_MODES}
    report, partner, seed = _report_of(options, "evaluated"), options.partner, options.seed
    with terminal.progress("Loading the partner") as progress:
        model = load_partner(partner)
        heard = read_recordings(options.recordings, warn=terminal.warn, progress=progress)
        given = [with_pauses(recording, pause_s=options.pause) for recording in heard]
        excerpts = cut_excerpts(model, given, excerpt_s=options.excerpt, most=options.most, progress=progress)
        ways = players_of(model, settings, directions)
        players, contestants = contest(ways, excerpts, model.memory, seed=seed, progress=progress)
        stream = joined(excerpts, duration_s=60 * options.minutes)
        long_runs = {}
        for number, (way, make) in enumerate(ways.items()):
            progress(f"Playing {options.minutes:g} minutes as {way}", number / len(ways))
            long_runs[way] = memory_use(answer(stream, make(seed)), model.memory)
        done: tuple[Effect, ...] = ()
        if trials_asked:
            done = parameter_effects(
                model, settings, excerpts, trials_asked, file=partner, processes=options.processes, seed=seed, progress=progress
            )
        rooms = _rooms(model, settings, directions, given, seed=seed, progress=progress) if options.room else ()
        evaluation = Evaluation(
            printable(partner.name),
            options.excerpt,
            excerpts,
            players,
            contestants,
            60 * options.minutes,
            long_runs,
            done,
            rooms,
        )
        sheets = _sheets(evaluation)
        if report is not None:
            from musichal.plots.report import evaluation_html, write_page

            progress("Drawing the report", 1.0)
            write_page(report, evaluation_html(evaluation, sheets))
    tables = [table_of(title, rows[0], rows[1:], right=True) for title, rows in sheets]
    _show(evaluation, tables, report, terminal)
    return evaluation


def _report_of(options: EvaluateOptions, kind: str) -> Path | None:
    """Return the file of the report, checked before the work."""
    if options.report is None:
        return None
    name = f"{shortened(options.partner.stem)}-{kind}.html"
    report = options.report / name if options.report.is_dir() else options.report
    check_outputs([(report, REPORT)], inputs=[options.partner, *(options.recordings or ())], force=options.force)
    return report


def _show(found: Evaluation | DuoEvaluation, tables: Iterable[Table], report: Path | None, terminal: Terminal) -> None:
    terminal.result(found.to_dict())
    for table in tables:
        terminal.show(table)
    if report is not None:
        terminal.say(f"Wrote {printable(report)}")


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


def _sheets(evaluation: Evaluation) -> list[Sheet]:
    """Return the tables, each with its title and its header first, for a terminal and for the report."""
    contestants = evaluation.contestants

    def sheet(title: str, columns: Sequence[str], cells: Callable[[Contestant], Sequence[str]]) -> Sheet:
        return title, [("", *columns), *((c.name, *cells(c)) for c in contestants)]

    count, first = len(evaluation.excerpts), contestants[0].phrasing
    sheets = [
        sheet(
            f"Listening: is the true input of {count} answers told from the others? 0.5 is deaf, 1 always (95 % interval)",
            ("together", *DIMENSIONS),
            lambda c: [_area(a) for a in (c.listening.together, *(c.listening.by_dimension[d] for d in DIMENSIONS))],
        ),
        sheet(
            f"The same at once, {AT_ONCE_S:g} s behind the player: below 0.5 goes against",
            DIMENSIONS,
            lambda c: [_area(c.listening.at_once[d]) for d in DIMENSIONS],
        ),
        sheet(
            f"Memory, in {evaluation.long_run_s / 60:g} minutes of the excerpts in turn",
            ("goes on as recorded", "states in a row", "visited", "longest quote", "repeated", "the player's own"),
            lambda c: _use(evaluation.long_runs[c.name]),
        ),
        sheet("Harmony with what sounds", ("notes", "in harmony", "moved in time", "ratio"), lambda c: _harmony(c.harmony)),
        sheet(
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
        ),
    ]
    if evaluation.rooms:
        sheets.append(_rooms_sheet(evaluation.rooms))
    if evaluation.effects:
        sheets.append(_effects_sheet(evaluation.effects))
    return sheets


def _rooms_sheet(rooms: Sequence[Room]) -> Sheet:
    columns = ("level", "plays on", "at most", "by itself", "its own among what it learned", "learned of the player")
    rows: list[Sequence[str]] = [("", *columns, "harmony heard", "its own harmony", "at best")]
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
    return "Hearing itself after the player stops, by level against the player; in brackets without knowing its own notes", rows


def _effects_sheet(effects: Sequence[Effect]) -> Sheet:
    rows = [
        (e.parameter, " to ".join(e.ends), e.outcome, f"{e.size:+.2f}", f"{e.p_value:.3f}", f"{e.others:.0%}")
        for e in sorted(effects, key=lambda e: -abs(e.size))
    ]
    title = "Effect of each parameter between its ends: what moves most, in standard deviations; p of chance; notes that differ"
    return title, [("parameter", "ends", "moves most", "by", "p", "other notes"), *rows]


def _harmony(harmony: Harmony) -> list[str]:
    shifted = harmony.consonant_when_shifted
    ratio = f"{harmony.consonant / shifted:.2f}" if shifted else "–"
    return [str(harmony.notes), f"{harmony.consonant:.1%}", f"{shifted:.1%}", ratio]


def _area(area: Area) -> str:
    return f"{area.value:.2f} ({area.low:.2f}–{area.high:.2f})"


def _use(use: MemoryUse) -> list[str]:
    shares = (f"{use.continued:.0%}", f"{use.mean_run:.1f}", f"{use.visited:.0%}")
    return [*shares, f"{use.longest_quote_s:.1f} s", f"{use.repeated:.1%}", f"{use.learned:.0%}"]


# ── duos ─────────────────────────────────────────────────────────────────────

_MAIN_TIME, _MAIN_HARMONY = (1, 2, 5, 6, 7), (1, 2, 3, 4, 5)


def _evaluate_duos(options: EvaluateOptions, terminal: Terminal) -> DuoEvaluation:
    """Measure duos and show how each mode does beside the anchors."""
    files = [options.partner, *(options.recordings or ())]
    settings, report = settings_from(options.set_ or ()), _report_of(options, "duo")
    directions = {name: direction(name, options.modes, None) for name in options.mode or ["couple"]}
    with terminal.progress("Reading") as progress:
        duos = duos_from(
            files,
            beats=options.beats,
            player_track=options.player_track,
            push=options.push / 100,
            jump=options.jump,
            exact=options.exact,
            train_share=options.train_share,
            progress=progress,
        )
        found = evaluate_duos(
            duos,
            directions,
            settings=settings,
            train_share=options.train_share,
            pairs=options.pairs,
            seed=options.seed,
            progress=progress,
        )
        if report is not None:
            from musichal.plots.report import duo_html, write_page

            progress("Drawing the report", 1.0)
            write_page(report, duo_html(found))
    _show(found, duo_tables(found), report, terminal)
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
