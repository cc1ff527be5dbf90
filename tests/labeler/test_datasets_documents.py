"""Plain documents: brought in as a file, kept as a dataset, read by supervised runs in their own stage."""

import io
import json

import pytest

from labeler import datasets
from labeler.datasets import NothingToFreeze
from labeler.datasets.documents import bring_in
from labeler.datasets.frozen import opened
from labeler.footprint import Model, memory
from labeler.models import Dataset, Run
from rlhf import config, data
from rlhf.config import Refused

pytestmark = pytest.mark.django_db

TEXTS = [f"The pelican {number} fell asleep at sea." for number in range(12)]
ADDRESS = "/datasets/pelican-jokes/documents/"


def lines(*texts, **more):
    return io.BytesIO("\n".join(json.dumps({"text": text} | more) for text in texts).encode())


def send(client, file, name="book.jsonl"):
    file.name = name
    return client.post(ADDRESS, {"file": file}, follow=True)


@pytest.fixture
def brought(project, admin):
    return bring_in(project, "book.jsonl", lines(*TEXTS), admin)[0]


def test_a_file_of_documents_becomes_a_dataset_in_the_order_of_their_hashes(as_admin, project):
    page = send(as_admin, lines(*TEXTS, TEXTS[3], TEXTS[3])).content.decode()
    (dataset,) = project.datasets.all()
    assert (dataset.kind, dataset.lines) == (Dataset.Kind.DOCUMENTS, 12)
    assert "12 documents, 2 copies of others left out." in page
    with opened(dataset) as source:
        texts = [line["text"] for line in source.lines()]
    assert texts == sorted(TEXTS, key=data.prompt_digest)
    _, held = data.split_by_prompt(texts, 0.1, 0)
    assert held == [*range(dataset.manifest["split"]["line"])] and held
    for words in ("Length of a document", "Split by document", "1 document held out", "Finetune", TEXTS[0]):
        assert words in page
    assert f"?dataset={dataset.pk}" in page and "Take it out" not in page


def test_the_same_documents_are_the_same_dataset(project, admin, brought):
    again, _ = bring_in(project, "other.jsonl", lines(*reversed(TEXTS)), admin)
    assert again == brought and project.datasets.count() == 1


def test_a_plain_text_is_one_document(as_admin, project):
    send(as_admin, io.BytesIO("Once upon a time.\n\nThe end.".encode("utf-8-sig")), "tale.txt")
    with opened(project.datasets.get()) as source:
        assert [line["text"] for line in source.lines()] == ["Once upon a time.\n\nThe end."]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("book.jsonl", b'{"prompt": "p", "completion": "c"}', "In line 1: it is a demonstration"),
        ("book.jsonl", b'{"text": "a"}\n{"text": 7}', "In line 2: “text” must be a text."),
        ("book.jsonl", b'{"text"', "In line 1: it is not JSON"),
        ("book.jsonl", b"\n\n", "There is no document in it."),
        ("book.jsonl", b"", "The file is empty."),
        ("tale.txt", b"  ", "“text” is empty"),
        ("tale.txt", b"\xff\xfe", "The file is not UTF-8 text."),
        ("tale.txt", b"a" * 1_000_001, "A text of more than 1,000,000 bytes"),
    ],
)
def test_what_cannot_be_read_is_told_in_words_and_nothing_is_kept(as_admin, project, name, content, words):
    file = io.BytesIO(content)
    answer = send(as_admin, file, name)
    assert answer.status_code == 422 and words in answer.content.decode()
    assert not project.datasets.exists()


def test_documents_are_laid_side_by_side(as_admin, project, admin, brought):
    other, _ = bring_in(project, "other.jsonl", lines(*TEXTS[:5], "Something else."), admin)
    page = as_admin.get(f"/datasets/pelican-jokes/{brought.pk}/against/", {"other": other.pk})
    assert "Something else." in page.content.decode()


def test_reading_learns_from_documents_and_from_nothing_else(project, admin, brought, start):
    project.demonstrations.create(prompt=project.prompts.first(), completion="Honk.", author=admin)
    written = datasets.freeze_demonstrations(project, admin)
    launch = Run.objects.launch
    run = launch(project, "sft", {"stage": "reading"}, admin)
    assert run.dataset == brought and run.config["stage"] == "reading"
    for values, dataset, field in (
        ({"stage": "reading"}, written, "dataset"), ({}, brought, "dataset"),
    ):  # fmt: skip
        with pytest.raises(Refused) as refused:
            launch(project, "sft", values, admin, dataset=dataset)
        assert refused.value.field == field and "The stage “" in refused.value.message


def test_the_form_reads_documents_when_a_link_has_picked_them(as_admin, project, brought, start):
    page = as_admin.get("/runs/new/pelican-jokes/sft/", {"dataset": brought.pk, "stage": "reading"})
    form = page.context["form"]
    assert form["stage"].value() == "reading"
    sent = {each.name: each.value() for each in form if each.value() is not None}
    wrong = as_admin.post("/runs/new/pelican-jokes/sft/", sent | {"stage": "answers"})
    assert "The stage “answers” learns from demonstrations" in wrong.content.decode()
    as_admin.post("/runs/new/pelican-jokes/sft/", sent)
    assert project.runs.get().dataset == brought


def test_a_preview_counts_the_texts_that_long_documents_make(project, admin):
    made, _ = bring_in(project, "long.jsonl", lines("word " * 7000, "short"), admin)
    assert made.examples(1000) == 11  # of 35,005 characters, 3.5 a token
    assert made.examples(100_000) == 2


def test_what_a_row_holds_bounds_the_memory_of_many_at_once():
    start = Model(1_000_000, 4, 64, 1000, 128, None)
    settings = {"micro_batch": 64, "batch": 64, "tokens_per_row": 2048, "max_tokens": 1024}
    short = memory(config.make("sft", settings), start, None, 20, 44)
    assert (short.at_once, short.noun) == (32, "example")
    read = memory(config.make("sft", settings | {"stage": "reading"}), start, None, 20, 44)
    assert read.at_once == 2 and read.each > 16 * short.each
    adapted = memory(config.make("sft", settings | {"lora_rank": 4}), start, None, 20, 44)
    assert adapted.fixed < short.fixed
    twice = memory(config.make("sft", settings | {"gradient_checkpointing": True}), start, None, 20, 44)
    assert twice.each < short.each


def test_a_file_without_documents_keeps_nothing(project):
    with pytest.raises(NothingToFreeze):
        bring_in(project, "book.jsonl", io.BytesIO(b"{}"))
    assert not project.datasets.exists()
