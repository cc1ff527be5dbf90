/* All charts of a run's page together: fetches the steps of the run, all of them and only what is new while it is live,
   and those of other runs that somebody wants to see over them; holds what the charts have in common (the cursor, the
   axis, smoothing, the scale). What was chosen stands in the address. How a chart is drawn: chart.js. */
"use strict";

(() => {
  const page = document.getElementById("charts");
  if (!page) return;

  const spec = JSON.parse(document.getElementById("chart-spec").textContent);
  const [smoothing, axis, scale] = ["smoothing", "axis", "scale"].map((id) => document.getElementById(id));
  const note = document.getElementById("chart-note");
  const csv = document.getElementById("csv");
  const opener = page.querySelector(".open-step");

  const nothing = () => ({ crop: null, checkpoints: [], people: { by: "people", points: [] } });
  const made = (source, name) => ({ source, name, rows: [], marks: nothing(), attempt: null, total: 0, loading: null });
  const own = made(spec.source, "this run");
  const others = new Map(spec.others.map((each) => [String(each.pk), each]));
  const overlaid = new Map(); // runs by their number

  // ---- what the charts share

  const view = {
    cursor: null, // the step under the pointer or the arrow keys, the same for all charts
    runs: [own],
    places: new Map(), // of each run, its steps on the axis; forgotten when anything changes
    canOpen: Boolean(spec.open),
    get log() {
      return scale.value === "log";
    },
    get weight() {
      return Number(smoothing.value);
    },

    /** Where the steps of a run are on the axis: by their number, their time, or √KL, which is smoothed like a curve. */
    across(run) {
      const found = this.places.get(run);
      if (found) return found;
      const places = new Map();
      let mean = null;
      for (const row of run.rows) {
        if (axis.value === "step") places.set(row.step, row.step);
        else if (axis.value === "seconds" && known(row.seconds)) places.set(row.step, row.seconds);
        else if (axis.value === "sqrt_kl" && known(row.kl)) {
          const root = Math.sqrt(Math.max(0, row.kl));
          mean = mean === null ? root : this.weight * mean + (1 - this.weight) * root;
          places.set(row.step, mean);
        }
      }
      // The start, which people may have judged, lies before the first step.
      const first = run.rows[0]?.step;
      if (places.size && first > 0) places.set(0, axis.value === "step" ? Math.min(first, 1) : 0);
      this.places.set(run, places);
      return places;
    },

    /** From where to where the axis goes. */
    ends() {
      const all = this.runs.flatMap((run) => [...this.across(run).values()]);
      const high = all.reduce((best, each) => Math.max(best, each), 0);
      if (axis.value !== "step") return [0, high || 1];
      const first = own.rows.length ? Math.min(own.rows[0].step, 1) : 0;
      return [first, Math.max(own.total, high, first + 1)];
    },

    /** A place on the axis in words; null for what would be half a step. */
    sayAcross(value) {
      if (axis.value === "step") return Number.isInteger(value) ? String(value) : null;
      if (axis.value === "sqrt_kl") return value.toFixed(1);
      const seconds = Math.round(value);
      if (seconds < 120) return `${seconds} s`;
      return seconds < 7200 ? `${Math.round(seconds / 6) / 10} min` : `${Math.round(seconds / 360) / 10} h`;
    },

    rowAt: (step) => own.rows.find((row) => row.step === step),

    /** Of another run, the row that stands where this one's does; its newest where no cursor is. */
    beside(run, row) {
      if (!row || view.cursor === null) return run.rows.at(-1);
      const here = view.across(own).get(row.step);
      const places = view.across(run);
      let [best, least] = [undefined, Infinity];
      for (const each of run.rows) {
        const away = Math.abs((places.get(each.step) ?? Infinity) - here);
        if (away < least) [best, least] = [each, away];
      }
      return best;
    },

    moveTo(step) {
      view.cursor = step;
      charts.forEach((chart) => chart.point());
      if (!opener) return;
      const there = step ?? own.rows.at(-1)?.step;
      opener.parentElement.hidden = !there; // step 0 is the start, which learnt from nothing
      if (!there) return;
      opener.href = `${spec.open}${there}/`;
      opener.textContent = `${spec.opens} step ${there}`;
    },

    open(step) {
      if (spec.open && step) location.assign(`${spec.open}${step}/`);
    },
  };
  const charts = [...page.querySelectorAll("figure.chart")].map((each, n) => new Chart(each, spec.charts[n], view));

  function draw() {
    view.places.clear();
    const people = page.querySelector("[data-pick=people]")?.closest("label");
    if (people) {
      people.hidden = !view.runs.some((run) => run.marks.people.points.length);
      const simulated = own.marks.people.by !== "people";
      people.querySelector(".name").textContent = simulated ? "simulated labelers" : "people";
    }
    charts.forEach((chart) => chart.draw());
    view.moveTo(view.cursor);
  }

  // ---- the steps

  /** Fetches what is new. A second attempt of the run may have taken steps anew: then everything is fetched again. */
  async function load(run) {
    const after = run.rows.at(-1)?.step ?? -1;
    const answer = await fetch(`${run.source}?after=${after}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const said = await answer.json();
    if (run.attempt !== null && said.attempt !== run.attempt && run.rows.length) {
      run.attempt = said.attempt;
      run.rows.length = 0;
      return load(run);
    }
    run.attempt = said.attempt;
    run.total = said.total;
    Object.assign(run.marks, said.marks);
    run.rows.push(...said.steps);
    return said.more ? load(run) : undefined;
  }

  function refresh(run = own) {
    run.loading ??= load(run)
      .then(() => {
        note.textContent = "";
        draw();
      })
      .catch((error) => {
        note.textContent = `The steps could not be fetched (${error.message}). Reload the page to try again.`;
      })
      .finally(() => {
        run.loading = null;
      });
  }

  // ---- what is chosen, and kept in the address

  function overlay() {
    const boxes = [...page.querySelectorAll("[name=with]")];
    const chosen = boxes.filter((box) => box.checked).slice(0, spec.most);
    for (const box of boxes) box.disabled = !box.checked && chosen.length === spec.most;
    view.runs = [own];
    for (const { value } of chosen) {
      const { source, name } = others.get(value);
      const run = overlaid.get(value) ?? made(source, name);
      view.runs.push(run);
      if (!overlaid.has(value)) refresh(overlaid.set(value, run).get(value));
    }
    boxes.forEach((box) => {
      const n = chosen.indexOf(box) + 1;
      box.closest("label").querySelector("line").setAttribute("class", n ? `line ink over${n}` : "line none");
    });
    draw();
  }

  function keep() {
    const address = new URL(location.href);
    const chosen = [...page.querySelectorAll("[name=with]:checked")].map((box) => box.value).join(",");
    const usual = { with: "", axis: "step", scale: "linear" };
    for (const [name, value] of Object.entries({ with: chosen, axis: axis.value, scale: scale.value })) {
      if (value === usual[name]) address.searchParams.delete(name);
      else address.searchParams.set(name, value);
    }
    history.replaceState(history.state, "", address);
    csv.href = `${spec.source}?form=csv${chosen ? `&with=${chosen}` : ""}`;
  }

  const asked = new URL(location.href).searchParams;
  if ([...axis.options].some((each) => each.value === asked.get("axis"))) axis.value = asked.get("axis");
  if (asked.get("scale") === "log") scale.value = "log";
  const wanted = (asked.get("with") ?? "").split(",").filter((each) => others.has(each));
  for (const box of page.querySelectorAll("[name=with]")) box.checked = wanted.includes(box.value);
  if (wanted.length) page.querySelector(".overlay").open = true;

  for (const each of [smoothing, axis, scale]) each.addEventListener("input", draw);
  page.addEventListener("change", (event) => {
    if (event.target.name === "with") overlay();
    keep();
  });
  document.body.addEventListener("htmx:afterSwap", (event) => event.detail.target.id === "live" && refresh());
  overlay();
  keep();
  refresh();
})();
