// How numbers and states are written, the same on every page.

export const NOTHING = "–";

/** Each state with its sign, as `asr-lab status` has them. */
export const STATES = {
  done: "✓", running: "▶", queued: "⋯", planned: "·", preempted: "‖", failed: "✗", exploded: "✸", cancelled: "⊘", damaged: "!",
};

const RATES = /(^|\/)(wer|cer|ser|clipped|kept)$/;
const NAMES = {
  "train/clipped": "clipped steps", kept: "length kept", parameters: "parameters", seconds: "time",
  audio_seconds_per_second: "audio s/s", peak_memory_mb: "memory MB", steps: "steps", epochs: "epochs",
};
export const nameOf = (key) => NAMES[key] ?? key.replace(/\/(wer|cer|ser|ppl)$/, (m) => ` ${m.slice(1).toUpperCase()}`);

/** A number under its key: rates in percent. */
export function show(key, value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NOTHING;
  if (RATES.test(key)) return `${(100 * value).toFixed(1)} %`;
  if (key === "seconds" || key === "eta") return time(value);
  return short(value);
}

export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOTHING;
  const size = Math.abs(value);
  for (const [from, unit] of [[1e9, " G"], [1e6, " M"], [1e4, " k"]]) {
    if (size >= from) return `${(value / (unit === " k" ? 1e3 : from)).toPrecision(3)}${unit}`;
  }
  if (Number.isInteger(value)) return String(value);
  return size !== 0 && (size < 1e-3 || size >= 1e4) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

export function time(seconds) {
  if (!Number.isFinite(seconds)) return NOTHING;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(seconds < 600 ? 1 : 0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** `bilstm · norm · seed 1`: what tells a run from the others. */
export function label(cell, factors) {
  const said = factors.map((f) => cell.factors[f]).filter((v) => v !== undefined);
  if (cell.factors.seed !== undefined) said.push(`seed ${cell.factors.seed}`);
  return said.join(" · ") || cell.name;
}

/** Compares numbers as numbers and words as words; what is missing comes last. */
export function order(a, b) {
  if (a === undefined || a === null || a === "") return b === undefined || b === null || b === "" ? 0 : 1;
  if (b === undefined || b === null || b === "") return -1;
  const x = Number(a);
  const y = Number(b);
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}
