// A file that is too large is refused before it has travelled. The server refuses it as well.
"use strict";
for (const form of document.querySelectorAll("form[data-largest]")) {
  const file = form.querySelector("input[type=file]"), words = form.querySelector("#too-large");
  const isTooLarge = () => [...file.files].some((each) => each.size > Number(form.dataset.largest));
  file.addEventListener("change", () => { words.hidden = !isTooLarge(); });
  form.addEventListener("submit", (event) => { if (isTooLarge()) event.preventDefault(); });
}
