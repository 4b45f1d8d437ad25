// What a person has chosen in the page, kept while its data become new.
const state = { curvesStage: null };
const kept = (name, initial) => (state[name] ??= initial);

/** The sections by name, in order. */
const SECTIONS = { glance, accuracy, probes, rollouts: player, answers: compare, heads, curves, data: dataSection, throughput, about };
const built = new Map();
// What stands over a section that could not be drawn, and its id.
const SECTION_NAMES = {
  glance: "At a glance", accuracy: "Held-out accuracy", probes: "Probes", rollouts: "Rollouts", answers: "Answers side by side", heads: "Heads", curves: "Training curves",
  data: "Data", throughput: "Time and memory", about: "About this page",
};

/** A section by its name; one whose data are not as they should be says so in its place, and costs no other. */
function drawn(name, data) {
  try {
    return SECTIONS[name](data);
  } catch (error) {
    console.error(`section ${name} could not be drawn`, error);
    const line = missing(["This section could not be drawn: ", said(error)]);
    return name === "glance" ? el("div", { id: name }, el("h1", {}, SECTION_NAMES[name]), line) : section(name === "data" ? "sources" : name, SECTION_NAMES[name], null, line);
  }
}

/** Sets the sections into the page, and the navigation. */
function place() {
  const parts = [...built.values()].filter(Boolean);
  const main = document.getElementById("main");
  if (parts.length !== main.childNodes.length || parts.some((one, at) => main.childNodes[at] !== one)) main.replaceChildren(...parts);
  const sections = parts.filter((one) => one.tagName === "SECTION");
  document.getElementById("nav").replaceChildren(...[["glance", "At a glance"], ...sections.map((one) => [one.id, one.querySelector("h2").textContent])].map(([id, title]) => el("li", {}, el("a", { href: `#${id}` }, title))));
  follow(parts);
}

/** What each section is made of: it is made anew when that has changed. */
function signatures(data, signs) {
  const light = data.stages.map((stage) => ({ ...stage, metrics: { last: stage.metrics.last } }));
  const names = data.stages.map((stage) => [stage.name, stage.kind]);
  const told = (...sections) => data.notes.filter((note) => sections.includes(note.section));
  const of = {
    glance: [data.run, light, data.summary, data.figures, Object.values(data.heads).map((one) => one.scores), told("run")], accuracy: [data.summary, data.figures, told("accuracy")], probes: [data.summary, data.figures, told("probes")],
    rollouts: [signs.rollouts, data.groups, { ...data.shown, room: 0, clips: 0, pairs: 0 }, names, told("rollouts")], answers: [signs.answers, data.items, data.shown.pairs, data.shown.items_of, told("answers")],
    heads: [data.heads, told("heads")], curves: [data.stages.map((stage) => [stage.name, stage.rewards, stage.metrics]), told("curves")], data: [data.data, told("data")],
    throughput: [data.plan, data.stages, data.run.device, told("throughput")], about: [data.shown, data.made],
  };
  return Object.fromEntries(Object.entries(of).map(([name, parts]) => [name, JSON.stringify(parts)]));
}

/** Puts a section in an older one's place, with what was open, chosen, zoomed and focused in that. */
function succeed(before, after) {
  const active = before.contains(document.activeElement) ? document.activeElement : null;
  const caret = active && active.matches("input[type=search]") ? [active.selectionStart, active.selectionEnd] : null;
  before.replaceWith(after);
  for (const figure of after.querySelectorAll("figure[data-chart]")) carryChart(before, figure);
  // Places in a list are kept by what is shown at them (`state`).
  for (const control of before.querySelectorAll("select[id], input[type=range][id]:not([id$=-slider])")) {
    const other = document.getElementById(control.id);
    if (!other || other.value === control.value || (other.options && ![...other.options].some((one) => one.value === control.value))) continue;
    other.value = control.value;
    other.dispatchEvent(new Event("input"));
    other.dispatchEvent(new Event("change"));
  }
  const opened = new Set([...before.querySelectorAll("details[open]")].map(nameOf));
  for (const details of after.querySelectorAll("details")) if (opened.has(nameOf(details))) details.open = true;
  const follower = active && (active.id ? document.getElementById(active.id) : [...after.querySelectorAll(active.tagName)].find((one) => one.textContent === active.textContent && one.className === active.className));
  if (follower) follower.focus({ preventScroll: true });
  if (caret && follower) follower.setSelectionRange(...caret);
}
const nameOf = (details) => `${details.closest("figure")?.dataset.chart || ""}/${details.querySelector("summary").textContent.replace(/[\d,.]+/g, "")}`;

/** The drawing itself stays, with its zoom, and gets the new data. */
function carryChart(before, figure) {
  const old = before.querySelector(`figure[data-chart="${CSS.escape(figure.dataset.chart)}"]`);
  if (!old) return;
  if (old.dataset.drawn) {
    watcher.unobserve(figure);
    figure.querySelector(".plot").replaceWith(old.querySelector(".plot"));
    figure.dataset.drawn = "yes";
    redraw(figure, figure.spec);
  }
  const way = old.querySelector(".minis [aria-pressed=true]")?.textContent;
  for (const button of figure.querySelectorAll(".minis button")) if (way && button.textContent === way && button.getAttribute("aria-pressed") !== "true") button.click();
}
