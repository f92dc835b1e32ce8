// A job's page requests its fragment when the event stream reports a change, so that the server renders all text.
// Without a stream, the page polls at the interval that the fragment names.

const MIN_INTERVAL = 300; // milliseconds between two requests
const SETTLE_TIME = 50; // until a swapped-in fragment receives events
const STREAMING_INTERVAL = 5000; // while the stream works: for what changes without events, such as the time left
const HIDDEN_INTERVAL = 15000;
const RECONNECT_INTERVAL = 15000;

let stream = null;
let isStreaming = false; // whether events arrive; a proxy may hold them back
let hasNews = false;
let isRequesting = false;
let requestedAt = -Infinity;
let timer = 0;

// The fragment names the stream until the job has ended.
const live = () => document.querySelector("#live[data-events]");

// ---------------------------------------------------------------- the stream

// A browser opens at most six connections to a server, so a hidden tab closes its stream.
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

// The browser reconnects by itself after a broken connection, but not after an error response.
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

// htmx fires this before each request, whether news or its timer triggered it.
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
