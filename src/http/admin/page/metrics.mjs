// Parses OpenMetrics text, and computes the lines of plots from successive snapshots. Pure: no document, no clock.

/** Parses OpenMetrics text: `samples` by name (label text and value of each series), `types` by metric family. */
export function parseMetrics(text) {
  const [samples, types] = [new Map(), new Map()];
  for (const line of text.split('\n')) {
    const [, family, type] = /^# TYPE (\S+) (\S+)/.exec(line) ?? [];
    if (family) types.set(family, type);
    const [, name, labels = '', value] = /^([^#\s{]+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? (\S+)/.exec(line) ?? [];
    if (!name) continue;
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value: Number(value) });
  }
  return { samples, types };
}

/** The labels of a series, by name. */
export function labelsOf({ labels }) {
  const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)];
  return Object.fromEntries(pairs.map(([, name, value]) => [name, value.replace(/\\(.)/g, (_, it) => (it === 'n' ? '\n' : it))]));
}

/** The sum over the series of a name, or the value of the one with this label text; undefined if there is none. */
export function valueOf({ samples }, name, labels) {
  const series = (samples.get(name) ?? []).filter((it) => labels === undefined || it.labels === labels);
  return series.length ? series.reduce((sum, it) => sum + it.value, 0) : undefined;
}

/** The names that can be plotted: a histogram by its family name, without its buckets. */
export function plottableNames({ samples, types }) {
  const histograms = [...types].filter(([, type]) => type === 'histogram').map(([family]) => family);
  const parts = new Set(histograms.flatMap((family) => ['_bucket', '_sum', '_count'].map((part) => family + part)));
  return [...[...samples.keys()].filter((name) => !parts.has(name)), ...histograms].sort();
}

// A line is a function of the snapshots, oldest first: `{ at, samples, types }`, `at` in milliseconds. It returns a point for
// each, with `value: undefined` where no value can be computed.

const points = (snapshots, compute) => snapshots.map((snapshot, index) => ({ at: snapshot.at, value: compute(snapshot, index) }));

/** The current value. */
export const gauge = (name, labels) => (snapshots) => points(snapshots, (snapshot) => valueOf(snapshot, name, labels));

/** The increase per second. A counter that falls belongs to a new process. */
export const rate = (name, labels) => (snapshots) => points(snapshots, (snapshot, index) => {
  const before = snapshots[index - 1];
  const increase = before && valueOf(snapshot, name, labels) - (valueOf(before, name, labels) ?? 0);
  return increase >= 0 ? increase / ((snapshot.at - before.at) / 1000) : undefined;
});

/** A quantile (0 to 1) of a histogram over the last `window` snapshots, computed like `histogram_quantile` of PromQL. */
export const quantile = (family, share, window = 5) => (snapshots) => points(snapshots, (snapshot, index) => {
  const before = snapshots[Math.max(0, index - window)];
  if (before === snapshot) return undefined;
  const buckets = (snapshot.samples.get(`${family}_bucket`) ?? []).map((it) => {
    const bound = labelsOf(it).le;
    const count = it.value - (valueOf(before, `${family}_bucket`, it.labels) ?? 0);
    return { upper: bound === '+Inf' ? Infinity : Number(bound), count };
  });
  const total = buckets.at(-1)?.count ?? 0;
  if (!(total > 0)) return undefined;
  const rank = share * total;
  const at = buckets.findIndex(({ count }) => count >= rank);
  const [lower, below] = at > 0 ? [buckets[at - 1].upper, buckets[at - 1].count] : [0, 0];
  const { upper, count } = buckets[at];
  return upper === Infinity || count === below ? lower : lower + (upper - lower) * ((rank - below) / (count - below));
});

/** The lines of a metric, by its series in the newest snapshot: at most four, those with the highest values. */
export function linesOf(name, newest) {
  if (newest.types.get(name) === 'histogram') return [['p50', quantile(name, 0.5)], ['p99', quantile(name, 0.99)]];
  const line = name.endsWith('_total') ? rate : gauge;
  const series = [...(newest.samples.get(name) ?? [])].sort((one, other) => other.value - one.value).slice(0, 4);
  return series.map(({ labels }) => [Object.values(labelsOf({ labels })).join(' '), line(name, labels)]);
}
