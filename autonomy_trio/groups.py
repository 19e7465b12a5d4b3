"""Exception groups: one error in place of a nest, and failures apart from cancellations."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import cast


@contextmanager
def single_error() -> Generator[None]:
    """Raise the one exception that an exception group holds, however deep; a group of several passes as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        if len(leaves) == 1:
            raise leaves[0] from leaves[0].__cause__
        raise


@contextmanager
def fence(failed: Callable[[Exception], None]) -> Generator[None]:
    """Hand what a block raises to `failed`, and let pass what must not be stopped: cancellation, an interrupt.

    Both can come at once, in one group: a task that was cancelled, and failed while it cleaned up. What `failed` itself
    raises then comes out in one group with what must pass.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        failures, rest = group.split(Exception)
        if failures is not None:
            try:
                failed(failures)
            except Exception as error:  # no fence: it goes on, and the rest with it
                if rest is None:
                    raise
                raise BaseExceptionGroup(group.message, [rest, error]) from None
        if rest is not None:
            raise rest from None
    except Exception as error:  # noqa: BLE001 - the fence itself: who uses it says what it fences, and logs
        failed(error)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Generator[BaseException]:
    for exception in group.exceptions:
        if isinstance(exception, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", exception))
        else:
            yield exception
