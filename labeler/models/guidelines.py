"""What a project asks of whoever ranks or writes: version after version, and as its readers see it."""

from functools import lru_cache

import nh3
from django.db import models
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

from labeler.models.people import User

# What written guidelines need, and no more: nothing that runs, and nothing that a browser fetches.
READING_TAGS = {
    *("a", "blockquote", "br", "code", "em", "hr", "li", "ol", "p", "pre", "strong", "ul"),
    *("h3", "h4", "h5", "h6", "table", "tbody", "td", "th", "thead", "tr"),
}


@lru_cache(maxsize=128)
def reading(markdown: str) -> SafeString:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    headings = [token for token in tokens if token.type.startswith("heading")]
    # The page has two orders of headings above the guidelines' ones, and no order may be passed over.
    written, order = sorted({token.tag for token in headings}), 2
    for token in headings:
        if token.nesting > 0:
            order = min(written.index(token.tag) + 3, order + 1, 6)
        token.tag = f"h{order}"
    html = parser.renderer.render(tokens, parser.options, {})
    return mark_safe(nh3.clean(html, tags=READING_TAGS, attributes={"a": {"href", "title"}}))


class Guidelines(models.Model):
    """One version of a project's guidelines, kept so that each ranking tells under which it was made."""

    project = models.ForeignKey("Project", models.CASCADE, related_name="guideline_versions")
    number = models.PositiveIntegerField()
    text = models.TextField(blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["project", "number"]
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="a_version_number_once")]

    def __str__(self) -> str:
        return f"guidelines, version {self.number}"

    @property
    def html(self) -> SafeString:
        return reading(self.text)
