"""The whole of `musichal verify`: every check of a partner, in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from musichal.arrays import Float32
from musichal.audio.recording import Recording, ingest
from musichal.audio.resample import StreamResampler
from musichal.evaluate import ablations
from musichal.evaluate.frame_counts import count_checks
from musichal.evaluate.installation import identity_checks, precision_check, same_installation, version_checks
from musichal.evaluate.parity import LiveStream, hear_live, parity_checks, random_blocks, rate_checks
from musichal.evaluate.repeatability import Retrain, repeatability_checks
from musichal.evaluate.samples import SampleAudit
from musichal.evaluate.shift import scaling_checks, shift_checks, shift_rows
from musichal.evaluate.stages import compare_live, stage_checks
from musichal.evaluate.stored_states import Remembered, as_remembered, remembered, remembered_checks
from musichal.evaluate.verification import GROUPS, Check, DiversityRow, HeardRecording, ShiftRow, Verification
from musichal.memory.partner_file import PartnerModel, StoredRecording
from musichal.own_process import single_blas_thread

STRETCH_S = 60.0
"""How much of a recording other device rates and other grids are asked of."""
_LARGEST_BLOCK_S = 1.5
# Behind the first difference there is enough to see whether it lasts.
_BEYOND_S = 5.0

Tell = Callable[[str, float], None]
"""Told what is being done and how far it is, from 0 to 1."""


@dataclass(frozen=True)
class Subject:
    """A recording to verify with: its sound (n,), and what the partner holds of it (None if it is new to the partner)."""

    name: str
    sample_rate_hz: int
    samples: Float32
    stored: StoredRecording | None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples.shape[0] / self.sample_rate_hz

    def beginning(self, seconds: float) -> Float32:
        """Return the first `seconds` of the sound."""
        return self.samples[: round(seconds * self.sample_rate_hz)]


def subjects(model: PartnerModel, recordings: Sequence[Recording] = ()) -> tuple[Subject, ...]:
    """Return what to verify with: the given recordings, matched by digest, or else all whose sound the partner holds.

    Raises
    ------
    PartnerFileError
        If the sound in the partner is not what was heard.
    """
    if not recordings:
        return tuple(Subject(r.name, r.sample_rate_hz, r.samples(), r) for r in model.recordings if r.flac is not None)
    known = {(r.digest, r.sample_rate_hz): r for r in model.recordings}
    return tuple(Subject(r.name, r.sample_rate_hz, r.samples, known.get((r.digest, r.sample_rate_hz))) for r in recordings)


@single_blas_thread()
def verify_partner(
    model: PartnerModel,
    asked: Sequence[Subject],
    *,
    name: str = "",
    quick: bool = False,
    seed: int = 0,
    partner: Path | None = None,
    retrain: Retrain | None = None,
    processors: int = 1,
    progress: Tell | None = None,
) -> Verification:
    """Return every check of a partner.

    Parameters
    ----------
    model : PartnerModel
    asked : sequence of Subject
        What to push through the live path; nothing is heard if it is empty.
    name : str
        What to call the partner.
    quick : bool
        Leave out what takes long: other device rates, other grids, windows every 7 ms, training again.
    seed : int
        Of the block sizes.
    partner, retrain : Path, callable
        Its file, and how to train it again; repeatability is not asked without them.
    processors : int
        How many there are to run threads on.
    progress : callable, optional

    Raises
    ------
    MusicHalError
        If a recording cannot be heard.
    """
    tell = progress or (lambda _what, _share: None)
    identity = identity_checks(model.spec)
    checks = [*count_checks(model), *identity]
    heard: list[HeardRecording] = []
    diversity: tuple[DiversityRow, ...] = ()
    shift: tuple[ShiftRow, ...] = ()
    live: list[LiveStream] = []
    # An encoder that is not the partner's is refused by hearing itself: there is nothing to lay beside the stored stream.
    if identity[0].passed:
        for number, subject in enumerate(asked):
            telling = _part(tell, f"Hearing {subject.name}", number, len(asked))
            stream, beside, agreement = _agreement(
                model, subject, _blocks(subject, [seed, number]), within=number == 0 and not quick, tell=telling
            )
            live.append(stream)
            heard.append(beside)
            checks += agreement
        if not asked:
            checks.append(_not_asked("its sound was left out (--no-audio): name the recording to verify with"))
        else:
            checks += [precision_check(live[0]), *_scaling(model, asked[0])]
    else:
        checks.append(_not_asked("this MusicHal cannot hear as the partner does: the encoder is another one"))
    asked_parity = [c.passed for c in checks if c.group == "parity" and c.passed is not None]
    holds = all(asked_parity) if asked_parity else None
    if live:
        diversity, own = _diversity(model, asked, live, heard, quick, lambda s: tell("Averaging", 0.45 + 0.1 * s))
        checks += own
    if live and not quick:
        rng = np.random.default_rng([seed, len(asked)])
        subject, beside = asked[0], heard[0]
        stretch_s = min(STRETCH_S, subject.duration_s)
        sound = subject.beginning(stretch_s)
        rates = rate_checks(
            model,
            subject.name,
            sound,
            beside.frame_samples,
            beside.stored_tokens,
            sample_rate_hz=subject.sample_rate_hz,
            rng=rng,
            progress=lambda s: tell("Hearing at other rates", 0.25 + 0.2 * s),
        )
        # What is lost at the recording's own rate is lost at the others for the same reason.
        checks += [replace(c, cause="as at the recording's own rate") if c.cause and holds is False else c for c in rates]
        if stretch_s * model.spec.sample_rate_hz > 2 * model.spec.window_samples:
            shift = shift_rows(
                model,
                sound,
                beside.frame_samples,
                beside.stored_tokens,
                sample_rate_hz=subject.sample_rate_hz,
                rng=rng,
                progress=lambda s: tell("Hearing from other offsets", 0.55 + 0.2 * s),
            )
            checks += shift_checks(shift, stretch_s=stretch_s)
    checks += version_checks(model, parity_holds=holds)
    if not quick and partner is not None and retrain is not None and identity[0].passed:
        tell("Training again, twice", 0.75)
        checks += repeatability_checks(
            model, partner, retrain, same_installation=same_installation(model), processors=processors
        )
    tell("Done", 1.0)
    return Verification(
        partner=name,
        fingerprint=model.spec.fingerprint(),
        sample_rate_hz=model.spec.sample_rate_hz,
        complete=not quick and bool(live),
        checks=tuple(sorted(checks, key=lambda check: GROUPS.index(check.group))),
        recordings=tuple(heard),
        diversity=diversity,
        shift=shift,
    )


def _part(tell: Tell, what: str, number: int, count: int) -> Callable[[float], None]:
    """Return what to tell of one of `count` recordings, which together take the first quarter."""
    return lambda share: tell(what, 0.25 * (number + share) / count)


def _blocks(subject: Subject, seed: Sequence[int]) -> tuple[int, ...]:
    rng = np.random.default_rng(seed)
    return tuple(random_blocks(len(subject.samples), largest=round(_LARGEST_BLOCK_S * subject.sample_rate_hz), rng=rng))


def _agreement(
    model: PartnerModel, subject: Subject, blocks: Sequence[int], *, within: bool, tell: Callable[[float], None]
) -> tuple[LiveStream, HeardRecording, list[Check]]:
    """Hear a recording through the live path and return that, what it stands beside, and the checks of their agreement.

    The stages are compared `within` the beginning, and up to where tokens or samples part if they do.
    """
    rate = subject.sample_rate_hz
    audit = SampleAudit(model.spec, subject.samples, sample_rate_hz=rate)
    live = hear_live(model, subject.samples, sample_rate_hz=rate, blocks=blocks, tap=audit.tap, progress=tell)
    beside, kept = _beside(model, subject)
    is_new = subject.stored is None
    tokens = parity_checks(model, subject.name, beside.frame_samples, beside.stored_tokens, live, is_new=is_new)
    remembered = remembered_checks(subject.name, kept, as_remembered(live), is_new=is_new)
    beside = replace(beside, live_frame_samples=live.frame_samples, live_tokens=live.tokens)
    places = [audit.first_s, *(check.values["parts_at_s"] for check in tokens)]
    parted = [place for place in places if place is not None]
    ends = [*(place + _BEYOND_S for place in parted), *([STRETCH_S] if within else [])]
    if not ends:
        return live, beside, [*tokens, audit.check(subject.name), *remembered]
    comparison = compare_live(model, subject.samples, sample_rate_hz=rate, blocks=blocks, until_s=max(ends), progress=tell)
    first = comparison.first
    cause = (audit.cause() if first.stage == "samples" else first.cause) if first is not None else ""
    checks = [
        # What was seen on the way is more than what tokens alone tell.
        *(check if check.passed or not cause else replace(check, cause=cause) for check in tokens),
        audit.check(subject.name),
        *(check if check.passed or not cause else replace(check, cause=cause) for check in remembered),
        *stage_checks(subject.name, comparison, cause=cause),
    ]
    return live, beside, checks


def _number(model: PartnerModel, stored: StoredRecording) -> int:
    """Return the number of a recording in the memory; of two that are the same, its own."""
    same = [n for n, r in enumerate(model.recordings) if (r.digest, r.sample_rate_hz) == (stored.digest, stored.sample_rate_hz)]
    return next((n for n in same if model.recordings[n] is stored), same[0])


def _beside(model: PartnerModel, subject: Subject) -> tuple[HeardRecording, Remembered]:
    """Return what a live pass is laid beside: what the partner kept, or a new recording heard again, in blocks of a second."""
    stored = subject.stored
    if stored is None:
        rate, n = subject.sample_rate_hz, len(subject.samples)
        again = hear_live(
            model,
            subject.samples,
            sample_rate_hz=rate,
            blocks=[min(rate, n - first) for first in range(0, n, rate)],
        )
        positions, tokens, kept = again.frame_samples, again.tokens, as_remembered(again)
    else:
        positions, tokens = stored.frame_samples, stored.tokens
        kept = remembered(model.memory, _number(model, stored))
    heard = HeardRecording(
        name=subject.name,
        duration_s=subject.duration_s,
        is_new=stored is None,
        frame_samples=positions,
        stored_tokens=tokens,
        live_frame_samples=positions[:0],
        live_tokens=tokens[:, :0],
    )
    return heard, kept


def _not_asked(why: str) -> Check:
    return Check(
        group="parity", name="live against training", expected="every token", found="not asked", passed=None, detail=why
    )


def _scaling(model: PartnerModel, subject: Subject) -> tuple[Check, ...]:
    spec = model.spec
    resampler = StreamResampler(
        source_rate_hz=subject.sample_rate_hz, target_rate_hz=spec.sample_rate_hz, quality=spec.resampler
    )
    # From the middle, where there is music.
    middle_s = max(0.0, subject.duration_s / 2 - 1)
    part = subject.samples[round(middle_s * subject.sample_rate_hz) :][: 3 * subject.sample_rate_hz]
    return scaling_checks(spec, np.concatenate([resampler.push(ingest(part)), resampler.flush()]))


def _diversity(
    model: PartnerModel,
    asked: Sequence[Subject],
    live: Sequence[LiveStream],
    heard: Sequence[HeardRecording],
    quick: bool,
    tell: Callable[[float], None],
) -> tuple[tuple[DiversityRow, ...], list[Check]]:
    size, rate = model.spec.vocabulary.size, model.spec.sample_rate_hz
    # Training's own recordings speak for live hearing; only where there are none do new ones.
    rows_of = [n for n, h in enumerate(heard) if not h.is_new] or list(range(len(heard)))
    is_new = heard[rows_of[0]].is_new
    duration_s = sum(heard[n].duration_s for n in rows_of)
    rows: list[DiversityRow] = []
    checks: list[Check] = []
    all_frames = ablations.diversity_row(
        "live, all frames", [live[n].tokens for n in rows_of], size=size, duration_s=duration_s
    )
    training = ablations.diversity_row(
        "training",
        [h.stored_tokens for h in heard if not h.is_new] or [r.tokens for r in model.recordings],
        size=size,
        duration_s=sum(r.duration_s for r in model.recordings) if is_new else duration_s,
    )
    averaged = ablations.diversity_row(
        "live, frames averaged",
        [ablations.averaged_tokens(model, live[n]) for n in rows_of],
        size=size,
        duration_s=duration_s,
    )
    check = ablations.diversity_check(training, all_frames)
    if is_new:
        check = replace(
            check,
            expected="information",
            passed=None,
            cause="",
            detail="a recording that is new to the partner, as it was heard",
        )
    rows += [training, all_frames, averaged]
    checks += [check, ablations.ablation_check(averaged, all_frames)]
    if not quick:
        subject, stream = asked[rows_of[0]], live[rows_of[0]]
        length_s = min(ablations.STRETCH_S, subject.duration_s)
        first_s = (subject.duration_s - length_s) / 2
        inside = (stream.frame_samples >= first_s * rate) & (stream.frame_samples < (first_s + length_s) * rate)
        beside = ablations.diversity_row(
            f"live, all frames, {length_s:.0f} s", [stream.tokens[:, inside]], size=size, duration_s=length_s
        )
        windows = ablations.windowed_tokens(
            model,
            subject.samples,
            sample_rate_hz=subject.sample_rate_hz,
            first_s=first_s,
            last_s=first_s + length_s,
            progress=tell,
        )
        dense = ablations.diversity_row(
            f"350 ms every 7 ms, averaged, {length_s:.0f} s", [windows], size=size, duration_s=length_s
        )
        rows += [beside, dense]
        checks.append(ablations.ablation_check(dense, beside))
    return tuple(rows), checks
