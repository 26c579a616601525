"""`musichal replay`: a session played again, and compared; whole or cut off."""

from pathlib import Path

import numpy as np

from musichal.atomic import open_atomically
from musichal.commands.outputs import check_outputs
from musichal.commands.terminal import Terminal
from musichal.errors import CheckFailedError, InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.listener import Listener
from musichal.live.session.replay import Replay, replay
from musichal.live.session.session import REPLY, file_sha256, read_session
from musichal.memory.partner_file import load_partner
from musichal.partner.partner import Partner
from musichal.text import printable


def replay_command(folder: Path, *, partner: Path | None, midi_out: Path | None, voice: Terminal) -> Replay:
    """Play a session again: the same input, heard and skipped as it was, and the same MIDI.

    Of a session whose MusicHal was killed, what is there is played again, and compared as far as it goes.

    Raises
    ------
    CheckFailedError
        If the answer, a decision or a percept is another one.
    MusicHalError
        If the session or its partner cannot be used.
    """
    session = read_session(folder)
    settings = session.settings
    path = partner or Path(settings.partner_path)
    if midi_out is not None:
        check_outputs([midi_out], inputs=[path, *(p for p in folder.rglob("*") if p.is_file())])
    if partner is None and not path.exists():
        raise InputError(f"{printable(path)}, the partner of this session, is not there; say where it is with --partner")
    if file_sha256(path) != settings.partner_sha256:
        raise InputError(
            f"{printable(path)} is not the partner of this session: its SHA-256 differs; name the right one with --partner"
        )
    for sentence in session.recovered:
        voice.warn(sentence)
    with voice.progress("Loading the partner") as tell:
        model = load_partner(path)
        listener = Listener(model.spec, create_encoder(model.spec), model.vocabularies, source_rate_hz=settings.sample_rate_hz)
        rng = np.random.default_rng(settings.seed)
        played = replay(
            session,
            listener,
            Partner(model.memory, settings.partner, rng=rng, sample_rate_hz=model.spec.sample_rate_hz),
            sample_rate_hz=model.spec.sample_rate_hz,
            progress=lambda share: tell(f"Replaying {settings.input_name}", share),
        )
    if played.missing and session.reply is not None:
        raise InputError(f"{printable(folder)} lacks sound of which its transcript speaks")
    if midi_out is not None:
        with open_atomically(midi_out) as stream:
            stream.write(played.reply)
    same = played.reply == session.reply if session.reply is not None else played.decisions_alike == len(session.decisions)
    voice.result(
        {
            "session": str(folder),
            "identical": same,
            "bytes": len(played.reply),
            "segments_heard": played.heard,
            "segments_heard_otherwise": list(played.unlike),
            "onsets_found_otherwise": played.onsets_unlike,
            "decisions": len(played.decisions),
            "recovered": list(session.recovered),
        }
    )
    if played.unlike or played.onsets_unlike:
        raise CheckFailedError(
            f"the replay of {printable(folder)} hears otherwise: {len(played.unlike)} of {played.heard} segments,"
            f" {played.onsets_unlike} onsets"
        )
    if not same and played.decisions_alike == len(played.decisions) == len(session.decisions):
        raise CheckFailedError(f"the replay of {printable(folder)} differs from its {REPLY}, though not in a decision")
    if not same:
        raise CheckFailedError(f"the replay of {printable(folder)} differs from the {played.decisions_alike + 1}th decision on")
    if session.reply is None:
        voice.say(
            f"All {len(session.decisions)} decisions that {printable(folder)} has are the same;"
            f" the answer is made again ({len(played.reply)} bytes; --midi-out writes it)."
        )
    else:
        voice.say(f"The replay of {printable(folder)} is the same MIDI, byte for byte ({len(played.reply)} bytes).")
    return played
