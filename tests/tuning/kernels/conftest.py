from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def eager():
    """bitsandbytes compiles its fallback for odd shapes, which takes long and proves nothing."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield
