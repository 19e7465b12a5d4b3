"""Protocol errors between nodes, where the asker knows less than the handler."""

import pytest
from attrs import frozen

from autonomy_trio import AgentRef, Context, Request, agent, on
from autonomy_trio.errors import DeclarationError, HandlerFailed, ReplyError
from autonomy_trio.messages import Untyped, message
from tests.support.contract import Service, Short, Take
from tests.support.net import Net


@frozen
class Held(ReplyError):
    by: AgentRef[object]


@frozen
class Claim(Request[None]):
    pass


@agent
class Holder:
    @on(Claim, allow="true", raises=Held)
    async def claim(self, message: Claim, context: Context) -> None:
        raise Held(context.self)


async def test_without_the_class_it_is_a_plain_reply_error_with_its_name_and_fields(
    net: Net, autojump_clock: object
) -> None:
    async with net.node([Service]) as server, net.node() as asker:
        service = asker.ref(server.address("service"))
        for request in (Take(7), Untyped("Take", {"amount": 7})):
            with pytest.raises(ReplyError) as caught:
                await service.ask(request)
            assert type(caught.value) is ReplyError
            assert str(caught.value) == "Short(missing=7, of=['coins'])"


async def test_a_class_with_other_fields_is_no_class_for_it(net: Net, autojump_clock: object) -> None:
    @message(name="Short")
    @frozen
    class OtherShort(ReplyError):
        lacking: str

    @agent
    class OtherService:
        @on(Take, raises=OtherShort)
        async def take(self, message: Take) -> int:
            return 1

    async with net.node([Service]) as server, net.node() as asker:
        with pytest.raises(ReplyError, match="missing=7") as caught:
            await asker.ref(server.address("service"), OtherService).ask(Take(7))
        assert type(caught.value) is ReplyError


async def test_a_ref_in_a_protocol_error_is_a_ref(net: Net, autojump_clock: object) -> None:
    async with net.node([Holder]) as server, net.node() as asker:
        with pytest.raises(Held) as caught:
            await asker.ref(server.address("holder"), Holder).ask(Claim())
        assert caught.value.by == asker.ref(server.address("holder"))


async def test_one_too_large_to_travel_is_the_handlers_failure(net: Net, autojump_clock: object) -> None:
    @agent
    class Large:
        @on(Take, allow="true", raises=Short)
        async def take(self, message: Take) -> int:
            raise Short(1, ("x" * 200_000,))

    async with net.node([Large]) as server, net.node() as asker:
        with pytest.raises(HandlerFailed, match="the protocol error has no encoding or is too large"):
            await asker.ref(server.address("large")).ask(Take(7))


async def test_an_agent_uses_the_class_of_its_refs_too(net: Net, autojump_clock: object) -> None:
    found: list[int] = []

    @agent
    class Buyer:
        @on(Claim)
        async def claim(self, message: Claim, context: Context) -> None:
            with pytest.raises(Short) as caught:
                await context.ref(address, Service).ask(Take(7))
            found.append(caught.value.missing)

    async with net.node([Service]) as server, net.node([Buyer]) as asker:
        address = server.address("service")
        await asker.ref("buyer").ask(Claim())
    assert found == [7]


def test_a_protocol_error_that_could_not_travel_is_refused_with_the_class() -> None:
    @frozen
    class Odd(ReplyError):
        thing: type

    with pytest.raises(DeclarationError, match=r"Seller\.take: Odd cannot be sent"):

        @agent
        class Seller:
            @on(Take, allow="true", raises=Odd)
            async def take(self, message: Take) -> int:
                raise Odd(1)
