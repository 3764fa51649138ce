// The page of one run: what came of it, its curves, utterances, gradients, configuration and log.

import { follow, get, path } from "./api.js";
import { Chart } from "./chart.js";
import { el, fill, tabs } from "./dom.js";
import { NOTHING, label, nameOf, show } from "./format.js";
import { lineOf } from "./lines.js";
import { Gradients } from "./gradients.js";
import { notes, sign } from "./states.js";
import { Utterances } from "./utterances.js";

const HIDDEN = /^test\//; // of one point

export function open(main, { experiment, run, tab, crumbs }) {
  const back = `#/e/${encodeURIComponent(experiment)}`;
  const home = `${back}/r/${encodeURIComponent(run)}`;
  crumbs([["Experiments", "#/"], [experiment, back], [run]]);
  const head = el("div", { class: "head" }, el("h1", {}, run));
  const said = el("div");
  const list = el("div");
  const body = el("div", { role: "tabpanel" });
  main.append(head, said, list, body);
  let page = null;
  let pane = null;
  let wanted = tab;

  function options() {
    return [["overview", "Overview"], ...(page.splits.length ? [["utterances", "Utterances"]] : []), ["gradients", "Gradients"],
      ["configuration", "Configuration"], ...(page.log ? [["log", "Log"]] : [])];
  }

  function pick(next) {
    wanted = next;
    if (!page) return;
    const all = options();
    const key = all.some(([k]) => k === next) ? next : "overview";
    if (pane?.key !== key) {
      pane?.close();
      const made = {
        overview: () => new Overview(experiment, run),
        utterances: () => new Utterances(experiment, run, { splits: page.splits, audio: page.audio, score: page.row.metric }),
        gradients: () => new Gradients(experiment, run), configuration: () => new Configuration(), log: () => new Log(),
      }[key]();
      pane = Object.assign(made, { key });
      fill(body, pane.node);
    }
    const text = JSON.stringify([all, key]);
    if (list.dataset.text !== text) {
      list.dataset.text = text;
      fill(list, tabs("Views of the run", all, key, (k) => { location.hash = `${home}/${k}`; }));
    }
    pane.set?.(page, true);
  }

  const stop = follow(path(experiment, run), (value) => {
    page = value;
    const { row } = page;
    const factors = Object.entries(row.factors).map(([k, v]) => el("span", { class: "tag" }, `${k} = ${v}`));
    const short = label(row, page.swept);
    crumbs([["Experiments", "#/"], [experiment, back], [short]]);
    fill(head, el("h1", {}, sign(row.state), " ", short),
      short === run ? null : el("p", { class: "dim mono wrap" }, run),
      el("p", { class: "row small" }, el("b", {}, row.state), row.reason ? el("span", { class: "wrap" }, row.reason) : null, factors));
    fill(said, notes(page.notes));
    pick(wanted);
  }, (error) => fill(body, el("p", { class: "empty" }, error.status === 404 ? "There is no such run (any more)." : error.message)));
  const close = () => {
    stop();
    pane?.close();
  };
  close.tab = pick;
  return close;
}

class Overview {
  constructor(experiment, run) {
    Object.assign(this, { experiment, run, charts: new Map() });
    this.numbers = el("div", { class: "big" });
    this.facts = el("div");
    this.grid = el("div", { class: "multiples" });
    this.node = el("div", {}, el("section", { class: "card" }, this.numbers), this.grid,
      el("section", { class: "card", style: { "margin-top": ".9rem" } }, el("h2", {}, "Where it came from"), this.facts));
    this.timer = setInterval(() => !document.hidden && this.state === "running" && this.fetch(), 3000);
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    for (const chart of this.charts.values()) chart.close();
  }

  set({ row, keys, facts }) {
    this.state = row.state;
    this.keys = keys.filter((k) => !HIDDEN.test(k));
    const said = [[row.score === null || row.score === undefined ? NOTHING : show(row.metric, row.score), `${row.state === "done" ? "test" : "validation"} ${String(row.metric ?? "").toUpperCase()}`],
      ...Object.entries(row.numbers).filter(([k]) => !/loss$/.test(k)).map(([k, v]) => [show(k, v), nameOf(k)])];
    if (row.steps && row.state !== "done") said.push([`${row.step} of ${row.steps}`, "steps"]);
    fill(this.numbers, said.map(([value, text]) => el("div", {}, el("b", {}, value), el("span", {}, text))));
    fill(this.facts, table(facts.map(([k, v]) => [k, unpacked(v)])));
    this.fetch();
  }

  async fetch() {
    const first = (k) => (k.startsWith("val/") ? 0 : 1);
    for (const key of this.keys.toSorted((a, b) => first(a) - first(b))) {
      try {
        const url = `${path(this.experiment)}/curves?run=${encodeURIComponent(this.run)}&key=${encodeURIComponent(key)}&axis=step&points=300`;
        const { value, changed } = await get(url);
        const curve = value[this.run];
        if (this.closed || !curve || (this.charts.has(key) && !changed)) continue;
        if (!this.charts.has(key)) {
          const chart = new Chart(`${key} over steps`, { height: 190, metric: key, xLabel: "step" });
          this.charts.set(key, chart);
          this.grid.append(el("section", { class: "card" }, el("h3", {}, key), chart.node));
        }
        this.charts.get(key).set([lineOf(curve, curve.y.length > 80 ? 0.8 : 0, { key, label: key, colour: "c0" })]);
      } catch { /* the page itself says what is wrong with the run */ }
    }
  }
}

/** An object of few entries in words. */
function unpacked(text) {
  try {
    const value = JSON.parse(text);
    if (value && typeof value === "object" && !Array.isArray(value)) {
      return Object.entries(value).map(([k, v]) => `${k} ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", ");
    }
  } catch { /* plain text */ }
  return text;
}

const table = (rows) => el("table", { class: "facts" }, el("tbody", {}, rows.map(([k, v]) =>
  el("tr", {}, el("th", { scope: "row" }, k), el("td", {}, v)))));

class Configuration {
  constructor() {
    this.words = el("input", { type: "search", placeholder: "Find keys or values", "aria-label": "Find keys or values", oninput: () => this.draw() });
    this.list = el("div", { class: "mono" });
    this.node = el("section", { class: "card" }, el("div", { class: "filters" }, this.words), this.list);
  }

  close() {}

  set({ config }) {
    this.config = config;
    this.draw();
  }

  draw() {
    const words = this.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = this.config.filter(([k, v]) => words.every((w) => `${k} ${v}`.toLowerCase().includes(w)));
    const text = JSON.stringify(rows);
    if (text === this.drawn) return;
    this.drawn = text;
    fill(this.list, rows.length ? table(rows) : el("p", { class: "empty" }, "Nothing."));
  }
}

class Log {
  constructor() {
    this.text = el("pre", { class: "log", tabindex: 0, "aria-label": "train.log" });
    this.node = el("section", { class: "card" }, this.text);
  }

  close() {}

  set({ log }) {
    if (this.text.textContent === log) return;
    const low = this.text.scrollTop + this.text.clientHeight > this.text.scrollHeight - 30;
    this.text.textContent = log;
    if (low) this.text.scrollTop = this.text.scrollHeight;
  }
}
