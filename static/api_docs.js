// The API's description, shown by Swagger UI.

const place = document.getElementById("api");
const root = document.documentElement;

// Swagger UI's own dark colours, when the page is dark.
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
  // By the dashboard's session, which asks for its token.
  requestInterceptor(request) {
    const token = document.cookie.match(/(?:^|; )csrftoken=([^;]*)/);
    if (token && new URL(request.url, location.href).origin === location.origin) {
      request.headers["X-CSRFToken"] = decodeURIComponent(token[1]);
    }
    return request;
  },
});
