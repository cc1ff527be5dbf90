"""Prompts and rollouts as Markdown, where a project says so: sanitised, and with nothing left out.

What a model wrote is judged by what it says, so whatever this does not render stays readable as its source:
links and images (nothing is fetched, nothing leads away), HTML, and maths, which is shown in the style of
code. Guidelines, which people wrote to be read, are rendered in models/guidelines.py."""

import re
from functools import lru_cache

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

TAGS = {
    *("blockquote", "br", "code", "del", "em", "hr", "li", "ol", "p", "pre", "s", "strong", "ul"),
    *("table", "tbody", "td", "th", "thead", "tr"),
}
CLASSES = {"p": {"head"}, "code": {"maths"}}
# Dollars count as maths where no blank follows the first or precedes the last, so that prices stay prices.
MATHS = re.compile(
    r"\$\$.{1,2000}?\$\$|\\\[.{1,2000}?\\\]|\\\(.{1,2000}?\\\)"
    r"|\$(?![\s$])(?:[^$\n\\]|\\.){1,500}?(?<![\s\\])\$(?!\d)",
    re.DOTALL,
)


def maths(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    found = MATHS.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    if not silent:
        token = state.push("code_inline", "code", 0)
        token.content = found[0]
        token.attrSet("class", "maths")
    state.pos = found.end()
    return True


def parser() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    made.disable(["link", "autolink", "image", "reference"])
    made.inline.ruler.before("escape", "maths", maths)
    return made


@lru_cache(maxsize=512)
def rendered(text: str) -> SafeString:
    """`text` as HTML that may stand in a page. Its headings are no headings of the page."""
    made = parser()
    tokens = made.parse(text)
    for token in tokens:
        if token.type.startswith("heading"):
            token.tag = "p"
            if token.nesting > 0:
                token.attrSet("class", "head")
    html = made.renderer.render(tokens, made.options, {})
    return mark_safe(nh3.clean(html, tags=TAGS, attributes={"ol": {"start"}}, allowed_classes=CLASSES))
