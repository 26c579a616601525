"""Errors that a user can act on; each message is one clear line."""

import sys


class MusicHalError(Exception):
    """Anything MusicHal refuses; the command line prints its message and exits with `exit_code`."""

    exit_code = 2


class InputError(MusicHalError, ValueError):
    """A recording, a setting or a path cannot be used."""


class PartnerFileError(MusicHalError, ValueError):
    """A partner file is damaged, hostile, too new, or was made by another way of hearing."""


class MissingExtraError(MusicHalError):
    """An optional part of MusicHal is not installed; the message has the command that installs it."""


class CheckFailedError(MusicHalError):
    """A check that the user asked for failed."""

    exit_code = 1


def install_hint(extra: str) -> str:
    """Return the command that installs an extra into this Python's environment.

    pip finds MusicHal installed, so it fetches only what the extra needs, never another package named musichal.
    """
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    return f'run: {python} -m pip install "musichal[{extra}]"'
