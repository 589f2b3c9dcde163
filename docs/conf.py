"""The documentation site: `sphinx-build -W -n --keep-going docs OUTPUT`, which must end without a warning.

The guides are the Markdown files beside this one; the pages under reference/ say which docstrings stand where.
"""

# ruff: noqa: INP001  # Sphinx loads this file by its path; it belongs to no package

from __future__ import annotations

import builtins
import re
from typing import Any, Final

from docutils.nodes import Element, TextElement, document, literal, reference, title  # type: ignore[import-untyped]  # it has no types
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata, stringify_annotation

import chatscope
import chatscope.simulator
import chatscope.telemetry.observer

project = "chatscope"
author = "the chatscope contributors"
release = version = chatscope.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = True
default_role = "code"  # the docstrings write code in single backquotes, as Markdown does

myst_heading_anchors = 3  # headings that links may name, by GitHub's rules
autodoc_default_options = {"undoc-members": True}  # fields, whose names and types say it all
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
toc_object_entries = False

nitpick_ignore_regex = [
    # Documented elsewhere, and intersphinx would need the network at every build.
    (r"py:(class|exc)", r"(anyio|collections(\.abc)?|datetime|httpx|opentelemetry\.\w+|os|ssl|types)\.[A-Za-z]\w*"),
    (r"py:class", r"msgspec\.Meta"),
    (r"py:class", r"chatscope\.output\.T|chatscope\.policy\.retry\._T|_P"),  # type variables
]

html_theme = "furo"
html_theme_options = {"light_css_variables": {"code-font-size": "75%"}}  # so that 96 columns fit
html_title = f"chatscope {release}"
html_copy_source = False
html_show_copyright = False
html_show_sourcelink = False
html_show_sphinx = False

_NOT_MADE_BY_USERS: Final = re.compile(
    r"chatscope\.(ChatStream|ChatTask|EventStream|ParsedStream|Result|ResultStream|TextStream)"
    r"|chatscope\.(Chunk|Completion|ParsedCompletion|Usage|protocol\.response\.\w+)"
    r"|chatscope\.(sending\.Reply|httpx2_client\.HTTPClient|simulator\.(ChatRequest|Received|Simulator|request\.\w+))"
    r"|chatscope\.testing\.(ChatSimulator|ReceivedRequest|respx\.\w+)"
    r"|chatscope\.(Platform|TaskStatus|TaskType|\w+Error)"
)
"""Classes that users get from somewhere: what their constructors take is no concern of theirs."""

_NAMED: Final = {
    stringify_annotation(kind, "smart"): f"~{name}"
    for name, kind in {
        "chatscope.Message": chatscope.Message,
        "chatscope.StreamEvent": chatscope.StreamEvent,
        "chatscope.simulator.Script": chatscope.simulator.Script,  # before the next, which is a part of it
        "chatscope.simulator.Answer": chatscope.simulator.Answer,
        "chatscope.telemetry.Telemetry": chatscope.telemetry.observer.Observer,  # the protocol behind it
    }.items()
}
"""Unions that signatures spell out, and what users know them as."""

_PUBLIC: Final = re.compile(rf"(({'|'.join({*chatscope.__all__} - {'content'})})|chatscope\.[\w.]+\.[A-Z]\w*)(\.\w+)*")


def _signature(
    _app: Sphinx, what: str, name: str, _object: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """Return a signature without what only concerns the package or Sphinx; `None` leaves it as it is."""
    if not signature:
        return None
    if what in {"class", "exception"} and _NOT_MADE_BY_USERS.fullmatch(name) and name != "chatscope.ChatError":
        return "", returns
    signature = signature.replace("<factory>", "...")  # which is no Python, and no such signature could be read
    for union, known_as in _NAMED.items():
        signature = signature.replace(union, known_as)
        returns = returns and returns.replace(union, known_as)
    return signature, returns


def _docstring(_app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon in an attribute's docstring for a type."""
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # an empty comment


def _links(app: Sphinx, doctree: document) -> None:
    """Link public names that stand in the text as code, so that the build checks them; unlink built-in types.

    Sphinx would link the latter to attributes of the same names, such as `type` and `bytes`.
    """
    for node in list(doctree.findall(pending_xref)):
        if node.get("refdomain") == "py" and hasattr(builtins, node["reftarget"]):
            node.replace_self(node.children)
    for code in list(doctree.findall(literal)):
        text = code.astext()
        if _PUBLIC.fullmatch(text) and not isinstance(code.parent, title | reference | pending_xref):
            target = text if text.startswith("chatscope.") else f"chatscope.{text}"
            link = pending_xref("", refdoc=app.env.docname, refdomain="py", reftype="obj", reftarget=target)
            code.replace_self(link)
            link += code


def _find_public(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: TextElement) -> Element | None:
    """Resolve a name that a module of its own uses for what is public as `chatscope.<name>`."""
    if node.get("refdomain") != "py" or "." in node["reftarget"]:
        return None
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], f"chatscope.{node['reftarget']}", node, content
    )


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect the functions above; called by Sphinx."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon, at 500
    app.connect("doctree-read", _links)
    app.connect("missing-reference", _find_public)
    return {"parallel_read_safe": True}
