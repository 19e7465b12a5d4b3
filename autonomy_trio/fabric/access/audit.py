"""The audit log of a node: a file that gets a line for each decision before anything follows from it.

A line is written at once and not flushed to the disk: it outlives the process, and not the machine. A file that cannot
be written stops no node: the first line that is lost is logged, and when there is room again a line tells how many
were.
"""

import errno
import os
import shlex
import stat
from pathlib import Path
from typing import Self, final

import attrs

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.logs import get_log
from autonomy_trio.trust.audit import audit_line, gap_line
from autonomy_trio.trust.policy import Decision, Principal

_log = get_log()


@final
@attrs.define(eq=False)
class AuditLog:
    """An open audit log; `open` it and `close` it."""

    path: Path
    descriptor: int = attrs.field(repr=False)
    lost: int = 0
    """Lines since the last one that was written."""
    _torn: bool = False
    """Whether the last line was written in part."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file to append to, created for this user alone.

        Raises:
            ConfigurationError: it cannot be opened, is no file, or others may read it; the text has the mend.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise ConfigurationError(f"the audit log {path} cannot be opened: {error.strerror}") from None
        found = os.fstat(descriptor)
        why = None
        if not stat.S_ISREG(found.st_mode):
            why = f"the audit log {path} is no file: name another one"
        elif stat.S_IMODE(found.st_mode) & 0o077:
            why = f"the audit log {path} can be read by others: chmod 600 {shlex.quote(str(path))}"
        if why is not None:
            os.close(descriptor)
            raise ConfigurationError(why)
        return cls(path, descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def write(  # noqa: PLR0913 - as `audit_line`
        self, decision: Decision, principal: Principal, action: str, agent: str, resource: str, *, now: float
    ) -> None:
        """Append the line about a decision; never raises."""
        line = audit_line(decision, principal, action, agent, resource, now=now)
        try:
            if self.lost:
                self._append(gap_line(self.lost, now=now))
                _log.info("audit log written again", file=str(self.path), lost=self.lost)
                self.lost = 0
            self._append(line)
        except OSError as error:
            if not self.lost:
                _log.error("audit log not written", file=str(self.path), why=error.strerror)
            self.lost += 1

    def _append(self, line: bytes) -> None:
        # Of a disk that becomes full, a write may fill the rest; what follows then begins on a line of its own.
        data = b"\n" + line if self._torn else line
        self._torn = os.write(self.descriptor, data) < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
