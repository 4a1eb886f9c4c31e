"""What the tests of this folder share."""

from __future__ import annotations

import sys
from pathlib import Path

# The models of the fused layers' tests can be imported by name.
sys.path.insert(0, str(Path(__file__).parents[1] / "fusion"))
