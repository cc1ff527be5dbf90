"""What a run will take, before it is launched: what stops it, what to think about, and its time, memory and
disk, each with how that is known.

The form shows it while somebody types; `Run.objects.launch`, and so the command line, refuses by the same
checks. It blocks what cannot go well, and warns of what may not: an estimate alone blocks only where it is
off by more than it can be wrong. No model is loaded; a dry pass is asked of the worker (a request)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from django.db.models import TextField
from django.db.models.functions import Cast, Length

from labeler import capacity, checking, footprint, pace
from labeler.models import Checkpoint, Project, Prompt, Request, Rollout
from labeler.models.datasets import CHARACTERS
from labeler.templatetags.words import about, count
from rlhf import config
from rlhf.config import Refused

USUAL = 200  # rollouts that are looked at for their length
WRONG = 1.5  # how far the arithmetic of what a step holds may be off
NEAR = 0.9  # of the memory: more may be too much
LONGEST = 5  # prompts whose words are counted
UNKNOWN = "not known"
TRIED = ("rollouts", "sft", "reward", "policy")  # the kinds that a dry pass can tell about


@dataclass(frozen=True)
class Estimate:
    label: str
    said: str
    how: str


@dataclass
class Preview:
    blocks: list[Refused] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)
    tried: Request | None = None
    can_be_tried: bool = False

    @property
    def is_being_tried(self) -> bool:
        return self.tried is not None and self.tried.is_live


def size(value: float) -> str:
    """Bytes as people say them."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}" if value < 10 * unit else f"{value / unit:,.0f} {name}"
    return f"{value / 1e3:,.0f} kB"


class Look:
    """One look at a run that is not there yet."""

    def __init__(
        self,
        project: Project,
        made: config.Config,
        start: Checkpoint | None,
        judge: Checkpoint | None,
        lines: int,
        prompts: Sequence[Prompt] | None = None,
        earlier: pace.Earlier | None = None,
    ):
        """`lines`: of the dataset; `prompts`: where they are not all of the project's; `earlier`: the runs to
        estimate by, where many are looked at."""
        self.project, self.made, self.start, self.prompts = project, made, start, prompts
        self.earlier = earlier or pace.Earlier()
        self.model = footprint.model(start.folder) if start else None
        self.judge = footprint.model(judge.folder) if judge else None
        many = len(prompts) if prompts is not None else 0
        if prompts is None and made.kind == "rollouts":
            many = self.earlier.once(("prompts", project.pk), project.prompts.count)
        self.work = pace.work(made, lines, many)

    @cached_property
    def judged_by(self) -> footprint.Model | None:
        """The model that checks, where one does."""
        project = self.project
        if self.made.kind != "policy" or not project.is_checked or project.checker_name != "judge":
            return None
        return footprint.model(project.judge_model.folder) if project.judge_model else None

    @cached_property
    def found(self) -> Preview:
        return Preview(tried=self._tried())

    @cached_property
    def longest(self) -> list[Prompt]:
        """The longest prompts that are asked."""
        if self.prompts is not None:
            return sorted(self.prompts, key=lambda each: -len(each.text))[:LONGEST]
        length = Length(Cast("content", TextField()))
        return list(self.project.prompts.order_by(length.desc(), "pk")[:LONGEST])

    @property
    def usual(self) -> tuple[int, int]:
        """Tokens that a prompt and a rollout of this project have, by their characters."""
        return self.earlier.once(("tokens", self.project.pk), self._usual)

    def _usual(self) -> tuple[int, int]:
        rollouts = Rollout.objects.filter(quintet__project=self.project).order_by("-pk")[:USUAL]
        prompts = self.project.prompts.order_by("-pk")[:USUAL]
        return (
            _tokens([len(each.text) for each in prompts]),
            _tokens([len(text) for text in rollouts.values_list("text", flat=True)]),
        )

    def preview(self) -> Preview:
        self._cutting()
        self._references()
        self._context()
        self._memory()
        self._disk()
        self._time()
        self.found.can_be_tried = self.question() is not None
        return self.found

    # Checks

    def _block(self, name: str, words: str) -> None:
        self.found.blocks.append(Refused(name, words))

    def _cutting(self) -> None:
        """Portions of a batch. The result is the same however it is cut; but who asks for portions that do
        not divide it has something else in mind than what would be computed."""
        if isinstance(self.made, config.PolicyConfig):
            whole = self.made.prompts_per_step * self.made.rollouts_per_prompt
            nouns, usual = "rollouts of a step", config.PolicyConfig.micro_batch
        elif isinstance(self.made, config.RewardConfig):
            whole, nouns, usual = self.made.batch, "examples of a batch", config.RewardConfig.micro_batch
        else:
            return
        portion = self.made.micro_batch
        usual = self.project.run_defaults.get(self.made.kind, {}).get("micro_batch", usual)
        if portion >= whole or not whole % portion:
            return
        better = next(each for each in range(portion, 0, -1) if not whole % each)
        words = f"The {whole} {nouns} do not divide into portions of {portion}"
        if portion == usual:
            self.found.warnings.append(
                f"{words}: the last portion has {whole % portion}. The result is the same."
            )
        else:
            self._block("micro_batch", f"{words}: take {better} or {whole} at once.")

    def _references(self) -> None:
        """What a checker cannot judge, and what it judges oddly. It is said, and stops nothing."""
        if self.made.kind != "policy" or not self.project.is_checked:
            return
        found = checking.references(self.project)
        self.found.warnings += [f"{each}." for each in (found.left_out, found.words) if each]
        if found.waiting:
            were = "has" if found.waiting == 1 else "have"
            self.found.warnings.append(f"{count(found.waiting, 'reference')} {were} not been tried yet.")

    def _context(self) -> None:
        longest = getattr(self.made, "max_new_tokens", 0)
        if self.made.kind not in ("policy", "rollouts") or not self.model or not self.model.context:
            return
        context, positions = self.model.context, f"the {self.model.context:,} tokens that the model takes"
        if longest >= context:
            words = f"A rollout of {longest:,} tokens leaves no room for a prompt in {positions}."
            return self._block("max_new_tokens", words)
        exact, least, likely = self._prompt_tokens()
        tokens = exact or least
        if tokens + longest > context:
            what = f"{exact:,} tokens" if exact else f"{least:,} words, each a token at least"
            words = (
                f"The longest prompt has {what}; with a rollout of {longest:,} that is more than {positions}."
            )
            left = context - tokens
            remedy = f" Lower the longest rollout to {left:,}," if left > 0 else " Take another model,"
            self._block("max_new_tokens", f"{words}{remedy} or take the prompt out of the project.")
        elif not exact and likely + longest > context:
            self.found.warnings.append(
                f"The longest prompt may not fit beside a rollout of {longest:,} in {positions} (about "
                f"{likely:,} tokens, by its characters): it would lose its beginning."
            )

    def _prompt_tokens(self) -> tuple[int, int, int]:
        """Of the longest prompt: as the worker has counted, at least (a word is one), and by its length."""
        tried = self.found.tried
        counted = tried and tried.answer and tried.question["prompts"] == self._contents()
        exact = tried.answer["longest"] if tried and tried.answer and counted else 0
        texts = [each.text for each in self.longest]
        words = max((len(text.split()) for text in texts), default=0)
        return exact, words, round(max(map(len, texts), default=0) / CHARACTERS)

    def _contents(self) -> list[Any]:
        return [each.content for each in self.longest] or ["."]

    def _memory(self) -> None:
        of_start = self.made.kind != "evaluation"
        of_judge = bool(getattr(self.made, "reward", "")) and self.made.kind in ("policy", "evaluation")
        if (of_start and not self.model) or (of_judge and not self.judge):
            return
        exact, _, likely = self._prompt_tokens() if self.made.kind in ("policy", "rollouts") else (0, 0, 0)
        usual_prompt, usual_rollout = self.usual
        need = footprint.memory(
            self.made, self.model, self.judge, exact or likely or usual_prompt, usual_rollout
        )
        if self.judged_by:
            need = replace(need, fixed=need.fixed + self.judged_by.weights)
        measured = self._measured()
        if measured:
            need = replace(need, each=measured)
        how = f"{size(need.fixed)} for weights and training, {size(need.each)} for each {need.noun} at once"
        self.found.estimates.append(
            Estimate(
                "Memory",
                f"about {size(need.whole)}",
                f"by {'a try and ' if measured else ''}arithmetic: {how}",
            )
        )
        there = capacity.told()
        if there is None:
            self.found.warnings.append(
                "No worker has told yet what memory it has: whether this fits is not known."
            )
            return
        where, has = there.where(getattr(self.made, "device", "auto"))
        if need.fixed > has:
            self._block(*self._too_large(need, where, has))
        elif need.fixed + need.each * need.at_once / WRONG > has or need.whole > NEAR * has:
            fits = need.fitting(has)
            words = f"About {size(need.whole)} are needed, and {where} has {size(has)}"
            certain = need.fixed + need.each * need.at_once / WRONG > has
            knob = self._portion_setting()
            remedy = f": {count(fits, need.noun)} at once should fit." if fits < need.at_once else "."
            if certain and knob:
                self._block(knob, words + remedy)
            else:
                self.found.warnings.append(f"{words}{remedy} It may run out.")

    def _measured(self) -> int:
        """Bytes of a rollout at once, where a policy's were tried at this length; 0 where they were not."""
        tried = self.found.tried
        if self.made.kind != "policy" or not tried or not tried.answer:
            return 0
        same = tried.question["max_new_tokens"] == getattr(self.made, "max_new_tokens", 0)
        return int(tried.answer.get("each") or 0) if same else 0

    def _too_large(self, need: footprint.Need, where: str, has: int) -> tuple[str, str]:
        words = f"This run holds {size(need.fixed)} before it computes anything, and {where} has {size(has)}"
        if getattr(self.made, "lora_rank", 1) == 0:
            return "lora_rank", f"{words}: train adapters (LoRA rank 16), or start from a smaller model."
        return (
            "start" if self.made.kind != "evaluation" else "reward_model",
            f"{words}: take a smaller model.",
        )

    def _portion_setting(self) -> str:
        return next((name for name in ("micro_batch", "batch") if hasattr(self.made, name)), "")

    def _disk(self) -> None:
        needed, free = footprint.disk(self.made, self.model, self.work.steps), capacity.room()
        if not needed:
            return
        kept = footprint.checkpoints(self.made, self.work.steps)
        assert self.model
        how = f"{count(kept, 'checkpoint')} of {size(self.model.weights)}, and what resuming needs"
        self.found.estimates.append(
            Estimate("Disk", f"up to {size(needed)}", f"{how}; {size(free)} are free")
        )
        if needed > free:
            words = f"The run's checkpoints take up to {size(needed)}, and {size(free)} are free"
            self._block("checkpoint_every", f"{words}: keep fewer, or make room.")
        elif needed > NEAR * free:
            self.found.warnings.append("The run's checkpoints will nearly fill the disk.")

    def _time(self) -> None:
        earlier, tried = self.by_an_earlier_run(), self.by_a_try()
        found = earlier or tried
        said, how = UNKNOWN, "no run like this has finished here yet"
        if found:
            said, how = about(found.seconds), found.how
        if earlier and tried:
            how += f"; {about(tried.seconds)} {tried.how}"
        self.found.estimates.insert(0, Estimate("Time", said, how))

    def time(self) -> pace.Time | None:
        """By an earlier run, which has done all of it; else by a try."""
        return self.by_an_earlier_run() or self.by_a_try()

    def by_an_earlier_run(self) -> pace.Time | None:
        of = self.judge if self.made.kind == "evaluation" else self.model
        return pace.by_an_earlier_run(
            self.project, self.made, of.parameters if of else None, self.work, self.earlier
        )

    def by_a_try(self) -> pace.Time | None:
        tried = self.found.tried
        if not tried or not tried.answer:
            return None
        prompt, rollout = self.usual
        longest = tried.answer.get("longest", prompt) if self.made.kind == "policy" else prompt
        return pace.by_a_try(tried, self.made, self.work, (longest, rollout))

    # The dry pass

    def question(self) -> dict[str, Any] | None:
        """What the worker is asked to try; None where there is nothing to be tried."""
        if self.made.kind not in TRIED or not self.start or self.start.folder is None:
            return None
        at_once = getattr(self.made, "micro_batch", getattr(self.made, "batch", 1))
        _, usual_rollout = self.usual
        longest = getattr(self.made, "max_new_tokens", 0) if self.work.longest else usual_rollout
        return {
            "checkpoint": self.start.pk,
            "prompts": self._contents(),
            "max_new_tokens": min(config.LONGEST_ROLLOUT, max(1, longest)),
            "at_once": min(4096, at_once),
            "train": self.made.kind != "rollouts",
        }

    def _tried(self) -> Request | None:
        """The newest try of this start, for this kind of work; what it tells is a speed."""
        if self.made.kind not in TRIED or not self.start:
            return None
        train = self.made.kind != "rollouts"
        asked = self.project.requests.filter(kind=Request.Kind.TRY, question__checkpoint=self.start.pk)
        asked = asked.filter(question__train=train).order_by("-pk")
        return self.earlier.once(("try", self.project.pk, self.start.pk, train), asked.first)


def _tokens(lengths: list[int]) -> int:
    return round(sum(lengths) / len(lengths) / CHARACTERS) + 1 if lengths else 1
