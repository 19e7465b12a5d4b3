"""Who may speak to an MCP server over HTTP: judged by a request's head, before anything of its body is read.

Pure: a scope goes in, a refusal comes out. A browser that was lured to a name which leads to this machine (DNS
rebinding) says so in ``Host`` or ``Origin``; whoever has the token has it in ``Authorization``.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Any, Final, final
from urllib.parse import urlsplit

import attrs

PATH: Final = "/mcp"
"""Where the server is, on its port."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@attrs.frozen
class Refused:
    """A request that is answered with its status alone, and a sentence."""

    status: int
    sentence: str
    headers: Mapping[bytes, bytes] = attrs.field(factory=dict[bytes, bytes])


@final
@attrs.frozen
class Gate:
    """Judges requests.

    Attributes:
        host: the address that is listened on.
        token: what a client must show, if anything.
    """

    host: str
    token: str | None = attrs.field(default=None, repr=False)

    def judge(self, scope: Mapping[str, Any]) -> Refused | None:
        """Return why a request is refused; None for one that may go on."""
        headers = _headers(scope)
        if headers is None:
            return Refused(400, "a header comes twice")
        if is_loopback(self.host) and _host_of(f"//{headers.get(b'host', '')}") not in _LOOPBACK | {self.host}:
            return Refused(421, "this server is not at that name")
        origin = headers.get(b"origin")
        if origin is not None and _host_of(origin) not in _LOOPBACK | {self.host}:
            return Refused(403, "pages of other servers may not use this one")
        if self.token is not None and not self._shows_token(headers.get(b"authorization", "")):
            return Refused(401, "a token is needed", {b"www-authenticate": b"Bearer"})
        if scope["path"] != PATH:
            return Refused(404, f"the server is at {PATH}")
        return None

    def _shows_token(self, authorization: str) -> bool:
        kind, _, shown = authorization.partition(" ")
        expected = (self.token or "").encode()
        return kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("latin-1"), expected)


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _headers(scope: Mapping[str, Any]) -> Mapping[bytes, str] | None:
    """Return the headers that are judged; None where one of them comes twice, which two readers could read apart."""
    judged = [(name, value) for name, value in scope["headers"] if name in {b"host", b"origin", b"authorization"}]
    found = {name: value.decode("latin-1") for name, value in judged}
    return found if len(found) == len(judged) else None


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
