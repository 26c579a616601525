"""Sound, MIDI and messages in."""
