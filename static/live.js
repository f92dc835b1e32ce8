// A job's page requests its fragment when the event stream reports a change, so that text always comes as markup that
// the server has rendered. Where no stream comes through, the page requests it as often as the fragment asks for.

const MIN_INTERVAL = 300; // milliseconds between two requests
const SETTLE_TIME = 50; // until a fragment that has just been swapped in receives events
const STREAMING_INTERVAL = 5000; // while the stream works: for what changes with time alone, such as how long it will take
const HIDDEN_INTERVAL = 15000;
const RECONNECT_INTERVAL = 15000;

let stream = null;
let isStreaming = false; // whether events arrive; a proxy may open the stream and hold them back
let hasNews = false;
let isRequesting = false;
let requestedAt = -Infinity;
let timer = 0;

// The fragment names the stream for as long as the job has not ended.
const live = () => document.querySelector("#live[data-events]");

// ---------------------------------------------------------------- the stream

// A browser opens six connections to a server at most: a hidden tab keeps none.
function connect() {
  if (stream || document.hidden || !live()) return;
  stream = new EventSource(live().dataset.events);
  ["state", "segment"].forEach(kind => stream.addEventListener(kind, receive));
  stream.addEventListener("end", () => { receive(); disconnect(); });
  stream.addEventListener("error", reconnectLater);
}

function receive() {
  isStreaming = true;
  hasNews = true;
  requestSoon();
}

// The browser itself comes back after a broken connection, but not after a refusal.
function reconnectLater() {
  isStreaming = false;
  if (stream?.readyState !== EventSource.CLOSED) return;
  disconnect();
  setTimeout(connect, RECONNECT_INTERVAL);
}

function disconnect() {
  stream?.close();
  stream = null;
  isStreaming = false;
}

document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
connect();

// ---------------------------------------------------------------- the requests

function requestSoon() {
  if (!hasNews || isRequesting || timer) return;
  timer = setTimeout(request, Math.max(SETTLE_TIME, requestedAt + MIN_INTERVAL - performance.now()));
}

function request() {
  timer = 0;
  if (live()) htmx.trigger(live(), "news");
}

function isDue() {
  const pause = document.hidden ? HIDDEN_INTERVAL : isStreaming ? STREAMING_INTERVAL : 0;
  return performance.now() >= requestedAt + pause;
}

// htmx fires this before each request: on news, and every second or so by its own timer.
document.addEventListener("htmx:confirm", event => {
  const { elt, triggeringEvent } = event.detail;
  if (elt.id !== "live") return;
  if (isRequesting || (triggeringEvent?.type !== "news" && !isDue())) event.preventDefault();
});

document.addEventListener("htmx:beforeRequest", event => {
  if (event.detail.elt.id !== "live") return;
  isRequesting = true;
  hasNews = false;
  requestedAt = performance.now();
});

document.addEventListener("htmx:afterRequest", event => {
  if (event.detail.requestConfig.elt.id !== "live") return;
  isRequesting = false;
  if (live()) requestSoon();
  else disconnect();
});
