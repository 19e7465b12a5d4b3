"""``new``: a folder with a small project that runs and passes its own tests."""

import keyword
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

import click

from autonomy_trio.cli.output import debug_option, say
from autonomy_trio.errors import ConfigurationError

FILES: Final = (".gitignore", "README.md", "app.py", "pyproject.toml", "tests/test_app.py")
"""What a project has; made from the file ``…-tpl`` in ``project`` that is called so, without a dot in front."""

MOST_NAME: Final = 64
"""Characters that a project's name may have."""

_PYTHONS: Final = {word.lower() for word in (*keyword.kwlist, *sys.stdlib_module_names, "test")}
"""Names of which a package could not be imported, or only in the place of one of Python's own."""

_NAME: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@click.command(short_help="Make a project that runs.")
@click.argument("name")
@debug_option
def new(name: str) -> None:
    """Make a folder NAME with a project: an agent, its tests, and a README that says how to run both."""
    _check(name)
    folder = Path(name)
    if folder.is_symlink() or (folder.exists() and not _is_empty_folder(folder)):
        msg = f"{folder} is there already, and not an empty folder: choose another name, or move it away"
        raise ConfigurationError(msg)
    # Made beside its place and then put there as a whole, so that nothing is there by halves.
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=".") as workshop:
        made = Path(workshop, name)
        for file in FILES:
            _make(made, file, name)
        made.rename(folder)
    say(f"made {name}; now:\n\n  cd {name}\n  python -m autonomy_trio run app:agents\n\nREADME.md has the rest")


def _check(name: str) -> None:
    """Refuse what can be no package's name, and the names of what the project needs: the package, and Python's own."""
    if _NAME.fullmatch(name) is None or len(name) > MOST_NAME:
        shown = name if len(name) <= MOST_NAME else f"{name[:MOST_NAME]}…"
        msg = (
            f"{shown!r} cannot be a project's name: use at most {MOST_NAME} letters, digits, '-', '_' and '.', "
            "a letter first and no sign last, say my-agents"
        )
        raise ConfigurationError(msg)
    if re.sub(r"[._-]+", "-", name).lower() == "autonomy-trio":
        msg = f"{name} is the name of the package that the project needs: choose another, say my-agents"
        raise ConfigurationError(msg)
    module = re.sub(r"[._-]+", "_", name).lower()
    if module in _PYTHONS:
        msg = f"{name} is a word or a module of Python's own: choose another name, say my-agents"
        raise ConfigurationError(msg)


def _is_empty_folder(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None


def _make(folder: Path, file: str, name: str) -> None:
    template = resources.files("autonomy_trio.cli").joinpath("project", f"{file.removeprefix('.')}-tpl")
    made = folder / file
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(template.read_text(encoding="utf-8").replace("{{name}}", name), encoding="utf-8")
