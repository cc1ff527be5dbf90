// The guidelines beside what is ranked or written, and what this browser remembers: `Guide`. Keys and dialogs are the
// affair of rank.js and write.js.
"use strict";

const Guide = (() => {
  // A browser that keeps nothing (private, full, forbidden) works all the same: then the server alone has the drafts.
  const store = {
    get(key) { try { return localStorage.getItem(key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem(key, value); } catch { /* as said */ } },
  };

  const shown = () => document.querySelector(".guide");

  function toggle() {
    if (shown()) shown().open = !shown().open;
  }

  // They stand open where there is room beside the work; on a phone they wait behind their title. A version that was not
  // seen here yet opens anywhere, and says so.
  function begin() {
    const guide = shown();
    if (!guide || guide.dataset.known) return;
    const key = `quintet.guidelines.${guide.dataset.project}`;
    const seen = store.get(key);
    guide.dataset.known = "yes";
    guide.querySelector(".new").hidden = !seen || seen === guide.dataset.version;
    guide.open = matchMedia("(min-width: 761px)").matches || !guide.querySelector(".new").hidden;
    store.set(key, guide.dataset.version);
  }

  return { store, toggle, begin };
})();
