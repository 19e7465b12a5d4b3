"""TARGET, as users type it."""

from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.support.processes import ROOT, environment, run_once

APP = "tests.support.app"


@pytest.mark.parametrize(
    ("target", "mend"),
    [
        ("", "say app:agents"),
        ("app", "say app:agents"),
        ("app:", "say app:agents"),
        (":agents", "say app:agents"),
        ("app.py", "say app:agents"),
        ("shop/app.py:agents", "say shop.app:agents"),
        ("./app.py:list", "say app:list"),
        (".app:agents", "say app:agents"),
        ("app:agents ", "say app:agents"),
        ("a b:c", "say app:c"),
    ],
)
def test_what_is_no_target_is_told_what_one_looks_like(call: Call, target: str, mend: str) -> None:
    found = call("run", target)
    assert found.is_one_sentence(2)
    assert repr(target) in found.err
    assert mend in found.err


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (f"{APP}:agnts", f"did you mean {APP}:agents?"),
        (f"{APP}:zzz", "has no attribute 'zzz'"),
        (f"{APP}:Counter.zzz", "has no attribute 'zzz'"),
        ("tests.fabric:agents", "without code of its own: name a module in it, say tests.fabric.app"),
        ("sys:zzz", "has no attribute 'zzz': is sys the right one?"),
        ("nowhere:agents", "there is no module 'nowhere': run this in the folder that has it"),
        (f"{APP}:empty", "is empty: list at least one agent class"),
        (f"{APP}:instances", "lists an object of type Counter: list agent classes"),
        (f"{APP}:classes_of_no_agent", "lists Total, which takes arguments"),
        (f"{APP}:needs_size", "lists NeedsSize, which takes arguments: give its fields defaults"),
        ("json:loads", "lists an object of type function"),
        ("builtins:dict", "dict is not an agent: decorate the class with @agent"),
    ],
)
def test_a_target_that_cannot_be_run_is_told_why(call: Call, target: str, said: str) -> None:
    found = call("run", target, "--check")
    assert found.is_one_sentence(2)
    assert said in found.err


def test_a_near_miss_of_a_module_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tests" / "support")
    assert "did you mean app:agents?" in call("run", "aap:agents").err


@pytest.mark.parametrize(
    ("agents", "said"),
    [
        ("None", "is None: list at least one agent class"),
        ("[Counter, None]", "lists an object of type NoneType"),
        ("'Counter'", "lists an object of type str"),
        ("[Counter, Clumsy, Counter]", "lists two agents called 'counter': keep one, rename a class, or list pool("),
        ("[pool(Clumsy, 2), supervise(Counter, supervise(Clumsy))]", "lists two agents called 'clumsy'"),
        ("supervise(Counter, 3)", "lists an object of type int"),
        ("[pool(Total, 2)]", "lists Total, which takes arguments"),
        ("[Counter, type('Counter', (), {})]", "lists two agents called 'counter'"),
    ],
)
def test_an_app_that_cannot_be_right_is_told_why(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, agents: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"app_{abs(hash(agents))}"
    Path(f"{name}.py").write_text(
        f"from autonomy_trio import pool, supervise\nfrom {APP} import Clumsy, Counter, Total\nagents = {agents}\n"
    )
    found = call("run", f"{name}:agents")
    assert found.is_one_sentence(2)
    assert f"{name}:agents {said}" in found.err


def test_what_an_agent_holds_is_in_no_error(call: Call) -> None:
    assert "7" not in call("run", f"{APP}:instances").err.partition("lists")[2]


@pytest.mark.parametrize(
    ("declaration", "line", "said"),
    [
        ("@agent(mailbox=Mailbox(0))\nclass A: pass", 2, "Mailbox(capacity=0): a mailbox holds at least 1 message"),
        ("@agent(idle_after=-1)\nclass A: pass", 2, "A: idle_after=-1: give seconds, 0 or more"),
        ("A = supervise()", 2, "supervise() has no children: name at least one agent"),
        ("A = supervise(list, within=-5.0)", 2, "supervise(within=-5.0): give seconds, more than 0"),
        ("A = supervise(list, backoff=(-1, 2))", 2, "supervise(backoff=(-1, 2)): give the first and the longest pause"),
        ("A = pool(list, 0)", 2, "pool(list, 0): a pool has at least 1 agent"),
        ("@agent(restart='often')\nclass A: pass", 2, "A: restart='often' is none of permanent, transient, temporary"),
    ],
)
def test_a_declaration_that_cannot_be_right_is_one_sentence_with_its_line(  # noqa: PLR0917 - fixtures and the case
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, declaration: str, line: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"declared_{abs(hash(declaration))}"
    Path(f"{name}.py").write_text(f"from autonomy_trio import Mailbox, agent, pool, supervise\n{declaration}\n")
    found = call("run", f"{name}:A")
    assert found.is_one_sentence(2)
    assert said in found.err
    assert f"{name}.py:{line})" in found.err


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("principal.team ==", "does not parse"),
        ("context.message.amuont <= 100", "no field 'amuont'"),
        ("nonsense.team == 3", "nonsense"),
        ("", "is empty"),
    ],
)
def test_a_condition_that_cannot_be_right_is_named_with_its_handler(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, condition: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"policy_{abs(hash(condition))}"
    Path(f"{name}.py").write_text(
        "from autonomy_trio import agent, on\n"
        f"from {APP} import Add, Total\n"
        "@agent\n"
        "class Counter:\n"
        f"    @on(Add, allow={condition!r})\n"
        "    async def add(self, message: Add) -> Total:\n"
        "        return Total(0)\n"
    )
    found = call("run", f"{name}:Counter", "--check")
    assert found.is_one_sentence(2)
    assert "Counter.add" in found.err
    assert said in found.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(7)", "SystemExit: 7"),
        ("import nowhere_to_be_found", "'nowhere_to_be_found', which is not there: install it"),
        ("from . import sibling", "relative import"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"broken_{abs(hash(text))}"
    Path(f"{name}.py").write_text(text)
    found = call("run", f"{name}:agents")
    assert found.is_one_sentence(2 if "install it" in said else 1)
    assert said in found.err
    assert name in found.err


def test_a_module_of_a_package_may_import_its_siblings_and_a_single_class_will_do(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(f"from {APP} import Counter\n")
    (package / "app.py").write_text("from .parts import Counter\n")
    found = run_once("run", "shop.app:Counter", "--check", env=environment(tmp_path), cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("counter\n  Add -> Total   from other nodes if ")


def test_a_target_is_not_found_from_another_folder_and_the_error_says_where_it_looked(tmp_path: Path) -> None:
    found = run_once("run", "app:agents", env=environment(tmp_path), cwd=tmp_path)
    assert found.returncode == 2
    assert str(tmp_path) in found.stderr


def test_a_factory_that_raises_is_one_sentence(call: Call) -> None:
    found = call("run", f"{APP}:unbuildable", "--check")
    assert found.is_one_sentence(1)
    assert "OSError" in found.err
    assert "no disk" in found.err
