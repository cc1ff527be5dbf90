// Ranking by keyboard, by buttons and by dragging. The radio buttons of the form are the truth: what is shown beside
// them is drawn from them, and without this file they are all there is. Every listener sits on the document, so a
// quintet that is swapped in needs no wiring. Leaves out: drafts, ties, undo.
"use strict";

(() => {
  const LONG_ENOUGH = 5 * 60 * 1000; // the lease is half an hour: renewing it now and then is plenty
  let ranks = {}; // letter -> rank, null where open
  let renewed = Date.now();
  let busy = false;
  let drag = null;

  const form = () => document.querySelector("form#quintet");
  const all = (selector) => [...form().querySelectorAll(selector)];
  const one = (selector) => form().querySelector(selector);
  const letters = () => Object.keys(ranks);
  const open = () => letters().filter((letter) => !ranks[letter]);
  const card = (letter) => one(`.card[data-letter="${letter}"]`);
  const say = (words) => { document.getElementById("said").textContent = words; };
  const trouble = (words) => { document.getElementById("trouble").textContent = words; };

  // ---- the order

  // Put a card on a rank. Who stands there moves one along, and so on up to the nearest gap: towards the place that
  // the card came from, else downwards, else upwards. Returns the new ranks.
  function placed(letter, rank) {
    const seats = [null];
    for (const name of letters()) if (ranks[name] && name !== letter) seats[ranks[name]] = name;
    if (seats[rank]) {
      const last = letters().length;
      const free = (step) => {
        for (let seat = rank; seat >= 1 && seat <= last; seat += step) if (!seats[seat]) return seat;
        return 0;
      };
      const upwards = ranks[letter] && ranks[letter] < rank;
      const gap = (upwards ? free(-1) : free(1)) || free(-1);
      const step = Math.sign(gap - rank);
      for (let seat = gap; seat !== rank; seat -= step) seats[seat] = seats[seat - step];
    }
    seats[rank] = letter;
    return Object.fromEntries(letters().map((name) => [name, seats.indexOf(name) > 0 ? seats.indexOf(name) : null]));
  }

  // The last open place fills itself.
  function completed(order) {
    const left = letters().filter((letter) => !order[letter]);
    if (left.length !== 1) return order;
    const taken = Object.values(order);
    return { ...order, [left[0]]: letters().map((_, seat) => seat + 1).find((rank) => !taken.includes(rank)) };
  }

  function rank(letter, to) {
    const before = ranks;
    ranks = completed(placed(letter, to));
    show();
    const others = letters().filter((name) => name !== letter && before[name] !== ranks[name]);
    const news = [letter, ...others].map((name) => (ranks[name] ? `${name} is ${ranks[name]}` : `${name} is open`));
    say(`${news.join(", ")}. ${open().length ? `${open().length} to go.` : "Enter submits."}`);
    trouble("");
  }

  function clear(letter) {
    if (!ranks[letter]) return;
    ranks = { ...ranks, [letter]: null };
    show();
    say(`${letter} is open.`);
  }

  function show() {
    for (const name of letters()) {
      const shown = card(name);
      for (const radio of shown.querySelectorAll("input[type=radio]")) radio.checked = +radio.value === ranks[name];
      shown.querySelector(".mark b").textContent = ranks[name] || "·";
      if (ranks[name]) shown.dataset.rank = ranks[name];
      else delete shown.dataset.rank;
      one(`.tray [data-letter="${name}"]`).classList.toggle("placed", !!ranks[name]);
    }
    list(ranks);
    const button = one(".go");
    const missing = open().length;
    button.disabled = missing > 0;
    button.querySelector("span").textContent = !missing ? "Submit and go on"
      : missing === letters().length ? `Rank all ${missing} to go on` : `${missing} more to rank`;
  }

  // The rows of the rail hold `order`, which while one drags is the order as it would be.
  function list(order) {
    for (const row of all(".slots li")) {
      const name = letters().find((letter) => order[letter] === +row.dataset.rank);
      if (name) row.dataset.letter = name;
      else delete row.dataset.letter;
      row.querySelector("em").textContent = name || "";
      row.querySelector("span").textContent = name ? card(name).querySelector(".say").textContent : "open";
    }
  }

  // ---- focus

  const inFocus = () => document.activeElement?.closest?.("#quintet .card")?.dataset.letter;

  function focusOn(letter) {
    card(letter).focus({ preventScroll: true });
    card(letter).scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const names = letters();
    const here = names.indexOf(inFocus());
    focusOn(names[here < 0 ? (by > 0 ? 0 : names.length - 1) : Math.min(Math.max(here + by, 0), names.length - 1)]);
  }

  function nextOpen(after) {
    const names = letters();
    const from = names.indexOf(after);
    return [...names.slice(from + 1), ...names.slice(0, from)].find((name) => !ranks[name]);
  }

  function submit() {
    if (busy) return;
    if (open().length) {
      const words = `${open().length === 1 ? "One rollout has" : `${open().length} rollouts have`} no rank yet.`;
      trouble(words);
      say(words);
      focusOn(open()[0]);
    } else form().requestSubmit();
  }

  // ---- keys: by their place on the board, so that an input method or another layout changes nothing

  function digit(event) {
    const found = /^(?:Digit|Numpad)([0-9])$/.exec(event.code) || /^([0-9])$/.exec(event.key);
    return found ? +found[1] : null;
  }

  function acts(target) {
    return target.closest("button, a, summary, select, textarea, input:not([type=radio]), [contenteditable]");
  }

  document.addEventListener("keydown", (event) => {
    const sheet = document.getElementById("keys");
    if (event.ctrlKey || event.altKey || event.metaKey || (event.repeat && !event.code.startsWith("Arrow"))) return;
    if (event.key === "?" || (event.code === "Slash" && event.shiftKey)) {
      event.preventDefault();
      if (sheet.open) sheet.close();
      else sheet.showModal();
    } else if (form() && !sheet.open && onKey(event)) event.preventDefault();
  });

  // Whether the key was ours.
  function onKey(event) {
    if (event.key === "Escape" && drag) return drop(false);
    const number = digit(event);
    const letter = inFocus() || open()[0] || letters()[0];
    if (number >= 1 && number <= letters().length) {
      rank(letter, number);
      focusOn(nextOpen(letter) || letter);
    } else if (number === 0 || event.key === "Backspace" || event.key === "Delete") {
      if (!inFocus()) return false;
      clear(letter);
    } else if (event.code === "ArrowDown" || event.code === "ArrowUp") {
      if (!inFocus() && document.activeElement !== document.body) return false;
      step(event.code === "ArrowDown" ? 1 : -1);
    } else if (event.code === "ArrowRight" || event.code === "ArrowLeft") {
      // On a rank button these choose another rank, as in any group of radio buttons.
      if (!document.activeElement.matches(".card")) return false;
      step(event.code === "ArrowRight" ? 1 : -1);
    } else if (event.key === "Enter" || event.code === "NumpadEnter") {
      if (acts(event.target)) return false;
      submit();
    } else return false;
    return true;
  }

  // ---- buttons

  document.addEventListener("change", (event) => {
    if (event.target.matches("#quintet .pick input")) {
      rank(event.target.closest(".card").dataset.letter, +event.target.value);
    }
  });

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens).showModal();
    else if (event.target.id === "keys") event.target.close(); // its backdrop
  });

  // ---- dragging in the rail: mouse, pen and finger alike

  function rowAt(x, y) {
    const near = (box) => x > box.left - 24 && x < box.right + 24 && y > box.top - 12 && y < box.bottom + 12;
    const distance = (row) => {
      const box = row.getBoundingClientRect();
      return Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
    };
    if (!near(one(".slots").getBoundingClientRect())) return null;
    return all(".slots li").sort((a, b) => distance(a) - distance(b))[0];
  }

  document.addEventListener("pointerdown", (event) => {
    const from = event.target.closest(".slots [data-letter], .tray [data-letter]");
    if (!from || !form() || event.button || drag) return;
    event.preventDefault();
    drag = { letter: from.dataset.letter, x: event.clientX, y: event.clientY, id: event.pointerId, to: null };
    one(".rail").setPointerCapture(event.pointerId);
  });

  document.addEventListener("pointermove", (event) => {
    if (!drag || event.pointerId !== drag.id) return;
    if (!drag.ghost) {
      if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 5) return;
      drag.ghost = document.createElement("div");
      drag.ghost.className = "ghost";
      drag.ghost.append(document.createElement("b"), card(drag.letter).querySelector(".say").textContent);
      drag.ghost.firstChild.textContent = drag.letter;
      document.body.append(drag.ghost);
      document.documentElement.classList.add("dragging");
    }
    const left = Math.min(event.clientX + 12, document.documentElement.clientWidth - drag.ghost.offsetWidth - 8);
    drag.ghost.style.transform = `translate(${left}px, ${event.clientY - 20}px)`;
    const row = rowAt(event.clientX, event.clientY);
    drag.to = row ? +row.dataset.rank : null;
    for (const each of all(".slots li")) each.classList.toggle("over", each === row);
    list(row ? placed(drag.letter, drag.to) : ranks);
  });

  document.addEventListener("pointerup", (event) => { if (drag?.id === event.pointerId) drop(true); });
  document.addEventListener("pointercancel", (event) => { if (drag?.id === event.pointerId) drop(false); });

  function drop(keep) {
    const { letter, ghost, to } = drag;
    drag = null;
    ghost?.remove();
    document.documentElement.classList.remove("dragging");
    if (!form()) return true;
    for (const each of all(".slots li")) each.classList.remove("over");
    if (keep && ghost && to) rank(letter, to);
    else {
      list(ranks);
      if (keep && !ghost) focusOn(letter); // it was a click: show the card
    }
    return true;
  }

  // ---- to and from the server

  function begin(arrived) {
    renewed = Date.now();
    if (!form()) return;
    ranks = {};
    for (const shown of all(".card")) {
      const chosen = +shown.querySelector("input:checked")?.value || null;
      ranks[shown.dataset.letter] = Object.values(ranks).includes(chosen) ? null : chosen;
    }
    show();
    if (arrived && open().length === letters().length) {
      window.scrollTo(0, 0);
      say(`Next prompt: ${one(".asked").textContent.replace(/\s+/g, " ").trim()}`);
    }
    focusOn(open()[0] || letters()[0]);
  }

  document.addEventListener("htmx:load", (event) => {
    if (event.detail.elt.id !== "quintet") return;
    busy = false;
    if (form()) begin(true);
    else event.detail.elt.querySelector("h2")?.focus();
  });

  document.addEventListener("htmx:beforeRequest", (event) => {
    const poll = event.detail.requestConfig.verb === "get";
    if ((poll && document.hidden) || (!poll && busy)) event.preventDefault();
    else if (!poll) busy = true;
  });

  document.addEventListener("htmx:afterRequest", () => { busy = false; });

  // A request that ended on another page was led there to sign in.
  const ledAway = (xhr) => !new URL(xhr.responseURL, location.href).pathname.startsWith("/rank/");

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if (ledAway(xhr)) {
      event.detail.shouldSwap = false;
      if (form()) trouble("You are signed out, so this order is not kept yet. Sign in in another tab, then come back.");
      else location.assign(xhr.responseURL);
    } else if (xhr.status === 422 || xhr.status === 409) {
      event.detail.shouldSwap = true; // the answer says in words what was wrong
      event.detail.isError = false;
    }
  });

  const keptHere = "Your order is kept here: try again.";
  document.addEventListener("htmx:sendError", () => form() && trouble(`The server cannot be reached. ${keptHere}`));
  document.addEventListener("htmx:responseError", (event) => {
    if (form() && !ledAway(event.detail.xhr)) trouble(`The server answered with an error (${event.detail.xhr.status}). ${keptHere}`);
  });

  for (const use of ["keydown", "pointerdown", "scroll"]) {
    document.addEventListener(use, () => {
      if (!form() || Date.now() - renewed < LONG_ENOUGH) return;
      renewed = Date.now();
      const token = one("[name=csrfmiddlewaretoken]").value;
      fetch(form().dataset.hold, { method: "POST", headers: { "X-CSRFToken": token } }).catch(() => { renewed = 0; });
    }, { passive: true });
  }

  // The guidelines stand open where there is room beside the cards; on a phone they wait behind their title.
  const guide = document.getElementById("guidelines");
  if (guide && matchMedia("(min-width: 761px)").matches) guide.open = true;
  begin(false);
})();
