"""Measurements: ``mh.evaluate.parity(partner, y, sr)``, ``mh.evaluate.duo((player, band))``."""

from musichal.evaluate.alignment import Parity, parity
from musichal.evaluate.duos import duo
from musichal.evaluate.together import DuoEvaluation

__all__ = ["DuoEvaluation", "Parity", "duo", "parity"]
