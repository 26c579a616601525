"""Figures one can trust: frame counts, diversity."""
