"""Credit as pure logic: whatever is lost, late or repeated, it comes back, and no honest sender is refused."""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autonomy_trio.wire.constants import FLOW_BITS, MESSAGE_BYTES, MESSAGE_OVERHEAD, WINDOW_BYTES
from autonomy_trio.wire.credit import MOST_MISSING, Granting, Spending, message_cost
from autonomy_trio.wire.entries import Ask, Open, Tell, entry_size

costs = st.integers(MESSAGE_OVERHEAD + 48, MESSAGE_BYTES + MESSAGE_OVERHEAD)


def spending(first: int = 1) -> Spending:
    numbers = iter(range(first, first + 100))
    return Spending(lambda: next(numbers))


def test_the_three_kinds_of_message_cost_the_same_and_never_nothing() -> None:
    costs = {
        message_cost(Tell("a", "M", b"x", 0, 0)),
        message_cost(Ask(1, "a", "M", b"x", None, 0, 2**63 - 1)),
        message_cost(Open(1, "a", "M", b"x", 1, 7, 5)),
    }
    assert len(costs) == 1
    assert message_cost(Tell("", "", b"", 0, 0)) == WINDOW_BYTES // 1024


def test_what_the_sender_reserves_from_a_messages_size_is_what_both_sides_count() -> None:
    for entry in (
        Tell("agént", "Méssage", b"x" * 300, 0, 0),
        Ask(1, "a", "M", b"x", None, 0, 9),
        Open(1, "", "", b"", 1, 7, 5),
    ):
        assert message_cost(entry) == MESSAGE_OVERHEAD + entry_size(entry)


def test_a_sender_stops_at_the_window_and_goes_on_when_it_is_told() -> None:
    sender = spending()
    cost = WINDOW_BYTES // 4
    for _ in range(4):
        assert sender.has_room(cost)
        sender.reserve(cost)
    assert not sender.has_room(1)
    numbers = [sender.number(cost) for _ in range(4)]
    assert numbers == [(1 << FLOW_BITS) + each for each in (1, 2, 3, 4)]
    assert sender.accept(numbers[1], WINDOW_BYTES) == 2 * cost
    assert sender.has_room(2 * cost)
    assert not sender.has_room(2 * cost + 1)


def test_a_word_that_comes_again_or_late_or_from_nowhere_changes_nothing() -> None:
    sender = spending()
    sender.reserve(300)
    sender.reserve(300)
    first, second = sender.number(300), sender.number(300)
    assert sender.accept(second + 1, 0) == 0, "it was never sent"
    assert sender.accept(second, WINDOW_BYTES) == 600
    assert sender.accept(first, 0) == 0, "an older word"
    assert sender.window == WINDOW_BYTES
    assert sender.accept(second, 1000) == 0
    assert (sender.window, sender.under_way, sender.is_unaccepted) == (1000, 0, False)


def test_the_only_message_under_way_may_be_larger_than_the_window_unless_that_is_shut() -> None:
    sender = spending()
    sender.accept(sender.last, 1000)
    assert sender.has_room(MESSAGE_BYTES)
    sender.accept(sender.last, 0)
    assert not sender.has_room(300)


def test_what_waits_to_leave_counts_and_is_given_back_where_it_does_not() -> None:
    sender = spending()
    sender.reserve(WINDOW_BYTES)
    assert not sender.has_room(300)
    sender.release(WINDOW_BYTES)
    assert sender.has_room(300)


def test_a_flow_that_begins_anew_stands_above_those_before_it() -> None:
    sender, receiver = spending(), Granting()
    sender.reserve(300)
    before = sender.number(300)
    sender.reserve(400)
    assert sender.forget() == 300
    assert sender.under_way == 400, "what waits to leave still will"
    after = sender.number(400)
    assert after == (2 << FLOW_BITS) + 1
    assert sender.accept(before, 0) == 0, "the word is about the flow before"
    assert receiver.arrive(before) == 0
    assert receiver.arrive(after) == 0, "nothing of the new flow is missing"
    assert receiver.arrive(before + 1) is None


def test_after_four_thousand_million_messages_another_flow_begins() -> None:
    sender = spending()
    sender.last |= (1 << FLOW_BITS) - 1
    sender.reserve(300)
    assert sender.number(300) == (2 << FLOW_BITS) + 1


def test_a_gap_shows_how_many_are_missing_and_never_more_than_could_be_under_way() -> None:
    receiver = Granting()
    assert receiver.arrive(5) == 0, "nothing is known of what came before"
    assert receiver.arrive(6) == 0
    assert receiver.arrive(9) == 2
    assert receiver.arrive(8) is None
    assert receiver.arrive(9) is None
    assert receiver.arrive(2**62) <= MOST_MISSING  # type: ignore[operator] # pyright: ignore[reportOptionalOperand]
    assert receiver.arrive((2**31 - 2 << FLOW_BITS) + 4) == 3


def test_what_waits_for_room_keeps_credit_back_and_nothing_else_does() -> None:
    receiver = Granting()
    for number in (1, 2, 3):
        receiver.arrive(number)
    receiver.hold(2, 500)
    receiver.dispose(300)
    assert receiver.through == 1
    receiver.let_go(2)
    assert receiver.through == 3
    assert receiver.uncredited == 800


def test_a_sender_is_told_when_half_a_window_was_accepted() -> None:
    receiver = Granting()
    receiver.arrive(1)
    receiver.dispose(WINDOW_BYTES // 2 - 1)
    assert not receiver.is_due
    receiver.dispose(1)
    assert receiver.is_due
    assert receiver.tell() == 1
    assert not receiver.is_due


def test_a_sender_that_asks_is_told_at_once_and_again_when_half_the_window_is_free() -> None:
    receiver = Granting()
    cost = WINDOW_BYTES // 4
    for number in range(1, 5):
        receiver.arrive(number)
        receiver.hold(number, cost)
    assert receiver.asked(6) == 2, "two were sent and have not come"
    assert receiver.asked(6) == 0
    assert receiver.is_due
    assert receiver.tell() == 0
    assert not receiver.is_due, "nothing has changed since"
    receiver.let_go(1)
    assert not receiver.is_due
    receiver.let_go(2)
    assert receiver.is_due
    assert receiver.tell() == 2
    receiver.let_go(3)
    receiver.let_go(4)
    assert receiver.tell() == 6, "what was sent and has not come is lost, and costs nothing"


def test_more_than_a_window_never_waits_for_room() -> None:
    receiver = Granting()
    assert receiver.may_hold(WINDOW_BYTES + 1), "one alone may be larger"
    receiver.arrive(1)
    receiver.hold(1, 300)
    assert receiver.may_hold(WINDOW_BYTES - 300)
    assert not receiver.may_hold(WINDOW_BYTES - 299)


class Flow(RuleBasedStateMachine):
    """One flow over a network that loses, repeats and reorders whatever is said, both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = spending()
        self.receiver = Granting()
        self.queued: deque[int] = deque()
        self.packets: list[tuple[int, int]] = []
        self.words: list[tuple[int, int]] = []
        self.questions: list[int] = []
        self.taken: list[int] = []
        self.sent: list[int] = []

    def _tell(self) -> None:
        if self.receiver.is_due:
            self.words.append((self.receiver.tell(), WINDOW_BYTES))

    def _arrive(self, number: int, cost: int, full: bool) -> None:
        if self.receiver.arrive(number) is None:
            return
        self.taken.append(number)
        if full or self.receiver.held:
            assert self.receiver.may_hold(cost), "an honest sender was refused"
            self.receiver.hold(number, cost)
        else:
            self.receiver.dispose(cost)
        self._tell()

    @rule(cost=costs)
    def queue(self, cost: int) -> None:
        if self.sender.has_room(cost):
            self.sender.reserve(cost)
            self.queued.append(cost)

    @precondition(lambda self: self.queued)
    @rule()
    def withdraw(self) -> None:
        self.sender.release(self.queued.pop())

    @precondition(lambda self: self.queued)
    @rule()
    def leave(self) -> None:
        cost = self.queued.popleft()
        self.sent.append(self.sender.number(cost))
        self.packets.append((self.sent[-1], cost))

    @precondition(lambda self: self.packets)
    @rule(data=st.data(), full=st.booleans(), again=st.booleans())
    def carry(self, data: st.DataObject, full: bool, again: bool) -> None:
        which = data.draw(st.integers(0, len(self.packets) - 1))
        number, cost = self.packets[which] if again else self.packets.pop(which)
        self._arrive(number, cost, full)

    @precondition(lambda self: self.packets)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.packets.pop(data.draw(st.integers(0, len(self.packets) - 1)))

    @precondition(lambda self: self.receiver.held)
    @rule(data=st.data())
    def make_room(self, data: st.DataObject) -> None:
        self.receiver.let_go(data.draw(st.sampled_from(list(self.receiver.held))))
        self._tell()

    @rule()
    def ask(self) -> None:
        self.questions.append(self.sender.last)

    @precondition(lambda self: self.questions)
    @rule(data=st.data(), again=st.booleans())
    def carry_question(self, data: st.DataObject, again: bool) -> None:
        which = data.draw(st.integers(0, len(self.questions) - 1))
        self.receiver.asked(self.questions[which] if again else self.questions.pop(which))
        self._tell()

    @precondition(lambda self: self.words)
    @rule(data=st.data(), again=st.booleans())
    def carry_word(self, data: st.DataObject, again: bool) -> None:
        which = data.draw(st.integers(0, len(self.words) - 1))
        self.sender.accept(*(self.words[which] if again else self.words.pop(which)))

    @precondition(lambda self: self.words)
    @rule()
    def lose_words(self) -> None:
        self.words.clear()

    @precondition(lambda self: not self.queued)
    @rule()
    def restart(self) -> None:
        """The receiver's process is followed by another; what was under way to the first never arrives."""
        self.sender.forget()
        self.receiver = Granting()
        self.packets.clear()
        self.words.clear()
        self.questions.clear()

    @invariant()
    def no_more_is_under_way_than_the_window_has(self) -> None:
        assert 0 <= self.sender.under_way <= WINDOW_BYTES
        assert self.receiver.held_bytes == sum(self.receiver.held.values()) <= WINDOW_BYTES

    @invariant()
    def order_is_kept_and_nothing_is_taken_twice(self) -> None:
        assert self.taken == sorted(set(self.taken))

    @invariant()
    def what_waits_for_room_still_counts_at_its_sender(self) -> None:
        assert self.receiver.held_bytes <= self.sender.under_way

    def teardown(self) -> None:
        """With room in the mailbox, one question and its answer give all credit back."""
        while self.queued:
            self.withdraw()
        for number in list(self.receiver.held):
            self.receiver.let_go(number)
        self.receiver.asked(self.sender.last)
        assert self.receiver.is_due
        self.sender.accept(self.receiver.tell(), WINDOW_BYTES)
        assert (self.sender.under_way, self.sender.window) == (0, WINDOW_BYTES)


TestFlow = Flow.TestCase
TestFlow.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
