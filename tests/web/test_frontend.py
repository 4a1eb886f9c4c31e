"""The built files that are committed are what the sources give."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from tests.conftest import REPOSITORY

from etude.web.assets import DIST

FRONTEND = REPOSITORY / "frontend"


@pytest.mark.integration
def test_building_again_gives_the_same_bytes(tmp_path):
    if shutil.which("node") is None or not (FRONTEND / "node_modules").is_dir():
        reason = "the front end's tools are not installed: make frontend-tools"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    subprocess.run(["node", "build.mjs", tmp_path], cwd=FRONTEND, check=True, capture_output=True)
    committed = {file.name: file.read_bytes() for file in DIST.iterdir()}
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == committed


def test_locked_packages_name_no_registry():
    lock = (FRONTEND / "package-lock.json").read_text("utf-8")
    assert "resolved" not in lock
    assert re.findall(r'https?://[^/"]+', lock.replace("https://github.com", "")) == []
