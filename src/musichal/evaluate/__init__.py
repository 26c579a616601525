"""Measurements of a partner: ``mh.evaluate.parity(partner, y, sr)``."""

from musichal.evaluate.alignment import Parity, parity

__all__ = ["Parity", "parity"]
