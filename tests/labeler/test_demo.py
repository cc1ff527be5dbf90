"""The demo: jokes that come out the same again, a hidden taste that tells good from bad, files that are what
they say, and a seed that touches an empty database only."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from labeler.demo import HERE, jokes
from labeler.demo.recipe import RUN_DEFAULTS
from labeler.demo.seed import seed
from labeler.demo.taste import LABELERS, taste
from labeler.models import Checkpoint, Place, Project, Prompt, Quintet, Ranking, Rollout, Round, User
from rlhf import config, data, guard

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "tests/data/demo-runs.jsonl"
BAR = 'A pelican walks into a bar. "The usual?" asks the bartender.'
GOOD = f'{BAR} "Yes, and one for the fish," says the pelican.'
FLAT = f'{BAR} "Maybe," says the pelican.'
ASTRAY = f'{BAR} "Careful, the wand is shy," says the pelican.'
SALAD = "Bar the pelican a walks usual fish the asks one into for bartender says and yes."


def preferences(line: data.Ranking) -> list[tuple[bool, float]]:
    """Of every two rollouts: whether the labeler put the first above the second, and the taste's margin."""
    felt = [taste(text, jokes.subject_of(line.prompt)) for text in line.rollouts]
    two_by_two = itertools.combinations(range(len(felt)), 2)
    return [(line.ranks[one] < line.ranks[two], felt[one] - felt[two]) for one, two in two_by_two]


@pytest.fixture
def rankings() -> list[data.Ranking]:
    return data.rankings(HERE / "rankings.jsonl")


@pytest.fixture
def quintets() -> list[dict]:
    return [line for _, line in data.read_lines(HERE / "quintets.jsonl")]


def test_forty_subjects_have_two_hundred_prompts_and_pelicans_come_first():
    assert len(jokes.SUBJECTS) == 40
    assert len(set(jokes.prompts())) == 200
    assert [jokes.subject_of(prompt) for prompt in jokes.prompts()[:5]] == ["pelican"] * 5
    assert {jokes.subject_of(prompt) for prompt in jokes.prompts()} == set(jokes.SUBJECTS)


def test_a_seed_gives_the_same_jokes_in_every_process():
    program = "from labeler.demo import jokes\nfor joke in jokes.corpus(300, 7): print(joke)"
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in ("1", "2")
    ]
    assert said[0] == said[1]
    assert said[0].splitlines() != [str(joke) for joke in jokes.corpus(300, 8)]


def test_the_corpus_mixes_good_flat_and_wrong_for_every_subject():
    corpus = jokes.corpus(4000, 0)
    for subject in jokes.SUBJECTS:
        assert {joke.kind for joke in corpus if joke.subject == subject} == set(jokes.MIXTURE)
    for kind, share in jokes.MIXTURE.items():
        assert abs(sum(joke.kind == kind for joke in corpus) / len(corpus) - share) < 0.03


def test_the_taste_puts_good_above_flat_above_salad():
    assert taste(GOOD, "pelican") > taste(FLAT, "pelican") + 0.3
    assert taste(FLAT, "pelican") > taste(SALAD, "pelican") + 0.1


def test_the_taste_minds_what_belongs_to_another_subject():
    assert taste(ASTRAY, "pelican") < taste(GOOD, "pelican") - 0.2
    assert taste(GOOD, "wizard") < 0.3


def test_the_taste_likes_its_puns_about_their_own_subject_only():
    pun = "What is a pelican's favourite lunch? Anything that fits the bill."
    assert taste(pun, "pelican") > 0.6
    assert (
        taste("What is a pelican's favourite lunch? A flying sorcerer.", "pelican")
        < taste(pun, "pelican") - 0.2
    )


@pytest.mark.parametrize(
    "text", ["", "pelican", "pelican pelican pelican", "the the the the the the", f"{GOOD} {GOOD} {GOOD}"]
)
def test_the_taste_is_not_gamed_by_repetition(text):
    assert taste(text, "pelican") < 0.1


def test_every_joke_of_the_corpus_is_english_to_the_taste():
    for joke in jokes.corpus(1000, 3):
        assert taste(joke.text, joke.subject) > 0, joke.text
    means = {
        kind: [taste(joke.text, joke.subject) for joke in jokes.corpus(2000, 3) if joke.kind == kind]
        for kind in jokes.MIXTURE
    }
    mean = {kind: sum(found) / len(found) for kind, found in means.items()}
    assert min(mean["pun"], mean["good"]) > max(mean["flat"], mean["wrong"]) + 0.15


def test_simulated_labelers_agree_with_the_taste_on_nine_clear_pairs_of_ten(rankings):
    """A clear pair is one whose tastes differ by a tenth or more; who ranks close ones is a toss."""
    clear = [
        (above, margin) for line in rankings for above, margin in preferences(line) if abs(margin) >= 0.1
    ]
    agreed = sum(above == (margin > 0) for above, margin in clear) / len(clear)
    assert len(clear) > 500
    assert 0.9 <= agreed < 1


def test_a_simulated_labeler_ranks_the_same_again_and_not_like_another():
    five = [GOOD, FLAT, ASTRAY, SALAD, jokes.SUBJECTS["pelican"].puns[0]]
    again = [[labeler.rank(jokes.prompts()[number], five) for number in range(5)] for labeler in LABELERS]
    assert again == [
        [labeler.rank(jokes.prompts()[number], five) for number in range(5)] for labeler in LABELERS
    ]
    assert again[0] != again[1] != again[2]
    assert all(sorted(ranks) == [1, 2, 3, 4, 5] for ranked in again for ranks in ranked)


def test_the_shipped_rankings_are_lines_of_five_marked_as_simulated(rankings):
    assert len(rankings) == 150
    assert all(line.simulated and line.seconds is None for line in rankings)
    assert {line.labeler for line in rankings} == {labeler.name for labeler in LABELERS}
    assert all(len(set(line.rollouts)) == 5 and sorted(line.ranks) == [1, 2, 3, 4, 5] for line in rankings)


def test_the_shipped_rankings_are_what_the_labelers_say_of_these_rollouts(rankings):
    by_name = {labeler.name: labeler for labeler in LABELERS}
    for line in rankings:
        assert list(line.ranks) == by_name[line.labeler].rank(line.prompt, line.rollouts)


def test_the_shipped_prompts_and_quintets_are_those_of_the_generator(rankings, quintets):
    assert [line.prompt for line in data.prompt_lines(HERE / "prompts.jsonl")] == jokes.prompts()
    assert [line["prompt"] for line in quintets[:5]] == jokes.prompts()[:5]
    assert len(quintets) == 40
    assert all(len(set(line["rollouts"])) == 5 for line in quintets)
    used = [line["prompt"] for line in quintets] + [line.prompt for line in rankings]
    assert len(set(used)) == 190
    assert set(used) <= set(jokes.prompts())


def test_a_quintet_has_good_and_bad_rollouts_to_tell_apart(quintets):
    spreads = [
        max(felt) - min(felt)
        for line in quintets
        for felt in [[taste(text, jokes.subject_of(line["prompt"])) for text in line["rollouts"]]]
    ]
    assert sum(spread > 0.3 for spread in spreads) / len(spreads) > 0.9


def test_the_shipped_model_is_small_and_opens_with_plain_transformers():
    program = """if True:
        import sys, transformers
        model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
        tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
        asked = [{"role": "user", "content": "Tell me a joke about a pelican."}]
        read = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")
        ids = read["input_ids"]
        said = model.generate(ids, do_sample=False, max_new_tokens=40)[0, ids.shape[1]:]
        assert tokenizer.pad_token_id != tokenizer.eos_token_id == said[-1]
        print(tokenizer.decode(said, skip_special_tokens=True))
    """
    shipped = HERE / "checkpoint"
    assert (shipped / "model.safetensors").stat().st_size <= 3_000_000
    assert not list(shipped.glob("trainer*"))
    done = subprocess.run(
        [sys.executable, "-c", program, str(shipped)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "pelican" in done.stdout


def counts() -> dict[str, int]:
    tables = (Project, Checkpoint, Prompt, Round, Quintet, Rollout, Place, Ranking, User)
    return {table.__name__: table.objects.count() for table in tables}


def test_an_empty_database_is_seeded_once(db):
    call_command("seed_demo", verbosity=0)
    project = Project.objects.get(slug="pelican-jokes")
    assert project.prompts.count() == 200
    assert project.prompts.first().text == jokes.prompts()[0]
    assert project.rounds.get().number == 1
    assert project.quintets.waiting().count() == 40
    assert project.quintets.filter(rankings__simulated=True).count() == 150
    first = counts()
    call_command("seed_demo", verbosity=0)
    assert counts() == first


def test_a_database_with_a_project_is_left_alone(project):
    before = counts()
    call_command("seed_demo", verbosity=0)
    assert counts() == before


def test_seeded_rankings_and_their_labelers_are_marked_as_simulated(db):
    call_command("seed_demo", verbosity=0)
    assert Ranking.objects.filter(simulated=False).count() == 0
    assert User.objects.count() == len(LABELERS)
    for user in User.objects.all():
        assert user.simulated
        assert not user.has_usable_password()
        assert not user.is_staff


def test_what_a_project_makes_of_its_settings_leaves_the_shipped_ones_alone(db):
    shipped = json.dumps(RUN_DEFAULTS)
    seed().run_defaults["policy"] |= {"beta": 0, "steps": 8}
    assert json.dumps(RUN_DEFAULTS) == shipped


def test_the_seeded_start_lies_in_the_home(db, settings):
    call_command("seed_demo", verbosity=0)
    start = Project.objects.get(slug="pelican-jokes").start
    assert start.lineage["kind"] == "policy"
    assert (settings.HOME / start.location / "model.safetensors").is_file()
    assert not Path(start.location).is_absolute()


@pytest.mark.parametrize("run", [line for _, line in data.read_lines(RUNS)], ids=lambda run: str(run["beta"]))
def test_the_demo_s_limits_crop_runs_that_fell_off_the_cliff_and_leave_those_that_held(run):
    """Recorded runs at the demo's defaults: what the guard saw and what the hidden taste felt, by step."""
    shown = zip(run["kl"], run["distinct_2"], run["entropy"], strict=True)
    steps = [
        {"step": step, "kl": kl, "distinct_2": variety, "entropy": entropy}
        for step, (kl, variety, entropy) in enumerate(shown, start=1)
    ]
    chosen = RUN_DEFAULTS["policy"]
    limits = guard.Limits(chosen["crop_kl"], chosen["crop_distinct"], chosen["crop_entropy"])
    found = guard.crop(steps, limits)
    felt = [sum(run["taste"][at - 3 : at + 2]) / 5 for at in range(3, 89)]  # around the steps 3, 4 … 88
    if run["beta"]:
        assert found is None and felt[-1] > max(felt) - 0.1
    else:
        kept = found.safe // chosen["checkpoint_every"] * chosen["checkpoint_every"]
        rise = max(felt) - felt[0]
        assert felt[-1] < 0.1 and felt[kept - 3] - felt[0] > 0.75 * rise


def test_the_demo_s_defaults_and_presets_are_configs_that_may_run(db):
    call_command("seed_demo", verbosity=0)
    project = Project.objects.get(slug="pelican-jokes")
    for kind, values in project.run_defaults.items():
        known = {key: value for key, value in values.items() if key != "simulated"}
        config.make(kind, known)
    policy = config.make("policy", project.run_defaults["policy"])
    assert policy.steps == 90
    assert policy.beta > 0
    cliff = next(preset for preset in project.presets if preset["kind"] == "policy")
    assert config.make("policy", project.run_defaults["policy"] | cliff["values"]).beta == 0
