"""``module:attribute`` as users type it, resolved to agents."""

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import cast

from autonomy_trio.actors.declare import snake_case
from autonomy_trio.actors.supervision import factories, taken_twice
from autonomy_trio.errors import AutonomyError, ConfigurationError, UsageError
from autonomy_trio.fabric.opening import Entry


def load_agents(target: str) -> list[Entry]:
    """Import a target: a list of agent classes, callables that build one, pools and supervisors; a single one will do.

    Args:
        target: ``module:attribute``; the working folder is importable.

    Raises:
        ConfigurationError: the module or the attribute is not there; the text names the closest.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not _is_dotted(module_name) or not _is_dotted(attribute):
        meant, name = module_name.removesuffix(".py").strip("./ ").replace("/", "."), attribute.strip()
        example = f"{meant if _is_dotted(meant) else 'app'}:{name if _is_dotted(name) else 'agents'}"
        msg = f"{target!r} is no target: write MODULE:ATTRIBUTE, say {example}"
        raise ConfigurationError(msg)
    found = _attribute(_import(module_name, attribute), attribute)
    if isinstance(found, Iterable) and not isinstance(found, (str, type)):
        listed = list(cast("Iterable[object]", found))
    else:
        listed = [found]
    if not listed or found is None:
        state = "None" if found is None else "empty"
        msg = f"{target} is {state}: list at least one agent class, agents = [Counter]"
        raise ConfigurationError(msg)
    entries = cast("list[Entry]", listed)
    building = list(factories(entries))
    for each in building:
        if not _builds_something(each):
            msg = f"{target} {_no_factory(each)}"
            raise ConfigurationError(msg)
    _check_names(target, building)
    return entries


def _check_names(target: str, listed: Iterable[object]) -> None:
    """Refuse two agents that would go by one name; what callables build, only the node can tell."""
    taken: set[str] = set()
    for cls in (each for each in listed if isinstance(each, type)):
        name = snake_case(cls.__name__)
        if name in taken:
            raise taken_twice(target, name, cls.__name__)
        taken.add(name)


def _attribute(module: ModuleType, attribute: str) -> object:
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in vars(module) if not name.startswith("_")]
            close = difflib.get_close_matches(part, names, n=1)
            hint = f"did you mean {module.__name__}:{close[0]}?" if close else _whether_meant(module)
            msg = f"the module {module.__name__!r} has no attribute {part!r}: {hint}"
            raise ConfigurationError(msg)
        found = getattr(found, part)
    return found


def _whether_meant(module: ModuleType) -> str:
    """Ask about a module that has nothing like what was named: a file, a folder, or a part of the interpreter."""
    folders = list(getattr(module, "__path__", ()))
    file = getattr(module, "__file__", None)
    if file is None and folders:
        return f"it is the folder {folders[0]}, without code of its own: name a module in it, say {module.__name__}.app"
    return f"is {file or module.__name__} the right one?"


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _no_factory(found: object) -> str:
    """Say what is wrong with something that cannot be called without arguments; what it holds may be secret."""
    if isinstance(found, type):
        name = found.__name__
        return f"lists {name}, which takes arguments: give its fields defaults, or list a callable, lambda: {name}(…)"
    kind = type(found).__name__
    return f"lists an object of type {kind}: list agent classes, or callables without arguments that build an agent"


def _builds_something(factory: object) -> bool:
    """Tell whether it can be called as a restart will call it, without arguments."""
    if not callable(factory):
        return False
    try:
        inspect.signature(factory).bind()
    except TypeError:
        return False
    except ValueError:  # a callable without a signature can only be tried
        return True
    return True


def _import(name: str, attribute: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            msg = f"the module {name!r} needs {error.name!r}, which is not there: install it, or mend the import"
            raise ConfigurationError(msg) from None
        near = difflib.get_close_matches(name, [path.stem for path in Path.cwd().glob("*.py")], n=1)
        hint = (
            f"did you mean {near[0]}:{attribute}?" if near else f"run this in the folder that has it; {folder} has not"
        )
        msg = f"there is no module {error.name!r}: {hint}"
        raise ConfigurationError(msg) from None
    except UsageError as error:
        msg = f"{error} (at {_declared_at(error)})"
        raise ConfigurationError(msg) from None
    except (Exception, SystemExit) as error:  # fence: the user's module; what it raises is its own failure
        last = traceback.extract_tb(error.__traceback__)[-1]
        file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
        msg = f"the module {name!r} cannot be imported, at {file}:{line}: {type(error).__name__}: {error}"
        raise AutonomyError(msg) from error


def _declared_at(error: UsageError) -> str:
    """Return the line of the user's code that led to an error of ours."""
    ours = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith((ours, "<"))] or frames
    return f"{theirs[-1].filename}:{theirs[-1].lineno}"
