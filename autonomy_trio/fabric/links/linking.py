"""Links of each kind, by the scheme of their address: the one place that tells websockets from plain TCP."""

import trio

from autonomy_trio.fabric.links import tcp, websocket
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.link import Link


async def connect(url: str, nursery: trio.Nursery) -> Link:
    """Open a link to a relay; its background tasks run in `nursery`, whose owner closes the link.

    Args:
        url: ``ws://``, ``wss://`` or ``tcp://``, as `RelayAddress` reads it.
        nursery: lives longer than the link.

    Raises:
        RelayUnreachable: nothing answers there, or not what the scheme says.
    """
    if url.startswith("tcp:"):
        return await tcp.connect(url, nursery)
    return await websocket.connect(url, nursery)


async def listen(address: ListenAddress) -> tcp.TcpListener | websocket.WebSocketListener:
    """Open sockets to accept links on, of the kind that the address names.

    Raises:
        ConfigurationError: the address cannot be listened on; the text says why.
    """
    if address.scheme == "tcp":
        return await tcp.listen(address)
    return await websocket.listen(address)
