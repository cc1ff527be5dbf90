"""What axe-core finds wrong with a page, in words: WCAG 2.2 AA, in the theme and the state in which it is.

    from tests.browser import axe
    axe.check(page)                          # fails the test, naming the rule, the element and the reason
    axe.check(page, within="#quintet")       # only a part of it

axe-core comes with the wheel `axe-playwright-python`. It is evaluated in the page from outside, because the
content security policy lets no foreign script in. Left out: what no program can see, such as whether words
make sense."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from playwright.sync_api import Page

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Rules of good practice that a page of one form, or one that is swapped in parts, need not follow.
LEFT_OUT = {"region": {"enabled": False}}
RUN = """async ([within, options]) => {
  const found = await axe.run(within || document, options);
  return found.violations.map(rule => ({ rule: rule.id, help: rule.help, impact: rule.impact,
    nodes: rule.nodes.map(node => [node.target.join(" "), node.failureSummary]) }));
}"""


@cache
def script() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def faults(page: Page, within: str = "", only: Sequence[str] = ()) -> list[str]:
    """One line a rule and element that it found, by all rules or by these; empty where nothing is wrong."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(script())
    rules = {"type": "rule", "values": list(only)} if only else {"type": "tag", "values": TAGS}
    options = {"runOnly": rules, "rules": LEFT_OUT, "resultTypes": ["violations"]}
    found = page.evaluate(RUN, [within, options])
    return [
        f"{rule['rule']} ({rule['impact']}): {rule['help']} at {target}\n{why}"
        for rule in found
        for target, why in rule["nodes"]
    ]


def check(page: Page, within: str = "") -> None:
    wrong = faults(page, within)
    assert not wrong, f"{page.url}\n" + "\n".join(wrong)
