"""A measured figure, with its goal and its peer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured figure; `goal` is what it must not exceed (or, with `at_least`, not fall below), if there is one."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False
    peer: str | None = None
    peer_value: float | None = None

    @property
    def met(self) -> bool:
        """Whether the goal, if there is one, is met."""
        if self.goal is None:
            return True
        return self.value >= self.goal if self.at_least else self.value <= self.goal
