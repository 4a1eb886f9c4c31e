from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

# The modules beside the tests can be imported by their names.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def one_thread():
    """Keep to one thread: on small tensors a second one costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
