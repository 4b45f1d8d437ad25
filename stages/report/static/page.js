// Puts the page together, and again when its data are new.
const state = { curvesStage: null };

function build(data) {
  const parts = [glance(data), accuracy(data), probes(data), player(data), compare(data), heads(data), curves(data), dataSection(data), throughput(data), about(data)].filter(Boolean);
  document.getElementById("main").replaceChildren(...parts);
  const sections = parts.filter((one) => one.tagName === "SECTION");
  document.getElementById("nav").replaceChildren(...[["glance", "At a glance"], ...sections.map((one) => [one.id, one.querySelector("h2").textContent])].map(([id, title]) => el("li", {}, el("a", { href: `#${id}` }, title))));
  follow(parts);
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

build(part("data"));
document.documentElement.dataset.ready = "yes";
