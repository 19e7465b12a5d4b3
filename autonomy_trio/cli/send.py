"""``send`` and ``ask``: one message to a running agent, from the command line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs
import click
import trio

from autonomy_trio.cli.options import credential_option, home_option, relay_option, run_trio
from autonomy_trio.errors import AddressError, ConfigurationError, NotDelivered
from autonomy_trio.fabric.addresses import Address
from autonomy_trio.fabric.node import Node, open_node
from autonomy_trio.messages import Untyped


@click.command()
@click.argument("address")
@click.argument("message")
@relay_option
@home_option
@credential_option
def ask(address: str, message: str, relays: tuple[str, ...], home: Path, credentials: tuple[Path, ...]) -> None:
    """Send a request to a running agent and print its reply as JSON.

    ADDRESS is what the agent's node prints when it starts; MESSAGE is JSON with the message's name and fields, as in
    '{"Add": {"amount": 3}}'.
    """
    request = parse_message(message)
    where, relays = _reachable(address, relays)

    async def main() -> object:
        async with open_node(relay=relays, home=home, credentials=credentials) as node:
            try:
                return await node.ref(str(where)).ask(request)
            except trio.TooSlowError:
                msg = f"{where} did not answer in {node.ask_limit:g} s"
                raise NotDelivered(msg) from None

    click.echo(json.dumps(run_trio(main), default=_plain, ensure_ascii=False))


@click.command()
@click.argument("address")
@click.argument("message")
@relay_option
@home_option
@credential_option
def send(address: str, message: str, relays: tuple[str, ...], home: Path, credentials: tuple[Path, ...]) -> None:
    """Send a message to a running agent, without an answer.

    It is sent at most once. Whether the agent's policy lets it pass is not told.
    """
    told = parse_message(message)
    where, relays = _reachable(address, relays)

    async def main() -> None:
        async with open_node(relay=relays, home=home, credentials=credentials) as node:
            await node.ref(str(where)).tell(told)
            await _sent(node, where, told)

    run_trio(main)
    click.echo(f"sent {told.name} to {where}", err=True)


async def _sent(node: Node, where: Address, message: Untyped) -> None:
    await node.flush()
    if node.statistics().lost:
        msg = f"{message.name} was not sent to {where}: its node did not answer; is it running, and attached to that relay?"
        raise NotDelivered(msg)


def _reachable(address: str, relays: tuple[str, ...]) -> tuple[Address, tuple[str, ...]]:
    """Read an address, and say which relays to attach to: those that were asked for, else the one in the address."""
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
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        place = f" at character {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        msg = f"the message {text!r} is no JSON{place}: {shape}"
        raise ConfigurationError(msg) from None
    if not isinstance(found, dict) or len(cast("Mapping[str, object]", found)) != 1:
        msg = f"the message {text!r} has not one name: {shape}"
        raise ConfigurationError(msg)
    ((name, fields),) = cast("Mapping[str, object]", found).items()
    if not isinstance(fields, dict):
        msg = f"the fields of {name} are {json.dumps(fields)}: {shape}"
        raise ConfigurationError(msg)
    return Untyped(name, cast("Mapping[str, Any]", fields))


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
