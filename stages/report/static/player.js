// The rollout player: what the policy saw and heard, beside what it said and what that was worth.
function player(data) {
  const shown = data.shown, groups = data.groups;
  const lead = "A prompt as the policy met it in training: the clip, and all of its completions with their rewards.";
  if (!groups.length) return section("rollouts", "Rollouts", lead, notes(data, "rollouts") || missing(data.stages.some((stage) => stage.kind === "grpo") ? "no rollouts are recorded yet" : "this run has no GRPO stage, so there are no rollouts"));
  const view = el("div", { id: "rollout", class: "rollout" });
  let found = groups, at = 0;
  const filters = kept("rollouts", { stage: "", step: "", task: "", modality: "", nospread: false, fell: false, text: "" }), looked = kept("rollout", { at: null });
  const nameOfGroup = (group) => JSON.stringify([group.stage, group.step, part(`group-${group.n}`).id]);
  const values = (name, of) => [...new Set(of.map((group) => group[name]))];

  const matches = (group, but) => (but === "stage" || !filters.stage || group.stage === filters.stage) && (but === "step" || !filters.step || String(group.step) === filters.step)
    && (but === "task" || !filters.task || group.task === filters.task) && (but === "modality" || !filters.modality || group.modality === filters.modality)
    && (!filters.nospread || group.no_spread) && (!filters.fell || group.fell) && (!filters.text || textOf(`group-${group.n}`).includes(filters.text));
  const apply = (keep) => {
    const before = found[at];
    // A step belongs to a stage: other stages have steps of their own.
    if (filters.step && !groups.some((group) => matches(group))) { filters.step = ""; }
    found = groups.filter((group) => matches(group));
    at = keep && before ? Math.max(0, found.indexOf(before)) : 0;
    looked.at = found.length ? nameOfGroup(found[at]) : null;
    options();
    show();
  };
  const options = () => {
    const list = (name, all, told) => setOptions(controls[name], [["", all], ...values(name, groups.filter((group) => matches(group, name))).map((value) => [String(value), told ? told(value) : plain(value)])]);
    list("stage", "all stages");
    list("step", "all steps", (value) => `step ${value}`);
    list("task", "all tasks");
    list("modality", "all modalities", modalityName);
    for (const name of ["stage", "step", "task", "modality"]) controls[name].value = filters[name];
  };
  const show = () => {
    walk.stand(at, found.length);
    view.replaceChildren(found.length ? groupView(part(`group-${found[at].n}`)) : missing("no shown rollout is like that"));
    view.dataset.shown = found.length ? String(found[at].n) : "";
    warm(found.slice(at + 1, at + 3));
  };
  const walk = walker("rollout", "Place among the matching prompts", (to) => { at = to; looked.at = nameOfGroup(found[at]); show(); });

  const controls = {};
  const field = (name, label) => { const node = choice(`rollout-${name}`, label, [["", "all"]], (value) => { filters[name] = value; apply(); }); controls[name] = node.querySelector("select"); return node; };
  const check = (name, label, total) => el("label", { class: "check" }, el("input", { type: "checkbox", id: `rollout-${name}`, checked: filters[name], onchange: (event) => { filters[name] = event.target.checked; apply(); } }), ` ${label}`, el("span", { class: "sub" }, ` ${count(total)}`));
  const text = search("rollout-text", "Text in question or completions", filters.text, (value) => { filters.text = value; apply(); });
  const bar = el("div", { class: "toolbar", role: "group", "aria-label": "Which rollouts" }, field("stage", "Stage"), field("step", "Step"), field("task", "Task"), field("modality", "Modality"), text,
    el("div", { class: "checks" }, check("nospread", "no spread", groups.filter((group) => group.no_spread).length), check("fell", "reward fell", groups.filter((group) => group.fell).length)));
  const box = walk.keys(section("rollouts", "Rollouts", lead, bar, walk.node, view, chosenText(data), notes(data, "rollouts")));
  // The last step of the last stage says most; what it lacks is a select away.
  found = groups.filter((group) => matches(group));
  const again = looked.at === null ? -1 : found.findIndex((group) => nameOfGroup(group) === looked.at);
  at = again >= 0 ? again : Math.max(0, found.findLastIndex((group) => !group.no_spread));
  options();
  show();
  return box;
}

const texts = new Map();
/** What is searched of a sample, in small letters. */
function textOf(id) {
  if (!texts.has(id)) {
    const sample = part(id);
    const said_ = (sample.completions || Object.values(sample.answers)).flatMap((one) => one.parts.map((piece) => piece.text + (piece.end || "")));
    texts.set(id, [sample.id, sample.question, sample.target, ...sample.options, ...said_].join("\n").toLowerCase());
  }
  return texts.get(id);
}
function warm(groups) { for (const group of groups) part(`group-${group.n}`); }

function groupView(group) {
  const badges = [group.no_spread ? el("span", { class: "badge" }, "no spread: all completions are worth the same") : null,
    group.fell ? el("span", { class: "badge bad" }, `reward fell: ${short(group.before)} → ${short(group.mean)} since this prompt was last drawn`) : null,
    group.dropped ? el("span", { class: "badge" }, "drawn, not trained on") : null];
  const head = el("div", { class: "group-head" }, el("h3", {}, said(group.stage), `, step ${count(group.step)}`),
    el("p", { class: "facts" }, said(group.task), " · ", modalityName(group.modality), " · ", said(group.id), known(group.mean) ? ` · mean reward ${short(group.mean)}` : ""), el("p", { class: "badges" }, badges));
  const left = el("div", { class: "seen" }, group.clips.length ? group.clips.map(clipView) : missing("a question without a clip"), question(group),
    group.prompt ? el("details", {}, el("summary", {}, "The prompt as it was asked"), el("p", { class: "prompt", tabindex: "0" }, said(group.prompt))) : null);
  const names = [...new Set(group.completions.flatMap((one) => Object.keys(one.rewards)))];
  const most = Object.fromEntries(names.map((name) => [name, Math.max(1, ...group.completions.map((one) => Math.abs(one.rewards[name] ?? 0)))]));
  const widest = Math.max(1, ...group.completions.map((one) => Math.abs(one.advantage ?? 0)));
  return el("article", { class: "group-box" }, head, el("div", { class: "split" }, left, el("ol", { class: "completions" }, group.completions.map((one, at) => completion(one, at, names, most, widest)))));
}
function completion(one, at, names, most, widest) {
  const rows = names.map((name) => meter(name, one.rewards[name], most[name], "reward"));
  const advantage = meter("advantage", one.advantage, widest, "advantage");
  const segments = Object.entries(one.segments || {}).map(([name, value]) => meter(`advantage of the ${name}`, value, widest, "advantage"));
  const told = Object.entries(one.said || {}).map(([name, value]) => el("div", { class: "reason" }, el("span", { class: "label" }, said(name)), said(value)));
  return el("li", { class: "completion" }, el("div", { class: "completion-head" }, el("span", { class: "number" }, `completion ${at + 1}`), el("span", { class: "worth" }, known(one.total) ? `reward ${short(one.total)}` : "not scored")),
    answerText(one.parts), el("div", { class: "meters" }, rows, advantage, segments), told.length ? el("div", { class: "reasons" }, told) : null);
}
/** A number as a bar beside its name; advantages go both ways from the middle. */
function meter(name, value, most, kind) {
  const share = known(value) ? Math.min(1, Math.abs(value) / most) : 0;
  const style = kind === "advantage" ? (value < 0 ? `right:50%;width:${50 * share}%` : `left:50%;width:${50 * share}%`) : `left:0;width:${100 * share}%`;
  return el("div", { class: `meter ${kind}${value < 0 ? " minus" : ""}` }, el("span", { class: "meter-name", title: plain(name) }, said(name)),
    el("span", { class: "track", "aria-hidden": "true" }, el("span", { class: "fill", style })), el("span", { class: "meter-value" }, known(value) ? (kind === "advantage" ? signed(value, 2) : fixed(value, 2)) : "not scored"));
}

function chosenText(data) {
  const shown = data.shown;
  return el("p", { class: "hint" }, `Shown are ${count(shown.groups)} of ${count(shown.groups_of)} prompts (${count(shown.completions_of)} completions), of ${count(shown.steps.shown)} of ${count(shown.steps.of)} steps. ` +
    `They are chosen by a rule, the same each time: of every stage, task and modality ${shown.most.of_each}, as many with no spread (of ${count(shown.no_spread_of)} in the run) and as many whose reward fell since the prompt was last drawn (of ${count(shown.fell_of)}); ` +
    `then one of every step, spread over the stage; then others, by a digest of step and record, until ${count(shown.most.groups)} or no room is left. Keys: ← and →.`);
}
