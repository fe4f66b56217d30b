"""Who may ask: keys, and the names and pages by which a browser may come.

A page from elsewhere can make a browser send requests to this machine's own addresses. It cannot hide where it comes
from (Origin, Sec-Fetch-Site), nor, where its name leads to this machine's address, under which name it asks (Host).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import socket
import stat
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.serve.api_errors import ApiError

LEAST_KEY = 16  # characters; shorter ones can be tried out
OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/favicon.ico"})
OPEN_FOLDER = "/page/"
_LOCAL = frozenset({"localhost"})


@dataclass(frozen=True)
class Access:
    """keys: digest of each to its name; empty: none is asked for. hosts: names under which the server is asked, beside
    addresses and this machine's own. origins: pages of other servers that may ask, as `https://robot.example`.
    """

    keys: Mapping[bytes, str] = field(default_factory=dict, repr=False)
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def check_browser(self, headers: Mapping[str, str], *, asset: bool) -> None:
        """`ApiError` (403) for a request that a page of another server made a browser send. asset: the page itself, to
        which links may lead.
        """
        host = headers.get("host")  # of HTTP/1.0 there may be none; browsers always send it
        if host is not None and not self._known(host):
            raise ApiError(
                403, f"asked under the name {_clean(host)}, which is not known here; allow it by --name", code="host"
            )
        origin = headers.get("origin")
        own = origin is not None and origin.partition("://")[2].lower() == (host or "").lower()
        if origin is not None and not own and origin.lower() not in self.origins:
            raise ApiError(403, f"asked by a page of {_clean(origin)}; allow it by --allow-origin", code="origin")
        site = headers.get("sec-fetch-site", "none")
        if origin is None and not asset and site not in ("none", "same-origin"):
            raise ApiError(403, "asked by a page of another server", code="origin")

    def owner(self, headers: Mapping[str, str], client: str) -> str:
        """The name of the key that a request carries, or, where none is needed, the client's address; `ApiError`."""
        if not self.keys:
            return client
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key_digest(key.strip()) if scheme.lower() == "bearer" else b""
        found = [name for digest, name in self.keys.items() if hmac.compare_digest(digest, given)]  # all are compared
        if not found:
            raise ApiError(
                401,
                "a key is needed: Authorization: Bearer KEY" if not key else "this key is not known",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found[0]

    def _known(self, host: str) -> bool:
        name = _without_port(host.lower()).rstrip(".")
        if _is_address(name) or name in self.hosts or name in _LOCAL:
            return True
        machine = socket.gethostname().lower()
        return name in (machine, f"{machine}.local")


def read_keys(path: Path) -> dict[bytes, str]:
    """Digest to name of a file's keys, a line each: `KEY`, or `NAME KEY`; `GarError` for what is none."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GarError(f"{path}: the keys cannot be read ({error})") from None
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        warnings.warn(f"{path}: others on this machine can read these keys; chmod 600 hides them", stacklevel=2)
    keys: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = words[-1]
        if len(words) > 2 or len(key) < LEAST_KEY or not key.isascii():
            raise GarError(
                f"{path}: line {number} is no key: KEY or NAME KEY, of {LEAST_KEY} characters or more; "
                "`openssl rand -hex 24` makes one"
            )
        keys[key_digest(key)] = words[0] if len(words) == 2 else f"key {number}"
    if not keys:
        raise GarError(f"{path}: holds no key; write one into a line")
    return keys


def names_of(given: Iterable[str]) -> frozenset[str]:
    """Names under which a server is asked, without ports; `GarError` for what is none."""
    found = set()
    for name in given:
        plain = _without_port(name.strip().lower()).rstrip(".")
        if not plain or "/" in name or any(character.isspace() for character in plain):
            raise GarError(f"{name} is no host's name; give it as robot.example")
        found.add(plain)
    return frozenset(found)


def origins_of(given: Iterable[str]) -> frozenset[str]:
    """Origins as browsers send them; `GarError` for what is none."""
    found = set()
    for origin in given:
        scheme, separator, rest = origin.rstrip("/").lower().partition("://")
        if scheme not in ("http", "https") or not separator or not rest or "/" in rest:
            raise GarError(f"{origin} is no origin; give it as https://robot.example or http://10.0.0.5:3000")
        found.add(f"{scheme}://{rest}")
    return frozenset(found)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def key_digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _clean(text: str) -> str:
    return ascii(text[:100])
