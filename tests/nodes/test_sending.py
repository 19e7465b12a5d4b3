"""What leaves is judged by what its recipient has proven, which is asked for before anything is sent; and both ways, a
live session obeys what has changed at its next message."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from attrs import frozen

from autonomy_trio import Node, Request, Stream, agent, on
from autonomy_trio.errors import Denied, NotDelivered, NotStored
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.credentials import from_text, issue, read_presentation, to_text
from autonomy_trio.trust.lists import sign_list
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.wire.constants import DATA, XX1
from autonomy_trio.wire.frames import Send
from tests.support.net import Net

TO_PAYMENTS = (
    'forbid(principal, action == Action::"Send", resource)\n'
    'unless { resource has team && resource.team == "payments" };\n'
)
TO_NOBODY = 'forbid(principal, action == Action::"Send", resource);\n'
FROM_PAYMENTS = 'permit(principal, action, resource) when { principal has team && principal.team == "payments" };\n'
FROM_NOBODY = "forbid(principal, action, resource is Bank);\n"

NOTES: list[str] = []


@frozen
class Ping(Request[int]):
    pass


@frozen
class Note:
    text: str


@frozen
class Count(Stream[int]):
    pass


@agent
class Bank:
    @on(Ping, allow="true")
    def ping(self, message: Ping) -> int:
        return 1

    @on(Note, allow="true")
    def note(self, message: Note) -> None:
        NOTES.append(message.text)

    @on(Count, allow="true")
    async def count(self, message: Count) -> AsyncIterator[int]:
        yield 1


def write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    NOTES.clear()
    path = tmp_path / "policies.cedar"
    path.write_text(TO_PAYMENTS)
    return path


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open homes and make commits in the loop: a thread would let virtual time run away."""

    async def run_sync(function: Callable[..., object], *args: object, **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


async def test_the_first_message_to_a_node_is_judged_by_what_that_has_proven(
    net: Net, policy: Path, autojump_clock: object
) -> None:
    async with net.node([Bank]) as server:
        async with net.node(policy=policy) as careful:
            server.add_credential(careful.issue(server.identifier, team="payments"))
            bank = careful.ref(server.address("bank"), Bank)
            assert await bank.ask(Ping()) == 1
            assert careful.dead_letters.counts() == {}
        async with net.node(policy=policy) as other:
            with pytest.raises(Denied, match="was not sent"):  # it does not trust careful
                await other.ref(server.address("bank"), Bank).ask(Ping())


async def test_concurrent_first_messages_wait_together_and_all_leave(
    net: Net, policy: Path, autojump_clock: object
) -> None:
    async with net.node([Bank]) as server, net.node(policy=policy) as careful:
        server.add_credential(careful.issue(server.identifier, team="payments"))
        bank = careful.ref(server.address("bank"), Bank)
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await bank.ask(Ping()))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
            await bank.tell(Note("first"))
            async with bank.stream(Count()) as items:
                assert [item async for item in items] == [1]
        assert answers == [1] * 20
        assert NOTES == ["first"]
        assert net.packets(XX1) == 1


async def test_nothing_is_denied_before_the_recipient_has_answered(
    net: Net, policy: Path, autojump_clock: object
) -> None:
    async with net.node([Bank]) as server, net.node(policy=policy) as careful:
        server.add_credential(careful.issue(server.identifier, team="payments"))
        # The packet that shows what the server has proven is lost, as often as it comes in the first two seconds.
        net.loses = lambda frame: (
            isinstance(frame, Send)
            and frame.destination == careful._vault.identifier
            and frame.packet[1] == DATA
            and trio.current_time() < 2
        )
        assert await careful.ref(server.address("bank"), Bank).ask(Ping()) == 1
        assert trio.current_time() >= 2
        assert careful.dead_letters.counts() == {}


async def test_the_wait_for_what_a_recipient_has_proven_is_bounded(
    net: Net, policy: Path, autojump_clock: object
) -> None:
    async with net.node([Bank]) as server, net.node(policy=policy) as careful:
        net.loses = lambda frame: isinstance(frame, Send)
        began = trio.current_time()
        with pytest.raises(NotDelivered):
            await careful.ref(server.address("bank"), Bank).ask(Ping())
        assert 4 < trio.current_time() - began < 12
        assert careful.dead_letters.counts() == {}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("shows", ["there", "met and gone", "published and gone", "never", "nothing"])
async def test_a_durable_message_waits_for_what_its_recipient_has_proven(
    net: Net, policy: Path, tmp_path: Path, autojump_clock: object, shows: str
) -> None:
    async with net.node(policy=policy) as careful:
        async with net.node([Bank], home=tmp_path / "server", publish=["bank"]) as server:
            address = server.address("bank")
            bank = careful.ref(address, Bank)
            if shows != "nothing":
                server.add_credential(careful.issue(server.identifier, team="payments"))
            if shows == "there":
                await bank.tell(Note("durable"), durable=True)
            elif shows == "met and gone":
                assert await bank.ask(Ping()) == 1
            elif shows == "published and gone":
                await trio.sleep(6)
            elif shows == "nothing":
                with pytest.raises(NotStored, match="was not sent"):
                    await bank.tell(Note("durable"), durable=True)
                return
        if shows == "never":
            with pytest.raises(NotStored, match=r"not proven: resource\.team"):
                await bank.tell(Note("durable"), durable=True)
            return
        if shows != "there":
            await bank.tell(Note("durable"), durable=True)
        async with net.node([Bank], home=tmp_path / "server"):
            await trio.sleep(5)
        assert NOTES == ["durable"]
        if shows == "met and gone":
            await trio.sleep(3700)
            with pytest.raises(NotStored, match=r"not proven: resource\.team"):
                await bank.tell(Note("expired by now"), durable=True)


@pytest.mark.usefixtures("at_once")
async def test_a_recipient_that_had_proven_nothing_is_asked_again_when_it_is_back(
    net: Net, policy: Path, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node(policy=policy, audit=tmp_path / "audit") as careful:
        async with net.node([Bank], home=tmp_path / "server") as server:
            bank = careful.ref(server.address("bank"), Bank)
            with pytest.raises(Denied):
                await bank.ask(Ping())
        with pytest.raises(NotStored, match="was not sent"):
            await bank.tell(Note("away"), durable=True)
        async with net.node([Bank], home=tmp_path / "server") as server:
            server.add_credential(careful.issue(server.identifier, team="payments"))
            await bank.tell(Note("back"), durable=True)
            await trio.sleep(1)
        assert NOTES == ["back"]
        assert (tmp_path / "audit").read_text().count("\n") == 3, "what was only looked at is not written down"


@attrs.frozen
class Live:
    """A session that stands between a node that judges and one whose credentials are looked at."""

    net: Net
    office: Node
    judge: Node
    other: Node
    anchors: Path
    policy: Path
    is_leaving: bool

    async def passes(self) -> bool:
        """Send the message that is judged."""
        source, to = (self.judge, self.other) if self.is_leaving else (self.other, self.judge)
        try:
            return await source.ref(to.address("bank"), Bank).ask(Ping()) == 1
        except Denied:
            return False

    def give(self, **attributes: str) -> str:
        text = self.office.issue(self.other.identifier, **attributes)
        self.other.add_credential(text)
        return text


@pytest.fixture(params=["arriving", "leaving"])
async def live(request: pytest.FixtureRequest, net: Net, policy: Path, tmp_path: Path) -> AsyncGenerator[Live]:
    async with open_live(net, policy, tmp_path, is_leaving=request.param == "leaving") as live:
        yield live


@asynccontextmanager
async def open_live(net: Net, policy: Path, tmp_path: Path, *, is_leaving: bool) -> AsyncGenerator[Live]:
    anchors = tmp_path / "anchors.toml"
    write(policy, TO_PAYMENTS if is_leaving else FROM_PAYMENTS)
    async with net.node() as office:
        write(anchors, f'[[anchor]]\nidentifier = "{office.identifier}"\nattributes = {{ team = "string" }}\n')
        agents = [Bank] if is_leaving else [_bank()]
        async with net.node(agents, policy=policy, anchors=anchors) as judge, net.node([Bank]) as other:
            yield Live(net, office, judge, other, anchors, policy, is_leaving)


def _bank() -> type:
    """Return a bank of which only policies say who may ask it."""

    @agent
    class Bank:
        @on(Ping)
        def ping(self, message: Ping) -> int:
            return 1

    return Bank


async def test_a_live_session_obeys_a_changed_policy_at_the_next_message(live: Live, autojump_clock: object) -> None:
    live.give(team="payments")
    assert await live.passes()
    usual, closed = (TO_PAYMENTS, TO_NOBODY) if live.is_leaving else (FROM_PAYMENTS, FROM_PAYMENTS + FROM_NOBODY)
    for text, expected in ((closed, False), (usual, True)):
        write(live.policy, text)
        live.judge.reload_policies()
        assert await live.passes() is expected
    assert live.net.packets(XX1) == 1


async def test_a_live_session_obeys_a_revocation_at_the_next_message(live: Live, autojump_clock: object) -> None:
    taken_back = read_presentation(from_text(live.give(team="payments"))).credential.id
    assert await live.passes()
    async with live.net.node([Bank]) as bob:
        signed = sign_list(live.office._vault, seq=1, credentials=[taken_back], least={}, now=virtual_now())
        subject = parse_identifier(bob.identifier)
        bob.add_credential(
            to_text(
                issue(
                    live.office._vault,
                    subject=subject,
                    attributes={"team": "payments"},
                    now=virtual_now(),
                    revocations=signed,
                )
            )
        )
        if live.is_leaving:
            await live.judge.ref(bob.address("bank"), Bank).ask(Ping())
        else:
            await bob.ref(live.judge.address("bank"), Bank).ask(Ping())
    sessions = live.net.packets(XX1)
    assert not await live.passes()
    assert live.net.packets(XX1) == sessions


async def test_a_live_session_obeys_a_changed_credential_at_the_next_message(
    live: Live, autojump_clock: object
) -> None:
    assert not await live.passes()
    live.give(team="payments")
    await live.other.flush()
    await trio.sleep(0.1)
    assert await live.passes()
    live.give(team="kitchen")
    await live.other.flush()
    await trio.sleep(0.1)
    assert not await live.passes()
    assert live.net.packets(XX1) == 1


async def test_a_live_session_obeys_the_end_of_a_credential_at_the_next_message(
    live: Live, autojump_clock: object
) -> None:
    live.other.add_credential(live.office.issue(live.other.identifier, validity=60, team="payments"))
    assert await live.passes()
    await trio.sleep(61)
    assert not await live.passes()
