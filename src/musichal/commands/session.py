"""`musichal replay` and `export`: a session played again, and as files for a DAW; and what all commands on sessions need."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from musichal.atomic import new_folder, open_atomically
from musichal.audio.files import write_sound
from musichal.audio.instrument import find_instrument
from musichal.commands.options import Force, MovedPartner, SessionFolder, SoundFontFile, check_choice
from musichal.commands.terminal import Terminal
from musichal.errors import CheckFailedError, InputError
from musichal.hearing.encoders import create_encoder
from musichal.hearing.exact_notes import OnsetQueue
from musichal.hearing.listener import Listener
from musichal.live.output.files import MIDI, check_outputs
from musichal.live.session.export import (
    Duo,
    Marker,
    Part,
    SoundTrack,
    reaper_project,
    score_bytes,
    session_markers,
    session_marks,
    tempo_map,
)
from musichal.live.session.session import REPLY, Replay, Session, SessionSettings, read_session, replay
from musichal.machine import sha256_of
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.decision import Decision
from musichal.partner.partner import Partner
from musichal.text import clock, counted, parse_seconds, printable, text_path


def partner_path(settings: SessionSettings, partner: Path | None) -> Path:
    """Return the file of a session's partner; raises `InputError` where it is missing or another one."""
    path = partner or text_path(settings.partner_path)
    if partner is None and not path.exists():
        raise InputError(f"{printable(path)}, the partner of this session, does not exist; name it with --partner")
    if sha256_of(path) != settings.partner_sha256:
        raise InputError(
            f"{printable(path)} is not the partner of this session: its SHA-256 differs; name the right one with --partner"
        )
    return path


def known_partner(settings: SessionSettings, partner: Path | None, terminal: Terminal) -> Path | None:
    """Return the file of a session's partner, or None where it is gone; warns of another one of its name."""
    path = text_path(settings.partner_path)
    if partner is None and not path.exists():
        return None
    if partner is None and sha256_of(path) != settings.partner_sha256:
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
    *,
    folder: SessionFolder,
    partner: MovedPartner = None,
    midi_out: Annotated[Path | None, typer.Option(help="Write the answer as a MIDI file again.")] = None,
    force: Force = False,
    terminal: Terminal,
) -> Replay:
    """Play a session again, or as much of it as a killed program has left: the same input, heard as it was; compare."""
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


# ── export ───────────────────────────────────────────────────────────────────

_BEFORE_MARK_S, _AFTER_MARK_S = 20.0, 10.0
_README = """\
A session of MusicHal, from {start} to {end}. All files begin at the same sample.

{files}

Reaper: open session.rpp; put an instrument on each MIDI track.
Ableton Live: drag input.wav, answer.wav and answer.mid into the arrangement, each onto a track of its own, at 1.1.1.
Switch warping off for the sound (clip view: Warp), or let Live take the tempo of the MIDI file when it asks.
Others: import answer.mid with its tempo first, then the sound, at the start of the project.
"""


def export_command(
    *,
    folder: SessionFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="The new folder to write.")],
    from_: Annotated[str | None, typer.Option("--from", help="Where the stretch begins, as 1:00; default: the start.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Where it ends, as 2:30; default: the end.")] = None,
    marks: Annotated[bool, typer.Option("--marks", help="Export the stretch around each mark, each in a folder.")] = False,
    sound: Annotated[str, typer.Option(help="Sound of the answer: 'soundfont', or 'slices' of the recordings.")] = "soundfont",
    soundfont: SoundFontFile = None,
    partner: MovedPartner = None,
    terminal: Terminal,
) -> list[Path]:
    """Write a session, a stretch of it, or the stretch around each mark, into a new folder."""
    check_choice(sound, ("soundfont", "slices"), "--sound")
    if marks and (from_ or to):
        raise InputError("--marks takes the stretch around each mark; leave --from and --to out")
    session = read_session(folder)
    for sentence in session.recovered:
        terminal.warn(sentence)
    with terminal.progress("Reading the session") as progress:
        recordings = None
        if sound == "slices":
            model = load_partner(partner_path(session.settings, partner))
            recordings = [(r.samples(), r.sample_rate_hz) for r in model.recordings]
        duo = Duo(session, find_instrument(soundfont), recordings=recordings)
        markers = session_markers(session)
        stretches = _around_marks(session, duo) if marks else [("", *_asked(from_, to, duo))]
        names: list[str] = []
        with new_folder(output) as made:
            for number, (name, start_s, end_s) in enumerate(stretches):
                progress("Rendering", number / len(stretches))
                (made / name).mkdir(exist_ok=True)
                written = _write(made / name, duo, start_s, end_s, markers)
                names += [str(Path(name) / file) for file in written]
    files = [output / name for name in names]
    terminal.result(
        {
            "session": str(folder),
            "sample_rate_hz": duo.rate_hz,
            "stretches": [{"name": n, "start_s": start_s, "end_s": end_s} for n, start_s, end_s in stretches],
            "written": [str(path) for path in files],
        }
    )
    for name, start_s, end_s in stretches:
        where = f"{name}: " if name else ""
        terminal.say(f"{where}{clock(start_s)} to {clock(end_s)} of {printable(folder)}, {duo.rate_hz} Hz, from one zero.")
    terminal.say(f"Wrote {counted(len(files), 'file')} into {printable(output)}; session.rpp opens in Reaper.")
    return files


def _asked(from_: str | None, to: str | None, duo: Duo) -> tuple[float, float]:
    """Return the stretch that is asked for, on whole samples; the whole goes on until the last note has ended."""
    last_s = max(duo.duration_s, duo.notes_s)
    start_s = 0.0 if from_ is None else parse_seconds(from_, "--from")
    end_s = last_s if to is None else parse_seconds(to, "--to")
    if not start_s < min(end_s, last_s):
        raise InputError(f"nothing lies between {clock(start_s)} and {clock(end_s)}: the session ends at {clock(last_s)}")
    return _on_samples(start_s, duo), _on_samples(min(end_s, last_s), duo)


def _on_samples(time_s: float, duo: Duo) -> float:
    return round(time_s * duo.rate_hz) / duo.rate_hz


def _around_marks(session: Session, duo: Duo) -> list[tuple[str, float, float]]:
    """Return a name, the start and the end of the stretch around each mark."""
    found = []
    for number, mark in enumerate(session_marks(session), start=1):
        start_s, end_s = max(0.0, mark.at_s - _BEFORE_MARK_S), min(duo.duration_s, mark.at_s + _AFTER_MARK_S)
        name = f"mark-{number}-{clock(mark.at_s, decimals=0).replace(':', 'm')}"
        found.append((name, _on_samples(start_s, duo), _on_samples(end_s, duo)))
    if not found:
        raise InputError(f"{printable(session.folder)} has no marks; --from and --to choose a stretch")
    return found


def _write(folder: Path, duo: Duo, start_s: float, end_s: float, every: Sequence[Marker]) -> list[str]:
    """Write the files of a stretch; return their names."""
    parts, own = duo.parts(start_s, end_s), duo.player_part(start_s, end_s)
    tempo = tempo_map(duo.session.decisions, start_s=start_s)
    markers = [(m.at_s - start_s, m.words) for m in every if start_s <= m.at_s < end_s]
    player, answer = duo.player(start_s, end_s), duo.answer(start_s, end_s)
    sounds = {"input.wav": player, "answer.wav": answer, "mix.wav": duo.mixed(player, answer)}
    midi = {"answer.mid": score_bytes(parts, tempo, markers)}
    if len(parts) > 1:
        midi |= {f"answer-{part.name}.mid": score_bytes([part], tempo, markers) for part in parts}
    if own is not None:
        midi["input.mid"] = score_bytes([own], tempo, markers)
    for name, samples in sounds.items():
        write_sound(folder / name, samples, sample_rate_hz=duo.rate_hz)
    tracks = [
        SoundTrack(Path(name).stem, name, len(samples) / duo.rate_hz, muted=name == "mix.wav")
        for name, samples in sounds.items()
    ]
    every_part: list[Part] = [*parts, *([] if own is None else [own])]
    texts = {
        "session.rpp": reaper_project(tracks, every_part, tempo, markers, sample_rate_hz=duo.rate_hz),
        "markers.csv": _csv(markers),
        "README.txt": _readme(list(midi), start_s, end_s),
    }
    for name, data in {**midi, **{name: text.encode() for name, text in texts.items()}}.items():
        with open_atomically(folder / name) as stream:
            stream.write(data)
    return [*sounds, *midi, *texts]


def _csv(markers: Sequence[tuple[float, str]]) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("#", "Name", "Start"))  # as Reaper imports it
    rows.writerows((f"M{number}", text, f"{at_s:.6f}") for number, (at_s, text) in enumerate(markers, start=1))
    return out.getvalue()


def _readme(midi: Sequence[str], start_s: float, end_s: float) -> str:
    words = {"input.wav": "what the player played", "answer.wav": "what MusicHal played, with an instrument of its own"}
    words |= {"mix.wav": "both, the player to the left"}
    words |= {name: f"the {Path(name).stem.removeprefix('answer-')} alone" for name in midi}
    words |= {"answer.mid": "what MusicHal played, a track for each voice, with tempo and markers"}
    words |= {"input.mid": "the keys that the player struck"} if "input.mid" in midi else {}
    words |= {"markers.csv": "the markers, as Reaper imports them", "session.rpp": "all of it as a Reaper project"}
    width = max(map(len, words))
    files = "\n".join(f"{name:<{width}}  {text}" for name, text in words.items())
    return _README.format(start=clock(start_s), end=clock(end_s), files=files)
