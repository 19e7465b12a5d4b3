"""What ``run`` shows first: each agent, what it handles, what it replies, and from where that can be reached."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast, get_args

import attrs

from autonomy_trio.actors.spec import Spec
from autonomy_trio.fabric.node import Node
from autonomy_trio.logs import printable
from autonomy_trio.messages import item_type, reply_type, wire_name
from autonomy_trio.trust.policy import Policies

if TYPE_CHECKING:
    from typing import TextIO

MOST_PATH: Final = 4096
"""Characters of a folder's path that are shown."""

MOST_CONDITION: Final = 1000
"""Characters of a condition that are shown."""

_MODULES: Final = re.compile(r"(?:\w+\.)+")


@attrs.frozen
class _Row:
    """One message that an agent handles."""

    message: str
    reply: str
    allow: str | None

    @property
    def what(self) -> str:
        return f"{self.message} -> {self.reply}" if self.reply else self.message

    @property
    def whence(self) -> str:
        if self.allow is None:
            return "from this node only"
        return "from every node" if self.allow == "true" else f"from other nodes if {self.allow}"


def node_screen(node: Node, home: Path, *, embedded: bool) -> str:
    """Return what shows a node that has started: who it is, its home, its relays, and its agents by address."""
    lines = [f"node  {node.identifier}", f"home  {printable(str(home), MOST_PATH)}"]
    for number, relay in enumerate(node.relays):
        lines.append(f"relay {relay}{', in this process' if embedded and number == 0 else ''}")
    agents = {node.address(name): spec for name, spec in node.agents().items()}
    return "\n".join([*lines, "", agents_screen(agents, node.policies)])


def checked_screen(agents: Mapping[str, Spec], policies: Policies) -> str:
    """Return what shows agents that were only checked: what can be reached, and what else policies have to say."""
    lines = [agents_screen(agents, policies)]
    sending = policies.sending_forbidden()
    lines += [f"sending to other nodes  never if {printable(each, MOST_CONDITION)}" for each in sending]
    read = ", ".join(f"{name} ({kind or 'any type'})" for name, kind in sorted(policies.attributes.items()))
    if read:
        lines.append(f"attributes that senders may prove  {read}")
    for place, names in policies.evadable.items():
        lines.append(f"{place}  can be evaded by hiding {', '.join(names)}")
    return "\n".join(lines)


def agents_screen(agents: Mapping[str, Spec], policies: Policies) -> str:
    """Return what shows agents: in colours and within its width on a terminal, else an agent or a message a line."""
    conditions = {(each.agent, each.action): each.condition for each in policies.reachable()}
    tables = {name: list(_rows(spec, conditions)) for name, spec in agents.items()}
    stdout = cast("TextIO | None", sys.stdout)
    return _for_terminal(tables) if stdout is not None and stdout.isatty() else _plain(tables)


def _rows(spec: Spec, conditions: Mapping[tuple[str, str], str]) -> Iterator[_Row]:
    messages = {wire_name(message): message for message in spec.handlers}  # streams, which stay here, among them
    messages |= {action: message for action, (message, _) in spec.wire_table().items()}
    for action, message in sorted(messages.items()):
        yield _Row(action, _reply(message), _shown(conditions.get((spec.agent, action))))
    for topic in sorted(spec.topics):
        yield _Row(topic, "what is published", _shown(conditions.get((spec.agent, topic))))


def _shown(condition: str | None) -> str | None:
    return None if condition is None else printable(" ".join(condition.split()), MOST_CONDITION)


def _reply(message: type) -> str:
    """Return what a message is answered with, as its type is written; nothing for one that asks for no answer."""
    item = item_type(message)
    if item is not None:
        return f"stream of {_written(item)}"
    reply = reply_type(message)
    return "" if reply is None else _written(reply)


def _written(reply: object) -> str:
    if reply is type(None):
        return "None"
    return reply.__qualname__ if isinstance(reply, type) and not get_args(reply) else _MODULES.sub("", str(reply))


def _plain(tables: Mapping[str, list[_Row]]) -> str:
    lines: list[str] = []
    for name, rows in tables.items():
        width = max((len(row.what) for row in rows), default=0)
        lines += [name, *(f"  {row.what:{width}}  {row.whence}" for row in rows)]
        lines += [""] if rows else ["  handles no message", ""]
    return "\n".join(lines)


def _for_terminal(tables: Mapping[str, list[_Row]]) -> str:
    # Imported where they are needed: they take longer to import than most commands take.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    with console.capture() as screen:
        for name, rows in tables.items():
            console.print(Text(name, "bold"), soft_wrap=True)  # an address is copied, so it must not be broken
            table = Table.grid(padding=(0, 2), pad_edge=True)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for row in rows:
                what = Text.assemble((row.message, "cyan"), (row.what.removeprefix(row.message), "dim"))
                table.add_row(what, Text(row.whence, "yellow" if row.allow is None else "green"))
            if not rows:
                table.add_row("handles no message")
            console.print(table)
            console.print()
    return screen.get().removesuffix("\n")
