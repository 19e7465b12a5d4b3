"""``module:attribute`` as users type it, resolved to agents."""

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from autonomy_trio.errors import AutonomyError, ConfigurationError


def load_agents(target: str) -> list[Callable[[], Any]]:
    """Import a target: a list of agent classes, or of callables that build one; a single one will do.

    Args:
        target: ``module:attribute``; the working folder is importable.

    Raises:
        ConfigurationError: the module or the attribute is not there; the text names the closest.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        msg = f"{target!r} is no target: write MODULE:ATTRIBUTE, say app:agents"
        raise ConfigurationError(msg)
    module = _import(module_name)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [name for name in vars(module) if not name.startswith("_")], n=1)
            hint = f"; did you mean {module_name}:{close[0]}?" if close else ""
            msg = f"the module {module_name!r} has no attribute {part!r}{hint}"
            raise ConfigurationError(msg)
        found = getattr(found, part)
    agents = list(found) if isinstance(found, Iterable) and not isinstance(found, (str, type)) else [found]
    if not agents:
        msg = f"{target} is empty: list at least one agent class"
        raise ConfigurationError(msg)
    for each in agents:
        if not _builds_something(each):
            msg = f"{target} has {each!r}, which is neither an agent class nor a callable without arguments that builds an agent"
            raise ConfigurationError(msg)
    return agents


def _builds_something(factory: object) -> bool:
    """Tell whether it can be called as a restart will call it: without arguments."""
    if not callable(factory):
        return False
    try:
        inspect.signature(factory).bind()
    except TypeError:
        return False
    except ValueError:  # a callable without a signature can only be tried
        return True
    return True


def _import(name: str) -> Any:  # noqa: ANN401 - a module of the user's
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            msg = f"{name} needs the module {error.name!r}, which is not installed"
            raise ConfigurationError(msg) from None
        near = difflib.get_close_matches(name, [path.stem for path in Path.cwd().glob("*.py")], n=1)
        hint = f"did you mean {near[0]}?" if near else f"it is looked for in {folder} and among what is installed"
        msg = f"there is no module {error.name!r}: {hint}"
        raise ConfigurationError(msg) from None
    except AutonomyError:
        raise
    except Exception as error:  # noqa: BLE001 - fence: the user's module; whatever it raises is shown as its own failure
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno}" if not isinstance(error, SyntaxError) else f"{error.filename}:{error.lineno}"
        msg = f"the module {name!r} failed to import, at {place}: {type(error).__name__}: {error}"
        raise AutonomyError(msg) from None
