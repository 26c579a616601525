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
    """Return what to run to install an extra: from the checkout, for on an index the name could be a stranger's.

    It names the Python that runs now: whoever calls MusicHal by its path has another `pip` at hand, if any.
    """
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    return f'run in the checkout of MusicHal: {python} -m pip install -e ".[{extra}]"'
