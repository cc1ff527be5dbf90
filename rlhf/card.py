"""The model card beside a checkpoint: what it is, where it comes from, how to open it without us.

Written from the lineage and the measured numbers alone; prose about a project is its people's to add.
"""

from collections.abc import Mapping
from typing import Any

WHAT = {
    "policy": ("text-generation", "A policy: it writes rollouts."),
    "reward": (
        "text-classification",
        "A reward model: it scores rollouts as the people who ranked them would.",
    ),
}
OPEN = {
    "policy": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
""",
    "reward": """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForSequenceClassification.from_pretrained(".")
# One row: the tokens of the prompt, of the rollout, and the end-of-text token; padding on the right.
rewards = model(input_ids=rows, attention_mask=rows != tokenizer.pad_token_id).logits[:, 0]
""",
}


def write(lineage: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The README.md of a checkpoint."""
    kind = lineage["kind"]
    task, what = WHAT[kind]
    base, settings = lineage.get("base", {}), lineage.get("config", {})
    facts = {
        "made by": f"a {settings.get('kind', kind)} run, {lineage.get('step', 0)} steps, "
        f"seed {settings.get('seed', 0)}",
        "from": " ".join(str(base[key]) for key in ("hub", "revision", "sha256") if key in base),
        **{f"sha256 of its {name}": digest for name, digest in lineage.get("sha256", {}).items()},
        **{name.replace("_", " "): _shown(value) for name, value in metrics.items()},
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    scale = ""
    if kind == "reward":
        scale = (
            f"\nThe score that Quintet shows is `1 / (1 + exp(-(reward - {lineage.get('mu', 0.0)!r}) / "
            f"{lineage.get('tau', 1.0)!r}))`: the chance that a rollout beats a typical answer of the "
            "starting model.\n"
        )
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: {task}\ntags: [quintet, rlhf]\n---\n\n"
        f"# {what}\n\n| | |\n|---|---|\n{rows}\n{scale}\n```python\n{OPEN[kind]}```\n"
    )


def _shown(value: Any) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
