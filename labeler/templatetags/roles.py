"""What somebody is in a project, for templates: a page shows nobody a door that is closed to them."""

from django import template

from labeler.models import Project, User

register = template.Library()


@register.filter
def may_run(user: User, project: Project) -> bool:
    return user.may_run(project)


@register.filter
def may_review(user: User, project: Project) -> bool:
    return user.may_review(project)
