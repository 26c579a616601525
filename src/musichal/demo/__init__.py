"""The bundled recordings, and where they are."""

from pathlib import Path

RECORDING = Path(__file__).parent / "rock140_mix.ogg"
"""34 s of a rock band: what the demo's partner is trained on."""
PLAYER = Path(__file__).parent / "rock140_guitar.ogg"
"""The solo guitar of the same song: who plays with it."""
