"""A reward model that a run left, in other people's hands: trainers of policies take it as it is, and it is
worth to them what it is worth to us. A program of its own trains: no test process loads these libraries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.execute import FINISHED, execute
from rlhf.reward_model import RewardModel
from tests.rlhf import tiny

TRAIN = """
import json, sys
from pathlib import Path
import trl
from datasets import Dataset

folder, reward = Path(sys.argv[1]), sys.argv[2]
same = {"max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 12,
        "report_to": [], "use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True,
        "gradient_checkpointing": False, "logging_steps": 1, "reward_weights": [1.0, 0.0], "beta": 0.0}
prompts = Dataset.from_list([{"prompt": f"Joke {number}, please."} for number in range(4)])
found = {}
for name in ("GRPO", "RLOO"):
    heard = []

    def listening(prompts, completions, **_):
        heard.extend(zip(prompts, completions))
        return [0.0] * len(prompts)

    arguments = getattr(trl, name + "Config")(output_dir=str(folder / name), **same)
    trainer = getattr(trl, name + "Trainer")(
        model=str(folder / "policy"), reward_funcs=[reward, listening], args=arguments, train_dataset=prompts)
    done = trainer.train()
    told = trainer.state.log_history[0]
    (mean,) = [told[key] for key in told if key == f"rewards/{Path(reward).name}/mean"]
    found[name] = {"step": done.global_step, "heard": heard, "mean": mean}
print(json.dumps(found))
"""


@pytest.mark.parametrize("members", [1, 2])
def test_trainers_of_policies_take_a_step_against_it_unchanged(members, tmp_path):
    start = tiny.policy(tmp_path / "policy", chat=False)
    dataset = tiny.rankings(tmp_path / "rankings.jsonl", 24)
    settings = {"learning_rate": 3e-3, "batch": 8, "epochs": 1, "members": members}
    path = tiny.run_directory(tmp_path / "run", "reward", start, dataset, **settings)
    assert execute(path) == FINISHED
    reward = path / json.loads((path / "result.json").read_text())["checkpoint"]
    found = elsewhere(TRAIN, tmp_path, tmp_path, reward)
    judge = RewardModel.load(reward)
    for trainer in ("GRPO", "RLOO"):
        told = found[trainer]
        assert told["step"] == 1 and len(told["heard"]) == 4
        # It reads a completion's text where it stops, without an end, and so do we for the same ids.
        ours = [
            judge.rewards_of([judge.encode(prompt, [text], finished=[False])])[0][0]
            for prompt, text in told["heard"]
        ]
        assert told["mean"] == pytest.approx(sum(ours) / len(ours), abs=1e-5)


def elsewhere(program: str, folder: Path, *arguments: object) -> dict:
    """What a program that knows nothing of Quintet answers."""
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
