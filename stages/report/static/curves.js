// The curves of each stage: what metrics.jsonl says, step by step.
const SHOWN_CURVES = new Set();
function curves(data) {
  const begun = data.stages.filter((stage) => stage.metrics.steps.length);
  if (!begun.length) return section("curves", "Training curves", null, missing("no stage has logged a step yet"), notes(data, "curves"));
  const panel = el("div", { id: "curves-panel" });
  const buttons = begun.map((stage) => el("button", { type: "button", class: "tab", "data-stage": stage.name, onclick: () => show(stage) }, said(stage.name), el("span", { class: "sub" }, said(stage.kind))));
  const show = (stage) => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.stage === stage.name)));
    for (const id of [...charts.keys()]) if (id.startsWith("curves/")) charts.delete(id);
    panel.replaceChildren(el("h3", {}, said(stage.name)), ...stagePanel(stage));
    state.curvesStage = stage.name;
  };
  const first = begun.find((stage) => stage.name === state.curvesStage) || [...begun].reverse().find((stage) => stage.kind === "grpo") || begun.at(-1);
  show(first);
  return section("curves", "Training curves", "Every number a stage logged, step by step (metrics.jsonl). Thin lines are single steps, thick ones the mean of the steps around.",
    el("div", { class: "tabs", role: "group", "aria-label": "Stage" }, buttons), panel, notes(data, "curves"));
}

const TITLES = {
  reward: ["Total reward", "weighted sum of rewards, mean over completions"], kl: ["KL to the reference", "nats per token"], entropy: ["Entropy", "nats per token"],
  frac_reward_zero_std: ["Groups with no spread", "share of prompts whose completions are all worth the same"], grad_norm: ["Gradient norm", "before clipping"],
  learning_rate: ["Learning rate", ""], loss: ["Loss", ""], step_time: ["Time of a step", "seconds"], step_seconds: ["Time of a step", "seconds"], peak_memory_mb: ["Peak memory", "MB"],
  num_tokens: ["Tokens seen", "since the stage began"], mean_token_accuracy: ["Token accuracy", "share of demonstrated tokens that are the likeliest"],
  "completions/clipped_ratio": ["Completions cut at the longest length", "share"], reward_std: ["Spread of the total reward", "standard deviation"],
  "media/wait_s": ["Waiting for clips", "seconds a step"], "media/decoded": ["Clips decoded", "a step"],
};
const SMOOTH_BY_ITSELF = new Set(["learning_rate", "num_tokens", "peak_memory_mb"]);
const SHARES = /frac_reward_zero_std|clipped_ratio|not_scored|mean_token_accuracy|clip_ratio/;

function stagePanel(stage) {
  const { steps, columns } = stage.metrics;
  const used = new Set();
  const line = (column, name, at) => { used.add(column); return { name: name || column, column, x: steps, y: columns[column], at }; };
  const single = (column) => {
    if (!columns[column]) return null;
    const [title, unit] = TITLES[column] || [column, ""];
    return chart({ id: `curves/${stage.name}/${column}`, title, unit, smooth: SMOOTH_BY_ITSELF.has(column) ? false : undefined, y: { share: SHARES.test(column) }, traces: [line(column)] });
  };
  const several = (id, title, unit, given, y) => {
    const there = given.filter(([column]) => columns[column]);
    return there.length ? chart({ id: `curves/${stage.name}/${id}`, title, unit, y: y || {}, traces: there.map(([column, name], at) => line(column, name, at)) }) : null;
  };
  const rewards = [...new Set(Object.keys(columns).map((name) => /^rewards\/(.+?)\/(mean|not_scored)$/.exec(name)?.[1]).filter((name) => name && !/\/(modality|task)\//.test(name)))];
  const groups = [];
  const add = (title, ...figures) => { const there = figures.flat().filter(Boolean); if (there.length) groups.push(el("h4", { class: "group" }, title), el("div", { class: "grid" }, there)); };
  add("Rewards", single("reward"), rewards.map((name) => rewardChart(stage, name, columns, steps, used)), single("frac_reward_zero_std"),
    several("not_scored", "Not scored", "share of completions that a reward gave no value", rewards.map((name) => [`rewards/${name}/not_scored`, name]), { share: true }), single("reward_std"));
  add("Completions", several("length", "Length of completions", "tokens", [["completions/mean_length", "mean"], ["completions/min_length", "shortest"], ["completions/max_length", "longest"]], { zero: true }),
    single("completions/clipped_ratio"), single("entropy"));
  const clips = Object.keys(columns).filter((name) => name.startsWith("clip_ratio/"));
  add("Learning", single("loss"), single("kl"), several("clip_ratio", "Clipped tokens", "share of tokens outside the trust region", clips.filter((name) => /mean$/.test(name)).map((name) => [name, name.slice(11).replace("_mean", "")]), { share: true }),
    single("grad_norm"), single("learning_rate"), single("mean_token_accuracy"), headCharts(stage, columns, single));
  add("Time and memory", single("step_time"), single("step_seconds"), single("peak_memory_mb"), single("media/wait_s"));
  const rest = Object.keys(columns).filter((name) => !used.has(name)).sort();
  const out = [...groups];
  if (stage.metrics.every > 1) out.unshift(el("p", { class: "hint" }, `Of ${count(stage.metrics.rows)} steps every ${stage.metrics.every}th is shown, and the last.`));
  if (rest.length) out.push(explorer(stage, rest));
  return out;
}

function headCharts(stage, columns, single) {
  return Object.keys(columns).filter((name) => stage.kind === "head" && /^[^/]+\/[^/]+$/.test(name) && !/^(media|features|completions|rewards)\//.test(name)).map(single);
}

/** One reward: of all completions, or by modality, or by task. */
function rewardChart(stage, name, columns, steps, used) {
  const prefix = `rewards/${name}/`;
  const ways = { all: [[`${prefix}mean`, name]] };
  for (const split of ["modality", "task"]) {
    const found = Object.keys(columns).filter((column) => column.startsWith(`${prefix}${split}/`) && column.endsWith("/mean"));
    if (found.length) ways[split] = found.map((column) => [column, column.slice(prefix.length + split.length + 1, -5)]);
  }
  for (const column of Object.keys(columns)) if (column.startsWith(prefix)) used.add(column);
  if (!columns[`${prefix}mean`]) return null;
  const weight = stage.rewards.find((use) => use.name === name)?.weight;
  const spec = (way) => ({
    id: `curves/${stage.name}/rewards/${name}`, title: `Reward: ${plain(name)}`, unit: `mean over completions${way === "all" ? "" : `, by ${way}`}${known(weight) ? `; weight ${short(weight)}` : ""}`,
    traces: ways[way].map(([column, label], at) => ({ name: way === "modality" ? modalityName(label) : label, column, x: steps, y: columns[column], at: way === "modality" ? MODALITIES.indexOf(label) : at })),
  });
  const figure = chart(spec("all"));
  if (Object.keys(ways).length > 1) {
    const buttons = Object.keys(ways).map((way) => el("button", { type: "button", class: "mini", "aria-pressed": String(way === "all"), onclick: (event) => {
      for (const button of event.currentTarget.parentNode.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      figure.querySelector(".unit").textContent = spec(way).unit;
      redraw(figure, spec(way));
    } }, way === "all" ? "all" : `by ${way}`));
    figure.querySelector("figcaption").append(el("div", { class: "minis", role: "group", "aria-label": `Split of reward ${plain(name)}` }, buttons));
  }
  return figure;
}

/** Any other column, chosen by name. */
function explorer(stage, names) {
  const id = `curves/${stage.name}/other`;
  const spec = (name) => ({ id, title: name, unit: "as logged", y: { share: SHARES.test(name) }, traces: [{ name, column: name, x: stage.metrics.steps, y: stage.metrics.columns[name] }] });
  const figure = chart(spec(names[0]));
  const field = choice("other-metric", `Any other of the ${names.length} logged numbers`, names.map((name) => [name, plain(name)]), (name) => {
    figure.querySelector(".chart-title").textContent = plain(name);
    redraw(figure, spec(name));
  });
  field.classList.add("some");
  return el("div", {}, el("h4", { class: "group" }, "Others"), field, el("div", { class: "grid" }, figure));
}
