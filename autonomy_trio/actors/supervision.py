"""What follows the end of an agent, as values and pure functions, in OTP's words."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, Literal, TypeVar, cast, get_args

from attrs import frozen

from autonomy_trio.actors.spec import Restart
from autonomy_trio.errors import DeclarationError, NameTaken

A = TypeVar("A")
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


@frozen
class Pool(Generic[A]):
    """Several agents behind one name; made by `pool`."""

    factory: Callable[[], A]
    size: int


@frozen
class Supervise:
    """Agents that are restarted together, and how often; made by `supervise`."""

    children: "tuple[Callable[[], Any] | Pool[Any] | Supervise, ...]"
    strategy: Strategy = "one_for_one"
    max_restarts: int = 3
    within: float = 5.0
    backoff: tuple[float, float] | None = None


DEFAULT: Final = Supervise(())
"""How an agent is supervised that no `supervise` names."""


def pool(factory: Callable[[], A], size: int) -> Pool[A]:
    """Return what `spawn` makes several agents of behind one name: each message goes to the least loaded.

    The order of messages holds for each agent of the pool, not for the pool.

    Args:
        factory: the agents' class, or a callable that builds one.
        size: how many, at least 1.

    Raises:
        DeclarationError: no agent at all.
    """
    if type(size) is not int or size < 1:
        msg = f"pool({getattr(factory, '__name__', factory)}, {size!r}): a pool has at least 1 agent"
        raise DeclarationError(msg)
    return Pool(factory, size)


def supervise(
    *children: "Callable[[], Any] | Pool[Any] | Supervise",
    strategy: Strategy = "one_for_one",
    max_restarts: int = 3,
    within: float = 5.0,
    backoff: tuple[float, float] | None = None,
) -> Supervise:
    """Return an entry of an app's list: agents, pools and supervisors that one supervisor restarts.

    Args:
        children: in the order in which they start, each after the ``on_start`` of the one before has ended; they stop
            in the reverse order.
        strategy: who is restarted with one that failed: nobody, all, or those after it.
        max_restarts: restarts in `within` seconds; one more, and the supervisor gives up: it stops its children and
            counts as failed itself. At the top of the app's list they stay stopped; all others live on.
        within: seconds.
        backoff: seconds before the first restart and the most before any: the pause doubles with each restart that
            follows soon, and is shortened by up to half at random.

    Raises:
        DeclarationError: no children, or a number that cannot be right.
    """
    if not children:
        msg = "supervise() has no children: name at least one agent"
        raise DeclarationError(msg)
    if strategy not in get_args(Strategy):
        msg = f"supervise(strategy={strategy!r}): choose one of {', '.join(get_args(Strategy))}"
        raise DeclarationError(msg)
    if type(max_restarts) is not int or max_restarts < 0:
        msg = f"supervise(max_restarts={max_restarts!r}): give a number, 0 or more"
        raise DeclarationError(msg)
    if not (_is_time(within) and within > 0):
        msg = f"supervise(within={within!r}): give seconds, more than 0"
        raise DeclarationError(msg)
    if backoff is not None and not _is_backoff(backoff):
        msg = (
            f"supervise(backoff={backoff!r}): give the first and the longest pause in seconds, 0 or more, "
            "say backoff=(0.1, 30)"
        )
        raise DeclarationError(msg)
    return Supervise(children, strategy, max_restarts, within, backoff)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float)


def _is_backoff(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    pauses = cast("tuple[float, ...]", value)
    return len(pauses) == 2 and all(map(_is_time, pauses)) and 0 <= pauses[0] <= pauses[1] < float("inf")  # noqa: PLR2004


def factories(entries: "Sequence[Callable[[], Any] | Pool[Any] | Supervise]") -> Iterator[Callable[[], Any]]:
    """Return what builds the agents of an app, in order."""
    for entry in entries:
        if isinstance(entry, Supervise):
            yield from factories(entry.children)
        else:
            yield entry.factory if isinstance(entry, Pool) else entry


def taken_twice(app: str, name: str, cls: str) -> NameTaken:
    """Return the refusal of an app that lists two agents of one name."""
    return NameTaken(f"{app} lists two agents called {name!r}: keep one, rename a class, or list pool({cls}, 2)")


@frozen
class History:
    """The restarts of a supervisor that still count."""

    times: tuple[float, ...] = ()
    """When, in seconds, oldest first."""
    streak: int = 0
    """Restarts that followed each other soon, for the pauses between them."""


@frozen
class Begin:
    """Restart these children, by position, after a pause; those that are not restarted with them are stopped."""

    restart: tuple[int, ...]
    stop: tuple[int, ...]
    pause: float


Verdict = Begin | Literal["forget", "give up"]


def decide(  # noqa: PLR0913 - all that the decision depends on
    supervise: Supervise,
    restarts: Sequence[Restart],
    index: int,
    *,
    failed: bool,
    history: History,
    now: float,
    chance: float = 1.0,
) -> tuple[Verdict, History]:
    """Decide what follows the end of a child, as OTP's supervisor documents it.

    Args:
        supervise: the strategy and the intensity.
        restarts: how each child is declared, in their order.
        index: the child that has ended.
        failed: whether it ended by an exception.
        history: earlier restarts.
        now: the time of this end, in seconds.
        chance: a random number in [0.5, 1] that the pause is multiplied by.

    Returns:
        the verdict, and the history to remember. ``forget``: its declaration wants no restart. ``give up``: one more
        restart would exceed the intensity.
    """
    if restarts[index] == "temporary" or (restarts[index] == "transient" and not failed):
        return "forget", history
    times = (*(time for time in history.times if now - time <= supervise.within), now)
    if len(times) > supervise.max_restarts:
        return "give up", history
    shortest, longest = supervise.backoff or (0.0, 0.0)
    soon = bool(history.times) and now - history.times[-1] <= max(supervise.within, 2 * longest)
    streak = history.streak + 1 if soon else 1
    first = {"one_for_one": index, "one_for_all": 0, "rest_for_one": index}[supervise.strategy]
    last = index if supervise.strategy == "one_for_one" else len(restarts) - 1
    affected = range(first, last + 1)
    restart = tuple(each for each in affected if each == index or restarts[each] != "temporary")
    pause = min(longest, shortest * 2.0 ** min(streak - 1, 64)) * chance
    stop = tuple(each for each in affected if each not in restart)
    return Begin(restart, stop, pause), History(times, streak)
