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

// How far it is, in the title of its tab; and a word of the browser's when it ends, for whoever asked for one.
const name = document.title;
const asked = `tell when ${location.pathname} ends`;

function look(ended) {
  const live = document.getElementById("live");
  if (!live) return;
  const { state, share } = live.dataset;
  const marks = { running: `${share} % `, queued: "… ", finished: "✓ ", failed: "✕ " };
  document.title = (marks[state] ?? "") + name;
  const button = document.getElementById("notify");
  if (button && "Notification" in window && window.isSecureContext && Notification.permission !== "denied") {
    button.hidden = false;
    const waits = sessionStorage.getItem(asked) !== null && Notification.permission === "granted";
    button.setAttribute("aria-pressed", String(waits));
    button.textContent = waits ? "You will be told" : "Tell me when it ends";
  }
  if (ended && sessionStorage.getItem(asked) !== null) {
    sessionStorage.removeItem(asked);
    const says = document.querySelector(".reason")?.textContent || document.getElementById("sentence")?.textContent;
    const words = { finished: "has finished", failed: "has failed" }[state] ?? "was stopped";
    new Notification(`${document.querySelector("#live h1").textContent} ${words}`, { body: says ?? "", tag: asked });
  }
}

document.body.addEventListener("click", async (event) => {
  if (event.target.id !== "notify") return;
  if (sessionStorage.getItem(asked) !== null) sessionStorage.removeItem(asked);
  else if ((await Notification.requestPermission()) === "granted") sessionStorage.setItem(asked, "");
  look(false);
});

let wasLive = document.querySelector("#live[hx-get]") !== null;
document.body.addEventListener("htmx:afterSwap", () => {
  const live = document.querySelector("#live[hx-get]") !== null;
  look(wasLive && !live);
  wasLive = live;
});
look(false);
