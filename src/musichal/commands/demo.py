"""`musichal demo`: a guitar and its band teach a partner how the band answers, and it answers the guitar's next seconds."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from musichal.api.sound import example
from musichal.atomic import make_folder
from musichal.audio.files import write_sound
from musichal.audio.recording import Recording, read_recording
from musichal.commands.inspect import inspect_command
from musichal.commands.options import PlayOptions, Seed
from musichal.commands.play import play_command
from musichal.commands.terminal import Terminal
from musichal.commands.train import pair_words
from musichal.evaluate.together import REAL, Duo, DuoSong, hear_duo, play_duo
from musichal.live.output.files import MIDI, PARTNER, PICTURE, SOUND, check_outputs
from musichal.memory.partner_file import PartnerModel, save_partner
from musichal.partner.decision import Decision
from musichal.partner.explanation import explain
from musichal.partner.settings import Direction
from musichal.spec import PerceptionSpec
from musichal.text import clock, counted, printable
from musichal.training.trainer import train

MODE = "couple"
_LEARNED = 0.6  # of the song
_WRITTEN = {
    **{"partner.hal": PARTNER, "partner.png": PICTURE, "guitar.wav": SOUND},
    **{"reply.mid": MIDI, "reply.wav": SOUND, "duo.wav": SOUND, "performance.png": PICTURE},
}


def demo_command(
    *,
    folder: Annotated[Path, typer.Argument(help="Folder for what it writes.")] = Path("musichal-demo"),
    seed: Seed = 0,
    terminal: Terminal,
) -> None:
    """Teach a partner the bundled guitar and band, let it answer the rest of the guitar, and write both into a folder."""
    made = not folder.exists()
    make_folder(folder)
    try:
        _fill(folder, seed=seed, terminal=terminal)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # something whole is in it already
                folder.rmdir()
        raise


def _fill(folder: Path, *, seed: int, terminal: Terminal) -> None:
    guitar, band = (replace(read_recording(example(which)), name=which) for which in ("guitar", "backing"))
    learned_s, partner = _LEARNED * band.duration_s, folder / "partner.hal"
    check_outputs([(folder / name, kind) for name, kind in _WRITTEN.items()])
    terminal.say("1. Learning how a band answers its guitar (War of freedom by Carlos Viola Iborra, MIT licence),")
    terminal.say(f"   from {learned_s:.0f} s of both, as `musichal train --player guitar.wav --others band.wav` does.")
    with terminal.progress("Training") as progress:
        pair = [_cut(part, 0.0, learned_s) for part in (guitar, band)]
        model = train(pair, PerceptionSpec(), pairs=[(0, 1)], progress=progress)
        save_partner(partner, model)
    terminal.say("   " + "; ".join(pair_words(model)) + f": {counted(len(model.memory), 'gesture')} to play from.")
    terminal.say("\n2. What the partner learned:")
    inspect_command(partner=partner, picture=folder / "partner.png", terminal=terminal, force=True)
    terminal.say("\n3. The partner answers the guitar's next seconds, which it has never heard, and without the band.")
    now = _cut(guitar, learned_s, guitar.duration_s)
    write_sound(folder / "guitar.wav", now.samples, sample_rate_hz=now.sample_rate_hz)
    performance = play_command(_options(folder, seed=seed), terminal)
    told = _answer_of_the_others(performance.decisions)
    if told is not None:
        terminal.say(f"\nA moment where the band answered so, when the guitar played like now, at {clock(told.time_s)}:")
        terminal.say(f"  {explain(told, [recording.name for recording in model.recordings])}")
    terminal.say("\n4. Beside what the real band played there:")
    for line in _measures(Duo("War of freedom", guitar, band), model, seed=seed, terminal=terminal):
        terminal.say(f"  {line}")
    terminal.say(f"\nListen to {printable(folder / 'duo.wav')}: the guitar is on the left, MusicHal on the right.")
    terminal.say(f"See {printable(folder / 'performance.png')}, and open {printable(folder / 'reply.mid')} in a sequencer.")


def _options(folder: Path, *, seed: int) -> PlayOptions:
    return PlayOptions(
        partner=folder / "partner.hal",
        input=str(folder / "guitar.wav"),
        midi_out=str(folder / "reply.mid"),
        audio_out=str(folder / "reply.wav"),
        mix_out=folder / "duo.wav",
        picture=folder / "performance.png",
        mode=MODE,
        seed=seed,
        force=True,
    )


def _answer_of_the_others(decisions: tuple[Decision, ...]) -> Decision | None:
    """Return the decision with notes to which exact matches of the player's past contributed most."""

    def share(decision: Decision) -> float:
        names = {context.source for context in decision.contexts if context.paired and context.tokens}
        return sum(i.share for i in decision.influences if i.name in names)

    played = [d for d in decisions if d.kind == "play" and d.notes]
    return max(played, key=share) if any(share(d) for d in played) else None


def _measures(duo: Duo, model: PartnerModel, *, seed: int, terminal: Terminal) -> list[str]:
    """Return how far the answer is in time and in tune with the real band, as sentences."""
    with terminal.progress("Listening to the band") as progress:
        heard = hear_duo(duo, train_share=_LEARNED, model=model, progress=progress)
        song = play_duo(heard, {MODE: Direction(mode=MODE)}, seed=seed)
    return [_in_time(song), _in_tune(song)]


def _in_time(song: DuoSong) -> str:
    answer, real = song.played[MODE].time, song.played[REAL].time
    return (
        f"In time: {answer.within or 0:.0%} of its onsets lie within 40 ms of one of the band's"
        f" ({answer.within_moved or 0:.0%} if it is moved in time); of the guitar's own {real.within or 0:.0%}."
    )


def _in_tune(song: DuoSong) -> str:
    answer, real = song.played[MODE].harmony, song.played[REAL].harmony
    return (
        f"In tune: {answer.agreement or 0:.0%} of its notes agree with guitar or band ({answer.agreement_moved or 0:.0%} if"
        f" moved); of the guitar's own notes {real.band or 0:.0%} with the band."
    )


def _cut(recording: Recording, start_s: float, end_s: float) -> Recording:
    rate = recording.sample_rate_hz
    return replace(recording, samples=recording.samples[round(start_s * rate) : round(end_s * rate)])
