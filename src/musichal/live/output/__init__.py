"""Notes out: the scheduler in its own process, and the ports."""
