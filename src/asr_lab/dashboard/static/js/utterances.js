// Utterances: reference over hypothesis, word by word, and their sound.

import { get, path } from "./api.js";
import { choice, el, fill, later } from "./dom.js";
import { count } from "./format.js";

const PAGE = 200; // of the server
const WORDS = { S: "substituted", D: "deleted", I: "inserted", "": "right" };

/** Columns of [mark, reference, hypothesis]: coloured and marked by letter. */
export function aligned(pairs) {
  return el("div", { class: "aligned", role: "list" }, pairs.map(([mark, ref, hyp]) =>
    el("span", { class: `pair ${mark}`, role: "listitem", title: WORDS[mark] ?? "", "aria-label": mark ? `${WORDS[mark]}: ${ref || "nothing"}, heard ${hyp || "nothing"}` : ref },
      el("span", { class: ref ? "ref" : "ref none" }, ref || "∗"),
      el("span", { class: hyp ? "hyp" : "hyp none" }, hyp || "∗"),
      el("span", { class: "mark" }, mark))),
  pairs.length ? null : el("span", { class: "none" }, "nothing was said and nothing heard"));
}

/** A button that becomes a player. */
export function sound(experiment, run, split, id) {
  const box = el("span");
  const button = el("button", { "aria-label": `play ${id}`, onclick: () => {
    const player = el("audio", { controls: true, preload: "auto",
      src: `${path(experiment, run)}/audio?split=${encodeURIComponent(split)}&id=${encodeURIComponent(id)}` });
    player.addEventListener("error", async () => {
      let text = "cannot be played";
      try {
        await get(player.getAttribute("src"));
      } catch (error) {
        text = error.message;
      }
      fill(box, el("span", { class: "dim" }, text));
    });
    fill(box, player);
    player.focus();
    player.play().catch(() => { /* the browser wants another click, or `error` has said why */ });
  } }, "▶ listen");
  return fill(box, button);
}

export const legend = () => el("p", { class: "small dim" }, "Above what was said, below what was heard: ",
  el("span", { class: "aligned", style: { display: "inline-flex" } }, ["S", "D", "I"].map((m) =>
    el("span", { class: `pair ${m}` }, el("span", { class: "mark" }, `${m} ${WORDS[m]}`)))));

export class Utterances {
  constructor(experiment, run, { splits, audio, score }) {
    Object.assign(this, { experiment, run, audio, score });
    this.options = { split: splits[0], order: "worst", find: "" };
    this.list = el("ol", { class: "utts" });
    this.said = el("span", { class: "dim small", role: "status" });
    this.more = el("button", { class: "hidden", onclick: () => this.fetch(this.list.children.length) }, "Show more");
    const words = el("input", { type: "search", placeholder: "Find words or ids", "aria-label": "Find utterances" });
    words.addEventListener("input", later(() => this.change("find", words.value), 150));
    this.node = el("section", { class: "card" },
      el("div", { class: "filters" },
        choice("Split", splits, this.options.split, (v) => this.change("split", v)),
        choice("Order", [["worst", "worst first"], ["longest", "longest first"], ["id", "by id"]], "worst", (v) => this.change("order", v)),
        words, this.said),
      legend(), this.list, this.more);
    this.fetch(0);
  }

  close() {}

  change(name, value) {
    this.options[name] = value;
    this.fetch(0);
  }

  async fetch(start) {
    const query = new URLSearchParams({ ...this.options, start, score: this.score });
    const mine = (this.asked = (this.asked ?? 0) + 1);
    try {
      const { value } = await get(`${path(this.experiment, this.run)}/utterances?${query}`);
      if (mine !== this.asked) return;
      if (!start) this.list.replaceChildren();
      this.list.append(...value.rows.map((row) => this.item(row)));
      this.said.textContent = `${count(value.total, "utterance")}${value.total < value.of ? ` of ${value.of}` : ""}${value.n_bad ? `; ${value.n_bad} damaged lines left out` : ""}`;
      this.more.classList.toggle("hidden", start + PAGE >= value.total);
    } catch (error) {
      fill(this.list, el("li", { class: "empty" }, error.status === 404 ? "No hypotheses of this split." : error.message));
    }
  }

  item(row) {
    return el("li", {}, el("div", { class: "about" },
      el("b", { class: "wrap" }, row.id), el("span", {}, row.errors ? count(row.errors, "word error") : "all right"),
      row.speaker !== undefined ? el("span", { class: "dim" }, `speaker ${row.speaker}`) : null,
      row.duration !== undefined ? el("span", { class: "dim num" }, `${Number(row.duration).toFixed(2)} s`) : null,
      this.audio ? sound(this.experiment, this.run, this.options.split, row.id) : null),
    aligned(row.pairs));
  }
}
