// What the metrics say, and what several looks at it say together. Pure: no document, no clock.

/** Reads OpenMetrics text: by the name of a sample its series (labels as they are written, and the figure); by family its type. */
export function read(text) {
  const [samples, types] = [new Map(), new Map()];
  for (const line of text.split('\n')) {
    const [, family, type] = /^# TYPE (\S+) (\S+)/.exec(line) ?? [];
    if (family) types.set(family, type);
    const [, name, labels = '', figure] = /^([^#\s{]+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? (\S+)/.exec(line) ?? [];
    if (!name) continue;
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, figure: Number(figure) });
  }
  return { samples, types };
}

/** The labels of a series, by name. */
export function labelsOf({ labels }) {
  const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)];
  return Object.fromEntries(pairs.map(([, name, value]) => [name, value.replace(/\\(.)/g, (_, it) => (it === 'n' ? '\n' : it))]));
}

/** The sum of a name's series, or of the one with these labels; undefined where there is none. */
export function figure({ samples }, name, labels) {
  const series = (samples.get(name) ?? []).filter((it) => labels === undefined || it.labels === labels);
  return series.length ? series.reduce((sum, it) => sum + it.figure, 0) : undefined;
}

/** What can be plotted of one look: a histogram once, and not by its buckets. */
export function names({ samples, types }) {
  const histograms = [...types].filter(([, type]) => type === 'histogram').map(([family]) => family);
  const parts = new Set(histograms.flatMap((family) => ['_bucket', '_sum', '_count'].map((part) => family + part)));
  return [...[...samples.keys()].filter((name) => !parts.has(name)), ...histograms].sort();
}

// A line of a plot is made of looks, the oldest first: `{ at, samples, types }`, `at` in milliseconds. Its points have
// `figure: undefined` where nothing can be said.

const points = (looks, of) => looks.map((look, place) => ({ at: look.at, figure: of(look, place) }));

/** What there is. */
export const level = (name, labels) => (looks) => points(looks, (look) => figure(look, name, labels));

/** How much comes about in a second. A counter that falls belongs to a new process. */
export const rate = (name, labels) => (looks) => points(looks, (look, place) => {
  const before = looks[place - 1];
  const more = before && figure(look, name, labels) - (figure(before, name, labels) ?? 0);
  return more >= 0 ? more / ((look.at - before.at) / 1000) : undefined;
});

/** What a part of a histogram's observations, over the last few looks, was below; as PromQL's `histogram_quantile`. */
export const quantile = (family, part, window = 5) => (looks) => points(looks, (look, place) => {
  const before = looks[Math.max(0, place - window)];
  if (before === look) return undefined;
  const buckets = (look.samples.get(`${family}_bucket`) ?? []).map((it) => {
    const most = labelsOf(it).le;
    const count = it.figure - (figure(before, `${family}_bucket`, it.labels) ?? 0);
    return { most: most === '+Inf' ? Infinity : Number(most), count };
  });
  const all = buckets.at(-1)?.count ?? 0;
  if (!(all > 0)) return undefined;
  const rank = part * all;
  const at = buckets.findIndex(({ count }) => count >= rank);
  const [least, below] = at > 0 ? [buckets[at - 1].most, buckets[at - 1].count] : [0, 0];
  const { most, count } = buckets[at];
  return most === Infinity || count === below ? least : least + (most - least) * ((rank - below) / (count - below));
});

/** The lines that show any figure, by its name in the newest look: four at most, those with the highest figures. */
export function linesOf(name, look) {
  if (look.types.get(name) === 'histogram') return [['p50', quantile(name, 0.5)], ['p99', quantile(name, 0.99)]];
  const of = name.endsWith('_total') ? rate : level;
  const series = [...(look.samples.get(name) ?? [])].sort((one, other) => other.figure - one.figure).slice(0, 4);
  return series.map(({ labels }) => [Object.values(labelsOf({ labels })).join(' '), of(name, labels)]);
}

// --- for people ------------------------------------------------------------------------------------

const rounded = (figure) => (figure >= 100 || Number.isInteger(figure) ? Math.round(figure) : Number(figure.toPrecision(2)));

export const plain = (figure) => rounded(figure).toLocaleString('en');
export const percent = (figure) => `${plain(figure * 100)} %`;

/** A time, given in seconds. */
export function seconds(figure) {
  if (figure === 0) return '0 s';
  if (figure < 0.001) return `${plain(figure * 1e6)} µs`;
  return figure < 1 ? `${plain(figure * 1000)} ms` : `${plain(figure)} s`;
}

export function bytes(figure) {
  const step = [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]].find(([, size]) => figure >= size);
  return step ? `${plain(figure / step[1])} ${step[0]}` : `${plain(figure)} B`;
}

/** Which of them suits a figure, by the unit that its name ends with. A rate of seconds is a part of one core, or thread. */
export function unitOf(name) {
  if (/_seconds_total$/.test(name)) return percent;
  if (/_seconds$/.test(name)) return seconds;
  return /_bytes(_total)?$/.test(name) ? bytes : plain;
}

/** How long something goes on, in the largest unit that it fills: `42 s`, `3 min`, `7 h`, `12 d`. */
export function age(inSeconds) {
  const step = [['d', 86_400], ['h', 3600], ['min', 60]].find(([, size]) => inSeconds >= size) ?? ['s', 1];
  return `${Math.floor(inSeconds / step[1])} ${step[0]}`;
}
