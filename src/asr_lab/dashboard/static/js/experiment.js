// The page of one experiment: its cells as a matrix, a table, curves and parallel coordinates under one filter.

import { follow, path } from "./api.js";
import { Curves } from "./curves.js";
import { el, fill, tabs } from "./dom.js";
import { filterBar, filterOf } from "./filter.js";
import { count, label, show, time } from "./format.js";
import { Matrix } from "./matrix.js";
import { Parallel } from "./parallel.js";
import { bar, chips, notes } from "./states.js";
import { Table } from "./table.js";

const TABS = [["matrix", "Matrix"], ["table", "Table"], ["curves", "Curves"], ["factors", "Parallel coordinates"]];
const MOST = 40; // values in a list of fixed factors

export function open(main, { experiment, tab, crumbs }) {
  crumbs([["Experiments", "#/"], [experiment]]);
  const filter = filterOf(experiment);
  const home = `#/e/${encodeURIComponent(experiment)}`;
  const href = (cell) => `${home}/r/${encodeURIComponent(cell.name)}`;
  const go = (cell) => { location.hash = href(cell); };
  const head = el("div", { class: "head" }, el("h1", {}, experiment));
  const said = el("div");
  const bars = filterBar(filter);
  const list = el("div");
  const chosen = el("div", { class: "row small" });
  const body = el("div", { role: "tabpanel" });
  main.append(head, said, list, bars.node, chosen, body);
  let view = null;
  let pane = null;
  let drawn = "";

  function pick(next) {
    const key = TABS.some(([k]) => k === next) ? next : "matrix";
    if (pane?.key === key) return;
    pane?.close();
    const made = { matrix: () => new Matrix(filter, go), table: () => new Table(filter, href), curves: () => new Curves(filter, experiment),
      factors: () => new Parallel(filter, go) }[key]();
    pane = Object.assign(made, { key });
    fill(list, tabs("Views of the runs", TABS, key, (k) => { location.hash = `${home}/${k}`; }));
    fill(body, pane.node);
    if (view) draw();
  }

  function top() {
    const text = JSON.stringify([view.question, view.counts, view.eta_s, view.best, view.damage, view.fixed, [...filter.states]]);
    if (text === drawn) return;
    drawn = text;
    const focus = head.contains(document.activeElement) ? document.activeElement.dataset.state : null;
    const open = head.querySelector("details")?.open ?? false;
    const done = view.counts.done ?? 0;
    fill(head, el("h1", {}, experiment),
      view.question ? el("p", { class: "question" }, view.question) : null,
      bar(view.counts, view.total),
      el("div", { class: "row small", style: { margin: ".5rem 0" } },
        chips(view.counts, filter.states, (state) => {
          if (filter.states.has(state)) filter.states.delete(state);
          else filter.states.add(state);
          filter.changed();
        }),
        el("span", {}, `${done.toLocaleString("en")} of ${count(view.total, "run")} done`),
        view.best === null ? null : el("span", { class: "num" }, el("b", {}, `best ${view.score.toUpperCase()} ${show(view.score, view.best)}`)),
        view.eta_s === null ? null : el("span", { class: "dim" }, `about ${time(view.eta_s)} left`)),
      fixed(view.fixed, open));
    if (focus) head.querySelector(`[data-state="${focus}"]`)?.focus();
    fill(said, notes(view.damage, view.n_damage));
  }

  function draw() {
    const cells = filter.apply(view.cells, view.factors);
    top();
    bars.set(view, cells);
    compared();
    pane.set(view, cells);
  }

  function compared() {
    const names = [...filter.selected].filter((name) => view.cells.some((c) => c.name === name));
    const of = (name) => encodeURIComponent(name);
    const text = names.join("\n");
    if (chosen.dataset.text === text) return;
    chosen.dataset.text = text;
    fill(chosen, names.length ? [
      el("span", {}, `${count(names.length, "run")} chosen`),
      names.length === 2
        ? el("a", { class: "button main", href: `#/compare/${of(experiment)}/${of(names[0])}/${of(experiment)}/${of(names[1])}` }, "Compare the two")
        : el("span", { class: "dim" }, "choose two to compare them"),
      el("button", { onclick: () => {
        filter.selected.clear();
        filter.changed();
      } }, "Choose none"),
      el("span", { class: "dim wrap" }, names.slice(0, 4).map((n) => label(view.cells.find((c) => c.name === n), view.factors)).join(" | "))] : null);
    chosen.style.marginBottom = names.length ? ".8rem" : "0";
  }

  const changed = () => view && draw();
  filter.listeners.add(changed);
  pick(tab);
  const stop = follow(path(experiment), (value) => {
    view = value;
    draw();
  }, (error) => {
    if (view && error.status !== 404) return;
    fill(body, el("p", { class: "empty" }, error.status === 404 ? "There is no such experiment (any more)." : error.message));
  });
  const close = () => {
    stop();
    bars.close();
    pane.close();
    filter.listeners.delete(changed);
  };
  close.tab = pick;
  return close;
}

function fixed(values, open) {
  const pairs = Object.entries(values);
  if (!pairs.length) return null;
  return el("details", { class: "small", open }, el("summary", { class: "dim" }, `${count(pairs.length, "choice")} that all runs share`),
    el("p", { class: "wrap" }, pairs.slice(0, MOST).map(([k, v]) => [el("span", { class: "tag" }, `${k} = ${v}`), " "])));
}
