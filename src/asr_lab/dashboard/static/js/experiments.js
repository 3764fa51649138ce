// The first page: all experiments, with how far they are.

import { follow } from "./api.js";
import { el, fill } from "./dom.js";
import { count, show, time } from "./format.js";
import { bar, chips } from "./states.js";

export function open(main, { crumbs }) {
  crumbs([["Experiments"]]);
  const list = el("div", { class: "cards" });
  const title = el("h1", {}, "Experiments");
  main.append(el("div", { class: "head" }, title), list);
  const cards = new Map(); // name -> {text, node}: only what changed is drawn anew
  return follow("/api/experiments", ({ experiments, outputs }) => {
    if (!experiments.length) {
      fill(list, el("p", { class: "empty" }, `${outputs} holds no run yet. `,
        el("span", { class: "mono" }, "asr-lab sweep smoke"), " makes some; this page will show them."));
      return;
    }
    for (const one of experiments) {
      const text = JSON.stringify(one);
      const before = cards.get(one.name);
      if (before?.text === text) continue;
      const node = card(one);
      before?.node.replaceWith(node);
      cards.set(one.name, { text, node });
    }
    const names = experiments.map((e) => e.name);
    for (const name of [...cards.keys()]) if (!names.includes(name)) cards.delete(name);
    const nodes = names.map((name) => cards.get(name).node);
    if (nodes.length !== list.children.length || nodes.some((n, i) => list.children[i] !== n)) fill(list, nodes);
  }, (error) => fill(list, el("p", { class: "empty" }, error.message)));
}

function card(one) {
  const href = `#/e/${encodeURIComponent(one.name)}`;
  const heading = el("h2", {}, el("a", { href }, one.name));
  if (one.pending) return el("article", { class: "card" }, heading, el("p", { class: "dim" }, "is being read …"));
  const done = one.counts.done ?? 0;
  return el("article", { class: "card" },
    heading,
    one.question ? el("p", { class: "question" }, one.question) : null,
    bar(one.counts, one.total),
    chips(one.counts),
    el("div", { class: "row small foot" },
      el("span", {}, `${done.toLocaleString("en")} of ${count(one.total, "run")}`),
      one.best !== null ? el("span", { class: "num" }, `best ${one.score.toUpperCase()} ${show(one.score, one.best)}`) : null,
      one.eta_s !== null ? el("span", { class: "dim" }, `about ${time(one.eta_s)} left`) : null,
      one.n_damage ? el("span", { class: "tag" }, `! ${count(one.n_damage, "thing")} to know`) : null,
      one.changed ? el("span", { class: "dim push" }, one.changed.slice(0, 16).replace("T", " ")) : null));
}
