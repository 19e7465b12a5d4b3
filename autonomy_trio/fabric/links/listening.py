"""Sockets that listen or connect, or a sentence why they cannot."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

import attrs
import trio

from autonomy_trio.errors import ConfigurationError, RelayUnreachable
from autonomy_trio.fabric.links.addresses import ListenAddress


async def open_listeners(address: ListenAddress, option: str) -> tuple[list[trio.SocketListener], ListenAddress]:
    """Open sockets to accept connections on.

    Args:
        address: where; port 0 takes a free one.
        option: where on the command line another address can be chosen.

    Returns:
        the sockets, which their taker closes, and where they listen, with the port they really have.

    Raises:
        ConfigurationError: the address cannot be listened on; the text says why.
    """
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigurationError(
            f"cannot listen on {address} ({reason.lower()}): choose another address with {option}"
        ) from None
    if address.port == 0:
        # A name with several addresses would get a port for each, of which only one can be told.
        for listener in listeners[1:]:
            await listener.aclose()
        del listeners[1:]
    return listeners, attrs.evolve(address, port=int(listeners[0].socket.getsockname()[1]))


@contextmanager
def reaching(url: str, limit: float) -> Generator[None]:
    """Say in a sentence why a relay cannot be reached.

    Args:
        url: what is connected to in the block.
        limit: seconds that the block may take; it fails with `trio.TooSlowError` past them.

    Raises:
        RelayUnreachable: it failed, for want of an answer, or as a system's connections do.
    """
    try:
        yield
    except trio.TooSlowError:
        raise RelayUnreachable(f"{url} did not answer in {limit:g} s: is a relay running there?") from None
    except (socket.gaierror, UnicodeError):
        raise RelayUnreachable(f"{url} cannot be reached, for nothing has that name: is it spelt right?") from None
    except OSError as error:
        raise RelayUnreachable(f"{url} cannot be reached ({system_reason(error)}): is a relay running there?") from None


def first_cause(error: BaseException) -> BaseException:
    """Return why a connection failed at its first attempt, where there were several."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cast("BaseExceptionGroup[BaseException]", cause).exceptions[0]
    return cause


def system_reason(error: BaseException) -> str:
    """Return the system's words for why a connection failed."""
    cause = first_cause(error)
    number = cause.errno if isinstance(cause, OSError) else None
    return os.strerror(number).lower() if number else "the connection failed"
