"""The measures of duos as tables of text: one row for each contestant, the header first."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from musichal.evaluate.together import ANCHORS, DuoContestant, DuoEvaluation

Rows = list[tuple[str, ...]]

TIME = MappingProxyType(
    {
        "onsets": "onsets",
        "r16": "R 16ths",
        "r8": "R 8ths",
        "r_triplets": "R triplets",
        "r_grid": "R their grid",
        "within": "within 40 ms",
        "within_moved": "moved in time",
        "asynchrony_ms": "asynchrony",
        "spread_ms": "spread",
        "phrase_beats": "phrase",
        "in_time": "in time",
    }
)
HARMONY = MappingProxyType(
    {
        "agreement": "agrees",
        "agreement_moved": "moved in time",
        "band": "band alone",
        "band_moved": "moved in time",
        "band_above_moved": "above moved",
        "in_chord": "in the chord",
        "consonant": "consonant",
        "unsupported": "unsupported",
    }
)
CHOICES = MappingProxyType(
    {
        "entropy_bits": "note lengths",
        "longest_quote": "longest quote",
        "memory_used": "memory used",
        "learned": "learned",
        "like_above_any": "like the band",
        "transposition_changes": "moves the key",
        "no_support": "no support",
        "under_half": "under half",
    }
)
_PLAIN = ("r16", "r8", "r_triplets", "r_grid")
_INTERVALS = ("r16", "r_grid", "within", "agreement", "band_above_moved", "in_chord", "like_above_any")


def time_rows(evaluation: DuoEvaluation) -> Rows:
    """Return how each contestant was in time."""
    pushed = any(song.pushed for song in evaluation.songs)
    rows = _rows(evaluation.contestants, "time", TIME)
    if pushed:
        backs = [_back(c.back_beats, c.never_back) for c in evaluation.contestants]
        rows = [(*row, more) for row, more in zip(rows, ["back after a push", *backs], strict=True)]
    return rows


def harmony_rows(evaluation: DuoEvaluation) -> Rows:
    """Return how each contestant was in harmony."""
    rows = _rows(evaluation.contestants, "harmony", HARMONY)
    if any(played.tune_beats for song in evaluation.songs for played in song.played.values()):
        backs = [_back(c.tune_beats, c.never_in_tune) for c in evaluation.contestants]
        rows = [(*row, more) for row, more in zip(rows, ["back after a jump", *backs], strict=True)]
    return rows


def choice_rows(evaluation: DuoEvaluation) -> Rows:
    """Return what the choices of each mode were made of."""
    return _rows([c for c in evaluation.contestants if c.name not in ANCHORS], "harmony", CHOICES)


def text_of(name: str, value: float | None) -> str:
    """Return the value of a measure as text."""
    if value is None:
        return "–"
    if name in ("onsets", "longest_quote"):
        return f"{value:.0f}"
    if name in _PLAIN:
        return f"{value:.2f}"
    if name == "band_above_moved":
        return f"{value:+.0%}"
    if name == "like_above_any":
        return f"{value:+.2f}"
    units = {"asynchrony_ms": "+.0f ms", "spread_ms": ".0f ms", "phrase_beats": ".1f beats", "entropy_bits": ".1f bits"}
    form, _, unit = units.get(name, ".0%").partition(" ")
    return f"{value:{form}} {unit}".rstrip()


def _rows(contestants: Sequence[DuoContestant], kind: str, columns: Mapping[str, str]) -> Rows:
    return [("", *columns.values()), *((c.name, *(_cell(c, kind, name) for name in columns)) for c in contestants)]


def _cell(contestant: DuoContestant, kind: str, name: str) -> str:
    text = text_of(name, getattr(getattr(contestant, kind), name))
    intervals = getattr(contestant, f"{kind}_intervals")
    if name in _INTERVALS and name in intervals:
        text += " ({}–{})".format(*(text_of(name, edge) for edge in intervals[name]))
    return text


def _back(beats: float | None, never: int) -> str:
    return ("–" if beats is None else f"{beats:.1f} beats") + (f", {never} never" if never else "")
