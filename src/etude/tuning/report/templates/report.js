// Reads a chart out under the pointer or the arrow keys. The page is whole without it.
//
// Each figure.chart holds a script.points with
//   {group, from, to, prefix | at, lines: [{x, text, linear, log}]}
// x: places on the horizontal axis; text: what to write; linear, log: heights in thousandths.
// Charts of one group show the same place, so that one look compares them all.
"use strict";
(() => {
  const nearest = (places, place) => {
    let low = 0;
    let high = places.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (places[middle] <= place) low = middle;
      else high = middle;
    }
    return place - places[low] <= places[high] - place ? low : high;
  };

  const prepare = (figure) => {
    const points = JSON.parse(figure.querySelector("script.points").textContent);
    const plot = figure.querySelector(".plot");
    const cursor = document.createElement("div");
    cursor.className = "cursor";
    const keys = [...figure.querySelectorAll(".key")];
    const dots = keys.map((key) => {
      const dot = document.createElement("i");
      dot.className = key.dataset.style;
      cursor.append(dot);
      return dot;
    });
    cursor.hidden = true;
    plot.append(cursor);
    const at = figure.querySelector(".at");
    const values = keys.map((key) => key.querySelector("b"));
    const rest = [at.textContent, values.map((value) => value.textContent)];
    const log = figure.querySelector("input.log");
    const chart = { figure, plot, points, place: null };

    chart.show = (place) => {
      const base = points.lines[0];
      const index = nearest(base.x, place);
      const here = base.x[index];
      chart.place = here;
      cursor.hidden = false;
      cursor.style.left = `${(100 * (here - points.from)) / (points.to - points.from)}%`;
      at.textContent = points.at
        ? points.at[index]
        : points.prefix + here.toLocaleString("en");
      points.lines.forEach((line, number) => {
        const own = nearest(line.x, here);
        const away = line.x[own] === here ? "" : ` at ${line.x[own].toLocaleString("en")}`;
        values[number].textContent = line.text[own] + away;
        const height = (log && log.checked ? line.log : line.linear)[own];
        dots[number].hidden = away !== "" || height === null;
        dots[number].style.bottom = `${height / 10}%`;
      });
    };
    chart.clear = () => {
      chart.place = null;
      cursor.hidden = true;
      at.textContent = rest[0];
      values.forEach((value, number) => {
        value.textContent = rest[1][number];
      });
    };
    return chart;
  };

  const charts = [...document.querySelectorAll("figure.chart")].map(prepare);
  const group = (chart) => charts.filter((other) => other.points.group === chart.points.group);

  for (const chart of charts) {
    const { figure, plot, points } = chart;
    const showAll = (place) => group(chart).forEach((other) => other.show(place));
    const clearAll = () => group(chart).forEach((other) => other.clear());
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      showAll(points.from + share * (points.to - points.from));
    });
    plot.addEventListener("pointerleave", clearAll);
    figure.querySelector("input.log")?.addEventListener("change", () => {
      if (chart.place !== null) chart.show(chart.place);
    });

    const readout = figure.querySelector(".readout");
    plot.addEventListener("focus", () => readout.setAttribute("aria-live", "polite"));
    plot.addEventListener("blur", () => {
      readout.removeAttribute("aria-live");
      clearAll();
    });
    plot.addEventListener("keydown", (event) => {
      const places = points.lines[0].x;
      const last = places.length - 1;
      const now = chart.place === null ? last : nearest(places, chart.place);
      const stride = event.shiftKey ? Math.max(1, Math.round(last / 10)) : 1;
      const moves = {
        ArrowLeft: Math.max(0, now - stride),
        ArrowRight: Math.min(last, now + stride),
        Home: 0,
        End: last,
      };
      if (event.key === "Escape") clearAll();
      else if (event.key in moves) showAll(places[moves[event.key]]);
      else return;
      event.preventDefault();
    });
  }

  document.getElementById("hint")?.removeAttribute("hidden");

  // Paper has no triangles to click.
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details.print").forEach((details) => {
      details.open = true;
    });
  });
})();
