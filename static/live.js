// A job's page hears of news on the event stream and asks for the fragment then: the text comes from the server as
// markup, by one way. Where no stream comes through, the page asks as often as its fragment says.

const ASKS_EVERY = 300; // milliseconds, at most
const SETTLES = 50; // a fragment that has just come hears nothing yet
const ASKS_ANYWAY = 5000; // for what changes with time alone, such as how long it will take
const ASKS_HIDDEN = 15000;
const TRIES_AGAIN = 15000;

let stream = null;
let isHeard = false; // a proxy may open the stream and keep to itself what comes on it
let hasNews = false;
let isAsking = false;
let askedAt = -Infinity;
let timer = 0;

// The fragment names the stream for as long as the job has not ended.
const live = () => document.querySelector("#live[data-events]");

// ---------------------------------------------------------------- the stream

// A browser opens six connections to a server at most: a tab that nobody sees keeps none.
function listen() {
  if (stream || document.hidden || !live()) return;
  stream = new EventSource(live().dataset.events);
  ["state", "segment"].forEach(kind => stream.addEventListener(kind, hear));
  stream.addEventListener("end", () => { hear(); hangUp(); });
  stream.addEventListener("error", lose);
}

function hear() {
  isHeard = true;
  hasNews = true;
  askSoon();
}

// The browser itself comes back after a broken connection, but not after a refusal.
function lose() {
  isHeard = false;
  if (stream?.readyState !== EventSource.CLOSED) return;
  hangUp();
  setTimeout(listen, TRIES_AGAIN);
}

function hangUp() {
  stream?.close();
  stream = null;
  isHeard = false;
}

document.addEventListener("visibilitychange", () => (document.hidden ? hangUp() : listen()));
listen();

// ---------------------------------------------------------------- asking

function askSoon() {
  if (!hasNews || isAsking || timer) return;
  timer = setTimeout(ask, Math.max(SETTLES, askedAt + ASKS_EVERY - performance.now()));
}

function ask() {
  timer = 0;
  if (live()) htmx.trigger(live(), "news");
}

function isDue() {
  const pause = document.hidden ? ASKS_HIDDEN : isHeard ? ASKS_ANYWAY : 0;
  return performance.now() >= askedAt + pause;
}

// htmx asks here before each request: on news, and every second or so by itself.
document.addEventListener("htmx:confirm", event => {
  const { elt, triggeringEvent } = event.detail;
  if (elt.id !== "live") return;
  if (isAsking || (triggeringEvent?.type !== "news" && !isDue())) event.preventDefault();
});

document.addEventListener("htmx:beforeRequest", event => {
  if (event.detail.elt.id !== "live") return;
  isAsking = true;
  hasNews = false;
  askedAt = performance.now();
});

document.addEventListener("htmx:afterRequest", event => {
  if (event.detail.requestConfig.elt.id !== "live") return;
  isAsking = false;
  if (live()) askSoon();
  else hangUp();
});
