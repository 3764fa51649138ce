// Two runs side by side: rates with intervals, configurations, curves, and the utterances that changed.

import { follow, get, path } from "./api.js";
import { Chart } from "./chart.js";
import { choice, el, fill } from "./dom.js";
import { NOTHING, count, label, show } from "./format.js";
import { lineOf } from "./lines.js";
import { notes, sign } from "./states.js";
import { aligned, legend, sound } from "./utterances.js";

export function open(main, { a, b, crumbs }) {
  crumbs([["Experiments", "#/"], [a[0], `#/e/${encodeURIComponent(a[0])}`], ["compare"]]);
  const head = el("section", { class: "card" });
  const rates = el("section", { class: "card" });
  const said = el("div");
  const config = el("section", { class: "card" });
  const changed = el("section", { class: "card" });
  const curves = new PairCurves(a, b);
  main.append(el("div", { class: "head" }, el("h1", {}, "Two runs")), head, said, rates, curves.node, config, changed);
  let audio = false;
  let score = null;
  let stop = () => {};
  pickers(head, a, b);

  Promise.all([a, b].map((one) => get(path(...one)))).then(([x, y]) => {
    audio = x.value.audio;
    score = x.value.row.metric === "cer" ? "cer" : "wer";
    curves.start(x.value, y.value);
    const query = new URLSearchParams({ a: a.join("/"), b: b.join("/"), score });
    stop = follow(`/api/compare?${query}`, draw, (error) => fill(rates, el("p", { class: "empty" }, error.message)), 4000);
  }).catch((error) => fill(rates, el("p", { class: "empty" }, error.status === 404 ? "One of the two runs is not there (any more)." : error.message)));

  function draw(value) {
    fill(said, notes(value.notes));
    fill(rates, el("h2", {}, `Test ${value.score.toUpperCase()}`), value.rates ? verdict(value) : el("p", { class: "empty" }, "No rates that can be compared yet."));
    fill(config, el("h2", {}, value.config.length ? `${count(value.config.length, "key differs", "keys differ")} in the configurations` : "The configurations are the same"),
      el("p", { class: "small dim" }, `${count(value.same, "key")} are the same.`),
      value.config.length ? el("table", { class: "facts mono" },
        el("thead", {}, el("tr", {}, ["key", "A", "B"].map((t) => el("th", { scope: "col" }, t)))),
        el("tbody", {}, value.config.map(([k, x, y, counts]) => el("tr", {}, el("th", { scope: "row" }, k, counts ? null : el("span", { class: "dim" }, " (changes no number)")),
          el("td", {}, x ?? NOTHING), el("td", {}, y ?? NOTHING))))) : null);
    fill(changed, el("h2", {}, "Utterances that changed"),
      value.changed.length ? [legend(), el("ol", { class: "utts" }, value.changed.map((u) => utterance(u)))] : el("p", { class: "empty" }, "None."));
  }

  function utterance(u) {
    const change = u.change === 0 ? "as many errors" : `${count(Math.abs(u.change), "error")} ${u.change < 0 ? "fewer" : "more"} in B`;
    return el("li", {}, el("div", { class: "about" }, el("b", { class: "wrap" }, u.id), el("span", {}, change),
      audio ? sound(...a, "test", u.id) : null),
    el("div", { class: "pairs" }, el("span", { class: "letter bg0" }, "A"), aligned(u.pairs)),
    el("div", { class: "pairs" }, el("span", { class: "letter bg1" }, "B"), aligned(u.other)));
  }

  return () => {
    stop();
    curves.close();
  };
}

/** Two lists to choose other runs of the same experiments from. */
async function pickers(head, a, b) {
  const go = (x, y) => { location.hash = `#/compare/${[...x, ...y].map(encodeURIComponent).join("/")}`; };
  const boxes = await Promise.all([a, b].map(async (one, i) => {
    try {
      const { value } = await get(path(one[0]));
      const cell = value.cells.find((c) => c.name === one[1]);
      const options = value.cells.map((c) => [c.name, label(c, value.factors)]);
      const name = "AB"[i];
      return el("div", { class: "row", style: { margin: ".2rem 0" } }, el("span", { class: `letter bg${i}` }, name), cell ? sign(cell.state) : null,
        choice(`Run ${name}`, options, one[1], (v) => go(i ? a : [a[0], v], i ? [b[0], v] : b)),
        el("a", { href: `#/e/${one.map(encodeURIComponent).join("/r/")}` }, "open"), el("span", { class: "dim small wrap" }, one[1]));
    } catch {
      return el("p", { class: "wrap" }, one.join(" / "));
    }
  }));
  fill(head, boxes, el("button", { onclick: () => go(b, a) }, "⇄ Swap"));
  for (const box of head.querySelectorAll("select")) box.style.maxWidth = "min(100%, 26rem)";
}

function verdict({ rates, score }) {
  const { a, b, delta } = rates;
  const percent = (v) => (v === null ? NOTHING : `${(100 * v).toFixed(1)} %`);
  const signed = (v) => (v === null ? NOTHING : `${v > 0 ? "+" : ""}${(100 * v).toFixed(1)}`.replace("-", "−"));
  const known = delta[1] !== null;
  const words = rates.identical ? "Both recognised exactly the same."
    : !known ? "No interval can be made, so nothing can be said of the difference."
      : rates.tied ? `Tied: the ${Math.round(100 * rates.level)} % interval of the difference includes 0.`
        : `${delta[0] < 0 ? "B" : "A"} is better: the interval of the difference does not include 0.`;
  const high = Math.max(a[2] ?? a[0], b[2] ?? b[0], a[0], b[0], 0.01) * 1.08;
  const wide = Math.max(Math.abs(delta[1] ?? 0), Math.abs(delta[2] ?? 0), Math.abs(delta[0]), 0.005) * 1.15;
  const line = (name, [value, low, up], k, from, to, write, zero) => el("tr", {}, el("th", { scope: "row" }, name),
    el("td", { class: "num" }, el("b", {}, write(value))), el("td", { class: "num dim" }, low === null ? "no interval" : `${write(low)} to ${write(up)}`),
    el("td", { style: { width: "45%", "min-width": "8rem" } }, span(value, low, up, from, to, k, zero)));
  return [el("p", { class: "verdict" }, words),
    el("table", { class: "facts" }, el("tbody", {},
      line("A", a, 0, 0, high, percent), line("B", b, 1, 0, high, percent), line("B − A", delta, 6, -wide, wide, (v) => `${signed(v)} points`, true))),
    el("p", { class: "small dim" }, `${rates.level * 100} % intervals over the ${count(rates.n, "test utterance")}, ${rates.unit} drawn again ${rates.n_resamples.toLocaleString("en")} times, the same draws for both. `,
      "One run each: how much another seed would change is not in them. ",
      `Word errors (substituted / deleted / inserted): A ${rates.errors[0].join(" / ")}, B ${rates.errors[1].join(" / ")}. Scored by ${score.toUpperCase()}.`)];
}

function span(value, low, high, from, to, k, zero) {
  const at = (v) => `${(100 * (v - from)) / (to - from)}%`;
  return el("div", { class: "interval", "aria-hidden": "true" }, el("div", { class: "whole" }),
    zero ? el("div", { class: "zero", style: { left: at(0) } }) : null,
    low === null ? null : el("div", { class: `range bg${k}`, style: { left: at(low), width: `${(100 * (high - low)) / (to - from)}%` } }),
    el("div", { class: `dot bg${k}`, style: { left: at(value) } }));
}

/** Curves of the two over each other. */
class PairCurves {
  constructor(a, b) {
    this.runs = [a, b];
    this.chart = new Chart("Curves of the two runs", { height: 300, xLabel: "step" });
    this.controls = el("div", { class: "row" });
    this.node = el("section", { class: "card" }, el("h2", {}, "Curves"), this.controls, this.chart.node);
  }

  start(x, y) {
    const keys = [...new Set([...x.keys, ...y.keys])].filter((k) => !k.startsWith("test/")).sort();
    this.key = keys.find((k) => k === `val/${x.row.metric}`) ?? keys[0];
    this.log = false;
    if (!keys.length) return fill(this.controls, el("p", { class: "empty" }, "Nothing was logged yet."));
    fill(this.controls, choice("Curve", keys, this.key, (v) => {
      this.key = v;
      this.fetch();
    }), el("label", { class: "inline" }, el("input", { type: "checkbox", onchange: (event) => {
      this.log = event.target.checked;
      this.fetch();
    } }), "log"), el("span", { class: "small" }, ["A", "B"].map((n, i) => [" ", el("span", { class: "swatch", style: { color: `var(--c${i})`, display: "inline-block", "vertical-align": "middle" } }), ` ${n}`])));
    this.timer = setInterval(() => !document.hidden && this.fetch(), 5000);
    return this.fetch();
  }

  async fetch() {
    try {
      const found = await Promise.all(this.runs.map(([experiment, run]) =>
        get(`${path(experiment)}/curves?run=${encodeURIComponent(run)}&key=${encodeURIComponent(this.key)}&axis=step&points=300`)));
      if (this.closed) return;
      const lines = found.map(({ value }, i) => [value[this.runs[i][1]], i]).filter(([curve]) => curve)
        .map(([curve, i]) => lineOf(curve, 0, { key: "AB"[i], label: `${"AB"[i]}: ${this.runs[i][1]}`, colour: `c${i}` }));
      const text = JSON.stringify([lines, this.log]);
      if (text !== this.drawn) this.chart.set(lines, { log: this.log, metric: this.key });
      this.drawn = text;
    } catch { /* the page says what is wrong with the runs */ }
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    this.chart.close();
  }
}
