"""Hearing: from samples to tokens, gestures and notes, the same way for training and for playing."""
