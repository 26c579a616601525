"""`musichal keep`: a partner with what it learned live in sessions, or of the sessions alone.

What was learned while playing is gone when the performance ends. A session keeps what the partner heard; here it is heard
again, by the one front end, as a recording like any other. So the new partner is exact and can be verified.
"""

from collections.abc import Sequence
from pathlib import Path

from musichal.audio.recording import read_recording
from musichal.commands.session import partner_path
from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.live.output.files import PARTNER, check_outputs
from musichal.live.session.session import Session, read_session
from musichal.memory.partner_file import PartnerModel, load_partner, save_partner
from musichal.text import counted, printable
from musichal.training.trainer import own_recordings, tagged, train
from musichal.training.workers import usual_processes


def keep_command(
    *,
    folders: Sequence[Path],
    output: Path,
    terminal: Terminal,
    partner: Path | None = None,
    alone: bool = False,
    processes: int | None = None,
    force: bool = False,
) -> PartnerModel:
    """Write a partner of the sessions' own partner and what was played in them, or with `alone` of the latter alone.

    Vocabularies stay what they were, so that tokens mean the same; alone they are learned from the sessions. Raises
    `MusicHalError` if a session or its partner cannot be used, or the sessions have different partners.
    """
    sessions = [read_session(folder) for folder in folders]
    path = _one_partner(sessions, partner)
    inputs = [path, *(file for folder in folders for file in folder.rglob("*") if file.is_file())]
    check_outputs([(output, PARTNER)], inputs=inputs, force=force)
    for session in sessions:
        for sentence in session.recovered:
            terminal.warn(f"{printable(session.folder)}: {sentence}")
    with terminal.progress("Loading the partner") as progress:
        model = load_partner(path)
        least_s = model.spec.segment_samples / model.spec.sample_rate_hz
        heard = [read_recording(session.folder, min_duration_s=least_s) for session in sessions]
        every = heard if alone else [*own_recordings(model), *heard]
        kept = train(
            every,
            model.spec,
            vocabularies=None if alone else model.vocabularies,
            pairs=() if alone else model.pairs,
            processes=processes or usual_processes(sum(r.duration_s for r in every)),
            progress=progress,
            warn=terminal.warn,
        )
        progress(f"Writing {printable(output.name)}", 1.0)
        kept = kept if alone else tagged(kept, model)
        save_partner(output, kept)
    before = 0 if alone else len(model.memory)
    new, heard_s = len(kept.memory) - before, sum(r.duration_s for r in heard)
    terminal.result(
        {"partner": str(output), "sessions": len(heard), "heard_s": heard_s, "gestures": len(kept.memory), "new": new}
    )
    terminal.say(f"Heard {counted(len(heard), 'session')} again ({heard_s:.1f} s): {counted(new, 'gesture')} to play from.")
    if not alone:
        terminal.say(f"The partner knew {counted(before, 'gesture')} before; its sounds are the same.")
    terminal.say(f"Wrote {printable(output)} ({output.stat().st_size / 1e6:.1f} MB).")
    return kept


def _one_partner(sessions: Sequence[Session], partner: Path | None) -> Path:
    """Return the partner file of all sessions; raises `InputError` where they have several."""
    names = {session.folder.resolve() for session in sessions}
    if len(names) < len(sessions):
        raise InputError("a session is given twice")
    other = next((s for s in sessions if s.settings.partner_sha256 != sessions[0].settings.partner_sha256), None)
    if other is not None:
        folders = " and ".join(printable(s.folder) for s in (sessions[0], other))
        raise InputError(f"{folders} were played with different partners: keep them in one each")
    return partner_path(sessions[0].settings, partner)
