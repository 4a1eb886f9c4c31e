"""Today, Models, Progress and Settings in a real browser: keys alone, live runs, forced colours."""

from __future__ import annotations

import re

import pytest

from etude.tuning.runs.folder import RunFolder

FOCUSED = """() => {
  const one = document.activeElement;
  if (one === document.body) return null;
  const box = one.getBoundingClientRect(), style = getComputedStyle(one);
  const label = one.labels?.[0]?.textContent ?? one.getAttribute("aria-label") ?? one.textContent;
  return {
    name: label.trim().replace(/\\s+/g, " "),
    main: !!one.closest("main"),
    seen: box.width > 0 && box.height > 0 && style.outlineStyle !== "none",
  };
}"""


def walk(page, address: str) -> list[str]:
    """Press Tab through a page; return what is focused in its main part, in order."""
    page.goto(address)
    names: list[str] = []
    for _ in range(150):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        if found is None:
            return names
        assert found["seen"], f"{found['name']} has focus, and nothing shows it"
        if found["main"]:
            names.append(found["name"])
    raise AssertionError("the walk did not end: a key trap")


def test_the_one_thing_to_do_comes_first_for_the_keyboard_too(served, page):
    names = walk(page, f"{served.address}/")
    assert names[:2] == ["Solve Create TensorDataset", "Begin"]
    assert names[-1] == "switch it off"


def test_settings_are_walked_in_the_order_in_which_they_are_read(served, page):
    names = walk(page, f"{served.address}/settings")
    assert [re.sub(r" \(.*", "", name) for name in names] == [
        "Count days in a row",
        "Time zone",
        "Fetch papers when arXiv announces them",
        "state of collecting",
        "Save",
        "Export everything",
        "Zip file of an export",
        "Import",
        "Type “delete” to confirm",
        "Delete my records",
    ]


def test_models_are_walked_without_a_trap_and_folded_forms_are_left_out(served, page):
    names = walk(page, f"{served.address}/models")
    assert "Pull" in names[-1] and not any(name.startswith("Remove, and free") for name in names)


def test_the_streak_is_switched_off_by_keys_alone(served, page):
    page.goto(f"{served.address}/settings")
    page.get_by_label("Count days in a row").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.get_by_text("Saved.").wait_for()
    page.goto(f"{served.address}/")
    assert page.get_by_role("heading", name="Streak").count() == 0
    served.bench.choices.change(streak=True)


def test_a_run_goes_on_before_the_eyes_of_whoever_looks_at_today(served, page):
    page.goto(f"{served.address}/")
    with RunFolder.create("watched", served.bench.runs) as run:
        run.set_state("running")
        run.append_metrics({"step": 1, "total_steps": 9, "loss": 1.0, "seconds": 1.0})
        page.get_by_text("step 1 of 9").wait_for()
        run.append_metrics({"step": 5, "total_steps": 9, "loss": 1.0, "seconds": 2.0})
        page.get_by_text("step 5 of 9").wait_for()
        run.set_state("finished")
    page.get_by_role("listitem").filter(has_text=run.name).get_by_text("finished").wait_for()


@pytest.mark.parametrize("page", [{"forced_colors": "active"}], indirect=True)
def test_states_are_told_apart_without_colours(served, page):
    page.goto(f"{served.address}/")
    marks = page.evaluate(
        """[...document.querySelectorAll(".state")].map(one =>
        getComputedStyle(one, "::before").content + one.textContent)"""
    )
    assert marks and all(len(mark.split('"')[1].strip()) == 1 for mark in marks)
