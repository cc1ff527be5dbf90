"""The commands of the machine learning side, for people at a terminal and for the worker.

    python -m rlhf new KIND RUN_DIR --from CHECKPOINT …   make a run directory
    python -m rlhf RUN_DIR [--processes N]                run it, or go on with it
    python -m rlhf evaluate CHECKPOINT DATASET.jsonl      how well a reward model agrees with rankings
    python -m rlhf score CHECKPOINT < lines.jsonl         rewards and scores, a line out per line in
    python -m rlhf check CHECKER < answers.jsonl          whether answers are correct, a line out per line in
    python -m rlhf settings [KIND] [--markdown]           what a run may be told, with its help and bounds

Each ends with 0 only when it did what it was asked; what went wrong is one line on stderr. Torch is loaded
only by the commands that compute, so that a setting is refused at once.
"""

import argparse
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rlhf import checkers, config, data, manual
from rlhf.config import Refused
from rlhf.execute import FINISHED, complain, execute

OPTIONS = {
    "policy": "--from", "reward": "--reward", "dataset": "--dataset", "prompts": "--prompts",
    "against": "--against",
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(complain(f"{self.prog}: {message}; --help tells more.", 2))


def main(arguments: Sequence[str]) -> int:
    """Carry out one command; the exit status."""
    commands = {"new": _new, "evaluate": _evaluate, "score": _score, "check": _check}
    commands["settings"] = _show_settings
    try:
        if not arguments or arguments[0] not in (*commands, "-h", "--help"):
            given = _run_parser().parse_args(arguments)
            return _run(given)
        given = _parser().parse_args(arguments)
        return commands[given.command](given)
    except (Refused, data.BadLine) as error:
        return complain(str(error))
    except ImportError as error:
        return complain(f"{error.name or error} is not installed; install the worker's packages.")
    except OSError as error:
        return complain(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))


def _run_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m rlhf", description="Run or resume a run directory.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--afresh", action="store_true", help="forget what earlier attempts wrote")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="share a run that trains among so many"
    )
    return parser


def _run(given: argparse.Namespace) -> int:
    if given.processes < 1:
        raise Refused("processes", "A run takes at least one process.")
    if given.processes == 1:
        return execute(given.run_dir, given.afresh)
    from rlhf import launch, processes

    if (kind := config.read(given.run_dir).kind) not in processes.KINDS:
        raise Refused("processes", f"A run of kind {kind} takes one process.")
    return launch.launch(given.run_dir, given.processes, ["--afresh"] if given.afresh else [])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m rlhf",
        description="Reward models and policies. `python -m rlhf RUN_DIR` runs or resumes a run directory.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser(
        "new",
        help="make a run directory",
        epilog=_settings_in_words(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.add_argument("kind", choices=list(config.KINDS))
    new.add_argument("run_dir", type=Path)
    new.add_argument("--from", dest="policy", metavar="CHECKPOINT", help="a folder, or hub:org/name@revision")
    new.add_argument("--dataset", metavar="FILE", help="rankings; for sft demonstrations or documents")
    new.add_argument("--prompts", metavar="FILE", help="prompt lines")
    new.add_argument("--reward", metavar="CHECKPOINT", help="the reward model")
    new.add_argument("--against", metavar="CHECKPOINT", help="a second one, or a policy, to compare with")
    new.add_argument("--checker", default="", metavar="NAME", help="what judges in its place")
    new.add_argument("--judge", metavar="CHECKPOINT", help="the model of the checker “judge”")
    new.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    check = commands.add_parser(
        "check",
        help="whether the answers on stdin are correct",
        epilog=_options_in_words(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("checker", choices=config.CHECKERS)
    check.add_argument("--judge", metavar="CHECKPOINT", default="", help="the model of the checker “judge”")
    check.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    measure = commands.add_parser("evaluate", help="how well a reward model agrees with rankings")
    measure.add_argument("checkpoint", type=Path)
    measure.add_argument("dataset", type=Path)
    measure.add_argument("--against", type=Path, metavar="CHECKPOINT", help="another one, by a paired test")
    measure.add_argument("--probes", type=Path, metavar="FILE", help="answers that are known to be bad")
    measure.add_argument("--json", action="store_true", help="no table, and every quintet in the JSON")
    settings = commands.add_parser("settings", help="what a run may be told")
    settings.add_argument("kind", nargs="?", choices=list(config.KINDS), help="else all kinds")
    settings.add_argument("--markdown", action="store_true", help="as in docs/settings.md")
    score = commands.add_parser("score", help="rewards and scores of the lines on stdin")
    score.add_argument("checkpoint", type=Path)
    return parser


def _show_settings(given: argparse.Namespace) -> int:
    kinds = [given.kind] if given.kind else list(config.KINDS)
    print(manual.markdown(kinds) if given.markdown else _settings_in_words(kinds))
    return FINISHED


def _settings_in_words(kinds: Sequence[str] = tuple(config.KINDS)) -> str:
    lines = []
    for kind in kinds:
        lines.append(f"settings of {kind} runs:")
        lines += [f"  {each.name}={each.default}".ljust(34) + each.help for each in config.settings(kind)]
    return "\n".join(lines)


def _options_in_words() -> str:
    lines = []
    for name in config.CHECKERS:
        lines.append(f"options of the {name} checker:")
        for each in checkers.options(name):
            default = str(each.default) if "\n" not in str(each.default) else "…"
            lines.append(f"  {each.name}={default}".ljust(34) + each.help)
    return "\n".join(lines)


def _new(given: argparse.Namespace) -> int:
    """Make a run directory, whole or not at all."""
    if given.kind == "evaluation":  # it starts from the reward model that it measures
        given.reward, given.policy = given.reward or given.policy, None
    places = config.inputs(given.kind)
    values: dict[str, Any] = {"checker": given.checker} if given.checker else {}
    if given.checker and not given.reward:
        values["reward"] = ""
    if "against" in places:
        places["against"] = values["against"] = config.AGAINST if given.against else ""
    sources = {name: getattr(given, name) for name in OPTIONS}
    for name, source in sources.items():
        if source and name not in places:
            raise Refused(name, f"A {given.kind} run takes no {OPTIONS[name]}.")
        if not source and name in places and values.get(name) != "":
            raise Refused(name, f"A {given.kind} run needs {OPTIONS[name]}.")
    if (sources["policy"] or "").startswith("hub:"):
        values["policy"] = sources.pop("policy")
    own, options = _parted(config.assignments(given.settings))
    made = config.make(given.kind, values | own)
    checker = _checker(given.checker, options, given.judge)
    if given.run_dir.exists() and (not given.run_dir.is_dir() or any(given.run_dir.iterdir())):
        raise Refused("run_dir", f"{given.run_dir} is there already and is not empty.")
    part = given.run_dir.with_name(f".{given.run_dir.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        config.write(part, made)
        for name, source in sources.items():
            if source:
                _take(made, name, Path(source), part / places[name])
        if checker:
            said = checkers.as_dict(checker)
            text = data.dumps({"name": given.checker} | {name: said[name] for name in options})
            (part / checkers.FILE).write_text(text + "\n", encoding="utf-8")
        if given.judge:
            _take(made, "judge", Path(given.judge), part / checkers.JUDGE)
        os.replace(part, given.run_dir)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"Made {given.run_dir}; run it with: python -m rlhf {given.run_dir}")
    return FINISHED


def _parted(settings: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The settings of a run, and those of its checker: `checker.tolerance=0.01`."""
    mark = "checker."
    own = {name: value for name, value in settings.items() if not name.startswith(mark)}
    return own, {name.removeprefix(mark): value for name, value in settings.items() if name not in own}


def _checker(name: str, options: dict[str, str], judge: str | None) -> checkers.Checker | None:
    """The checker that is asked for, if one is. Raises Refused where it could not be."""
    if judge and name != "judge":
        raise Refused("judge", "--judge gives the model of the checker “judge”.")
    if not name:
        if options:
            raise Refused(next(iter(options)), "The options of a checker take --checker.")
        return None
    if name == "judge" and not judge:
        raise Refused("judge", "The checker “judge” needs --judge, the model that judges.")
    return checkers.make(name, options, judge or "")


def _take(made: config.Config, name: str, source: Path, target: Path) -> None:
    """An input of the run: lines are checked and copied, checkpoints linked where that is possible."""
    if name == "prompts":
        data.prompt_lines(source)
        shutil.copyfile(source, target)
    elif name == "dataset":
        _lines_of(made)(source)
        shutil.copyfile(source, target)
    elif not source.is_dir():
        raise Refused(name, f"{source} is not a folder.")
    else:
        target.mkdir(parents=True)
        for file in sorted(source.iterdir()):
            if file.is_file():
                _link(file.resolve(), target / file.name)


def _lines_of(made: config.Config) -> Callable[[Path], list[Any]]:
    """What reads, and so checks, the dataset of such a run."""
    if isinstance(made, config.SftConfig):
        return data.documents if made.stage == config.READING else data.demonstrations
    return data.rankings


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def _evaluate(given: argparse.Namespace) -> int:
    rankings = data.rankings(given.dataset)
    if not rankings:
        raise Refused("dataset", f"{given.dataset} holds no rankings.")
    if given.probes is not None:
        data.probe_lines(given.probes)  # a file that is not there or is broken is told before any work
    from rlhf import checkpoint, claims, evaluate, evaluation_run, probes
    from rlhf.reward_model import RewardModel

    bank, told = probes.bank(rankings, given.probes), []
    for path in filter(None, (given.checkpoint, given.against)):
        try:
            model = RewardModel.load(path, checkpoint.choose_device())
        except checkpoint.Unloadable as error:
            return complain(f"{path}: {error.reason} {error.remedy}")
        seen = evaluate.trained_on(path, given.dataset)
        told.append(evaluate.evaluate(model, rankings, bank, trained_on=seen))
    found = told[0]
    if given.against:
        found["against"] = evaluation_run.against(*told)
    if not given.json:
        print(claims.table(found), end="\n\n")
        found = {name: value for name, value in found.items() if name != "quintets"}
        found.get("against", {}).pop("differing", None)
    print(json.dumps(found, ensure_ascii=False))
    return FINISHED


def _score(given: argparse.Namespace) -> int:
    from rlhf import checkpoint
    from rlhf.reward_model import RewardModel

    try:
        model = RewardModel.load(given.checkpoint, checkpoint.choose_device())
    except checkpoint.Unloadable as error:
        return complain(f"{error.reason} {error.remedy}")
    for line in data.scorable(sys.stdin.buffer):
        rewards = model.rewards_of([model.encode(*line)])[0]
        print(json.dumps({"rewards": rewards, "scores": [model.score(each) for each in rewards]}), flush=True)
    return FINISHED


def _check(given: argparse.Namespace) -> int:
    """Tell of every answer whether it is correct; a status of 1 where that could not be told of all."""
    checker = _checker(given.checker, config.assignments(given.settings), given.judge)
    assert checker is not None
    waiting: list[checkers.Item] = []
    total = failed = 0
    for item in itertools.chain(data.checkable(sys.stdin.buffer), [None]):
        waiting += [checkers.Item(*item)] if item else []
        if item and len(waiting) < (1 if checker.by_rule else 8):
            continue
        for found in checker.each(waiting):
            total, failed = total + 1, failed + isinstance(found, checkers.CannotCheck)
            print(json.dumps(checkers.line_of(found), ensure_ascii=False), flush=True)
        waiting = []
    return complain(f"{failed:,} of {total:,} answers could not be checked.") if failed else FINISHED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
