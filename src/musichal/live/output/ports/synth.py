"""Sound by a live soundfont player: FluidSynth, through pyfluidsynth (MIT) and the system's libfluidsynth."""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

from musichal.errors import InputError, MissingExtraError, install_hint
from musichal.live.output.scheduler_protocol import Outgoing
from musichal.text import printable

_GAIN = 0.5
_BANKS = 128, 0
"""General MIDI's drums are in bank 128 of a soundfont."""
_PERCUSSION_CHANNEL = 9
_DRIVERS = (None, "jack", "pulseaudio", "alsa") if sys.platform == "linux" else (None,)
"""FluidSynth's default first; on Linux that is one system of several, whether or not it is there."""


class SynthPort:
    """FluidSynth with a font, on the system's own sound output (`driver`: FluidSynth's name of it, or the first that works).

    Raises `InputError` for a font or a sound output that cannot be used, `MissingExtraError` without the player.
    """

    lead_s = 0.0

    def __init__(self, font: str, *, driver: str | None = None) -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it says on standard output where it found its library
                import fluidsynth
        except ImportError as error:
            if "library" in str(error):
                raise MissingExtraError(
                    "the live synth needs FluidSynth (Debian: apt-get install libfluidsynth3; macOS: brew install fluid-synth)"
                ) from error
            raise MissingExtraError(f"the live synth needs pyfluidsynth: {install_hint('synth')}") from error
        if not Path(font).is_file():
            raise InputError(f"there is no soundfont {printable(font)}")
        options: dict[str, Any] = {"audio.jack.id": "MusicHal synth", "audio.jack.autoconnect": 1}
        self._synth: Any = fluidsynth.Synth(gain=_GAIN, channels=16, **options)
        self._font = self._synth.sfload(font)
        if self._font < 0:
            self._synth.delete()
            raise InputError(f"{printable(font)} is not a soundfont that FluidSynth can play")
        for name in _DRIVERS if driver is None else (driver,):
            if name is not None:
                self._synth.setting("audio.driver", name)
            # Not Synth.start: that would open a MIDI input as well.
            self._synth.audio_driver = fluidsynth.new_fluid_audio_driver(self._synth.settings, self._synth.synth)
            if self._synth.audio_driver:
                break
        else:
            self._synth.delete()
            raise InputError(f"FluidSynth found no sound output to play to{f' with {driver}' if driver else ''}")
        for channel in range(16):
            self._synth.program_select(channel, self._font, _BANKS[channel != _PERCUSSION_CHANNEL], 0)
        self.name = f"FluidSynth with {printable(Path(font).name)}"

    def send(self, message: Outgoing) -> None:
        """Play a message at once."""
        data = message.data
        kind, channel = data[0] & 0xF0, data[0] & 0x0F
        if kind == 0x90:
            self._synth.noteon(channel, data[1], data[2])
        elif kind == 0x80:
            self._synth.noteoff(channel, data[1])
        elif kind == 0xB0:
            self._synth.cc(channel, data[1], data[2])
        elif kind == 0xC0:
            self._synth.program_change(channel, data[1])
        elif kind == 0xE0:
            self._synth.pitch_bend(channel, (data[1] | data[2] << 7) - 8192)

    def check(self) -> str | None:
        """Tell nothing: FluidSynth does not say when its sound output goes."""
        return None

    def close(self, *, flush: bool = True) -> None:
        """Fall silent and close."""
        with contextlib.suppress(Exception):
            self._synth.delete()
