"""A performance on disk: what was heard, decided and played."""
