import json

from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.trust.audit import MOST_LINE, audit_line, gap_line
from autonomy_trio.trust.policy import Decision, Principal

DECISION = Decision(
    allowed=False,
    policies=("Counter.add",),
    errors=(),
    reason='no permit: Counter.add needs principal.team == "payments"',
    credentials=frozenset({b"\x02", b"\x01"}),
    generation=3,
)
SENDER = Principal("Iaa/visitor", "Iaa", {"team": "top secret"}, frozenset({b"\x01"}))


def test_a_line_says_who_asked_whom_for_what_and_which_policy_decided() -> None:
    line = audit_line(DECISION, SENDER, "Add", "Counter", "counter", now=1_750_000_000.25)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "time": "2025-06-15T15:06:40.250+00:00",
        "allowed": False,
        "principal": "Iaa/visitor",
        "node": "Iaa",
        "action": "Add",
        "agent": "Counter",
        "resource": "counter",
        "policies": ["Counter.add"],
        "reason": 'no permit: Counter.add needs principal.team == "payments"',
        "errors": 0,
        "credentials": ["01", "02"],
        "generation": 3,
    }
    assert b"top secret" not in line


def test_cedars_words_on_an_error_which_quote_what_was_sent_stay_out() -> None:
    error = (
        "error while evaluating policy `x`: integer overflow while attempting to multiply `4611686018427387904` by `4`"
    )
    failed = Decision(
        allowed=False, policies=("x",), errors=(error,), reason=f"x: {error}", credentials=frozenset(), generation=1
    )
    line = audit_line(failed, SENDER, "Add", "Counter", "counter", now=1.0)
    assert b"4611686018427387904" not in line
    found = json.loads(line)
    assert (found["errors"], found["reason"]) == (1, "a policy could not be evaluated")


@given(st.text(min_size=1), st.sampled_from([1, 5000]))
def test_no_name_breaks_a_line_or_makes_it_long(name: str, times: int) -> None:
    text = name * times
    decision = Decision(
        allowed=True,
        policies=(text,) * times,
        errors=(),
        reason=text,
        credentials=frozenset(bytes([number]) * 99 for number in range(50)),
        generation=1,
    )
    line = audit_line(decision, Principal(text, text), text, text, text, now=1e9)
    assert len(line) <= MOST_LINE
    assert line.count(b"\n") == 1
    assert line.decode().rstrip("\n").isprintable()
    assert json.loads(line)["allowed"] is True


def test_the_largest_line_fits() -> None:
    text = "\U0001f600" * 1000
    decision = Decision(
        allowed=True,
        policies=(text,) * 50,
        errors=(),
        reason=text,
        credentials=frozenset(bytes([number]) * 99 for number in range(50)),
        generation=2**63,
    )
    assert len(audit_line(decision, Principal(text, text), text, text, text, now=1e9)) <= MOST_LINE


def test_a_gap_says_how_many_lines_are_missing() -> None:
    assert json.loads(gap_line(7, now=0.0)) == {"time": "1970-01-01T00:00:00.000+00:00", "lost": 7}
