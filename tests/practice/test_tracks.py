"""Tracks: those shipped lead through problems that are there, and a damaged file is one line."""

import pytest

from etude.core.errors import ProblemError
from etude.practice.problem import load_shelf
from etude.practice.tracks import find_track, load_tracks


def test_the_shipped_tracks_lead_through_problems_that_are_there():
    shelf = {problem.slug for problem in load_shelf()}
    tracks = load_tracks()
    assert len(tracks) >= 4
    for track in tracks:
        assert {step.problem for step in track.steps} <= shelf, track.name
        assert track.title[0].isupper() and track.about.endswith(".")
        assert all(step.why.endswith(".") for step in track.steps)
    assert tracks[0].name == "lora"


def test_an_unknown_track_names_the_nearest():
    with pytest.raises(ProblemError, match=r"no track 'qlra'.*'qlora'"):
        find_track("qlra")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {name: a, title: One, about: x., steps: []}", "0.steps"),
        (
            "- {name: a, title: One, about: x., "
            "steps: [{problem: p, why: w.}, {problem: p, why: v.}]}",
            "'p' is there twice",
        ),
        ("- {name: a, title: One, about: x., steps: [{problem: p}]}", "0.steps.0.why"),
        ("- [", "while parsing"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path, text, told):
    file = tmp_path / "tracks.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(ProblemError, match=told) as caught:
        load_tracks(file)
    assert str(file) in str(caught.value)


def test_the_command_lists_a_track_in_its_order(etude_command):
    listed = etude_command("practice", "list", "--track", "honest-figures")
    assert listed.returncode == 0, listed.stderr
    order = [step.problem for step in find_track("honest-figures").steps]
    places = [listed.stdout.index(slug) for slug in order]
    assert places == sorted(places)
    assert f"{len(order)} problems" in listed.stdout
    refused = etude_command("practice", "list", "--track", "nothing")
    assert refused.returncode == 2 and "there is no track" in refused.stderr
