"""The table of agents, as ``run`` shows it and ``run --check`` without starting anything."""

import re
import sys
from collections.abc import AsyncGenerator, Callable

import pytest
from attrs import frozen

from autonomy_trio import Request, Stream, agent, on, pool, supervise
from tests.cli.conftest import Call


@frozen
class Item:
    name: str


@frozen
class Find(Request[dict[str, Item] | None]):
    name: str


@frozen
class Forget(Request[None]):
    name: str


@frozen
class Note:
    text: str


@frozen
class Watch(Stream[Item]):
    pass


LONG = " && ".join(f'principal.team != "team{number}"' for number in range(12))


@agent
class Shelf:
    @on(Find, allow="true")
    async def find(self, message: Find) -> dict[str, Item] | None:
        return None

    @on(Forget, allow='principal.team == "a"\n  && principal.team != "b"')
    async def forget(self, message: Forget) -> None: ...

    @on(Note)
    async def note(self, message: Note) -> None: ...

    @on(Watch)
    async def watch(self, message: Watch) -> AsyncGenerator[Item]:
        yield Item("book")


@agent
class Wary:
    @on(Note, allow=LONG)
    async def note(self, message: Note) -> None: ...


@agent
class Mute:
    pass


agents = [supervise(Shelf), pool(Mute, 2)]
wary = [Wary]

PLAIN = (
    "shelf\n"
    "  Find -> dict[str, Item] | None  from every node\n"
    '  Forget -> None                  from other nodes if principal.team == "a" && principal.team != "b"\n'
    "  Note                            from this node only\n"
    "  Watch -> stream of Item         from this node only\n"
    "\n"
    "mute\n"
    "  handles no message\n"
    "\n"
)


def show(call: Call, target: str) -> str:
    found = call("run", f"{target}", "--check")
    assert (found.code, found.err) == (0, "")
    agents, _, _ = found.out.partition("attributes that senders may prove")
    return agents


def test_each_message_has_a_line_with_its_reply_and_whence_it_may_come(call: Call) -> None:
    assert show(call, "tests.cli.test_screen:agents") == PLAIN


def test_a_check_tells_which_attributes_policies_read(call: Call) -> None:
    found = call("run", "tests.cli.test_screen:agents", "--check")
    assert found.out == f"{PLAIN}attributes that senders may prove  team (string)\n"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the command line believe that it writes to a terminal of so many columns."""

    def terminal(columns: int) -> None:
        for name, value in (("COLUMNS", str(columns)), ("TERM", "xterm-256color")):
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    return terminal


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_gets_the_same_in_colours(call: Call, terminal: Callable[[int], None]) -> None:
    terminal(120)
    shown = show(call, "tests.cli.test_screen:agents")
    assert "\x1b[36mFind" in shown
    assert [line.rstrip() for line in without_colours(shown).splitlines()] == [
        line.rstrip() for line in PLAIN.splitlines()
    ]


def test_a_condition_that_is_wider_than_the_terminal_goes_on_in_its_column(
    call: Call, terminal: Callable[[int], None]
) -> None:
    terminal(60)
    name, *lines = without_colours(show(call, "tests.cli.test_screen:wary")).rstrip().splitlines()
    assert name == "wary"
    assert len(lines) > 3
    assert all(len(line) <= 60 for line in lines)
    assert all(line.startswith(" " * len("  Note  ")) for line in lines[1:])
    assert (
        "".join(line[len("  Note  ") :].strip() + " " for line in lines).split()
        == f"from other nodes if {LONG}".split()
    )
