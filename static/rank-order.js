// The order that grows in the rail: seats from best to worst, each with the letters that share it. How a card is put,
// moved or tied, how the rows show it, and dragging it there. Knows nothing of the form, the keys or the server:
// rank.js asks it, and is told by `onchange` what a hand did here. Leaves out: marks, and what is kept where.
"use strict";

const Order = (() => {
  let letters = []; // the cards, from top to bottom
  let ties = false;
  let seats = []; // seats[0] is best; a seat without letters is a rank that nobody has yet
  let line = null; // acceptable down to this rank; 0: none is; null: not said
  let excerpt = () => "";
  let changed = () => {};
  let drag = null;

  const root = () => document.querySelector("#quintet .order");
  const rows = () => [...root().querySelectorAll(".slots li")];
  const taken = (all = seats) => all.filter((seat) => seat.length);
  const seatOf = (letter, all = seats) => all.findIndex((seat) => seat.includes(letter));
  const rank = (letter) => seatOf(letter) + 1 || null;
  const open = () => letters.filter((letter) => !rank(letter));
  const copy = () => seats.map((seat) => [...seat]);
  const without = (letter) => seats.map((seat) => seat.filter((name) => name !== letter));

  // ---- what can be done to an order: each gives new seats and leaves the old ones alone

  // On a rank of its own. Who stands there moves one along, and so on up to the nearest gap: towards the place that
  // the card came from, else downwards, else upwards.
  function placed(letter, to) {
    const next = without(letter);
    if (next[to - 1].length) {
      const gap = (step) => {
        let seat = to - 1;
        while (next[seat]?.length) seat += step;
        return next[seat] ? seat : -1;
      };
      const towards = rank(letter) && rank(letter) < to ? -1 : 1;
      const found = gap(towards) >= 0 ? gap(towards) : gap(-towards);
      const step = Math.sign(found - (to - 1));
      for (let seat = found; seat !== to - 1; seat -= step) next[seat] = next[seat - step];
    }
    next[to - 1] = [letter];
    return next;
  }

  // Beside whoever has that rank already.
  function shared(letter, to) {
    const next = without(letter);
    next[to - 1] = letters.filter((name) => name === letter || next[to - 1].includes(name));
    return next;
  }

  // Alone, between what stands before the seat `at` and what stands there.
  function between(letter, at) {
    const next = without(letter);
    next.splice(at, 0, [letter]);
    const spare = next.findLastIndex((seat, index) => !seat.length && index >= at);
    next.splice(spare >= 0 ? spare : next.findLastIndex((seat) => !seat.length), 1);
    return next;
  }

  // One half step: from a rank of its own into the next one, from a shared rank to one of its own beside it. Without
  // ties the two change places.
  function stepped(letter, by) {
    const at = seatOf(letter);
    if (at < 0) return null;
    if (!ties) return letters.length > at + by && at + by >= 0 ? placed(letter, at + 1 + by) : null;
    if (seats[at].length > 1) return between(letter, by < 0 ? at : at + 1);
    for (let seat = at + by; seat >= 0 && seat < seats.length; seat += by) {
      if (seats[seat].length) return shared(letter, seat + 1);
    }
    return null;
  }

  // The card shares the rank of the one above it in the order, if it does not do so yet; an open card that of the one
  // ranked last.
  function tied(letter, last) {
    const shown = lines(seats);
    const above = rank(letter) ? shown.slice(0, shown.findIndex((row) => row.letter === letter)) : [];
    const other = rank(letter) ? above.findLast((row) => row.letter)?.letter : last;
    return rank(other) && rank(other) !== rank(letter) ? shared(letter, rank(other)) : null;
  }

  // Without ties the last open place fills itself. With ties nobody knows where the last card belongs, but once
  // it is ranked the ranks close up.
  function settled(next) {
    const left = letters.filter((name) => seatOf(name, next) < 0);
    if (!ties && left.length === 1) next[next.findIndex((seat) => !seat.length)] = left;
    if (left.length || !ties) return next;
    if (line) line = taken(next.slice(0, line)).length;
    return [...taken(next), ...Array.from({ length: letters.length - taken(next).length }, () => [])];
  }

  // ---- how it looks: a row for each card, whoever shares a rank one under the other

  function lines(order) {
    const shown = order.flatMap((seat, index) =>
      (seat.length ? seat : [null]).map((letter, nth) => ({ rank: index + 1, letter, joined: nth > 0 })));
    while (shown.length > letters.length) shown.splice(shown.findLastIndex((row) => !row.letter), 1);
    return shown;
  }

  function draw(order = seats) {
    if (!root()) return;
    const shown = lines(order);
    rows().forEach((row, index) => {
      const { rank: number, letter, joined } = shown[index];
      row.dataset.rank = number;
      if (letter) row.dataset.letter = letter;
      else delete row.dataset.letter;
      row.classList.toggle("joined", joined);
      row.querySelector("b").textContent = joined ? "=" : number;
      row.querySelector("em").textContent = letter || "";
      row.querySelector("span").textContent = letter ? excerpt(letter) : "open";
    });
    for (const each of root().querySelectorAll(".tray [data-letter]")) {
      each.classList.toggle("placed", !!rank(each.dataset.letter));
    }
    drawLine(line);
  }

  // The line lies under the last row whose rank is acceptable; as long as nothing was said it waits at the end.
  function drawLine(at) {
    const mark = root().querySelector(".line");
    if (!mark) return;
    const above = rows().filter((row) => at === null || +row.dataset.rank <= at).at(-1);
    mark.classList.toggle("unsaid", at === null);
    mark.style.setProperty("--down", `${above ? above.offsetTop + above.offsetHeight : 0}px`);
    mark.style.setProperty("--along", `${above ? above.offsetLeft + above.offsetWidth : 0}px`);
  }

  // ---- dragging: mouse, pen and finger alike

  const flat = () => rows()[1] && rows()[0].offsetTop === rows()[1].offsetTop;

  function rowAt(x, y) {
    const near = (box) => x > box.left - 24 && x < box.right + 24 && y > box.top - 12 && y < box.bottom + 12;
    const distance = (row) => {
      const box = row.getBoundingClientRect();
      return Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
    };
    if (!near(root().querySelector(".slots").getBoundingClientRect())) return null;
    return rows().sort((a, b) => distance(a) - distance(b))[0];
  }

  // How far into the row, along the order: 0 at its better end, 1 at its worse one.
  function within(row, x, y) {
    const box = row.getBoundingClientRect();
    return flat() ? (x - box.left) / box.width : (y - box.top) / box.height;
  }

  // Where in a row it would go: on it, which ties, or with ties allowed also before it or after it.
  function aim(row, x, y) {
    const part = ties && row.dataset.letter && row.dataset.letter !== drag.letter ? within(row, x, y) : .5;
    return part < .25 ? "before" : part > .75 ? "after" : "on";
  }

  // The order as it would be.
  function dropped(letter, row, where) {
    const to = +row.dataset.rank;
    if (where !== "on") return between(letter, where === "before" ? to - 1 : to);
    return ties ? shared(letter, to) : placed(letter, to);
  }

  document.addEventListener("pointerdown", (event) => {
    if (!root() || event.button || drag) return;
    const from = event.target.closest(".order [data-letter], .order .line");
    if (!from) return;
    event.preventDefault();
    drag = { letter: from.dataset.letter, x: event.clientX, y: event.clientY, id: event.pointerId, row: null };
    root().setPointerCapture(event.pointerId);
  });

  document.addEventListener("pointermove", (event) => {
    if (!drag || event.pointerId !== drag.id || !root()) return;
    const { clientX: x, clientY: y } = event;
    if (!drag.moved) {
      if (Math.hypot(x - drag.x, y - drag.y) < 5) return;
      drag.moved = true;
      document.documentElement.classList.add("dragging");
      if (drag.letter) document.body.append(drag.ghost = ghost(drag.letter));
    }
    drag.row = rowAt(x, y);
    if (drag.letter) {
      const left = Math.min(x + 12, document.documentElement.clientWidth - drag.ghost.offsetWidth - 8);
      drag.ghost.style.transform = `translate(${left}px, ${y - 20}px)`;
      const where = drag.row && aim(drag.row, x, y);
      for (const each of rows()) each.className = each === drag.row ? `over ${where}` : "";
      drag.order = drag.row ? dropped(drag.letter, drag.row, where) : null;
      // Where rows keep their ranks the order is shown as it would be; with ties they would slip away under the hand.
      draw(ties ? seats : drag.order || seats);
    } else if (drag.row) {
      const before = +drag.row.dataset.rank - 1;
      drag.line = within(drag.row, x, y) < .5 ? before : before + 1;
      drawLine(drag.line);
    }
  });

  function ghost(letter) {
    const made = document.createElement("div");
    made.className = "ghost";
    made.append(document.createElement("b"), excerpt(letter));
    made.firstChild.textContent = letter;
    return made;
  }

  // Ends what the hand was dragging; true where there was something.
  function drop(keep) {
    if (!drag) return false;
    const { letter, moved, order, line: to } = drag;
    drag.ghost?.remove();
    drag = null;
    document.documentElement.classList.remove("dragging");
    if (!root()) return true;
    for (const each of rows()) each.className = "";
    if (keep && order) changed(letter, order);
    else if (keep && to !== undefined) changed(null, null, to);
    else {
      draw();
      if (keep && !moved && letter) changed(letter); // it was a click
    }
    return true;
  }

  document.addEventListener("pointerup", (event) => { if (drag?.id === event.pointerId) drop(true); });
  document.addEventListener("pointercancel", (event) => { if (drag?.id === event.pointerId) drop(false); });
  window.addEventListener("resize", () => { if (root() && rows().length === letters.length) draw(); });

  return {
    // `ranks` by letter, in the order of the cards; `text` gives the words of a row. A rank given twice where there
    // are no ties counts once.
    begin({ ranks, tied: allowed, line: at, text, onchange }) {
      letters = Object.keys(ranks);
      [ties, line, excerpt, changed] = [allowed, at, text, onchange];
      seats = letters.map(() => []);
      for (const letter of letters) {
        const seat = seats[ranks[letter] - 1];
        if (seat && (ties || !seat.length)) seat.push(letter);
      }
      draw();
    },
    // Its rank is open again; nothing fills itself, or it would have it back.
    clear(letter) {
      seats = without(letter);
      draw();
    },
    // New seats take the old ones' place; the letters whose rank is another one now.
    take(next) {
      const before = copy();
      seats = settled(next);
      draw();
      return letters.filter((letter) => seatOf(letter, before) !== seatOf(letter));
    },
    acceptable(to) {
      if (to !== undefined) line = to;
      draw();
      return line;
    },
    // Those that share the letter's rank, the letter itself left out.
    beside: (letter) => (rank(letter) ? seats[rank(letter) - 1].filter((name) => name !== letter) : []),
    put: (letter, to) => (ties ? shared(letter, to) : placed(letter, to)),
    rank, open, stepped, tied, drop,
    get letters() { return letters; },
    get ties() { return ties; },
  };
})();
