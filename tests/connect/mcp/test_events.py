import mcp_types as types
from mcp.server.streamable_http import EventMessage

from autonomy_trio.connect.mcp.events import MOST_EVENT_BYTES, MOST_EVENTS, Events


def note(text: str) -> types.JSONRPCNotification:
    return types.JSONRPCNotification(jsonrpc="2.0", method="notifications/message", params={"text": text})


async def replayed(events: Events, after: str) -> tuple[str | None, list[EventMessage]]:
    sent: list[EventMessage] = []

    async def send(event: EventMessage) -> None:
        sent.append(event)

    return await events.replay_events_after(after, send), sent


async def test_what_came_after_an_event_in_its_stream_is_sent_again() -> None:
    events = Events()
    first = await events.store_event("1", None)
    await events.store_event("2", note("of another stream"))
    second = await events.store_event("1", note("missed"))
    await events.store_event("1", None)
    assert await replayed(events, first) == ("1", [EventMessage(note("missed"), second)])


async def test_an_event_that_is_not_known_says_nothing() -> None:
    assert await replayed(Events(), "guessed") == (None, [])


async def test_another_sessions_events_are_not_known() -> None:
    one, other = Events(), Events()
    identifier = await one.store_event("1", None)
    await one.store_event("1", note("private"))
    assert await replayed(other, identifier) == (None, [])


async def test_so_many_events_are_kept_and_the_oldest_goes_first() -> None:
    events = Events()
    identifiers = [await events.store_event("1", note(str(number))) for number in range(MOST_EVENTS + 1)]
    assert events.count == MOST_EVENTS
    assert (await replayed(events, identifiers[0]))[0] is None
    assert (await replayed(events, identifiers[1]))[0] == "1"


async def test_so_many_bytes_are_kept_and_the_newest_event_always() -> None:
    events = Events()
    await events.store_event("1", note("x"))
    await events.store_event("1", note("y" * MOST_EVENT_BYTES))
    assert events.count == 1
    await events.store_event("1", note("z"))
    assert events.count == 1


def test_a_store_that_is_empty_is_a_store_all_the_same() -> None:
    assert Events()
