// The state of cells as signs, bars and chips.

import { el } from "./dom.js";
import { STATES, count } from "./format.js";

/** A state as a sign: its letter or shape, its colour, its name for whoever does not see either. */
export const sign = (state) =>
  el("span", { class: `sign s-${state in STATES ? state : "planned"}`, role: "img", "aria-label": state, title: state },
    STATES[state] ?? "?");

/** How far an experiment is: a part of the bar for each state. */
export function bar(counts, total) {
  const said = Object.entries(counts).map(([state, n]) => `${n} ${state}`).join(", ");
  return el("div", { class: "bar", role: "img", "aria-label": said, title: said },
    Object.entries(counts).map(([state, n]) =>
      el("i", { class: `s-${state}`, style: { flex: `${n} 0 0` } })),
    total ? null : el("i"));
}

/** The number of cells in each state; with `take` they are switches. */
export function chips(counts, chosen, take) {
  return el("div", { class: "chips", role: take ? "group" : undefined, "aria-label": take ? "States to show" : undefined },
    Object.entries(counts).map(([state, n]) => {
      const inside = [sign(state), `${n.toLocaleString("en")} ${state}`];
      if (!take) return el("span", { class: "chip" }, inside);
      return el("button", {
        class: "chip", "aria-pressed": String(chosen.has(state)), dataset: { state }, onclick: () => take(state),
      }, inside);
    }));
}

/** What could not be read, in a card; nothing where all is well. */
export function notes(lines, total = lines.length) {
  if (!lines.length) return null;
  return el("section", { class: "card notes", "aria-label": "What could not be read" },
    el("b", {}, sign("damaged"), " ", count(total, "thing"), " to know"),
    el("ul", { class: "small" }, lines.map((line) => el("li", {}, line))));
}
