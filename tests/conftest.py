"""What every test shares: Hypothesis's profile, and that nothing is skipped in CI."""

import os
import signal
from collections.abc import Generator
from typing import Final

import pytest
import structlog
from hypothesis import settings

IN_CI: Final = bool(os.environ.get("CI"))

# A shell that starts something in the background has it ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: a shared machine's pauses are no failure of the code. In CI the same commit draws the same examples.
settings.register_profile("autonomy", deadline=None, print_blob=True, derandomize=IN_CI)
settings.load_profile("autonomy")


@pytest.fixture(autouse=True)
def structlog_is_as_before() -> Generator[None]:
    """Take back what `capture_logs` does for good: after it structlog counts as configured by its program."""
    yield
    structlog.reset_defaults()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one in CI."""
    report = yield
    # An expected failure is reported as skipped too, with `wasxfail` to tell them apart.
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped module into a failed one in CI."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.outcome == "skipped":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI skips no test. {reason}"
