// Runs on every page: sends the time zone, closes menus, changes the theme in place, stops polls that fail.

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const root = new URL("..", import.meta.url).pathname; // static/ lies below it
document.cookie = `timezone=${zone}; path=${root}; max-age=31536000; samesite=lax`;

// Menus are <details>, which open without a script; Escape and a click elsewhere close them.

function closeMenus(except) {
  document.querySelectorAll("details.menu[open]").forEach(menu => {
    if (menu !== except) menu.open = false;
  });
}

document.addEventListener("click", event => closeMenus(event.target.closest("details.menu")));

document.addEventListener("keydown", event => {
  const menu = document.querySelector("details.menu[open]");
  if (event.key !== "Escape" || !menu) return;
  closeMenus();
  menu.querySelector("summary").focus();
});

// The theme changes without loading a page, which would stop the player and uploads.

function showTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  document.querySelectorAll(".theme button").forEach(button => {
    if (button.value === theme) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
}

document.addEventListener("submit", event => {
  const form = event.target;
  if (!form.matches(".theme")) return;
  event.preventDefault();
  const sent = new FormData(form, event.submitter);
  showTheme(sent.get("theme"));
  fetch(form.action, { method: "POST", body: sent, redirect: "manual" });
});

// The user has signed out or deleted the job elsewhere: more requests would not help.

document.addEventListener("htmx:responseError", event => {
  const { status } = event.detail.xhr;
  if (status === 401) location.reload();
  if (status === 404) event.detail.elt.closest("[data-poll]")?.remove();
});
