"""What is let in: the token in the address, Host and Origin, and the headers that keep a browser from doing more.

A page of another site cannot read the token; a name that such a site points at this machine (DNS rebinding) is not the Host
that we answer to; a browser says by Origin which page opened a socket.
"""

import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Role = Literal["player", "stage"]
LONGEST_PATH = 300
LONGEST_MOMENT_S = 20.0


@dataclass(frozen=True)
class Guard:
    """Lets requests in.

    Parameters
    ----------
    tokens : pair of str
        Of the page with controls, and of the one to look at.
    host : str
        The address that is listened on.
    """

    tokens: tuple[str, str]
    host: str
    port: int

    def role(self, token: str) -> Role | None:
        """Return what a token allows; None for a wrong one."""
        found: Role | None = None
        roles: tuple[tuple[str, Role], ...] = ((self.tokens[0], "player"), (self.tokens[1], "stage"))
        for known, role in roles:
            if hmac.compare_digest(known.encode(), token.encode(errors="replace")):
                found = role
        return found

    def knows_host(self, values: Sequence[str]) -> bool:
        """Return whether the Host headers are one that names this machine by its address, or as localhost."""
        if len(values) != 1:
            return False
        try:
            parts = urlsplit(f"//{values[0]}")
            name, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        if port != self.port and not (port is None and self.port == 80):
            return False
        if name in ("localhost", self.host):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # Beyond loopback this machine has addresses of its own; a name that someone else owns is none.
        return address.is_loopback or not ipaddress.ip_address(self.host).is_loopback

    def knows_origin(self, origins: Sequence[str], hosts: Sequence[str]) -> bool:
        """Return whether a socket was opened by our own page."""
        return len(origins) == 1 and len(hosts) == 1 and origins[0] == f"http://{hosts[0]}"


def page_headers(host: str) -> Mapping[str, str]:
    """Return the headers of every answer; `host` has been checked."""
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self';"
        f" connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        "Cache-Control": "no-store",
    }


def byte_range(header: str | None, length: int) -> tuple[int, int] | None:
    """Return the first byte and the one behind the last that a Range header asks for; None where it asks for none we know."""
    if header is None or not header.startswith("bytes=") or "," in header:
        return None
    first, dash, last = header.removeprefix("bytes=").partition("-")
    if not dash or not (first.isdecimal() or (not first and last.isdecimal())) or not (not last or last.isdecimal()):
        return None
    if not first:
        return max(0, length - int(last)), length
    begin, end = int(first), min(length, int(last) + 1) if last else length
    return (begin, end) if begin < end else None


def wanted_stretch(query: Mapping[str, Sequence[str]]) -> tuple[float, float] | None:
    """Return the stretch that a query asks for, ``from`` one second ``to`` another; None where it asks for anything else."""
    try:
        start_s, end_s = (float(query[name][0]) for name in ("from", "to"))
    except (KeyError, ValueError):
        return None
    return (start_s, end_s) if 0 <= start_s < end_s < 1e6 else None


def wanted_moment(query: Mapping[str, Sequence[str]]) -> tuple[int, float, float] | None:
    """Return the stretch that a query asks for: number of the ``recording``, ``from`` which second, ``for`` how many.

    None where it asks for anything else.
    """
    try:
        which, start_s, length_s = (float(query[name][0]) for name in ("recording", "from", "for"))
    except (KeyError, ValueError):
        return None
    inside = -1 <= which < 1e6 and 0 <= start_s < 1e6 and 0 < length_s <= LONGEST_MOMENT_S  # not so for NaN
    return (int(which), start_s, length_s) if inside else None
