// Two checkpoints side by side: what they answered to the same held-out item.
/** The stages that are shown at first: the first and the last, or, where those have no item in common, the last two that do. */
function opening({ evaluated: names, pairs }) {
  const ends = { before: names[0], after: names.at(-1) };
  const common = pairs.filter((pair) => pair.items);
  const { before, after } = common.find((pair) => pair.before === ends.before && pair.after === ends.after) || common.at(-1) || ends;
  return { before, after };
}
function compare(data) {
  const lead = "The same held-out item, answered by the models of two stages.";
  const names = data.shown.evaluated;
  if (!data.items.length || names.length < 1) return section("answers", "Answers side by side", lead, notes(data, "answers") || missing("no evaluation has answers that could be set side by side"));
  const view = el("div", { id: "answer-view" });
  const told = el("p", { class: "hint", id: "answer-counts" });
  const filters = Object.assign(kept("answers", { what: "", modality: "", task: "", text: "" }), opening(data.shown)), looked = kept("answer", { at: null });
  let found = [], at = 0;
  const WHAT = {
    // An item that was not asked, or not judged, has changed into nothing.
    "": () => true, changed: (before, after) => typeof before === "boolean" && typeof after === "boolean" && before !== after, right: (before, after) => before === false && after === true, wrong: (before, after) => before === true && after === false,
    both: (before, after) => before === false && after === false,
  };
  const apply = () => {
    found = data.items.filter((item) => WHAT[filters.what](item.right[filters.before], item.right[filters.after]) && (!filters.modality || item.modality === filters.modality)
      && (!filters.task || item.task === filters.task) && (!filters.text || textOf(`item-${item.n}`).includes(filters.text)));
    at = Math.max(0, found.findIndex((item) => part(`item-${item.n}`).id === looked.at));
    const pair = data.shown.pairs.find((one) => one.before === filters.before && one.after === filters.after) || data.shown.pairs.find((one) => one.before === filters.after && one.after === filters.before);
    const turned = pair && pair.before === filters.after;
    told.replaceChildren(pair ? `Of ${count(pair.items)} items ${count(turned ? pair.wrong : pair.right)} became right and ${count(turned ? pair.right : pair.wrong)} became wrong. ` : "",
      `The page holds ${count(data.shown.items)} of ${count(data.shown.items_of)} items: in turn from each modality, task and course of right and wrong over the stages, those that changed first.`);
    show();
  };
  const show = () => {
    walk.stand(at, found.length);
    view.replaceChildren(found.length ? itemView(part(`item-${found[at].n}`), filters.before, filters.after) : missing("no shown item is like that"));
    view.dataset.shown = found.length ? String(found[at].n) : "";
  };
  const walk = walker("answer", "Place among the matching items", (to) => { at = to; looked.at = part(`item-${found[at].n}`).id; show(); });
  const set = (name) => (value) => { filters[name] = value; looked.at = null; apply(); };
  const stages = names.map((name) => [name, plain(name)]);
  const before = choice("answer-before", "Left: after stage", stages, set("before")), after = choice("answer-after", "Right: after stage", stages, set("after"));
  before.querySelector("select").value = filters.before;
  after.querySelector("select").value = filters.after;
  const what = choice("answer-what", "Which items", [["", "all"], ["changed", "right or wrong has changed"], ["right", "became right"], ["wrong", "became wrong"], ["both", "wrong both times"]], set("what"));
  const list = (name) => [...new Set(data.items.map((item) => item[name]))];
  const modality = choice("answer-modality", "Modality", [["", "all modalities"], ...list("modality").map((value) => [value, modalityName(value)])], set("modality"));
  const task = choice("answer-task", "Task", [["", "all tasks"], ...list("task").map((value) => [value, plain(value)])], set("task"));
  for (const [name, field] of [["what", what], ["modality", modality], ["task", task]]) { const select = field.querySelector("select"); select.value = filters[name]; if (!select.value) filters[name] = select.value = ""; }
  const bar = el("div", { class: "toolbar", role: "group", "aria-label": "Which items" }, before, after, what, modality, task, search("answer-text", "Text in question or answers", filters.text, set("text")));
  apply();
  return walk.keys(section("answers", "Answers side by side", lead, bar, walk.node, view, told, notes(data, "answers")));
}

function itemView(item, before, after) {
  const answer = (name) => {
    const one = item.answers[name];
    const title = el("h4", {}, afterStage(name));
    if (!one) return el("div", { class: "side-answer" }, title, missing("this item was not asked then"));
    const verdict = one.right === true ? ["good", "✓ right"] : one.right === false ? ["bad", "✕ wrong"] : ["", known(one.value) ? `value ${short(one.value)}` : "not judged"];
    return el("div", { class: "side-answer" }, el("div", { class: "completion-head" }, title, el("span", { class: `verdict ${verdict[0]}` }, verdict[1])),
      one.error ? missing(said(one.error)) : answerText(one.parts),
      el("p", { class: "reason" }, el("span", { class: "label" }, "grader"), one.answer !== null ? ["read ", el("strong", {}, said(one.answer)), one.reason ? ": " : ""] : "", one.reason ? said(one.reason) : "", one.status !== "ok" ? ` (${one.status})` : ""));
  };
  return el("article", { class: "group-box" }, el("div", { class: "group-head" }, el("h3", {}, said(item.id)), el("p", { class: "facts" }, said(item.task), " · ", modalityName(item.modality), " · ", said(item.kind))),
    el("div", { class: "split" }, el("div", { class: "seen" }, item.clips.length ? item.clips.map(clipView) : missing("a question without a clip"), question(item)), el("div", { class: "pair" }, answer(before), answer(after))));
}
