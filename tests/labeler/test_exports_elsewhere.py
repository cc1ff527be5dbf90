"""What leaves, in other people's hands: every export opens with the datasets library, and trainers of TRL
take a step on it as it is. A program of its own reads the files: no test process loads these libraries."""

import json
import os
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from subprocess import PIPE, Popen

import pytest
from django.conf import settings

from labeler import datasets
from labeler.datasets.exports import FILES, Export
from labeler.datasets.formats import FORMATS, Options
from labeler.models import Demonstration, Project, Quintet, Round
from rlhf import data

pytestmark = pytest.mark.django_db
CHAT = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "A joke about a pelican?"}]
WORDS = ["why", "did", "the", "pelican", "cross", "a", "road", "with", "fish"]


# To load those libraries takes longer than what they do here, so that one process takes all programs.
ONE_AFTER_THE_OTHER = """
import json, sys
for line in sys.stdin:
    program, *sys.argv[1:] = json.loads(line)
    exec(program, {"__name__": "__main__"})
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Iterator[Callable[..., dict]]:
    """`elsewhere(program, …)`: what a program that knows nothing of Quintet answers."""
    folder = tmp_path_factory.mktemp("elsewhere")
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command, streams = [sys.executable, "-c", ONE_AFTER_THE_OTHER], {"stdin": PIPE, "stdout": PIPE}
    log = folder / "log.txt"
    with (
        log.open("w") as errors,
        Popen(command, cwd=settings.BASE_DIR, env=env, stderr=errors, text=True, **streams) as child,
    ):

        def ask(program: str, *arguments: object) -> dict:
            watch = threading.Timer(300, child.kill)
            watch.start()
            child.stdin.write(json.dumps([program, *map(str, arguments)]) + "\n")
            child.stdin.flush()
            said = []
            for line in child.stdout:
                if line == "done\n":
                    watch.cancel()
                    return json.loads(said[-1])
                said.append(line)
            pytest.fail(log.read_text()[-3000:])

        yield ask


def ranked(project: Project, people, chats: bool = False, count: int = 12) -> Project:
    """Rankings with ties, marks, an acceptable line, a chat, four rollouts, equal texts; demonstrations."""
    round = Round.objects.current(project)
    for number in range(count):
        prompt = project.prompts.create(content=CHAT if chats and number == 3 else f"Joke {number}, please.")
        texts = [
            " ".join(WORDS[(number + slot) % 5 : slot + 4]) or "" for slot in range(5 if number % 4 else 3)
        ]
        quintet = Quintet.objects.compose(project, round, prompt, texts, places=0)
        for who, person in enumerate(people):
            ranks = [(slot * (who + 2)) % len(texts) + 1 for slot in range(len(texts))]
            ranking = quintet.record_ranking(person, None, ranks, ties=True)
            if number == 5:
                ranking.nonsense, ranking.acceptable = [1], 2
                ranking.save()
        Demonstration.objects.create(project=project, prompt=prompt, completion=f"A pelican, {number}.")
    return project


@pytest.fixture
def people(labeler, stranger):
    return [labeler, stranger]


LOAD = """
import json, sys
from datasets import load_dataset
found = {}
for path in sys.argv[2:]:
    kind = {"jsonl": "json"}.get(path.rpartition(".")[2], path.rpartition(".")[2])
    data = load_dataset(kind, data_files=path, split="train", cache_dir=sys.argv[1])
    found[path] = {"columns": {name: str(of) for name, of in data.features.items()}, "rows": len(data)}
print(json.dumps(found))
"""


@pytest.mark.parametrize("chats", [False, True], ids=["plain", "chats"])
def test_every_export_opens_as_a_table_with_one_type_a_column(project, people, tmp_path, elsewhere, chats):
    ranked(project, people, chats)
    wanted = {}
    for form in FORMATS.values():
        for file in FILES:
            path = tmp_path / f"{form.name}.{file}"
            path.write_bytes(b"".join(Export(project, form, file).stream()))
            wanted[str(path)] = form
    found = elsewhere(LOAD, tmp_path / "cache", *wanted)
    rows = {form: {found[path]["rows"] for path in wanted if wanted[path].name == form} for form in FORMATS}
    assert rows == {
        "ranked": {24},
        "consensus": {12},
        "pairs": rows["pairs"],
        "kto": rows["kto"],
        "sft": {12},
    }
    assert all(len(each) == 1 and min(each) > 0 for each in rows.values())
    turns = "List({'role': Value('string'), 'content': Value('string')})"
    prompt, said = (turns, turns) if chats else ("Value('string')", "Value('string')")
    pairs = {"prompt": prompt, "chosen": said, "rejected": said}
    pairs |= {"margin": "Value('float64')", "simulated": "Value('bool')"}
    assert found[str(tmp_path / "pairs.jsonl")]["columns"] == pairs
    assert found[str(tmp_path / "pairs.parquet")]["columns"] == pairs
    assert found[str(tmp_path / "kto.parquet")]["columns"]["label"] == "Value('bool')"


def test_a_long_file_opens_though_what_it_seldom_tells_comes_late(project, people, tmp_path, elsewhere):
    """Readers guess the columns from the first ten million bytes."""
    round, long, quintets = Round.objects.current(project), "pelican " * 110_000, {}
    for number in range(14):
        prompt = project.prompts.create(content=f"Joke {number}, please.")
        quintet = Quintet.objects.compose(project, round, prompt, [long, "b", str(number)], places=0)
        quintets[data.prompt_digest(prompt.content)] = quintet.record_ranking(people[0], None, [1, 2, 3])
    last = quintets[max(quintets)]
    last.acceptable, last.seconds, last.extra = 2, 4.25, {"mood": {"of": ["day", 1]}}
    last.save()
    export, path = Export(project), tmp_path / "long.jsonl"
    path.write_bytes(b"".join(export.stream()))
    first, *others = [json.loads(line)["quintet"] for line in path.read_bytes().splitlines()]
    assert first == str(last.quintet_id)
    assert len({first, *others}) == 14
    found = elsewhere(LOAD, tmp_path / "cache", path)[str(path)]
    assert found["rows"] == 14
    assert found["columns"]["acceptable"] == "Value('int64')"
    assert found["columns"]["seconds"] == "Value('float64')"


FOLDER = """
import json, sys
from datasets import load_dataset
found = {}
for path in sys.argv[2:]:
    data = load_dataset(path, cache_dir=sys.argv[1])
    found[path] = {
        "columns": {name: str(of) for name, of in data["train"].features.items()},
        "rows": {name: len(part) for name, part in data.items()},
        "prompts": {
            name: sorted({json.dumps(prompt) for prompt in part["prompt"]}) for name, part in data.items()
        },
    }
print(json.dumps(found))
"""


@pytest.mark.parametrize("chats", [False, True], ids=["plain", "chats"])
def test_every_folder_opens_by_its_card_with_its_split(project, people, tmp_path, elsewhere, chats):
    ranked(project, people, chats)
    dataset, folders = datasets.freeze(project), {}
    for form in FORMATS.values():
        for file in FILES:
            frozen = dataset if form.name != "sft" else None
            if file == "csv" and chats:
                continue  # it has no types for what is inside a cell
            packed = tmp_path / f"{form.name}-{file}.zip"
            packed.write_bytes(b"".join(Export(project, form, file, dataset=frozen).zipped()))
            with zipfile.ZipFile(packed) as folder:
                folder.extractall(tmp_path / file)
                (top,) = {name.split("/")[0] for name in folder.namelist()}
            folders[str(tmp_path / file / top)] = (form.name, file)
    found = elsewhere(FOLDER, tmp_path / "cache", *folders)
    for path, (name, _) in folders.items():
        prompts = found[path]["prompts"]
        assert set(prompts) == {"train", "validation"}
        assert not set(prompts["train"]) & set(prompts["validation"])
        assert sum(found[path]["rows"].values()) == {"ranked": 24, "consensus": 12, "sft": 12}.get(
            name, sum(found[path]["rows"].values())
        )
    by_form = {}
    for path, (name, file) in folders.items():
        if file != "csv":
            by_form.setdefault(name, []).append((found[path]["columns"], found[path]["rows"]))
    assert all(one == other for one, other in by_form.values())


TRAIN = """
import json, sys
from datasets import load_dataset
from pathlib import Path
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
import trl
from tests.rlhf import tiny

folder, found = Path(sys.argv[1]), {}
policy = tiny.policy(folder / "policy")
same = {"max_steps": 1, "per_device_train_batch_size": 4, "report_to": [], "use_cpu": True, "bf16": False,
        "save_strategy": "no", "disable_tqdm": True, "gradient_checkpointing": False}
settings = AutoConfig.for_model(
    "llama", **tiny.CONFIGS["llama"], vocab_size=261, pad_token_id=0, eos_token_id=4, num_labels=1)
for name, form in (("Reward", "pairs"), ("DPO", "pairs"), ("KTO", "kto"), ("SFT", "sft")):
    file, cache = f"{folder}/{form}.jsonl", f"{folder}/cache"
    data = load_dataset("json", data_files=file, split="train", cache_dir=cache)
    model = (AutoModelForSequenceClassification.from_config(settings) if name == "Reward"
             else AutoModelForCausalLM.from_pretrained(policy))
    arguments = getattr(trl, name + "Config")(output_dir=f"{folder}/{name}", **same)
    trainer = getattr(trl, name + "Trainer")(
        model=model, args=arguments, train_dataset=data, processing_class=tiny.tokenizer())
    done = trainer.train()
    found[name] = {"step": done.global_step, "loss": done.training_loss, "rows": len(data)}
print(json.dumps(found))
"""


@pytest.mark.parametrize("messages", [False, True], ids=["texts", "messages"])
def test_trainers_take_a_step_on_it_unchanged(project, people, tmp_path, elsewhere, messages):
    ranked(project, people)
    rows = {}
    for form in ("pairs", "kto", "sft"):
        export = Export(project, FORMATS[form], options=Options(messages=messages))
        (tmp_path / f"{form}.jsonl").write_bytes(b"".join(export.stream()))
        rows[form] = len((tmp_path / f"{form}.jsonl").read_bytes().splitlines())
    done = elsewhere(TRAIN, tmp_path)
    assert {name: each["step"] for name, each in done.items()} == dict.fromkeys(
        ["Reward", "DPO", "KTO", "SFT"], 1
    )
    assert [each["rows"] for each in done.values()] == [
        rows["pairs"],
        rows["pairs"],
        rows["kto"],
        rows["sft"],
    ]
    assert all(0 < each["loss"] < 100 for each in done.values())
