// Which page is shown: the part of the address after # says it.

import { el, fill } from "./dom.js";
import * as experiments from "./experiments.js";
import * as experiment from "./experiment.js";
import * as run from "./run.js";
import * as compare from "./compare.js";

let close = () => {};
let shown = "";

/** Addresses of the pages. */
function parse() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  if (parts[0] === "e" && parts[2] === "r" && parts[3]) {
    return { page: run, key: `r/${parts[1]}/${parts[3]}`, params: { experiment: parts[1], run: parts[3], tab: parts[4] } };
  }
  if (parts[0] === "e" && parts[1]) {
    return { page: experiment, key: `e/${parts[1]}`, params: { experiment: parts[1], tab: parts[2] } };
  }
  if (parts[0] === "compare" && parts.length >= 5) {
    const [, a, b, c, d] = parts;
    return { page: compare, key: `c/${a}/${b}/${c}/${d}`, params: { a: [a, b], b: [c, d] } };
  }
  return { page: experiments, key: "", params: {} };
}

function crumbs(parts) {
  const said = [];
  for (const [text, href] of parts) {
    if (said.length) said.push(el("span", { class: "sep", "aria-hidden": "true" }, "/"));
    said.push(href ? el("a", { href }, text) : el("span", { "aria-current": "page", title: text }, text));
  }
  fill(document.getElementById("crumbs"), said);
  document.title = [...parts.map(([text]) => text).reverse(), "asr_lab"].join(" · ");
}

function route() {
  const { page, key, params } = parse();
  const main = document.getElementById("main");
  const place = `${params.experiment ?? ""}${key}`;
  if (place === shown && close.tab) {
    close.tab(params.tab);
    return;
  }
  const first = shown === "";
  close();
  shown = place || "home";
  main.replaceChildren();
  window.scrollTo(0, 0);
  close = page.open(main, { ...params, crumbs }) ?? (() => {});
  if (!first) main.focus({ preventScroll: true });
}

window.addEventListener("hashchange", route);
route();
