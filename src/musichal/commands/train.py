"""`musichal train`: recordings in, a partner file out."""

import time
from collections.abc import Sequence
from pathlib import Path

from musichal.atomic import printable
from musichal.audio.recording import collect_recordings, read_recording
from musichal.chandra.trainer import train
from musichal.commands.outcome import Voice
from musichal.commands.outputs import check_outputs
from musichal.hearing.pinning import pin
from musichal.memory.partner_file import PartnerModel, save_partner
from musichal.spec import PerceptionSpec
from musichal.verify.figures import partner_figures


def train_command(paths: Sequence[Path], output: Path, spec: PerceptionSpec, *, keep_audio: bool, voice: Voice) -> PartnerModel:
    """Train a partner on files and folders, write it to `output`, and say what was learned.

    Raises
    ------
    InputError
        For a recording that cannot be heard or an output that cannot be written.
    """
    # A mistake in the last argument should not show after minutes of listening.
    pin(spec)
    files = collect_recordings(paths)
    check_outputs([output], inputs=files)
    started_s = time.monotonic()
    least_s = spec.segment_samples / spec.sample_rate_hz
    recordings = []
    with voice.progress("Reading") as tell:
        for number, file in enumerate(files):
            tell(f"Reading {printable(file.name)}", number / len(files))
            recordings.append(read_recording(file, min_duration_s=least_s))
        for recording in recordings:
            for warning in recording.warnings:
                voice.warn(f"{recording.name}: {warning}")
        model = train(recordings, spec, keep_audio=keep_audio, progress=tell, warn=voice.warn)
        tell(f"Writing {printable(output.name)}", 1.0)
        save_partner(output, model)
    took_s = time.monotonic() - started_s
    heard_s = sum(r.duration_s for r in recordings)
    figures = partner_figures(model)
    voice.result({"partner": str(output), "took_s": took_s, "figures": figures.to_dict()})
    states, notes = len(model.memory), len(model.memory.notes)
    voice.say(
        f"Chandra listened to {len(recordings)} recording{'s' * (len(recordings) != 1)} ({heard_s:.1f} s) in {took_s:.1f} s:"
        f" {heard_s / took_s:.0f} times real time."
    )
    voice.say(
        f"Learned {spec.vocabulary.size} harmonic and {spec.vocabulary.size} percussive sounds,"
        f" and remembers {states} gestures with {notes} notes."
    )
    voice.say(f"Wrote {printable(output)} ({output.stat().st_size / 1e6:.1f} MB).")
    return model
