// The eye beside a password shows it and hides it.

document.querySelectorAll(".password button").forEach(button => button.addEventListener("click", () => {
  const field = document.getElementById(button.getAttribute("aria-controls"));
  const isShown = field.type === "text";
  field.type = isShown ? "password" : "text";
  button.setAttribute("aria-pressed", String(!isShown));
}));
