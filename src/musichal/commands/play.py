"""`musichal play` with a recording: a recording in, an answer out."""

import contextlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musichal.arrays import Float32
from musichal.atomic import open_atomically
from musichal.audio.files import write_wav
from musichal.audio.instrument import Instrument, find_instrument, render_notes
from musichal.audio.levels import at_loudness, mix
from musichal.audio.recording import Recording, ingest, read_recording
from musichal.audio.slices import render_slices
from musichal.commands.outputs import check_outputs
from musichal.commands.terminal import Terminal
from musichal.errors import InputError
from musichal.live.performance import Performance, note_events, perform, slice_events
from musichal.live.session.recorder import write_session
from musichal.live.session.session import SessionSettings, file_sha256, reply_bytes, session_folder
from musichal.memory.partner_file import PartnerModel, load_partner
from musichal.partner.explanation import explain, summarise
from musichal.partner.settings import PartnerSettings
from musichal.plots.performance import draw_performance
from musichal.plots.style import picture_format, save_figure
from musichal.text import printable

CHANNEL = 0
_SOUND_RATE_HZ = 44100
_SHOWN_DECISIONS = 5


@dataclass(frozen=True, kw_only=True)
class PlayRequest:
    """What `play` was asked for; every output is optional."""

    partner: Path
    input: Path
    midi_out: Path | None = None
    audio_out: Path | None = None
    mix_out: Path | None = None
    picture: Path | None = None
    session: Path | None = None
    sound: str = "soundfont"
    soundfont: Path | None = None
    program: int = 4
    seed: int = 0
    settings: PartnerSettings = PartnerSettings()  # noqa: RUF009 - frozen

    @property
    def outputs(self) -> list[Path]:
        """Return the files that will be written."""
        return [p for p in (self.midi_out, self.audio_out, self.mix_out, self.picture) if p is not None]

    @property
    def sounds(self) -> bool:
        """Return whether the answer is wanted as sound."""
        return self.audio_out is not None or self.mix_out is not None

    @property
    def instrument(self) -> Instrument | None:
        """Return the instrument, where one is needed; raises `InputError` for a soundfont that cannot be read."""
        return find_instrument(self.soundfont) if self.sound == "soundfont" and self.sounds else None


def play_command(request: PlayRequest, voice: Terminal) -> Performance:
    """Let a partner answer a recording, write what was asked for, and say what was played and why.

    Raises
    ------
    MusicHalError
        For any input that cannot be used or output that cannot be written; what was written before stays whole.
    """
    if not request.outputs and request.session is None:
        raise InputError("nothing to write: name at least one of --midi-out, --audio-out, --mix-out, --picture, --session")
    if request.picture is not None:
        picture_format(request.picture)
    check_outputs(request.outputs, inputs=[request.partner, request.input])
    instrument = request.instrument
    with contextlib.ExitStack() as stack, voice.progress("Loading the partner") as tell:
        model = load_partner(request.partner)
        player = read_recording(request.input)
        for warning in player.warnings:
            voice.warn(f"{player.name}: {warning}")
        if request.sound == "slices" and request.sounds and any(r.flac is None for r in model.recordings):
            raise InputError(f"{printable(request.partner)} was trained with --no-audio: it has no sound to cut slices from")
        if request.session is not None:
            stack.enter_context(session_folder(request.session))
        performance = perform(
            model,
            player.samples,
            sample_rate_hz=player.sample_rate_hz,
            settings=request.settings,
            seed=request.seed,
            progress=lambda share: tell(f"Playing with {player.name}", share),
            on_drift=lambda report: voice.warn(report.text),
        )
        tell("Writing", 1.0)
        _write(request, model, player, performance, instrument)
    _report(request, model, performance, voice)
    return performance


def _write(
    request: PlayRequest, model: PartnerModel, player: Recording, performance: Performance, instrument: Instrument | None
) -> None:
    if request.midi_out is not None:
        with open_atomically(request.midi_out) as stream:
            stream.write(reply_bytes(performance.decisions, channel=CHANNEL, program=request.program))
    if request.sounds:
        answer = _answer_sound(request, model, player, performance, instrument)
        if request.audio_out is not None:
            write_wav(request.audio_out, answer, sample_rate_hz=_SOUND_RATE_HZ)
        if request.mix_out is not None:
            # Both at the same loudness, however the player was recorded, and in two channels, as a file of one is played.
            both = mix(
                _in_two_channels(at_loudness(player.samples, sample_rate_hz=player.sample_rate_hz)),
                _in_two_channels(answer),
                player_rate_hz=player.sample_rate_hz,
                answer_rate_hz=_SOUND_RATE_HZ,
                sample_rate_hz=_SOUND_RATE_HZ,
            )
            write_wav(request.mix_out, both, sample_rate_hz=_SOUND_RATE_HZ)
    if request.picture is not None:
        figure = draw_performance(
            performance,
            player.samples,
            sample_rate_hz=player.sample_rate_hz,
            recording_names=[r.name for r in model.recordings],
            notes=note_events(performance.decisions, channel=CHANNEL),
        )
        save_figure(figure, request.picture)
    if request.session is not None:
        settings = SessionSettings(
            partner_path=str(request.partner.resolve()),
            partner_sha256=file_sha256(request.partner),
            partner=request.settings,
            seed=request.seed,
            channel=CHANNEL,
            program=request.program,
            sample_rate_hz=player.sample_rate_hz,
            input_name=player.name,
        )
        write_session(request.session, settings, player.samples, performance)


def _answer_sound(
    request: PlayRequest, model: PartnerModel, player: Recording, performance: Performance, instrument: Instrument | None
) -> Float32:
    """Return the answer at `_SOUND_RATE_HZ` and nominal loudness, from time 0, at least as long as the performance."""
    if request.sound == "slices":
        # What was learned from the player sounds as the player did.
        sources = [
            *((r.samples(), r.sample_rate_hz) for r in model.recordings),
            (ingest(player.samples), player.sample_rate_hz),
        ]
        slices = slice_events(performance.decisions, live_recording=len(model.recordings))
        sound = render_slices(slices, sources, sample_rate_hz=_SOUND_RATE_HZ)
    else:
        assert instrument is not None
        notes = note_events(performance.decisions, channel=CHANNEL)
        sound = render_notes(notes, instrument, sample_rate_hz=_SOUND_RATE_HZ, programs={CHANNEL: request.program})
    missing = round(performance.duration_s * _SOUND_RATE_HZ) - sound.shape[0]
    padding = [(0, max(0, missing))] + [(0, 0)] * (sound.ndim - 1)
    # Instruments and slices differ by more than 10 dB; the answer is as loud from either.
    return at_loudness(np.pad(sound, padding), sample_rate_hz=_SOUND_RATE_HZ)


def _in_two_channels(samples: Float32) -> Float32:
    return samples if samples.ndim == 2 else np.repeat(samples[:, None], 2, axis=1)


def _report(request: PlayRequest, model: PartnerModel, performance: Performance, voice: Terminal) -> None:
    names = [r.name for r in model.recordings]
    decisions = performance.decisions
    summary = summarise(decisions, end_s=performance.duration_s)
    written = [str(p) for p in request.outputs] + ([str(request.session)] if request.session else [])
    voice.result(
        {
            "duration_s": performance.duration_s,
            "decisions": len(decisions),
            "played": sum(d.kind == "play" for d in decisions),
            "rests": dict(Counter(d.rest for d in decisions if d.rest)),
            "notes": sum(len(d.notes) for d in decisions),
            "written": written,
            "summary": summary,
            "drift": [report.to_dict() for report in performance.drift],
        }
    )
    voice.say(f"MusicHal listened to {printable(request.input.name)} for {performance.duration_s:.1f} s.")
    for line in summary:
        voice.say(line)
    telling = [d for d in decisions if d.jumped or d.kind == "rest"]
    shown = telling[:: max(1, len(telling) // _SHOWN_DECISIONS)][:_SHOWN_DECISIONS]
    if shown:
        voice.say("Some of its decisions, and why:")
        for decision in shown:
            voice.say(f"  {explain(decision, names)}")
    for path in written:
        voice.say(f"Wrote {printable(path)}")
