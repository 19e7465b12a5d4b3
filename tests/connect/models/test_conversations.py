"""What a model agent remembers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.connect.models import ModelFailed, Said, ToolCall
from autonomy_trio.connect.models.conversations import LEFT_OUT, Conversation, Conversations, size_of

EXCHANGES = st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=8)


def exchange(steps: list[int], text: str = "x") -> list[Said]:
    """What a user says, tools that are called so many at a time, and an answer."""
    said = [Said("user", text)]
    for number, count in enumerate(steps):
        calls = tuple(ToolCall(f"{number}.{index}", "look", "{}") for index in range(count))
        said.append(Said("assistant", "", calls))
        said += [Said("tool", "found", (), call.id) for call in calls]
    return [*said, Said("assistant", "done")]


@given(EXCHANGES, st.integers(0, 30), st.integers(0, 300))
def test_it_stays_within_its_bounds_and_no_call_is_left_without_its_answer(
    exchanges: list[list[int]], most_entries: int, most_bytes: int
) -> None:
    conversation = Conversation(most_entries, most_bytes)
    for steps in exchanges:
        conversation.add(exchange(steps))
        kept = [each for part in conversation.exchanges for each in part]
        assert len(kept) <= most_entries
        assert sum(map(size_of, kept)) <= most_bytes
        assert not kept or kept[0].role == "user"
        assert not kept or kept[-1] == Said("assistant", "done")


def test_more_than_is_remembered_at_once_is_refused_and_changes_nothing() -> None:
    conversation = Conversation(10, 100)
    conversation.add(exchange([]))
    before = conversation.said_with([])
    with pytest.raises(ModelFailed, match="say less") as caught:
        conversation.said_with([Said("user", "x" * 101)])
    assert caught.value.kind == "too long"
    assert conversation.said_with([]) == before


def test_answers_of_tools_that_are_too_much_are_left_out_and_nothing_else_is_forgotten() -> None:
    conversation = Conversation(10, 3000)
    conversation.add(exchange([]))
    before = conversation.said_with([])
    calls = ToolCall("1", "read", "{}"), ToolCall("2", "read", "{}")
    asked = [Said("user", "read"), Said("assistant", "", calls)]
    conversation.add([*asked, Said("tool", "x" * 3000, (), "1"), Said("tool", "no such file", (), "2")])
    assert conversation.said_with([]) == (
        *before,
        *asked,
        Said("tool", LEFT_OUT, (), "1"),
        Said("tool", "no such file", (), "2"),
    )
    kept = conversation.said_with([])
    conversation.add([Said("user", "x" * 3001)])
    assert conversation.said_with([]) == kept


def test_the_one_that_was_unused_for_longest_goes_first_and_none_that_is_being_answered() -> None:
    known = Conversations(2, 10, 100)
    first, second = known.find("alice", "a"), known.find("alice", "b")
    first.is_taken = True
    known.find("alice", "c")
    assert len(known) == 2
    assert known.find("alice", "a") is first
    assert known.find("alice", "b") is not second


def test_conversations_of_one_name_are_apart_for_each_sender() -> None:
    known = Conversations(10, 10, 100)
    assert known.find("alice", "a") is not known.find("bob", "a")
    assert known.find("alice", "a") is known.find("alice", "a")


def test_where_all_are_being_answered_a_new_one_is_not_kept() -> None:
    known = Conversations(1, 10, 100)
    known.find("alice", "a").is_taken = True
    known.find("alice", "b")
    assert len(known) == 1
