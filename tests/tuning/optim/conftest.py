"""What the tests of this folder share."""

from __future__ import annotations

import sys
from pathlib import Path

# The helper module beside the tests can be imported by name.
sys.path.insert(0, str(Path(__file__).parent))
