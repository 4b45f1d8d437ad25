// Charts: drawn when they come near the screen, each with its title, its unit, and its data as a table.
const charts = new Map();
const LIGHT = ["#2563c9", "#c2570c", "#7a3fb8", "#0f7f6c", "#b3266b", "#5b6b00", "#5c6773"];
const DARK = ["#7fb0ff", "#ffab66", "#c9a1ff", "#5fd6bd", "#ff8fbf", "#cddb5c", "#aeb9c5"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const MARKS = ["circle", "square", "diamond", "triangle-up", "x", "star"];
const MODALITIES = ["video", "audio", "audio_video", "image", "text"];
const dark = () => getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
const colour = (at) => (dark() ? DARK : LIGHT)[at % LIGHT.length];
function token(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

let library = null;
/** The charts' library, read and run when the first chart is drawn. */
function plotly() {
  if (!library) {
    const source = document.getElementById("library");
    const script = document.createElement("script");
    script.textContent = source.textContent;
    document.head.append(script);
    script.remove();
    library = window.Plotly;
  }
  return library;
}

/**
 * A chart as a figure. `spec`: {id, title, heading (h4), unit, hint, x: {title, kind}, y: {unit, share, range, log}, traces, lines, height}.
 * A trace: {name, x, y, low, high, mode: lines | points | bars, at (its colour), ids, faint}.
 */
function chart(spec) {
  const plot = el("div", { class: "plot", role: "img", style: spec.height ? `height:${spec.height}px` : null });
  const body = el("div", { class: "data" });
  const details = el("details", { class: "show-data", ontoggle: () => details.open && !body.childElementCount && body.append(dataTable(figure.spec)) },
    el("summary", {}, "Show data"), body);
  const figure = el("figure", { class: "chart", "data-chart": spec.id },
    el("figcaption", {}, el(spec.heading || "h4", { class: "chart-title" }, plain(spec.title)), spec.unit ? el("span", { class: "unit" }, spec.unit) : null), el("div", { class: "legend" }, legend(spec)), plot,
    spec.hint ? el("p", { class: "hint" }, spec.hint) : null, details);
  figure.spec = spec;
  plot.setAttribute("aria-label", described(spec));
  charts.set(spec.id, figure);
  watcher.observe(figure);
  return figure;
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); queue.push(entry.target); }
  if (queue.length) soon(drawNext);
}, { rootMargin: "300px 0px" });
const queue = [];
/** The next frame; for the first chart when nothing else waits, since the library takes about a second to be read. */
function soon(work) {
  if (library || !window.requestIdleCallback) requestAnimationFrame(work);
  else requestIdleCallback(work, { timeout: 2000 });
}
/** One chart a frame, so that the page answers in between. */
function drawNext() {
  const figure = queue.shift();
  if (figure && figure.isConnected) draw(figure);
  if (queue.length) requestAnimationFrame(drawNext);
}

function draw(figure) {
  const spec = figure.spec;
  const plot = figure.querySelector(".plot");
  plotly().newPlot(plot, traces(spec), layout(spec), { responsive: true, displayModeBar: false, displaylogo: false, doubleClick: "reset" });
  figure.dataset.drawn = "yes";
}
/** Another content in the same figure. */
function redraw(figure, spec) {
  figure.spec = spec;
  const plot = figure.querySelector(".plot");
  figure.querySelector(".legend").replaceChildren(...legend(spec));
  plot.setAttribute("aria-label", described(spec));
  const details = figure.querySelector("details");
  details.querySelector(".data").replaceChildren();
  if (details.open) details.querySelector(".data").append(dataTable(spec));
  if (figure.dataset.drawn) plotly().react(plot, traces(spec), layout(spec));
}
function redrawAll() {
  for (const figure of charts.values()) figure.querySelector(".legend").replaceChildren(...legend(figure.spec));
  for (const figure of charts.values()) if (figure.isConnected && figure.dataset.drawn) plotly().react(figure.querySelector(".plot"), traces(figure.spec), layout(figure.spec));
}

/** What each line, mark or bar stands for: told by its shape as well as its colour. */
function legend(spec) {
  if (spec.traces.length < 2) return [];
  return spec.traces.map((given, at) => {
    const shape = given.at ?? at, stroke = given.tone ? token(given.tone) : colour(shape), marked = given.mode !== undefined;
    const dash = { solid: null, dash: "6 4", dot: "2 3", dashdot: "6 3 2 3", longdash: "10 4", longdashdot: "10 3 2 3" }[DASHES[shape % DASHES.length]];
    const line = given.mode === "bars" || (given.mode === "points" && !given.joined) ? null : el("line", { x1: 0, x2: 24, y1: 6, y2: 6, stroke, "stroke-width": 2, "stroke-dasharray": dash });
    return el("span", { class: "key" }, el("svg", { viewBox: "0 0 24 12", width: 24, height: 12, "aria-hidden": "true" }, [line, marked ? mark(given.mode === "bars" ? "square" : MARKS[shape % MARKS.length], stroke) : null].filter(Boolean)), said(given.name));
  });
}
function mark(name, fill) {
  const paths = { circle: "M12 2a4 4 0 1 0 .01 0Z", square: "M8 2h8v8h-8Z", diamond: "M12 1l5 5-5 5-5-5Z", "triangle-up": "M12 1l5 9h-10Z", x: "M8 3l2-1 2 3 2-3 2 1-2 3 2 3-2 1-2-3-2 3-2-1 2-3Z", star: "M12 1l1.5 3.5 3.5.3-2.7 2.3.9 3.6-3.2-2-3.2 2 .9-3.6L7 4.800l3.500-.3Z" };
  return el("path", { d: paths[name], fill });
}

/** Means over the steps around each, a twentieth of all, for a line that can be followed; null where there is too little. */
function smooth(y) {
  if (y.length < 30) return null;
  const width = Math.max(2, Math.round(y.length / 40));
  return y.map((_, at) => {
    const near = y.slice(Math.max(0, at - width), at + width + 1).filter(known);
    return near.length ? near.reduce((sum, value) => sum + value, 0) / near.length : null;
  });
}

/** A text of the run for plotly, which takes some of what looks like markup (b, a, br) for markup. */
const unmarked = (text) => plain(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
function traces(spec) {
  const out = [];
  const plural = spec.traces.length > 1;
  spec.traces.forEach((given, at) => {
    const tone = given.tone ? token(given.tone) : colour(given.at ?? at);
    const shape = given.at ?? at;
    const base = { name: unmarked(given.name), x: given.x.map((value) => (typeof value === "string" ? unmarked(value) : value)), y: given.y, meta: { column: given.column || given.name } };
    if (given.mode === "bars") {
      out.push({ ...base, type: "bar", marker: { color: tone, pattern: { shape: ["", "/", ".", "x", "-", "|"][shape % 6], fillmode: "overlay", fgcolor: token("--surface"), fgopacity: 0.75, size: 7, solidity: 0.35 } }, error_y: bars(given, tone) });
    } else if (given.mode === "points") {
      out.push({ ...base, type: "scatter", mode: given.joined ? "lines+markers" : "markers", text: given.ids && given.ids.map(unmarked), error_y: bars(given, tone),
        line: { color: tone, width: 1.6, dash: DASHES[shape % DASHES.length] },
        marker: { color: tone, size: given.joined ? 9 : 6, symbol: MARKS[shape % MARKS.length], opacity: given.joined ? 1 : 0.55, line: { width: 0 } },
        hovertemplate: given.ids ? "%{text}<br>true %{x:.4~g}, predicted %{y:.4~g}<extra></extra>" : undefined });
    } else {
      const mean = spec.smooth === false ? null : smooth(given.y);
      const line = { color: tone, width: 2, dash: DASHES[shape % DASHES.length], shape: "linear" };
      // A number that few of the steps logged stands alone between gaps, where a line would not be drawn.
      const there = given.y.filter(known).length, sparse = there < given.y.length / 2, few = there < 25;
      out.push({ ...base, type: "scatter", connectgaps: sparse, mode: few || sparse ? "lines+markers" : "lines", marker: { color: tone, size: 6, symbol: MARKS[shape % MARKS.length] },
        line: mean ? { ...line, width: 1, dash: "solid" } : line, opacity: mean ? 0.4 : 1, hoverinfo: mean && plural ? "skip" : undefined });
      if (mean) out.push({ ...base, name: plural ? unmarked(given.name) : "mean of steps around", y: mean, meta: { smoothed: true }, type: "scatter", mode: "lines", line });
    }
  });
  return out;
}
function bars(given, tone) {
  if (!given.low) return undefined;
  const away = (bound, sign) => given.y.map((y, at) => (known(y) && known(bound[at]) ? Math.max(0, sign * (bound[at] - y)) : 0));
  return { type: "data", symmetric: false, array: away(given.high, 1), arrayminus: away(given.low, -1), color: tone, thickness: 1.4, width: 5 };
}

function layout(spec) {
  const ink = token("--muted"), line = token("--line");
  const y = spec.y || {}, x = spec.x || {};
  const axis = { gridcolor: line, zeroline: false, linecolor: line, tickcolor: line, automargin: true, tickfont: { size: 11 }, fixedrange: false };
  const flat = spec.traces.flatMap((given) => given.y).filter(known);
  const still = flat.length && Math.min(...flat) === Math.max(...flat);
  const range = y.range || (still ? (y.share ? [-0.03, 1.03] : [flat[0] - Math.max(0.5 * Math.abs(flat[0]), 0.05), flat[0] + Math.max(0.5 * Math.abs(flat[0]), 0.05)]) : undefined);
  return {
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", color: ink, size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 44, r: 14, t: 10, b: 34 },
    hoverlabel: { bgcolor: token("--raised"), bordercolor: line, font: { color: token("--ink"), size: 12 } },
    hovermode: x.kind === "number" ? "closest" : "x unified", showlegend: false, barmode: "group", bargap: 0.3, bargroupgap: 0.08,
    dragmode: "zoom", uirevision: "one",
    xaxis: { ...axis, showgrid: x.kind === "number", title: { text: x.title === undefined ? "step" : x.title, font: { size: 11.5 }, standoff: 6 }, range: x.range, type: x.kind === "category" ? "category" : undefined },
    yaxis: { ...axis, title: { text: y.title || "", font: { size: 11.5 }, standoff: 6 }, range, tickformat: y.share ? ".3~p" : undefined, exponentformat: "e", rangemode: y.zero ? "tozero" : undefined, hoverformat: y.share ? ".1%" : ".4~g" },
    shapes: (spec.lines || []).map((one) => ({ type: "line", x0: one.x0, x1: one.x1, y0: one.y0, y1: one.y1, xref: one.xref || "x", yref: "y", line: { color: token("--muted"), width: 1.2, dash: "dot" } })),
    annotations: (spec.lines || []).filter((one) => one.label).map((one) => ({ text: unmarked(one.label), x: one.x1, y: one.y1, xref: one.xref || "x", yref: "y", xanchor: "right", yanchor: "bottom", showarrow: false, font: { size: 11, color: token("--muted") } })),
  };
}

/** One sentence for who does not see the chart. */
function described(spec) {
  const parts = spec.traces.slice(0, 8).map((given) => {
    const values = given.y.filter(known);
    if (!values.length) return `${plain(given.name)}: no values`;
    const told = (value) => (spec.y && spec.y.share ? percent(value) : short(value));
    return given.ids ? `${plain(given.name)}: ${values.length} points` : `${plain(given.name)}: from ${told(values[0])} to ${told(values.at(-1))}, least ${told(Math.min(...values))}, most ${told(Math.max(...values))}`;
  });
  return `Chart: ${plain(spec.title)}${spec.unit ? `, ${spec.unit}` : ""}. ${parts.join("; ")}. The data stand below it.`;
}

function dataTable(spec) {
  const one = spec.traces.every((given) => given.x === spec.traces[0].x || JSON.stringify(given.x) === JSON.stringify(spec.traces[0].x));
  const cell = (given, at) => {
    const value = known(given.y[at]) ? String(given.y[at]) : "–";
    return given.low && known(given.low[at]) ? `${value} [${given.low[at]}, ${given.high[at]}]` : value;
  };
  const name = spec.x && spec.x.title !== undefined ? spec.x.title || "name" : "step";
  if (one && !spec.traces[0]?.ids) {
    const rows = spec.traces[0] ? spec.traces[0].x.map((x, at) => [said(x), ...spec.traces.map((given) => cell(given, at))]) : [];
    return table(`Data of “${plain(spec.title)}”`, [name, ...spec.traces.map((given) => said(given.name))], rows);
  }
  const rows = spec.traces.flatMap((given) => given.x.map((x, at) => [said(given.ids ? given.ids[at] : given.name), said(given.name), String(x), cell(given, at)]));
  return table(`Data of “${plain(spec.title)}”`, ["item", "series", name, spec.y?.title || "value"], rows);
}
