"""Times, names and messages that cannot be right while agents run: one sentence that names the thing and the mend.

What is wrong in a declaration is in `test_declare` and `test_supervision`; the command line's words are in `tests/cli`.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import pytest
from attrs import frozen

from autonomy_trio import Context, Request, agent, on, open_node
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.errors import AutonomyError, NameTaken, NotHandled, UsageError


@frozen
class Run(Request[object]):
    what: Callable[[Context], object]


@frozen
class Unheard:
    pass


@agent
class Lamp:
    @on(Run)
    async def run(self, message: Run, context: Context) -> object:
        return message.what(context)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"grace": -1}, "grace=-1: give seconds, 0 or more"),
        ({"grace": math.nan}, "grace=nan: give seconds, 0 or more"),
        ({"grace": "5 s"}, "grace='5 s': give seconds, 0 or more"),
        ({"ask_limit": None}, "ask_limit=None: give seconds, more than 0"),
        ({"ask_limit": -1}, "ask_limit=-1: give seconds, more than 0"),
        ({"ask_limit": 0}, "ask_limit=0: give seconds, more than 0"),
        ({"ask_limit": math.nan}, "ask_limit=nan: give seconds, more than 0"),
    ],
)
async def test_a_node_with_a_time_that_cannot_be_right_does_not_open(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        async with open_node([Lamp], **options):
            pytest.fail("it opened")
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("what", "kind", "sentence"),
    [
        (
            lambda context: context.after(-1, Run(print)),
            UsageError,
            "lamp: a timer for Run in -1 s: give seconds, 0 or more",
        ),
        (
            lambda context: context.after(math.inf, Run(print)),
            UsageError,
            "lamp: a timer for Run in inf s: give seconds, 0 or more",
        ),
        (
            lambda context: context.after(cast("float", "5 s"), Run(print)),
            UsageError,
            "lamp: a timer for Run in '5 s' s: give seconds, 0 or more",
        ),
        (
            lambda context: context.every(0, Run(print)),
            UsageError,
            "lamp: a timer for Run in 0 s: give seconds, more than 0",
        ),
        (
            lambda context: context.every(math.nan, Run(print)),
            UsageError,
            "lamp: a timer for Run in nan s: give seconds, more than 0",
        ),
        (
            lambda context: context.after(1, Unheard()),
            NotHandled,
            "lamp does not handle Unheard; it handles Run",
        ),
        (
            lambda context: context.watch(context.self),
            UsageError,
            "lamp watches lamp but has no handler for what it is told: add one, @on(Down)",
        ),
        (
            lambda context: context.spawn(Lamp, "lamp"),
            NameTaken,
            "'lamp' is the name of a Lamp on this node: choose another",
        ),
    ],
)
async def test_what_a_handler_asks_of_its_context_that_cannot_be_right_is_one_sentence(
    autojump_clock: object, what: Callable[[Context], object], kind: type[AutonomyError], sentence: str
) -> None:
    refused: list[AutonomyError] = []

    def attempt(context: Context) -> None:
        with pytest.raises(kind) as caught:
            what(context)
        refused.append(caught.value)

    async with open_runtime() as runtime:
        await runtime.spawn(Lamp).ask(Run(attempt))
    assert [str(each) for each in refused] == [sentence]
