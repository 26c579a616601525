"""The program that `musichal bench live` measures: `musichal play` in a process, with a player of its own if asked."""

import json
import os
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.live_speed import OnsetAnswers, OnsetPlayer
from musichal.arrays import Float32
from musichal.commands.options import PlayOptions
from musichal.commands.play import live_command
from musichal.commands.terminal import Terminal
from musichal.live.engine import EngineObserver, Player
from musichal.live.live_performance import live_player
from musichal.memory.partner_file import PartnerModel
from musichal.partner.settings import Direction, PartnerSettings
from musichal.spec import PerceptionSpec


class _Listening(EngineObserver):
    """Makes a file as soon as sound comes in."""

    def __init__(self, path: Path) -> None:
        self._path, self._made = path, False

    def sound(self, samples: Float32) -> None:
        """Make the file."""
        if not self._made:
            self._made = True
            self._path.touch()


def play_for_measuring(*, partner: str, device: str, block: int, player: str, listens: str, answers: str | None = None) -> None:
    """Play until told to end, and print the summary as JSON; `player` is ``onsets``, ``shadow`` or ``usual``.

    The file `listens` is there as soon as sound comes in. What was decided because of which onset is written to `answers`.
    """
    settings = PartnerSettings(direction=Direction(mode="shadow" if player == "shadow" else "auto"))
    request = PlayOptions(partner=Path(partner), input=device, midi_out="jack:MusicHal", block=block, settings=settings)

    def onsets_only(_model: PartnerModel, _settings: PartnerSettings, _seed: int) -> Player:
        return OnsetPlayer()

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        terminal = Terminal(Console(), Console(file=nowhere), as_json=True)
        told = OnsetAnswers(sample_rate_hz=PerceptionSpec().sample_rate_hz)
        live_command(
            request,
            terminal,
            make_player=onsets_only if player == "onsets" else live_player,
            observers=[told, _Listening(Path(listens))],
        )
    if answers is not None:
        Path(answers).write_text(json.dumps(told.to_dict()), encoding="utf-8")


if __name__ == "__main__":
    play_for_measuring(**json.loads(sys.argv[1]))
