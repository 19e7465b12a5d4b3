"""How Sphinx builds these pages: `nox -s docs`."""

import importlib.metadata
from typing import TYPE_CHECKING, Final

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.pycode import ModuleAnalyzer

import autonomy_trio
from autonomy_trio import errors, testing

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "autonomy_trio"
author = "the autonomy_trio authors"
release = importlib.metadata.version("autonomy-trio")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinxcontrib_trio",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "autonomy_trio"
html_show_copyright = False

default_role = "literal"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"

# Types of others: their inventories would have to be fetched from the network at each build.
nitpick_ignore_regex = [
    (r"py:.*", r"(trio|attrs|collections|contextlib|pathlib|structlog|typing)\..*"),
    (r"py:class", r"(.*\.)?([A-Z](_co)?|Ts)"),  # type variables
    (r"py:class", r"(.*\.)?(Interceptor|Policies|Pool|Spec|Supervise)"),  # handed on and never looked into
]

_HOMES: Final = {
    **dict.fromkeys(autonomy_trio.__all__, "autonomy_trio"),
    **dict.fromkeys(testing.__all__, "autonomy_trio.testing"),
    **{name: "autonomy_trio.errors" for name, found in vars(errors).items() if isinstance(found, type)},
}
"""Where each public name is documented; annotations name the module that defines it."""
_as_written: Final[dict[str, list[str]]] = {}


def resolve_public_name(
    app: "Sphinx", environment: "BuildEnvironment", node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Point a reference to a public name's defining module, or to its bare name, to where it is documented."""
    target = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in _HOMES or target == f"{_HOMES[name]}.{name}":
        return None
    domain = environment.domains.python_domain
    return domain.resolve_xref(  # type: ignore[return-value]
        environment, node["refdoc"], app.builder, "obj", f"{_HOMES[name]}.{name}", node, content
    )


def keep(app: "Sphinx", what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Keep the text of a field or property: napoleon takes one whose first line has a colon for a type and a text."""
    if what in {"attribute", "property"}:
        _as_written[name] = lines.copy()


def put_back(app: "Sphinx", what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Put back what `keep` kept."""
    if name in _as_written:
        lines[:] = _as_written.pop(name)


def setup(app: "Sphinx") -> None:
    """Register what this file adds."""
    # Its overloads are for type checkers; readers get the one signature that the page writes by hand.
    source = ModuleAnalyzer.for_module("autonomy_trio.actors.declare")
    source.analyze()
    del source.overloads["on"]
    app.connect("missing-reference", resolve_public_name)
    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", put_back, priority=600)
