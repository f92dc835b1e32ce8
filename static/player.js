// The player: an <audio> under our own controls, and the text that follows it.

const audio = document.getElementById("audio");
const player = document.getElementById("player");
const play = document.getElementById("toggle");
const position = document.getElementById("position");
const transcript = document.getElementById("transcript");
const toNow = document.getElementById("to-now");

function clock(seconds) {
  const whole = Math.floor(seconds || 0);
  const two = number => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

// The server has measured the duration; the browser estimates it while the file is loading.
function duration() {
  const measured = Number(document.getElementById("wave").dataset.duration);
  return measured || (Number.isFinite(audio.duration) ? audio.duration : 0);
}

// ---------------------------------------------------------------- the wave

const BARS = 120;

function bars(peaks, from, to) {
  let path = "";
  for (let bar = from; bar < to; bar += 1) {
    const half = peaks ? Math.max(1, peaks[bar] / 100 * 19) : 0.5;
    path += `M${4 * bar + 2} ${(24 - half).toFixed(1)}v${(2 * half).toFixed(1)}`;
  }
  return path;
}

function drawWave() {
  const wave = document.getElementById("wave");
  const peaks = wave.dataset.peaks ? wave.dataset.peaks.split(",").map(Number) : null;
  const played = duration() ? Math.round(BARS * audio.currentTime / duration()) : 0;
  wave.querySelector(".played").setAttribute("d", bars(peaks, 0, played));
  wave.querySelector(".ahead").setAttribute("d", bars(peaks, played, BARS));
}

// ---------------------------------------------------------------- the controls

function showPlace() {
  const place = { now: clock(audio.currentTime), whole: clock(duration()) };
  document.getElementById("time").textContent = place.now;
  document.getElementById("whole").textContent = duration() ? place.whole : "–";
  position.max = duration();
  position.value = audio.currentTime;
  position.setAttribute("aria-valuetext", player.dataset.place.replace(/\{(\w+)\}/g, (_, name) => place[name]));
  drawWave();
}

function showPlaying() {
  play.setAttribute("aria-label", audio.paused ? player.dataset.play : player.dataset.pause);
  play.querySelector("use").setAttribute("href", audio.paused ? "#play" : "#pause");
}

function seek(seconds) {
  audio.currentTime = Math.min(Math.max(0, seconds), duration() || seconds);
}

function toggle() {
  if (audio.paused) audio.play();
  else audio.pause();
}

function ready() {
  player.querySelectorAll(":disabled").forEach(control => { control.disabled = false; });
  showPlace();
}

function cannotPlay() {
  document.getElementById("unplayable").hidden = false;
}

play.addEventListener("click", toggle);
position.addEventListener("input", () => seek(Number(position.value)));
player.querySelectorAll("[data-skip]").forEach(button => {
  button.addEventListener("click", () => seek(audio.currentTime + Number(button.dataset.skip)));
});
document.getElementById("speed").addEventListener("change", event => { audio.playbackRate = Number(event.target.value); });
audio.addEventListener("loadedmetadata", ready);
audio.addEventListener("error", cannotPlay);
["play", "pause", "ended"].forEach(name => audio.addEventListener(name, showPlaying));
["timeupdate", "seeked"].forEach(name => audio.addEventListener(name, () => { showPlace(); follow(); }));

// The audio's events may have fired before this script ran; the wave may arrive while the page is open.
if (audio.readyState >= HTMLMediaElement.HAVE_METADATA) ready();
if (audio.error) cannotPlay();
drawWave();
document.addEventListener("htmx:load", showPlace);

document.addEventListener("keydown", event => {
  if (event.target.closest("input, select, textarea, button, a, summary") || event.altKey || event.ctrlKey || event.metaKey) return;
  if (audio.readyState < HTMLMediaElement.HAVE_METADATA) return;
  const act = { Space: toggle, ArrowLeft: () => seek(audio.currentTime - 5), ArrowRight: () => seek(audio.currentTime + 5) }[event.code];
  if (!act) return;
  event.preventDefault();
  act();
});

// ---------------------------------------------------------------- following

let isFollowing = true;

// The last element that has begun at `time`, of thousands in order of time: a binary search. Two channels may sound at
// once: then it is the last of the few before it that has not ended, if there is one.
function begunLast(elements, time) {
  let [low, high] = [0, elements.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (Number(elements[middle].dataset.start) <= time) low = middle + 1;
    else high = middle;
  }
  for (let place = low - 1; place >= Math.max(0, low - 4); place -= 1) {
    if (Number(elements[place].dataset.end) > time) return elements[place];
  }
  return elements[low - 1] ?? null;
}

function mark(kind, element) {
  const before = transcript.querySelector(`.${kind}.is-now`);
  if (before === element) return false;
  before?.classList.remove("is-now");
  before?.removeAttribute("aria-current");
  element?.classList.add("is-now");
  return element !== null;
}

function follow() {
  const time = audio.currentTime + 0.05;
  const segment = begunLast(transcript.getElementsByClassName("segment"), time);
  const isNew = mark("segment", segment);
  if (isNew) segment.setAttribute("aria-current", "true");
  mark("word", segment && begunLast(segment.getElementsByClassName("word"), time));
  // While paused, a click in the text must not scroll; the slider or a link may lead far out of sight.
  if (isNew && isFollowing && !(audio.paused && isInSight(segment))) scrollTo(segment);
}

// The top and bottom of the visible text: the player covers its top, on a phone its bottom.
function sight() {
  const { top, bottom } = player.getBoundingClientRect();
  return getComputedStyle(player).position === "sticky" ? [bottom, innerHeight] : [0, top];
}

function isInSight(segment) {
  const { top, bottom } = segment.getBoundingClientRect();
  const [from, to] = sight();
  return top > from && bottom < to;
}

// Keeps the spoken words in the upper third of the visible text.
function scrollTo(segment) {
  const [from, to] = sight();
  const place = segment.getBoundingClientRect().top;
  if (place > from + 8 && place < from + (to - from) / 3) return;
  window.scrollBy({ top: place - from - (to - from) / 4 });
}

function setFollowing(yes) {
  isFollowing = yes;
  toNow.hidden = yes || !transcript.querySelector(".segment.is-now");
}

// Only the user's own scrolling stops following: scrollBy fires no wheel, touch or key events.
["wheel", "touchmove"].forEach(name => addEventListener(name, () => setFollowing(false), { passive: true }));
addEventListener("keydown", event => {
  if (["PageUp", "PageDown", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.code)) setFollowing(false);
});

toNow.addEventListener("click", () => {
  setFollowing(true);
  scrollTo(transcript.querySelector(".segment.is-now"));
});

// ---------------------------------------------------------------- jumping

function jumpTo(hash) {
  const seconds = Number(/^#t=(\d+(\.\d+)?)$/.exec(hash)?.[1]);
  if (Number.isNaN(seconds)) return;
  setFollowing(true);
  if (audio.readyState) seek(seconds);
  else audio.addEventListener("loadedmetadata", () => seek(seconds), { once: true });
}

transcript.addEventListener("click", event => {
  const link = event.target.closest(".segment-time");
  if (!link) return;
  event.preventDefault();
  history.replaceState(null, "", link.hash);
  jumpTo(link.hash);
});

jumpTo(location.hash);
