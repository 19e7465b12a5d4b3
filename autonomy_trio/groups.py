"""One error instead of a nest of groups, where a block can only have failed in one way."""

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def single_error() -> Generator[None]:
    """Raise the one exception that an exception group holds, however deep; a group of several passes as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        if len(leaves) == 1:
            leaf = leaves[0]
            raise leaf.with_traceback(leaf.__traceback__) from leaf.__cause__
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> Generator[BaseException]:
    for exception in group.exceptions:
        if isinstance(exception, BaseExceptionGroup):
            yield from _leaves(exception)
        else:
            yield exception
