"""The card of an export: a README.md whose front matter the Hub and `datasets.load_dataset` understand.

It says what was counted and measured, and nothing that was not. The license is for the project's people to
choose."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from labeler.datasets.frozen import Source
from labeler.datasets.query import Query

if TYPE_CHECKING:
    from labeler.datasets.exports import Export

DTYPES = {"text": "string", "whole": "int64", "real": "float64", "flag": "bool"}
SIZES = [(1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M")]
MEANS = {
    "ranked": "`ranks[i]` is the rank of `rollouts[i]`: 1 is best, equal numbers are ties. One line for each "
    "labeler of a quintet.",
    "consensus": "`ranks[i]` is the rank of `rollouts[i]` by the majority of `labelers` rankings; where "
    "majorities go in a circle, or split evenly, it is a tie. `decided` ones were settled by a reviewer. "
    "`strengths` are Plackett–Luce, with 95 % intervals from `low` to `high`.",
    "pairs": "`chosen` was ranked above `rejected`; `margin` is how many ranks lie between them. Ties make "
    "no pair.",
    "kto": "`label` says whether the completion is good: above the labeler's own line of what is "
    "acceptable or, without one, above the middle rank. What was marked as nonsense or unsafe is bad.",
    "sft": "`completion` is an answer to imitate.",
}


def written(export: "Export", source: Source, parts: Mapping[str, str]) -> str:
    """The README.md beside the files of `parts`: the path of each by the name of its split."""
    return "\n".join(["---", *_front(export, source, parts), "---", "", *_body(export, source)]) + "\n"


def _front(export: "Export", source: Source, parts: Mapping[str, str]) -> Iterator[str]:
    yield "# license: (choose one before you publish this, for example cc-by-4.0)"
    yield f"pretty_name: {_quoted(f'{export.project.name}, {export.format.name}')}"
    yield f"task_categories:\n- {export.format.task}"
    yield "tags:\n- quintet\n- rlhf\n- human-feedback"
    if source.manifest["simulated"]:
        yield "- synthetic"
    lines = source.manifest["lines"]
    yield f"size_categories:\n- {next((name for size, name in SIZES if lines < size), 'n>10M')}"
    if parts:
        yield "configs:\n- config_name: default\n  data_files:"
    for name, path in parts.items():
        yield f"  - split: {name}\n    path: {path}"
    yield "dataset_info:\n  config_name: default\n  features:"
    for name, kind in export.columns(source).items():
        yield f"  - name: {name}"
        yield from _feature(kind)


def _feature(kind: str) -> Iterator[str]:
    if kind == "messages":
        yield "    list:\n    - name: role\n      dtype: string\n    - name: content\n      dtype: string"
    elif kind in DTYPES:
        yield f"    dtype: {DTYPES[kind]}"
    else:
        yield f"    list: {DTYPES[kind[:-1]]}"


def _body(export: "Export", source: Source) -> Iterator[str]:
    project, manifest, options = export.project, source.manifest, export.how
    yield f"# {project.name}: {export.format.name}\n"
    yield MEANS[export.format.name]
    if options.consensus:
        yield "Made from the consensus of each quintet, not from single rankings."
    if options.best:
        yield "These are the best-ranked rollouts that most call good, not answers that people wrote."
    query = Query.of(export.dataset.query) if export.dataset else export.query
    frozen = (
        f" Frozen as dataset {export.dataset.pk}, sha256 `{export.dataset.sha256}`." if export.dataset else ""
    )
    what = "demonstrations" if "quintets" in manifest and not manifest["quintets"] else "rankings"
    yield f"\nMade with Quintet {manifest['versions']['quintet']} from the project's {what}: "
    origins = export.dataset.query.get("origins") if export.dataset else None
    which = f"those of these origins alone: {', '.join(origins)}" if origins else "all of them"
    yield f"{'; '.join(query.words()) if what == 'rankings' else which}.{frozen}\n"
    yield "## What is in it\n\n| | |\n|---|---|"
    yield from (f"| {name} | {value} |" for name, value in _counts(manifest, what))
    yield f"\n{_split(manifest['split'])}"
    yield from _agreement(manifest)
    yield from _biases(manifest)
    if project.guidelines.strip():
        yield "\n## Guidelines\n\nWhat labelers were asked to do:\n"
        yield from (f"> {line}".rstrip() for line in project.guidelines.splitlines())


def _counts(manifest: dict[str, Any], what: str) -> Iterator[tuple[str, Any]]:
    lines = manifest["lines"]
    yield what, f"{lines:,}"
    if what == "rankings":
        simulated = manifest["simulated"]
        harvested = manifest.get("harvested", 0)
        yield "by people", f"{lines - simulated - harvested:,}"
        if harvested:
            yield "confirmed of a harvest, and ranked last by whoever confirmed it", f"{harvested:,}"
        yield "simulated, not by people", f"{simulated:,}"
        yield "labelers", f"{len(manifest['labelers']):,}"
        yield "quintets", f"{manifest['quintets']:,}"
    yield from ((name, f"{many:,}") for name, many in manifest.get("origins", {}).items())
    yield "prompts", f"{manifest['prompts']:,}"
    yield "mean length of an answer", f"{manifest['lengths']['mean']:.0f} characters"
    names = {
        "ties": "rankings with ties", "partial": "rankings of fewer than five", "surplus": "surplus rankings",
        "unfinished": "rankings of rollouts that were cut off", "nonsense": "rankings that mark nonsense",
        "unsafe": "rankings that mark something unsafe", "decided": "rankings of decided quintets",
    }  # fmt: skip
    yield from ((words, f"{manifest[name]:,}") for name, words in names.items() if manifest[name])
    yield from ((f"in round {name}", f"{many:,}") for name, many in sorted(manifest["rounds"].items()))
    faceoffs = manifest.get("faceoffs", {})  # datasets of before know of none
    yield from ((f"in face-off {name}", f"{many:,}") for name, many in sorted(faceoffs.items()))
    others = {name: many for name, many in manifest["purposes"].items() if name not in ("work", "harvest")}
    yield from ((f"rankings of {name} quintets", f"{many:,}") for name, many in others.items())


def _split(split: dict[str, Any]) -> str:
    if not split["held_out"]:
        return "There are too few prompts for a split."
    return (
        f"Split by prompt, in the order of the sha256 of the prompts: the first {split['held_out']:,} of "
        f"{split['prompts']:,} are `validation`. No prompt is on both sides."
    )


def _agreement(manifest: dict[str, Any]) -> Iterator[str]:
    yield "\n## Agreement\n"
    for whose, found in manifest["agreement"].items():
        if found["agreement"] is not None:
            among = "people" if whose == "people" else "simulated labelers"
            yield (
                f"Two {among} who ranked the same quintet order {found['agreement']:.1%} of the pairs that "
                f"both decide the same way ({found['agreed'] + found['opposed']:,} comparisons in "
                f"{found['quintets']:,} quintets)."
            )
    if all(found["agreement"] is None for found in manifest["agreement"].values()):
        yield "No two labelers ranked the same quintet: it could not be measured."


def _biases(manifest: dict[str, Any]) -> Iterator[str]:
    yield "\n## Known biases\n"
    measured = False
    for whose, bias in manifest["bias"].items():
        best, decided = bias["best_at"], bias["decided"]
        who = "people" if whose == "people" else "simulated labelers"
        measured = measured or bool(decided or sum(best))
        if decided:
            yield (
                f"Of two rollouts of different length, {who} rank the longer one higher in "
                f"{bias['longer_first'] / decided:.1%} of {decided:,} pairs."
            )
        if sum(best):
            shares = ", ".join(f"{each / sum(best):.1%}" for each in best)
            yield (
                f"Ranked best by {who}, by the place at which it was shown, from the first to the fifth: "
                f"{shares}."
            )
    if not measured:
        yield "Neither length nor the place on the page could be compared with the ranks."
    if manifest["simulated"]:
        yield "Simulated rankings are a program's, and are marked by `simulated`."


def _quoted(text: str) -> str:
    return json.dumps(text)  # which is YAML as well
