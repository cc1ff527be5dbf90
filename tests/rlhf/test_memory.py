"""Memory that runs out: computed by halves, said so, and the setting named where nothing helps."""

import platform
import subprocess
import sys

import pytest
import torch

from rlhf.memory import Memory, ran_out
from rlhf.run import Failed, RunDirectory

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory: error code 12"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 98 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_however_a_library_says_it_it_is_known(error):
    assert ran_out(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory"), OSError(12)]
)
def test_other_errors_are_other_errors(error):
    assert not ran_out(error)


@pytest.mark.parametrize("error", ERRORS)
def test_work_that_does_not_fit_is_done_again_by_halves_and_stays_there(tmp_path, error):
    memory, tried = Memory(RunDirectory(tmp_path), 10), []

    def work(at_once):
        tried.append(at_once)
        if at_once > 3:
            raise error
        return "done"

    assert memory.fit(work) == ["done"]
    assert tried == [10, 5, 2] and memory.at_once == 2
    assert memory.fit(work) == ["done"] and tried == [10, 5, 2, 2]
    log = (tmp_path / "log.txt").read_text()
    assert "not enough memory for 10 rollouts at once; from here on it is 5" in log and "micro_batch" in log


def test_what_does_not_fit_at_all_names_the_setting(tmp_path):
    def work(at_once):
        raise ERRORS[0]

    with pytest.raises(Failed) as failed:
        Memory(RunDirectory(tmp_path), 4).fit(work)
    assert failed.value.field == "max_new_tokens" and "one rollout at a time" in failed.value.reason


def test_what_fails_otherwise_fails_at_once(tmp_path):
    calls = []

    def work(at_once):
        calls.append(at_once)
        raise failure

    for failure in (Failed("No reward."), RuntimeError("shapes")):
        with pytest.raises(type(failure), match=str(failure)):
            Memory(RunDirectory(tmp_path), 4).fit(work)
    assert calls == [4, 4]


def test_a_shared_result_comes_in_the_order_of_its_items(tmp_path):
    memory = Memory(RunDirectory(tmp_path), 4)
    assert memory.share(["a", "b", "c"], lambda some, at_once: [each * at_once for each in some]) == [
        "aaaa", "bbbb", "cccc",
    ]  # fmt: skip
    assert memory.share([], lambda some, at_once: 1 / 0) == []


FREED_AND_ASKED_AGAIN = """
import resource, sys
from rlhf import memory
if sys.argv[1] == "keep":
    memory.keep_what_is_freed()
bytearray(64 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    bytearray(b"x") * (64 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is set is glibc's")
def test_what_a_step_frees_the_next_one_uses_without_asking_the_system():
    def pages(how):
        asked = [sys.executable, "-c", FREED_AND_ASKED_AGAIN, how]
        return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)

    assert pages("keep") < 0.5 * pages("give back")
