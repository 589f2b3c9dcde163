"""The documentation site: `sphinx-build -W -n --keep-going docs OUTPUT` must end without a warning.

The guides are the Markdown files in this folder. The pages in reference/ select the docstrings to show.
"""

# ruff: noqa: INP001  # Sphinx loads this file by its path; it is not in a package

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from typing import Any, Final

import click
from docutils.nodes import (  # type: ignore[import-untyped]  # it has no types
    Element,
    Node,
    Text,
    TextElement,
    document,
    literal,
    literal_block,
    make_id,
    reference,
    section,
    title,
)
from sphinx.addnodes import desc_addname, index, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger
from sphinx.util.typing import ExtensionMetadata, stringify_annotation

import chatscope
import chatscope.simulator
import chatscope.telemetry.observer
from chatscope.cli.commands import chatscope as chatscope_command

_log: Final = getLogger(__name__)

project = "chatscope"
author = "the chatscope contributors"
release = version = chatscope.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
nitpicky = True
default_role = "code"  # docstrings write code in single backquotes, as Markdown does

myst_enable_extensions = ["colon_fence"]
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"
myst_heading_anchors = 3  # links may name headings of these levels, by GitHub's rules
autodoc_default_options = {"undoc-members": True}  # fields whose names and types are enough
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
toc_object_entries = False

nitpick_ignore_regex = [
    # Documented elsewhere; intersphinx would need the network in every build.
    (r"py:(class|exc)", r"(anyio|collections(\.abc)?|datetime|httpx2?|os|pathlib|ssl|types)\.[A-Za-z]\w*"),
    (r"py:(class|exc)", r"opentelemetry\.\w+\.[A-Za-z]\w*"),
    (r"py:class", r"msgspec\.Meta"),
    (r"py:class", r"(chatscope\.\w+\.\w+\.)?(_?[TP]|OutputT)"),  # type variables
    # Internal types in public signatures.
    (r"py:class", r"chatscope\.(protocol\.headers\.ResponseHeaders|transport\.base\.TimedStream)"),
    (r"py:class", r"chatscope\.telemetry\.observer\.Observer"),
    (r"py:class", r"chatscope\.(_limits\.timeouts\.HTTPXTimeout|batch\.requests\.ParsedRow)"),
]

html_theme = "furo"
html_theme_options = {"light_css_variables": {"code-font-size": "75%"}}  # so that 96 columns fit
html_title = f"chatscope {release}"
html_copy_source = False
html_show_copyright = False
html_show_sourcelink = False
html_show_sphinx = False

HELP_COLUMNS: Final = 88
"""So that the help fits beside the navigation."""

_NOT_MADE_BY_USERS: Final = re.compile(
    r"chatscope\.(ChatStream|ChatTask|EventStream|ParsedStream|Result|ResultStream|StepStream|TaskId|TextStream|ToolStream)"
    r"|chatscope\.batch\.Batch(Progress|Result|Run|Summary)|chatscope\.(Chunk|Completion|Usage|protocol\.response\.\w+)"
    r"|chatscope\._\w+\.\w+\.\w+|chatscope\.simulator\.(ChatRequest|Received|Simulator|request\.\w+)"
    r"|chatscope\.testing\.(ChatSimulator|ReceivedRequest|respx\.\w+)"
    r"|chatscope\.(Platform|TaskStatus|TaskType|\w+Error)"
)
"""Classes that users receive but never construct. Their constructors' arguments are not shown."""

_NAMED: Final = {
    stringify_annotation(kind, "smart"): f"~{name}"
    for name, kind in {
        "chatscope.Message": chatscope.Message,
        "chatscope.StreamEvent": chatscope.StreamEvent,
        "chatscope.simulator.Script": chatscope.simulator.Script,  # before `Answer`, which is a part of it
        "chatscope.simulator.Answer": chatscope.simulator.Answer,
        "chatscope.telemetry.Telemetry": chatscope.telemetry.observer.Observer,  # the protocol behind it
    }.items()
}
"""Unions, with the public names that signatures show instead of them."""

_PRIVATE: Final = re.compile(r"chatscope\._")
_PRIVATE_PLACE: Final = re.compile(r" in chatscope\._[\w.]+")

_PUBLIC: Final = re.compile(rf"(({'|'.join({*chatscope.__all__} - {'content'})})|chatscope\.[\w.]+\.[A-Z]\w*)(\.\w+)*")


def _signature(
    _app: Sphinx, what: str, name: str, _object: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """Return a signature without internal details; `None` keeps it."""
    if not signature:
        return None
    if what in {"class", "exception"} and _NOT_MADE_BY_USERS.fullmatch(name) and name != "chatscope.ChatError":
        return "", returns
    signature = signature.replace("<factory>", "...")  # Sphinx cannot parse `<factory>`
    for union, known_as in _NAMED.items():
        signature = signature.replace(union, known_as)
        returns = returns and returns.replace(union, known_as)
    return signature, returns


def _docstring(_app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading the words before a colon in an attribute's docstring as its type."""
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # an empty comment


def _links(app: Sphinx, doctree: document) -> None:
    """Link public names that the text writes as code, so the build checks them, and hide private modules.

    Also unlink built-in types, because Sphinx links them to attributes of the same name, such as `type` and `bytes`.
    """
    for path in list(doctree.findall(desc_addname)):
        if _PRIVATE.match(path.astext()):
            path.parent.remove(path)
    for node in doctree.findall(index):
        node["entries"] = [(kind, _PRIVATE_PLACE.sub("", text), *rest) for kind, text, *rest in node["entries"]]
    for text in list(doctree.findall(Text)):
        if _PRIVATE.match(text) and text.replace(".", "").isidentifier():
            text.parent.replace(text, Text(text.rpartition(".")[2]))
        elif _PRIVATE.search(text):
            _log.warning("the page %s shows a private module: %r", app.env.docname, str(text))
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
    """Resolve a name used inside the package to the public `chatscope.<name>`."""
    if node.get("refdomain") != "py" or "." in node["reftarget"]:
        return None
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], f"chatscope.{node['reftarget']}", node, content
    )


class CommandHelp(SphinxDirective):
    """`command-help`: a section for each command, with the help that it prints."""

    def run(self) -> list[Node]:
        """Return the sections."""
        settings = chatscope_command.context_settings
        root = click.Context(chatscope_command, info_name="chatscope", **settings)
        return list(self._sections(chatscope_command, root))

    def _sections(self, command: click.Command, context: click.Context) -> Iterator[Node]:
        name = context.command_path
        node = section("", title("", name), ids=[make_id(name)], names=[name])
        context.max_content_width = HELP_COLUMNS
        text = command.get_help(context)
        node += literal_block(text, text, language="text")
        yield node
        if isinstance(command, click.Group):
            for each, subcommand in sorted(command.commands.items()):
                yield from self._sections(subcommand, click.Context(subcommand, parent=context, info_name=each))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect the functions above. Sphinx calls this."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon, at 500
    app.connect("doctree-read", _links)
    app.connect("missing-reference", _find_public)
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
