"""The clock of the processes on stage; the input's process, a floor below, uses the same one."""

from musichal.monotonic import now_s

__all__ = ["now_s"]
