"""Two ends of portals' streams over a channel that loses, doubles and reorders: bytes arrive whole, in order, once."""

from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autonomy_trio.wire.constants import BATCH_ENTRIES, LARGEST_NUMBER, MOST_PORTAL_WINDOW, PORTAL_WINDOW
from autonomy_trio.wire.entries import (
    PIECE_FRAMING_BYTES,
    Missing,
    Piece,
    Portal,
    Reset,
    decode_entries,
    encode_entries,
    entry_size,
)
from autonomy_trio.wire.lanes import (
    DROPPED_PAUSE,
    ENVELOPE_ROOM,
    FIRST_FLIGHT,
    LEAST_FLIGHT,
    MOST_FLIGHT,
    MOST_GROWN,
    MOST_WORDS,
    PIECE_BYTES,
    Lane,
)
from autonomy_trio.wire.portals import LEAST_PART, LEAST_PIECE, LINGER, RESEND_AFTER, PortalEnd

TICK = 0.1


def nothing() -> None:
    pass


@attrs.define
class Way:
    """Two lanes, and what is under way from each to the other."""

    near: Lane = attrs.field(factory=lambda: Lane(nothing, nothing))
    far: Lane = attrs.field(factory=lambda: Lane(nothing, nothing))
    now: float = 0.0
    under_way: list[tuple[Lane, Portal]] = attrs.field(factory=list[tuple[Lane, Portal]])

    def other(self, lane: Lane) -> Lane:
        return self.far if lane is self.near else self.near

    def leave(self, lane: Lane, room: int = ENVELOPE_ROOM, most: int = BATCH_ENTRIES) -> list[Portal]:
        entries = lane.take(room, most, self.now)
        assert len(entries) <= most
        assert sum(map(entry_size, entries)) <= room
        assert decode_entries(encode_entries(entries)) == entries
        return entries

    def pass_on(self) -> bool:
        """Carry all that may leave, in order; tell whether anything did."""
        moved = False
        for lane in (self.near, self.far):
            while lane.has_work and (entries := self.leave(lane)):
                moved = True
                for entry in entries:
                    self.other(lane).receive(entry, self.now)
        return moved

    def tick(self, seconds: float = TICK) -> None:
        self.now += seconds
        self.near.tick(self.now)
        self.far.tick(self.now)

    def settle(self, seconds: float = 10) -> None:
        """Let everything that is under way or due come to its end."""
        until = self.now + seconds
        while self.pass_on() or self.now < until:
            self.tick()

    def open(self, number: int = 1) -> tuple[PortalEnd, PortalEnd]:
        end, other = self.near.open(number), self.far.accept(number)
        assert other is not None
        return end, other


@pytest.fixture
def way() -> Way:
    return Way()


def take_all(end: PortalEnd) -> bytes:
    data = end.read()
    if data:
        end.take(len(data))
    if end.has_ended:
        end.take_end()
    return data


@attrs.define
class Direction:
    """What is written at one end, and what was read of it at the other."""

    writer: PortalEnd
    reader: PortalEnd
    written: bytearray = attrs.field(factory=bytearray)
    read: bytearray = attrs.field(factory=bytearray)
    is_finished: bool = False


class Streams(RuleBasedStateMachine):
    """Streams both ways over a channel that does what it likes, and in the end lets all pass."""

    def __init__(self) -> None:
        super().__init__()
        self.way = Way()
        self.directions: list[Direction] = []
        self.count = 0

    @precondition(lambda self: self.count < 4)
    @rule(swapped=st.booleans())
    def open(self, swapped: bool) -> None:
        lanes = (self.way.far, self.way.near) if swapped else (self.way.near, self.way.far)
        self.count += 1
        end, other = lanes[0].open(self.count), lanes[1].accept(self.count)
        assert other is not None
        self.directions += [Direction(end, other), Direction(other, end)]

    @precondition(lambda self: self.directions)
    @rule(data=st.data(), size=st.sampled_from([1, 10, 1000, LEAST_PIECE, 60_000, PIECE_BYTES, 150_000]))
    def write(self, data: st.DataObject, size: int) -> None:
        direction = data.draw(st.sampled_from(self.directions))
        if not direction.is_finished and direction.writer.room > 0:
            sent = bytes((len(direction.written) + number) % 251 for number in range(size))
            direction.written += sent
            direction.writer.write(sent)

    @precondition(lambda self: self.directions)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        direction = data.draw(st.sampled_from(self.directions))
        direction.is_finished = True
        direction.writer.finish()

    @precondition(lambda self: self.directions)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        direction = data.draw(st.sampled_from(self.directions))
        direction.read += take_all(direction.reader)

    @rule(from_far=st.booleans(), room=st.sampled_from([0, 100, 9_000, ENVELOPE_ROOM]), most=st.sampled_from([1, 256]))
    def leave(self, from_far: bool, room: int, most: int) -> None:
        lane = self.way.far if from_far else self.way.near
        self.way.under_way += [(self.way.other(lane), entry) for entry in self.way.leave(lane, room, most)]

    @precondition(lambda self: self.way.under_way)
    @rule(data=st.data(), kept=st.booleans())
    def arrive(self, data: st.DataObject, kept: bool) -> None:
        at = data.draw(st.integers(0, len(self.way.under_way) - 1))
        lane, entry = self.way.under_way[at]
        if not kept:
            del self.way.under_way[at]
        lane.receive(entry, self.way.now)

    @precondition(lambda self: self.way.under_way)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        del self.way.under_way[data.draw(st.integers(0, len(self.way.under_way) - 1))]

    @rule(seconds=st.sampled_from([TICK, RESEND_AFTER]))
    def tick(self, seconds: float) -> None:
        self.way.tick(seconds)

    @rule(pauses=st.booleans(), far=st.booleans())
    def hear_of_a_loss(self, pauses: bool, far: bool) -> None:
        lane = self.way.far if far else self.way.near
        lane.go_back(pause_until=self.way.now + DROPPED_PAUSE if pauses else None)

    @rule()
    def repeat(self) -> None:
        self.way.near.repeat()
        self.way.far.repeat()

    @invariant()
    def what_was_read_is_what_was_written(self) -> None:
        for direction in self.directions:
            assert direction.written.startswith(direction.read)
            assert direction.writer.lost is None

    @invariant()
    def windows_and_flights_hold(self) -> None:
        for lane in (self.way.near, self.way.far):
            assert lane.in_flight == sum(end.in_flight for end in lane.ends())
            assert LEAST_FLIGHT <= lane.flight <= MOST_FLIGHT
            assert lane.in_flight <= MOST_FLIGHT + PIECE_BYTES
            for end in lane.ends():
                assert sum(map(len, end._unread)) <= end.window <= MOST_PORTAL_WINDOW

    def teardown(self) -> None:
        """In a channel that is good again, everything arrives, and every stream ends, within bounded time."""
        self.way.under_way.clear()
        for direction in self.directions:
            direction.writer.finish()
        for _ in range(100):
            self.way.pass_on()
            for direction in self.directions:
                direction.read += take_all(direction.reader)
            self.way.tick()
        for direction in self.directions:
            assert direction.read == direction.written
            assert direction.writer.lost is None
            assert direction.writer.is_over
        for lane in (self.way.near, self.way.far):
            assert len(lane) == 0
            assert lane.in_flight == 0
            assert not lane.is_waiting


Streams.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestStreams = Streams.TestCase


def test_a_stream_goes_both_ways_and_is_over_when_both_ends_have_taken_all(way: Way) -> None:
    near, far = way.open()
    near.write(b"question")
    near.finish()
    way.pass_on()
    assert take_all(far) == b"question"
    far.write(b"answer")
    far.finish()
    way.pass_on()
    assert len(way.near) == len(way.far) == 1, "nobody has taken the answer"
    assert take_all(near) == b"answer"
    way.pass_on()
    assert near.is_over
    assert far.is_over
    assert len(way.near) == len(way.far) == 0


def test_half_a_close_leaves_the_other_direction_open(way: Way) -> None:
    near, far = way.open()
    near.finish()
    near.finish()
    way.pass_on()
    assert far.has_ended
    far.write(b"still here")
    way.pass_on()
    assert take_all(near) == b"still here"
    assert not near.has_ended


def test_a_reset_ends_the_other_end_with_an_error_and_what_was_not_read_is_lost(way: Way) -> None:
    near, far = way.open()
    near.write(b"half of it")
    way.pass_on()
    near.reset()
    near.reset()
    way.pass_on()
    assert far.lost == "it was reset at the other end"
    assert far.read() == b""
    far.write(b"to nobody")
    far.finish()
    far.take(1)
    far.take_end()
    assert not way.pass_on()
    assert far.is_settled


def test_a_stream_that_is_not_known_is_answered_with_a_reset(way: Way) -> None:
    near = way.near.open(7)
    near.write(b"hello?")
    way.pass_on()
    assert near.lost is not None
    way.far.receive(Reset(7, opened=True), 0.0)
    assert not way.far.has_work


def test_a_number_is_open_once_each_way(way: Way) -> None:
    near, far = way.open(3)
    assert way.far.accept(3) is None
    back = way.far.open(3)
    assert way.near.accept(3) is not None
    near.write(b"there")
    back.write(b"back")
    way.pass_on()
    assert far.read() == b"there"
    assert way.near.accepted[3].read() == b"back"


def test_a_stream_is_over_in_good_order_when_the_other_end_has_forgotten_it_first(way: Way) -> None:
    near, far = way.open()
    near.finish()
    far.finish()
    way.pass_on()
    take_all(near)
    take_all(far)
    way.near.take(ENVELOPE_ROOM, 256, 0.0)
    for entry in way.far.take(ENVELOPE_ROOM, 256, 0.0):
        way.near.receive(entry, 0.0)
    assert near.is_over
    way.near.take(ENVELOPE_ROOM, 256, 0.0)  # its last word is lost
    assert not far.is_over
    way.far.repeat()
    way.settle(1)
    assert far.is_over
    assert far.lost is None


def test_a_stalled_stream_holds_no_more_than_its_window_and_stalls_no_other(way: Way) -> None:
    stalled, unread = way.open(1)
    moving, read = way.open(2)
    received = 0
    for _ in range(100):
        for end in (stalled, moving):
            if end.room > 0:
                end.write(bytes(PIECE_BYTES))
        way.pass_on()
        received += len(take_all(read))
        way.tick()
    assert stalled.room <= 0
    assert len(unread.read()) == PORTAL_WINDOW
    assert received == 100 * PIECE_BYTES


def test_a_window_grows_while_its_reader_keeps_up_and_no_further_than_it_may(way: Way) -> None:
    ends = [way.open(number) for number in range(30)]
    for near, far in ends:
        for _ in range(40):
            near.write(bytes(PIECE_BYTES))
            way.pass_on()
            take_all(far)
    windows = [far.window for _, far in ends]
    assert max(windows) == MOST_PORTAL_WINDOW
    assert min(windows) < MOST_PORTAL_WINDOW
    assert sum(windows) - len(windows) * PORTAL_WINDOW <= MOST_GROWN
    for near, _ in ends:
        near.reset()
    way.pass_on()
    assert way.far._grown == 0


def test_what_arrives_lets_more_be_in_flight_and_a_loss_less(way: Way) -> None:
    near, far = way.open()
    for _ in range(20):
        near.write(bytes(PIECE_BYTES))
        way.pass_on()
        take_all(far)
    grown = way.near.flight
    assert FIRST_FLIGHT < grown < MOST_FLIGHT
    near.write(bytes(PIECE_BYTES))
    way.near.take(ENVELOPE_ROOM, 256, way.now)
    way.near.go_back()
    assert way.near.flight == grown // 2
    assert way.near.resent == 1
    way.near.go_back()
    assert way.near.flight == grown // 2, "nothing was in flight"


def test_no_more_leaves_than_may_be_in_flight(way: Way) -> None:
    ends = [way.open(number)[0] for number in range(10)]
    for end in ends:
        end.write(bytes(PORTAL_WINDOW))
    while way.near.has_work:
        way.near.take(ENVELOPE_ROOM, 256, 0.0)
    assert FIRST_FLIGHT <= way.near.in_flight < FIRST_FLIGHT + PIECE_BYTES
    assert sum(end.in_flight > 0 for end in ends) > FIRST_FLIGHT // PIECE_BYTES, "they take turns"


def test_what_a_relay_has_dropped_leaves_again_after_a_pause(way: Way) -> None:
    near, far = way.open()
    near.write(b"lost")
    way.near.take(ENVELOPE_ROOM, 256, 0.0)
    way.near.go_back(pause_until=DROPPED_PAUSE)
    way.near.go_back(pause_until=100.0)
    assert not way.near.has_work
    way.tick()
    assert not way.near.has_work
    way.tick(DROPPED_PAUSE)
    way.pass_on()
    assert far.read() == b"lost"


def test_bytes_behind_a_gap_have_the_missing_ones_sent_again_at_once(way: Way) -> None:
    near, far = way.open()
    near.write(b"one ")
    way.near.take(ENVELOPE_ROOM, 256, 0.0)  # lost
    near.write(b"two")
    way.settle(RESEND_AFTER / 2)
    assert far.read() == b"one two"
    assert way.near.resent == 1


def test_a_loss_that_nothing_shows_is_made_good_after_a_while(way: Way) -> None:
    near, far = way.open()
    near.write(b"lost")
    way.near.take(ENVELOPE_ROOM, 256, 0.0)
    way.settle(RESEND_AFTER / 2)
    assert far.read() == b""
    way.settle(RESEND_AFTER)
    assert far.read() == b"lost"
    near.write(b" and lost")
    for _ in range(20):
        way.near.take(ENVELOPE_ROOM, 256, way.now)
        way.tick()
    way.settle(10)
    assert far.read() == b" and lost"


def test_a_window_of_which_the_word_was_lost_is_asked_for(way: Way) -> None:
    near, far = way.open()
    near.write(bytes(PORTAL_WINDOW + 1))
    way.pass_on()
    take_all(far)
    way.far.take(ENVELOPE_ROOM, 256, 0.0)  # lost
    assert not way.near.has_work
    way.settle(2 * RESEND_AFTER)
    assert far.read() == b"\0"


def test_what_was_closed_still_arrives_and_its_reader_sees_the_end(way: Way) -> None:
    near, far = way.open()
    near.write(b"farewell")
    near.close(way.now)
    way.pass_on()
    assert take_all(far) == b"farewell"
    far.finish()
    way.settle(1)
    assert near.is_over
    assert far.is_over


def test_a_closed_end_is_reset_by_what_nobody_will_read_once_its_own_has_been_taken(way: Way) -> None:
    near, far = way.open()
    near.write(b"farewell")
    near.close(way.now)
    far.write(b"too late")
    way.pass_on()
    assert near.lost is None
    assert take_all(far) == b"farewell"
    way.settle(1)
    assert far.lost == "it was reset at the other end"


def test_a_closed_end_takes_what_nobody_reads_so_that_the_other_end_comes_to_its_own(way: Way) -> None:
    near, far = way.open()
    near.write(b"farewell")
    near.close(way.now)
    for _ in range(2 * PORTAL_WINDOW // PIECE_BYTES):
        assert far.room > 0
        far.write(bytes(PIECE_BYTES))
        way.settle(1)
    assert near.lost is None, "what it has written was not taken"
    assert take_all(far) == b"farewell"
    way.settle(1)
    assert far.lost == "it was reset at the other end"
    near.close(way.now)


def test_closing_discards_what_was_not_read(way: Way) -> None:
    near, far = way.open()
    far.write(b"unread")
    far.finish()
    way.pass_on()
    near.close(way.now)
    way.pass_on()
    take_all(far)
    way.settle(1)
    assert len(way.near) == len(way.far) == 0


def test_closing_at_the_end_takes_it(way: Way) -> None:
    near, far = way.open()
    far.finish()
    way.pass_on()
    near.close(way.now)
    way.pass_on()
    take_all(far)
    way.settle(1)
    assert near.is_over
    assert far.is_over


def test_a_closed_end_waits_only_so_long(way: Way) -> None:
    near, far = way.open()
    near.write(b"never read")
    near.close(way.now)
    way.settle(LINGER + 1)
    assert near.lost is not None
    assert far.lost is not None


def test_a_lane_that_is_lost_ends_all_its_streams_without_a_word(way: Way) -> None:
    near, _ = way.open()
    told: list[str] = []
    near.readable = lambda: told.append("read")
    near.writable = lambda: told.append("write")
    near.write(b"x")
    way.near.say(Reset(9, opened=True))
    way.near.lose_all("the node has gone")
    assert near.lost == "the node has gone"
    assert told == ["read", "write"]
    assert not way.near.has_work
    assert not near._unsent


def test_a_part_that_is_read_is_put_back(way: Way) -> None:
    near, far = way.open()
    near.write(b"abc")
    near.write(b"def")
    way.pass_on()
    data = far.read()
    far.unread(data[2:])
    assert far.read() == b"cdef"


def test_what_has_come_in_part_leaves_again_from_there(way: Way) -> None:
    near, far = way.open()
    near.write(b"abcdef")
    way.near.take(ENVELOPE_ROOM, 256, 0.0)
    way.far.receive(piece(payload=b"abc"), 0.0)
    way.pass_on()
    way.near.receive(piece(opened=False, through=3), 0.0)
    way.near.go_back()
    way.pass_on()
    assert far.read() == b"abcdef"


def test_a_byte_a_piece_takes_no_more_room_than_bytes_together(way: Way) -> None:
    near, far = way.open()
    for _ in range(3 * LEAST_PART):
        near.write(b"x")
    assert len(near._unsent) == 3
    for offset in range(3 * LEAST_PART):
        way.far.receive(piece(offset=offset, payload=b"y"), 0.0)
    assert len(far._unread) == 3
    assert far.read() == b"y" * 3 * LEAST_PART


def test_an_end_that_has_arrived_while_it_waits_to_leave_again_does_not_leave_again(way: Way) -> None:
    near, _ = way.open()
    near.write(b"abc")
    near.finish()
    assert len(way.leave(way.near)) == 1
    way.near.go_back()
    way.near.receive(piece(opened=False, through=4), 0.0)
    way.leave(way.near)
    assert near.in_flight == way.near.in_flight == 0


def test_who_names_wide_windows_on_all_its_streams_has_no_more_kept_than_grown_windows_may_take(way: Way) -> None:
    ends = [way.open(number)[0] for number in range(100)]
    for end in ends:
        way.near.receive(piece(number=end.number, opened=False, window=LARGEST_NUMBER - 1), 0.0)
    assert max(end.room for end in ends) == MOST_PORTAL_WINDOW
    assert min(end.room for end in ends) == PORTAL_WINDOW
    assert sum(end.room - PORTAL_WINDOW for end in ends) == MOST_GROWN
    ends[0].reset()
    way.near.receive(piece(number=99, opened=False, window=LARGEST_NUMBER), 0.0)
    assert ends[99].room == MOST_PORTAL_WINDOW


def test_an_end_that_is_lost_twice_was_lost_once(way: Way) -> None:
    near, _ = way.open(1)
    other, read = way.open(2)
    other.write(b"goes on")
    near.lose("the first reason")
    near.lose("the second")
    assert near.lost == "the first reason"
    way.pass_on()
    assert read.read() == b"goes on"


def test_words_that_wait_to_leave_are_bounded(way: Way) -> None:
    for number in range(MOST_WORDS + 10):
        way.near.say(Reset(number, opened=True))
    assert len(way.near.take(10 * 1024 * 1024, 10_000, 0.0)) == MOST_WORDS


def piece(**changes: object) -> Piece:
    fields: dict[str, Any] = {
        "number": 1,
        "opened": True,
        "offset": 0,
        "payload": b"",
        "is_last": False,
        "through": 0,
        "taken": 0,
        "window": PORTAL_WINDOW,
        "asks": False,
        "following": 0,
    }
    return Piece(**{**fields, **changes})


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([piece(through=1)], id="took what was not sent"),
        pytest.param([piece(taken=1)], id="took more than has come"),
        pytest.param([piece(offset=PORTAL_WINDOW, payload=b"x")], id="past the window"),
        pytest.param([piece(payload=b"abc", is_last=True), piece(offset=3, payload=b"d")], id="past its end"),
        pytest.param([piece(payload=b"abc", is_last=True), piece(payload=b"ab", is_last=True)], id="another end"),
    ],
)
def test_an_end_that_breaks_the_rules_is_reset(way: Way, pieces: list[Piece]) -> None:
    _, far = way.open()
    for each in pieces:
        way.far.receive(each, 0.0)
    assert far.lost is not None
    assert any(isinstance(entry, Reset) for entry in way.far.take(ENVELOPE_ROOM, 256, 0.0))


def test_a_piece_that_comes_twice_is_answered_and_counts_once(way: Way) -> None:
    _, far = way.open()
    way.far.receive(piece(payload=b"abc"), 0.0)
    way.far.receive(piece(payload=b"abcd", is_last=True), 0.0)
    way.far.receive(piece(payload=b"abc"), 0.0)
    (word,) = way.far.take(ENVELOPE_ROOM, 256, 0.0)
    assert isinstance(word, Piece)
    assert word.through == 5
    assert take_all(far) == b"abcd"


def test_a_word_of_something_missing_counts_where_it_is_so(way: Way) -> None:
    near, _ = way.open()
    near.write(b"abc")
    way.near.take(ENVELOPE_ROOM, 256, 0.0)
    way.near.receive(Missing(1, opened=False, through=2), 0.0)
    assert way.near.resent == 0
    way.near.receive(Missing(1, opened=False, through=0), 0.0)
    way.near.receive(Missing(1, opened=False, through=0), 0.0)
    assert way.near.resent == 1


def test_every_entry_of_a_portal_fits_what_is_counted_for_it() -> None:
    largest = LARGEST_NUMBER
    full = piece(number=largest, offset=largest, payload=bytes(PIECE_BYTES), through=largest, taken=largest)
    for entry in (full, Missing(largest, opened=True, through=largest), Reset(largest, opened=True)):
        assert len(encode_entries([entry])) - 1 <= entry_size(entry)
    assert entry_size(piece()) == PIECE_FRAMING_BYTES


def test_room_that_is_left_by_others_takes_small_parts_whole_and_large_ones_cut(way: Way) -> None:
    near, _ = way.open(1)
    other, _ = way.open(2)
    near.write(bytes(PIECE_BYTES))
    other.write(b"small")
    taken = way.leave(way.near, LEAST_PIECE // 2)
    assert taken == [], "a part would be too small to be worth it"
    (first,) = way.leave(way.near, LEAST_PIECE + PIECE_FRAMING_BYTES)
    assert isinstance(first, Piece)
    assert len(first.payload) == LEAST_PIECE


def test_a_lane_wakes_its_sender_when_something_can_leave_and_is_stirred_by_what_is_due_later() -> None:
    woken: list[str] = []
    lane = Lane(lambda: woken.append("wake"), lambda: woken.append("stir"))
    end = lane.open(1)
    end.write(b"x")
    assert woken == ["wake"]
    lane.take(ENVELOPE_ROOM, 256, 0.0)
    assert woken == ["wake", "stir"]
    assert lane.is_waiting
