// What the server says of a curve as a line of a chart.

const DASHES = [null, [7, 4], [2, 3], [9, 3, 2, 3]];

/** Colour and dash of the i-th series: seven colours, then the same ones dashed. */
export const style = (i) => ({ colour: `c${i % 7}`, dash: DASHES[Math.floor(i / 7) % DASHES.length] });

/**
 * An exponential moving average without the bias of its beginning. `n` points were put together in each, so each counts
 * as n; what is no number is left out.
 */
export function smoothed(y, weight, n = 1) {
  if (!weight) return y;
  const kept = weight ** n;
  let mean = 0;
  let mass = 0;
  return y.map((v) => {
    if (v === null) return null;
    mean = kept * mean + (1 - kept) * v;
    mass = kept * mass + (1 - kept);
    return mean / mass;
  });
}

/** A thinned curve of the server as a line: the smoothed one, and faintly what it was before. */
export function lineOf(curve, weight, rest) {
  const y = smoothed(curve.y, weight, curve.n);
  const faint = curve.low ? { low: curve.low, high: curve.high } : weight ? { y: curve.y } : null;
  return { ...rest, x: curve.x, y, faint };
}
