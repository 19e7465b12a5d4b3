"""Where an agent is: ``I<node>/<agent>``, with the relay in front where the reader may not be attached to it."""

import ipaddress
import re
from typing import Final, Literal
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from autonomy_trio.errors import AddressError
from autonomy_trio.trust.records import format_identifier, parse_identifier

_ADDRESS: Final = re.compile(r"(?:(?P<relay>(?:wss?|tcp)://[^/\s]+)/)?(?P<node>I[0-9a-fA-F]*)/(?P<agent>[^/\s]+)")
_HOST: Final = r"(?:\[(?P<bracketed>[\w:.%-]+)\]|(?P<host>[\w.-]+))"
_RELAY: Final = re.compile(
    rf"(?:wss?|tcp(?=.*:\d+/?$))://{_HOST}(?::(?P<port>[0-9]{{1,5}}))?/?", re.ASCII | re.IGNORECASE
)
_LISTEN: Final = re.compile(rf"{_HOST}?:(?P<port>[0-9]{{1,5}})", re.ASCII)
_LAST_PORT: Final = 65_535
_EXAMPLE: Final = "ws://HOST:PORT/I<64 hex digits>/AGENT"


@frozen
class RelayAddress:
    """A relay's URL, and the identity it must prove where it is pinned (``ws://host:port#I…``)."""

    url: str
    pin: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> "RelayAddress":
        """Read ``ws://HOST[:PORT]``, ``wss://HOST[:PORT]`` or ``tcp://HOST:PORT``, with ``#I…`` to pin the relay.

        Raises:
            AddressError: it is something else.
        """
        url, hash_sign, pin = text.partition("#")
        match = _RELAY.fullmatch(url)
        if match is None or not _is_real(match) or match["port"] == "0":
            raise AddressError(
                f"{text!r} is no relay's address: write ws://HOST:PORT, wss://HOST:PORT or tcp://HOST:PORT"
            )
        # One way to write each, for URLs are compared: as browsers do, in lower case and without the last slash.
        normal = url.removesuffix("/").lower()
        return cls(normal, parse_identifier(pin) if hash_sign else None)

    @property
    def is_exposed(self) -> bool:
        """Whether the network, past this machine, could put another relay in its place: no pin, and no TLS."""
        if self.pin is not None or self.url.startswith("wss:"):
            return False
        host = urlsplit(self.url).hostname or ""
        try:
            return not ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host != "localhost"

    def __str__(self) -> str:
        return self.url if self.pin is None else f"{self.url}#{format_identifier(self.pin)}"


@frozen
class Address:
    """An agent's address."""

    node: bytes = field(repr=format_identifier)
    agent: str
    relay: RelayAddress | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``I<node>/<agent>`` or ``ws://host:port/I<node>/<agent>``.

        Raises:
            AddressError: it is something else.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            msg = f"{text!r} is no address: write {_EXAMPLE}, as the agent's node prints it when it starts"
            raise AddressError(msg)
        relay = match["relay"]
        return cls(parse_identifier(match["node"]), match["agent"], RelayAddress.parse(relay) if relay else None)

    def __str__(self) -> str:
        place = f"{format_identifier(self.node)}/{self.agent}"
        return place if self.relay is None else f"{self.relay.url}/{place}"


def is_address(text: str) -> bool:
    """Tell an address from a name on this node, without judging whether it is a right one."""
    return "/" in text


@frozen
class ListenAddress:
    """A host and port to listen on, and for which kind of links; port 0 takes a free one."""

    host: str
    port: int
    scheme: Literal["ws", "tcp"] = "ws"

    @classmethod
    def parse(cls, text: str) -> "ListenAddress":
        """Read ``HOST:PORT``, ``[IPv6]:PORT`` or ``:PORT`` (all interfaces).

        Raises:
            AddressError: it is something else.
        """
        match = _LISTEN.fullmatch(text)
        if match is None or not _is_real(match):
            raise AddressError(f"{text!r} is nothing to listen on: write HOST:PORT, say 127.0.0.1:4000")
        host = match["bracketed"] or match["host"] or "0.0.0.0"  # noqa: S104 - ':PORT' asks for all interfaces
        return cls(host, int(match["port"]))

    @classmethod
    def parse_link(cls, text: str) -> "ListenAddress":
        """Read what a relay listens on: as `parse`, or ``tcp://HOST:PORT`` for plain TCP in place of websockets.

        Raises:
            AddressError: it is something else.
        """
        address = cls.parse(text.removeprefix("tcp://"))
        return evolve(address, scheme="tcp") if text.startswith("tcp://") else address

    @property
    def url(self) -> str:
        """The URL at which a process on this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - what is asked for, not bound
        return f"{self.scheme}://{evolve(self, host=host)}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_real(match: re.Match[str]) -> bool:
    """Tell whether what stands in brackets is an IPv6 address, and the port, where there is one, can be one."""
    try:
        ipaddress.IPv6Address(match["bracketed"] or "::")
    except ValueError:
        return False
    return int(match["port"] or 0) <= _LAST_PORT
