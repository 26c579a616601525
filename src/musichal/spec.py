"""The perception spec: every number that shapes a token, in one frozen, fingerprinted value.

Conventions
-----------
Lengths are in samples at `PerceptionSpec.sample_rate_hz` and are named ``*_samples``; a partner stores the spec it was
trained with, and hearing is only ever built from a stored or a default spec, never from options of the player.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Self

from musichal.errors import InputError

MAX_SEGMENT_S = 20
RESAMPLERS = ("soxr-HQ", "soxr-VHQ", "soxr-VR")
MAX_CONTEXT_S = 20
MAX_LOOKAHEAD_S = 1
_MAX_FRAMES = 4096
_LONGEST_NAME = 256


_LATER = "later"
_INFINITE = math.inf
_LEAST = 1e-6
"""Stands for the lower end of a range that leaves 0 out."""


def _in(default: Any, low: float, high: float, **later: Any) -> Any:
    """Return a field of a number in [`low`, `high`]; `later` is what it has where a stored spec lacks it."""
    return field(default=default, metadata={"range": (low, high), **({_LATER: later["later"]} if later else {})})


def _later(default: Any) -> Any:
    """Return a field that joined after partners existed: absent, it has its default."""
    return field(default=default, metadata={_LATER: default})


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(f"perception spec: {message}")


class _SpecPart:
    """Range checks and strict conversion to and from plain JSON values, shared by the parts of the spec."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            if "range" in f.metadata:
                (low, high), value = f.metadata["range"], getattr(self, f.name)
                _check(low <= value <= high, f"{self._name()}{f.name} must be in [{low:g}, {high:g}], got {value:g}")

    @classmethod
    def _name(cls) -> str:
        name = cls.__name__.removesuffix("Spec").lower()
        return "" if name == "perception" else f"{name} "

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values.

        A field that joined later is left out while it has what a spec from before it has, so that such a spec has the same
        text, and the same fingerprint, as it always had.
        """
        return self._plain(all_fields=False)

    def _plain(self, *, all_fields: bool) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for field_ in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field_.name)
            if isinstance(value, _SpecPart):
                out[field_.name] = value._plain(all_fields=all_fields)
            elif all_fields or not (_LATER in field_.metadata and value == field_.metadata[_LATER]):
                out[field_.name] = value
        return out

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        if not isinstance(values, dict):
            raise InputError(f"perception spec: {cls.__name__} must be a table")
        fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(fields))
        missing = sorted(name for name in set(fields) - set(values) if _LATER not in fields[name].metadata)
        if unknown or missing:
            raise InputError(f"perception spec: {cls.__name__} has unknown {unknown} and lacks {missing}")
        converted = {name: f.metadata[_LATER] for name, f in fields.items() if _LATER in f.metadata}
        for name, value in values.items():
            factory = fields[name].default_factory
            default = fields[name].default if factory is dataclasses.MISSING else factory()
            converted[name] = _convert(f"{cls.__name__}.{name}", value, default)
        return cls(**converted)


def _convert(where: str, value: Any, default: Any) -> Any:
    """Return `value` as the type of `default`, refusing anything that would change meaning on the way."""
    if isinstance(default, _SpecPart):
        return type(default).from_dict(value)
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        _check(math.isfinite(value), f"{where} must be finite")
        return float(value)
    if type(value) is not type(default):
        raise InputError(f"perception spec: {where} must be {type(default).__name__}, not {type(value).__name__}")
    return value


@dataclass(frozen=True, kw_only=True)
class SeparationSpec(_SpecPart):
    """Harmonic-percussive separation by median filtering (Fitzgerald 2010), margins after Driedger et al. 2014."""

    n_fft: int = _in(2048, 64, 32768)
    hop_samples: int = 512
    kernel_time_frames: int = _in(17, 3, 63)
    kernel_frequency_bins: int = _in(31, 3, 63)
    power: float = _in(2.0, _LEAST, _INFINITE)
    margin_harmonic: float = _in(1.0, 1, _INFINITE)
    margin_percussive: float = _in(1.0, 1, _INFINITE)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.n_fft & (self.n_fft - 1) == 0, "n_fft must be a power of two")
        _check(self.n_fft // 32 <= self.hop_samples <= self.n_fft // 2, "hop_samples must be in [n_fft / 32, n_fft / 2]")
        _check(self.kernel_time_frames % 2 == self.kernel_frequency_bins % 2 == 1, "median kernels must be odd")


@dataclass(frozen=True, kw_only=True)
class EncoderSpec(_SpecPart):
    """Which encoder, and the digest of everything in it that shapes a feature.

    The rest is for encoders with weights, and empty for others: `weights` is the name of the weights (on the hub, or of a
    folder), `revision` their version, and `weights_digest` the digest of the checkpoint; features are the hidden state
    `layer`, of windows brought to zero mean and unit variance where `normalise` says so, computed by `runtime` in `precision`.
    """

    name: str = "spectral"
    digest: str = ""
    frame_samples: int = 400
    stride_samples: int = 320
    weights: str = _later("")
    revision: str = _later("")
    weights_digest: str = _later("")
    layer: int = _in(0, 0, 256, later=0)
    normalise: bool = _later(False)
    runtime: str = _later("")
    precision: str = _later("")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(bool(self.name), "encoder name must not be empty")
        _check(0 < self.stride_samples <= self.frame_samples, "stride_samples must be in [1, frame_samples]")
        for name in ("weights", "revision", "weights_digest", "runtime", "precision"):
            text = getattr(self, name)
            _check(len(text) <= _LONGEST_NAME and text.isprintable(), f"encoder {name} must be a printable name")

    @property
    def title(self) -> str:
        """Return the name, and for an encoder with weights which ones, which layer, and what computes it."""
        if not self.weights:
            return self.name
        computed = f", {self.runtime} {self.precision}" if self.runtime else ""
        return f"{self.name}: layer {self.layer} of {self.weights}{computed}"


@dataclass(frozen=True, kw_only=True)
class GateSpec(_SpecPart):
    """Below the gate a frame is SILENCE: it opens at `open_db` and closes at `close_db` (dBFS, RMS of the source)."""

    open_db: float = _in(-54.0, -120, 0)
    close_db: float = _in(-60.0, -120, 0)
    window_samples: int = _in(1024, 1, 65536)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.close_db <= self.open_db, "gate close_db must be at most open_db")


@dataclass(frozen=True, kw_only=True)
class VocabularySpec(_SpecPart):
    """K-means vocabulary, one per source."""

    size: int = _in(64, 2, 1024)
    normalisation: str = "scale"
    restarts: int = _in(2, 1, _INFINITE)
    max_iterations: int = _in(60, 1, _INFINITE)
    seed: int = _in(0, 0, _INFINITE)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.normalisation in ("scale", "l2-pca"), "normalisation must be 'scale' or 'l2-pca'")


@dataclass(frozen=True, kw_only=True)
class OnsetSpec(_SpecPart):
    """Causal SuperFlux (Böck & Widmer 2013), and returns of the level from a dip; `dip_db` of 0 asks for no dips."""

    n_fft: int = _in(1024, 64, 32768)
    hop_samples: int = 160
    bands_per_octave: int = _in(24, 1, 96)
    low_hz: float = _in(30.0, 1, _INFINITE)
    high_hz: float = 11000.0
    lag_frames: int = _in(2, 1, 64)
    max_filter_bins: int = _in(3, 1, 63)
    compression: float = _in(3000.0, _LEAST, _INFINITE)
    threshold: float = _in(2.75, _LEAST, _INFINITE)
    report_lag_samples: int = 240
    average_s: float = _in(0.25, _LEAST, 10)
    max_s: float = _in(0.03, _LEAST, 10)
    min_ioi_s: float = _in(0.03, _LEAST, 10)
    dip_db: float = _in(9.0, 0, 60, later=0.0)
    dip_return_db: float = _in(4.0, 0.1, 60, later=4.0)
    dip_return_s: float = _in(0.054, _LEAST, 1, later=0.054)
    dip_ioi_s: float = _in(0.1, _LEAST, 10, later=0.1)
    dip_fade_db_per_s: float = _in(20.0, 0, 1000, later=20.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.n_fft // 32 <= self.hop_samples <= self.n_fft, "onset hop_samples must be in [n_fft / 32, n_fft]")
        _check(self.low_hz < self.high_hz, "onset low_hz must be below high_hz")
        _check(self.max_filter_bins % 2 == 1, "onset max_filter_bins must be odd")
        _check(0 <= self.report_lag_samples <= self.n_fft, "onset report_lag_samples must be in [0, n_fft]")


@dataclass(frozen=True, kw_only=True)
class GestureSpec(_SpecPart):
    """Duration-penalised segmentation of frames into gestures (Kamper & van Niekerk 2021), cut at onsets.

    However far a frame is from every sound, the nearest one costs `strange_cost` at most; 0 is no limit. Where silence
    costs least in both sources, a gesture is silent only if at least `silent_share` of its frames are; 0 is no such limit. In
    a gesture's vector the percussive features count `percussive_scale` times.
    """

    penalty: float = _in(20.0, 0, _INFINITE)
    percussive_weight: float = _in(0.3, 0, _INFINITE)
    silence_cost: float = 4.0
    strange_cost: float = _in(0.0, 0, 100, later=0.0)
    silent_share: float = _in(0.0, 0, 1, later=0.0)
    percussive_scale: float = _in(1.0, 0, 100, later=1.0)
    min_s: float = _in(0.06, 0, 0.5)
    max_s: float = _in(2.0, 0.5, 20)
    settle_s: float = _in(0.08, 0, 0.3)
    roll_ioi_s: float = _in(0.09, 0, 0.499999)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(2 * self.min_s <= self.max_s, "gesture max_s must be at least twice min_s")


@dataclass(frozen=True, kw_only=True)
class NoteSpec(_SpecPart):
    """How sure the note tracker has to be, and the digest of its model.

    `begin` and `sound` are the probabilities above which a note begins and goes on; `again` is the one for a note that sounds
    to begin again at an onset that no other pitch explains as well. What sounds with the probability `held` for long is a note
    without a beginning, too. Notes shorter than `min_duration_s` are dropped.
    """

    begin: float = _in(0.3, _LEAST, 1 - _LEAST)
    sound: float = _in(0.3, _LEAST, 1 - _LEAST)
    again: float = _in(0.15, _LEAST, 1 - _LEAST, later=0.15)
    held: float = _in(0.7, _LEAST, 1, later=0.7)
    min_duration_s: float = _in(0.06, 0, 1)
    digest: str = ""


def segment_range(encoder: EncoderSpec, sample_rate_hz: int) -> tuple[int, int]:
    """Return the shortest and the longest segment, in samples: from one frame to as many as fit the memory."""
    return encoder.frame_samples, min(MAX_SEGMENT_S * sample_rate_hz, _MAX_FRAMES * encoder.stride_samples)


def hop_range(encoder: EncoderSpec, segment_samples: int) -> tuple[int, int]:
    """Return the shortest and the longest hop, in samples: each segment brings a new frame, and no sound is left out."""
    frame, stride = encoder.frame_samples, encoder.stride_samples
    last_centre = (segment_samples - frame) // stride * stride + frame // 2
    return max(1, segment_samples - last_centre), segment_samples


def _check_range(name: str, samples: int, limits: tuple[int, int], sample_rate_hz: int, why: str = "") -> None:
    least, most = limits
    least_ms, most_ms = (1000 * limit / sample_rate_hz for limit in limits)
    _check(
        least <= samples <= most,
        f"{name} must be in [{least}, {most}] ({least_ms:.5g} to {most_ms:.5g} ms), got {samples}{why}",
    )


@dataclass(frozen=True, kw_only=True)
class PerceptionSpec(_SpecPart):
    """Everything that shapes a token. Two partners with equal fingerprints and vocabularies hear alike.

    `drum_digest` is that of the drum model that their hits were heard by, empty in a partner from before it was kept.
    """

    version: int = 1
    sample_rate_hz: int = _in(24000, 8000, 96000)
    input_bits: int = _in(24, 24, 24)
    resampler: str = "soxr-HQ"
    highpass_hz: float = _in(20.0, 0, 200)
    policy: str = "grid"
    segment_samples: int = 8400
    hop_samples: int = 8400
    context_samples: int = 8400
    lookahead_samples: int = 1600
    min_segment_samples: int = 2400
    separation: SeparationSpec = field(default_factory=SeparationSpec)
    encoder: EncoderSpec = field(default_factory=EncoderSpec)
    gate: GateSpec = field(default_factory=GateSpec)
    vocabulary: VocabularySpec = field(default_factory=VocabularySpec)
    onsets: OnsetSpec = field(default_factory=OnsetSpec)
    gestures: GestureSpec = field(default_factory=lambda: GestureSpec(strange_cost=2.0, silent_share=0.5, percussive_scale=0.5))
    notes: NoteSpec = field(default_factory=NoteSpec)
    drum_digest: str = _later("")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.version == 1, f"version {self.version} is not known to this MusicHal")
        _check(self.resampler in RESAMPLERS, f"resampler must be one of {', '.join(RESAMPLERS)}")
        _check(self.policy in ("grid", "onset"), "policy must be 'grid' or 'onset'")
        rate = self.sample_rate_hz
        _check_range("segment_samples", self.segment_samples, segment_range(self.encoder, rate), rate)
        hops, why = hop_range(self.encoder, self.segment_samples), ": a shorter hop would bring no new frame"
        _check_range("hop_samples", self.hop_samples, hops, rate, why)
        _check_range("context_samples", self.context_samples, (0, MAX_CONTEXT_S * rate), rate)
        _check_range("lookahead_samples", self.lookahead_samples, (0, MAX_LOOKAHEAD_S * rate), rate)
        _check(
            self.policy == "grid" or self.hop_samples == self.segment_samples,
            "onset-synchronous segments do not overlap: hop must equal segment",
        )
        least = (self.encoder.frame_samples, self.segment_samples)
        _check_range("min_segment_samples", self.min_segment_samples, least, rate)

    @property
    def window_samples(self) -> int:
        """Return the length of what the encoder sees: context, segment and lookahead."""
        return self.context_samples + self.segment_samples + self.lookahead_samples

    def varied(
        self,
        *,
        segment_s: float | None = None,
        hop_s: float | None = None,
        context_s: float | None = None,
        lookahead_s: float | None = None,
        policy: str | None = None,
        resampler: str | None = None,
        vocabulary: int | None = None,
        seed: int | None = None,
    ) -> "PerceptionSpec":
        """Return this spec with other values; None leaves one as it is.

        Raises `InputError` for a value out of range, or segments at onsets that overlap.

        Parameters
        ----------
        segment_s, hop_s, context_s, lookahead_s : float, optional
            Durations in seconds; without `hop_s` segments do not overlap.
        policy : {"grid", "onset"}, optional
            Where segments start.
        resampler : str, optional
            One of `RESAMPLERS`.
        vocabulary : int, optional
            Number of sounds for each source.
        seed : int, optional
            Seed of k-means.
        """
        rate = self.sample_rate_hz

        def samples(name: str, seconds: float | None, default: int, limits: tuple[int, int]) -> int:
            if seconds is None:
                return default
            least, most = limits
            if not least - 0.5 < seconds * rate < most + 0.5:
                # Whole milliseconds inside the limits, so that what the message names is accepted.
                least_ms, most_ms = math.ceil(1000 * least / rate), 1000 * most // rate
                raise InputError(f"{name} must be in [{least_ms}, {most_ms}] ms, got {1000 * seconds:g}")
            return round(seconds * rate)

        segment = samples("segment", segment_s, self.segment_samples, segment_range(self.encoder, rate))
        same = self.hop_samples if segment_s is None else segment
        hop = samples("hop", hop_s, same, hop_range(self.encoder, segment))
        policy = policy or self.policy
        if policy == "onset" and hop != segment:
            raise InputError("hop cannot be given with policy onset: segments that start at onsets do not overlap")
        size, own_seed = vocabulary or self.vocabulary.size, self.vocabulary.seed if seed is None else seed
        return dataclasses.replace(
            self,
            vocabulary=dataclasses.replace(self.vocabulary, size=size, seed=own_seed),
            segment_samples=segment,
            hop_samples=hop,
            context_samples=samples("context", context_s, self.context_samples, (0, MAX_CONTEXT_S * rate)),
            lookahead_samples=samples("lookahead", lookahead_s, self.lookahead_samples, (0, MAX_LOOKAHEAD_S * rate)),
            resampler=resampler or self.resampler,
            min_segment_samples=min(self.min_segment_samples, segment),
            policy=policy,
        )

    def canonical_json(self) -> str:
        """Return the one JSON text of this spec: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def differences(self, other: "PerceptionSpec") -> list[tuple[str, Any, Any]]:
        """Return (field, mine, other's) for each field that differs, dotted names for nested fields."""

        def flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
            out: dict[str, Any] = {}
            for key, value in values.items():
                name = f"{prefix}{key}"
                out.update(flat(f"{name}.", value) if isinstance(value, dict) else {name: value})
            return out

        mine, theirs = flat("", self._plain(all_fields=True)), flat("", other._plain(all_fields=True))
        return [(name, mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]]


def spec_at_rate(sample_rate_hz: int) -> PerceptionSpec:
    """Return the default spec for an encoder that hears at another rate: the same durations, in its samples."""
    base = PerceptionSpec()
    ratio = sample_rate_hz / base.sample_rate_hz
    if ratio == 1:
        return base

    def scaled(samples: int) -> int:
        return max(1, round(samples * ratio))

    def power_of_two(samples: int) -> int:
        return 2 ** round(math.log2(samples * ratio))

    n_fft = power_of_two(base.separation.n_fft)
    hop_share = base.separation.n_fft // base.separation.hop_samples
    return dataclasses.replace(
        base,
        sample_rate_hz=sample_rate_hz,
        segment_samples=scaled(base.segment_samples),
        hop_samples=scaled(base.hop_samples),
        context_samples=scaled(base.context_samples),
        lookahead_samples=scaled(base.lookahead_samples),
        min_segment_samples=scaled(base.min_segment_samples),
        separation=dataclasses.replace(base.separation, n_fft=n_fft, hop_samples=n_fft // hop_share),
        gate=dataclasses.replace(base.gate, window_samples=scaled(base.gate.window_samples)),
        onsets=dataclasses.replace(
            base.onsets,
            n_fft=power_of_two(base.onsets.n_fft),
            hop_samples=scaled(base.onsets.hop_samples),
            report_lag_samples=scaled(base.onsets.report_lag_samples),
        ),
    )
