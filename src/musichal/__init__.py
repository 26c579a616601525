"""MusicHal: a partner for improvising musicians that hears in learned tokens and answers in MIDI."""

__version__ = "0.1.0"
