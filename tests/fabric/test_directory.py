"""The directory of a relay: one record a node, the newest, for as long as it holds, and bounded."""

import pytest

from autonomy_trio.fabric.relays import directory as directories
from autonomy_trio.fabric.relays.directory import Directory
from autonomy_trio.trust.identity import verify_bundle
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import RECORDS, RELAY_MESSAGE_BYTES
from autonomy_trio.wire.directory import ListedAgent, ListedMessage, Record, make_listing
from autonomy_trio.wire.frames import Lookup, Publish, Records, encode_frame

NOW = 1_800_000_000


def vault() -> Vault:
    made = Vault.in_memory()
    made.renew(NOW)
    return made


ALICE, BOB = vault(), vault()
EVE = b"e" * 32


class Clock:
    """Unix seconds that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(autojump_clock: object) -> Clock:
    return Clock()


@pytest.fixture
def directory(clock: Clock) -> Directory:
    return Directory(clock)


def record(by: Vault, *names: str, serial: int = 1, at: int = NOW, padding: int = 0) -> Publish:
    messages = (ListedMessage("Add", bytes(padding)),)
    agents = tuple(ListedAgent(name, "", messages) for name in names)
    return Publish(make_listing(by, Record(1, by.identifier, 0, serial, at, at + 600, (), agents), []))


def look(
    directory: Directory, node: bytes | None = None, agent: str | None = None, message: str | None = None
) -> list[Publish]:
    answer = directory.take(EVE, Lookup(7, node, agent, message))
    assert answer is not None
    assert answer.request == 7
    return [Publish(each) for each in answer.listings]


async def test_a_record_is_found_by_node_agent_and_message(directory: Directory) -> None:
    of_alice, of_bob = record(ALICE, "counter"), record(BOB, "clock", "counter")
    assert directory.take(ALICE.identifier, of_alice) is None
    directory.take(BOB.identifier, of_bob)
    assert look(directory) == [of_alice, of_bob]
    assert look(directory, node=BOB.identifier) == [of_bob]
    assert look(directory, agent="clock") == [of_bob]
    assert look(directory, agent="counter", message="Add") == [of_alice, of_bob]
    assert look(directory, message="Reset") == look(directory, agent="") == []


async def test_the_highest_serial_stays(directory: Directory) -> None:
    newer = record(ALICE, "new", serial=2)
    for each in (
        record(ALICE, "old", serial=1),
        newer,
        record(ALICE, "old", serial=1),
        record(ALICE, "same", serial=2),
    ):
        directory.take(ALICE.identifier, each)
    assert look(directory) == [newer]
    directory.take(ALICE.identifier, record(ALICE, serial=3))
    assert len(directory) == 0


async def test_nobody_lists_another_node_or_what_does_not_hold(directory: Directory, clock: Clock) -> None:
    directory.take(BOB.identifier, record(ALICE, "counter"))
    forged = record(ALICE, "counter").listing
    body = forged.record.body.replace(b"counter", b"co-nter")
    directory.take(
        ALICE.identifier, Publish(type(forged)(forged.bundle, type(forged.record)(body, forged.record.signature), ()))
    )
    clock.now = NOW + 600
    directory.take(ALICE.identifier, record(ALICE, "counter"))
    directory.take(ALICE.identifier, record(ALICE, "counter", at=NOW + 700))
    assert look(directory) == []


async def test_a_record_ends_when_it_says(directory: Directory, clock: Clock) -> None:
    directory.take(ALICE.identifier, record(ALICE, "counter"))
    clock.now = NOW + 599
    assert len(look(directory)) == 1
    clock.now = NOW + 600
    assert look(directory) == []


async def test_a_full_directory_takes_no_more_until_something_has_expired(
    directory: Directory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directories, "MOST_LISTED", 1)
    directory.take(ALICE.identifier, record(ALICE, "counter"))
    directory.take(BOB.identifier, record(BOB, "counter"))
    assert len(look(directory, node=ALICE.identifier)) == 1
    assert look(directory, node=BOB.identifier) == []
    directory.take(ALICE.identifier, record(ALICE, "other", serial=2))
    assert len(look(directory, agent="other")) == 1
    clock.now = NOW + 600
    directory.take(BOB.identifier, record(BOB, "counter", at=NOW + 600))
    assert len(look(directory, node=BOB.identifier)) == 1


async def test_its_bytes_are_bounded(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "MOST_BYTES", 30_000)
    for by in (ALICE, BOB):
        directory.take(by.identifier, record(by, "counter", padding=20_000))
        directory.take(by.identifier, record(by, "counter", padding=20_000, serial=2))
    assert [each.listing.record for each in look(directory)] == [
        record(ALICE, "counter", padding=20_000, serial=2).listing.record
    ]


async def test_an_answer_fits_a_message_and_says_when_there_is_more(directory: Directory) -> None:
    for padding in (0, 20_000):
        for by in (vault() for _ in range(RECORDS + 1)):
            directory.take(by.identifier, record(by, f"counter{padding}", padding=padding))
        answer = directory.take(EVE, Lookup(1, None, f"counter{padding}", None))
        assert answer is not None
        assert answer.more
        assert 1 < len(answer.listings) <= RECORDS
        assert len(encode_frame(answer)) < RELAY_MESSAGE_BYTES


async def test_who_asks_too_often_is_told_nothing_and_others_are(directory: Directory) -> None:
    directory.take(ALICE.identifier, record(ALICE, "counter"))
    answers = [directory.take(EVE, Lookup(number, None, None, None)) for number in range(40)]
    assert answers[:32] == [Records(number, (record(ALICE, "counter").listing,), more=False) for number in range(32)]
    assert answers[32:] == [Records(number, (), more=True) for number in range(32, 40)]
    assert directory.take(BOB.identifier, Lookup(1, None, None, None)) == Records(
        1, (record(ALICE, "counter").listing,), more=False
    )
    for serial in range(2, 20):
        directory.take(ALICE.identifier, record(ALICE, f"counter{serial}", serial=serial))
    answer = directory.take(BOB.identifier, Lookup(1, None, "counter8", None))
    assert answer is not None
    assert len(answer.listings) == 1


async def test_requests_are_counted_of_so_many_nodes(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "MOST_COUNTED", 1)
    assert directory.take(EVE, Lookup(1, None, None, None)) == Records(1, (), more=False)
    assert directory.take(BOB.identifier, Lookup(1, None, None, None)) == Records(1, (), more=True)


def bundle_of(directory: Directory, node: bytes | None) -> bytes | None:
    answer = directory.take(EVE, Lookup(1, node, None, None))
    assert answer is not None
    return answer.bundle


async def test_the_bundle_of_a_registered_node_is_told_to_who_asks_for_it_by_its_identifier(
    directory: Directory, clock: Clock
) -> None:
    shown = verify_bundle(ALICE.bundle(NOW), NOW)
    directory.note(shown)
    assert bundle_of(directory, ALICE.identifier) == shown.encoded
    assert bundle_of(directory, BOB.identifier) is None
    assert bundle_of(directory, None) is None
    clock.now = shown.expires
    assert bundle_of(directory, ALICE.identifier) is None


async def test_the_bundles_that_are_kept_are_bounded_and_the_one_of_longest_ago_gives_way(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob, carol = (verify_bundle(each.bundle(NOW), NOW) for each in (ALICE, BOB, vault()))
    for bound, most in (("MOST_BUNDLES", 2), ("MOST_BUNDLE_BYTES", 2 * len(alice.encoded) + 10)):
        with monkeypatch.context() as patch:
            patch.setattr(directories, bound, most)
            for each in (alice, bob, alice, carol):
                directory.note(each)
            kept = [bundle_of(directory, each.identifier) is not None for each in (alice, bob, carol)]
            assert kept == [True, False, True]
