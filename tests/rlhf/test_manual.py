"""The page of settings: written from the config itself, and up to date."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlhf import config, manual

ROOT = Path(__file__).resolve().parents[2]


def said(*arguments: str) -> str:
    command = [sys.executable, "-m", "rlhf", "settings", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_page_is_what_the_command_writes():
    """Where this fails: python -m rlhf settings --markdown > docs/settings.md"""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == said("--markdown")


@pytest.mark.parametrize("kind", config.KINDS)
def test_every_setting_is_there_with_its_one_sentence_of_help(kind):
    page, words = manual.markdown([kind]), said(kind)
    for setting in config.settings(kind):
        assert setting.help in page and setting.help in words
        assert f"`{setting.name}`" in page and f"{setting.name}={setting.default}" in words


def test_a_row_of_the_page_is_one_row():
    rows = [line for line in manual.markdown(list(config.KINDS)).splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in rows} == {3, 0}
