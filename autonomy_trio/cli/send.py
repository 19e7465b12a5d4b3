"""``send`` and ``ask``: one message to an agent, from the command line."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
import click
import trio

from autonomy_trio.cli.options import credential_option, home_option, relay_option, run_trio
from autonomy_trio.cli.output import debug_option, log_option, say
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.errors import AddressError, ConfigurationError, NotDelivered, OutcomeUnknown
from autonomy_trio.fabric.addresses import Address
from autonomy_trio.fabric.node import Node
from autonomy_trio.fabric.opening import open_node
from autonomy_trio.messages import Untyped
from autonomy_trio.trust.records import format_identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    where, relays = _reachable(address, relays)
    passphrase = passphrase_for(home)

    async def main() -> object:
        async with open_node(relay=relays, home=home, passphrase=passphrase, credentials=credentials) as node:
            _refuse_itself(node, where, home)
            try:
                return await node.ref(str(where)).ask(request)
            except trio.TooSlowError:
                msg = f"{where} did not answer {request.name} in {node.ask_limit:g} s: it may have had effects"
                raise OutcomeUnknown(msg) from None

    click.echo(_to_json(run_trio(main)))


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
    where, relays = _reachable(address, relays)
    passphrase = passphrase_for(home)

    async def main() -> None:
        opened = open_node(relay=relays, home=home, passphrase=passphrase, credentials=credentials, grace=PATIENCE)
        async with opened as node:
            _refuse_itself(node, where, home)
            await node.ref(str(where)).tell(told, durable=durable)
            if not durable:
                await _sent(node, where, told)

    run_trio(main)
    say(f"{'stored' if durable else 'sent'} {told.name} {'for' if durable else 'to'} {where}")


def _refuse_itself(node: Node, where: Address, home: Path) -> None:
    """Refuse an address of the node that would send: the running one with this identity, if any, is another process."""
    if format_identifier(where.node) == node.identifier:
        msg = f"{where} is the node of {home} itself: send as another one, with --home DIR"
        raise ConfigurationError(msg)


async def _sent(node: Node, where: Address, message: Untyped) -> None:
    await node.flush()
    if node.statistics().lost:
        msg = f"{message.name} was not sent to {where}, whose node did not answer: is it running, and at that relay?"
        raise NotDelivered(msg)


def _reachable(address: str, relays: tuple[str, ...]) -> tuple[Address, tuple[str, ...]]:
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
