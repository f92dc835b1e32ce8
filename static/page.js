// What every page does: sends the server its time zone, closes menus, changes the theme in place, stops polls that fail.

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
document.cookie = `timezone=${zone}; path=/; max-age=31536000; samesite=lax`;

// Menus are <details>: they open by themselves; Escape and a click elsewhere close them.

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

// The theme changes at once: a new page would stop what is playing or being uploaded.

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

// Signed out or deleted elsewhere: another request each second would not change that.

document.addEventListener("htmx:responseError", event => {
  const { status } = event.detail.xhr;
  if (status === 401) location.reload();
  if (status === 404) event.detail.elt.closest("[data-poll]")?.remove();
});
