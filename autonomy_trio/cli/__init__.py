"""The command line: ``python -m autonomy_trio …``, one file a group of commands.

An error is one sentence and a way out: exit code 2 for what the call got wrong, 1 for what failed, no traceback.
"""

import sys
import traceback
from typing import TYPE_CHECKING, Final, NoReturn, cast

import click

from autonomy_trio.cli.authority import authority
from autonomy_trio.cli.identity import identity
from autonomy_trio.cli.relay import relay
from autonomy_trio.cli.run import run
from autonomy_trio.cli.send import ask, send
from autonomy_trio.errors import AutonomyError, UsageError
from autonomy_trio.logs import printable

if TYPE_CHECKING:
    from io import TextIOWrapper

MOST_ERROR: Final = 2000
"""Characters of an error that are shown."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="autonomy-trio")
def autonomy_trio() -> None:
    """A secure messaging fabric for agents."""


for _command in (run, relay, identity, authority, send, ask):
    autonomy_trio.add_command(_command)


def main() -> None:
    """Run the command line and exit."""
    # What a terminal's encoding lacks is shown by its number and ends nothing; standard error does so by itself.
    stdout = cast("TextIOWrapper | None", sys.stdout)
    if stdout is not None:
        stdout.reconfigure(errors="backslashreplace")
    try:
        autonomy_trio(prog_name="python -m autonomy_trio", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UsageError as error:
        _fail(str(error), 2)
    except AutonomyError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - fence: the command; a failure of the user's code or of ours is one sentence
        if isinstance(error, OSError) and error.filename is not None:
            _fail(f"{error.filename} cannot be used: {error.strerror}", 1)
        last = traceback.extract_tb(error.__traceback__)[-1]
        _fail(f"{type(error).__name__} at {last.filename}:{last.lineno}: {error}", 1)


def _fail(sentence: str, code: int) -> NoReturn:
    """Show an error on one line, whatever is quoted in it, and exit."""
    click.echo(f"Error: {printable(' '.join(sentence.split()), MOST_ERROR)}", err=True)
    sys.exit(code)
