// Sets the theme before the first paint: what the user chose, else what the system says.

export {};

const chosen = (() => {
  try {
    return localStorage.getItem("orderwire.theme");
  } catch {
    return null;
  }
})();
const dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
document.documentElement.dataset["theme"] = dark ? "orderwire-dark" : "orderwire-light";
