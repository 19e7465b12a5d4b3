"""The command line: ``python -m autonomy_trio …``, one file a group of commands.

An error is one sentence and a way out: exit code 2 for what the call got wrong, 1 for what failed, no traceback unless
``--debug`` asks for it.
"""

import sys
import traceback
from typing import TYPE_CHECKING, Final, cast

import click

from autonomy_trio.cli.authority import authority
from autonomy_trio.cli.enroll import enroll
from autonomy_trio.cli.find import find
from autonomy_trio.cli.identity import identity
from autonomy_trio.cli.inlet import inlet
from autonomy_trio.cli.mcp import mcp
from autonomy_trio.cli.new import new
from autonomy_trio.cli.outlet import outlet
from autonomy_trio.cli.output import say, say_error
from autonomy_trio.cli.policy import policy
from autonomy_trio.cli.relay import relay
from autonomy_trio.cli.run import run
from autonomy_trio.cli.send import ask, send, stream
from autonomy_trio.errors import AutonomyError, UsageError
from autonomy_trio.logs import printable, showing

if TYPE_CHECKING:
    from io import TextIOWrapper

MOST_ERROR: Final = 2000
"""Characters of an error that are shown."""

INTERRUPTED: Final = 130
"""Exit code of what Ctrl-C ended: 128 and the signal's number."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="autonomy-trio")
def autonomy_trio() -> None:
    """A secure messaging fabric for agents."""


for _command in (new, run, relay, identity, authority, enroll, policy, find, send, ask, stream, mcp, outlet, inlet):
    autonomy_trio.add_command(_command)


def main() -> None:
    """Run the command line and exit."""
    # What a terminal's encoding lacks is shown by its number and ends nothing; standard error does so by itself.
    stdout = cast("TextIOWrapper | None", sys.stdout)
    if stdout is not None:
        stdout.reconfigure(errors="backslashreplace")
    with showing() as shown:
        try:
            autonomy_trio(prog_name="python -m autonomy_trio", standalone_mode=False)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            say("stopped")
            sys.exit(INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - fence: the command; a failure of the user's code or of ours is one sentence
            _show(error, debug=shown.debug)
            sys.exit(2 if isinstance(error, UsageError) else 1)


def _show(error: Exception, *, debug: bool) -> None:
    """Show an error on one line, whatever is quoted in it; with `debug` what was unexpected shows its traceback too."""
    sentence, unexpected = _sentence(error)
    sentence = printable(" ".join(sentence.split()), MOST_ERROR)
    if unexpected is None:
        say_error(sentence)
    elif debug:
        say_error(sentence, "".join(map(_printable_line, traceback.format_exception(unexpected))))
    else:
        say_error(f"{sentence}; run with --debug for the traceback")


def _sentence(error: Exception) -> tuple[str, BaseException | None]:
    """Say what went wrong, and which error that nobody foresaw is behind it, if any."""
    if isinstance(error, AutonomyError):
        return str(error), error.__cause__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used: {error.strerror}", None
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {last.filename}:{last.lineno}: {error}", error


def _printable_line(lines: str) -> str:
    return "".join(f"{printable(line, MOST_ERROR)}\n" for line in lines.splitlines())
