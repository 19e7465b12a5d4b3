"""``send``, ``ask`` and ``stream``: one message to an agent, from the command line, and what it answers."""

import json
import os
import stat
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs
import click
import trio

from autonomy_trio.cli.options import credential_option, home_option, relay_option, run_trio
from autonomy_trio.cli.output import debug_option, log_option, say
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.cli.signals import stoppable
from autonomy_trio.errors import AddressError, ConfigurationError, NotDelivered, OutcomeUnknown
from autonomy_trio.fabric.links.addresses import Address
from autonomy_trio.fabric.node import Node
from autonomy_trio.fabric.opening import open_node
from autonomy_trio.messages import Untyped
from autonomy_trio.trust.records import format_identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

MOST_QUOTED: Final = 60
"""Characters of a message that an error quotes."""

PATIENCE: Final = 15.0
"""Seconds in which a message may leave: longer than a node waits for a relay and then for a handshake."""


@click.command()
@click.argument("address")
@click.argument("message")
@relay_option
@home_option
@credential_option
@log_option
@debug_option
def ask(address: str, message: str, relays: tuple[str, ...], home: Path, credentials: tuple[Path, ...]) -> None:
    """Send a request to a running agent and print its reply as JSON.

    ADDRESS is what the agent's node prints when it starts; MESSAGE is JSON with the message's name and fields, as in
    '{"Add": {"amount": 3}}'.
    """
    request = parse_message(message)
    where, relays = reachable(address, relays)
    passphrase = passphrase_for(home)

    async def answer(node: Node) -> object:
        refuse_itself(node, where, home)
        try:
            return await node.ref(str(where)).ask(request)
        except trio.TooSlowError:
            msg = f"{where} did not answer {request.name} in {node.ask_limit:g} s: it may have had effects"
            raise OutcomeUnknown(msg) from None

    async def main() -> object:
        opened = open_node(relay=relays, home=home, passphrase=passphrase, credentials=credentials)
        return await _interruptibly(opened, answer)

    click.echo(_to_json(run_trio(main)))


@click.command(short_help="Open a stream of a running agent and print its items.")
@click.argument("address")
@click.argument("message")
@relay_option
@home_option
@credential_option
@log_option
@debug_option
def stream(address: str, message: str, relays: tuple[str, ...], home: Path, credentials: tuple[Path, ...]) -> None:
    """Open a stream of a running agent and print each of its items as a line of JSON.

    It ends with the stream, with Ctrl-C, or when nobody reads what it prints, as behind '| head -1'; the agent is told.
    One that is read slowly slows the agent down, and loses nothing.
    """
    wanted = parse_message(message)
    where, relays = reachable(address, relays)
    passphrase = passphrase_for(home)

    async def show(node: Node) -> None:
        refuse_itself(node, where, home)
        async with trio.open_nursery() as nursery, node.ref(str(where)).stream(wanted) as items:
            nursery.start_soon(_end_without_reader, nursery.cancel_scope)
            async for item in items:
                # In a thread: whoever reads slowly must not keep the node from showing its relay that it lives.
                if not await trio.to_thread.run_sync(_printed, _to_json(item)):
                    break
            nursery.cancel_scope.cancel()

    async def main() -> None:
        opened = open_node(relay=relays, home=home, passphrase=passphrase, credentials=credentials)
        await _interruptibly(opened, show)

    run_trio(main)


@click.command()
@click.argument("address")
@click.argument("message")
@click.option("--durable", is_flag=True, help="Have a relay keep it until the agent's node comes, for a week at most.")
@relay_option
@home_option
@credential_option
@log_option
@debug_option
def send(  # noqa: PLR0913, PLR0917 - the options of the command
    address: str, message: str, durable: bool, relays: tuple[str, ...], home: Path, credentials: tuple[Path, ...]
) -> None:
    """Send a message to an agent, without an answer.

    It is sent at most once to a node that is running; with --durable it is handled at least once, when that comes.
    Whether the agent's policy lets it pass is not told.
    """
    told = parse_message(message)
    where, relays = reachable(address, relays)
    passphrase = passphrase_for(home)

    async def main() -> None:
        opened = open_node(relay=relays, home=home, passphrase=passphrase, credentials=credentials, grace=PATIENCE)
        async with opened as node:
            refuse_itself(node, where, home)
            await node.ref(str(where)).tell(told, durable=durable)
            if not durable:
                await _sent(node, where, told)

    run_trio(main)
    say(f"{'stored' if durable else 'sent'} {told.name} {'for' if durable else 'to'} {where}")


async def _interruptibly(opened: AbstractAsyncContextManager[Node], work: Callable[[Node], Awaitable[T]]) -> T:
    """Work with a node until that is done; at a signal withdraw what is under way, so that the other node is told.

    Raises:
        KeyboardInterrupt: a signal came first.
    """
    results: list[T] = []
    async with stoppable() as stop, opened as node:
        stop.drains = True
        async with trio.open_nursery() as nursery:

            async def withdraw() -> None:
                await stop.asked.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(withdraw)
            results.append(await work(node))
            nursery.cancel_scope.cancel()
    if not results:
        raise KeyboardInterrupt
    return results[0]


async def _end_without_reader(scope: trio.CancelScope) -> None:
    """End a scope when nobody reads standard output any more, where that is a pipe and the system tells."""
    with suppress(AttributeError, OSError, ValueError):  # there is none, or none that can be waited for
        output = sys.stdout.fileno()
        if stat.S_ISFIFO(os.fstat(output).st_mode):
            await trio.lowlevel.wait_readable(output)  # a pipe's end that writes never is, until it is broken
            scope.cancel()


def _printed(line: str) -> bool:
    """Print a line; False where nobody reads it any more."""
    try:
        click.echo(line)
    except BrokenPipeError:
        # What is left of it would be tried again, and complained of, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def refuse_itself(node: Node, where: Address, home: Path) -> None:
    """Refuse an address of the node that would send: the running one with this identity, if any, is another process."""
    if format_identifier(where.node) == node.identifier:
        msg = f"{where} is the node of {home} itself: send as another one, with --home DIR"
        raise ConfigurationError(msg)


async def _sent(node: Node, where: Address, message: Untyped) -> None:
    await node.flush()
    if node.statistics().lost:
        msg = f"{message.name} was not sent to {where}, whose node did not answer: is it running, and at that relay?"
        raise NotDelivered(msg)


def reachable(address: str, relays: tuple[str, ...]) -> tuple[Address, tuple[str, ...]]:
    """Read an address, and say which relays to attach to: those that were asked for, else the one in the address."""
    if not address.isprintable():
        msg = f"the address {address!r} has characters that none has: paste it as the agent's node prints it"
        raise AddressError(msg)
    parsed = Address.parse(address)
    if relays:
        return attrs.evolve(parsed, relay=None), relays
    if parsed.relay is None:
        msg = f"{address} names no relay: put ws://HOST:PORT/ in front of it, or add --relay ws://HOST:PORT"
        raise AddressError(msg)
    return parsed, (str(parsed.relay),)


def parse_message(text: str) -> Untyped:
    """Read ``{"Name": {"field": value, …}}``.

    Raises:
        ConfigurationError: it is no JSON, or JSON of another shape.
    """
    shape = """write '{"Add": {"amount": 3}}': the message's name, and its fields"""
    shown = repr(text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"the message {shown} is no JSON at character {error.pos + 1}: {shape}"
        raise ConfigurationError(msg) from None
    except (ValueError, RecursionError):
        msg = f"the message {shown} is nested too deeply or has a number that is too long: {shape}"
        raise ConfigurationError(msg) from None
    if not isinstance(found, dict) or len(cast("Mapping[str, object]", found)) != 1:
        msg = f"the message {shown} has not one name: {shape}"
        raise ConfigurationError(msg)
    ((name, fields),) = cast("Mapping[str, object]", found).items()
    if not name or not name.isprintable():
        msg = f"{name[:MOST_QUOTED]!r} can be no message's name: {shape}"
        raise ConfigurationError(msg)
    if not isinstance(fields, dict):
        msg = f"what stands behind {name[:MOST_QUOTED]} in {shown} is not its fields: {shape}"
        raise ConfigurationError(msg)
    return Untyped(name, cast("Mapping[str, Any]", fields))


def _to_json(value: object) -> str:
    """Write a reply as JSON of one line; what a terminal cannot show, or would obey, is written by its number."""
    encoding = str(getattr(sys.stdout, "encoding", None)).lower()
    text = json.dumps(value, default=_plain, ensure_ascii=encoding != "utf-8")
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
