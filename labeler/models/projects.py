"""A project: one thing to get better at, with its guidelines, its starting model and the people who rank."""

from functools import lru_cache
from itertools import chain, count

import nh3
from django.core.validators import slug_re
from django.db import models
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import slugify
from markdown_it import MarkdownIt

from labeler.models.people import User

# What written guidelines need, and no more: nothing that runs, and nothing that a browser fetches.
READING_TAGS = {
    *("a", "blockquote", "br", "code", "em", "hr", "li", "ol", "p", "pre", "strong", "ul"),
    *("h3", "h4", "h5", "h6", "table", "tbody", "td", "th", "thead", "tr"),
}


class ProjectQuerySet(models.QuerySet["Project"]):
    def visible_to(self, user) -> "ProjectQuerySet":
        return self if user.is_admin else self.filter(memberships__user=user)

    def named(self, slug: str) -> "Project":
        """The project at this address; made where there is none yet. ValueError says why it cannot be."""
        if not slug_re.fullmatch(slug) or len(slug) > 60 or slug == "new":
            raise ValueError(f"“{slug}” cannot name a project: use letters, digits, - and _, at most 60.")
        return self.get_or_create(slug=slug, defaults={"name": slug.replace("-", " ").capitalize()})[0]

    def free_slug(self, name: str) -> str:
        """An address for a project of this name: `pelican-jokes`, or `pelican-jokes-2` if that is taken."""
        stem = slugify(name)[:50].strip("-") or "project"
        # /projects/new/ is a page.
        taken = {"new", *self.filter(slug__startswith=stem).values_list("slug", flat=True)}
        return next(slug for slug in chain([stem], (f"{stem}-{n}" for n in count(2))) if slug not in taken)


class Project(models.Model):
    class Judge(models.TextChoices):
        PEOPLE = "people", "People rank the answers"
        CHECKER = "checker", "A checker compares answers with the right one"

    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=60, unique=True)
    judge = models.CharField(max_length=10, choices=Judge, default=Judge.PEOPLE)
    guidelines = models.TextField(blank=True, help_text="Markdown, shown beside every ranking.")
    start = models.ForeignKey(
        "Checkpoint",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="The policy that the first rollouts come from.",
    )
    overlap = models.PositiveSmallIntegerField(default=1, help_text="How many labelers rank each quintet.")
    keep_waiting = models.PositiveSmallIntegerField(
        default=20, help_text="When fewer quintets wait, more rollouts are sampled. 0: never by themselves."
    )
    # {"policy": {"steps": 90, …}, …}: what a new run of this project starts from instead of the default.
    run_defaults = models.JSONField(default=dict, blank=True)
    # [{"kind": "policy", "name": "Let it run off the cliff", "help": "…", "values": {"beta": 0}}, …]
    presets = models.JSONField(default=list, blank=True)
    people = models.ManyToManyField(User, through="Membership", related_name="projects")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("project", args=[self.slug])

    @property
    def guidelines_html(self) -> SafeString:
        """The guidelines as a reader sees them: only what text needs gets through, and nothing is fetched."""
        return _reading(self.guidelines)


@lru_cache(maxsize=128)
def _reading(markdown: str) -> SafeString:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        if token.type.startswith("heading"):
            # The page has a heading of its own above the guidelines' ones.
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
    html = parser.renderer.render(tokens, parser.options, {})
    return mark_safe(nh3.clean(html, tags=READING_TAGS, attributes={"a": {"href", "title"}}))


class Membership(models.Model):
    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_membership_a_project")]

    def __str__(self) -> str:
        return f"{self.user} in {self.project}"
