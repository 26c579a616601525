"""Where messages go: MIDI ports, JACK, OSC, MIDI files, a synthesiser. One protocol, one module each."""
