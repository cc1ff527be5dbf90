/* The practice grid by keyboard and by hand: the arrow keys go from tile to tile, Enter and a click read one beside the
   grid. One tile of a grid is in the tab order. Without this file every tile is a link to the page that reads it. */
"use strict";

(() => {
  const grids = () => document.querySelectorAll("[data-tiles]");
  const tiles = (grid) => grid.children;

  // Only what is new is touched: tiles may come by the hundred while others are read.
  function tidy() {
    for (const grid of grids()) {
      if (!grid.last?.isConnected) grid.last = grid.querySelector("[aria-current]") || grid.firstElementChild;
      for (let each = grid.lastElementChild; each && each.tabIndex !== -1; each = each.previousElementSibling) {
        each.tabIndex = -1;
      }
      if (grid.last) grid.last.tabIndex = 0;
    }
  }

  function rove(tile) {
    const grid = tile.parentElement;
    if (grid.last && grid.last !== tile) grid.last.tabIndex = -1;
    grid.last = tile;
    tile.tabIndex = 0;
  }

  function columns(grid) {
    const [first] = tiles(grid), width = first.offsetWidth;
    const gap = parseFloat(getComputedStyle(grid).columnGap) || 0;
    const inner = grid.clientWidth - 2 * parseFloat(getComputedStyle(grid).paddingLeft);
    return Math.max(1, Math.floor((inner + gap) / (width + gap)));
  }

  const tileOf = (target) => (target instanceof Element ? target.closest("[data-tiles] > a") : null);

  // On a phone what is read lies over the end of the page: the tile that was pressed stays in sight above it. Where the
  // tiles have only begun to come into sight, the sheet grows as they do, so one look is not enough.
  function uncover(tile, looks = 8) {
    const sheet = document.getElementById("reading").getBoundingClientRect(), box = tile.getBoundingClientRect();
    const over = sheet.left < box.right && sheet.right > box.left && sheet.top < box.bottom + 8;
    if (!looks || !over || sheet.bottom <= box.top) return;
    scrollBy({ top: box.bottom + 16 - sheet.top });
    uncover(tile, looks - 1);
  }

  async function read(tile) {
    document.querySelectorAll(".tile[aria-current]").forEach((each) => each.removeAttribute("aria-current"));
    tile.setAttribute("aria-current", "true");
    rove(tile);
    await htmx.ajax("GET", tile.getAttribute("href").replace(/#.*$/, ""), { target: "#reading", swap: "outerHTML" });
    history.replaceState(null, "", tile.href.replace(/#.*$/, ""));
    uncover(tile);
  }

  // On a phone the sheet goes when it is read.
  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element) || !event.target.closest("#reading [data-closes]")) return;
    event.preventDefault();
    const tile = document.querySelector(".tile[aria-current]");
    tile?.removeAttribute("aria-current");
    document.getElementById("reading").replaceChildren();
    history.replaceState(null, "", location.pathname);
    tile?.focus({ preventScroll: true });
  });

  document.addEventListener("click", (event) => {
    const tile = tileOf(event.target);
    if (!tile || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    read(tile);
  });

  document.addEventListener("focusin", ({ target }) => {
    const tile = tileOf(target);
    if (tile) rove(tile);
  });

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape" && event.target instanceof Element && event.target.closest("#reading")) {
      document.querySelector(".tile[aria-current]")?.focus();
      return;
    }
    const tile = tileOf(event.target);
    if (!tile) return;
    const grid = tile.parentElement, all = tiles(grid), now = Array.prototype.indexOf.call(all, tile);
    const across = event.key.endsWith("Up") || event.key.endsWith("Down") ? columns(grid) : 1;
    const moves = { ArrowRight: now + 1, ArrowLeft: now - 1, ArrowDown: now + across, ArrowUp: now - across };
    const ends = { Home: 0, End: all.length - 1 };
    const next = all[ends[event.key] ?? moves[event.key]];
    if (!(event.key in moves) && !(event.key in ends)) return;
    event.preventDefault();
    next?.focus();
  });

  // When all are there the grid comes anew: what is read stays, and so does the tile that has the keyboard.
  let held = null;
  document.addEventListener("htmx:configRequest", ({ target, detail }) => {
    const chosen = document.querySelector("#tiles [aria-current]");
    if (target.id === "poll" && chosen) detail.parameters.one = chosen.dataset.name;
  });
  document.addEventListener("htmx:oobBeforeSwap", ({ target }) => {
    if (target.id === "whole") held = tileOf(document.activeElement)?.dataset.name ?? null;
  });
  document.addEventListener("htmx:oobAfterSwap", () => {
    if (held !== null) document.querySelector(`#tiles [data-name="${held}"]`)?.focus({ preventScroll: true });
    held = null;
  });

  document.addEventListener("htmx:afterSettle", tidy);
  document.addEventListener("htmx:oobAfterSwap", tidy);
  tidy();
})();
