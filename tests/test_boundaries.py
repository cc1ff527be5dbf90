"""Who may import whom: read from the code, and asked of fresh interpreters. The trainers know nothing of the
app, and no process that serves pages or waits for work ever loads torch."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What of rlhf loads no torch by being imported.
TORCH_FREE = {"rlhf", "rlhf.config", "rlhf.data", "rlhf.checkers", "rlhf.difficulty"}
PROGRAMS = {ROOT / f"labeler/demo/{name}.py" for name in ("build", "build_practice", "making")}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported_by(path: Path, top: bool = False) -> set[str]:
    """Every module that a file names in an import, wherever in the file or only at its top; relative ones in
    full."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    names = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *filter(None, [base])])
            # `from rlhf import config` imports rlhf.config.
            inner = {f"{base}.{alias.name}" for alias in node.names}
            names |= {name for name in inner if is_module(name)} or {base}
    return names


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def fresh(code: str) -> dict:
    """What a new interpreter answers, with an address of a database that nobody has to reach."""
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "labeler.settings"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("path", modules("rlhf"), ids=lambda path: path.stem)
def test_the_trainers_know_no_django_no_celery_and_no_labeler(path: Path):
    roots = {name.partition(".")[0] for name in imported_by(path)}
    assert not roots & {"django", "celery", "kombu", "labeler", "psycopg"}


@pytest.mark.parametrize("path", modules("labeler"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_app_takes_only_the_torch_free_part_of_rlhf(path: Path):
    # What makes the demos' models anew trains them, by imports of its functions: nothing else may.
    names = imported_by(path, top=path in PROGRAMS)
    assert {name for name in names if name.partition(".")[0] == "rlhf"} <= TORCH_FREE
    assert not {name.partition(".")[0] for name in names} & {"torch", "transformers"}


EVERYWHERE = [path for package in ("labeler", "benchmarks", "tests") for path in modules(package)]


@pytest.mark.parametrize("path", EVERYWHERE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_the_programs_that_make_the_demos(path: Path):
    names = imported_by(path)
    assert not {"labeler.demo.build", "labeler.demo.build_practice"} & names
    assert "labeler.demo.making" not in names or path in PROGRAMS


LOADED = "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
HEAVY = {"pyarrow", "torch", "sympy", "transformers", "numpy", "tokenizers", "safetensors"}


def test_the_web_server_loads_no_torch():
    found = fresh(
        "import sys, json; from labeler.wsgi import application; from django.urls import get_resolver;"
        f"get_resolver().url_patterns; {LOADED}"
    )
    assert "labeler" in found
    assert not HEAVY & set(found)


def test_the_workers_parent_loads_no_torch():
    found = fresh(
        "import sys, json; from labeler.celery import app; app.loader.import_default_modules();"
        f"import labeler.tasks; {LOADED}"
    )
    assert "celery" in found
    assert not HEAVY & set(found)


def test_the_launcher_loads_neither_django_nor_torch():
    found = fresh(f"import sys, json; import labeler.launcher; {LOADED}")
    assert not {"django", "celery", *HEAVY} & set(found)
