"""Where a model's key comes from. It is read when the agent starts, and stands in no repr, log, error or message."""

import os
from pathlib import Path

from autonomy_trio.errors import ConfigurationError

NO_KEY = "none"
"""What is sent in the place of a key to a server of one's own, which asks for none."""


def read_key(model: str, variable: str, file: Path | None) -> str:
    """Return a key.

    Args:
        model: whose, for the error.
        variable: the environment variable that has it where there is no file.
        file: what has it and nothing else.

    Raises:
        ConfigurationError: there is none, or none that can be sent in a header.
    """
    if file is None:
        key, place = os.environ.get(variable, ""), f"the environment variable {variable}"
    else:
        place = f"the file {file}"
        try:
            key = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise ConfigurationError(f"the key of {model} cannot be read from {place}: {why}") from None
    key = key.strip()
    if not key:
        raise ConfigurationError(
            f"{model} has no key: put it into {place}, or name another with key_variable= or key_file="
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigurationError(f"{place} holds no key: one is printable ASCII on a line of its own")
    return key
