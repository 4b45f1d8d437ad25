// The run at a glance, held-out accuracy, the forgetting matrix, and probes.
const STATES = { done: ["✓", "done"], begun: ["◐", "begun"], waiting: ["○", "waiting"], running: ["◐", "under way"], stopped: ["■", "stopped"] };
function pill(state) {
  const [mark, name] = STATES[state] || ["?", plain(state)];
  return el("span", { class: `pill ${state}` }, el("span", { "aria-hidden": "true" }, mark), ` ${name}`);
}

/** Accuracy after the start and each stage, of the summary: [{name, kind, own, stale, seconds, modalities}]. */
function measured(data) {
  const summary = data.summary;
  if (!summary) return [];
  const start = summary.start ? [{ name: "(start)", kind: null, modality: null, modalities: summary.start.modalities }] : [];
  return [...start, ...summary.stages].filter((row) => Object.keys(row.modalities).length);
}
function modalitiesOf(rows) {
  const found = [...new Set(rows.flatMap((row) => Object.keys(row.modalities)))];
  return found.sort((a, b) => MODALITIES.indexOf(a) - MODALITIES.indexOf(b));
}

/** What one run of an evaluation found, as rows of the summary have it: by modality where shares of them are among its figures, else its headline. */
function entriesOf(found, run) {
  const figures = (found.runs[run] && found.runs[run].figures) || {}, real = (found.runs[realOf(found)] || {}).figures || {};
  const shares = Object.keys(real).filter((name) => name.startsWith("modality ") && real[name].unit === "share");
  const constant = (found.baseline && found.baseline.figures) || {};
  const names = (shares.length ? shares : [found.headline]).filter((name) => figures[name] && known(figures[name].value));
  return Object.fromEntries(names.map((name) => {
    const { value, low, high, n, unit } = figures[name];
    return [shares.length ? name.slice(9) : name, { accuracy: value, low, high, n, unit, majority: constant[name] }];
  }));
}
const realOf = (found) => (found.runs.greedy ? "greedy" : Object.keys(found.runs)[0]);
/** The evaluate stages of which there are figures, with the same fields as what is `measured` after a training stage. */
function evaluated(data) {
  return data.stages.filter((stage) => stage.kind === "evaluate" && data.figures[stage.name])
    .map(({ name }) => ({ name, modalities: entriesOf(data.figures[name], realOf(data.figures[name])) })).filter((row) => Object.keys(row.modalities).length);
}
const withUnit = (entry, digits) => (entry.unit && entry.unit !== "share" ? [entry.accuracy, entry.low, entry.high].map((value) => printed(value, entry.unit)) : [percent(entry.accuracy), percent(entry.low, digits), percent(entry.high, digits)]);

function glance(data) {
  const run = data.run, rows = measured(data), seconds = run.seconds;
  const total = (seconds.train_s || 0) + (seconds.evaluate_s || 0) + (seconds.render_s || 0) + (seconds.start_evaluate_s || 0);
  const model = run.model.path || (run.model.tiny ? "tiny model of the real architecture" : "model");
  const facts = [
    `${data.stages.length} stage${data.stages.length === 1 ? "" : "s"}`, model, known(run.seed) ? `seed ${run.seed}` : null,
    run.device ? `on ${run.device.name}` : null, total ? `${duration(total)}${run.state === "done" ? "" : " in what is finished"}` : null,
  ].filter(Boolean);
  const head = el("header", { class: "hero" },
    el("p", { class: "over" }, "Report of a run"),
    el("div", { class: "hero-line" }, el("h1", {}, said(run.name)), pill(run.state)),
    el("p", { class: "facts" }, facts.flatMap((fact, at) => [at ? el("span", { class: "dot", "aria-hidden": "true" }, " · ") : null, said(fact)])));
  return el("div", { id: "glance" }, head, cards(rows), evaluatedCards(data), headCards(data), flow(data), protocol(data));
}

/** A card a modality: the last accuracy with its interval, and its way there. */
function cards(rows) {
  const names = modalitiesOf(rows);
  if (!names.length) return null;
  return el("ul", { class: "cards", "aria-label": "Held-out accuracy by modality" }, names.map((name) => {
    const of = rows.filter((row) => row.modalities[name]);
    const last = of.at(-1), entry = last.modalities[name], first = of[0];
    return el("li", { class: "card" },
      el("p", { class: "card-name" }, el("span", { class: `swatch m-${name}`, "aria-hidden": "true" }), modalityName(name)),
      el("p", { class: "card-value" }, percent(entry.accuracy)),
      el("p", { class: "card-note" }, `[${percent(entry.low, 0)}, ${percent(entry.high, 0)}] of ${count(entry.n)} held-out items`),
      spark(of.map((row) => row.modalities[name].accuracy), name),
      el("p", { class: "card-note" }, of.length > 1 ? ["from ", percent(first.modalities[name].accuracy), " ", afterStage(first.name)] : [afterStage(last.name)],
        known(entry.majority) ? `; a constant answer: ${percent(entry.majority)}` : "", earlier(last)));
  }));
}
/** Cards of evaluate stages, each modality (or the headline) of each. */
function evaluatedCards(data) {
  const found = evaluated(data).flatMap((row) => Object.entries(row.modalities).map(([name, entry]) => {
    const [value, low, high] = withUnit(entry, 0);
    return el("li", { class: "card bare" }, el("p", { class: "card-name" }, MODALITIES.includes(name) ? el("span", { class: `swatch m-${name}`, "aria-hidden": "true" }) : null, el("span", {}, said(row.name), ": ", modalityName(name))),
      el("p", { class: "card-value" }, value), el("p", { class: "card-note" }, `[${low}, ${high}] of ${count(entry.n)} held-out items`),
      known(entry.majority) ? el("p", { class: "card-note" }, `a constant answer: ${printed(entry.majority, entry.unit)}`) : null);
  }));
  return found.length ? el("ul", { class: "cards", "aria-label": "Figures of evaluate stages" }, found) : null;
}

/** A card of each number that a head puts out (SRCC), and of each task whose poses it does (PA-MPJPE, beside that of the mean pose). */
function headCards(data) {
  const found = Object.entries(data.heads).flatMap(([stage, { scores }]) => Object.entries(scores.tasks || {}).flatMap(([task, entry]) => {
    const told = [el("span", {}, "head ", said(scores.head), " "), afterStage(stage), earlier((data.summary && data.summary.heads && data.summary.heads[stage]) || {})];
    const card = (name, value, note, ...more) => el("li", { class: "card bare" }, el("p", { class: "card-name" }, said(name)), el("p", { class: "card-value" }, value),
      el("p", { class: "card-note" }, `${note} of ${count(entry.n)} held-out records`), el("p", { class: "card-note" }, told, ...more));
    const within = (figure, digits) => (known(figure.low) ? ` [${fixed(figure.low, digits)}, ${fixed(figure.high, digits)}]` : "");
    const posed = entry.pa_mpjpe_mm;
    if (posed && known(posed.value)) return [card(task, `${fixed(posed.value, 1)} mm`, `PA-MPJPE${within(posed, 1)}`, known(posed.mean_pose) ? `; the mean pose: ${fixed(posed.mean_pose, 1)} mm` : "")];
    return Object.entries(entry).filter(([, figures]) => figures && figures.srcc && known(figures.srcc.value)).map(([name, { srcc }]) => card(`${task}: ${name}`, fixed(srcc.value, 3), `SRCC${within(srcc, 3)}`));
  }));
  return found.length ? el("ul", { class: "cards", "aria-label": "Figures of heads" }, found) : null;
}
// Of a stage that stands on another model than the one before it is by now.
const STALE = "from an earlier model";
const earlier = (row) => (row.stale ? el("span", { class: "bad" }, ` ${STALE}`) : null);
const afterStage = (name) => (name === "(start)" ? "at the start" : el("span", {}, "after ", said(name)));
function spark(values, name) {
  const width = 220, height = 40, pad = 5;
  const low = Math.min(...values), high = Math.max(...values), reach = high - low || 1;
  const x = (at) => (values.length > 1 ? pad + (at * (width - 2 * pad)) / (values.length - 1) : width / 2);
  const y = (value) => (high === low ? height / 2 : height - pad - ((value - low) * (height - 2 * pad)) / reach);
  const points = values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  return el("svg", { class: `spark m-${name}`, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", preserveAspectRatio: "none" },
    el("polyline", { points, fill: "none", "vector-effect": "non-scaling-stroke" }), values.map((value, at) => el("path", { d: `M${x(at)} ${y(value)}h0`, class: at === values.length - 1 ? "last" : null, "vector-effect": "non-scaling-stroke" })));
}

/** The stages in their order, each with what it is and how far it is. */
function flow(data) {
  return el("div", {}, el("h2", { class: "small" }, "Stages"), el("ol", { class: "flow" }, data.stages.map((stage) => {
    const rewards = stage.rewards.map((use) => [said(use.name), use.weight === 1 ? "" : ` ×${short(use.weight)}`]);
    const chosen = stage.choice ? `step ${stage.choice.chosen} chosen by ${plain(stage.choice.figure)}` : null;
    const steps = stage.steps || stage.of ? `${count(stage.steps)}${stage.of ? ` of ${count(stage.of)}` : ""} steps` : "no steps";
    return el("li", { class: `stage ${stage.state}` },
      el("div", { class: "stage-head" }, el("strong", {}, said(stage.name)), pill(stage.state)),
      el("p", {}, said(stage.kind), stage.modality ? [" · ", modalityName(stage.modality)] : "", stage.kind === "evaluate" ? "" : ` · ${steps}`),
      rewards.length ? el("p", {}, "rewards: ", rewards.flatMap((one, at) => [at ? ", " : "", ...one])) : null,
      el("p", {}, stage.seconds.train_s ? `trained ${duration(stage.seconds.train_s)}` : "", stage.seconds.evaluate_s ? ` · measured ${duration(stage.seconds.evaluate_s)}` : ""),
      chosen ? el("p", {}, chosen) : null,
      stage.gate ? el("p", { class: stage.gate.passed ? "good" : "bad" }, stage.gate.passed ? "✓ " : "✕ ", said(stage.gate.said)) : null,
      stage.nonfinite.length ? el("p", { class: "bad" }, `✕ ${stage.nonfinite.length} steps with a gradient that is not finite`) : null);
  })), notes(data, "run"));
}

function protocol(data) {
  const run = data.run, rows = [];
  const add = (name, value) => { if (value !== null && value !== undefined && value !== "") rows.push([name, value]); };
  const told = (value) => said(typeof value === "string" ? value : JSON.stringify(value));
  add("seed", known(run.seed) ? String(run.seed) : null);
  add("recipe", run.source && said(run.source));
  add("prompt", run.prompt && said(run.prompt));
  const setup = run.setup || {};
  add("held-out items", setup.items ? count(setup.items.count) : null);
  add("benchmark", setup.benchmark && said(setup.benchmark));
  add("answers", setup.drawing && told(setup.drawing));
  add("probes", setup.probes && setup.probes.length ? said(setup.probes.join(", ")) : null);
  add("device", run.device && told(run.device));
  add("media shown", run.media && told(Object.fromEntries(Object.entries(run.media).filter(([key]) => ["fps", "max_frames", "max_sound_s", "min_pixels", "max_pixels"].includes(key)))));
  add("model", told(Object.fromEntries(Object.entries(run.model).filter(([, value]) => value !== null && !(Array.isArray(value) && !value.length)))));
  add("launch", told(run.launch));
  add("versions", said(Object.entries(run.versions).map(([name, version]) => `${name} ${version}`).join(", ")));
  const recipe = el("pre", { tabindex: "0", "aria-label": "The resolved recipe" });
  const details = el("details", { ontoggle: () => { if (details.open && !recipe.childNodes.length) recipe.append(said(JSON.stringify(run.recipe, null, 2))); } }, el("summary", {}, "The resolved recipe"), recipe);
  return el("details", { class: "box" }, el("summary", {}, "Protocol: seeds, items, versions, recipe"), table("How the run was made", ["what", "value"], rows), details);
}

function accuracy(data) {
  const rows = measured(data), names = modalitiesOf(rows);
  const figures = figureTable(data);
  if (!rows.length) {
    return section("accuracy", "Held-out accuracy", null, notes(data, "accuracy") || (figures ? null : missing("nothing has been measured")), evaluatedChart(data), figures, againstTables(data));
  }
  const last = rows.at(-1);
  const spec = {
    id: "accuracy", heading: "h3", title: "Accuracy after each stage", unit: "share of held-out items answered rightly; bars are 95 % intervals over clips", smooth: false, height: 320,
    x: { title: "", kind: "category" }, y: { share: true, range: [0, 1.03] },
    traces: names.map((name) => {
      const of = rows.filter((row) => row.modalities[name]);
      return { name: modalityName(name), column: name, at: MODALITIES.indexOf(name), mode: "points", joined: true, x: of.map((row) => (row.stale ? `${row.name} (${STALE})` : row.name)), ...bounds(of.map((row) => row.modalities[name]), "accuracy") };
    }),
  };
  return section("accuracy", "Held-out accuracy",
    "The same held-out items after every stage, answered greedily. An answer that is missing or cannot be read counts as wrong.",
    chart(spec), matrix(rows, names, last), notes(data, "accuracy"), evaluatedChart(data), figures, againstTables(data));
}
/** Shares that evaluate stages found, beside each other. */
function evaluatedChart(data) {
  const rows = evaluated(data).map((row) => ({ ...row, modalities: Object.fromEntries(Object.entries(row.modalities).filter(([, entry]) => entry.unit === "share")) }));
  const names = modalitiesOf(rows);
  if (!names.length) return null;
  return chart({
    id: "evaluated", heading: "h3", title: "Accuracy in evaluate stages", unit: "share of items answered rightly; bars are 95 % intervals over clips", smooth: false, height: 320,
    x: { title: "", kind: "category" }, y: { share: true, range: [0, 1.03] },
    traces: rows.map((row, at) => { const there = names.filter((name) => row.modalities[name]); return { name: row.name, column: row.name, at, mode: "bars", x: there.map(modalityName), ...bounds(there.map((name) => row.modalities[name]), "accuracy") }; }),
  });
}
function bounds(entries, name) {
  return { y: entries.map((entry) => entry[name]), low: entries.map((entry) => entry.low), high: entries.map((entry) => entry.high) };
}

/** Stage × modality: what each stage left of what the ones before it taught. */
function matrix(rows, names, last) {
  const cell = (row, name) => {
    const entry = row.modalities[name];
    if (!entry) return "–";
    const own = row.modality === name;
    const sure = known(entry.gain) ? (entry.gain_low > 0 ? "up" : entry.gain_high < 0 ? "down" : "flat") : "none";
    const mark = { up: "▲", down: "▼", flat: "≈", none: "" }[sure];
    const strength = known(entry.gain) ? Math.min(0.34, Math.abs(entry.gain) * 0.9) : 0;
    const tint = sure === "up" || sure === "down" ? `--tint:${Math.round(100 * strength)}%` : null;
    const gain = known(entry.gain) ? el("span", { class: `gain ${sure}` }, el("span", { "aria-hidden": "true" }, `${mark} `), `${signed(100 * entry.gain)} `,
      el("span", { class: "span" }, `[${signed(100 * entry.gain_low)}, ${signed(100 * entry.gain_high)}]`)) : null;
    return { attributes: { class: `acc ${sure}`, style: tint, "data-cell": `${row.name}/${name}` },
      node: el("div", {}, el("span", { class: "acc-value" }, percent(entry.accuracy)), own ? el("span", { class: "own", title: "the stage's own modality" }, "● own") : null,
        el("span", { class: "span" }, ` [${percent(entry.low, 0)}, ${percent(entry.high, 0)}]`), gain) };
  };
  const body = rows.map((row) => [el("span", {}, said(row.name), earlier(row)), ...names.map((name) => cell(row, name))]);
  const constant = ["a constant answer", ...names.map((name) => percent(last.modalities[name]?.majority))];
  return el("div", { class: "block" }, el("h3", {}, "What each stage gained and forgot"),
    table("Accuracy after each stage, by modality", ["after", ...names.map(modalityName)], [...body, constant], { class: "matrix" }),
    el("p", { class: "hint" }, "Second line: the paired difference to the model that the stage started from, in points, with its 95 % interval over clips. ▲ and ▼: the interval leaves 0 out; ≈: it does not, so nothing was shown. ● own: the modality that the stage trained."));
}

/** Every figure of every evaluation, as `scores.json` has them. */
function figureTable(data) {
  const stages = Object.keys(data.figures);
  if (!stages.length) return null;
  const of = (stage) => { const runs = data.figures[stage].runs; return (runs.greedy || Object.values(runs)[0]).figures; };
  const names = [...new Set(stages.flatMap((stage) => Object.keys(of(stage))))];
  const cell = (stage, name) => {
    const figure = of(stage)[name];
    if (!figure || !known(figure.value)) return "–";
    return el("span", {}, printed(figure.value, figure.unit), known(figure.low) ? el("span", { class: "span" }, ` [${printed(figure.low, figure.unit)}, ${printed(figure.high, figure.unit)}]`) : null);
  };
  const n = (name) => count(of(stages.find((stage) => of(stage)[name]))[name].n);
  const headline = data.figures[stages.at(-1)].headline;
  const rows = names.map((name) => [el(name === headline ? "strong" : "span", {}, said(name)), n(name), ...stages.map((stage) => cell(stage, name))]);
  return el("details", { class: "box" }, el("summary", {}, `All ${names.length} figures of each evaluation, by task`), table("Figures after each stage, with 95 % intervals", ["figure", "n", ...stages.map((name) => said(name))], rows));
}

/** Evaluate stages against an earlier one that asked the same items, as the run compared them. */
function againstTables(data) {
  const found = Object.entries((data.summary && data.summary.evaluations) || {}).filter(([, one]) => one.against);
  return found.map(([name, { against }]) => el("div", { class: "block" }, el("h3", {}, said(name), " against ", said(against.stage)), table(`Stage ${plain(name)} against ${plain(against.stage)}`, ["figure", "before", "after", "difference", "p"],
    against.figures.map((one) => [said(one.name), printed(one.before, one.unit), printed(one.after, one.unit), `${signed((one.scale || 1) * one.value)} [${signed((one.scale || 1) * one.low)}, ${signed((one.scale || 1) * one.high)}]`, short(one.p)]))));
}

const CONTROL_TEXT = {
  swapped: "the clip of another record", blank: "black picture and silence", swapped_sound: "the sound of another clip", swapped_picture: "the picture of another clip",
  muted: "silence with the real picture", blank_picture: "black picture with the real sound", shuffled: "frames in another order",
};
/** Evaluations with probes: [{stage, names, real, by: {probe: entries}}], of training stages as the summary has them, of evaluate stages from their figures. */
function probed(data) {
  const controls = (data.summary && data.summary.controls) || {};
  const names = Object.keys(controls).filter((name) => Object.keys(controls[name]).length);
  const out = [];
  if (names.length) {
    const stage = [...data.summary.stages].reverse().find((row) => data.figures[row.name] && names.every((name) => data.figures[row.name].runs[name]));
    out.push({ stage: stage ? stage.name : null, names, real: stage ? stage.modalities : {}, by: controls });
  }
  for (const { name } of data.stages.filter((stage) => data.figures[stage.name] && (stage.kind === "evaluate" || !names.length))) {
    const found = data.figures[name], asked = Object.keys(found.probes || {}).filter((run) => found.runs[run]);
    if (asked.length) out.push({ stage: name, names: asked, real: entriesOf(found, "greedy"), by: Object.fromEntries(asked.map((run) => [run, entriesOf(found, run)])) });
  }
  return out;
}

function probes(data) {
  const found = probed(data);
  const lead = "The same questions about media that cannot answer them. A model that looks and listens must fall to what a constant answer scores.";
  if (!found.length) return section("probes", "Probes", lead, notes(data, "probes") || missing("no evaluation of this run asked probes (controls of evaluation, or of an evaluate stage, in the recipe)"));
  return section("probes", "Probes", lead, found.map((one, at) => probesOf(data, one, at ? `probes/${one.stage}` : "probes")), notes(data, "probes"));
}

/** The probes of one evaluation: a chart of what are shares, and a table. */
function probesOf(data, { stage, names, real, by }, id) {
  const modalities = modalitiesOf([{ modalities: real }, ...names.map((name) => ({ modalities: by[name] }))]);
  const series = [["real media", real], ...names.map((name) => [name, by[name]])];
  const isShare = (entry) => entry && (entry.unit || "share") === "share";
  const spec = {
    id, heading: "h3", title: "Accuracy with real and with altered media", unit: "share; bars are 95 % intervals over clips", smooth: false, height: 320, x: { title: "", kind: "category" }, y: { share: true, range: [0, 1.03] },
    traces: series.map(([name, entries], at) => {
      const there = modalities.filter((modality) => isShare(entries[modality]));
      return { name, column: name, at, tone: at ? null : "--accent", mode: "bars", x: there.map(modalityName), ...bounds(there.map((modality) => entries[modality]), "accuracy") };
    }),
    lines: [],
  };
  const drops = (stage && data.figures[stage].probes) || {};
  const rows = series.map(([name, entries], at) => [el("span", {}, said(name), at && CONTROL_TEXT[name] ? el("span", { class: "sub" }, CONTROL_TEXT[name]) : null), ...modalities.map((modality) => {
    const entry = entries[modality], of = (at && drops[name]) || {}, drop = of[`modality ${modality}`] || of[modality];
    if (!entry) return "–";
    const [value, low, high] = withUnit(entry, 0), scale = drop ? drop.scale || 100 : 1;
    return el("div", {}, el("span", { class: "acc-value" }, value), el("span", { class: "span" }, ` [${low}, ${high}]`),
      drop && known(drop.value) ? el("span", { class: "gain" }, `${signed(scale * drop.value)} `, el("span", { class: "span" }, `[${signed(scale * drop.low)}, ${signed(scale * drop.high)}]`)) : null);
  })]);
  rows.push(["a constant answer", ...modalities.map((modality) => (real[modality] ? printed(real[modality].majority, real[modality].unit || "share") : "–"))]);
  return el("div", { class: "block" }, stage ? el("p", { class: "hint" }, "After stage ", said(stage), ".") : null, spec.traces.some((one) => one.x.length) ? chart(spec) : null,
    table("Accuracy with real and with altered media", ["media", ...modalities.map(modalityName)], rows, { class: "matrix" }));
}
