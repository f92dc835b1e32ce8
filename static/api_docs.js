// The API's description, shown by Swagger UI.

const place = document.getElementById("api");
const root = document.documentElement;

// Swagger UI's own dark colours on a dark page.
const dark = matchMedia("(prefers-color-scheme: dark)");
const showTheme = () => root.classList.toggle("dark-mode", root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
dark.addEventListener("change", showTheme);
showTheme();

SwaggerUIBundle({
  domNode: place,
  url: place.dataset.schema,
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: -1,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
  // Requests use the dashboard's session, which requires the CSRF token.
  requestInterceptor(request) {
    const token = document.cookie.match(/(?:^|; )csrftoken=([^;]*)/);
    if (token && new URL(request.url, location.href).origin === location.origin) {
      request.headers["X-CSRFToken"] = decodeURIComponent(token[1]);
    }
    return request;
  },
});
