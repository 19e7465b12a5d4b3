"""What follows the end of an agent: a pure function of how it ended, its declaration and its history, as in OTP."""

from typing import Final, Literal

from attrs import frozen

from autonomy_trio.actors.declare import Restart

Verdict = Literal["restart", "stop", "give up"]


@frozen
class Intensity:
    """How often an agent may be restarted before its supervisor gives up on it (OTP: intensity and period)."""

    max_restarts: int = 3
    within: float = 5.0
    """Seconds."""


DEFAULT_INTENSITY: Final = Intensity()


def decide(
    restart: Restart, *, failed: bool, history: tuple[float, ...], now: float, intensity: Intensity = DEFAULT_INTENSITY
) -> tuple[Verdict, tuple[float, ...]]:
    """Decide what follows the end of an agent, and return the history to remember.

    Args:
        restart: when the agent is to be restarted at all.
        failed: whether it ended by an exception.
        history: the times of earlier restarts, oldest first, in seconds on the clock of `now`.
        now: the time of this end.
        intensity: the most restarts in a period.

    Returns:
        ``restart``; ``stop`` where its declaration wants none; ``give up`` where one more would exceed the intensity.
    """
    if restart == "temporary" or (restart == "transient" and not failed):
        return "stop", history
    recent = tuple(moment for moment in history if now - moment < intensity.within)
    if len(recent) >= intensity.max_restarts:
        return "give up", recent
    return "restart", (*recent, now)
