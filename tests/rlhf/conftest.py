"""One thread, so that equal seeds give equal bits, and a starting checkpoint that all tests may read."""

import os

import pytest
import torch

from tests.rlhf import tiny

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory):
    return tiny.policy(tmp_path_factory.mktemp("checkpoints") / "start")
