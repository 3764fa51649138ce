// Elements from values. Text is only ever text: nothing here, or anywhere on the page, parses markup.

/** An element; `props`: on... listeners, `class`, `dataset`, `style` (an object), anything else an attribute. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "style") for (const [k, v] of Object.entries(value ?? {})) node.style.setProperty(k, v);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "selected") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

/** Replaces what `node` holds. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

/** A list of choices; `options` are values or [value, text]. */
export function choice(label, options, value, take) {
  const box = el("select", { onchange: () => take(box.value), "aria-label": label },
    options.map((o) => (Array.isArray(o) ? o : [o, o])).map(([v, text]) => el("option", { value: v }, text)));
  box.value = value;
  return box;
}

/** Tabs: [key, text]; arrow keys move between them. */
export function tabs(label, options, current, go) {
  const list = el("div", { class: "tabs", role: "tablist", "aria-label": label });
  list.append(...options.map(([key, text]) => el("button", {
    role: "tab", "aria-selected": String(key === current), tabindex: key === current ? 0 : -1, dataset: { key },
    onclick: () => go(key),
  }, text)));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = options.findIndex(([key]) => key === event.target.dataset.key);
    const next = options[(at + step + options.length) % options.length][0];
    event.preventDefault();
    // The tabs are drawn anew when the address has changed.
    window.addEventListener("hashchange", () => document.querySelector(`[role="tab"][data-key="${CSS.escape(next)}"]`)?.focus(), { once: true });
    go(next);
  });
  return list;
}

/** A named colour of the style sheet. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Calls `f` after things have been quiet for `ms`. */
export function later(f, ms) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...args), ms);
  };
}

/** Calls `f` once in the next frame, however often it is asked. */
export function perFrame(f) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      f();
    });
  };
}
