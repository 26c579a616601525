"""`musichal explain`: why a session was played as it was, in words, and to listen to."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from musichal.arrays import Float32
from musichal.audio.files import write_wav
from musichal.audio.instrument import find_instrument, render_notes
from musichal.audio.levels import at_loudness
from musichal.commands.outputs import check_outputs
from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.live.session.session import SessionSettings, file_sha256, read_session
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.note import Note
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain, summarise
from musichal.text import clock, parse_seconds, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

_RATE_HZ = 44100
# A moment is hard to know again without what led to it.
_BEFORE_S, _AFTER_S = 1.0, 0.5


def explain_command(
    folder: Path, *, at: str | None, listen: Path | None, partner: Path | None, voice: Terminal
) -> tuple[Decision, ...]:
    """Say why a session was played as it was: all of it in short, or the decision at one moment in full.

    Raises
    ------
    MusicHalError
        If the session cannot be read, or nothing was decided by that moment.
    """
    moment_s = None if at is None else parse_seconds(at, "--at")
    if listen is not None and moment_s is None:
        raise InputError("--listen needs --at: name the moment to listen to, such as --at 1:23")
    session = read_session(folder)
    settings, decisions = session.settings, session.decisions
    model = _partner_of(settings, partner, needed=listen is not None)
    names = _names(decisions, model)
    for sentence in session.recovered:
        voice.warn(sentence)
    end_s = session.input_samples / settings.sample_rate_hz
    if moment_s is None:
        lines = summarise(decisions, end_s=end_s)
        voice.result({"session": str(folder), "summary": lines, "decisions": [_told(d, names) for d in decisions]})
        for line in [*lines, "", *(explain(d, names) for d in decisions)]:
            voice.say(line)
        return tuple(decisions)
    decision = decision_at(decisions, moment_s)
    if moment_s > end_s:
        voice.warn(f"the session ends at {clock(end_s)}: this is its last decision")
    written = []
    if listen is not None:
        assert model is not None
        if decision.kind != "play":
            later = [d for d in decisions if d.kind == "play" and d.time_s > decision.time_s]
            hint = f"; the next that it played is at {clock(later[0].time_s)}" if later else ""
            voice.warn(f"there is nothing to listen to at {clock(decision.time_s)}: it rested{hint}")
        else:
            written = _listen(decision, listen, model, settings, session.samples())
    voice.result({"session": str(folder), **_told(decision, names), "written": [str(path) for path in written]})
    voice.say(explain(decision, names))
    for table in _tables(decision, names):
        voice.show(table)
    for path in written:
        voice.say(f"Wrote {printable(path)}")
    return (decision,)


def decision_at(decisions: Sequence[Decision], moment_s: float) -> Decision:
    """Return the last decision taken by a moment; raises `InputError` where there is none yet."""
    before = [d for d in decisions if d.time_s <= moment_s + 0.005]  # as `clock` rounds
    if not before:
        first = f"; the first decision fell at {clock(decisions[0].time_s)}" if decisions else ""
        raise InputError(f"nothing had been decided by {clock(moment_s)}{first}")
    return before[-1]


def _partner_of(settings: SessionSettings, partner: Path | None, *, needed: bool) -> PartnerModel | None:
    """Return the session's partner, which names the recordings; None where it is gone and can be done without."""
    path = partner or Path(settings.partner_path)
    if not path.exists() and partner is None:
        if needed:
            raise InputError(f"{printable(path)}, the partner of this session, is not there; say where it is with --partner")
        return None
    if file_sha256(path) != settings.partner_sha256:
        raise InputError(
            f"{printable(path)} is not the partner of this session: its SHA-256 differs; name the right one with --partner"
        )
    return load_partner(path)


def _names(decisions: Sequence[Decision], model: PartnerModel | None) -> list[str]:
    """Return a name for every recording that a decision may name; what the player taught live comes after the partner's own."""
    known = [] if model is None else [recording.name for recording in model.recordings]
    most = max((r for d in decisions for r in _recordings(d)), default=-1) + 1
    return [*known, *(f"recording {number + 1}" for number in range(len(known), most))]


def _recordings(decision: Decision) -> Iterator[int]:
    if decision.recording is not None:
        yield decision.recording
    yield from (context.recording for context in decision.contexts)
    yield from (alternative.recording for alternative in decision.alternatives)


def _told(decision: Decision, names: Sequence[str]) -> dict[str, object]:
    return {"words": explain(decision, names), "decision": asdict(decision)}


def _tables(decision: Decision, names: Sequence[str]) -> "Iterator[RenderableType]":
    if decision.influences:
        table = Table(title="What spoke for it", title_justify="left")
        table.add_column("influence")
        for column in ("value", "weight", "share"):
            table.add_column(column, justify="right")
        for influence in sorted(decision.influences, key=lambda i: -i.share):
            table.add_row(influence.name, f"{influence.value:.3f}", f"{influence.weight:g}", f"{influence.share:.1%}")
        yield table
    if decision.alternatives:
        table = Table(title=f"What nearly won, of {decision.candidates} places", title_justify="left")
        for column in ("place", "moved by", "score"):
            table.add_column(column, justify="right")
        table.add_row("chosen", f"{decision.transposition:+d}", f"{decision.score:.3f}")
        for other in decision.alternatives:
            whose = "what you played" if other.live else names[other.recording]
            place = Text(f"{whose} {clock(other.start_s)}")
            table.add_row(place, f"{other.transposition:+d}", f"{other.score:.3f}")
        yield table


def _listen(decision: Decision, folder: Path, model: PartnerModel, settings: SessionSettings, samples: Float32) -> list[Path]:
    """Write the moment in the recording, what was played from it, and the player at that time, each as a WAV."""
    assert decision.recording is not None and decision.source_start_s is not None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {printable(folder)}: {error.strerror}") from error
    stamp = clock(decision.time_s).replace(":", "m")
    paths = [folder / f"{stamp}-{what}.wav" for what in ("source", "answer", "player")]
    check_outputs(paths, inputs=[])
    if decision.live:  # learned from the player: the session's own input has it
        heard, heard_rate_hz = samples, settings.sample_rate_hz
    else:
        stored = model.recordings[decision.recording]
        heard, heard_rate_hz = stored.samples(), stored.sample_rate_hz
    source = _stretch(heard, heard_rate_hz, decision.source_start_s, decision.duration_s)
    player = _stretch(samples, settings.sample_rate_hz, decision.time_s, decision.duration_s)
    events = [
        Note(max(0.0, n.onset_s - decision.time_s), n.duration_s, n.pitch, n.velocity, settings.channel) for n in decision.notes
    ]
    programs = {settings.channel: settings.program}
    answer = render_notes(events, find_instrument(), sample_rate_hz=_RATE_HZ, programs=programs)
    silence = np.zeros((round(_BEFORE_S * _RATE_HZ), 2), dtype=np.float32)
    for path, sound, rate in (
        (paths[0], source, heard_rate_hz),
        (paths[1], np.concatenate([silence, answer]), _RATE_HZ),
        (paths[2], player, settings.sample_rate_hz),
    ):
        write_wav(path, at_loudness(sound, sample_rate_hz=rate), sample_rate_hz=rate)
    return paths


def _stretch(samples: Float32, rate: int, start_s: float, duration_s: float) -> Float32:
    first = max(0, round((start_s - _BEFORE_S) * rate))
    return samples[first : round((start_s + duration_s + _AFTER_S) * rate)]
