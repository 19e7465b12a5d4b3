"""A relay, outlets and inlets as processes, and the homes of who may use them."""

from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import attrs

from tests.support.processes import Process, environment, free_port, run_once

PAYMENTS: Final = 'principal.team == "payments"'


@attrs.define(eq=False)
class Site:
    """Processes with a home each: outlets trust one authority, which says what inlets are of the payments team."""

    folder: Path
    relays: list[str] = attrs.field(factory=list[str])
    _homes: "count[int]" = attrs.field(factory=count)

    def __attrs_post_init__(self) -> None:
        anchors = self._cli("authority", "init", "--home", self._path("authority"), "--attribute", "team=string")
        self.anchors.write_text(anchors, encoding="utf-8")

    @property
    def anchors(self) -> Path:
        return self.folder / "anchors.toml"

    @property
    def env(self) -> dict[str, str]:
        return environment(self.folder)

    @contextmanager
    def relay(self, port: int | None = None) -> Generator[Process]:
        """A relay, which outlets and inlets that are started from then on use too."""
        port = port or free_port()
        url, home = f"ws://127.0.0.1:{port}", self._path(f"relay-{port}")
        with Process("relay", "--listen", f"127.0.0.1:{port}", "--home", home, env=self.env) as relay:
            relay.wait_line("relay ws://")
            if url not in self.relays:
                self.relays.append(url)
            yield relay

    @contextmanager
    def outlet(self, target: str) -> Generator[tuple[Process, str]]:
        """An outlet for the payments team, and its address."""
        options = ("--target", target, "--allow", PAYMENTS, "--anchors", str(self.anchors), *self._options())
        with Process("outlet", "db", *options, env=self.env) as process:
            yield process, process.wait_line("outlet ws://").removeprefix("outlet ").partition(" to ")[0]

    @contextmanager
    def inlet(
        self, to: str, listen: str = "127.0.0.1:0", *, is_of_payments: bool = True
    ) -> Generator[tuple[Process, str]]:
        """An inlet, and where it listens."""
        home, *options = self._options()
        if is_of_payments:
            self._make_payments(home)
        with Process("inlet", "--listen", listen, "--to", to, home, *options, env=self.env) as process:
            yield process, process.wait_line("inlet ").removeprefix("inlet ").partition(" to ")[0]

    @contextmanager
    def portal(self, target: str) -> Generator[int]:
        """An outlet and an inlet, and the inlet's port."""
        with self.outlet(target) as (_, address), self.inlet(address) as (_, place):
            yield int(place.rpartition(":")[2])

    def _options(self) -> list[str]:
        home = self._path(f"node-{next(self._homes)}")
        return [f"--home={home}", *(f"--relay={url}" for url in self.relays)]

    def _make_payments(self, home: str) -> None:
        subject = self._cli("identity", "show", home).strip()
        out = f"{home.removeprefix('--home=')}/credentials/payments"
        given = ("--subject", subject, "--attribute", "team=payments", "--out", out)
        self._cli("authority", "issue", "--home", self._path("authority"), *given)

    def _path(self, name: str) -> str:
        return str(self.folder / name)

    def _cli(self, *arguments: str) -> str:
        done = run_once(*arguments, env=self.env)
        assert done.returncode == 0, done.stderr
        return done.stdout
