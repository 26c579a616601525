"""Play live from Python: a sound input, a partner, a MIDI output."""

from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from musichal.api.answer import ExplainedDecision, explained
from musichal.api.partner import settings_of
from musichal.live.control import COMMANDS_HELP, Command, command
from musichal.live.engine import EngineObserver
from musichal.live.live_performance import LivePerformance, LiveRequest
from musichal.partner.decision import Decision
from musichal.partner.mode_controller import directed_by
from musichal.partner.modes import AUTO
from musichal.text import PathLike, number_in, unknown_name

_MOST_DECISIONS = 10_000


class Live:
    """A live performance, as a context manager: it plays inside the block and ends every note on leaving it.

    Parameters
    ----------
    partner : str or path-like
        The partner file.
    input : str, optional
        Part of the name of a sound input, or its number; None for the default one. `musichal devices` lists them.
    output : str
        A MIDI port or another address of a port; ``auto:`` makes a port of its own where the system can.
    mode : str
        shadow, mirror, couple, lead, contrast, rest, or auto.
    seed : int
        Seed of the choices.
    session : str or path-like, optional
        A new folder that keeps everything, for `musichal replay`.
    block : int
        Frames in a block of the input.
    latency_ms : float
        What instrument and sound card take to sound; notes in time are sent so much earlier.
    **settings
        Parameters by name, as ``temperature=0.4``.

    Raises
    ------
    InputError
        For a setting that cannot be used.

    Examples
    --------
    >>> import musichal as mh
    >>> with mh.Live("jazz.hal", input="Scarlett", output="IAC Bus 1", mode="shadow") as live:  # doctest: +SKIP
    ...     live.wait(60)
    ...     live.set(mode="mirror")
    ...     live.wait()
    """

    def __init__(
        self,
        partner: PathLike,
        *,
        input: str | None = None,
        output: str = "auto:",
        mode: str = "auto",
        seed: int = 0,
        session: PathLike | None = None,
        block: int = 256,
        latency_ms: float = 0.0,
        **settings: Any,
    ) -> None:
        self._kept = _Kept()
        self._performance = LivePerformance(
            LiveRequest(
                partner=Path(partner),
                input=input,
                midi_out=output,
                session=None if session is None else Path(session),
                block=block,
                latency_s=number_in(latency_ms, 0, 1000, "latency_ms") / 1000,
                seed=seed,
                settings=settings_of(settings, mode=mode),
            ),
            observers=[self._kept],
        )

    def __enter__(self) -> Self:
        """Open input and ports, and begin to play; raises `MusicHalError` for what cannot be opened."""
        self._performance.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End every note and close the session."""
        self._performance.__exit__(kind, error, trace)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the performance is over, at most `timeout_s` seconds; return whether it is over."""
        return self._performance.wait(timeout_s)

    def stop(self) -> None:
        """End the performance."""
        self._performance.stop()

    def set(self, **settings: Any) -> None:
        """Change settings, or the mode, from now on; or press a button, as ``set(tap=True)``.

        Raises
        ------
        InputError
            For an unknown name or a value out of range.
        """
        current = self._performance.request.settings
        current.changed({name: value for name, value in settings.items() if name not in COMMANDS_HELP})
        modes = [*directed_by(current.direction)[0], AUTO]
        if settings.get("mode", AUTO) not in modes:
            raise unknown_name("mode", settings["mode"], modes)
        for asked in [command(name, [value]) for name, value in settings.items()]:
            self._performance.put(asked)

    def panic(self) -> None:
        """End every note at once, and go on playing."""
        self._performance.put(Command("panic", True))

    @property
    def decisions(self) -> list[ExplainedDecision]:
        """The latest decisions, 10,000 at most, with their reasons."""
        names = [recording.name for recording in self._performance.model.recordings]
        return [explained(decision, names) for decision in list(self._kept.decisions)]

    @property
    def state(self) -> dict[str, object]:
        """Statistics of the performance, such as time_s, notes, segments and skipped."""
        return self._performance.summary or self._performance.engine.statistics()


class _Kept(EngineObserver):
    """Keeps the latest decisions."""

    def __init__(self) -> None:
        self.decisions: deque[Decision] = deque(maxlen=_MOST_DECISIONS)

    def decision(self, decision: Decision) -> None:
        """Keep a decision."""
        self.decisions.append(decision)
