"""Which rollouts of a run are alike, and what it takes to find out."""

import random

from labeler import harvest


def test_jokes_of_one_template_about_two_birds_are_alike():
    about = "Tell a joke about a {}."
    text = "Why is the {} so happy? Because it has the biggest bill of all."
    known = harvest.Alike([(about.format("pelican"), text.format("pelican"))])
    assert known.has(about.format("heron"), text.format("heron"))
    assert known.has(
        about.format("heron"), "Why is the heron so proud? Because it has the largest bill of all."
    )
    assert not known.has(about.format("heron"), "Why did the heron leave the town? It had no boat.")


def written_by_chance(many: int, seed: int = 3) -> list[tuple[str, str]]:
    """Jokes of some templates, with words changed and put in by chance: some are alike, some not."""
    chances, words = random.Random(seed), [f"word{n}" for n in range(400)]
    templates = [chances.choices(words[:60], k=chances.randrange(3, 24)) for _ in range(many // 8)]
    found = []
    for _ in range(many):
        said = list(chances.choice(templates))
        for place in range(len(said)):
            if chances.random() < chances.choice([0.02, 0.2, 0.5]):
                said[place] = chances.choice(words)
        if chances.random() < 0.3:
            said.insert(chances.randrange(len(said)), chances.choice(words))
        found.append((f"About {chances.choice(words)}", " ".join(said)))
    return found


class Slowly:
    """What each text is most like, held against every other: the longest way there is."""

    def __init__(self, prompt_and_texts):
        self.said = [harvest.masked(*each) for each in prompt_and_texts]

    def find(self, prompt, text):
        said = harvest.masked(prompt, text)
        runs, shares = harvest.grams(said), []
        for number, other in enumerate(map(harvest.grams, self.said)):
            both = len(runs & other)
            shares.append((both / (len(runs) + len(other) - both), both, -number))
        best = max(shares, default=(0, 0, 0))
        if best[0] >= harvest.ALIKE:
            return -best[2]
        for number, other in enumerate(self.said):
            same = sum(a == b for a, b in zip(said, other, strict=False))
            if said and len(other) == len(said) and same >= harvest.TEMPLATE * len(said):
                return number
        return None


def test_what_is_alike_is_found_as_if_each_were_held_against_every_other():
    texts = written_by_chance(500)
    for many in (1, 50, 250):
        known, slow = harvest.Alike(texts[:many]), Slowly(texts[:many])
        found = [known.find(*each) for each in texts[250:]]
        assert found == [slow.find(*each) for each in texts[250:]]
    assert 40 < sum(each is not None for each in found) < 210
    assert harvest.Alike([("Joke?", " ")]).find("Joke?", "  ") == 0 and not known.has("Joke?", "")


def test_two_thousand_finds_are_grouped_by_comparing_few_of_them(monkeypatch):
    """All begin and end with the same words, and no two are alike: each with each would be two million."""
    compared = []
    sharing = harvest.Alike._sharing

    def counting(*given):
        compared.append(sharing(*given))
        return compared[-1]

    monkeypatch.setattr(harvest.Alike, "_sharing", staticmethod(counting))
    picked = [
        harvest.Picked(
            "Joke?", f"why did the {' '.join(f'w{n}x{m}' for m in range(9))} cross the road", 9, 0, n,
            0.9, 0.5, 30.0, 1.0, True, ["far"],
        )
        for n in range(2000)
    ]  # fmt: skip
    assert len(harvest.grouped(picked, set())) == 2000
    assert sum(map(len, compared)) < 20 * 2000
