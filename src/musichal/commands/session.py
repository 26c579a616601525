"""`musichal replay`: the same session played again; and what all commands on sessions need."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musichal.atomic import open_atomically
from musichal.commands.terminal import Terminal
from musichal.errors import CheckFailedError, InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.exact_notes import OnsetQueue
from musichal.hearing.listener import Listener
from musichal.live.output.files import MIDI, check_outputs
from musichal.live.session.session import REPLY, Replay, SessionSettings, file_sha256, read_session, replay
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.text import printable, text_path


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


def known_partner(settings: SessionSettings, partner: Path | None, terminal: Terminal) -> Path | None:
    """Return the file of a session's partner, or None where it is gone; warns of another one of its name.

    Raises `InputError` where `partner` is another one.
    """
    path = text_path(settings.partner_path)
    if partner is None and not path.exists():
        return None
    if partner is None and file_sha256(path) != settings.partner_sha256:
        terminal.warn(f"{printable(path)} is no longer the partner of this session: its recordings are told by number")
        return None
    return partner_path(settings, partner)


def names_of(decisions: Sequence[Decision], model: PartnerModel | None) -> list[str]:
    """Return a name for each recording of the decisions; what was learned live comes after the partner's own."""
    known = [] if model is None else [recording.name for recording in model.recordings]
    most = -1
    for d in decisions:
        numbers = [c.recording for c in d.contexts] + [a.recording for a in d.alternatives]
        numbers += [] if d.beside is None else [d.beside[0]]
        most = max(most, -1 if d.recording is None else d.recording, *numbers)
    return [*known, *(f"recording {number + 1}" for number in range(len(known), most + 1))]


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
        keys, beside = session.known_onsets, session.settings.keys_beside
        known = OnsetQueue(keys, beside=beside) if keys or beside else None
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
