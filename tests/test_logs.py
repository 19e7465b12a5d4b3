"""Log lines: to the program's own structlog, else to standard error, without secrets and without control characters."""

import json
import logging
from collections.abc import Generator
from typing import Any

import pytest
import structlog

from autonomy_trio.logs import ERRORS_WITHIN, MOST_ERRORS, ErrorLog, Form, get_log, printable, showing, shown

SECRET = "5ec2e7" * 8


def fail_with(text: str) -> None:
    seed = SECRET.encode()  # a local variable of the frame
    raise ValueError(text, len(seed))


def test_lines_go_to_standard_error_with_their_fields(capsys: pytest.CaptureFixture[str]) -> None:
    get_log(agent="counter").warning("something happened", count=3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.rstrip().endswith("[warning  ] something happened agent=counter count=3")


def test_debug_lines_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    get_log().debug("detail")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("how", ["exception", "exc_info"])
def test_a_traceback_shows_no_local_variable(capsys: pytest.CaptureFixture[str], how: str) -> None:
    try:
        fail_with("broken")
    except ValueError as error:
        if how == "exception":
            get_log().exception("failed")
        else:
            get_log().error("failed", exc_info=error)
    err = capsys.readouterr().err
    assert "Traceback (most recent call last):" in err
    assert "raise ValueError(text, len(seed))" in err
    assert "ValueError: ('broken', 48)" in err
    assert SECRET not in err


def test_a_program_that_configures_structlog_gets_the_lines_even_later(capsys: pytest.CaptureFixture[str]) -> None:
    log = get_log(agent="counter")
    lines: list[structlog.typing.EventDict] = []

    def keep(_: object, method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        lines.append({**fields, "level": method})
        raise structlog.DropEvent

    structlog.configure(
        processors=[keep],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        cache_logger_on_first_use=True,
    )
    log.info("too quiet for this program")
    log.error("heard", count=1)
    assert lines == [{"event": "heard", "agent": "counter", "count": 1, "level": "error"}]
    assert capsys.readouterr() == ("", "")


NASTY = "a\x1b[31mred\x07\r\nforged line\u202e\x9b2J"


def test_control_characters_of_a_stranger_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    get_log(peer=NASTY).warning(f"heard {NASTY}", text=NASTY, several=[NASTY], number=3)
    err = capsys.readouterr().err
    assert err.endswith("\n")
    assert err[:-1].isprintable(), "one line, without control characters"
    assert "a?[31mred???forged line??2J" in err


def test_nor_in_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        fail_with(NASTY)
    except ValueError as error:
        error.args = (NASTY,)  # a tuple of several would be shown as its repr
        get_log().exception("failed")
    lines = capsys.readouterr().err.split("\n")
    assert all(line.isprintable() for line in lines)
    assert "ValueError: a?[31mred??" in lines


def test_printable_is_one_line_of_bounded_length() -> None:
    assert printable("plain ünïcode") == "plain ünïcode"
    assert printable(NASTY) == "a?[31mred???forged line??2J"
    assert printable("x" * 1000) == "x" * 200
    assert printable("x" * 1000, 3) == "xxx"


@pytest.fixture
def as_json() -> Generator[None]:
    with showing() as how:
        how.form = "json"
        yield


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.isascii()
    assert all(line.isprintable() for line in err.splitlines())
    return [json.loads(line, parse_constant=pytest.fail) for line in err.splitlines()]


@pytest.mark.usefixtures("as_json")
def test_json_is_one_object_a_line_with_time_level_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    get_log(agent="counter").warning("something\nhappened", count=3)
    get_log().info("and more")
    first, second = lines_of(capsys)
    assert list(first) == ["timestamp", "level", "event", "agent", "count"]
    assert first.pop("timestamp").endswith("Z")
    assert first == {"level": "warning", "event": "something\nhappened", "agent": "counter", "count": 3}
    assert second["event"] == "and more"


@pytest.mark.usefixtures("as_json")
@pytest.mark.parametrize("how", ["exception", "exc_info"])
def test_a_traceback_in_json_is_text_without_local_variables(capsys: pytest.CaptureFixture[str], how: str) -> None:
    try:
        fail_with("broken")
    except ValueError as error:
        if how == "exception":
            get_log().exception("failed")
        else:
            get_log().error("failed", exc_info=error)
    (line,) = lines_of(capsys)
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].rstrip().endswith("ValueError: ('broken', 48)")
    assert SECRET not in line["exception"]


def endless() -> list[object]:
    """A value that is inside itself."""
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.usefixtures("as_json")
@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        {("a", "tuple"): "as key"},
        float("nan"),
        float("-inf"),
        "\ud800",
        "\x7f\x1b[31m",
        endless(),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_whatever_is_logged_is_json(capsys: pytest.CaptureFixture[str], value: object) -> None:
    get_log().info("odd", value=value, text="kept")
    (line,) = lines_of(capsys)
    assert (line["event"], line["text"]) == ("odd", "kept")
    assert "value" in line


@pytest.mark.parametrize("form", ["pretty", "json"])
def test_debug_lines_are_shown_where_they_were_asked_for(capsys: pytest.CaptureFixture[str], form: Form) -> None:
    with showing() as how:
        how.form, how.debug = form, True
        get_log().debug("detail")
    get_log().debug("nobody asked")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "detail" in err


def test_what_a_block_chose_holds_for_that_block() -> None:
    before = shown()
    with showing() as how:
        how.form = "json"
        assert shown().form == "json"
    assert shown() is before
    assert before.form == "pretty"


def test_errors_by_the_thousand_write_few_lines_and_count_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    log = ErrorLog()
    with structlog.testing.capture_logs() as lines:
        for number in range(1000):
            log.error("agent failed", number=number)
        now = ERRORS_WITHIN
        log.error("agent failed", number=1000)
        log.error("agent failed", number=1001)
    assert [line["number"] for line in lines] == [*range(MOST_ERRORS), 1000, 1001]
    assert [line.get("left_out") for line in lines[-3:]] == [None, 1000 - MOST_ERRORS, None]
