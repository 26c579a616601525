"""Where MusicHal keeps what it can make again: converted models, digests of weights that were read once."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for what can be made again; it may not exist yet.

    ``MUSICHAL_CACHE`` names it, else it is the system's own place for caches.
    """
    named = os.environ.get("MUSICHAL_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "musichal" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "MemoryPool" / "Caches" / "musichal"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "musichal"
