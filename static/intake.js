// Uploads files that are chosen or dropped anywhere in the window, a few at once. Each has a row in the list from the
// start; when the server has stored the file, the server's row replaces it.

const AT_ONCE = 3;

const intake = document.getElementById("intake");
const settings = intake?.dataset; // addresses, limits and sentences
const waiting = [];
let underWay = 0;

const numbers = { maximumFractionDigits: 1 };
const units = ["kilobyte", "megabyte", "gigabyte"];

function size(bytes) {
  const power = Math.min(3, Math.max(1, Math.floor(Math.log2(bytes || 1) / 10)));
  return unit(bytes / 1024 ** power, units[power - 1]);
}

function unit(number, name) {
  const whole = number >= 10 ? { maximumFractionDigits: 0 } : numbers;
  return new Intl.NumberFormat(document.documentElement.lang, { style: "unit", unit: name, ...whole }).format(number);
}

function left(seconds) {
  return seconds < 60 ? unit(Math.max(1, Math.round(seconds)), "second") : unit(Math.ceil(seconds / 60), "minute");
}

function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// ---------------------------------------------------------------- a row

function addRow(file) {
  const row = document.getElementById("upload-row").content.cloneNode(true).querySelector(".job");
  row.querySelector(".job-name").textContent = file.name;
  row.querySelector(".length").textContent = size(file.size);
  row.querySelector(".model dd").textContent = intake.elements.model.value;
  row.querySelector(".when").textContent = new Date().toTimeString().slice(0, 5);
  row.querySelector(".job-acts button").setAttribute("aria-label", fill(settings.stop, file));
  document.getElementById("empty")?.remove();
  const now = document.getElementById("now");
  now.hidden = false;
  now.querySelector(".jobs").prepend(row);
  return row;
}

function show(row, doing, share = 0, rest = "") {
  row.querySelector(".job-doing").textContent = doing;
  row.querySelector("progress").value = 100 * share;
  row.querySelector(".rest").textContent = rest;
}

function removeRow(row) {
  row.remove();
  const now = document.getElementById("now");
  now.hidden = !now.querySelector(".job");
}

function showFailure(row, file, reason) {
  const why = document.getElementById("upload-failed").content.cloneNode(true);
  why.querySelector("span").textContent = reason;
  row.className = "job is-failed";
  row.querySelector(".job-mark use").setAttribute("href", "#failed");
  row.querySelector(".job-body").classList.add("job-fail");
  row.querySelector(".job-body").replaceChildren(why);
  const button = row.querySelector(".job-acts button");
  button.setAttribute("aria-label", fill(settings.dismiss, file));
  button.onclick = () => removeRow(row);
  document.getElementById("announcement").textContent = `${file.name}: ${reason}`;
}

// ---------------------------------------------------------------- an upload

function enqueue(file) {
  const row = addRow(file);
  if (file.size > Number(settings.most)) return showFailure(row, file, settings.tooLarge);
  const upload = { file, row, form: formFor(file) };
  row.querySelector(".job-acts button").onclick = () => stop(upload);
  show(row, settings.waiting);
  waiting.push(upload);
  startNext();
}

function formFor(file) {
  const form = new FormData(intake);
  ["file", "csrfmiddlewaretoken"].forEach(name => form.delete(name));
  // A browser does not send an unticked checkbox, and the API would use its default.
  for (const { name, checked } of intake.querySelectorAll("#options [type=checkbox]")) form.set(name, checked);
  form.append("file", file);
  return form;
}

function startNext() {
  if (underWay >= AT_ONCE || !waiting.length) return;
  underWay += 1;
  send(waiting.shift());
  startNext();
}

function send(upload) {
  const request = upload.request = new XMLHttpRequest();
  const since = performance.now();
  let share = 0;
  request.upload.onprogress = event => {
    share = event.loaded / event.total;
    const speed = event.loaded / (performance.now() - since) * 1000;
    const rest = { speed: size(speed), left: left((event.total - event.loaded) / speed) };
    show(upload.row, fill(settings.uploading, { sent: size(event.loaded) }), share, fill(settings.rest, rest));
  };
  request.upload.onload = () => show(upload.row, settings.sent, 1);
  request.onload = () => readAnswer(upload);
  request.onerror = () => showFailure(upload.row, upload.file, fill(settings.broken, { percent: Math.floor(100 * share) }));
  request.onloadend = finish;
  request.open("POST", settings.url);
  request.setRequestHeader("X-CSRFToken", token());
  request.setRequestHeader("Accept", "application/json");
  request.send(upload.form);
}

// The token from the cookie, because signing in again in another tab makes the page's token invalid.
function token() {
  return /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie)?.[1] ?? intake.elements.csrfmiddlewaretoken.value;
}

function finish() {
  underWay -= 1;
  startNext();
}

function readAnswer({ request, row, file }) {
  const answer = json(request.responseText);
  if (request.status === 202 && answer) return becomeJob(row, answer.id);
  showFailure(row, file, request.status === 401 ? settings.signedOut : reason(answer));
}

function becomeJob(row, id) {
  // The row is the request's source: of several requests that wait for one source, htmx keeps only the last.
  htmx.ajax("GET", settings.row.replace(settings.anyJob, id), { source: row, target: row, swap: "outerHTML" });
}

function json(text) {
  try { return JSON.parse(text); } catch { return null; }
}

// {"detail": "sentence"} or {"field": ["sentence", …], …}
function reason(answer) {
  const sentences = Object.values(answer ?? {}).flat().filter(sentence => typeof sentence === "string");
  return sentences.join(" ") || settings.unknown;
}

function stop(upload) {
  if (upload.request) upload.request.abort();
  else waiting.splice(waiting.indexOf(upload), 1);
  removeRow(upload.row);
}

addEventListener("beforeunload", event => {
  if (underWay || waiting.length) event.preventDefault();
});

// ---------------------------------------------------------------- choosing and dropping

const chooser = document.getElementById("files");

document.getElementById("choose")?.addEventListener("click", () => chooser.click());

chooser?.addEventListener("change", () => {
  [...chooser.files].forEach(enqueue);
  chooser.value = "";
});

const hasFiles = event => intake && event.dataTransfer?.types.includes("Files");

addEventListener("dragover", event => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  intake.classList.add("is-over");
});

addEventListener("dragleave", event => {
  if (!event.relatedTarget) intake?.classList.remove("is-over");
});

addEventListener("drop", event => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  intake.classList.remove("is-over");
  [...event.dataTransfer.items].filter(item => item.kind === "file").forEach(takeDropped);
});

function takeDropped(item) {
  const file = item.getAsFile();
  if (item.webkitGetAsEntry?.()?.isDirectory) showFailure(addRow(file), file, settings.folder);
  else enqueue(file);
}

// ---------------------------------------------------------------- the options

intake?.addEventListener("submit", event => event.preventDefault()); // Enter in a field must not submit

intake?.querySelectorAll("[aria-controls]").forEach(button => button.addEventListener("click", () => {
  const isOpen = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(isOpen));
  document.getElementById(button.getAttribute("aria-controls")).toggleAttribute("data-folded", !isOpen);
}));

// On a phone the options collapse to one line that shows their values.
function summarizeOptions() {
  const { language, model, word_timestamps: words } = intake.elements;
  const chosen = select => select.selectedOptions[0]?.textContent;
  const summary = document.getElementById("options-summary");
  const task = intake.querySelector("[name=task]:checked").parentElement.textContent.trim();
  const parts = [chosen(language), model.value, task];
  if (words.checked) parts.push(summary.dataset.words);
  summary.querySelector("span").textContent = parts.join(", ");
}

intake?.addEventListener("change", summarizeOptions);
if (intake) summarizeOptions();
