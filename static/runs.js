/* What the pages of runs need beyond htmx: a slider that says its step and is never pulled from under a thumb, and a
   word when the server has stopped answering. The curves are chart.js. */
"use strict";

document.body.addEventListener("htmx:afterSwap", () => {
  const slider = document.getElementById("look");
  const step = document.getElementById("said")?.dataset.step;
  if (slider?.type === "range" && step) slider.setAttribute("aria-valuetext", `step ${step}`);
});

// A poll that brings newer samples waits for the next one while somebody drags.
document.body.addEventListener("htmx:oobBeforeSwap", (event) => {
  if (event.detail.target.id === "samples" && document.querySelector("#look:active")) event.detail.shouldSwap = false;
});

for (const [name, hidden] of [["htmx:sendError", false], ["htmx:responseError", false], ["htmx:afterOnLoad", true]]) {
  document.body.addEventListener(name, () => {
    const stale = document.getElementById("stale");
    if (stale) stale.hidden = hidden;
  });
}
