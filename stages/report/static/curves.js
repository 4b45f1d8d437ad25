// The curves of each stage: what metrics.jsonl says, step by step.
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
  learning_rate: ["Learning rate", ""], loss: ["Loss", ""], step_time: ["Time of a step, the trainer's", "seconds"], step_seconds: ["Time of a step", "seconds; waiting for clips not counted"], peak_memory_mb: ["Peak memory", "MB"],
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
  add("Rewards", single("reward"), rewards.map((name) => rewardChart(stage, name, line)), single("frac_reward_zero_std"),
    notScoredChart(stage, rewards, line), single("reward_std"));
  add("Completions", several("length", "Length of completions", "tokens", [["completions/mean_length", "mean"], ["completions/min_length", "shortest"], ["completions/max_length", "longest"]], { zero: true }),
    single("completions/clipped_ratio"), single("entropy"));
  const clips = Object.keys(columns).filter((name) => name.startsWith("clip_ratio/"));
  add("Learning", single("loss"), single("kl"), several("clip_ratio", "Clipped tokens", "share of tokens outside the trust region", clips.filter((name) => /mean$/.test(name)).map((name) => [name, name.slice(11).replace("_mean", "")]), { share: true }),
    single("grad_norm"), single("learning_rate"), single("mean_token_accuracy"), headCharts(stage, columns, single));
  add("Time and memory", single("step_time"), single("step_seconds"), single("peak_memory_mb"), single("media/wait_s"));
  const rest = Object.keys(columns).filter((name) => !used.has(name)).sort();
  const out = [...groups];
  if (stage.metrics.every > 1) out.unshift(el("p", { class: "hint" }, `Of ${count(stage.metrics.rows)} steps every ${stage.metrics.every}th is shown, the last one, and some of those with numbers that are rarely logged.`));
  if (rest.length) out.push(explorer(stage, rest));
  const once = Object.entries(stage.metrics.once);
  if (once.length) out.push(el("p", { class: "hint" }, `Logged once, at the end: ${once.map(([name, value]) => `${name} ${short(value)}`).join(", ")}.`));
  return out;
}

function headCharts(stage, columns, single) {
  return Object.keys(columns).filter((name) => stage.kind === "head" && /^[^/]+\/[^/]+$/.test(name) && !/^(media|features|completions|rewards)\//.test(name)).map(single);
}

/** Columns of rewards by the way in which a chart splits them: {all, modality, task}: [[column, reward, modality or task]]. */
function splitColumns(columns, rewards, figure) {
  const ways = { all: rewards.map((name) => [`rewards/${name}/${figure}`, name]).filter(([column]) => columns[column]) };
  for (const way of ["modality", "task"]) {
    const found = rewards.flatMap((name) => {
      const begins = `rewards/${name}/${way}/`;
      return Object.keys(columns).filter((column) => column.startsWith(begins) && column.endsWith(`/${figure}`)).map((column) => [column, name, column.slice(begins.length, -figure.length - 1)]);
    });
    if (found.length) ways[way] = found;
  }
  return ways;
}

/** A chart of the same figure in several ways, with a button for each; `spec(way)` is what is drawn. */
function splitChart(ways, spec) {
  const specs = new Map(Object.keys(ways).filter((way) => ways[way].length).map((way) => [way, spec(way)]));
  if (!specs.size) return null;
  const [[first, shown]] = specs;
  const figure = chart(shown);
  if (specs.size > 1) {
    const buttons = [...specs].map(([way, other]) => el("button", { type: "button", class: "mini", "aria-pressed": String(way === first), onclick: (event) => {
      for (const button of event.currentTarget.parentNode.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      figure.querySelector(".unit").textContent = other.unit;
      redraw(figure, other);
    } }, way === "all" ? "all" : `by ${way}`));
    figure.querySelector("figcaption").append(el("div", { class: "minis", role: "group", "aria-label": `Split of “${plain(shown.title)}”` }, buttons));
  }
  return figure;
}

/** One reward: of all completions, or by modality, or by task. */
function rewardChart(stage, name, line) {
  const ways = splitColumns(stage.metrics.columns, [name], "mean");
  const weight = stage.rewards.find((use) => use.name === name)?.weight;
  return splitChart(ways, (way) => ({
    id: `curves/${stage.name}/rewards/${name}`, title: `Reward: ${plain(name)}`, unit: `mean over completions${way === "all" ? "" : `, by ${way}`}${known(weight) ? `; weight ${short(weight)}` : ""}`,
    traces: ways[way].map(([column, , label], at) => (way === "modality" ? line(column, modalityName(label), MODALITIES.indexOf(label)) : line(column, label ?? name, at))),
  }));
}

/** What rewards gave no value: of all completions, or by modality, or by task. */
function notScoredChart(stage, rewards, line) {
  const ways = splitColumns(stage.metrics.columns, rewards, "not_scored");
  const labelled = (way, name, label) => (way === "all" ? name : `${name}: ${way === "modality" ? modalityName(label) : label}`);
  return splitChart(ways, (way) => ({
    id: `curves/${stage.name}/not_scored`, title: "Not scored", unit: `share of completions that a reward gave no value${way === "all" ? "" : `, by ${way}`}`, y: { share: true },
    traces: ways[way].map(([column, name, label], at) => line(column, labelled(way, name, label), at)),
  }));
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
