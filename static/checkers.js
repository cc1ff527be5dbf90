/* Verdicts by the keyboard: j and k go to the next and the one before, c confirms, o overrules, u takes back.
   Each key presses a button that is there, so nothing can be done here that could not be done without. */

(() => {
  const all = () => [...document.querySelectorAll("[data-verdict]")];
  const here = () => document.querySelector("[data-verdict].on") ?? document.activeElement?.closest?.("[data-verdict]");

  function go(to) {
    if (!to) return;
    for (const each of all()) each.classList.toggle("on", each === to);
    to.focus({ preventScroll: true });
    to.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target instanceof Element && target.closest("input, textarea, select")) return;
    const now = here();
    const place = all().indexOf(now);
    if (key === "j") go(all()[place + 1]);
    else if (key === "k") go(all()[Math.max(place, 1) - 1]);
    else now?.querySelector(`[data-key="${CSS.escape(key)}"]`)?.click();
  });

  // What was swapped in is still the one that the reader was at, unless they have gone on meanwhile.
  document.addEventListener("htmx:afterSettle", ({ detail }) => {
    const id = detail.elt?.id ?? "";
    if (id.startsWith("r-") && !document.querySelector("[data-verdict].on")) {
      document.getElementById(id)?.classList.add("on");
    }
  });
})();
