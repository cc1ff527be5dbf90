"""The commands as people type them: what they make, what they print, and one line where they refuse."""

import json
import os
import subprocess
import sys

import pytest

from rlhf import checkers, checkpoint, config, data
from rlhf.__main__ import main
from rlhf.run import RunDirectory
from rlhf.train_reward import train
from tests.rlhf import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained reward model and the rankings that it learnt from."""
    folder = tmp_path_factory.mktemp("trained")
    dataset = tiny.rankings(folder / "rankings.jsonl")
    start = tiny.policy(folder / "start")
    path = tiny.run_directory(folder / "run", "reward", start, dataset, learning_rate=3e-3, epochs=2)
    return path / train(RunDirectory(path), config.read(path)).checkpoint, dataset


@pytest.fixture
def say(capfd):
    """Run a command here: its status, and what it printed."""

    def said(*arguments):
        capfd.readouterr()
        try:
            status = main([str(each) for each in arguments])
        except SystemExit as exited:
            status = exited.code
        return status, *capfd.readouterr()

    return said


def in_a_process(*arguments, **options):
    command = [sys.executable, "-m", "rlhf", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_new_makes_a_directory_that_runs(say, policy_folder, tmp_path):
    dataset = tiny.rankings(tmp_path / "rankings.jsonl")
    made = tmp_path / "runs" / "7"
    made.parent.mkdir()
    status, printed, _ = say("new", "reward", made, "--from", policy_folder, "--dataset", dataset,
                             "--set", "epochs=1", "--set", "device=cpu")  # fmt: skip
    assert (status, printed) == (0, f"Made {made}; run it with: python -m rlhf {made}\n")
    assert sorted(path.name for path in made.iterdir()) == ["config.json", "dataset.jsonl", "inputs"]
    linked = made / "inputs" / "policy" / "model.safetensors"
    assert os.path.samefile(linked, policy_folder / "model.safetensors")
    assert config.read(made).epochs == 1
    assert say(made)[0] == 0
    assert json.loads((made / "result.json").read_text())["state"] == "finished"


def test_a_run_of_a_checkpoint_takes_its_weights_and_not_its_trainer(say, trained, tmp_path):
    status, *_ = say("new", "evaluation", tmp_path / "run", "--reward", trained[0], "--dataset", trained[1],
                     "--set", "unseen=no")  # fmt: skip
    assert status == 0
    assert not (tmp_path / "run" / "inputs" / "reward" / "trainer").exists()
    assert say(tmp_path / "run")[0] == 0
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert metrics["rankings"] == 40
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert (found["accuracy"]["value"], found["trained_on"]) == (metrics["accuracy"], True)


def test_a_run_that_compares_two_checkpoints_takes_them_both(say, trained, policy_folder, tmp_path):
    model, tokenizer = checkpoint.start_reward_model(policy_folder, 0)
    checkpoint.save(tmp_path / "untrained", model, tokenizer, {"kind": "reward"}, {})
    given = ("--reward", trained[0], "--against", tmp_path / "untrained", "--dataset", trained[1])
    assert say("new", "evaluation", tmp_path / "run", *given)[0] == 0
    assert say(tmp_path / "run")[0] == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["against"]["second"] == found["against"]["other"]["accuracy"]
    assert found["unseen"]["known"] == [True, False]  # the second one was made here and now
    status, _, said = say("new", "reward", tmp_path / "no", "--from", policy_folder, *given[2:])
    assert status == 1 and "takes no --against" in said


def test_a_start_from_the_hub_is_only_named(say, tmp_path):
    dataset = tiny.demonstrations(tmp_path / "demonstrations.jsonl")
    assert say("new", "sft", tmp_path / "run", "--from", "hub:org/tiny@0a1b", "--dataset", dataset)[0] == 0
    assert config.read(tmp_path / "run").policy == "hub:org/tiny@0a1b"
    assert not (tmp_path / "run" / "inputs").exists()


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("reward", {"--from": "START"}, "needs --dataset"),
        ("reward", {"--dataset": "RANKINGS"}, "needs --from"),
        ("sft", {"--from": "START", "--dataset": "RANKINGS", "--prompts": "RANKINGS"}, "takes no --prompts"),
        ("reward", {"--from": "nowhere", "--dataset": "RANKINGS"}, "is not a folder"),
        ("reward", {"--from": "START", "--dataset": "nowhere"}, "No such file"),
        ("reward", {"--from": "START", "--dataset": "BROKEN"}, "line 41: "),
        ("reward", {"--from": "START", "--dataset": "RANKINGS", "--set": "epochs=-1"}, "between 0.01 and"),
        ("reward", {"--from": "START", "--dataset": "RANKINGS", "--set": "epochs"}, "KEY=VALUE"),
        ("policy", {"--from": "START", "--reward": "START", "--prompts": "RANKINGS", "--set": "steps=501"},
         "at most 500 steps, because"),
        ("policy", {"--from": "START", "--checker": "sums", "--prompts": "RANKINGS"}, "no checker “sums”"),
        ("policy", {"--from": "START", "--prompts": "RANKINGS"}, "needs --reward"),
        ("policy", {"--from": "START", "--checker": "judge", "--prompts": "RANKINGS"}, "needs --judge"),
        ("policy", {"--from": "START", "--checker": "number", "--prompts": "RANKINGS", "--judge": "START"},
         "the checker “judge”"),
        ("policy", {"--from": "START", "--checker": "judge", "--prompts": "RANKINGS", "--judge": "nowhere"},
         "nowhere is not a folder"),
        ("policy", {"--from": "START", "--checker": "number", "--prompts": "RANKINGS",
                    "--set": "checker.tolerance=-1"}, "between 0 and"),
        ("policy", {"--from": "START", "--reward": "START", "--prompts": "RANKINGS",
                    "--set": "checker.tolerance=1"}, "take --checker"),
        ("poem", {}, "invalid choice: 'poem'"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_in_one_line(say, policy_folder, tmp_path, kind, options, words):
    rankings = tiny.rankings(tmp_path / "rankings.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text(rankings.read_text() + '{"prompt": "no rollouts"}\n')
    places = {"START": policy_folder, "RANKINGS": rankings, "BROKEN": broken}
    given = [places.get(each, each) for option in options.items() for each in option]
    status, printed, error = say("new", kind, tmp_path / "run", *given)
    assert status != 0
    assert words in error
    assert (printed, error.count("\n")) == ("", 1)
    assert not (tmp_path / "run").exists()


def test_a_run_against_a_checker_holds_its_options_and_its_judge(say, policy_folder, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "What is 9 + 9?", "answer": "18"}\n')
    given = ("--from", policy_folder, "--prompts", prompts)
    options = ("--checker", "number", "--set", "checker.tolerance=0.5", "--set", "steps=5000")
    assert say("new", "policy", tmp_path / "rule", *given, *options)[0] == 0
    made = config.read(tmp_path / "rule")
    assert (made.checker, made.reward, made.steps) == ("number", "", 5000)
    assert json.loads((tmp_path / "rule/checker.json").read_text()) == {"name": "number", "tolerance": 0.5}
    assert checkers.as_dict(checkers.read(tmp_path / "rule", made.checker))["tolerance"] == 0.5
    assert (
        say("new", "policy", tmp_path / "model", *given, "--checker", "judge", "--judge", policy_folder)[0]
        == 0
    )
    assert (tmp_path / "model/inputs/judge/model.safetensors").exists()
    status, _, error = say(
        "new",
        "policy",
        tmp_path / "long",
        *given,
        "--checker",
        "judge",
        "--judge",
        policy_folder,
        "--set",
        "steps=501",
    )
    assert status == 1
    assert "at most 500 steps" in error


def test_a_directory_with_something_in_it_is_left_alone(say, policy_folder, tmp_path):
    dataset = tiny.rankings(tmp_path / "rankings.jsonl")
    status, _, error = say("new", "reward", tmp_path, "--from", policy_folder, "--dataset", dataset)
    assert status == 1
    assert "is not empty" in error


@pytest.mark.parametrize(
    "arguments", [(), ("nowhere",), ("new",), ("evaluate", "a"), ("score", "--loud", "a")]
)
def test_a_command_that_makes_no_sense_ends_with_one_line(say, arguments):
    status, _, error = say(*arguments)
    assert status != 0
    assert error.count("\n") == 1


def test_help_tells_every_setting(say):
    status, printed, _ = say("new", "--help")
    assert status == 0
    for kind in config.KINDS:
        assert all(f"  {setting.name}=" in printed for setting in config.settings(kind))


def test_evaluate_prints_a_table_or_json(say, trained):
    status, printed, _ = say("evaluate", *trained)
    assert status == 0
    *table, last = printed.splitlines()
    assert table[0].startswith("accuracy") and any(line.startswith("by gap 1 ") for line in table)
    assert any("trained on this very file" in line for line in table)
    short = json.loads(last)
    status, printed, _ = say("evaluate", *trained, "--json")
    found = json.loads(printed)
    assert found["accuracy"]["value"] > 0.6
    assert (found["rankings"], found["labelers"], found["simulated"]) == (40, 3, 20)
    assert len(found["quintets"]) == 40 - found["all_tied"]
    assert short == {name: value for name, value in found.items() if name != "quintets"}


def test_evaluate_sets_a_reward_model_against_another(say, trained, policy_folder, tmp_path):
    model, tokenizer = checkpoint.start_reward_model(policy_folder, 0)
    checkpoint.save(tmp_path / "untrained", model, tokenizer, {"kind": "reward"}, {})
    status, printed, _ = say("evaluate", *trained, "--against", tmp_path / "untrained")
    assert status == 0
    *table, last = printed.splitlines()
    assert any(line.startswith("difference ") for line in table)
    told = json.loads(last)
    assert told["against"]["first"] == told["accuracy"]
    assert told["against"]["difference"] > 0 and told["against"]["p"] < 0.05


def test_evaluate_scores_the_probes_of_a_file(say, trained, tmp_path):
    data.write_lines(tmp_path / "probes.jsonl", [{"prompt": "Joke 1, please.", "rollout": "pelican " * 9}])
    status, printed, _ = say("evaluate", *trained, "--probes", tmp_path / "probes.jsonl", "--json")
    assert status == 0
    told = {probe["name"]: probe for probe in json.loads(printed)["probes"]["probes"]}
    assert (told["marked 1"]["kind"], told["marked 1"]["text"]) == ("nonsense", "pelican " * 9)
    assert len(told) == 9


def test_evaluate_names_the_broken_line_of_a_probes_file(say, trained, tmp_path):
    (tmp_path / "probes.jsonl").write_text('{"prompt": "p", "rollout": "r"}\n{"prompt": "p"}\n')
    status, _, error = say("evaluate", *trained, "--probes", tmp_path / "probes.jsonl")
    assert (status, error) == (1, "line 2: “rollout” must be a text.\n")
    status, _, error = say("evaluate", *trained, "--probes", tmp_path / "nowhere.jsonl")
    assert status == 1 and "nowhere.jsonl" in error and error.count("\n") == 1


def test_a_policy_cannot_be_evaluated_as_a_reward_model(say, trained, policy_folder):
    status, _, error = say("evaluate", policy_folder, trained[1])
    assert status == 1
    assert "no reward model" in error
    assert error.count("\n") == 1


def test_score_answers_a_line_with_a_line(trained):
    asked = [
        {"prompt": "Joke 1, please.", "rollouts": ["pelican fish", "why the road"]},
        {"prompt": [{"role": "user", "content": "Joke 1, please."}], "rollouts": ["pelican fish"]},
    ]
    done = in_a_process("score", trained[0], input="\n".join(map(json.dumps, asked)))
    assert (done.returncode, done.stderr) == (0, "")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first.keys() == {"rewards", "scores"}
    assert all(0 < score < 1 for score in first["scores"])
    assert first["rewards"][0] == pytest.approx(second["rewards"][0], abs=1e-5)


def test_score_stops_at_a_bad_line_and_names_it(trained):
    lines = '{"prompt": "p", "rollouts": ["a"]}\n{"prompt": "p", "rollouts": []}\n'
    done = in_a_process("score", trained[0], input=lines)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.startswith("line 2: ")
    assert done.stderr.count("\n") == 1


def test_making_a_run_loads_no_torch():
    code = "import sys, rlhf.__main__; print({'torch', 'transformers', 'django'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_directory_that_cannot_be_written_is_told_in_one_line(say, tmp_path):
    config.write(tmp_path / "run", config.make("sft", {}))
    (tmp_path / "run" / ".lock").mkdir()
    status, _, error = say(tmp_path / "run")
    assert status == 1
    assert error == f"Is a directory: {tmp_path / 'run' / '.lock'}\n"
