// Writing an ideal answer. The form is the truth, and without this file it is all there is: here the field grows, words
// are counted, a rollout is taken as a beginning, and keys do what buttons do. What is kept, sent and timed: keep.js.
"use strict";

const Desk = (() => {
  const page = () => document.getElementById("sheet");
  const form = () => document.querySelector("#sheet form.desk");
  const all = (selector) => [...form().querySelectorAll(selector)];
  const one = (selector) => form().querySelector(selector);
  const field = () => one("[name=completion]");
  const say = (words) => { document.getElementById("said").textContent = words; };
  const trouble = (words) => { one("#trouble").textContent = words; };
  const dialog = (id) => document.getElementById(id);
  const grows = CSS.supports("field-sizing", "content");
  let before = null; // what stood in the field before a rollout was taken

  const { store } = Guide;

  function show() {
    const text = field().value;
    const words = (text.match(/\S+/g) || []).length;
    const characters = [...text].length;
    const many = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
    one("#counts").textContent = `${many(words, "word")} · ${many(characters, "character")}`;
    one(".began").hidden = !one("[name=from]").value;
    one(".had").hidden = before === null;
    if (!grows) {
      const at = window.scrollY;
      field().style.height = "auto";
      field().style.height = `${field().scrollHeight + 2}px`;
      window.scrollTo(0, at);
    }
    const button = one(".go");
    button.querySelector("span").textContent = button.dataset.says;
  }

  function touched() {
    trouble("");
    show();
    document.dispatchEvent(new CustomEvent("desk:touched"));
  }

  document.addEventListener("input", (event) => {
    if (event.target.matches("#sheet [name=completion]")) touched();
  });

  // ---- a rollout as a beginning, and the way back

  function start(button) {
    if (field().value.trim()) before = { text: field().value, from: one("[name=from]").value };
    put(button.closest("li").querySelector(".say").textContent, button.value);
    say("The rollout stands in the field: make it what it should have been.");
  }

  function put(text, from) {
    field().value = text;
    one("[name=from]").value = from;
    touched();
    field().focus();
    field().setSelectionRange(0, 0);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("#sheet [data-start], #sheet [data-had], #sheet [data-afresh]");
    const opener = event.target.closest("[data-opens]");
    if (button) {
      event.preventDefault();
      if ("start" in button.dataset) return start(button);
      const had = "had" in button.dataset ? before : { text: field().value, from: "" };
      if ("had" in button.dataset) before = null;
      put(had.text, had.from);
    } else if (opener) dialog(opener.dataset.opens).showModal();
    else if (event.target.closest("[data-closes], dialog") === event.target) event.target.closest("dialog").close();
  });

  // ---- keys: all of them with Ctrl, ⌘ or Alt, because letters belong to the text

  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.repeat) return;
    const letter = /^Key([A-Z])$/.exec(event.code)?.[1];
    if ((event.ctrlKey || event.metaKey) && (event.key === "Enter" || event.code === "NumpadEnter")) {
      if (!form()) document.querySelector("#sheet [data-next]")?.click();
      else send();
    } else if (!event.altKey || event.ctrlKey || event.metaKey) return;
    else if (letter === "S" && dialog("skip")) dialog("skip").showModal();
    else if (letter === "Z") document.querySelector("button[form=undo]")?.click();
    else if (letter === "G") Guide.toggle();
    else if (event.code === "Slash") dialog("keys").showModal();
    else return;
    event.preventDefault();
  });

  function send() {
    if (field().value.trim()) return form().requestSubmit();
    trouble("Write an answer first: nothing is in the field.");
    say("Write an answer first.");
    field().focus();
  }

  // ---- a prompt begins

  function begin(arrived) {
    Guide.begin();
    if (!form()) return;
    before = null;
    show();
    if (arrived && !field().value) {
      window.scrollTo(0, 0);
      say(`Next prompt: ${one(".asked").textContent.replace(/\s+/g, " ").trim().slice(0, 300)}`);
    }
    // Under a thumb the field would open a keyboard over the prompt that is to be read first.
    if (matchMedia("(pointer: fine)").matches) field().focus({ preventScroll: true });
  }

  const words = { kept: "Your answer is kept", sent: "The answer that waited in this browser is sent now." };
  return { page, form, one, all, say, trouble, show, begin, store, words };
})();
