import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import IdentityError, VaultError
from autonomy_trio.trust.identity import Change, History, derive_seed, make_history, verify_history
from autonomy_trio.trust.records import SigningKey, digest, sign_record
from autonomy_trio.trust.watcher import REPORTS_LIMIT, Duplicity, Mark, Watcher, WatcherStatistics

RECOVERY = bytes(range(32))
OWN = [make_history(RECOVERY, seq) for seq in range(5)]
IDENTIFIER = OWN[0].identifier
NOW = 1_800_000_000.0


def forked(seq: int, then: bytes = b"t") -> History:
    """What a thief of the key of one sequence makes: a change in place of the last, which promises a key of his own."""
    genuine = OWN[seq]
    thief = SigningKey(then * 32)
    previous = digest("h-prev", genuine.changes[-2].body)
    change = Change(1, seq, previous, genuine.key, digest("h-next", thief.public))
    signed = sign_record(SigningKey(derive_seed(RECOVERY, seq)), "change", change)
    return verify_history([*genuine.changes[:-1], signed])


def continued(history: History, then: bytes = b"t") -> History:
    """What the thief makes of that: one more change, which promises his own key again."""
    key = SigningKey(then * 32)
    previous = digest("h-prev", history.changes[-1].body)
    change = sign_record(key, "change", Change(1, history.seq + 1, previous, key.public, digest("h-next", key.public)))
    return verify_history([*history.changes, change])


def anchored(remembered: list[Mark] | None = None, marks: tuple[Mark, ...] = ()) -> Watcher:
    return Watcher([IDENTIFIER], marks, remember=([] if remembered is None else remembered).append)


def test_a_history_may_stay_as_it_is_and_grow() -> None:
    watcher = Watcher()
    assert watcher.get(IDENTIFIER) is None
    for seq in (0, 0, 1, 3, 3, 4):
        watcher.see(OWN[seq])
        assert watcher.get(IDENTIFIER) == Mark(IDENTIFIER, seq, OWN[seq].changes[-1])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_a_history_never_goes_back(shown: list[int]) -> None:
    watcher = Watcher()
    highest = 0
    for seq in shown:
        if seq >= highest:
            watcher.see(OWN[seq])
        else:
            with pytest.raises(IdentityError, match=f"goes back to sequence {seq}, and {highest} was seen before"):
                watcher.see(OWN[seq])
        highest = max(highest, seq)


def test_an_issuers_history_may_be_one_of_before_and_what_was_seen_stays() -> None:
    watcher = anchored()
    for seq in (0, 3, 1, 2):
        watcher.see_issuer(OWN[seq], NOW)
    assert watcher.get(IDENTIFIER).seq == 3
    with pytest.raises(IdentityError, match="two changes of sequence 3"):
        watcher.see_issuer(forked(3), NOW)
    for seq in (1, 3):
        with pytest.raises(IdentityError, match="counts for nothing"):
            watcher.see_issuer(OWN[seq], NOW)


def long_thief(changes: int) -> History:
    """A history of a thief of key 1, who goes on with keys of his own."""
    history = forked(1)
    while len(history.changes) < changes:
        history = continued(history)
    return history


@pytest.mark.parametrize("changes", [2, 3, 4, 5])
@pytest.mark.parametrize("restarted", [False, True])
def test_an_issuers_history_that_parts_anywhere_is_refused_also_after_a_restart(changes: int, restarted: bool) -> None:
    """A thief of key 1 goes on from it on its own, while its owner has gone further: no part of that is believed."""
    remembered = []
    watcher = anchored(remembered)
    watcher.see_issuer(OWN[3], NOW)
    if restarted:
        watcher = anchored(remembered, (remembered[-1],))
    with pytest.raises(IdentityError, match="two changes of sequence 1: the one seen first stays"):
        watcher.see_issuer(long_thief(changes), NOW)
    thiefs = long_thief(changes).changes
    assert watcher.take_duplicities() == [Duplicity(IDENTIFIER, 1, None, thiefs[1])]
    assert (remembered[-1].is_doubted, remembered[-1].refused, remembered[-1].seq) == (True, thiefs[1], 3)
    forgiven = anchored(marks=(msgspec.structs.replace(remembered[-1], is_forgiven=True),))
    for length in (2, 3, 5):
        with pytest.raises(IdentityError, match="was refused before"):
            forgiven.see_issuer(long_thief(length), NOW)
    forgiven.see_issuer(OWN[2], NOW)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=8))
def test_an_issuer_may_be_seen_by_handshakes_and_credentials_in_any_order_and_restarts(
    shown: list[tuple[int, bool]],
) -> None:
    remembered = []
    watcher = anchored(remembered)
    highest = 0
    for seq, is_restarted in shown:
        if seq >= highest:
            watcher.see(OWN[seq])
        highest = max(highest, seq)
        assert len(watcher.see_issuer(OWN[seq], NOW)) == highest
        if is_restarted:
            watcher = anchored(remembered, tuple(remembered[-1:]))
        mark = watcher.get(IDENTIFIER)
        assert mark.is_whole
        assert (mark.seq, mark.change, len(mark.superseded)) == (highest, OWN[highest].changes[-1], highest)
    assert watcher.statistics().duplicities == 0


def test_when_a_key_was_first_seen_to_be_past_outlives_a_restart() -> None:
    remembered = []
    watcher = anchored(remembered)
    watcher.see(OWN[1])
    assert watcher.see_issuer(OWN[1], NOW) == (NOW,)
    assert watcher.see_issuer(OWN[3], NOW + 10) == (NOW, NOW + 10, NOW + 10)
    again = anchored(marks=tuple(remembered[-1:]))
    for history in (OWN[0], OWN[3]):
        assert again.see_issuer(history, NOW + 20) == (NOW, NOW + 10, NOW + 10)


def test_a_mark_of_the_longest_history_is_small_enough_for_a_vault_to_keep_all() -> None:
    remembered = []
    longest = make_history(RECOVERY, 63)
    anchored(remembered).see_issuer(longest, NOW)
    (mark,) = remembered
    assert len(mark.earlier) == 2016
    assert len(msgspec.msgpack.encode(mark)) < 2800


def test_an_issuer_of_whom_only_the_last_change_was_seen_shows_a_history_as_long() -> None:
    watcher = Watcher()
    watcher.see(OWN[2])
    watcher.set_anchors([IDENTIFIER])
    with pytest.raises(IdentityError, match="ends at sequence 1, and of it only 2 was seen before: show the longer"):
        watcher.see_issuer(OWN[1], NOW)
    watcher.see_issuer(OWN[2], NOW)
    watcher.see_issuer(OWN[1], NOW)


def test_of_two_changes_with_one_predecessor_the_first_seen_stays_and_both_are_kept_and_reported() -> None:
    for first, second in ((OWN[2], forked(2)), (forked(2), OWN[2])):
        watcher = Watcher()
        watcher.see(first)
        with pytest.raises(IdentityError, match="two changes of sequence 2: the one seen first stays"):
            watcher.see(second)
        watcher.see(first)
        assert watcher.take_duplicities() == [Duplicity(IDENTIFIER, 2, first.changes[2], second.changes[2])]
        assert watcher.take_duplicities() == []
        assert watcher.get(IDENTIFIER) == Mark(IDENTIFIER, 2, first.changes[2], second.changes[2])
        assert watcher.statistics().duplicities == watcher.generation == 1


def test_a_fork_from_before_what_was_seen_is_found_by_the_change_that_stands_on_it() -> None:
    watcher = Watcher()
    watcher.see(OWN[2])
    fork = continued(forked(1))
    with pytest.raises(IdentityError, match="two changes of sequence 2"):
        watcher.see(fork)
    (found,) = watcher.take_duplicities()
    assert (found.kept, found.refused) == (OWN[2].changes[2], fork.changes[2])


def test_who_has_two_histories_goes_on_with_the_one_seen_first() -> None:
    watcher = Watcher()
    watcher.see(OWN[1])
    with pytest.raises(IdentityError):
        watcher.see(forked(1))
    watcher.see(OWN[3])
    for stale in (forked(1), continued(forked(1))):
        with pytest.raises(IdentityError, match="goes back"):
            watcher.see(stale)
        with pytest.raises(IdentityError, match="has a change that was refused before"):
            watcher.see_issuer(stale, NOW)
    with pytest.raises(IdentityError, match="has a change that was refused before"):
        watcher.see(continued(continued(forked(1))))
    assert watcher.get(IDENTIFIER).seq == 3


def test_a_change_refused_once_is_refused_and_not_reported_again() -> None:
    watcher = Watcher()
    watcher.see(OWN[1])
    for _ in range(3):
        with pytest.raises(IdentityError):
            watcher.see(forked(1))
    assert len(watcher.take_duplicities()) == 1


def test_an_anchor_with_two_histories_counts_for_nothing() -> None:
    remembered = []
    watcher = anchored(remembered)
    watcher.see(OWN[1])
    watcher.check(IDENTIFIER)
    with pytest.raises(IdentityError, match="two changes of sequence 1"):
        watcher.see(forked(1))
    for use in (lambda: watcher.see(OWN[1]), lambda: watcher.see(OWN[2]), lambda: watcher.check(IDENTIFIER)):
        with pytest.raises(IdentityError, match=f"counts for nothing: .* run `identity forgive I{IDENTIFIER.hex()}`"):
            use()
    last = remembered[-1]
    assert (last.seq, last.change, last.refused) == (2, OWN[2].changes[2], forked(1).changes[1])


def test_an_anchors_duplicity_outlives_a_restart_until_it_is_forgiven() -> None:
    remembered = []
    watcher = anchored(remembered)
    watcher.see(OWN[1])
    with pytest.raises(IdentityError):
        watcher.see(forked(1))
    again = anchored(marks=(remembered[-1],))
    with pytest.raises(IdentityError, match="counts for nothing"):
        again.see(OWN[1])
    forgiven = anchored(marks=(msgspec.structs.replace(remembered[-1], is_forgiven=True),))
    forgiven.see(OWN[1])
    with pytest.raises(IdentityError, match="was refused before"):
        forgiven.see(forked(1))
    forgiven.see(OWN[2])
    assert forgiven.get(IDENTIFIER).is_forgiven


def test_a_third_change_after_forgiveness_is_held_against_an_anchor_again() -> None:
    watcher = anchored(marks=(Mark(IDENTIFIER, 1, OWN[1].changes[1], forked(1).changes[1], is_forgiven=True),))
    with pytest.raises(IdentityError, match="two changes"):
        watcher.see(forked(1, b"u"))
    with pytest.raises(IdentityError, match="counts for nothing"):
        watcher.see(OWN[1])


def test_an_anchor_does_not_go_back_after_a_restart() -> None:
    remembered = []
    anchored(remembered).see(OWN[3])
    with pytest.raises(IdentityError, match="goes back"):
        anchored(marks=tuple(remembered)).see(OWN[2])


def test_only_anchors_are_written_down_and_only_when_something_is_new() -> None:
    remembered = []
    watcher = anchored(remembered)
    stranger = make_history(bytes(32))
    for history in (stranger, OWN[0], OWN[0], OWN[1], OWN[1]):
        watcher.see(history)
    watcher.keep(stranger.identifier)
    assert [mark.seq for mark in remembered] == [0, 1]


def test_what_the_disk_refuses_counts_until_the_end_of_the_run() -> None:
    def refuse(_: Mark) -> None:
        raise VaultError("no space")

    watcher = Watcher([IDENTIFIER], remember=refuse)
    with pytest.raises(VaultError):
        watcher.see(OWN[2])
    with pytest.raises(IdentityError, match="goes back"):
        watcher.see(OWN[1])


def strangers(count: int) -> list[History]:
    return [make_history(bytes([number + 1]) * 32) for number in range(count)]


def test_of_strangers_the_least_recently_seen_is_forgotten_and_of_others_none() -> None:
    watcher = Watcher([IDENTIFIER], limit=3)
    one, two, three, four, five = strangers(5)
    watcher.keep(five.identifier)
    for history in (five, OWN[0], one, two, three, one, four):
        watcher.see(history)
    known = [watcher.get(history.identifier) is not None for history in (one, two, three, four, five, OWN[0])]
    assert known == [True, False, True, True, True, True]
    assert watcher.statistics() == WatcherStatistics(anchors=1, kept=1, passing=3, duplicities=0)


def test_who_is_kept_later_is_not_forgotten_any_more() -> None:
    watcher = Watcher(limit=1)
    one, two, three = strangers(3)
    watcher.see(one)
    watcher.keep(one.identifier)
    watcher.see(two)
    watcher.see(three)
    assert watcher.get(one.identifier) is not None
    assert watcher.get(two.identifier) is None
    assert watcher.statistics() == WatcherStatistics(anchors=0, kept=1, passing=1, duplicities=0)


def test_a_new_anchor_is_judged_by_what_was_seen_of_it_before() -> None:
    remembered = []
    watcher = Watcher(remember=remembered.append)
    watcher.see(OWN[1])
    with pytest.raises(IdentityError):
        watcher.see(forked(1))
    watcher.see(OWN[1])
    watcher.set_anchors([IDENTIFIER, bytes(32)])
    with pytest.raises(IdentityError, match="counts for nothing"):
        watcher.check(IDENTIFIER)
    assert [mark.is_doubted for mark in remembered] == [True]
    watcher.set_anchors([IDENTIFIER])
    assert len(remembered) == 1
    watcher.set_anchors([])
    watcher.see(OWN[1])
    watcher.see(OWN[2])
    assert watcher.get(IDENTIFIER).seq == 2
    assert len(remembered) == 1


def test_of_an_identity_with_many_second_changes_one_is_reported_and_written_down_until_it_is_forgiven() -> None:
    """Whoever has an older key makes as many as it likes, and each would cost the disk a write and the log a line."""
    remembered = []
    watcher = anchored(remembered)
    watcher.see_issuer(OWN[1], NOW)
    for number in range(10):
        with pytest.raises(IdentityError, match="two changes"):
            watcher.see_issuer(forked(1, bytes([number + 1])), NOW)
    (reported,) = watcher.take_duplicities()
    assert reported.refused == forked(1, b"\x01").changes[1]
    assert (len(remembered), watcher.generation) == (2, 1)


def test_reports_are_bounded_and_the_latest_stay() -> None:
    watcher = Watcher()
    for number in range(REPORTS_LIMIT + 10):
        first, second = (make_history(bytes([number + 1]) * 32, seq) for seq in (0, 1))
        seed = derive_seed(bytes([number + 1]) * 32, 1)
        change = Change(1, 1, digest("h-prev", first.changes[0].body), SigningKey(seed).public, bytes(32))
        fork = verify_history([first.changes[0], sign_record(SigningKey(seed), "change", change)])
        watcher.see(second)
        with pytest.raises(IdentityError, match="two changes"):
            watcher.see(fork)
    reports = watcher.take_duplicities()
    assert len(reports) == REPORTS_LIMIT
    assert reports[-1].refused == fork.changes[1]
