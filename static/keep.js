// What somebody did is kept: in this browser at once, on the server soon after. A ranking or an answer that is sent
// waits here until the server has answered, however long that takes, and goes through once, because its ticket stays the
// same. The time spent is measured here, and the lease renewed while the page is in use. What there is to be done: `Desk`,
// which is rank.js on the ranking page and write.js where demonstrations are written.
"use strict";

(() => {
  const { page, form, one, all, say, trouble, show, begin, store, words: told } = Desk;
  const SETTLES = 2_000; // after the last change, until the draft goes to the server
  const LONG_ENOUGH = 5 * 60_000; // the lease is half an hour: renewing it now and then is plenty
  const IDLE = 60_000; // who has not moved for a minute is not looking
  const PATIENCE = 20_000; // for an answer
  const SLOWEST = 60_000; // between two tries to send
  const LEAST = 60_000; // bytes
  let busy = false;
  let renewed = Date.now();
  let tries = 0;
  let again = null; // the next try
  let settling = null; // the draft that is about to go to the server

  const cookie = () => /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie)?.[1];
  const token = () => cookie() || JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];

  function send(url, body) {
    const headers = { "X-CSRFToken": token(), "HX-Request": "true" };
    const sent = new URLSearchParams(body);
    // A browser lets no more than this outlive its page.
    const keepalive = sent.toString().length < LEAST;
    return fetch(url, { method: "POST", body: sent, keepalive, headers });
  }

  // ---- in this browser, for this person and project: the draft of what is shown, and by their keys the rankings that
  // were sent and not answered. Each is gone once the server has it.

  const slot = (name) => `quintet.${name}.${page().dataset.owner}`;
  const read = (name) => JSON.parse(store.get(slot(name))) || {};
  const keep = (name, value) => store.set(slot(name), JSON.stringify(value));
  const unsent = () => read("unsent");

  function forget(key) {
    const { [key]: _, ...others } = unsent();
    keep("unsent", others);
    if (read("draft").key === key) keep("draft", {});
  }

  function filled() {
    time.tick();
    one("[name=focus_seconds]").value = (time.spent / 1000).toFixed(1);
    const body = new URLSearchParams(new FormData(form()));
    body.delete("csrfmiddlewaretoken");
    return body.toString();
  }

  const known = () => ({ key: form().dataset.key, at: Date.now(), url: form().action, body: filled() });

  document.addEventListener("desk:touched", () => {
    recall();
    keep("draft", known());
    clearTimeout(settling);
    settling = setTimeout(settle, SETTLES);
  });

  // A lost draft is no trouble: this browser has it, and the next change tries again.
  function settle() {
    clearTimeout(settling);
    settling = null;
    if (!form()?.dataset.draft) return;
    const kept = (answer) => { if (answer.ok) renewed = Date.now(); };
    send(form().dataset.draft, `${filled()}&at=${Date.now()}`).then(kept, () => {});
  }

  document.addEventListener("visibilitychange", () => { if (document.hidden && settling) settle(); });

  // The draft in this browser, where it is newer than what the server knew.
  function restore() {
    const draft = read("draft");
    if (form() && draft.key === form().dataset.key && draft.at > +form().dataset.at) fill(draft.body);
  }

  function fill(body) {
    const values = new URLSearchParams(body);
    for (const input of all("[type=radio], [type=checkbox]")) {
      input.checked = values.getAll(input.name).includes(input.value);
    }
    for (const input of all("textarea, [type=hidden][data-kept]")) input.value = values.get(input.name) || "";
    one("[name=focus_seconds]").value = values.get("focus_seconds") || "0";
  }

  // ---- time with the page in front and somebody at it

  const time = { spent: 0, since: Date.now(), active: Date.now() };
  time.count = () => {
    time.spent += Math.max(0, Math.min(Date.now(), time.active + IDLE) - time.since);
    time.since = Date.now();
  };
  time.tick = () => {
    if (!document.hidden) time.count();
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) time.count(); // by now it is hidden: up to now it was not
    else time.since = time.active = Date.now();
  });
  for (const use of ["keydown", "pointerdown", "pointermove", "scroll", "wheel"]) {
    document.addEventListener(use, () => {
      if (Date.now() - time.active > IDLE) {
        time.tick();
        time.since = Date.now();
      }
      time.active = Date.now();
      if (form()?.dataset.hold && Date.now() - renewed > LONG_ENOUGH) {
        renewed = Date.now();
        send(form().dataset.hold).catch(() => { renewed = 0; });
      }
    }, { passive: true, capture: true });
  }

  // ---- sending

  function later(words) {
    tries += 1;
    clearTimeout(again);
    again = setTimeout(retry, Math.min(SLOWEST, 2_000 * 2 ** Math.min(tries, 5)));
    trouble(words);
    say(words);
    one(".go span").textContent = "Waiting to send";
  }

  // Who changes something does not want the old order sent.
  function recall() {
    if (again) {
      clearTimeout(again);
      again = null;
      show();
    }
    forget(form().dataset.key);
  }

  function retry() {
    clearTimeout(again);
    again = null;
    deliver();
  }

  window.addEventListener("online", () => { if (again) retry(); });

  // What was sent and never heard of: what is shown now goes the usual way, all else by itself.
  async function deliver() {
    let sent = 0;
    for (const [key, { url, body }] of Object.entries(unsent())) {
      if (form()?.dataset.key === key) continue;
      const answer = await send(url, body).catch(() => null);
      if (!answer || answer.status >= 500) again ||= setTimeout(retry, SLOWEST);
      else if (!ledAway(answer.url)) {
        forget(key);
        sent += 1;
      }
    }
    const shown = unsent()[form()?.dataset.key];
    if (shown) {
      fill(shown.body);
      begin(false);
      form().requestSubmit();
    } else if (sent && form()) trouble(told.sent);
    else if (sent) location.reload();
  }

  // A request that ended on another page was led there to sign in.
  const here = `/${location.pathname.split("/")[1]}/`;
  const ledAway = (url) => !new URL(url, location.href).pathname.startsWith(here);

  document.addEventListener("htmx:configRequest", (event) => {
    // Who signed in again in another tab has another token there: the cookie has the newest.
    event.detail.headers["X-CSRFToken"] = token();
    if (event.detail.verb !== "get") event.detail.parameters.csrfmiddlewaretoken = token();
    event.detail.timeout = PATIENCE;
    if (event.detail.elt !== form()) return;
    filled();
    event.detail.parameters.focus_seconds = one("[name=focus_seconds]").value;
  });

  document.addEventListener("htmx:beforeRequest", (event) => {
    const poll = event.detail.requestConfig.verb === "get";
    if ((poll && document.hidden) || (!poll && busy)) event.preventDefault();
    else if (!poll) {
      busy = true;
      clearTimeout(settling);
      if (event.detail.elt === form()) keep("unsent", { ...unsent(), [form().dataset.key]: known() });
    }
  });

  document.addEventListener("htmx:afterRequest", () => { busy = false; });

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if (ledAway(xhr.responseURL)) {
      event.detail.shouldSwap = false;
      if (!form()) location.assign(xhr.responseURL);
      else trouble(`You are signed out. ${told.kept} in this browser: sign in in another tab, then submit here.`);
      return;
    }
    if (xhr.status === 422 || xhr.status === 409) {
      event.detail.shouldSwap = true; // the answer says in words what was wrong
      event.detail.isError = false;
    }
    if (event.detail.shouldSwap) settled();
  });

  // A changed ranking is answered with the way to another page.
  document.addEventListener("htmx:beforeOnLoad", (event) => {
    if (event.detail.xhr.getResponseHeader("HX-Redirect")) settled();
  });

  // The server has answered: nothing of what is shown waits here any more.
  function settled() {
    if (!form()) return;
    clearTimeout(again);
    again = null;
    tries = 0;
    forget(form().dataset.key);
  }

  const kept = `${told.kept} in this browser and goes out by itself, once.`;
  for (const lost of ["htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(lost, (event) => {
      busy = false;
      if (form() && event.detail.elt === form()) later(`The server cannot be reached. ${kept}`);
      else if (form()) trouble("The server cannot be reached. Try again.");
    });
  }
  document.addEventListener("htmx:responseError", (event) => {
    const { xhr, elt } = event.detail;
    if (!form() || ledAway(xhr.responseURL)) return;
    if (xhr.status >= 500 && elt === form()) later(`The server answered with an error (${xhr.status}). ${kept}`);
    else if (xhr.status === 403) trouble(`This page is out of date. Reload it: ${told.kept.toLowerCase()}.`);
    else trouble(`The server answered with an error (${xhr.status}). ${told.kept}: try again.`);
  });

  // ---- a page begins

  function start(arrived) {
    busy = false;
    renewed = Date.now();
    restore();
    if (form()) {
      time.tick();
      time.spent = 1000 * one("[name=focus_seconds]").value || 0;
    }
    begin(arrived);
  }

  document.addEventListener("htmx:load", (event) => {
    if (event.detail.elt !== page()) return;
    start(true);
    if (!form()) page().querySelector("[data-heading]")?.focus();
  });

  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  start(false);
  deliver();
})();
