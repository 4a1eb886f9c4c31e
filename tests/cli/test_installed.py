"""What `pip install` gives: a wheel is built, installed, and used from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

import etude
from etude.papers.fake_arxiv import ReplayServer, generated

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that the wheel is installed into; its dependencies are the tests' own."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("etude-*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--no-compile", "--target", str(folder / "site")]
    subprocess.run([*pip, *options, str(wheel)], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture
def installed(site, tmp_path):
    """Run the installed `etude` in an empty folder."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*arguments, **environment):
        done = subprocess.run(
            [sys.executable, str(site / "bin" / "etude"), *arguments],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1", **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_command_is_of_the_wheel_and_says_its_version(installed, site):
    assert installed("--version").strip() == f"etude {etude.__version__}"
    (metadata,) = site.glob("etude-*.dist-info/METADATA")
    assert f"\nVersion: {etude.__version__}\n" in metadata.read_text("utf-8")
    recipes = json.loads(installed("recipe", "list", "--json"))
    assert {recipe["name"] for recipe in recipes} == {
        file.stem for file in (REPOSITORY / "recipes").glob("*.yaml")
    }
    assert all(Path(recipe["file"]).is_relative_to(site) for recipe in recipes)


def test_every_module_is_in_the_wheel(site):
    source = REPOSITORY / "src"
    modules = {file.relative_to(source) for file in (source / "etude").rglob("*.py")}
    assert not {str(module) for module in modules if not (site / module).is_file()}


def test_pages_styles_and_scripts_are_in_the_wheel_and_their_sources_are_not(site):
    source = REPOSITORY / "src"
    files = {
        file.relative_to(source)
        for file in (source / "etude").rglob("*.*")
        if file.suffix in (".html", ".css", ".js", ".woff2") or file.name == "manifest.json"
    }
    assert any("dist" in file.parts for file in files)
    assert not {str(file) for file in files if not (site / file).is_file()}
    assert not [*site.rglob("*.ts"), *site.rglob("node_modules")]


def test_the_first_command_of_the_readme_runs(installed, smollm2):
    settings = ["train.max_steps=1", "data.max_train=4", "data.max_eval=2", "eval.generate=0"]
    sets = [word for setting in settings for word in ("--set", setting)]
    figures = json.loads(installed("tune", "docstrings", "--json", *sets))
    assert figures["steps"] == 1
    assert figures["eval_loss"] > 0


def test_problems_come_with_it(installed, tmp_path):
    listed = installed("practice", "list", ETUDE_HOME=str(tmp_path / "home"), ETUDE_DATABASE="")
    problems = len(list((REPOSITORY / "content" / "problems").glob("*/*/problem.md")))
    assert f"{problems} problems, 0 solved" in listed


def test_papers_are_fetched(installed, tmp_path):
    own = {"ETUDE_HOME": str(tmp_path / "home"), "ETUDE_DATABASE": "", "COLUMNS": "100"}
    with ReplayServer(generated(20, first=date.today() - timedelta(days=6), days=4)) as server:
        said = installed("papers", "sync", ETUDE_ARXIV=server.address, **own)
    assert "summaries made" in said
