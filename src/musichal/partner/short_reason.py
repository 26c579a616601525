"""Why, in a few words that can be read while playing."""

from types import MappingProxyType

from musichal.partner.decision import REST_REASONS, Decision

_CARRIED = MappingProxyType(
    {
        "harmonic": "your harmony led there",
        "percussive": "your attack led there",
        "likeness": "you sound like this place",
        "pairs": "they answered you so",
        "chroma": "it fits your harmony",
        "rhythm": "it fits your rhythm",
        "loudness": "it follows your loudness",
        "own": "it fits what it played",
        "continuity": "it goes on",
    }
)
"""What carried a choice."""


def short_reason(decision: Decision) -> str:
    """Return why, from the record alone."""
    if decision.kind == "rest":
        return REST_REASONS[decision.rest or "no match"]
    if decision.returns:
        return f"brings back {decision.returns}"
    if decision.answers is not None:
        return "answers your phrase"
    if decision.scenario:
        return f"follows {decision.scenario}"
    carried = max(decision.influences, key=lambda i: i.share, default=None)
    if carried is None or carried.share <= 0:
        return "begins anew" if decision.jumped else "it was the only place that could follow"
    return _CARRIED.get(carried.name, carried.name)
