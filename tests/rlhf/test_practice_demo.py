"""The demo of sums practises by itself: from about two thirds right upwards, in a part of its steps.
Over three seeds, and all of its steps, `python -m benchmarks.practice` measures it."""

import json
import shutil

from labeler.demo import practice
from rlhf import config, data
from rlhf.execute import FINISHED, execute


def test_sums_rise_from_two_thirds_right_in_sixty_steps(tmp_path):
    demo, path = practice.SUMS, tmp_path / "run"
    shutil.copytree(demo.folder("start"), path / "inputs" / "policy")
    data.write_lines(
        path / "prompts.jsonl", ({"prompt": one.prompt, "answer": one.answer} for one in demo.problems())
    )
    few = {"steps": 60, "evaluate_every": 60, "checkpoint_every": 60, "sample_prompts": 0, "device": "cpu"}
    by_rule = {"checker": "number", "reward": ""}
    config.write(path, config.make("policy", demo.run_defaults["policy"] | few | by_rule))
    assert execute(path) == FINISHED
    steps = [json.loads(line) for line in (path / "steps.jsonl").read_text().splitlines()]
    first, last = steps[0], steps[-1]
    assert 0.6 <= first["held_out_accuracy"] <= 0.75
    assert last["held_out_accuracy"] >= 0.85
    assert last["held_out_sampled"] >= first["held_out_sampled"] + 0.1
