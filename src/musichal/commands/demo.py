"""`musichal demo`: the whole road on the bundled music."""

import contextlib
from pathlib import Path

from musichal.commands.inspect import inspect_command
from musichal.commands.play import PlayRequest, play_command
from musichal.commands.terminal import Terminal
from musichal.commands.train import train_command
from musichal.errors import InputError
from musichal.partner.settings import Direction, PartnerSettings
from musichal.spec import PerceptionSpec
from musichal.text import printable, reason

MUSIC = Path(__file__).parents[1] / "demo"
RECORDING = MUSIC / "rock140_mix.ogg"
"""34 s of a rock band: the demo's partner is trained on it."""
PLAYER = MUSIC / "rock140_guitar.ogg"
"""The solo guitar of the same song: the player."""


def demo_command(folder: Path, *, seed: int, voice: Terminal) -> None:
    """Train on the bundled band, let the partner answer the bundled guitar, and leave what came of it in a folder."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {printable(folder)}: {reason(error)}") from error
    try:
        _fill(folder, seed=seed, voice=voice)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # something whole is in it already
                folder.rmdir()
        raise


def _fill(folder: Path, *, seed: int, voice: Terminal) -> None:
    partner = folder / "partner.hal"
    voice.say("1. Chandra listens to a rock band (War of freedom by Carlos Viola Iborra, MIT licence).")
    train_command([RECORDING], partner, PerceptionSpec(), keep_audio=True, voice=voice)
    voice.say("")
    voice.say("2. What it learned:")
    inspect_command(partner, picture=folder / "partner.png", voice=voice)
    voice.say("")
    voice.say("3. MusicHal answers the solo guitar of the same song.")
    play_command(
        PlayRequest(
            partner=partner,
            input=PLAYER,
            midi_out=folder / "reply.mid",
            audio_out=folder / "reply.wav",
            mix_out=folder / "duo.wav",
            picture=folder / "performance.png",
            seed=seed,
            settings=PartnerSettings(direction=Direction(mode="auto")),
        ),
        voice,
    )
    voice.say("")
    voice.say(f"Listen to {printable(folder / 'duo.wav')}: the guitar is on the left, MusicHal on the right.")
    voice.say(f"Look at {printable(folder / 'performance.png')}, and open {printable(folder / 'reply.mid')} in any sequencer.")
