// Elements, numbers and texts. Whatever comes from the run becomes text nodes, never markup.
const parsed = new Map();
/** The value of a JSON element of the page, read when it is first asked for. */
function part(id) {
  if (!parsed.has(id)) {
    const element = document.getElementById(id);
    parsed.set(id, element ? JSON.parse(element.textContent) : null);
  }
  return parsed.get(id);
}

/** An element with attributes (`class`, `data-…`, on… as functions) and children (nodes, or texts). */
function el(tag, attributes, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const SVG_TAGS = new Set(["svg", "path", "line", "circle", "rect", "polyline", "g", "text"]);

// What hides or turns the text around it is shown by its number: C0 and C1 controls, marks of direction, and half pairs.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
/** A text of the run as nodes: isolated in its direction, with what cannot be seen made visible. */
function said(text, attributes) {
  const node = el("bdi", { dir: "auto", ...(attributes || {}) });
  const whole = String(text);
  let at = 0;
  for (const found of whole.matchAll(HIDDEN)) {
    if (found.index > at) node.append(whole.slice(at, found.index));
    const code = found[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    node.append(el("span", { class: "hidden-char", title: `the character U+${code}` }, `U+${code}`));
    at = found.index + found[0].length;
  }
  node.append(whole.slice(at));
  return node;
}
/** The same as a plain string, for places that hold no nodes. */
function plain(text) {
  return String(text).replace(HIDDEN, (found) => `U+${found.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
}

const known = (value) => typeof value === "number" && Number.isFinite(value);
function count(value) { return known(value) ? value.toLocaleString("en-US") : "–"; }
/** A number with about three digits that count. */
function short(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  if (Number.isInteger(value) && size < 1e6) return count(value);
  return String(Number(value.toPrecision(size >= 1000 ? 4 : 3)));
}
function percent(value, digits = 1) { return known(value) ? `${(100 * value).toFixed(digits)} %` : "–"; }
function signed(value, digits = 1) { return known(value) ? `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(value).toFixed(digits)}` : "–"; }
function fixed(value, digits) { return known(value) ? value.toFixed(digits).replace("-", "−") : "–"; }
function duration(seconds) {
  if (!known(seconds) || seconds <= 0) return "–";
  if (seconds < 1) return `${short(seconds * 1000)} ms`;
  if (seconds < 120) return `${short(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
function bytes(value) {
  if (!known(value)) return "–";
  for (const [size, name] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) if (value >= size) return `${(value / size).toFixed(1)} ${name}`;
  return `${value} B`;
}
/** A figure with its unit, as its evaluation's card prints it. */
function printed(value, unit) {
  if (!known(value)) return "–";
  if (unit === "share") return percent(value);
  return unit === "correlation" ? fixed(value, 3) : `${fixed(value, 1)} ${unit || ""}`.trim();
}

/** A section of the page with its heading and an entry in the navigation. */
function section(id, title, lead, ...children) {
  const heading = el("h2", { id: `${id}-title` }, title);
  return el("section", { id, "aria-labelledby": `${id}-title` }, heading, lead ? el("p", { class: "lead" }, lead) : null, ...children);
}
function missing(line) { return el("p", { class: "missing" }, line); }
/** What is missing of a section, a line each. */
function notes(data, ...names) {
  const found = data.notes.filter((note) => names.includes(note.section));
  if (!found.length) return null;
  return found.length === 1 ? missing(said(found[0].line)) : el("ul", { class: "missing" }, found.map((note) => el("li", {}, said(note.line))));
}

/** A table: `head` are texts, `rows` lists of cells (texts, nodes, or {node, attributes}); the first cell of a row is its header. */
function table(caption, head, rows, attributes) {
  const cell = (value, tag, extra) => {
    const given = value && value.node !== undefined ? value : { node: value };
    return el(tag, { ...(extra || {}), ...(given.attributes || {}) }, given.node);
  };
  const node = el("table", attributes || {},
    caption ? el("caption", {}, caption) : null,
    el("thead", {}, el("tr", {}, head.map((name) => cell(name, "th", { scope: "col" })))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, at) => (at ? cell(value, "td") : cell(value, "th", { scope: "row" })))))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": typeof caption === "string" ? caption : "table" }, node);
}

/** A select with its label; `options` are [value, text]. */
function choice(id, label, options, onchange) {
  const select = el("select", { id, onchange: () => onchange(select.value) }, options.map(([value, text]) => el("option", { value }, text)));
  return el("div", { class: "field" }, el("label", { for: id }, label), select);
}
/** Marks a button that can do no more. It is not `disabled`: that would drop the focus it has. */
function ended(button, yes) { button.setAttribute("aria-disabled", String(yes)); }
/** How a list is walked: previous, a slider, the place, next, and the arrow keys in `keys(box)`. `to` is called with each new place. */
function walker(id, label, to) {
  let at = 0, of = 0;
  const go = (place) => { const near = Math.min(of - 1, Math.max(0, place)); if (of && near !== at) to(near); };
  const arrow = (name) => el("span", { "aria-hidden": "true" }, name);
  const position = el("output", { id: `${id}-position`, "aria-live": "polite" });
  const slider = el("input", { type: "range", id: `${id}-slider`, min: "1", value: "1", "aria-label": label, oninput: () => go(Number(slider.value) - 1) });
  const previous = el("button", { type: "button", class: "step", id: `${id}-previous`, onclick: () => go(at - 1) }, arrow("←"), " previous");
  const next = el("button", { type: "button", class: "step", id: `${id}-next`, onclick: () => go(at + 1) }, "next ", arrow("→"));
  return {
    node: el("div", { class: "walk" }, previous, slider, position, next),
    stand(place, size) {
      [at, of] = [place, size];
      slider.max = String(Math.max(1, of));
      slider.value = String(at + 1);
      slider.disabled = of < 2;
      ended(previous, at <= 0);
      ended(next, at >= of - 1);
      position.textContent = of ? `${count(at + 1)} of ${count(of)}` : "none";
    },
    keys(box) {
      box.addEventListener("keydown", (event) => {
        if (event.target.closest("input, select, textarea, video, audio, summary") || event.altKey || event.ctrlKey || event.metaKey) return;
        const by = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
        if (by) { go(at + by); event.preventDefault(); }
      });
      return box;
    },
  };
}
/** A search field; `oninput` is called with what is looked for, in small letters, when typing pauses. */
function search(id, label, value, oninput) {
  let waiting = 0;
  const typed = (event) => { clearTimeout(waiting); const { value: text } = event.target; waiting = setTimeout(() => oninput(text.trim().toLowerCase()), 200); };
  return el("div", { class: "field wide" }, el("label", { for: id }, label), el("input", { type: "search", id, value: value || null, autocomplete: "off", spellcheck: "false", oninput: typed }));
}
function setOptions(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
  if (options.some(([value]) => value === before)) select.value = before;
}

const MODALITY_NAMES = { video: "video", audio: "audio", audio_video: "audio + video", image: "image", text: "text" };
const modalityName = (name) => MODALITY_NAMES[name] || plain(name);
