"""The launch form of a run, made from `rlhf.config.settings`: fields, help and bounds are the config's.

`rlhf.config.make` is the only judge of a value, so the form and the command line refuse by the same words.
The fields are text, whatever they hold: what was typed comes back as it was typed. Launching itself
is `Run.objects.launch`."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django import forms
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify

from labeler.models import Checkpoint, Dataset, Project, Request, Run, User
from labeler.models.launching import LaunchedBefore
from labeler.models.probes import Alarm
from labeler.numbers import whole
from labeler.preview import Look, Preview
from labeler.run_inputs import INPUTS, NOW, InputsForm
from labeler.setting_fields import field_of
from labeler.templatetags.words import count, figure, plain
from rlhf import config

TWICE = timedelta(seconds=10)  # between two equal launches by one person that are one


class RunForm(InputsForm):
    """Settings by their own names, the run's inputs as `start`, `reward_model`, `dataset` and `simulated`."""

    def __init__(
        self,
        project: Project,
        kind: str,
        data: Mapping[str, Any] | None = None,
        *,
        source: Run | None = None,
        preset: str = "",
        chosen: Mapping[str, Any] | None = None,
    ):
        """`source`: a run to do again; `chosen`: inputs that a link to this page has picked already, and of a
        run that is done again the settings that are to be others (remedies.py)."""
        self.project, self.kind = project, kind
        beside = next(
            (each["reward_model"] for each in (data, chosen) if each and "reward_model" in each), None
        )
        mixed = bool(beside or (data is None and source and source.reward_model_id))
        self.judged = project.judged(kind, mixed)
        self.settings = _settings(project, kind, self.judged)
        self.is_judged_anew = bool(data) and data.get("judged", self.judged) != self.judged
        self.presets = [
            each | {"slug": slugify(each["name"])} for each in project.presets if each["kind"] == kind
        ]
        self.preset = next((each for each in self.presets if each["slug"] == preset), None)
        self.config: config.Config | None = None
        self.before: LaunchedBefore | None = None  # an equal run, of which it is asked once
        self.own = project.own_defaults(kind)
        finished = project.runs.filter(kind=kind, state=Run.State.FINISHED).order_by("-pk")
        self.earlier = source or finished.first()
        by_link = {each.name for each in self.settings if chosen and each.name in chosen}
        self.changed = by_link if source else by_link & {"stage"}
        names = [*INPUTS[kind], *self.changed]
        picked = {name: chosen[name] for name in names if chosen and name in chosen}
        sent = None if data is None else self._filled(data)
        super().__init__(sent, initial=self._first_values(source) | picked, label_suffix="")
        for name in INPUTS[kind]:
            if field := getattr(self, f"_{name}_field")():
                self.fields[name] = field
        for setting in self.settings:
            self.fields[setting.name] = field_of(setting, setting.name in self.own)

    def _filled(self, data: Any) -> Any:
        """What was sent, and where it could not say anything the default: of a setting that means something
        only since another model was chosen; and of one that was left as it was, which is another now."""
        sent, usual = data.copy(), {}
        if self.is_judged_anew:
            before = _settings(self.project, self.kind, data["judged"])
            usual = {each.name: plain(each.default) for each in before}
        for each in self.settings:
            was, is_new = sent.get(each.name), each.only and each.name not in sent
            if is_new or (was is not None and was == usual.get(each.name)):
                sent[each.name] = plain(each.default)
        return sent

    def _first_values(self, source: Run | None) -> dict[str, Any]:
        values: dict[str, Any] = {each.name: each.default for each in self.settings} | self.own
        if source:
            values |= {name: value for name, value in source.config.items() if name in values}
            names = ("start", "reward_model", "against", "dataset")
            inputs = {name: getattr(source, f"{name}_id") for name in names}
            values |= {name: pk for name, pk in inputs.items() if pk} | {"against": source.against_id or ""}
        values |= self.preset["values"] if self.preset else {}
        return {name: plain(value) if isinstance(value, float) else value for name, value in values.items()}

    # What the page shows.

    @property
    def inputs(self) -> list[forms.BoundField]:
        return [self[name] for name in INPUTS[self.kind] if name in self.fields]

    @property
    def simple(self) -> list[forms.BoundField]:
        return [self[each.name] for each in self.settings if not each.advanced]

    @property
    def advanced(self) -> list[forms.BoundField]:
        return [self[each.name] for each in self.settings if each.advanced]

    @property
    def advanced_is_open(self) -> bool:
        """A field that was refused, or that a preset or a link set, must not hide."""
        named = {field.name for field in self.advanced}
        set_by_others = self.changed | set(self.preset["values"] if self.preset else ())
        return bool(named & (set(self.errors) | set_by_others))

    def missing(self) -> dict[str, str] | None:
        """What has to be there before such a run can be thought of, and the page that mends it."""
        slug = self.project.slug

        def lacking(what: str, remedy: str, action: str, url: str, *more: str) -> dict[str, str]:
            return {"what": what, "remedy": remedy, "action": action, "url": reverse(url, args=[slug, *more])}

        if self.checked and not self.project.prompts.answered().exists():
            remedy = "A checker compares what is written with the right answer of each prompt."
            return lacking("No prompt has an answer yet", remedy, "Add problems with answers", "prompts_add")
        if (
            "reward_model" in self.fields
            and not self.checked
            and not self.fields["reward_model"].queryset.exists()
        ):
            remedy = "A policy is run against a reward model, and that is trained from rankings."
            return lacking("No reward model yet", remedy, "Train reward model", "run_new", "reward")
        if "start" in self.fields and not self.fields["start"].queryset.exists():
            remedy = "Say in the project's settings which model it begins with."
            return lacking("No starting model yet", remedy, "Edit the project", "project_edit")
        if self.kind in ("rollouts", "policy") and not self.project.prompts.exists():
            return lacking(
                "No prompts yet", "The model needs something to answer.", "Add prompts", "prompts_add"
            )
        if self.kind == "sft" and not self.project.demonstrations.exists() and not self._datasets().exists():
            remedy = "Finetuning learns from ideal answers: written here, imported, or rollouts that won."
            return lacking("No demonstrations yet", remedy, "To the demonstrations", "demonstrations_all")
        if "simulated" in self.fields and not any(self.rankings) and not self._datasets().exists():
            remedy = "A reward model learns from people's rankings; a few dozen are a beginning."
            return lacking("No rankings yet", remedy, "Rank a few quintets", "rank")
        return None

    # What was sent.

    def clean(self) -> dict[str, Any]:
        names = [each.name for each in self.settings if each.name in self.cleaned_data]
        values = {name: self.cleaned_data[name] for name in names}
        self.config, refusals = _made(self.kind, values | self._judged_by())
        for refused in refusals:
            self._refuse(refused)
        if self.cleaned_data.get("dataset") == NOW and not self._lines():
            self.add_error("dataset", self._nothing())
        if not self.errors and (look := self._look()):
            for block in look.preview().blocks:
                self._refuse(block)
        return self.cleaned_data

    def launched(self, by: User) -> Run | None:
        """The run that the form describes, queued; None where it is refused, which the fields then say."""
        if not self.is_valid():
            return None
        inputs = {name: self.cleaned_data.get(name) for name in INPUTS[self.kind]} | {"again": self.again}
        if chosen := inputs.pop("dataset", None):
            inputs["dataset"] = None if chosen == NOW else self._datasets().get(pk=chosen)
        if "origins" in inputs:
            inputs["origins"] = self.origins
        try:
            return Run.objects.launch(self.project, self.kind, config.as_dict(self.config), by, **inputs)
        except LaunchedBefore as before:
            if before.run.created_by == by and before.run.created_at > timezone.now() - TWICE:
                return before.run  # a button that was pressed twice
            self.before = before
            return None
        except config.Refused as refused:
            self._refuse(refused)
            return None

    @property
    def again(self) -> int:
        """The equal run that whoever launches knows of."""
        return whole(self.data.get("again"))

    def _refuse(self, refused: config.Refused) -> None:
        self.add_error(refused.field if refused.field in self.fields else None, refused.message)

    def _nothing(self) -> str:
        """Why there is nothing to learn from, or to measure on, and what would mend it."""
        if self.kind == "sft" and str(self["stage"].value()) == config.READING:
            return "There is nothing to read: bring in documents on the page of datasets."
        what = "measure on" if self.kind == "evaluation" else "learn from"
        return f"There is nothing to {what}: {self.supply()}."

    def _lines(self) -> int:
        """How many examples the chosen dataset has."""
        chosen = str(self["dataset"].value() or NOW)
        if chosen != NOW:
            found = self._datasets().filter(pk=whole(chosen)).first()
            return found.examples(self._longest()) if found else 0
        if self.kind == "sft":
            if str(self["stage"].value()) == config.READING:
                documents = self._datasets().filter(kind=Dataset.Kind.DOCUMENTS).first()
                return documents.examples(self._longest()) if documents else 0
            return 0 if self.none_ticked else self.demonstrations.counted(*self.origins).count()
        people, simulated = self.rankings
        return people + (simulated if self["simulated"].value() else 0)

    def _longest(self) -> int:
        made, _ = _made(self.kind, self._values())
        return getattr(made, "max_tokens", 1)

    def sums(self) -> str:
        """What the values on the form come to; empty while one of them is refused."""
        made, refusals = _made(self.kind, self._values())
        if refusals:
            return ""
        if isinstance(made, config.PolicyConfig):
            steps, rollouts = made.steps, made.rollouts_per_prompt
            there = self.practised() if self.checked else self.project.prompts.count()
            prompts = min(made.prompts_per_step * made.candidates, there)
            said = f"{count(steps, 'step')} × {count(prompts, 'prompt')} × {count(rollouts, 'rollout')}"
            said += f" = {steps * prompts * rollouts:,} rollouts {'checked' if self.checked else 'scored'}"
            learnt = min(made.prompts_per_step, prompts)
            return f"{said}; learnt from: {learnt} prompts a step" if made.candidates > 1 else said
        if isinstance(made, config.RolloutsConfig):
            prompts = self.project.prompts.count()
            total = f"{count(prompts, 'prompt')} × {count(made.count, 'rollout')}"
            quintets = f": {count(prompts, 'quintet')} to rank" if made.count == 5 else ""
            return f"{total} = {prompts * made.count:,} rollouts{quintets}"
        if isinstance(made, config.RewardConfig | config.SftConfig):
            reads = isinstance(made, config.SftConfig) and made.stage == config.READING
            noun = "text" if reads else "demonstration" if self.kind == "sft" else "ranking"
            steps = round(self._lines() * (1 - made.held_out) * made.epochs / made.batch)
            said = f"{count(self._lines(), noun)}, {figure(made.held_out, 'percent')} held out"
            said += f", × {plain(made.epochs)} epochs ÷ {made.batch} a step"
            return f"{said} = about {count(max(1, steps), 'step')}"
        less = ", less those of prompts it learnt from" if made.unseen else ""
        return f"{count(self._lines(), 'ranking')} to measure on{less}"

    def practised(self) -> int:
        """The prompts that such a run can be asked."""
        return self.project.prompts.practised(self.project.checker_digest).count()

    def _judged_by(self) -> dict[str, str]:
        """Of the config's inputs those on which its cap depends."""
        if not self.checked:
            return {}
        mixed = self._chosen("reward_model")
        return {
            "checker": self.project.checker_name,
            "reward": config.inputs("policy")["reward"] if mixed else "",
        }

    def _values(self) -> dict[str, Any]:
        """What is on the form at this moment, good or not."""
        return {each.name: self[each.name].value() for each in self.settings} | self._judged_by()

    # What it will take.

    def cap(self) -> str:
        """Why a policy run may take no more than so many steps, or why it may take any number of them."""
        most = f"at most {config.STEP_CAP} steps: "
        if self._chosen("reward_model"):
            beside = "a part of the reward is" if self.checked else "the reward is"
            return f"{most}{beside} what a reward model says, and a reward model can be fooled."
        if self.project.checked_by_rule:
            return "no cap: every part of the reward is computed by rule."
        return f"{most}a model judges the answers, and a model can be fooled." if self.checked else ""

    def preview(self) -> Preview | None:
        """None while one of the values cannot be used."""
        look = self._look()
        return look.preview() if look else None

    def try_out(self, by: User) -> None:
        """Ask the worker for a dry pass, unless one is on its way."""
        look = self._look()
        question = look.question() if look else None
        if question:
            Request.objects.ask_to_try(self.project, question, by)

    def _look(self) -> Look | None:
        made, refusals = _made(self.kind, self._values())
        if refusals:
            return None
        start, judge = (self._chosen(name) for name in ("start", "reward_model"))
        return Look(self.project, made, start, judge, self._lines() if "dataset" in self.fields else 0)

    def _chosen(self, name: str) -> Checkpoint | None:
        if name not in self.fields:
            return None
        return self.fields[name].queryset.filter(pk=whole(str(self[name].value()))).first()

    def differing(self) -> int:
        """How many settings are not what a run of this project starts from."""
        made, _ = _made(self.kind, self._values())
        defaults = {each.name: each.default for each in self.settings}
        usual, _ = _made(self.kind, defaults | self._judged_by())
        return sum(getattr(made, each.name) != getattr(usual, each.name) for each in self.settings)

    def alarm(self) -> Alarm | None:
        """What the probes say of the chosen reward model, where a policy would be trained against it."""
        judge = self._chosen("reward_model") if self.kind == Run.Kind.POLICY else None
        return Alarm.of(judge, self.project) if judge else None

    def suggests(self) -> str:
        """Which of its checkpoints a reward model run will propose to use."""
        if self.kind not in (Run.Kind.REWARD, Run.Kind.SFT):
            return ""
        made, _ = _made(self.kind, self._values())
        if made.early_stop:
            said = "It suggests the checkpoint with the best held-out loss, and stops after"
            return f"{said} {count(made.early_stop, 'measurement')} in a row that were no better."
        return (
            "It suggests its last checkpoint; with a “Patience” above 0 the one with the best held-out loss."
        )


def _settings(project: Project, kind: str, judged: str) -> list[config.Setting]:
    """What is this kind's own comes first, with the project's own defaults; where a model judges, the steps
    have their cap."""
    own, usual = vars(config.KINDS[kind])["__annotations__"], project.defaults_of(kind, judged)
    found = sorted(config.settings(kind, judged), key=lambda each: (each.advanced, each.name not in own))
    capped = {"steps": config.STEP_CAP} if judged in ("model", "mixed") else {}
    return [
        replace(each, default=usual[each.name], maximum=capped.get(each.name, each.maximum)) for each in found
    ]


def _made(kind: str, values: dict[str, Any]) -> tuple[config.Config, list[config.Refused]]:
    """The config, and every refusal at once: a refused value gives way to its default."""
    refusals: list[config.Refused] = []
    while True:
        try:
            return config.make(kind, values), refusals
        except config.Refused as refused:
            refusals.append(refused)
            if refused.field not in values:
                return config.make(kind, {}), refusals
            values = {name: value for name, value in values.items() if name != refused.field}
