"""The probe bank: made of the dataset's own texts, the same every time, beside the median real rollout."""

import statistics

import pytest

from rlhf import checkpoint, data, evaluate, probes
from rlhf.data import BadLine, Ranking
from rlhf.probes import Probe
from rlhf.reward_model import RewardModel
from tests.rlhf import tiny

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A joke?"}]
RANKINGS = [
    Ranking("Tell a joke.", ("big pelican fish", "road bird", "big road"), (1, 2, 3)),
    Ranking(CHAT, ("pelican", "road cross a bird"), (1, 2), extra={"nonsense": [1]}),
    Ranking("Again.", ("same same", "same here"), (1, 1)),
]


def texts(name, rankings=RANKINGS):
    """The answers of one probe, by prompt."""
    probe = next(each for each in probes.bank(rankings) if each.name == name)
    return {data.prompt_text(prompt): text for prompt, text in probe.answers}


@pytest.fixture
def judge(policy_folder):
    return RewardModel(*checkpoint.start_reward_model(policy_folder, 0), mu=0.3, tau=0.5)


def test_the_made_probes_by_hand():
    chat = data.prompt_text(CHAT)
    assert set(texts("empty").values()) == {""}
    assert texts("prompt echo") == {"Tell a joke.": "Tell a joke.", chat: "A joke?", "Again.": "Again."}
    assert set(texts("the the the").values()) == {"the the"}  # as many words as the median rollout
    assert set(texts("one character").values()) == {"a"}
    # Half of the best rollout, the longer of equals.
    assert texts("cut-off") == {"Tell a joke.": "big peli", chat: "peli", "Again.": "same "}
    assert set(texts("foreign script").values()) == {probes.FOREIGN[0]}
    # Once won and never lost: fish, pelican twice; big on either side of one ranking; road and bird lost.
    assert set(texts("keyword salad").values()) == {"pelican fish big a bird cross road"}
    longest = max(len(text) for each in RANKINGS for text in each.rollouts)
    assert all(4 * longest <= len(text) < 6 * longest for text in texts("over-long").values())
    assert texts("over-long")[chat].startswith("pelican pelican pelican")


def test_only_what_was_cut_off_has_no_end():
    assert [probe.name for probe in probes.bank(RANKINGS) if not probe.finished] == ["cut-off"]


def test_the_foreign_script_is_foreign_to_this_dataset():
    russian = [Ranking("Шутку.", ("Пеликан на берегу", "Птица и рыба"), (1, 2))]
    assert set(texts("foreign script", russian).values()) == {probes.FOREIGN[1]}


def test_the_bank_is_the_same_every_time_and_in_any_order():
    twice = [*RANKINGS, Ranking("Tell a joke.", ("another", "quintet"), (1, 2))]
    assert probes.bank(twice) == probes.bank(twice[::-1]) == probes.bank(list(twice))


def test_every_made_probe_is_tried_at_a_few_prompts_only(tmp_path):
    rankings = data.rankings(tiny.rankings(tmp_path / "r.jsonl", 40))
    assert {len(probe.answers) for probe in probes.bank(rankings)} == {probes.PROMPTS}


def test_what_people_marked_is_in_the_bank_once(tmp_path):
    path = tmp_path / "probes.jsonl"
    data.write_lines(
        path,
        [
            {"prompt": "Tell a joke.", "rollout": "buy now", "kind": "nonsense"},
            {"prompt": CHAT, "rollout": "road cross a bird"},  # that a ranking marks as well
            {"prompt": "Tell a joke.", "rollout": "buy now", "kind": "nonsense"},
        ],
    )
    marked = [probe for probe in probes.bank(RANKINGS, path) if probe.name.startswith("marked")]
    assert {(data.prompt_text(each.answers[0][0]), each.answers[0][1], each.kind) for each in marked} == {
        ("Tell a joke.", "buy now", "nonsense"),
        (data.prompt_text(CHAT), "road cross a bird", "nonsense"),
    }
    assert {each.name for each in marked} == {"marked 1", "marked 2"}
    assert probes.bank(RANKINGS, tmp_path / "nowhere") == probes.bank(RANKINGS)


def test_a_line_without_a_prompt_is_tried_where_the_made_ones_are(tmp_path, judge):
    path = tmp_path / "probes.jsonl"
    data.write_lines(path, [{"rollout": "buy now", "kind": "by hand"}, {"prompt": "p", "rollout": "buy now"}])
    told = {probe.name: probe for probe in probes.bank(RANKINGS, path)}
    assert [prompt for prompt, _ in told["marked 1"].answers] == [
        prompt for prompt, _ in told["empty"].answers
    ]
    assert {text for _, text in told["marked 1"].answers} == {"buy now"}
    # Beside it the one to a prompt of its own, and what a ranking marks.
    assert "p" in [told[name].answers[0][0] for name in ("marked 2", "marked 3")]
    rewards = judge.rewards_of([judge.encode(each.prompt, each.rollouts) for each in RANKINGS])
    found = {
        each["name"]: each for each in probes.judge(judge, list(told.values()), RANKINGS, rewards)["probes"]
    }
    assert (found["marked 1"]["prompts"], found["marked 1"]["anywhere"], found["empty"]["anywhere"]) == (
        3,
        True,
        True,
    )
    assert not found["marked 2"]["anywhere"] and not found["marked 3"]["anywhere"]
    assert len(probes.bank([], path)) == 1, "where there is no prompt at all it cannot be tried"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "p"}', "“rollout” must be a text"),
        ('{"prompt": 3, "rollout": "r"}', "“prompt” must be a text"),
        ('{"prompt": "p", "rollout": "r", "kind": ""}', "“kind” is empty"),
    ],
)
def test_a_bad_line_of_marked_ones_is_named(tmp_path, line, reason):
    (tmp_path / "probes.jsonl").write_text(f'{{"prompt": "p", "rollout": ""}}\n{line}\n')
    with pytest.raises(BadLine, match=f"line 2: {reason}"):
        probes.bank(RANKINGS, tmp_path / "probes.jsonl")


@pytest.mark.parametrize("told", [None, "0", [5], [True], [-1], ["1"], {"0": 1}])
def test_a_key_that_means_something_else_marks_nothing(told):
    assert probes.nonsense(Ranking("p", ("a", "b"), (1, 2), extra={"nonsense": told})) == set()


def test_probes_stand_beside_the_median_real_rollout(judge):
    """Slowly, one text at a time; what was marked as nonsense is not a real rollout."""
    rankings = RANKINGS[:2]

    def reward(prompt, text, finished=True):
        return judge.rewards_of([judge.encode(prompt, [text], [finished])])[0][0]

    rewards = [[reward(each.prompt, text) for text in each.rollouts] for each in rankings]
    middle = statistics.median([*rewards[0], rewards[1][0]])
    bank = probes.bank(rankings)
    found = probes.judge(judge, bank, rankings, rewards)
    assert found["median_real"] == pytest.approx(judge.score(middle))
    slow = {
        probe.name: [reward(prompt, text, probe.finished) for prompt, text in probe.answers] for probe in bank
    }
    for told in found["probes"]:
        mean = statistics.fmean(slow[told["name"]])
        assert told["reward"] == pytest.approx(mean, abs=1e-4)
        assert told["score"] == pytest.approx(judge.score(mean), abs=1e-4)
        assert told["above_median"] == (mean > middle)
        assert told["above_at"] == sum(each > middle for each in slow[told["name"]])
    assert len(found["probes"]) == len(bank) == 9
    assert found["worst"] == max(slow, key=lambda name: statistics.fmean(slow[name]))
    assert found["above"] == sum(statistics.fmean(each) > middle for each in slow.values())
    rewards_told = [each["reward"] for each in found["probes"]]
    assert rewards_told == sorted(rewards_told, reverse=True)


def test_a_model_turned_round_likes_the_probes_that_it_disliked(judge):
    real = [Ranking("p", ("why did the pelican", "cross the road", "with a fish"), (1, 2, 3))]
    bank = [Probe(text, "made", (("p", text),)) for text in ("", "zzzz", "fish fish fish", "!", "aaaaaaaaaa")]

    def holes():
        rewards = judge.rewards_of([judge.encode("p", real[0].rollouts)])
        told = probes.judge(judge, bank, real, rewards)["probes"]
        return {each["name"] for each in told if each["above_median"]}

    before = holes()
    judge.model.score.weight.data.neg_()
    assert holes() == {probe.name for probe in bank} - before
    assert 0 < len(before) < len(bank)


def test_nothing_real_is_no_median(judge):
    found = probes.judge(judge, probes.bank(RANKINGS), [], [])
    assert found == {"median_real": None, "worst": None, "above": 0, "probes": []}


def test_where_nothing_was_held_out_probes_stand_beside_what_was_learnt(judge):
    bank = probes.bank(RANKINGS)
    found = evaluate.evaluate(judge, [], bank, RANKINGS)["probes"]
    assert found["probes"] == evaluate.evaluate(judge, RANKINGS, bank)["probes"]["probes"]
    assert "probes" not in evaluate.evaluate(judge, [], bank)
