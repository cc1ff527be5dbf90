// Ranking by keyboard and by buttons. The radio buttons and boxes of the form are the truth: the order in the rail
// (rank-order.js) is read from them and written to them, and without these files they are all there is. Every listener
// sits on the document, so a quintet that is swapped in needs no wiring. What is kept, sent and timed: keep.js.
"use strict";

const Desk = (() => {
  const page = () => document.getElementById("quintet");
  const form = () => document.querySelector("#quintet form.desk");
  const all = (selector) => [...form().querySelectorAll(selector)];
  const one = (selector) => form().querySelector(selector);
  const card = (letter) => one(`.card[data-letter="${letter}"]`);
  const say = (words) => { document.getElementById("said").textContent = words; };
  const trouble = (words) => { one("#trouble").textContent = words; };
  const dialog = (id) => document.getElementById(id);
  const words = (letter) => card(letter).querySelector(".say").textContent.trim().slice(0, 120);
  let latest = ""; // the letter ranked last: an open card that is tied is tied to it

  const { store } = Guide;

  // ---- ranks

  function take(letter, order) {
    if (!order) return;
    const moved = Order.take(order);
    latest = letter;
    show();
    const news = [letter, ...moved.filter((name) => name !== letter)].map((name) => `${name} is ${where(name)}`);
    const left = Order.open().length;
    say(`${news.join(", ")}. ${left ? `${left} to go.` : "Enter submits."}`);
    touched();
  }

  function where(letter) {
    const beside = Order.beside(letter);
    return `${Order.rank(letter) || "open"}${beside.length ? `, tied with ${beside.join(" and ")}` : ""}`;
  }

  function clear(letter) {
    if (!Order.rank(letter)) return;
    Order.clear(letter);
    show();
    say(`${letter} is open.`);
    touched();
  }

  // A rank given to one card may move others: where they all stand is drawn from the order.
  function show() {
    for (const letter of Order.letters) {
      const shown = card(letter);
      const rank = Order.rank(letter);
      for (const radio of shown.querySelectorAll(".pick input")) radio.checked = +radio.value === rank;
      shown.querySelector(".mark b").textContent = rank || "·";
      shown.querySelector("legend span").textContent = `, ${rank ? "rank " : ""}${where(letter)}`;
      if (rank) shown.dataset.rank = rank;
      else delete shown.dataset.rank;
    }
    for (const radio of all("[name=acceptable]")) radio.checked = radio.value === String(Order.acceptable() ?? "");
    const button = one(".go");
    const missing = Order.open().length;
    button.disabled = missing > 0;
    button.querySelector("span").textContent = !missing ? button.dataset.says
      : missing === Order.letters.length && missing > 1 ? `Rank all ${missing} to go on` : `${missing} more to rank`;
  }

  function touched() {
    trouble("");
    document.dispatchEvent(new CustomEvent("desk:touched"));
  }

  // ---- marks, and the line under what is acceptable

  function flag(letter, name) {
    const box = card(letter).querySelector(`[name=${name}]`);
    box.checked = !box.checked;
    flagged(letter, name, box.checked);
  }

  function flagged(letter, name, on) {
    say(`${letter} is ${on ? "marked" : "no longer marked"} as ${name}.`);
    touched();
  }

  function acceptable(to) {
    Order.acceptable(to);
    show();
    say(to === null ? "Nothing is said about what is acceptable."
      : to === 0 ? "None is acceptable." : `Acceptable down to rank ${to}.`);
    touched();
  }

  // Under the card in focus; above it where the line lies there already.
  function lineAt(letter) {
    const rank = Order.rank(letter);
    if (!rank) say(`${letter} has no rank yet: rank it first.`);
    else acceptable(Order.acceptable() === rank ? rank - 1 : rank);
  }

  // ---- focus

  const inFocus = () => document.activeElement?.closest?.("#quintet .card")?.dataset.letter;

  function focusOn(letter) {
    card(letter).focus({ preventScroll: true });
    card(letter).scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const names = Order.letters;
    const here = names.indexOf(inFocus());
    focusOn(names[here < 0 ? (by > 0 ? 0 : names.length - 1) : Math.min(Math.max(here + by, 0), names.length - 1)]);
  }

  // Gives the card its rank, then on to the next open one. Where the last place filled itself, to the card that it
  // took: a hand that presses a key for every card presses the last one there, and moves nothing.
  function takeAndGoOn(letter, order) {
    const names = Order.letters;
    const from = names.indexOf(letter);
    const others = [...names.slice(from + 1), ...names.slice(0, from)].filter((name) => !Order.rank(name));
    take(letter, order);
    focusOn(others.find((name) => !Order.rank(name)) || others[0] || letter);
  }

  function submit() {
    const missing = Order.open();
    if (missing.length) {
      const said = `${missing.length === 1 ? "One rollout has" : `${missing.length} rollouts have`} no rank yet.`;
      trouble(said);
      say(said);
      focusOn(missing[0]);
    } else form().requestSubmit();
  }

  // What reaches over the edge of a card or of the prompt can be scrolled by keys as well.
  function scroll(letter, event) {
    const text = card(letter).querySelector(".say");
    if (text.scrollHeight <= text.clientHeight) return false;
    const up = event.code === "PageUp" || event.shiftKey;
    text.scrollBy({ top: (up ? -.85 : .85) * text.clientHeight });
    return true;
  }

  // ---- keys: digits by their place on the board, so that an input method or another layout changes nothing; letters
  // by what is written on them, and by their place only where an input method swallows that

  function digit(event) {
    const found = /^(?:Digit|Numpad)([0-9])$/.exec(event.code) || /^([0-9])$/.exec(event.key);
    return found ? +found[1] : null;
  }

  function letterKey(event) {
    if (/^[a-z]$/i.test(event.key)) return event.key.toLowerCase();
    return /^Key([A-Z])$/.exec(event.code)?.[1].toLowerCase();
  }

  const single = () => store.get("quintet.keys") !== "off";
  const writes = (target) => target.closest("textarea, input:not([type=radio], [type=checkbox])");
  const acts = (target) => writes(target) || target.closest("button, a, summary");

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || writes(event.target)) return;
    if (event.repeat && !/^(Arrow|Page|Space)/.test(event.code)) return;
    const open = document.querySelector("dialog[open]");
    if (open) {
      if (open.id === "skip" && digit(event)) reason(digit(event));
      else if (!(event.key === "?" && open.id === "keys" && single())) return;
      else open.close();
    } else if (event.key === "Escape") {
      if (!Order.drop(false)) return;
    } else if (!onKey(event)) return;
    event.preventDefault();
  });

  // Whether the key was ours.
  function onKey(event) {
    if (event.key === "Enter" || event.code === "NumpadEnter") return onEnter(event);
    if (single() && (event.key === "?" || (event.code === "Slash" && event.shiftKey))) dialog("keys").showModal();
    else if (single() && letterKey(event) === "g") Guide.toggle();
    else if (single() && letterKey(event) === "z") document.querySelector("button[form=undo]")?.click();
    else if (!form()) return false;
    else if (single() && letterKey(event) === "s" && dialog("skip")) openSkip();
    else return onCard(event, inFocus() || Order.open()[0] || Order.letters[0]);
    return true;
  }

  function onEnter(event) {
    if (acts(event.target)) return false;
    if (form()) submit();
    else document.querySelector("#quintet [data-next]")?.click();
    return true;
  }

  function onCard(event, letter) {
    const number = digit(event);
    const name = { n: "nonsense", u: "unsafe" }[letterKey(event)];
    const arrow = /^Arrow(Up|Left|Down|Right)$/.exec(event.code)?.[1];
    const by = arrow === "Up" || arrow === "Left" ? -1 : 1;
    if (arrow) return onArrow(event, arrow, by, letter);
    if (/^(PageUp|PageDown|Space)$/.test(event.code)) {
      return !!inFocus() && !acts(event.target) && !event.target.matches("input") && scroll(letter, event);
    }
    if (event.key === "Backspace" || event.key === "Delete") clear(letter);
    else if (!single()) return false;
    else if (Order.ties && (event.key === "=" || /^(Equal|NumpadEqual)$/.test(event.code))) {
      takeAndGoOn(letter, Order.tied(letter, latest));
    } else if (number >= 1 && number <= Order.letters.length) {
      takeAndGoOn(letter, Order.put(letter, number));
    } else if (number === 0) clear(letter);
    else if (name && card(letter).querySelector(`[name=${name}]`)) flag(letter, name);
    else if (letterKey(event) === "a" && one(".line")) lineAt(letter);
    else return false;
    return true;
  }

  function onArrow(event, arrow, by, letter) {
    const upDown = arrow === "Up" || arrow === "Down";
    if (event.shiftKey && upDown && inFocus()) take(letter, Order.stepped(letter, by));
    // On a rank button left and right choose another rank, as in any group of radio buttons.
    else if (upDown ? inFocus() || document.activeElement === document.body : document.activeElement.matches(".card")) step(by);
    else return false;
    return true;
  }

  // ---- buttons

  document.addEventListener("change", (event) => {
    const { target } = event;
    const letter = target.closest("#quintet .card")?.dataset.letter;
    if (letter && target.type === "radio") take(letter, Order.put(letter, +target.value));
    else if (letter) flagged(letter, target.name, target.checked);
    else if (target.matches("#quintet [name=acceptable]")) acceptable(target.value === "" ? null : +target.value);
    else if (target.id === "single-keys") store.set("quintet.keys", target.checked ? "on" : "off");
  });

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener?.dataset.opens === "skip") openSkip();
    else if (opener) dialog(opener.dataset.opens).showModal();
    else if (event.target.closest("[data-closes], dialog") === event.target) event.target.closest("dialog").close();
  });

  // ---- the dialogs

  function openSkip() {
    dialog("skip").showModal();
    dialog("skip").querySelector("input[type=radio]").focus();
  }

  function reason(number) {
    const radio = dialog("skip").querySelectorAll("input[type=radio]")[number - 1];
    if (radio) {
      radio.checked = true;
      radio.focus();
    }
  }

  // ---- a quintet begins

  function begin(arrived) {
    Guide.begin();
    if (!form()) return;
    const chosen = (shown) => +shown.querySelector(".pick input:checked")?.value || null;
    const line = one("[name=acceptable]:checked")?.value;
    Order.begin({
      ranks: Object.fromEntries(all(".card").map((shown) => [shown.dataset.letter, chosen(shown)])),
      tied: "ties" in form().dataset,
      line: line ? +line : null,
      text: words,
      onchange: dragged,
    });
    latest = "";
    show();
    reachable();
    if (arrived && Order.open().length === Order.letters.length) {
      window.scrollTo(0, 0);
      const asked = one(".asked").textContent.replace(/\s+/g, " ").trim();
      say(`Next prompt: ${asked.slice(0, 300)}`);
    }
    focusOn(Order.open()[0] || Order.letters[0]);
  }

  function dragged(letter, order, line) {
    if (line !== undefined) acceptable(line);
    else if (order) take(letter, order);
    else focusOn(letter); // a click on its row: show the card
  }

  // What scrolls in itself takes the focus, so that a keyboard can scroll it; and nothing in focus hides behind the
  // prompt that stays or the bar at the bottom.
  function reachable() {
    for (const text of all(".words .say, .asked")) {
      if (text.scrollHeight <= text.clientHeight + 1) continue;
      text.classList.add("long");
      text.tabIndex = 0;
    }
    const asked = one(".asked");
    const stays = getComputedStyle(asked).position === "sticky" ? asked.offsetHeight : 0;
    document.documentElement.style.setProperty("--hidden-above", `${stays + 12}px`);
  }

  document.getElementById("single-keys").checked = single();
  const said = { kept: "Your order is kept", sent: "The ranking that waited in this browser is sent now." };
  return { page, form, one, all, say, trouble, show, begin, store, words: said };
})();
