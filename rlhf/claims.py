"""An evaluation in words: what a reward model's numbers can and cannot claim, and the table for a terminal.

Takes evaluation.json's object as `rlhf.evaluate` makes it. Every sentence is about numbers that were
measured; what follows from them is for people to say.
"""

from collections.abc import Iterable, Iterator
from typing import Any

FEW = 20  # rankings
FEW_PROMPTS = 10
CHANCE = 0.05  # a difference that comes about more often where there is none cannot be told from chance
FEWEST = 6  # prompts that differ: with fewer even a difference on every one of them comes about more often
HARDLY = 0.02  # of accuracy: what is not worth ranking twice as much for


def of(found: dict[str, Any]) -> list[str]:
    """What can and cannot be claimed, in sentences. `dataset`, where a training run tells it, counts all that
    was given; without it what was measured on is all there is."""
    return [
        *_accuracy(found),
        *_seen(found),
        *_who(found),
        *_how_many(found),
        *_how_sure(found),
        *_weaknesses(found),
    ]


def _accuracy(found: dict[str, Any]) -> Iterator[str]:
    share = found["accuracy"]
    if not found["rankings"]:
        yield "Nothing was held out, so nothing can be said of rankings that it has not seen."
        return
    if share["value"] is None:
        yield "No ranking held out says that one rollout is better than another, so nothing can be said."
        return
    pairs = f"It orders {share['value']:.1%} of {share['pairs']:,} pairs as the rankings do"
    if share["low"] is None:
        yield f"{pairs}, all of one prompt: that does not tell how it does on others."
        return
    between = f"{pairs}; at 95 % the share lies between {share['low']:.1%} and {share['high']:.1%}"
    if share["low"] > 0.5:
        yield f"{between}: better than a coin."
    elif share["high"] < 0.5:
        yield f"{between}: worse than a coin."
    else:
        yield f"{between}: that cannot be told from a coin."


def _seen(found: dict[str, Any]) -> Iterator[str]:
    if found.get("trained_on") and found["rankings"]:
        yield "It was trained on this very file: much of this is memory, and no claim about other rankings."
    if found.get("chosen_here") and found["rankings"]:
        yield "Patience chose it by these very rankings, of several measurements: that flatters it a little."
    if (unseen := found.get("unseen")) is None:
        return
    if unseen["left_out"]:
        yield f"Left out, because their prompts were trained on: {unseen['left_out']:,} rankings."
    if not all(unseen["known"]):
        which = "it" if len(unseen["known"]) == 1 else "one of the two" if any(unseen["known"]) else "either"
        yield f"What {which} was trained on is not known; where that is in here, this flatters it."


def _who(found: dict[str, Any]) -> Iterator[str]:
    every = found.get("dataset") or found
    if every["rankings"] and every["labelers"] == 1:
        yield "All rankings are by one labeler: how others would rank cannot be said."
    if every["rankings"] and every["simulated"] == every["rankings"]:
        yield "All rankings are simulated: this is agreement with a program, and none with people."
    elif every["simulated"]:
        yield f"{every['simulated']:,} of {every['rankings']:,} rankings are simulated."


def _how_many(found: dict[str, Any]) -> Iterator[str]:
    every = found.get("dataset") or found
    telling = every["rankings"] - every["all_tied"]
    if every["all_tied"]:
        yield f"Rankings of equals, kept and counted but not used: {every['all_tied']:,}."
    if telling < FEW:
        yield f"Only {telling} rankings say anything, fewer than {FEW}: too few to claim a taste was learnt."
    measured = found["rankings"] - found["all_tied"]
    if "dataset" in found and 0 < measured < FEW <= telling:
        yield f"Only {measured} rankings were held out: believe the interval, not the number."
    if 1 < found["accuracy"]["prompts"] < FEW_PROMPTS:
        yield f"The interval rests on {found['accuracy']['prompts']} prompts and is too narrow if anything."


def _how_sure(found: dict[str, Any]) -> Iterator[str]:
    if found["tau_of"] == "the same pairs":
        yield "τ was fitted on the pairs it is judged on, so NLL and calibration error flatter it."
    elif found["tau_of"] == "other prompts":
        yield "NLL and calibration error are of τ fitted on the other half of the held-out prompts."


def _weaknesses(found: dict[str, Any]) -> Iterator[str]:
    shorter = found["shorter_won"]
    if shorter["high"] is not None and shorter["high"] < 0.5:
        yield f"Where the shorter one won it is right on only {shorter['value']:.1%}: it rewards length."
    if found["rollouts_cut"]:
        yield f"Rollouts too long for it, and judged by their beginning: {found['rollouts_cut']:,}."
    probes = found.get("probes")
    if probes and probes["above"]:
        yield (
            f"It scores {probes['above']} of {len(probes['probes'])} probes above the median real rollout, "
            f"“{probes['worst']}” the highest: a policy would find that."
        )


def more_labels(found: dict[str, Any]) -> str:
    """Would more labels help? From the learning curve's half to its end, in a sentence: by the interval of
    the difference between these two models on the same pairs, which is narrower than that of either."""
    points = [each for each in found["learning_curve"] if each["accuracy"]["value"] is not None]
    before = [each for each in points if each.get("ahead", {}).get("low") is not None]
    if not before:
        return "Whether more labels would help cannot be said: the learning curve has too few points."
    end = points[-1]
    start = min(before, key=lambda each: abs(each["rankings"] - end["rankings"] / 2))
    after, low, high = end["accuracy"]["value"], start["ahead"]["low"], start["ahead"]["high"]
    way = (
        f"with {start['rankings']:,} rankings it was right on {start['accuracy']['value']:.1%} of pairs, "
        f"with {end['rankings']:,} on {after:.1%}"
    )
    ceiling = found["people"]["ceiling"]
    if ceiling is not None and after >= ceiling:
        return (
            "More quintets would hardly help: it is right as often as people’s own agreement can show "
            f"({ceiling:.1%}). More people on each quintet might."
        )
    if max(-low, high) <= HARDLY:
        return f"More labels of this kind would hardly help: {way}."
    if low > 0:
        return f"More labels would probably help: {way}."
    if high < 0:
        return f"More labels of this kind did not help: {way}. Look at how far the labelers agree first."
    return (
        f"Whether more labels would help cannot be told: {way}; on the same pairs the second is ahead by "
        f"{100 * low:+.0f} to {100 * high:+.0f} points."
    )


def compared(told: dict[str, Any]) -> list[str]:
    """What a comparison of two models can and cannot claim."""
    if told["difference"] is None:
        return ["Both were measured on no pair in common, so nothing can be said of which is better."]
    shares = f"the first orders {told['first']['value']:.1%}, the second {told['second']['value']:.1%}"
    said = [f"Of {told['pairs']:,} pairs {shares} as the rankings do."]
    differing = told["first_better"] + told["second_better"]
    if not differing:
        return [*said, "On every prompt both are right about as many pairs: there is no difference to tell."]
    wider = "the first" if told["difference"] > 0 else "the second"
    often = f"if neither were better, a difference as large would come about {_tries(told['p'])}"
    if told["p"] < CHANCE:
        said.append(f"{wider.capitalize()} is better, and that can be told from chance: {often}.")
    else:
        said.append(f"The difference cannot be told from chance: {often}.")
    if told["low"] is not None:
        said.append(f"At 95 % {_ahead(told['low'], told['high'])}.")
    if differing < FEWEST:
        said.append(f"They differ on {differing} prompts only; under {FEWEST} no difference could be told.")
    if any(told["alone"]):
        one, other = told["alone"]
        said.append(f"Not compared, because only one was measured on them: {one + other:,} rankings.")
    return said


def _ahead(low: float, high: float) -> str:
    """Between what a difference lies, for whom."""
    if low >= 0:
        return f"the first is ahead by {100 * low:.1f} to {100 * high:.1f} points"
    if high <= 0:
        return f"the second is ahead by {-100 * high:.1f} to {-100 * low:.1f} points"
    first, second = f"{100 * high:.1f}", f"{-100 * low:.1f}"
    return f"either may be ahead, the first by up to {first} points, the second by up to {second}"


def _tries(p: float) -> str:
    for tries in (100, 1000):
        if p * tries >= 1:
            return f"in about {p * tries:.0f} of {tries:,} tries"
    return "in fewer than 1 of 1,000 tries"


def table(found: dict[str, Any]) -> str:
    """The evaluation as a terminal shows it."""
    rows = [("accuracy", _shown(found["accuracy"]))]
    if found["people"]["value"] is not None:
        ceiling = found["people"]["ceiling"]
        reach = f"; a model can reach {ceiling:.1%}" if ceiling is not None else ""
        rows.append(("people agree", _shown(found["people"]) + reach))
    rows += [
        (name, _number(found[name])) for name in ("loss", "nll", "nll_raw", "ece", "ece_raw", "tau", "mu")
    ]
    for by in ("by_gap", "by_labeler", "by_arm"):
        rows += [(f"{by} {name}", _shown(share)) for name, share in found[by].items()]
    for part in found["by_length"]:
        low, high = part["difference"]
        rows.append((f"longer by {low} to {high}", _shown(part)))
    rows += [(name, _shown(found[name])) for name in ("shorter_won", "longer_won")]
    rows.append(("length_correlation", _shown(found["length_correlation"], percent=False)))
    rows += [
        (f"sure {bin['sure']:.2f}", f"right {bin['right']:.1%} of {bin['pairs']:,} pairs")
        for bin in found["reliability"]
    ]
    rows += [(name, f"{found[name]:,}") for name in ("rankings", "all_tied", "labelers", "simulated")]
    if "probes" in found:
        rows.append(("median real rollout", f"score {_number(found['probes']['median_real'])}"))
        rows += [
            (
                f"probe {each['name']}",
                f"score {each['score']:.4g}" + (" ABOVE" if each["above_median"] else ""),
            )
            for each in found["probes"]["probes"]
        ]
    if "against" in found:
        rows += _against(found["against"])
    said = [*found["claims"], *found.get("against", {}).get("claims", [])]
    return "\n".join([*_lines(rows), "", *said])


def _against(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("against", _shown(told["second"])),
        ("difference", _shown({**told, "value": told["difference"]}, percent=False)),
        ("p (flips, sign test)", f"{_number(told['p'])}, {_number(told['p_sign'])}"),
        ("prompts won, lost, even", f"{told['first_better']}, {told['second_better']}, {told['equal']}"),
    ]


def _lines(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{name.replace('_', ' '):26} {value}" for name, value in rows]


def _shown(share: dict[str, Any], percent: bool = True) -> str:
    form = ".1%" if percent else "+.3f"
    if share["value"] is None:
        return "–"
    told = format(share["value"], form)
    if share["low"] is not None:
        told += f"  ({format(share['low'], form)} to {format(share['high'], form)})"
    return told + (f"  {share['pairs']:,} pairs" if "pairs" in share else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
