/* One chart of a run: SVG written by hand. Raw under smoothed, several runs over each other, on an axis of steps, of
   time or of √KL, linear or logarithmic; what people said with its intervals; the crop, and the checkpoints.

   What is drawn, and of which runs, the page's own script says (charts.js): `view` is the state that all charts of the
   page share. Every step is kept, and thinned for drawing only. Colours are classes of runs.css. Left out: zooming. */
"use strict";

// eslint-disable-next-line no-unused-vars -- charts.js makes them
const { Chart, known } = (() => {

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

  /** At most four of the points that share a pixel (first, lowest, highest, last), so that no spike is thinned away. */
  function thinned(points, width) {
    const together = Math.ceil(points.length / Math.max(1, width));
    if (together < 3) return points;
    const kept = [];
    for (let from = 0; from < points.length; from += together) {
      const some = points.slice(from, from + together);
      const byValue = [...some].sort((a, b) => a[1] - b[1]);
      const few = new Set([some[0], byValue[0], byValue.at(-1), some.at(-1)]);
      kept.push(...some.filter((point) => few.has(point)));
    }
    return kept;
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

  /** The same for a logarithmic axis: 1, 2 and 5 of each power of ten, or the powers alone where those are many. */
  function decades(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const unit of [1, 2, 5]) found.push(unit * 10 ** power);
    }
    const first = found.findLastIndex((each) => each <= low * 1.0001);
    const last = found.findIndex((each) => each >= high * 0.9999);
    const within = found.slice(Math.max(first, 0), last + 1);
    const whole = within.filter((each, n) => n === 0 || n === within.length - 1 || /^1(e|0*$)|^0\.0*1$/.test(String(each)));
    return within.length > 7 ? whole : within.length > 1 ? within : [within[0], within[0] * 2];
  }

  /** How far up an axis a value is, from 0 to 1; null where it has no place on it. */
  function rise(axis, value) {
    const [low, high] = [axis[0], axis.at(-1)];
    if (!axis.log) return (value - low) / (high - low);
    return value >= low ? Math.log(value / low) / Math.log(high / low) : null;
  }

  function svg(name, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // ---- one chart

  class Chart {
    constructor(figure, description, view) {
      const { series, ...told } = description;
      Object.assign(this, told);
      this.all = series;
      this.view = view;
      this.figure = figure;
      this.plot = figure.querySelector(".plot");
      this.values = new Map([...figure.querySelectorAll("[data-series]")].map((one) => [one.dataset.series, one]));
      this.table = figure.querySelector(".numbers");
      this.table.addEventListener("toggle", () => this.tabulate());
      for (const box of figure.querySelectorAll("[data-pick]")) box.addEventListener("change", () => this.draw());
      this.plot.addEventListener("pointermove", (event) => view.moveTo(this.stepAt(event)));
      this.plot.addEventListener("pointerdown", (event) => view.moveTo(this.stepAt(event)));
      this.plot.addEventListener("click", (event) => this.click(event));
      this.plot.addEventListener("pointerleave", (event) => this.leave(event));
      this.plot.addEventListener("keydown", (event) => this.press(event));
      this.plot.addEventListener("blur", () => view.moveTo(null));
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    /** The series that are chosen, and have anything to show. */
    get series() {
      const boxes = new Map([...this.figure.querySelectorAll("[data-pick]")].map((box) => [box.dataset.pick, box]));
      return this.all.filter((each) => (boxes.get(each.key)?.checked ?? true) && !boxes.get(each.key)?.closest("[hidden]"));
    }

    get own() {
      return this.view.runs[0];
    }

    rowsOf(series, run) {
      return series.people ? run.marks.people.points : run.rows;
    }

    /** Step and value, in order. */
    points(series, run = this.own) {
      return this.rowsOf(series, run).filter((row) => known(row[series.key])).map((row) => [row.step, row[series.key]]);
    }

    /** Where on the page a step of a run stands, from left to right; null where that is not known. */
    x(step, run = this.own) {
      const at = this.view.across(run).get(step);
      return at === undefined ? null : this.left + ((at - this.ends[0]) / (this.ends[1] - this.ends[0])) * this.width;
    }

    /** Values of an axis: its fixed ends where it has some, else round numbers around everything drawn on it. */
    scale(side, count, mine = this.series.filter((each) => each.axis === side)) {
      if (!mine.length) return null;
      const values = mine.flatMap((each) => this.view.runs.flatMap((run) => this.points(each, run).map((point) => point[1])));
      if (side === "left") values.push(...this.references().map((each) => each.value));
      const lowest = (some) => some.reduce((best, each) => Math.min(best, each), Infinity);
      const highest = (some) => some.reduce((best, each) => Math.max(best, each), -Infinity);
      if (this.view.log) {
        const above = values.filter((each) => each > 0);
        if (!above.length) return Object.assign([0.1, 1], { log: true });
        const [least, most] = [lowest(above), highest(above)];
        return Object.assign(decades(least, Math.max(most, least * 1.01)), { log: true });
      }
      const ends = mine[0].range ?? [null, null];
      const [least, most] = [ends[0] ?? lowest(values), ends[1] ?? highest(values)];
      const shortest = mine[0].format === "percent" ? 0.01 : 1e-9; // so that no two of its numbers read alike
      return Number.isFinite(least + most) ? ticks(least, Math.max(most, least + shortest), count) : ticks(0, 1, count);
    }

    /** Lines to compare with: chance, or a share of where a series began. */
    references() {
      return this.lines.flatMap((line) => {
        if (!line.share) return [line];
        const first = this.own.rows.find((row) => known(row[line.of]));
        return first ? [{ ...line, value: line.share * first[line.of] }] : [];
      });
    }

    draw() {
      const width = this.plot.clientWidth;
      const height = this.plot.clientHeight;
      if (!width) return;
      this.plot.setAttribute("aria-label", this.inWords());
      this.point();
      if (!this.series.some((series) => this.view.runs.some((run) => this.points(series, run).length))) {
        this.pointer = null;
        return this.plot.replaceChildren(this.nothing());
      }
      const tall = height > 200;
      const left = this.scale("left", tall ? 4 : 3) ?? ticks(0, 1, tall ? 4 : 3);
      const right = this.scale("right", left.length - 1);
      const room = { left: 48, right: right ? 38 : 12, bottom: 24, top: 10 };
      const banner = this.crop && this.own.marks.crop ? this.cropWords(width - room.left - room.right) : [];
      room.top += 17 * banner.length;
      [this.left, this.width, this.ends] = [room.left, width - room.left - room.right, this.view.ends()];
      this.span = [room.top, height - room.bottom];
      const y = (axis) => (value) => {
        const up = rise(axis, value);
        return up === null ? null : height - room.bottom - up * (height - room.bottom - room.top);
      };
      this.y = { left: y(left), right: right && y(right) };
      const alone = this.series.filter((each) => each.axis === "own");
      for (const series of alone) this.y[series.key] = y(this.scale("own", 4, [series]));

      this.svg = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
      this.frame(left, right, width, room);
      const references = this.references().flatMap((line) => this.reference(line, width - room.right, room.left));
      for (const [n, run] of [...this.view.runs.entries()].reverse()) {
        for (const series of this.series) this.curve(series, run, n);
      }
      this.svg.append(...references); // their words go over the curves
      if (this.crop) this.view.runs.forEach((run, n) => this.checkpoints(run, n));
      if (this.crop) this.cropLine(banner, room, width);
      this.pointer = svg("g", { class: "cursor" });
      this.svg.append(this.pointer);
      this.plot.replaceChildren(this.svg);
      this.plot.setAttribute("aria-valuemin", this.own.rows[0]?.step ?? 0);
      this.plot.setAttribute("aria-valuemax", this.own.rows.at(-1)?.step ?? 0);
      this.point();
      this.tabulate();
    }

    height(series) {
      return this.y[series.axis === "own" ? series.key : series.axis];
    }

    nothing() {
      const textContent = this.own.attempt === null ? "Fetching the steps …" : "Nothing measured yet."; // not known before the first answer
      return Object.assign(document.createElement("p"), { className: "nothing", textContent });
    }

    frame(left, right, width, room) {
      const end = width - room.right;
      const series = (side) => this.series.find((each) => each.axis === side);
      const digits = (axis, one) => (value) => {
        if (one.format === "percent") return axis[1] - axis[0] < 0.01 ? `${(100 * value).toFixed(1)} %` : FORMATS.percent(value);
        if (one.format === "rate") return value === 0 ? "0" : FORMATS.rate(value).replace(".0e", "e");
        const unit = axis.log ? value : axis[1] - axis[0];
        const fits = (places) => Math.abs(unit * 10 ** places - Math.round(unit * 10 ** places)) < 1e-6;
        const places = [0, 1, 2, 3, 4, 5].find(fits);
        return Number.isInteger(value) ? String(value) : value.toFixed(places ?? 6);
      };
      const apart = (axis, place) => {
        // On a logarithmic axis two numbers may be too near to each other to be read.
        let last = Infinity;
        return axis.filter((value) => last - place(value) > 13 && ((last = place(value)), true));
      };
      for (const value of apart(left, this.y.left)) {
        const at = Math.round(this.y.left(value)) + 0.5;
        this.svg.append(
          svg("line", { class: "grid", x1: room.left, x2: end, y1: at, y2: at }),
          svg("text", { x: room.left - 8, y: at + 4, "text-anchor": "end" }, digits(left, series("left"))(value)),
        );
      }
      for (const value of right ? apart(right, this.y.right) : []) {
        const said = digits(right, series("right"))(value);
        this.svg.append(svg("text", { x: end + 8, y: this.y.right(value) + 4.5 }, said));
      }
      const [first, last] = this.ends;
      const wanted = Math.max(2, Math.floor((end - room.left) / 110));
      const at = (value) => room.left + ((value - first) / (last - first)) * (end - room.left);
      const inside = ticks(first, last, wanted).filter((value) => value > first && value < last);
      const far = (value) => at(last) - at(value) > 40 && at(value) - at(first) > 24;
      for (const value of [first, ...inside.filter(far), last]) {
        const said = this.view.sayAcross(value);
        if (said === null) continue;
        const anchor = value === last ? "end" : "middle";
        this.svg.append(svg("text", { class: "tick", x: at(value), y: this.span[1] + 18, "text-anchor": anchor }, said));
      }
    }

    curve(series, run, n) {
      const y = this.height(series);
      const placed = (points) =>
        points.map(([step, value]) => [this.x(step, run), y(value)]).filter(([x, up]) => x !== null && up !== null);
      const path = (points) => {
        const thin = thinned(placed(points), this.width);
        return thin.map(([x, up]) => `${x.toFixed(1)},${up.toFixed(1)}`).join(" ");
      };
      const points = this.points(series, run);
      const weight = this.view.weight;
      const classes = `line ${series.ink} ${series.dash && this.view.runs.length === 1 ? "dashed" : ""} over${n}`;
      if (series.people) this.whiskers(series, run, y);
      if (series.measured) {
        this.svg.append(svg("polyline", { class: classes, points: path(points) }));
        for (const [cx, cy] of points.length > 80 ? [] : placed(points)) {
          this.svg.append(svg("circle", { class: `dot ${series.ink}`, cx, cy, r: 3 }));
        }
        return;
      }
      const raw = series.exact || weight === 0;
      if (!raw && n === 0) this.svg.append(svg("polyline", { class: `${classes} raw`, points: path(points) }));
      const drawn = raw ? points : smoothed(points, weight);
      this.svg.append(svg("polyline", { class: classes, points: path(drawn) }));
    }

    /** From the lower to the upper end of what people said. */
    whiskers(series, run, y) {
      for (const { step, low, high } of run.marks.people.points) {
        const [x, y1, y2] = [this.x(step, run), y(low), y(high)];
        if (x === null || y1 === null || y2 === null) continue;
        this.svg.append(svg("line", { class: `line whisker ${series.ink}`, x1: x, x2: x, y1, y2 }));
      }
    }

    reference(line, end, start) {
      const up = this.y.left(line.value);
      if (up === null) return [];
      const at = Math.round(up) + 0.5;
      this.svg.append(svg("line", { class: "reference", x1: start, x2: end, y1: at, y2: at }));
      // A share of its start lies below where a curve begins; what is learnt leaves chance behind on its way right.
      const first = line.share && !line.end ? { x: start + 4, y: at + 15 } : { x: end, y: at - 5, "text-anchor": "end" };
      return svg("text", { class: "said", ...this.clear(first, at, end, start, line.label) }, line.label);
    }

    /** Where a line's words hide the least of the curves: at `first`, if that is as good as any place beside it. */
    clear(first, at, end, start, words) {
      const curves = this.series.flatMap((series) => this.view.runs.flatMap((run) => this.inked(series, run)));
      const beside = [at + 15, at - 5].flatMap((y) => [{ x: end, y, "text-anchor": "end" }, { x: start + 4, y }]);
      const wide = words.length * 6.8;
      const hidden = (place) => {
        const from = place["text-anchor"] ? place.x - wide : place.x;
        return curves.filter(([x, y]) => x > from && x < from + wide && y > place.y - 13 && y < place.y + 4).length;
      };
      const room = [first, ...beside].filter((place) => place.y > 12); // above the highest line there is none
      return room.reduce((best, place) => (hidden(place) < hidden(best) ? place : best));
    }

    /** A curve as places on the page, near enough to each other that none of it slips through between two. */
    inked(series, run) {
      const y = this.height(series), all = [];
      const points = this.points(series, run).map(([step, value]) => [this.x(step, run), y(value)]);
      const placed = thinned(points.filter(([x, up]) => x !== null && up !== null), this.width);
      placed.forEach(([x, up], index) => {
        const [before, from] = placed[index - 1] ?? [x, up];
        const parts = Math.max(1, Math.ceil((x - before) / 8));
        for (let part = 1; part <= parts; part += 1) {
          all.push([before + ((x - before) * part) / parts, from + ((up - from) * part) / parts]);
        }
      });
      return all;
    }

    /** Diamonds on the first curve, one for each checkpoint; the suggested one is filled. */
    checkpoints(run, n) {
      const [series] = this.series;
      if (!series || series.people) return;
      const curve = new Map(smoothed(this.points(series, run), this.view.weight));
      const steps = [...curve.keys()];
      for (const checkpoint of run.marks.checkpoints) {
        const nearest = steps.findLast((step) => step <= checkpoint.step) ?? steps[0];
        if (nearest === undefined) continue;
        const [x, y] = [this.x(checkpoint.step, run) ?? this.x(nearest, run), this.height(series)(curve.get(nearest))];
        if (x === null || y === null) continue;
        const size = (checkpoint.suggested ? 6 : 4) - (n ? 1 : 0);
        const shape = svg("path", {
          class: `checkpoint${checkpoint.suggested ? " suggested" : ""}`,
          d: `M${x} ${y - size} L${x + size} ${y} L${x} ${y + size} L${x - size} ${y}Z`,
        });
        const of = n ? ` of ${run.name}` : "";
        const words = `checkpoint at step ${checkpoint.step}${of}${checkpoint.suggested ? ", the suggested one" : ""}`;
        shape.append(svg("title", {}, words));
        this.svg.append(shape);
      }
    }

    /** The crop's rule in lines that fit the width, at about 6.4 pixels a letter. */
    cropWords(width) {
      const { crop } = this.own.marks;
      const words = `Crop here, at step ${crop.step}. ${crop.words}`.split(" ");
      const lines = [""];
      for (const word of words) {
        if ((lines.at(-1) + word).length * 6.4 > width && lines.at(-1)) lines.push("");
        lines[lines.length - 1] += `${lines.at(-1) ? " " : ""}${word}`;
      }
      return lines;
    }

    cropLine(lines, room, width) {
      for (const [n, run] of this.view.runs.entries()) {
        const place = run.marks.crop ? this.x(run.marks.crop.step, run) : null;
        if (place === null) continue;
        const at = Math.round(place) + 0.5;
        this.svg.append(svg("line", { class: `crop over${n}`, x1: at, x2: at, y1: room.top - 6, y2: this.span[1] }));
        if (n) continue;
        const longest = Math.max(...lines.map((line) => line.length)) * 6.4;
        const start = Math.max(room.left, Math.min(at, width - room.right - longest));
        lines.forEach((line, row) => this.svg.append(svg("text", { class: "said", x: start, y: 14 + 17 * row }, line)));
      }
    }

    /** What a series says at a row of its run: what people said counts until they say something else. */
    at(series, run, row) {
      if (!series.people) return row?.[series.key];
      const found = run.marks.people.points.findLast((each) => !row || each.step <= row.step);
      return found?.[series.key];
    }

    /** The cursor's line, a dot on each curve, and the values beside the names; without a cursor the newest. */
    point() {
      const { rows } = this.own;
      const row = this.view.cursor === null ? rows.at(-1) : this.view.rowAt(this.view.cursor);
      for (const series of this.all) {
        const newest = series.measured && this.view.cursor === null;
        const told = newest && !series.people ? rows.findLast((each) => known(each[series.key])) : row;
        this.values.get(series.key).textContent = say(series, this.at(series, this.own, told));
      }
      this.figure.querySelector(".at").textContent = row ? `step ${row.step}` : "";
      this.compare(row);
      if (!this.pointer) return;
      this.pointer.replaceChildren();
      this.plot.setAttribute("aria-valuenow", row?.step ?? 0);
      this.plot.setAttribute("aria-valuetext", row ? this.rowInWords(row) : "no steps yet");
      const place = row && this.view.cursor !== null ? this.x(row.step) : null;
      if (place === null) return;
      const at = Math.round(place) + 0.5;
      this.pointer.append(svg("line", { x1: at, x2: at, y1: this.span[0], y2: this.span[1] }));
      for (const series of this.series.filter((each) => !each.people && known(row[each.key]))) {
        const cy = this.height(series)(row[series.key]);
        if (cy !== null) this.pointer.append(svg("circle", { class: `dot ${series.ink}`, cx: at, cy, r: 4 }));
      }
    }

    /** The other runs' values at the same place, in words. */
    compare(row) {
      const told = this.view.runs.slice(1).map((run) => {
        const there = this.view.beside(run, row);
        const said = this.series.map((each) => [each, this.at(each, run, there)]).filter(([, value]) => known(value));
        const words = said.map(([each, value]) => `${each.label} ${say(each, value)}`).join(", ");
        return `${run.name}${there ? ` at step ${there.step}` : ""}: ${words || "nothing here"}`;
      });
      this.figure.querySelector(".beside").textContent = told.join(" · ");
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
      const { crop } = this.own.marks;
      if (this.crop && crop) parts.push(`a crop is suggested at step ${crop.step}: ${crop.words}`);
      const more = this.view.canOpen ? ", Enter opens one" : "";
      return `${this.title}: ${parts.join("; ")}. Arrow keys move through the steps${more}.`;
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
      const shown = this.own.rows.filter((row) => this.series.some((series) => known(row[series.key])));
      const values = (row) => this.series.map((series) => cell("td", say(series, this.at(series, this.own, row))));
      const body = shown.map((row) => line([cell("td", row.step), ...values(row)]));
      this.table.querySelector("thead").replaceChildren(head);
      this.table.querySelector("tbody").replaceChildren(...body);
    }

    stepAt(event) {
      const { rows } = this.own;
      if (!rows.length || !this.ends) return null;
      const at = event.clientX - this.plot.getBoundingClientRect().left;
      let [best, least] = [rows[0].step, Infinity];
      for (const row of rows) {
        const away = Math.abs((this.x(row.step) ?? Infinity) - at);
        if (away < least) [best, least] = [row.step, away];
      }
      return best;
    }

    leave(event) {
      // A finger that is lifted leaves the cursor where it was, and with it the way to that step.
      if (document.activeElement !== this.plot && event.pointerType === "mouse") this.view.moveTo(null);
    }

    /** A mouse opens the step that it points at; a finger has only pointed, and has a link for it. */
    click(event) {
      if (event.pointerType === "mouse") this.view.open(this.stepAt(event));
    }

    press(event) {
      const { rows } = this.own;
      if (!rows.length) return;
      const { cursor } = this.view;
      const now = cursor === null ? rows.length - 1 : rows.findIndex((row) => row.step === cursor);
      const last = rows.length - 1;
      const far = { PageDown: now - 10, PageUp: now + 10, Home: 0, End: last };
      const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, ...far };
      if (event.key === "Escape") return this.view.moveTo(null);
      if (event.key === "Enter") return this.view.open(rows[now].step);
      if (!(event.key in moves)) return;
      event.preventDefault();
      this.view.moveTo(rows[Math.max(0, Math.min(last, moves[event.key]))].step);
    }
  }

  return { Chart, known };
})();
