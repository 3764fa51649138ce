// What the server says. Everything is asked for with the mark of what is known, so that nothing new costs nothing.

const known = new Map();
const MOST = 300;
const lost = new Set();

/** The address of a run or an experiment. */
export const path = (experiment, run) =>
  `/api/experiments/${encodeURIComponent(experiment)}` + (run === undefined ? "" : `/runs/${encodeURIComponent(run)}`);

/** {value, changed}; throws an Error with the server's words. */
export async function get(url, signal) {
  const before = known.get(url);
  const answer = await fetch(url, { headers: before ? { "If-None-Match": before.etag } : {}, signal, cache: "no-store" });
  if (answer.status === 304 && before) {
    known.delete(url);
    known.set(url, before);
    return { value: before.value, changed: false };
  }
  if (!answer.ok) {
    let text = `the server answered ${answer.status}`;
    try {
      text = (await answer.json()).error || text;
    } catch { /* not JSON: the number says enough */ }
    throw Object.assign(new Error(text), { status: answer.status });
  }
  const value = await answer.json();
  known.set(url, { etag: answer.headers.get("etag"), value });
  if (known.size > MOST) known.delete(known.keys().next().value);
  return { value, changed: true };
}

/** Asks again and again, not while the page is hidden; `take(value)` when it changed. Returns what ends it. */
export function follow(url, take, fail, every = 2000) {
  const ended = new AbortController();
  let timer = 0;
  let first = true;
  const ask = async () => {
    clearTimeout(timer);
    let wait = every;
    try {
      const { value, changed } = await get(url, ended.signal);
      lost.delete(url);
      if (ended.signal.aborted) return;
      if (changed || first) take(value);
      first = false;
    } catch (error) {
      if (ended.signal.aborted) return;
      if (error.status === undefined && !(error instanceof TypeError)) console.error(error);
      if (error.status === undefined) lost.add(url);
      else fail(error);
      wait = 2 * every;
    }
    said();
    if (!document.hidden) timer = setTimeout(ask, wait);
  };
  const shown = () => !document.hidden && ask();
  document.addEventListener("visibilitychange", shown);
  ask();
  return () => {
    ended.abort();
    clearTimeout(timer);
    lost.delete(url);
    document.removeEventListener("visibilitychange", shown);
  };
}

function said() {
  const box = document.getElementById("live");
  const text = lost.size ? "no connection" : "live";
  if (box.textContent !== text) box.textContent = text;
  box.classList.toggle("lost", lost.size > 0);
}
