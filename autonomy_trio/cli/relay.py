"""``relay``: forward envelopes between nodes that need not trust it."""

from contextlib import nullcontext
from pathlib import Path

import click
import trio

from autonomy_trio.cli.options import (
    FILE,
    HOME,
    anchors_of,
    anchors_option,
    default_home,
    metrics_option,
    run_trio,
    store_option,
    telling,
)
from autonomy_trio.cli.output import debug_option, log_option, say
from autonomy_trio.cli.passphrase import passphrase_for, passphrase_option
from autonomy_trio.cli.signals import reload_at_hangup, stoppable
from autonomy_trio.fabric.identity.credentials import LISTS_FOLDER
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.linking import listen
from autonomy_trio.fabric.metrics import relay_report
from autonomy_trio.fabric.relays.policy import RelayPolicy
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.fabric.relays.stores import Keeping, open_store
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault


@click.command(short_help="Forward envelopes between nodes.")
@click.option(
    "--listen",
    "address",
    default="127.0.0.1:4000",
    show_default=True,
    metavar="ADDR",
    help="HOST:PORT to listen on, tcp://HOST:PORT without websockets.",
)
@click.option(
    "--home",
    type=HOME,
    default=lambda: default_home().with_name("relay"),
    show_default="a folder of its own beside the default home",
    help="The folder that keeps the relay's keys.",
)
@store_option
@passphrase_option
@anchors_option
@click.option(
    "--policy",
    type=FILE,
    metavar="FILE",
    help="Who may Register, Store and Publish, in Cedar. Without it and --anchors anybody may; with --anchors alone who"
    " has a credential.",
)
@metrics_option
@log_option
@debug_option
def relay(  # noqa: PLR0913, PLR0917 - one for each option
    address: str, home: Path, store: str | None, anchors: Path | None, policy: Path | None, metrics: str | None
) -> None:
    """Forward envelopes between nodes; a relay can read, forge and replay none of them.

    It sees which nodes talk, when, and how much. With --store it keeps, sealed, what is sent with durable=True to nodes
    that are away. SIGHUP has it read its anchors and policy again, and every node register anew.
    """
    where = ListenAddress.parse_link(address)
    tell_at = None if metrics is None else ListenAddress.parse(metrics)
    private = anchors is not None or policy is not None
    passphrase = passphrase_for(home)

    async def main() -> None:
        mailboxes = nullcontext(Keeping()) if store is None else open_store(store)
        with Vault.open(home, passphrase=passphrase) as vault:
            async with mailboxes as kept:
                await serve(vault, kept)

    async def serve(vault: Vault, kept: Keeping) -> None:
        who = _policy(vault, anchors or anchors_of(home), policy, private=private)
        forwarding = Relay(vault, store=kept.store, cluster=kept.cluster, policy=who)
        listener = await listen(where)
        url = listener.address.url

        def read_again() -> None:
            if who is not None:
                who.change(_anchors(vault, anchors or anchors_of(home)), policy)
                forwarding.register_anew()

        async with stoppable() as stop, trio.open_nursery() as nursery:
            nursery.start_soon(forwarding.serve, listener)
            nursery.start_soon(forwarding.obey_lists, home / LISTS_FOLDER)
            await nursery.start(reload_at_hangup, read_again, stop)
            async with telling(tell_at, lambda: relay_report(forwarding.statistics())):
                click.echo(f"relay {url}\nto pin it: {url}#{format_identifier(vault.identifier)}")
                stop.drains = True
                await stop.asked.wait()
                await forwarding.drain()
            nursery.cancel_scope.cancel()

    run_trio(main)
    say("stopped")


def _policy(vault: Vault, anchors: Path | None, policy: Path | None, *, private: bool) -> RelayPolicy | None:
    if not private:
        return None
    return RelayPolicy.load(_anchors(vault, anchors), policy)


def _anchors(vault: Vault, file: Path | None) -> Anchors:
    return Anchors.of_self(vault.identifier) if file is None else Anchors.load(file)
