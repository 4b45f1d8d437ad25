// The page of a run under way: its data come from where the page came from, again and again, and what has changed is drawn anew.
const EVERY_MS = 2000, HIDDEN_MS = 15000;

function live() {
  const beat = el("span", { class: "beat", "aria-hidden": "true" }), updated = el("span", { id: "updated" }, "fetching …");
  const trouble = el("span", { class: "trouble", role: "status" }), late = el("span", { class: "late", role: "status" });
  const line = el("p", { class: "live", id: "live" }, beat, updated, trouble, late);
  document.querySelector("#side .brand").after(line);
  let tag = null, changed = 0, newest = null, signed = {};

  const tell = (text) => { if (trouble.textContent !== text) trouble.textContent = text; line.classList.toggle("gone", Boolean(text)); };
  const poll = async () => {
    try {
      const answer = await fetch("data.json", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) {
        newest = await answer.json();
        tag = answer.headers.get("ETag");
        changed = Date.now();
        line.dataset.changes = String(Number(line.dataset.changes || 0) + 1);
      } else if (answer.status !== 304) throw new Error(String(answer.status));
      if (answer.status === 200 || late.textContent) take();
      tell("");
    } catch (error) {
      if (!(error instanceof TypeError) && !/^\d+$/.test(error.message)) throw error;
      tell(error instanceof TypeError ? "the server is gone: what is shown is what it said last; omnistage watch starts it again, at a new address" : `the server answered ${error.message}`);
    } finally { setTimeout(poll, document.hidden ? HIDDEN_MS : EVERY_MS); }
  };
  const take = () => {
    if (newest.waiting) {
      if (!built.size) document.getElementById("main").replaceChildren(el("p", { class: "page-waiting" }, said(newest.waiting)));
      else tell(plain(newest.waiting));
    } else {
      const waiting = renew(newest, signed);
      late.textContent = waiting.length ? `new ${waiting.join(" and ")}: shown when the clip stops` : "";
    }
    document.documentElement.dataset.ready = "yes";
  };
  setInterval(() => { if (changed) updated.textContent = `updated ${ago((Date.now() - changed) / 1000)}`; }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && changed) updated.textContent = `updated ${ago((Date.now() - changed) / 1000)}`; });
  poll();
}
const ago = (seconds) => (seconds < 1.5 ? "now" : seconds < 90 ? `${Math.round(seconds)} s ago` : seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${(seconds / 3600).toFixed(1)} h ago`);

const PARTS = { rollouts: "group-", answers: "item-" };
let touched = 0;
for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, () => { touched = Date.now(); }, true);
/** Whether a person is at it: a clip plays, or something was just chosen or typed. */
function busy(section) {
  const typing = section.contains(document.activeElement) && document.activeElement.matches("select, input") && Date.now() - touched < 3000;
  return typing || [...section.querySelectorAll("video, audio")].some((one) => !one.paused && !one.ended);
}

/** Draws anew what has changed, in its place; returns the names of sections that wait until they are not in use. */
function renew(found, signed) {
  const now = signatures(found.data, found.signs), first = !built.size, waiting = [];
  const top = [...built.values()].find((one) => one && one.getBoundingClientRect().bottom > 0);
  const from = top && top.getBoundingClientRect().top;
  const at = { id: top && top.id };
  for (const name of Object.keys(SECTIONS)) {
    const before = built.get(name);
    if (signed[name] === now[name]) continue;
    if (before && busy(before)) { waiting.push(name); continue; }
    adopt(name, found.parts);
    const after = drawn(name, found.data);
    built.set(name, after);
    signed[name] = now[name];
    if (before && after) succeed(before, after);
  }
  place();
  const same = at.id && document.getElementById(at.id);
  if (same && !first) scrollBy({ top: same.getBoundingClientRect().top - from, behavior: "instant" });
  return waiting;
}
/** Takes the samples that a section is about to show; those of a section that waits stay as they are. */
function adopt(name, parts) {
  const begins = PARTS[name];
  if (!begins) return;
  for (const id of [...parsed.keys()]) if (id.startsWith(begins)) { parsed.delete(id); texts.delete(id); }
  for (const [id, part_] of Object.entries(parts)) {
    // A clip that was fetched stays.
    if (id.startsWith(begins) || (id.startsWith("clip-") && !(parsed.get(id) && !parsed.get(id).later && !parsed.get(id).error))) parsed.set(id, part_);
  }
}

/** A clip that is fetched when it is first looked at. */
function laterClip(number, clip) {
  const box = el("div", { class: "clip" }, missing("the clip is being read …"));
  fetch(`clips/${clip.later}.json`, { cache: "no-store" }).then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(String(answer.status))))).then((found) => {
    parsed.set(`clip-${number}`, { ...found, name: clip.name });
    box.replaceWith(clipView(number));
  }).catch(() => box.replaceChildren(missing("the clip cannot be fetched: the server is gone, or no longer knows it")));
  return box;
}
