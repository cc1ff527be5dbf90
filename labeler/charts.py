"""Which curves a run's page draws and which numbers stand above them, for each kind of run.

Plain descriptions: static/chart.js draws them, `run_steps` brings their numbers. Axes that mean a share go
from 0 to 1 on every run, so that two pages can be compared at a glance; others begin at 0, losses do not."""

from collections.abc import Iterable, Mapping
from math import log
from typing import Any

from labeler.models import Run
from labeler.templatetags.words import count, figure, plain
from rlhf import config

CHANCE_LISTWISE = log(120) / 4  # the mean stage of five rollouts in random order
CHANCE_PAIRS = log(2)


def series(key: str, label: str, ink: str = "accent", form: str = "number", **more: Any) -> dict[str, Any]:
    """`measured`: at some steps only, drawn with points; `exact`: never smoothed; `range`: its axis, which
    is `left`, `right`, or its `own`, without numbers; `shown`: before anybody has chosen; `people`: it is no
    metric of a step, but what people said of checkpoints, with intervals (`people`)."""
    found = {"key": key, "label": label, "ink": ink, "format": form, "axis": "left", "dash": False}
    found |= {"measured": False, "exact": False, "shown": True, "people": False}
    return found | {"range": [0, 1] if form in ("share", "percent") else [0, None]} | more


def chart(
    title: str,
    *drawn: dict[str, Any],
    lines: Iterable[dict] = (),
    crop: bool = False,
    large: bool = False,
    about: str = "",
) -> dict[str, Any]:
    """`lines`: values to compare with; `crop`: whether the crop and the checkpoints are drawn on it."""
    return {
        "title": title, "series": drawn, "lines": list(lines), "crop": crop, "large": large, "about": about,
    }  # fmt: skip


def charts(run: Run) -> list[dict[str, Any]]:
    """The charts of a run's page, the most telling ones first and large."""
    return DRAWN[run.kind](run.config) if run.kind in DRAWN else []


def _policy(given: dict) -> list[dict[str, Any]]:
    return _practice(given) if given.get("checker") else _simulated(given)


def _simulated(given: dict) -> list[dict[str, Any]]:
    """Of a run against a reward model, the simulator of people."""

    def limit(of: str, share: float | None) -> list[dict]:
        return (
            [{"of": of, "share": share, "label": f"limit, {100 * share:.0f} % of its start"}] if share else []
        )

    return [
        chart(
            "Reward, and how far it moved from the start to earn it",
            series("reward", "reward", form="share"),
            series("people", "people", "good", "share", measured=True, people=True),
            series("kl", "KL (right)", "cool", axis="right", dash=True),
            series("sqrt_kl", "√KL (right)", "cool", axis="right", shown=False),
            series("distinct_2", "distinct-2", "plum", "share", shown=False),
            series("finished", "finished", "teal", "percent", shown=False),
            series("entropy", "entropy (its own scale)", "sand", axis="own", shown=False),
            series("length", "length (its own scale)", "quiet", axis="own", shown=False),
            crop=True,
            large=True,
        ),
        chart("Entropy", series("entropy", "entropy"), lines=limit("entropy", given.get("crop_entropy"))),
        chart(
            "Variety of token pairs",
            series("distinct_2", "distinct-2", form="share", range=[0, None]),
            lines=limit("distinct_2", given.get("crop_distinct")),
        ),
        chart("Length in tokens", series("length", "length")),
        chart("Rollouts that ended by themselves", series("finished", "finished", form="percent")),
        *([_updates] if given.get("updates_per_batch", 1) > 1 and given.get("algorithm") != "best" else []),
        *([_aimed(given["kl_target"])] if given.get("kl_target") else []),
    ]


def _practice(given: dict) -> list[dict[str, Any]]:
    """Of a run against a checker: how often it is right, and how long it takes to say so."""
    phrases = [each.strip() for each in given.get("recheck_phrases", "").split(",") if each.strip()]
    said = ", ".join(f"“{each}”" for each in phrases)
    mixed, formed = given.get("reward"), given.get("format_weight")
    parts = [
        series("reward_checker", "checker", "good", range=[None, None]),
        *([series("reward_model", "reward model", "plum", range=[None, None])] if mixed else []),
        *([series("reward_format", "form", "cool", range=[None, None])] if formed else []),
        series("reward_unfinished", "cut off", "quiet", range=[None, None], shown=False),
    ]
    return [
        chart(
            "Accuracy",
            series("accuracy", "on what it practises", form="percent"),
            series("held_out_accuracy", "held out, greedy", "good", "percent", measured=True),
            series("held_out_sampled", "held out, sampled", "cool", "percent", measured=True),
            lines=[
                {"of": "held_out_accuracy", "share": 1, "label": "supervised start"},
                {"of": "imitation_accuracy", "share": 1, "end": True, "label": "all solutions imitated"},
            ],
            about="Dashed: what imitation alone reaches on the held-out prompts, greedy.",
            crop=True,
            large=True,
        ),
        chart(
            "Mean length of an answer, in tokens",
            series("length", "on what it practises"),
            series("held_out_length", "held out, sampled", "cool", measured=True),
            large=True,
        ),
        chart(
            "Answers that look again",
            series("rechecking", "share of rollouts", "plum", "percent", range=[0, None]),
            about=f"Those that say {said}." if said else "No phrases are named in this run's settings.",
        ),
        *([chart("The parts of the reward, weighted", *parts)] if mixed or formed else []),
        chart(
            "Prompts that were solved at least once, and some of the time",
            series("solved", "at least once", form="percent"),
            series("mixed", "right and wrong", "good", "percent"),
        ),
        chart("Prompts that are set aside", series("set_aside", "prompts", "quiet", "whole", exact=True)),
        chart("KL to the start, nats a rollout", series("kl", "KL", "cool")),
        chart("Entropy", series("entropy", "entropy")),
        chart("Rollouts that ended by themselves", series("finished", "finished", form="percent")),
        *([_updates] if given.get("updates_per_batch", 1) > 1 and given.get("algorithm") != "best" else []),
        *([_aimed(given["kl_target"])] if given.get("kl_target") else []),
    ]


_updates = chart(
    "How far the updates of a step go from the policy that wrote its rollouts",
    series("clip_fraction", "tokens clipped", form="percent", range=[0, None]),
    series("sampler_kl", "KL to the writer, nats a rollout (right)", "cool", axis="right", dash=True),
)


def _aimed(kl: float) -> dict[str, Any]:
    return chart(f"β, which follows the KL to {kl:g} nats a rollout", series("beta", "β", exact=True))


def _reward(given: dict) -> list[dict[str, Any]]:
    pairs = given.get("loss") == "pairs"
    chance = {"value": CHANCE_PAIRS if pairs else CHANCE_LISTWISE, "label": "chance, among five"}
    return [
        chart(
            "Loss on the rankings it learns from, and on those held out",
            series("loss", "loss", form="loss", range=[None, None]),
            series("held_out_loss", "held-out loss", "good", "loss", measured=True, range=[None, None]),
            lines=[chance],
            large=True,
        ),
        chart(
            "Held-out pairs that it orders as the labelers did",
            series(
                "held_out_accuracy", "held-out accuracy", "good", "percent", measured=True, range=[0.4, 1]
            ),
            lines=[{"value": 0.5, "label": "chance"}],
        ),
        chart("Learning rate", series("learning_rate", "learning rate", "quiet", "rate", exact=True)),
    ]


def _sft(given: dict) -> list[dict[str, Any]]:
    what = "documents it reads" if given.get("stage") == config.READING else "demonstrations it learns from"
    return [
        chart(
            f"Loss on the {what}, and on those held out",
            series("loss", "loss", form="loss", range=[None, None]),
            series("held_out_loss", "held-out loss", "good", "loss", measured=True, range=[None, None]),
            large=True,
        ),
        chart("Learning rate", series("learning_rate", "learning rate", "quiet", "rate", exact=True)),
        chart("Tokens learnt from at each step", series("tokens", "tokens", "quiet", "whole")),
    ]


DRAWN = {"policy": _policy, "reward": _reward, "sft": _sft}


def people(run: Run) -> dict[str, Any]:
    """How often people rank its checkpoints above the starting model's rollouts, with 95 % intervals, of the
    newest face-off in which each was; of simulated labelers only where no person was asked. The start is even
    with itself."""
    found: dict[int, dict[str, Any]] = {}
    steps = dict(run.checkpoints.values_list("pk", "step"))
    whose = run.project.faceoffs.filter(contenders__checkpoint__run=run).distinct().order_by("-number")
    asked = list(whose.values_list("found", flat=True))
    by = "people" if any("people" in each for each in asked) else "simulated"
    for said in (each[by] for each in asked if by in each):
        for row in said["rows"]:
            step = 0 if row["checkpoint"] == run.start_id else steps.get(row["checkpoint"])
            if step is not None and step not in found:
                kept = {name: row[name] for name in ("share", "low", "high")}
                found[step] = {"step": step, "people": kept.pop("share"), **kept}
    return {"by": by, "points": [found[step] for step in sorted(found)]}


def differing(run: Run, other: Run) -> str:
    """In which settings another run of this kind differs, as a few words: `β 0, Steps 90`."""
    return _apart(run.kind, run.config, other.config)


def unusual(run: Run) -> str:
    """The same, of its settings that are not the project's own."""
    known = run.project.defaults_of(run.kind, run.judged)
    return _apart(run.kind, known, {name: run.config.get(name, value) for name, value in known.items()})


def _apart(kind: str, usual: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    named = {each.name: each.label for each in config.settings(kind)}
    apart = [name for name in named if usual.get(name) != given.get(name)]
    said = [f"{named[name]} {plain(given.get(name))}" for name in apart[:3]]
    return ", ".join(said) + (" …" if len(apart) > 3 else "")


# What stands above the charts: key, label, form.
STRIP = {
    "policy": [
        ("reward", "Reward (0–1)", "share"),
        ("kl", "KL to the start", "number"),
        ("entropy", "Entropy", "number"),
        ("distinct_2", "Distinct-2", "share"),
        ("length", "Length, tokens", "number"),
        ("finished", "Finished", "percent"),
    ],
    "practice": [
        ("held_out_accuracy", "Held out, greedy", "percent"),
        ("held_out_sampled", "Held out, sampled", "percent"),
        ("accuracy", "On what it practises", "percent"),
        ("mixed", "Prompts right and wrong", "percent"),
        ("length", "Length, tokens", "number"),
        ("rechecking", "Look again", "percent"),
    ],
    "reward": [
        ("loss", "Loss", "loss"),
        ("held_out_loss", "Held-out loss", "loss"),
        ("held_out_accuracy", "Held-out accuracy", "percent"),
        ("held_out_pairs", "Held-out pairs", "whole"),
        ("ece", "Calibration error", "percent"),
    ],
    "sft": [
        ("loss", "Loss", "loss"),
        ("held_out_loss", "Held-out loss", "loss"),
        ("tokens", "Tokens a step", "whole"),
    ],
    "rollouts": [
        ("prompts", "Prompts answered", "whole"),
        ("rollouts", "Rollouts", "whole"),
        ("finished", "Finished", "percent"),
        ("length", "Length, tokens", "number"),
    ],
    "evaluation": [
        ("accuracy", "Pairs ordered as the labelers did", "percent"),
        ("other_accuracy", "By the second model", "percent"),
        ("pairs", "Pairs", "whole"),
        ("nll", "NLL of a pair", "loss"),
        ("ece", "Calibration error", "percent"),
    ],
}


def outcome(run: Run) -> str:
    """What came of it in a few numbers, for a line in a list."""
    final = run.result.get("metrics") or {}
    if final.get("held_out_accuracy") is not None and run.config.get("checker"):
        greedy, sampled = (figure(final[f"held_out_{each}"], "percent") for each in ("accuracy", "sampled"))
        return f"{greedy} of held-out prompts right, {sampled} where it samples"
    if run.kind == Run.Kind.POLICY and run.config.get("checker"):
        return f"{figure(final['accuracy'], 'percent')} right" if "accuracy" in final else ""
    if run.kind == Run.Kind.POLICY:
        named = [("reward", "reward", "share"), ("kl", "KL", "number"), ("distinct_2", "distinct-2", "share")]
        return ", ".join(f"{word} {figure(final[key], form)}" for key, word, form in named if key in final)
    if final.get("held_out_accuracy") is not None:
        share, pairs = figure(final["held_out_accuracy"], "percent"), final.get("held_out_pairs", 0)
        return f"orders {share} of {count(pairs, 'held-out pair')} as the labelers did"
    if final.get("accuracy") is not None:
        share, pairs = figure(final["accuracy"], "percent"), count(final["pairs"], "pair")
        said = f"orders {share} of {pairs} as the labelers did"
        other = final.get("other_accuracy")
        return said if other is None else f"{said}, the second one {figure(other, 'percent')}"
    if run.kind == Run.Kind.ROLLOUTS and "rollouts" in final:
        return f"{count(final['rollouts'], 'rollout')} for {count(final['prompts'], 'prompt')}"
    held_out = final.get("held_out_loss")
    return f"held-out loss {figure(held_out, 'loss')}" if held_out is not None else ""


def strip(run: Run) -> list[tuple[str, Any, str]]:
    """Label, value and form of each number: the end result, else the newest that was measured."""
    checked = run.kind == Run.Kind.POLICY and run.config.get("checker")
    wanted = STRIP["practice"] if checked else STRIP.get(run.kind, [])
    final = run.result.get("metrics") or {}
    newest = list(run.steps.order_by("-step").values_list("metrics", flat=True)[:1])
    found = []
    for key, label, form in wanted:
        value = final.get(key, newest[0].get(key) if newest else None)
        if value is None and newest:
            measured = run.steps.filter(**{f"metrics__{key}__isnull": False}).order_by("-step")
            value = next(iter(measured.values_list(f"metrics__{key}", flat=True)[:1]), None)
        if key != "other_accuracy" or run.against_id:
            found.append((label, value, form))
    return found
