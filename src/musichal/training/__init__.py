"""Chandra, the trainer: recordings in, a partner out."""
