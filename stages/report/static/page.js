// Puts the page together: from its own data, or from what it fetches.
function build(data) {
  for (const name of Object.keys(SECTIONS)) built.set(name, drawn(name, data));
  place();
}

/** Marks the section in sight in the navigation. */
let following = null;
function follow(parts) {
  if (following) following.disconnect();
  const links = new Map([...document.querySelectorAll("#nav a")].map((link) => [link.getAttribute("href").slice(1), link]));
  following = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      for (const link of links.values()) link.removeAttribute("aria-current");
      const link = links.get(entry.target.id);
      if (link) { link.setAttribute("aria-current", "true"); if (innerWidth < 900) { const list = link.closest("ul"); list.scrollTo({ left: link.offsetLeft - list.offsetLeft - 8 }); }; }
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const one of parts) following.observe(one);
}

const theme = document.getElementById("theme");
theme.addEventListener("change", () => {
  if (theme.value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
  redrawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

const given = part("data");
if (given) {
  build(given);
  document.documentElement.dataset.ready = "yes";
} else live();
