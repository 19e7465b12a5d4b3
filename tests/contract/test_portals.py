"""What a portal promises wherever the outlet is, and where its user."""

import trio

from tests.support.portals import echo_server, exchange, read_all
from tests.support.settings import Open


async def test_bytes_arrive_whole_and_in_order_both_ways_at_once(opening: Open) -> None:
    data = bytes(range(256)) * 10_000
    async with opening() as setting, echo_server() as target:
        address = setting.ref("db").address if setting.is_remote else "db"
        async with setting.server.outlet("db", target.place, allow="true"):
            assert await exchange(setting.user, address, data) == data
    assert bytes(target.received) == data


async def test_half_a_close_passes_through_both_ways(opening: Open) -> None:
    async with opening() as setting, trio.open_nursery() as nursery:

        async def answer_the_end(stream: trio.SocketStream) -> None:
            async with stream:
                asked = await read_all(stream)
                await stream.send_all(b"you said " + asked)

        listeners = await nursery.start(trio.serve_tcp, answer_the_end, 0)
        place = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with setting.server.outlet("db", place, allow="true"):
            address = setting.ref("db").address if setting.is_remote else "db"
            async with setting.user.inlet("127.0.0.1:0", address) as inlet:
                host, _, port = inlet.address.rpartition(":")
                async with await trio.open_tcp_stream(host, int(port)) as client:
                    await client.send_all(b"hello")
                    await client.send_eof()
                    assert await read_all(client) == b"you said hello"
        nursery.cancel_scope.cancel()
