"""The stage: clock, engine, MIDI, sessions."""
