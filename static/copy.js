// Copies a transcript, one line for each segment and an empty line between sections, or any other text as it is.

function textOf(place) {
  if (!place.matches(".transcript")) return place.textContent.trim();
  const lines = turn => [...turn.querySelectorAll(".segment-text")].map(line => line.textContent.trim()).join("\n");
  return [...place.querySelectorAll(".turn")].map(lines).filter(Boolean).join("\n\n");
}

// Browsers offer navigator.clipboard only on https and localhost; elsewhere the older command still works.
function copyByCommand(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

async function copy(text) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copyByCommand(text);
}

function tick(button) {
  const use = button.querySelector("use");
  use.setAttribute("href", "#check");
  setTimeout(() => use.setAttribute("href", "#copy"), 2000);
}

document.addEventListener("click", async event => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await copy(textOf(document.querySelector(button.dataset.copy)));
  button.focus();
  tick(button);
  document.getElementById("announcement").textContent = button.dataset.done;
});
