"""`musichal explain` and `replay`: why a session was played as it was, and the same session played again."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
from rich.table import Table

from musichal.atomic import open_atomically
from musichal.audio.files import write_sound
from musichal.audio.instrument import find_instrument, render_notes
from musichal.audio.levels import at_loudness
from musichal.commands.terminal import Rows, Terminal, table_of
from musichal.errors import CheckFailedError, InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.exact_notes import OnsetQueue
from musichal.hearing.listener import Listener
from musichal.live.output.files import MIDI, SOUND, check_outputs
from musichal.live.session.session import REPLY, Replay, Session, SessionSettings, file_sha256, read_session, replay
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain, summarise
from musichal.partner.partner import Partner
from musichal.text import clock, parse_seconds, printable, reason, text_path

_RATE_HZ = 44100
# A place is hard to recognise without what led to it.
_BEFORE_S, _AFTER_S = 1.0, 0.5


def partner_path(settings: SessionSettings, partner: Path | None) -> Path:
    """Return the file of a session's partner; raises `InputError` where it is missing or another one."""
    path = partner or text_path(settings.partner_path)
    if partner is None and not path.exists():
        raise InputError(f"{printable(path)}, the partner of this session, does not exist; name it with --partner")
    if file_sha256(path) != settings.partner_sha256:
        raise InputError(
            f"{printable(path)} is not the partner of this session: its SHA-256 differs; name the right one with --partner"
        )
    return path


# ── replay ───────────────────────────────────────────────────────────────────


def replay_command(
    *, folder: Path, terminal: Terminal, partner: Path | None = None, midi_out: Path | None = None, force: bool = False
) -> Replay:
    """Play a session again, or as much of it as a killed program has left: the same input, heard as it was; compare.

    Raises `CheckFailedError` if the answer, a decision or a percept differs; `MusicHalError` if the session or its partner
    cannot be used.
    """
    session = read_session(folder)
    settings = session.settings
    if midi_out is not None:
        inputs = [partner or text_path(settings.partner_path), *(p for p in folder.rglob("*") if p.is_file())]
        check_outputs([(midi_out, MIDI)], inputs=inputs, force=force)
    path = partner_path(settings, partner)
    for sentence in session.recovered:
        terminal.warn(sentence)
    with terminal.progress("Loading the partner") as progress:
        model = load_partner(path)
        known = OnsetQueue(session.known_onsets) if session.known_onsets else None
        rate_hz = settings.sample_rate_hz
        listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=rate_hz, known=known)
        rng = np.random.default_rng(settings.seed)
        played = replay(
            session,
            listener,
            Partner(model.memory, settings.partner, rng=rng, sample_rate_hz=model.spec.sample_rate_hz),
            sample_rate_hz=model.spec.sample_rate_hz,
            progress=lambda share: progress(f"Replaying {settings.input_name}", share),
        )
    if played.missing and session.reply is not None:
        raise InputError(f"{printable(folder)} lacks audio that its transcript lists")
    if midi_out is not None:
        with open_atomically(midi_out) as stream:
            stream.write(played.reply)
    decisions = len(session.decisions)
    same = played.reply == session.reply if session.reply is not None else played.decisions_alike == decisions
    terminal.result(
        {
            "session": str(folder),
            "identical": same,
            "bytes": len(played.reply),
            "segments_heard": played.heard,
            "segments_heard_otherwise": list(played.unlike),
            "onsets_found_otherwise": played.onsets_unlike,
            "decisions": played.decided,
            "recovered": list(session.recovered),
        }
    )
    name = printable(folder)
    if played.unlike or played.onsets_unlike:
        raise CheckFailedError(
            f"the replay of {name} hears differently: {len(played.unlike)} of {played.heard} segments,"
            f" {played.onsets_unlike} onsets"
        )
    if not same and played.decisions_alike == played.decided == decisions:
        raise CheckFailedError(f"the replay of {name} differs from its {REPLY}, though not in a decision")
    if not same:
        raise CheckFailedError(f"the replay of {name} diverges at decision {played.decisions_alike + 1}")
    if session.reply is None:
        terminal.say(f"All {decisions} decisions of {name} are the same.")
        terminal.say(f"The answer is restored ({len(played.reply)} bytes); --midi-out writes it.")
    else:
        terminal.say(f"The replay of {name} is the same MIDI, byte for byte ({len(played.reply)} bytes).")
    return played


# ── explain ──────────────────────────────────────────────────────────────────


def explain_command(
    *,
    folder: Path,
    terminal: Terminal,
    at: str | None = None,
    listen: Path | None = None,
    partner: Path | None = None,
    force: bool = False,
) -> Sequence[Decision]:
    """Explain a session: all of it in short, or the decision at one time in full.

    Raises `MusicHalError` if the session cannot be read, or nothing was decided by that time.
    """
    at_s = None if at is None else parse_seconds(at, "--at")
    if listen is not None and at_s is None:
        raise InputError("--listen needs --at, such as --at 1:23")
    session = read_session(folder)
    settings, decisions = session.settings, session.decisions
    known = partner is not None or listen is not None or text_path(settings.partner_path).exists()
    model = load_partner(partner_path(settings, partner)) if known else None
    names = names_of(decisions, model)
    for sentence in session.recovered:
        terminal.warn(sentence)
    end_s = session.input_samples / settings.sample_rate_hz
    if at_s is None:
        lines = summarise(decisions, end_s=end_s)
        rows = Rows(_plain(d, names) for d in decisions)
        terminal.result({"session": str(folder), "summary": lines, "decisions": rows})
        for line in chain([*lines, ""], () if terminal.as_json else (explain(d, names) for d in decisions)):
            terminal.say(line)
        return decisions
    decision = decision_at(decisions, at_s)
    if at_s > end_s:
        terminal.warn(f"the session ends at {clock(end_s)}: this is its last decision")
    written: list[Path] = []
    if listen is not None and decision.kind != "play":
        later = next((d for d in decisions if d.kind == "play" and d.time_s > decision.time_s), None)
        hint = f"; it plays next at {clock(later.time_s)}" if later is not None else ""
        terminal.warn(f"there is nothing to listen to at {clock(decision.time_s)}: it rested{hint}")
    elif listen is not None and model is not None:
        written = _listen(decision, listen, model, session, force=force)
    terminal.result({"session": str(folder), **_plain(decision, names), "written": [str(path) for path in written]})
    terminal.say(explain(decision, names))
    for table in _tables(decision, names):
        terminal.show(table)
    for path in written:
        terminal.say(f"Wrote {printable(path)}")
    return (decision,)


def decision_at(decisions: Sequence[Decision], at_s: float) -> Decision:
    """Return the last decision taken by a time; raises `InputError` where there is none yet."""
    latest = None
    for decision in decisions:
        if decision.time_s <= at_s + 0.005:  # as `clock` rounds
            latest = decision
    if latest is None:
        first = f"; the first decision is at {clock(decisions[0].time_s)}" if decisions else ""
        raise InputError(f"there is no decision by {clock(at_s)}{first}")
    return latest


def names_of(decisions: Sequence[Decision], model: PartnerModel | None) -> list[str]:
    """Return a name for each recording of the decisions; what was learned live comes after the partner's own."""
    known = [] if model is None else [recording.name for recording in model.recordings]
    most = -1
    for d in decisions:
        numbers = [c.recording for c in d.contexts] + [a.recording for a in d.alternatives]
        numbers += [] if d.beside is None else [d.beside[0]]
        most = max(most, -1 if d.recording is None else d.recording, *numbers)
    return [*known, *(f"recording {number + 1}" for number in range(len(known), most + 1))]


def _plain(decision: Decision, names: Sequence[str]) -> dict[str, object]:
    return {"words": explain(decision, names), "decision": asdict(decision)}


def _tables(decision: Decision, names: Sequence[str]) -> Iterator[Table]:
    if decision.influences:
        by_share = sorted(decision.influences, key=lambda i: -i.share)
        rows = [(i.name, f"{i.value:.3f}", f"{i.weight:g}", f"{i.share:.1%}") for i in by_share]
        yield table_of("Influences", ("influence", "value", "weight", "share"), rows, right=True)
    if decision.alternatives:
        chosen = ("chosen", f"{decision.transposition:+d}", f"{decision.score:.3f}")
        others = [
            (
                f"{'what you played' if other.live else names[other.recording]} {clock(other.start_s)}",
                f"{other.transposition:+d}",
                f"{other.score:.3f}",
            )
            for other in decision.alternatives
        ]
        title = f"The best of {decision.candidates} candidates"
        yield table_of(title, ("place", "transposed by", "score"), [chosen, *others], right=True)


def _listen(decision: Decision, folder: Path, model: PartnerModel, session: Session, *, force: bool) -> list[Path]:
    """Write the place in the recording, what was played from it, and the player at that time, each as a WAV.

    In a memory of pairs, also the player beside that place.
    """
    assert decision.recording is not None and decision.source_start_s is not None
    settings = session.settings
    rate = settings.sample_rate_hz
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {printable(folder)}: {reason(error)}") from error
    stamp = clock(decision.time_s).replace(":", "m")
    paths = [folder / f"{stamp}-{what}.wav" for what in ("source", "answer", "player", "player-then")]
    check_outputs([(path, SOUND) for path in paths], inputs=[], force=force)
    if decision.live:  # learned from the player: the session's own input has it
        written = [(paths[0], session.stretch(*_bounds(rate, decision.source_start_s, decision.duration_s)), rate)]
    else:
        stored = model.recordings[decision.recording]
        first, last = _bounds(stored.sample_rate_hz, decision.source_start_s, decision.duration_s)
        written = [(paths[0], stored.samples()[first:last], stored.sample_rate_hz)]
    if decision.beside is not None:
        then = model.recordings[decision.beside[0]]
        first, last = _bounds(then.sample_rate_hz, decision.beside[1], decision.duration_s)
        written.append((paths[3], then.samples()[first:last], then.sample_rate_hz))
    player = session.stretch(*_bounds(rate, decision.time_s, decision.duration_s))
    events = [
        Note(max(0.0, n.onset_s - decision.time_s), n.duration_s, n.pitch, n.velocity, settings.channel) for n in decision.notes
    ]
    programs = {settings.channel: settings.program}
    answer = render_notes(events, find_instrument(), sample_rate_hz=_RATE_HZ, programs=programs)
    silence = np.zeros((round(_BEFORE_S * _RATE_HZ), 2), dtype=np.float32)
    written += [(paths[1], np.concatenate([silence, answer]), _RATE_HZ), (paths[2], player, rate)]
    for path, sound, rate_hz in written:
        write_sound(path, at_loudness(sound, sample_rate_hz=rate_hz), sample_rate_hz=rate_hz)
    return [path for path, *_ in written]


def _bounds(rate_hz: int, start_s: float, duration_s: float) -> tuple[int, int]:
    """Return from which sample to which one hears a place with what led to it."""
    return max(0, round((start_s - _BEFORE_S) * rate_hz)), round((start_s + duration_s + _AFTER_S) * rate_hz)
