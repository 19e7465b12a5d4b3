"""``new``: a project that runs and passes its own tests as generated, or nothing at all."""

import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.support.processes import PATIENCE, Process, environment, run_once

FILES = {".gitignore", "README.md", "app.py", "pyproject.toml", "tests/test_app.py"}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    workplace = tmp_path / "workplace"
    workplace.mkdir()
    monkeypatch.chdir(workplace)
    return workplace


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_a_new_project_passes_its_own_tests_and_serves_what_its_readme_asks(tmp_path: Path) -> None:
    env = environment(tmp_path)
    made = run_once("new", "my-agents", env=env, cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, "")
    assert "cd my-agents" in made.stderr
    project = tmp_path / "my-agents"
    assert files_in(project) == FILES

    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        env=env,
        cwd=project,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout
    assert "2 passed" in tests.stdout

    readme = (project / "README.md").read_text()
    run, ask = re.findall(r"^python -m autonomy_trio (.*)$", readme, re.MULTILINE)
    with Process(*run.split(), "--listen", "127.0.0.1:0", env=env, cwd=project) as node:
        address = node.wait_line("/greeter")
        command = f"{sys.executable} -m autonomy_trio {ask.replace('ADDRESS', address)}"
        answer = subprocess.run(
            ["bash", "-c", command], env=env, cwd=project, capture_output=True, timeout=PATIENCE, check=False
        )
        assert answer.stdout == b'{"text": "Hello, Ada!", "number": 1}\n', answer.stderr
        node.signal(signal.SIGINT)
        assert node.wait() == 0


def test_its_pyproject_names_it_and_what_it_needs(call: Call, workplace: Path) -> None:
    assert call("new", "Shop.2").code == 0
    project = tomllib.loads((workplace / "Shop.2" / "pyproject.toml").read_text())
    assert project["project"]["name"] == "Shop.2"
    assert any(each.startswith("autonomy-trio") for each in project["project"]["dependencies"])
    assert [each.partition(">")[0] for each in project["dependency-groups"]["test"]] == ["pytest", "pytest-trio"]
    assert "{{" not in "".join(file.read_text() for file in workplace.rglob("*") if file.is_file())


@pytest.mark.parametrize("name", ["class", "None", "test", "email", "Json", "concurrent", "async"])
def test_the_name_of_something_of_pythons_own_is_one_sentence_and_nothing_is_made(
    call: Call, workplace: Path, name: str
) -> None:
    found = call("new", name)
    assert found.is_one_sentence(2)
    assert f"{name} is a word or a module of Python's own: choose another name, say my-agents" in found.err
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "-x", "a b", "a/b", "../a", "2fast", "shop-", "shöp", "a\x1b[31m", "x" * 65, "autonomy_trio"],
)
def test_a_name_that_cannot_be_a_projects_is_one_sentence_and_nothing_is_made(
    call: Call, workplace: Path, name: str
) -> None:
    found = call("new", "--", name)
    assert found.is_one_sentence(2)
    assert "say my-agents" in found.err
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_there_already_is_refused_and_stays(call: Call, workplace: Path, kind: str) -> None:
    there = workplace / "shop"
    if kind == "folder":
        there.mkdir()
        (there / "precious").touch()
    elif kind == "file":
        there.write_text("precious")
    else:
        there.symlink_to("nowhere")
    before = [*workplace.rglob("*")]
    found = call("new", "shop")
    assert found.is_one_sentence(2)
    assert "shop is there already" in found.err
    assert [*workplace.rglob("*")] == before


def test_an_empty_folder_is_filled(call: Call, workplace: Path) -> None:
    (workplace / "shop").mkdir()
    assert call("new", "shop").code == 0
    assert files_in(workplace / "shop") == FILES


def test_what_fails_half_way_leaves_nothing_behind(
    call: Call, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["autonomy_trio.cli.new"], "FILES", ("app.py", "no such file"))
    found = call("new", "shop")
    assert found.is_one_sentence(1)
    assert list(workplace.iterdir()) == []
