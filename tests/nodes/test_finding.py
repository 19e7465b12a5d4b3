"""Finding agents in directories: nothing is there unasked, names prove nothing, and relays can only hide."""

from pathlib import Path
from typing import Any

import pytest
import trio

from autonomy_trio import Node
from autonomy_trio.errors import Denied, RelayUnreachable, UsageError
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.anchors import Anchor, to_toml
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.directory import Record, make_listing
from autonomy_trio.wire.frames import Publish, Records, decode_frame, encode_frame, join_frames, split_frames
from tests.support.net import Add, Counter, Hold, Net, Reset, Total

HOUR = 3600.0


@pytest.fixture
def anchors(tmp_path: Path) -> Path:
    return tmp_path / "anchors.toml"


def trust(authority: Node, file: Path) -> None:
    file.write_text(to_toml(Anchor(parse_identifier(authority.identifier), {"team": "string", "roles": "set"})))


def anchors_of(authority: Node, file: Path) -> Path:
    trust(authority, file)
    return file


async def published(node: Node) -> None:
    """Return when what a node publishes has reached the relay."""
    await trio.sleep(6)
    assert node.relays


async def test_an_agent_is_found_by_its_message_and_what_its_node_proves_and_can_be_asked(
    net: Net, anchors: Path, autojump_clock: object
) -> None:
    async with (
        net.node() as authority,
        net.node([Counter], anchors=anchors_of(authority, anchors), publish=["counter"]) as server,
        net.node(anchors=anchors) as alice,
    ):
        server.add_credential(authority.issue(server.identifier, team="servers", roles=frozenset({"a", "b"})))
        alice.add_credential(authority.issue(alice.identifier, team="payments"))
        await published(server)
        (found,) = await alice.find(name="counter", message=Add, team="servers", roles="b")
        assert (found.address, found.name) == (server.address("counter"), "counter")
        assert "Add" in found.messages
        assert found.attributes == {"team": "servers", "roles": frozenset({"a", "b"})}
        assert await alice.ref(found.address, Counter).ask(Add(1)) == Total(1)


async def test_only_what_others_can_send_is_told_and_only_what_fits_is_found(
    net: Net, anchors: Path, autojump_clock: object
) -> None:
    async with net.node() as authority:
        trust(authority, anchors)
        async with (
            net.node([Counter], publish=["counter", "missing"]) as server,
            net.node(anchors=anchors) as alice,
        ):
            server.add_credential(authority.issue(server.identifier, team="servers"))
            await published(server)
            (found,) = await alice.find(anyone=True)
            # Other tests may have made subclasses of these; what no policy lets pass stays inside.
            assert set(found.messages) >= {"Add", "Hold", "Fail", "Note", "Notes"}
            assert not {"Reset", "Secret"} & set(found.messages)
            assert await alice.find(message=Reset, anyone=True) == []
            assert len(await alice.find(message="Hold", anyone=True)) == 1
            assert len(await alice.find(message=Hold, team="servers")) == 1
            wrong: list[dict[str, Any]] = [{"team": "payments"}, {"level": 1}, {"team": True}]
            for wanted in wrong:
                assert await alice.find(**wanted) == []
            assert await alice.find(name="missing", anyone=True) == []


async def test_an_attribute_counts_by_the_finders_own_anchors_alone(net: Net, autojump_clock: object) -> None:
    async with net.node([Counter], publish=["counter"]) as server, net.node() as alice:
        server.add_credential(server.issue(server.identifier, team="payments"))
        await published(server)
        assert await alice.find(name="counter", team="payments") == []
        (found,) = await alice.find(name="counter", anyone=True)
        assert found.attributes == {}
        with pytest.raises(Denied):
            await alice.ref(found.address, Counter).ask(Add(1))


async def test_nothing_is_published_unasked(net: Net, autojump_clock: object) -> None:
    async with net.node([Counter]) as server, net.node() as alice:
        await published(server)
        assert await alice.find(anyone=True) == []
        assert not any(isinstance(decode_frame(frame), Publish) for sent in net.sent for frame in split_frames(sent))


async def test_what_is_asked_for_must_be_said_and_can_be_asked_somewhere(net: Net, autojump_clock: object) -> None:
    async with net.node() as alice, net.node(relay=()) as alone:
        unsaid: list[dict[str, Any]] = [{"name": "counter"}, {"message": Add}, {}]
        for wrong in unsaid:
            with pytest.raises(UsageError, match="anyone can take any name"):
                await alice.find(**wrong)
        with pytest.raises(UsageError, match="is no name"):
            await alice.find(name="x" * 1000, anyone=True)
        with pytest.raises(RelayUnreachable, match="no relay is there"):
            await alone.find(anyone=True)
        net.loses = lambda _: True
        with pytest.raises(RelayUnreachable, match="no relay has answered in 5 s"):
            await alice.find(anyone=True)
    with pytest.raises(UsageError, match="names 65 agents"):
        async with net.node(publish=[str(number) for number in range(65)]):
            raise AssertionError


async def test_a_record_is_renewed_while_its_node_runs_and_ends_after_it(net: Net, autojump_clock: object) -> None:
    async with net.node() as alice:
        async with net.node([Counter], publish=["counter"]) as server:
            await trio.sleep(1.5 * HOUR)
            assert len(await alice.find(anyone=True)) == 1
            net.start_relay()
            await trio.sleep(30)
            assert len(await alice.find(anyone=True)) == 1, "a relay that forgot is told again"
            server.ref("counter").stop()
            await published(server)
            assert await alice.find(anyone=True) == [], "what has ended is not found"
        async with net.node([Counter], publish=["counter"]) as server:
            await published(server)
        await trio.sleep(HOUR)
        assert await alice.find(anyone=True) == []


async def test_a_new_credential_is_published_soon(net: Net, anchors: Path, autojump_clock: object) -> None:
    async with net.node() as authority:
        trust(authority, anchors)
        async with net.node([Counter], publish=["counter"]) as server, net.node(anchors=anchors) as alice:
            await published(server)
            assert await alice.find(team="servers") == []
            server.add_credential(authority.issue(server.identifier, team="servers"))
            await published(server)
            assert len(await alice.find(team="servers")) == 1


async def test_a_relay_cannot_change_a_record_or_bring_an_older_one_back(net: Net, autojump_clock: object) -> None:
    vault = Vault.in_memory()
    vault.renew(virtual_now())

    def records(serial: int, request: int, *, forged: bool = False) -> Records:
        now = int(virtual_now())
        record = Record(1, vault.identifier, 0, serial, now, now + 60, (), ())
        listing = make_listing(vault, record, [])
        if forged:
            signature = bytes(64)
            listing = type(listing)(listing.bundle, type(listing.record)(listing.record.body, signature), ())
        return Records(request, (listing,), more=False)

    async with net.node() as alice:
        finding = alice._finding
        assert finding._verified(records(1, 1, forged=True).listings[0]) is None
        assert finding._verified(records(2, 1).listings[0]) is not None
        assert finding._verified(records(2, 1).listings[0]) is not None
        assert finding._verified(records(1, 1).listings[0]) is None
        (attachment,) = alice._attachments.attached()
        finding.take(attachment, records(3, 99))  # an answer that nobody asked for
        assert decode_frame(encode_frame(records(3, 99)))
        assert join_frames([]) == b""
