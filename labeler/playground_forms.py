"""The form of the playground: one checkpoint or two, a prompt or the turns of a chat, and how to sample.

It is filled from an address (so that settings can be handed on), from a question that was asked before, or
from what the project usually samples with. Only what one may see can be chosen."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.http import QueryDict

from labeler.models import Checkpoint, Project, Request, User
from labeler.numbers import whole
from labeler.playground import own_prompt, turns
from rlhf import config, data

MOST = 64  # samples of a checkpoint
LETTERS = 200_000  # characters of a prompt
TURNS = 40  # of a chat
OFFERED = 100  # checkpoints of a kind, the newest
HANDED_ON = 1_500  # characters of an address, which not every server takes longer
ROLES = {"user": "User", "assistant": "Assistant", "system": "System"}


class PlayForm(forms.Form):
    most_turns = TURNS

    checkpoint = forms.ChoiceField(label="Checkpoint")
    beside = forms.ChoiceField(label="Beside it", required=False)
    reward_model = forms.ChoiceField(
        label="Scored by", required=False, help_text="What a reward model thinks of each answer, from 0 to 1."
    )
    temperature = forms.FloatField(
        min_value=0,
        max_value=2,
        initial=1.0,
        help_text="0 always takes the likeliest token; above 1 it dares more.",
    )
    top_p = forms.FloatField(
        label="Top-p",
        min_value=0.01,
        max_value=1,
        initial=1.0,
        help_text="Draw from the likeliest tokens that together have this share. Training samples with 1.",
    )
    longest = forms.IntegerField(
        min_value=1, max_value=config.LONGEST_ROLLOUT, help_text="Tokens of an answer."
    )
    count = forms.IntegerField(
        label="Samples", min_value=1, max_value=MOST, initial=5, help_text="Of each checkpoint."
    )
    seed = forms.IntegerField(
        min_value=0, max_value=2**31 - 1, initial=0, help_text="The same seed says the same again."
    )

    def __init__(
        self, user: User, project: Project | None, given: Mapping[str, Any] | QueryDict, asked: bool = False
    ):
        """`given` fills the form; where it was `asked`, it is held to what it says."""
        self.user, self.project, self.given = user, project, given
        options: dict[str, Any] = {"use_required_attribute": False, "label_suffix": ""}
        super().__init__(given if asked else None, initial=self._initial(given), **options)
        policies, judges = (self._offered(kind) for kind in Checkpoint.Kind.values)
        self._fields("checkpoint").choices = policies
        self._fields("beside").choices = [("", "nothing"), *policies]
        self._fields("reward_model").choices = [("", "nobody"), *judges]
        if not self.initial.get("checkpoint"):
            self.initial["checkpoint"] = self._likeliest()
        if "reward_model" not in given and (judge := self._judge()):
            self.initial["reward_model"] = str(judge.pk)
        for name in ("temperature", "top_p"):
            self.fields[name].widget.attrs["step"] = "any"

    def _fields(self, name: str) -> Any:
        return self.fields[name]

    def _initial(self, given: Mapping[str, Any]) -> dict[str, Any]:
        usual = self.project.defaults_of("rollouts") if self.project else {}
        usual |= {} if usual else {each.name: each.default for each in config.settings("rollouts")}
        known = {"longest": usual["max_new_tokens"], "temperature": usual["temperature"]}
        return known | {name: given[name] for name in self.base_fields if given.get(name)}

    # What can be chosen

    def _offered(self, kind: str) -> list[Any]:
        """In groups by project, this one's first; whatever was asked for is among them."""
        found = Checkpoint.objects.seen_by(self.user).filter(kind=kind).select_related("project")
        wanted = [whole(str(value)) for value in self._wanted()]
        rows = {each.pk: each for each in found.order_by("-pk")[:OFFERED]}
        rows |= found.in_bulk(wanted) | found.in_bulk([self.project.start_id or 0] if self.project else [])
        groups: dict[str, list[tuple[str, str]]] = {}
        mine = self.project.pk if self.project else None
        for each in sorted(rows.values(), key=lambda each: (each.project_id not in (mine, None), -each.pk)):
            name = each.project.name if each.project else "Every project"
            groups.setdefault(name, []).append((str(each.pk), each.named_in(self.project)))
        return list(groups.items())

    def _wanted(self) -> list[Any]:
        return [self.given.get(name, "") for name in ("checkpoint", "beside", "reward_model")]

    def _likeliest(self) -> str:
        """The start of the project; else what was saved last."""
        if self.project and self.project.start_id:
            return str(self.project.start_id)
        policies = Checkpoint.objects.seen_by(self.user).filter(kind=Checkpoint.Kind.POLICY)
        newest = policies.order_by("-pk").first()
        return str(newest.pk) if newest else ""

    def _judge(self) -> Checkpoint | None:
        return Checkpoint.objects.judge_of(self.project) if self.project else None

    @property
    def has_models(self) -> bool:
        return bool(self._fields("checkpoint").choices)

    @property
    def has_judges(self) -> bool:
        return len(self._fields("reward_model").choices) > 1

    @property
    def roles(self) -> list[tuple[str, str]]:
        return list(ROLES.items())

    # The prompt

    @property
    def turns(self) -> list[dict[str, str]]:
        """What stands in the fields of the prompt, an empty one where there is nothing."""
        if isinstance(self.given, QueryDict) and "content" in self.given:
            contents, roles = self.given.getlist("content"), self.given.getlist("role")
            roles += ["user"] * (len(contents) - len(roles))
            found = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
        else:
            found = turns(self.given.get("prompt") or "")
        return found or turns("")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        said = [
            {"role": each["role"], "content": each["content"].replace("\r\n", "\n")}
            for each in self.turns
            if each["content"].strip()
        ]
        if len(said) > TURNS:
            words = f"A chat is at most {TURNS} turns long, and this one has {len(said)}: empty some."
            raise forms.ValidationError(words)
        plain = len(said) == 1 and said[0]["role"] == "user"
        try:
            cleaned["prompt"] = data.prompt({"prompt": said[0]["content"] if plain else said})
        except ValueError as error:
            words = str(error) if said else "Write a prompt first: nothing is in the field."
            if said and said[-1]["role"] == "assistant":
                words = (
                    "The last turn is the assistant's: there is nothing to answer. Add a turn, or empty it."
                )
            raise forms.ValidationError(words) from None
        if sum(len(each["content"]) for each in said) > LETTERS:
            raise forms.ValidationError(f"A prompt is at most {LETTERS:,} characters long.")
        if cleaned.get("beside") and cleaned["beside"] == cleaned.get("checkpoint"):
            self.add_error("beside", "This is the same checkpoint. Choose another, or nothing.")
        return cleaned

    # Asking

    def ask(self, another_seed: bool = False) -> Request:
        """Queue the question: in the project of its checkpoint, or in the one at hand where it has none."""
        said = self.cleaned_data
        chosen = [int(said[name]) for name in ("checkpoint", "beside") if said[name]]
        found = Checkpoint.objects.seen_by(self.user).select_related("project").in_bulk(chosen)
        project = found[chosen[0]].project or self.project or Project.objects.run_by(self.user).earliest("pk")
        row = own_prompt(project, said["prompt"])
        question = {
            "checkpoints": chosen,
            "names": [found[pk].name for pk in chosen],
            "reward_model": int(said["reward_model"]) if said["reward_model"] else None,
            "prompts": [said["prompt"]],
            "reference": row.answer if row and project.is_checked else "",
            "temperature": said["temperature"],
            "top_p": said["top_p"],
            "max_new_tokens": said["longest"],
            "count": said["count"],
            "seed": (said["seed"] + another_seed) % 2**31,
        }
        return Request.objects.ask(project, Request.Kind.PLAY, question, self.user)


def settings_of(question: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, as the form and an address name it."""
    chosen: Sequence[int] = question["checkpoints"]
    return {
        "checkpoint": str(chosen[0]),
        "beside": str(chosen[1]) if len(chosen) > 1 else "",
        "reward_model": str(question["reward_model"] or ""),
        "temperature": question["temperature"],
        "top_p": question["top_p"],
        "longest": question["max_new_tokens"],
        "count": question["count"],
        "seed": question["seed"],
    }


def filled_from(question: Mapping[str, Any]) -> QueryDict:
    """The form of a question that was asked before."""
    given = QueryDict(mutable=True)
    for name, value in settings_of(question).items():
        given[name] = str(value)
    for each in turns(question["prompts"][0]):
        given.appendlist("role", each["role"])
        given.appendlist("content", each["content"])
    return given


def handed_on(question: Mapping[str, Any]) -> str:
    """The settings and the prompt as the query of an address; empty where that would be too long for one."""
    query = urlencode(list(filled_from(question).lists()), doseq=True)
    return query if len(query) <= HANDED_ON else ""
