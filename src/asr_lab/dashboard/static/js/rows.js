// A grid of which only the rows in sight exist: a thousand cost as much as thirty. Arrow keys move in it.

import { el, perFrame } from "./dom.js";

const MARGIN = 8; // rows beyond the edge

export class Rows {
  /**
   * @param height of a row, px
   * @param draw (item, index) -> element with role="row"; what can be focused in it has data-col
   */
  constructor(label, height, draw) {
    this.draw = draw;
    this.height = height;
    this.items = [];
    this.made = new Map(); // key -> {node, text, index}
    this.at = { row: 0, col: 0 }; // what the keyboard is on
    this.head = el("div", { class: "headrow", role: "row" });
    this.body = el("div", { class: "body", role: "rowgroup" });
    this.node = el("div", { class: "scroll", role: "grid", "aria-label": label, tabindex: -1, style: { "--row": `${height}px` } },
      this.head, this.body);
    this.node.addEventListener("scroll", perFrame(() => this.show()), { passive: true });
    this.node.addEventListener("keydown", (event) => this.key(event));
    this.node.addEventListener("focusin", (event) => this.focused(event));
    this.widths = () => [];
    this.watch = new ResizeObserver(perFrame(() => this.fit()));
    this.watch.observe(this.node);
  }

  /** Columns are of px, so that the head and rows that are not there yet agree. */
  fit() {
    const widths = this.widths(this.node.clientWidth || 900);
    this.node.style.setProperty("--columns", widths.map((w) => `${Math.round(w)}px`).join(" "));
    this.node.style.setProperty("--width", `${Math.round(widths.reduce((a, b) => a + b, 0))}px`);
    this.show();
  }

  close() {
    this.watch.disconnect();
  }

  /** `items` have a `key`, and a `text` that changes whenever the row has to be drawn anew; `widths(px there)` is that of
   * each column. */
  set(items, widths) {
    this.items = items;
    this.widths = widths;
    this.node.setAttribute("aria-rowcount", String(items.length + 1));
    this.body.style.height = `${items.length * this.height}px`;
    this.fit();
  }

  show() {
    const first = Math.max(0, Math.floor(this.node.scrollTop / this.height) - MARGIN);
    const last = Math.min(this.items.length, first + Math.ceil((this.node.clientHeight || 600) / this.height) + 2 * MARGIN);
    const keep = new Set();
    const active = this.body.contains(document.activeElement) ? document.activeElement : null;
    let refocus = null;
    for (let i = first; i < last; i++) {
      const item = this.items[i];
      keep.add(item.key);
      let made = this.made.get(item.key);
      if (!made || made.text !== item.text) {
        const node = this.draw(item, i);
        if (made) {
          if (active && made.node.contains(active)) refocus = [node, active.dataset.col];
          made.node.replaceWith(node);
        } else this.body.append(node);
        made = { node, text: item.text, index: -1 };
        this.made.set(item.key, made);
      }
      if (made.index !== i) {
        made.index = i;
        made.node.style.transform = `translateY(${i * this.height}px)`;
        made.node.setAttribute("aria-rowindex", String(i + 2));
        made.node.dataset.row = i;
      }
    }
    for (const [key, made] of this.made) {
      if (keep.has(key) || (active && made.node.contains(active) && this.items[made.index]?.key === key)) continue;
      made.node.remove();
      this.made.delete(key);
    }
    if (refocus) refocus[0].querySelector(`[data-col="${refocus[1]}"]`)?.focus({ preventScroll: true });
    this.rove();
  }

  /** One place of the grid is reached by Tab, the others by arrows. */
  rove() {
    let found = false;
    for (const { node, index } of this.made.values()) {
      for (const place of node.querySelectorAll("[data-col]")) {
        const here = index === this.at.row && Number(place.dataset.col) === this.at.col;
        place.tabIndex = here ? 0 : -1;
        found ||= here;
      }
    }
    if (found) return;
    const [place] = [...this.body.querySelectorAll("[data-col]")];
    if (place) place.tabIndex = 0;
  }

  focused(event) {
    const place = event.target.closest("[data-col]");
    const row = event.target.closest("[data-row]");
    if (!place || !row) return;
    this.at = { row: Number(row.dataset.row), col: Number(place.dataset.col) };
    this.rove();
  }

  key(event) {
    if (!event.target.closest("[data-col]") || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.node.clientHeight / this.height) - 2);
    const moves = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], PageDown: [page, 0],
      PageUp: [-page, 0], Home: [0, -1e4], End: [0, 1e4] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    this.go(this.at.row + move[0], this.at.col + move[1], Math.sign(move[0]) || 1);
  }

  /** Puts the keyboard on a row and column, or on the next row that has something. */
  go(row, col, step) {
    row = Math.min(Math.max(row, 0), this.items.length - 1);
    for (; row >= 0 && row < this.items.length; row += step) {
      const top = row * this.height;
      const head = this.head.offsetHeight;
      if (top < this.node.scrollTop) this.node.scrollTop = top;
      const low = top + this.height + head - this.node.clientHeight + 14;
      if (low > this.node.scrollTop) this.node.scrollTop = low;
      this.show();
      const made = this.made.get(this.items[row].key);
      const places = made ? [...made.node.querySelectorAll("[data-col]")] : [];
      if (!places.length) continue;
      const near = places.reduce((a, b) =>
        Math.abs(b.dataset.col - col) < Math.abs(a.dataset.col - col) ? b : a);
      this.at = { row, col: Number(near.dataset.col) };
      this.rove();
      near.focus({ preventScroll: true });
      near.scrollIntoView({ block: "nearest", inline: "nearest" });
      return;
    }
  }
}
