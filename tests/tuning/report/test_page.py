"""The report page, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etude.tuning.report.differences import write_comparison
from etude.tuning.report.page import write_report
from etude.tuning.runs.folder import RunFolder

MakeRun = Callable[..., RunFolder]
Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Open a file in a page that records what it said and asked for."""
    contexts: list[Any] = []

    def go(path: Path, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(path.resolve().as_uri())
        return page

    yield go
    for context in contexts:
        context.close()


def test_page_asks_for_nothing_but_itself_and_says_nothing(make_run: MakeRun, visit: Visit):
    path = write_report(make_run())
    page = visit(path)
    page.mouse.wheel(0, 5_000)
    page.wait_for_timeout(200)
    assert page.asked == [path.resolve().as_uri()]
    assert page.said == []


def test_pointing_at_a_chart_reads_out_that_step_in_all_charts(make_run: MakeRun, visit: Visit):
    folder = make_run()
    page = visit(write_report(folder))
    plot = page.locator("#loss .plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    # Steps 0 to 320 over the width: three quarters are step 240, where an evaluation was made.
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20)
    trained = next(r for r in folder.read_metrics() if r["step"] == 240 and "loss" in r)
    held_out = next(r for r in folder.read_metrics() if r["step"] == 240 and "eval_loss" in r)
    readout = page.locator("#loss .readout").inner_text()
    assert "step 240" in readout
    assert f"train {trained['loss']:.3f}" in readout
    assert f"evaluation {held_out['eval_loss']:.3f}" in readout
    assert f"{trained['tokens_per_s']:,.0f}" in page.locator("#tokens-per-s .readout").inner_text()
    page.mouse.move(2, 2)
    assert "step 320" in page.locator("#loss .readout").inner_text()


def test_dot_under_the_pointer_lies_on_the_curve_on_both_scales(make_run: MakeRun, visit: Visit):
    page = visit(write_report(make_run()))
    page.locator("#grad-norm .plot").scroll_into_view_if_needed()
    for log in (False, True):
        page.locator("#grad-norm input.log").set_checked(log)
        box = page.locator("#grad-norm .plot").bounding_box()
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 20)
        distance = page.evaluate(
            """() => {
              const figure = document.querySelector('#grad-norm');
              const path = [...figure.querySelectorAll('path.main')]
                .find((p) => p.getClientRects().length);
              const dot = figure.querySelector('.cursor i').getBoundingClientRect();
              const x = dot.x + dot.width / 2, y = dot.y + dot.height / 2;
              const matrix = path.getScreenCTM();
              let least = Infinity;
              const length = path.getTotalLength();
              for (let i = 0; i <= 20000; i++) {
                const p = path.getPointAtLength(length * i / 20000).matrixTransform(matrix);
                least = Math.min(least, Math.hypot(p.x - x, p.y - y));
              }
              return least;
            }"""
        )
        assert distance < 2.0, f"{distance} pixels off with log={log}"


def test_arrow_keys_walk_along_a_focused_chart(make_run: MakeRun, visit: Visit):
    page = visit(write_report(make_run()))
    page.locator("#loss .plot").focus()
    at = page.locator("#loss .at")
    page.keyboard.press("ArrowLeft")
    assert at.inner_text() == "step 319"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert at.inner_text() == "step 2"
    page.keyboard.press("Escape")
    assert at.inner_text() == "step 320"


def test_every_chart_and_disclosure_is_reached_by_the_tab_key(make_run: MakeRun, visit: Visit):
    page = visit(write_report(make_run()))
    wanted = page.evaluate(
        "document.querySelectorAll('.plot, summary, input, nav a, .scroll').length"
        " - document.querySelectorAll('details:not([open]) .sample summary').length"
    )
    reached: set[str] = set()
    for _ in range(wanted + 40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                """() => {
                  const wanted = '.plot, summary, input, nav a, .scroll';
                  const all = [...document.querySelectorAll(wanted)];
                  return String(all.indexOf(document.activeElement));
                }"""
            )
        )
    assert len(reached - {"-1"}) == wanted


def test_hostile_text_of_samples_and_data_stays_text(
    make_run: MakeRun, visit: Visit, hostile_text: str
):
    folder = make_run(hostile=True, model=hostile_text)
    folder.write_text("recipe.yaml", hostile_text)
    folder.write_json("environment.json", {"processor": hostile_text})
    page = visit(write_report(folder))
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert page.said == []
    # The text itself is there to read: prompt, reference, before, after, recipe, environment.
    assert page.locator("body").inner_text().count("window.hacked = 1") >= 6
    assert page.locator("img").count() == 0


def test_policy_alone_would_stop_a_script_that_escaping_let_through(
    make_run: MakeRun, visit: Visit, tmp_path: Path, hostile_text: str
):
    text = write_report(make_run()).read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("</main>", f"{hostile_text}</main>"))
    page = visit(broken)
    assert page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in message for message in page.said)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
def test_text_and_curves_have_the_contrast_that_wcag_asks_for(
    make_run: MakeRun, visit: Visit, width: int, scheme: str
):
    page = visit(write_report(make_run()), width=width, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    faint = page.evaluate(
        """() => {
          const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
          const luminance = (color) => {
            const [r, g, b] = rgb(color).slice(0, 3).map((v) => {
              const c = v / 255;
              return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const contrast = (a, b) => {
            const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
            return (high + 0.05) / (low + 0.05);
          };
          const behind = (element) => {
            for (let e = element; e; e = e.parentElement) {
              const color = getComputedStyle(e).backgroundColor;
              if ((rgb(color)[3] ?? 1) > 0) return color;
            }
          };
          const found = [];
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) {
            const element = walker.currentNode.parentElement;
            if (!walker.currentNode.data.trim() || element.closest('script, style')) continue;
            const ratio = contrast(getComputedStyle(element).color, behind(element));
            if (ratio < 4.5) found.push([element.className, element.tagName, ratio]);
          }
          for (const path of document.querySelectorAll('.plot path:not(.grid):not(.bars)')) {
            const ratio = contrast(getComputedStyle(path).stroke, behind(path.closest('.plot')));
            if (ratio < 3) found.push([path.className.baseVal, 'path', ratio]);
          }
          return found;
        }"""
    )
    assert faint == []


@pytest.mark.parametrize("finished", [True, False])
def test_page_fits_a_phone_without_scrolling_sideways(
    make_run: MakeRun, visit: Visit, finished: bool
):
    page = visit(write_report(make_run(finished=finished, steps=141)), width=380)
    assert page.evaluate("document.documentElement.scrollWidth") == 380
    overlaps = page.evaluate(
        """() => {
          const boxes = (selector, plot) => [...plot.querySelectorAll(selector)]
            .map((e) => e.getBoundingClientRect()).filter((box) => box.width);
          let count = 0;
          for (const plot of document.querySelectorAll('.plot')) {
            for (const kind of ['.xtick', '.ytick']) {
              const all = boxes(kind, plot);
              all.forEach((a, i) => all.slice(i + 1).forEach((b) => {
                if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
                  count += 1;
              }));
            }
          }
          return count;
        }"""
    )
    assert overlaps == 0


def test_page_is_whole_without_javascript(make_run: MakeRun, visit: Visit):
    page = visit(write_report(make_run()), java_script_enabled=False)
    assert "step 320" in page.locator("#loss .readout").inner_text()
    assert page.locator("#loss .scale.linear path.main").bounding_box()["width"] > 700
    linear, log = (page.locator(f"#loss .scale.{kind} path.main") for kind in ("linear", "log"))
    assert linear.is_visible() and not log.is_visible()
    page.locator("#loss input.log").check()
    assert log.is_visible() and not linear.is_visible()
    assert not page.locator("#hint").is_visible()


def test_headline_says_what_the_summary_says(make_run: MakeRun, visit: Visit):
    folder = make_run(eval_loss_before=3.0, eval_loss=2.4, rouge_before=10.0, rouge=25.5)
    text = visit(write_report(folder)).locator("dl.figures").inner_text()
    assert "3.000 → 2.400" in text
    assert "−20.0 %" in text
    assert "10.0 → 25.5" in text
    assert "+15.5" in text
    assert "1.12 GB" in text


def test_losses_before_and_after_are_in_the_chart_of_a_run_without_evaluations_on_the_way(
    make_run: MakeRun, visit: Visit
):
    folder = make_run()
    folder.write_lines("metrics.jsonl", [r for r in folder.read_metrics() if "loss" in r])
    page = visit(write_report(folder))
    assert page.locator("#loss .linear .mark").all_inner_texts() == ["3.412", "2.563"]
    assert "evaluation 2.563" in page.locator("#loss .readout").inner_text()


def test_all_modules_are_listed_and_grouped_by_kind(make_run: MakeRun, visit: Visit):
    page = visit(write_report(make_run()))
    rows = page.locator("#modules tbody tr")
    assert rows.count() == 7
    assert rows.first.inner_text().split("\t") == [
        "q_proj",
        "30",
        "576 × 576",
        "16",
        "552,960",
        "11.3 %",
    ]
    assert page.locator("#modules li").count() == 210


def test_page_of_a_run_that_just_began_has_no_empty_sections(make_run: MakeRun, visit: Visit):
    folder = make_run(finished=False, steps=0)
    for name in ("data.json", "environment.json", "recipe.yaml", "metrics.jsonl"):
        (folder.path / name).unlink()
    page = visit(write_report(folder))
    assert page.said == []
    assert page.locator("section").count() == 0
    assert "stopped at step 0" in page.locator(".banner").inner_text()


def test_page_of_a_diverged_run_says_so_and_breaks_the_curve(make_run: MakeRun, visit: Visit):
    folder = make_run(finished=False, steps=50)
    folder.append_metrics({"step": 51, "loss": float("nan"), "lr": 1e-3})
    folder.set_state("diverged", "the loss of batch 51 is not finite")
    page = visit(write_report(folder))
    banner = page.locator(".banner").inner_text()
    assert "diverged after step 51" in banner
    assert "batch 51" in banner
    assert page.locator("#loss .readout").inner_text().splitlines()[1].endswith("–")
    assert page.said == []


def test_printing_opens_the_recipe(make_run: MakeRun, visit: Visit):
    page = visit(write_report(make_run()))
    recipe = page.locator("#setup pre")
    assert not recipe.is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert recipe.is_visible()


def test_script_stays_small():
    script = Path(write_report.__code__.co_filename).parent / "templates" / "report.js"
    assert len(script.read_bytes()) <= 15_000


def test_comparison_page_overlays_runs_and_names_the_recipe_key_that_differs(
    make_run: MakeRun, visit: Visit, tmp_path: Path
):
    first = make_run("small", recipe={"adapter": {"rank": 8}})
    second = make_run("large", recipe={"adapter": {"rank": 64}}, eval_loss=2.2)
    write_comparison([first, second], tmp_path / "compare.html")
    page = visit(tmp_path / "compare.html")
    assert page.said == []
    assert page.asked == [(tmp_path / "compare.html").as_uri()]
    rows = page.locator("#differences tbody tr")
    assert [re.split(r"\s+", row) for row in rows.all_inner_texts()] == [
        ["adapter.rank", "8", "64"]
    ]
    assert page.locator("#loss .scale.linear path[class^=run-]").count() == 2
    assert page.locator("td.best").all_inner_texts() == ["2.200"]
