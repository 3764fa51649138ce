// Axes of the parallel coordinates: {key, name, of(cell) -> 0 to 1 or null, ticks: [place, text]}.

import { order } from "./format.js";

/** An axis of words, or of numbers at even distances: a swept value is one of few. */
export function words(key, name, values, take) {
  const there = [...new Set(values)].sort(order).reverse();
  const place = new Map(there.map((w, i) => [w, there.length < 2 ? 0.5 : 1 - i / (there.length - 1)]));
  return { key, name, of: (cell) => place.get(take(cell)) ?? null, ticks: [...place].reverse().map(([w, up]) => [up, w === "" ? "–" : w]) };
}

/** An axis of numbers; null where there are none. */
export function numbers(key, name, values, take, write) {
  const there = values.filter((v) => Number.isFinite(v));
  if (!there.length) return null;
  const low = there.reduce((a, b) => Math.min(a, b));
  const high = there.reduce((a, b) => Math.max(a, b));
  const span = high - low || 1;
  const of = (cell) => {
    const v = take(cell);
    return Number.isFinite(v) ? (high > low ? (v - low) / span : 0.5) : null;
  };
  const marks = high > low ? [0, 0.25, 0.5, 0.75, 1].map((up) => [up, write(low + up * span)]) : [[0.5, write(low)]];
  return { key, name, of, ticks: marks };
}
