"""Benchmarks: speed and quality, with peers beside them where they exist."""
