/* The curves of a run: SVG written by hand, drawn from the rows of `run_steps`, several charts on one step axis.

   The page brings the figures ready titled (templates/runs/_charts.html) and a description of their series as JSON;
   this file fetches steps, all of them, and only what is new while the run is live; draws raw under smoothed; and
   moves one cursor through all charts of the page, by pointer or by arrow keys. Colours are classes of runs.css.
   Left out: zooming, logarithmic axes, several runs in one chart. */
"use strict";

(() => {
  const page = document.getElementById("charts");
  if (!page) return;

  const spec = JSON.parse(document.getElementById("chart-spec").textContent);
  const rows = []; // one object a step, in order: {step, seconds, …metrics}
  const marks = { crop: null, checkpoints: [] };
  const smoothing = document.getElementById("smoothing");
  const note = document.getElementById("chart-note");
  let attempt = null;
  let total = 0;
  let cursor = null; // the step under the pointer or the arrow keys, the same for all charts
  let loading = null;

  // ---- numbers in words

  const FORMATS = {
    share: (value) => value.toFixed(2),
    percent: (value) => `${(100 * value).toFixed(0)} %`,
    number: (value) => {
      const places = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
      return (Math.round(value * 100) / 100 + 0).toFixed(places); // + 0, for nothing is -0.00
    },
    loss: (value) => value.toFixed(3),
    rate: (value) => value.toExponential(1),
    whole: (value) => Math.round(value).toLocaleString("en-GB"),
  };
  const known = (value) => typeof value === "number" && Number.isFinite(value);
  const say = (series, value) => (known(value) ? FORMATS[series.format](value) : "–");

  /** A share of the way to the newest value, as people know it from other tools: 0 is raw, .95 very smooth. */
  function smoothed(points, weight) {
    let mean = null;
    return points.map(([step, value]) => {
      mean = mean === null ? value : weight * mean + (1 - weight) * value;
      return [step, mean];
    });
  }

  /** At most four points a pixel column (first, lowest, highest, last), so that no spike is thinned away. */
  function thinned(points, x) {
    if (points.length < 1500) return points;
    const columns = new Map();
    for (const point of points) {
      const column = Math.round(x(point[0]));
      columns.set(column, [...(columns.get(column) ?? []), point]);
    }
    const kept = new Set();
    for (const column of columns.values()) {
      const byValue = [...column].sort((a, b) => a[1] - b[1]);
      [column[0], byValue[0], byValue.at(-1), column.at(-1)].forEach((point) => kept.add(point));
    }
    return points.filter((point) => kept.has(point));
  }

  /** About `count` round numbers from low to high, and the range that they span. */
  function ticks(low, high, count) {
    const rough = (high - low || Math.abs(high) || 1) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const unit = [1, 2, 2.5, 5, 10].find((each) => each * power >= rough * 0.999) * power;
    const found = [];
    for (let n = Math.floor(low / unit + 1e-9); n * unit < high + unit * (1 - 1e-9); n++) found.push(n * unit);
    return found.length > 1 ? found : [found[0], found[0] + unit];
  }

  function svg(name, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // ---- one chart

  class Chart {
    constructor(figure, description) {
      Object.assign(this, description);
      this.figure = figure;
      this.plot = figure.querySelector(".plot");
      this.values = new Map([...figure.querySelectorAll("[data-series]")].map((one) => [one.dataset.series, one]));
      this.table = figure.querySelector(".numbers");
      this.table.addEventListener("toggle", () => this.tabulate());
      this.plot.addEventListener("pointermove", (event) => moveTo(this.stepAt(event)));
      this.plot.addEventListener("pointerdown", (event) => moveTo(this.stepAt(event)));
      this.plot.addEventListener("pointerleave", () => document.activeElement !== this.plot && moveTo(null));
      this.plot.addEventListener("keydown", (event) => this.press(event));
      this.plot.addEventListener("blur", () => moveTo(null));
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    points(series) {
      return rows.filter((row) => known(row[series.key])).map((row) => [row.step, row[series.key]]);
    }

    /** Values of an axis: its fixed ends where it has some, else round numbers around everything drawn on it. */
    scale(side, count) {
      const mine = this.series.filter((each) => each.axis === side);
      if (!mine.length) return null;
      const values = mine.flatMap((each) => this.points(each).map((point) => point[1]));
      if (side === "left") values.push(...this.references().map((each) => each.value));
      const ends = mine[0].range ?? [null, null];
      const low = ends[0] ?? Math.min(...values);
      const high = ends[1] ?? Math.max(...values);
      return Number.isFinite(low + high) ? ticks(low, Math.max(high, low + 1e-9), count) : ticks(0, 1, count);
    }

    /** Lines to compare with: chance, or a share of where a series began. */
    references() {
      return this.lines.flatMap((line) => {
        if (!line.share) return [line];
        const first = this.points(this.series.find((each) => each.key === line.of))[0];
        return first ? [{ ...line, value: line.share * first[1] }] : [];
      });
    }

    draw() {
      const width = this.plot.clientWidth;
      const height = this.plot.clientHeight;
      if (!width) return;
      this.plot.setAttribute("aria-label", this.inWords());
      if (!this.series.some((series) => this.points(series).length)) return this.plot.replaceChildren(this.nothing());
      const tall = height > 200;
      const left = this.scale("left", tall ? 4 : 3);
      const right = this.scale("right", left.length - 1);
      const room = { left: 48, right: right ? 38 : 12, bottom: 24, top: 10 };
      const banner = this.crop && marks.crop ? this.cropWords(width - room.left - room.right) : [];
      room.top += 17 * banner.length;
      const first = rows.length ? Math.min(rows[0].step, 1) : 0;
      const last = Math.max(total, rows.at(-1)?.step ?? 0, first + 1);
      this.x = (step) => room.left + ((step - first) / (last - first)) * (width - room.left - room.right);
      this.span = [room.top, height - room.bottom];
      const y = (axis) => (value) =>
        height - room.bottom - ((value - axis[0]) / (axis.at(-1) - axis[0])) * (height - room.bottom - room.top);
      this.y = { left: y(left), right: right && y(right) };

      this.svg = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
      this.frame(left, right, first, last, width, room);
      const references = this.references().map((line) => this.reference(line, width - room.right, room.left));
      for (const series of this.series) this.curve(series);
      this.svg.append(...references); // their words go over the curves
      if (this.crop) this.checkpoints();
      if (banner.length) this.cropLine(banner, room, width);
      this.pointer = svg("g", { class: "cursor" });
      this.svg.append(this.pointer);
      this.plot.replaceChildren(this.svg);
      this.plot.setAttribute("aria-valuemin", first);
      this.plot.setAttribute("aria-valuemax", last);
      this.point();
      this.tabulate();
    }

    nothing() {
      const textContent = attempt === null ? "Fetching the steps …" : "Nothing measured yet."; // not known before the first answer
      return Object.assign(document.createElement("p"), { className: "nothing", textContent });
    }

    frame(left, right, first, last, width, room) {
      const end = width - room.right;
      const series = (side) => this.series.find((each) => each.axis === side);
      const digits = (axis, one) => (value) => {
        if (one.format === "percent") return FORMATS.percent(value);
        if (one.format === "rate") return value === 0 ? "0" : FORMATS.rate(value).replace(".0e", "e");
        const unit = axis[1] - axis[0];
        const fits = (places) => Math.abs(unit * 10 ** places - Math.round(unit * 10 ** places)) < 1e-6;
        const places = [0, 1, 2, 3, 4, 5].find(fits);
        return Number.isInteger(value) ? String(value) : value.toFixed(places ?? 6);
      };
      for (const value of left) {
        const at = Math.round(this.y.left(value)) + 0.5;
        this.svg.append(
          svg("line", { class: "grid", x1: room.left, x2: end, y1: at, y2: at }),
          svg("text", { x: room.left - 8, y: at + 4, "text-anchor": "end" }, digits(left, series("left"))(value)),
        );
      }
      for (const value of right ?? []) {
        const said = digits(right, series("right"))(value);
        this.svg.append(svg("text", { x: end + 8, y: this.y.right(value) + 4.5 }, said));
      }
      const wanted = Math.max(2, Math.floor((end - room.left) / 110));
      const steps = ticks(first, last, wanted).filter((step) => Number.isInteger(step) && step > first && step < last);
      const far = (step) => this.x(last) - this.x(step) > 34 && this.x(step) - this.x(first) > 24;
      for (const step of [first, ...steps.filter(far), last]) {
        const anchor = step === last ? "end" : "middle";
        const place = { class: "tick", x: this.x(step), y: this.span[1] + 18, "text-anchor": anchor };
        this.svg.append(svg("text", place, String(step)));
      }
    }

    curve(series) {
      const y = this.y[series.axis];
      const at = ([step, value]) => `${this.x(step).toFixed(1)},${y(value).toFixed(1)}`;
      const path = (points) => thinned(points, this.x).map(at).join(" ");
      const points = this.points(series);
      const weight = Number(smoothing.value);
      const classes = `line ${series.ink} ${series.dash ? "dashed" : ""}`;
      if (series.measured) {
        this.svg.append(svg("polyline", { class: classes, points: path(points) }));
        for (const [step, value] of points.length > 80 ? [] : points) {
          this.svg.append(svg("circle", { class: `dot ${series.ink}`, cx: this.x(step), cy: y(value), r: 3 }));
        }
        return;
      }
      const raw = series.exact || weight === 0;
      if (!raw) this.svg.append(svg("polyline", { class: `${classes} raw`, points: path(points) }));
      const drawn = raw ? points : smoothed(points, weight);
      this.svg.append(svg("polyline", { class: classes, points: path(drawn) }));
    }

    reference(line, end, start) {
      const at = Math.round(this.y.left(line.value)) + 0.5;
      this.svg.append(svg("line", { class: "reference", x1: start, x2: end, y1: at, y2: at }));
      // A share of its start lies below where a curve begins; what is learnt leaves chance behind on its way right.
      const place = line.share ? { x: start + 4, y: at + 15 } : { x: end, y: at - 5, "text-anchor": "end" };
      return svg("text", { class: "said", ...place }, line.label);
    }

    /** Diamonds on the first curve, one for each checkpoint; the suggested one is filled. */
    checkpoints() {
      const [series] = this.series;
      const curve = new Map(smoothed(this.points(series), Number(smoothing.value)));
      const steps = [...curve.keys()];
      for (const checkpoint of marks.checkpoints) {
        const nearest = steps.findLast((step) => step <= checkpoint.step) ?? steps[0];
        if (nearest === undefined) continue;
        const [x, y] = [this.x(checkpoint.step), this.y[series.axis](curve.get(nearest))];
        const size = checkpoint.suggested ? 6 : 4;
        const shape = svg("path", {
          class: `checkpoint${checkpoint.suggested ? " suggested" : ""}`,
          d: `M${x} ${y - size} L${x + size} ${y} L${x} ${y + size} L${x - size} ${y}Z`,
        });
        const words = `checkpoint at step ${checkpoint.step}${checkpoint.suggested ? ", the suggested one" : ""}`;
        shape.append(svg("title", {}, words));
        this.svg.append(shape);
      }
    }

    /** The crop's rule in lines that fit the width, at about 6.4 pixels a letter. */
    cropWords(width) {
      const words = `Crop here, at step ${marks.crop.step}. ${marks.crop.words}`.split(" ");
      const lines = [""];
      for (const word of words) {
        if ((lines.at(-1) + word).length * 6.4 > width && lines.at(-1)) lines.push("");
        lines[lines.length - 1] += `${lines.at(-1) ? " " : ""}${word}`;
      }
      return lines;
    }

    cropLine(lines, room, width) {
      const at = Math.round(this.x(marks.crop.step)) + 0.5;
      const longest = Math.max(...lines.map((line) => line.length)) * 6.4;
      const start = Math.max(room.left, Math.min(at, width - room.right - longest));
      this.svg.append(svg("line", { class: "crop", x1: at, x2: at, y1: room.top - 6, y2: this.span[1] }));
      lines.forEach((line, n) => this.svg.append(svg("text", { class: "said", x: start, y: 14 + 17 * n }, line)));
    }

    /** The cursor's line, a dot on each curve, and the values beside the names; without a cursor the newest. */
    point() {
      const row = cursor === null ? rows.at(-1) : rowAt(cursor);
      for (const series of this.series) {
        const newest = series.measured && cursor === null ? rows.findLast((each) => known(each[series.key])) : row;
        this.values.get(series.key).textContent = say(series, newest?.[series.key]);
      }
      this.figure.querySelector(".at").textContent = row ? `step ${row.step}` : "";
      if (!this.pointer) return;
      this.pointer.replaceChildren();
      this.plot.setAttribute("aria-valuenow", row?.step ?? 0);
      this.plot.setAttribute("aria-valuetext", row ? this.rowInWords(row) : "no steps yet");
      if (cursor === null || !row) return;
      const at = Math.round(this.x(row.step)) + 0.5;
      this.pointer.append(svg("line", { x1: at, x2: at, y1: this.span[0], y2: this.span[1] }));
      for (const series of this.series.filter((each) => known(row[each.key]))) {
        const cy = this.y[series.axis](row[series.key]);
        this.pointer.append(svg("circle", { class: `dot ${series.ink}`, cx: at, cy, r: 4 }));
      }
    }

    rowInWords(row) {
      const said = this.series.filter((each) => known(row[each.key]));
      return `step ${row.step}: ${said.map((each) => `${each.label} ${say(each, row[each.key])}`).join(", ")}`;
    }

    inWords() {
      const parts = this.series.map((series) => {
        const points = this.points(series);
        if (!points.length) return `${series.label} has no values yet`;
        const low = points.reduce((best, point) => (point[1] < best[1] ? point : best));
        const high = points.reduce((best, point) => (point[1] > best[1] ? point : best));
        const end = points.at(-1);
        return (
          `${series.label} from ${say(series, points[0][1])} at step ${points[0][0]} ` +
          `to ${say(series, end[1])} at step ${end[0]}, lowest ${say(series, low[1])} at ${low[0]}, ` +
          `highest ${say(series, high[1])} at ${high[0]}`
        );
      });
      if (this.crop && marks.crop) parts.push(`a crop is suggested at step ${marks.crop.step}: ${marks.crop.words}`);
      return `${this.title}: ${parts.join("; ")}. Arrow keys move through the steps.`;
    }

    tabulate() {
      if (!this.table.open) return;
      const cell = (name, text) => Object.assign(document.createElement(name), { textContent: text, className: "num" });
      const line = (cells) => {
        const row = document.createElement("tr");
        row.append(...cells);
        return row;
      };
      const head = line([cell("th", "Step"), ...this.series.map((series) => cell("th", series.label))]);
      const shown = rows.filter((row) => this.series.some((series) => known(row[series.key])));
      const values = (row) => this.series.map((series) => cell("td", say(series, row[series.key])));
      const body = shown.map((row) => line([cell("td", row.step), ...values(row)]));
      this.table.querySelector("thead").replaceChildren(head);
      this.table.querySelector("tbody").replaceChildren(...body);
    }

    stepAt(event) {
      if (!rows.length || !this.x) return null;
      const at = event.clientX - this.plot.getBoundingClientRect().left;
      const away = (row) => Math.abs(this.x(row.step) - at);
      return rows.reduce((best, row) => (away(row) < away(best) ? row : best)).step;
    }

    press(event) {
      if (!rows.length) return;
      const now = cursor === null ? rows.length - 1 : rows.findIndex((row) => row.step === cursor);
      const last = rows.length - 1;
      const far = { PageDown: now - 10, PageUp: now + 10, Home: 0, End: last };
      const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, ...far };
      if (event.key === "Escape") return moveTo(null);
      if (!(event.key in moves)) return;
      event.preventDefault();
      moveTo(rows[Math.max(0, Math.min(last, moves[event.key]))].step);
    }
  }

  // ---- all charts of the page

  const charts = [...page.querySelectorAll("figure.chart")].map((figure, n) => new Chart(figure, spec.charts[n]));
  const rowAt = (step) => rows.find((row) => row.step === step);

  function moveTo(step) {
    cursor = step;
    charts.forEach((chart) => chart.point());
  }

  /** Fetches what is new. A second attempt of the run may have taken steps anew: then everything is fetched again. */
  async function load() {
    const after = rows.at(-1)?.step ?? -1;
    const answer = await fetch(`${spec.source}?after=${after}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const said = await answer.json();
    if (attempt !== null && said.attempt !== attempt && rows.length) {
      attempt = said.attempt;
      rows.length = 0;
      return load();
    }
    attempt = said.attempt;
    total = said.total;
    Object.assign(marks, said.marks);
    rows.push(...said.steps);
    return said.more ? load() : undefined;
  }

  function refresh() {
    loading ??= load()
      .then(() => {
        note.textContent = "";
        charts.forEach((chart) => chart.draw());
      })
      .catch((error) => {
        note.textContent = `The steps could not be fetched (${error.message}). Reload the page to try again.`;
      })
      .finally(() => {
        loading = null;
      });
  }

  smoothing.addEventListener("input", () => charts.forEach((chart) => chart.draw()));
  document.body.addEventListener("htmx:afterSwap", (event) => event.detail.target.id === "live" && refresh());
  refresh();
})();
