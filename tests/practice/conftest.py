"""Real parts: a sandbox that is started once, and the first problem."""

import pytest

from etude.practice.judge.judge import Judge
from etude.practice.judge.pool import Pool
from etude.practice.problem import find_problem


@pytest.fixture(scope="session")
def judge():
    with Pool(slots=2) as pool:
        yield Judge(pool)


@pytest.fixture(scope="session")
def tensor_dataset():
    return find_problem("create-tensordataset")
