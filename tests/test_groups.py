"""Exception groups: one error in place of a nest, and failures apart from cancellations."""

import outcome
import pytest
import trio

from autonomy_trio.groups import fence, single_error


def nest(*leaves: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("outer", [BaseExceptionGroup("inner", leaves)])


def test_a_block_that_does_not_fail_is_left_alone() -> None:
    failures: list[Exception] = []
    with single_error(), fence(failures.append):
        pass
    assert failures == []


@pytest.mark.parametrize("error", [KeyError("a"), KeyboardInterrupt()])
def test_the_one_exception_of_a_nest_is_raised_itself(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, single_error():
        raise nest(error)
    assert raised.value is error


def test_its_cause_stays_and_the_groups_are_not_shown() -> None:
    cause = ValueError("why")
    error = KeyError("a")
    error.__cause__ = cause
    with pytest.raises(KeyError) as raised, single_error():
        raise nest(error)
    assert raised.value.__cause__ is cause
    assert raised.value.__suppress_context__


def test_several_exceptions_stay_a_group() -> None:
    group = nest(KeyError("a"), ValueError("b"))
    with pytest.RaisesGroup(pytest.RaisesGroup(KeyError, ValueError)) as raised, single_error():
        raise group
    assert raised.value is group


def test_an_exception_without_a_group_passes() -> None:
    with pytest.raises(KeyError), single_error():
        raise KeyError


@pytest.mark.parametrize("error", [KeyError("a"), ExceptionGroup("both", [KeyError("a"), ValueError("b")])])
def test_a_fence_hands_over_what_failed(error: Exception) -> None:
    failures: list[Exception] = []
    with fence(failures.append):
        raise error
    assert failures == [error]


def test_a_fence_lets_an_interrupt_pass_and_hands_over_what_failed_beside_it() -> None:
    failures: list[Exception] = []
    interrupt, failure = KeyboardInterrupt(), KeyError("a")
    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True), fence(failures.append):
        raise nest(interrupt, failure)
    for alone in (interrupt, nest(interrupt)):
        with pytest.raises(type(alone)), fence(failures.append):
            raise alone
    assert [type(each) for each in failures] == [ExceptionGroup]


async def test_a_fence_lets_cancellation_pass_and_hands_over_what_failed_beside_it() -> None:
    failures: list[Exception] = []

    with trio.CancelScope() as scope:
        scope.cancel()
        with fence(failures.append):
            cancelled = await outcome.acapture(trio.sleep_forever)
            assert isinstance(cancelled, outcome.Error)
            raise nest(cancelled.error, ValueError("in the middle of a cancellation"))
    assert scope.cancelled_caught
    assert [type(each) for each in failures] == [ExceptionGroup]


async def test_cancellation_passes_a_fence_together_with_what_the_one_it_hands_over_to_raises() -> None:
    def refuse(error: Exception) -> None:
        raise error

    with pytest.RaisesGroup(ValueError, flatten_subgroups=True), trio.CancelScope() as scope:
        scope.cancel()
        with fence(refuse):
            cancelled = await outcome.acapture(trio.sleep_forever)
            assert isinstance(cancelled, outcome.Error)
            raise nest(cancelled.error, ValueError("in the middle of a cancellation"))
    assert scope.cancelled_caught
    with pytest.raises(KeyError), fence(refuse):
        raise KeyError
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True), fence(refuse):
        raise nest(KeyError())
