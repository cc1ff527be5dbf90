// A button with data-copy="id" copies what the field of that id holds. Without it one copies by hand.
for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  button.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      // Browsers keep the clipboard from pages without TLS; this older way still works there.
      if (!document.execCommand("copy")) return;
    }
    button.textContent = "Copied";
  });
}
