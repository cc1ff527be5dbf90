/* What is known of each token of a rollout, said under it: of the one under the pointer, or of the one that the arrow keys
   have come to. Without this file the same stands in a browser's own hints. */
"use strict";

(() => {
  const tokens = (text) => [...text.querySelectorAll("span")];

  function tell(text, token) {
    text.querySelector(".on")?.classList.remove("on");
    const says = text.parentElement.querySelector(".says");
    if (!token) return void (says.textContent = "");
    token.classList.add("on");
    const all = tokens(text);
    const place = `token ${all.indexOf(token) + 1} of ${all.length}`;
    says.textContent = `“${token.textContent}” ${token.title} · ${place}, number ${token.dataset.number}`;
  }

  for (const name of ["pointerover", "pointerdown"]) {
    document.addEventListener(name, ({ target }) => {
      if (target instanceof Element && target.matches("[data-says] > span")) tell(target.parentElement, target);
    });
  }

  document.addEventListener("keydown", (event) => {
    const text = event.target;
    if (!(text instanceof Element) || !text.matches("[data-says]")) return;
    const all = tokens(text);
    const now = all.findIndex((each) => each.classList.contains("on"));
    const moves = { ArrowRight: now + 1, ArrowLeft: Math.max(now, 1) - 1, Home: 0, End: all.length - 1 };
    if (event.key === "Escape") return tell(text, null);
    if (!(event.key in moves) || !all.length) return;
    event.preventDefault();
    const token = all[Math.min(moves[event.key], all.length - 1)];
    token.scrollIntoView({ block: "nearest" });
    tell(text, token);
  });

  document.addEventListener("focusout", (event) => event.target.matches?.("[data-says]") && tell(event.target, null));
})();
