"""Two rounds of the demo at β = 0 with a harvest each: does what was confirmed still fool the next reward
model, and does a policy find something else that does?

Everything goes through the web pages and the real worker, simulated labelers in place of people. One person
confirms every find. Both rounds start from the shipped model with the same seed, so that only the reward
model differs. The figures are read off the page of the harvest.
"""

import html
import re
from typing import Any

from benchmarks import seeds
from benchmarks.demo_loop import PROJECT, carried_out, waited
from benchmarks.installation import Unexpected, Visitor, installation
from benchmarks.report import Figures, Rows
from benchmarks.seeds import SEEDS

HARVEST, ROUNDS = f"/harvests/{PROJECT}/", f"/rounds/{PROJECT}/"


def measure(many: int = SEEDS) -> tuple[Figures, Rows]:
    figures: Figures = {"seeds": [story(seed) for seed in range(many)]}
    rows = [
        (f"seed {seed}, round {number}", "   ".join(f"{name} {value}" for name, value in told.items()))
        for seed, rounds in enumerate(figures["seeds"])
        for number, told in enumerate(rounds, start=1)
    ]
    return figures, rows


def story(seed: int) -> list[dict[str, Any]]:
    """Both rounds as the page tells them in the end, and of each the find that stood for most."""
    with installation() as quintet:
        admin = Visitor(quintet.url).sign_in()
        examples = [played(admin, number, str(seed)) for number in (1, 2)]
        told = score(admin.get(HARVEST).body)
    return [row | {"example": example} for row, example in zip(told, examples, strict=True)]


def played(admin: Visitor, number: int, seed: str) -> str:
    """One round: what is to be ranked, a reward model, a policy without a pull, and its harvest."""
    if number > 1:
        press(admin, ROUNDS, f"{number - 1}/close/")
        carried_out(admin, "rollouts", seed=seed)
    press(admin, ROUNDS, "simulate/")
    waited(admin, ROUNDS, lambda page: "every 2s" not in page.body)
    carried_out(admin, "reward", simulated="on", seed=seed)
    policy, _ = carried_out(admin, "policy", beta="0", seed=seed)
    press(admin, HARVEST, "look/", run=policy.strip("/").rpartition("/")[2])
    page = waited(admin, HARVEST, lambda page: "every 2s" not in page.body)
    first = re.search(r'<p class="say small" dir="auto">(.*?)</p>', page.body, re.S)
    while offered := re.findall(r'id="find-(\d+)"', page.body):
        for find in offered:
            press(admin, HARVEST, f"{find}/", action="confirm")
        page = admin.get(HARVEST)
    return " ".join(html.unescape(first[1]).split()) if first else ""


def press(admin: Visitor, page: str, button: str, **sent: str) -> None:
    token = admin.get(page).form("csrfmiddlewaretoken")["csrfmiddlewaretoken"]
    answer = admin.post(page + button, sent | {"csrfmiddlewaretoken": token})
    if answer.status != 302:
        raise Unexpected(f"{page}{button} was answered with status {answer.status}.")


def score(body: str) -> list[dict[str, Any]]:
    """The table of the score, the first round first."""
    found = []
    for row in re.findall(r"<tr>(.*?)</tr>", body.partition('id="score"')[2].partition("</table>")[0], re.S):
        cells = re.findall(r'data-name="([^"]*)">(.*?)</td>', row, re.S)
        said = {name: " ".join(re.sub(r"<[^>]*>", " ", value).split()) for name, value in cells}
        if said:
            found.append({name.lower(): html.unescape(value) for name, value in said.items()})
    if len(found) != 2:
        raise Unexpected(f"The harvest tells of {len(found)} rounds and not of two.")
    return found[::-1]


if __name__ == "__main__":
    about = "Two rounds of the demo at β = 0 with a harvest each, as the page tells them."
    seeds.main("harvest", about, measure)
