"""Configs: defaults that stand, values that are read, and refusals that say which field and which range."""

import json
import subprocess
import sys

import pytest

from rlhf import config


@pytest.mark.parametrize("kind", config.KINDS)
def test_the_defaults_of_every_kind_are_accepted_and_survive_the_disk(kind, tmp_path):
    made = config.make(kind, {})
    config.write(tmp_path, made)
    assert config.read(tmp_path) == made
    assert config.differences(made) == {}
    assert json.loads((tmp_path / "config.json").read_text())["kind"] == kind


@pytest.mark.parametrize("kind", config.KINDS)
def test_every_setting_has_a_label_and_one_sentence_of_help(kind):
    for setting in config.settings(kind):
        assert setting.label
        assert setting.help.endswith("."), setting.name
        assert setting.type in (int, float, str, bool)
        assert setting.choices or setting.type in (bool, str) or setting.minimum is not None


def test_input_files_are_no_settings():
    assert {"policy", "dataset"} == set(config.inputs("reward"))
    assert not {"policy", "dataset"} & {setting.name for setting in config.settings("reward")}


def test_everyday_settings_come_before_advanced_ones():
    advanced = [setting.advanced for setting in config.settings("policy")]
    assert advanced == sorted(advanced)


def test_text_is_read_as_the_type_of_its_field():
    made = config.make(
        "reward", config.assignments(["learning_rate=1e-3", "epochs=4", "batch=16", "seed= 7"])
    )
    assert (made.learning_rate, made.epochs, made.batch, made.seed) == (0.001, 4.0, 16, 7)
    assert config.differences(made) == {
        "learning_rate": (0.001, 9e-6), "epochs": (4.0, 2.0), "seed": (7, 0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "values", "field", "words"),
    [
        ("reward", {"batch": "many"}, "batch", "whole number"),
        ("reward", {"batch": 2.5}, "batch", "whole number"),
        ("reward", {"batch": True}, "batch", "whole number"),
        ("reward", {"batch": 0}, "batch", "between 1 and 4,096"),
        ("reward", {"learning_rate": "nan"}, "learning_rate", "a number"),
        ("reward", {"learning_rate": "inf"}, "learning_rate", "a number"),
        ("reward", {"loss": "elo"}, "loss", "listwise, pairs"),
        ("reward", {"batches": 3}, "batches", "It has: "),
        ("reward", {"dataset": "/etc/passwd"}, "dataset", "inside the run directory"),
        ("reward", {"dataset": "../other/dataset.jsonl"}, "dataset", "inside the run directory"),
        ("sft", {"policy": "hub:not a name"}, "policy", "hub:organisation/name@revision"),
        ("policy", {"checker": "sums"}, "checker", "no checker “sums”"),
        ("policy", {"reward": ""}, "reward", "needs a reward model or a checker"),
        ("poetry", {}, "kind", "There are: rollouts, sft, reward, policy, evaluation"),
    ],
)
def test_what_no_run_may_have_is_refused_with_its_field_in_words(kind, values, field, words):
    with pytest.raises(config.Refused) as refused:
        config.make(kind, values)
    assert refused.value.field == field
    assert words in refused.value.message


def test_a_run_against_a_reward_model_is_capped_and_told_why():
    assert config.make("policy", {"steps": 500}).steps == 500
    with pytest.raises(config.Refused) as refused:
        config.make("policy", {"steps": "501"})
    assert refused.value.field == "steps"
    assert "at most 500 steps, because" in refused.value.message


def test_the_cap_cannot_be_passed_by_editing_the_file(tmp_path):
    config.write(tmp_path, config.make("policy", {}))
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"steps": 300', '"steps": 5000'))
    with pytest.raises(config.Refused, match="at most 500"):
        config.read(tmp_path)


def test_a_start_from_the_hub_names_its_revision():
    assert config.make("sft", {"policy": "hub:org/tiny@0a1b2c"}).policy == "hub:org/tiny@0a1b2c"
    assert config.hub_start("hub:org/tiny@0a1b2c") == ("org/tiny", "0a1b2c")
    assert config.hub_start("hub:org/tiny") == ("org/tiny", "main")
    assert config.hub_start("inputs/policy") is None


@pytest.mark.parametrize("text", ["steps", "=3", ""])
def test_an_assignment_without_key_or_sign_is_refused(text):
    with pytest.raises(config.Refused, match="KEY=VALUE"):
        config.assignments([text])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": 3}', '{"kind": "reward"', "\x00"])
def test_a_broken_config_file_is_refused_in_words(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(config.Refused):
        config.read(tmp_path)


def test_a_missing_config_file_is_refused_in_words(tmp_path):
    with pytest.raises(config.Refused, match=r"no config\.json"):
        config.read(tmp_path)


def test_neither_config_nor_data_loads_torch():
    code = "import sys, rlhf.config, rlhf.data; print({'torch', 'transformers', 'django'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_every_update_counts_towards_the_cap():
    assert config.make("policy", {"steps": 250, "updates_per_batch": 2}).steps == 250
    with pytest.raises(config.Refused, match="300 of 2 updates each were asked for") as refused:
        config.make("policy", {"steps": 300, "updates_per_batch": 2})
    assert refused.value.field == "steps" and "at most 500 steps, because" in refused.value.message


def test_to_aim_at_a_kl_beta_has_to_begin_above_zero():
    with pytest.raises(config.Refused, match="has to begin above 0") as refused:
        config.make("policy", {"kl_target": 4, "beta": 0})
    assert refused.value.field == "beta"


@pytest.mark.parametrize(("former", "now"), [("leave-one-out", "rloo"), ("normalised", "grpo")])
def test_a_config_of_before_there_were_algorithms_is_still_read(former, now, tmp_path):
    values = config.as_dict(config.make("policy", {}))
    del values["algorithm"]
    (tmp_path / "config.json").write_text(json.dumps(values | {"advantage": former}))
    assert config.read(tmp_path) == config.make("policy", {"algorithm": now})


def test_an_algorithm_that_there_is_not_is_refused_by_name():
    with pytest.raises(config.Refused, match="is one of rloo, grpo, best; “ppo” is not"):
        config.make("policy", {"algorithm": "ppo"})
