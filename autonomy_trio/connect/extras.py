"""Libraries that are installed only by who uses them."""

from collections.abc import Generator
from contextlib import contextmanager

from autonomy_trio.errors import ConfigurationError


@contextmanager
def extra(name: str, purpose: str) -> Generator[None]:
    """Say how a library is installed that an import in the block does not find.

    Args:
        name: the extra that brings it, as in ``mcp``.
        purpose: what needs it, as the subject of a sentence.

    Raises:
        ConfigurationError: a module is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f'{purpose} needs {error.name}, which is not installed: pip install "autonomy-trio[{name}]"'
        ) from None
