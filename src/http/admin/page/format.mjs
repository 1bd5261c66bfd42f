// Numbers, times and sizes as text. Pure: no document, no clock.

const rounded = (value) => (value >= 100 || Number.isInteger(value) ? Math.round(value) : Number(value.toPrecision(2)));

export const plain = (value) => rounded(value).toLocaleString('en');
export const percent = (value) => `${plain(value * 100)} %`;

/** A time, given in seconds. */
export function seconds(value) {
  if (value === 0) return '0 s';
  if (value < 0.001) return `${plain(value * 1e6)} µs`;
  return value < 1 ? `${plain(value * 1000)} ms` : `${plain(value)} s`;
}

export function bytes(value) {
  const step = [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]].find(([, size]) => value >= size);
  return step ? `${plain(value / step[1])} ${step[0]}` : `${plain(value)} B`;
}

/** The format for a metric, by the unit in its name. The rate of a counter of seconds is a share of one core or thread. */
export function formatOf(name) {
  if (/_seconds_total$/.test(name)) return percent;
  if (/_seconds$/.test(name)) return seconds;
  return /_bytes(_total)?$/.test(name) ? bytes : plain;
}

/** A duration in the largest unit that it fills: `42 s`, `3 min`, `7 h`, `12 d`. */
export function duration(inSeconds) {
  const step = [['d', 86_400], ['h', 3600], ['min', 60]].find(([, size]) => inSeconds >= size) ?? ['s', 1];
  return `${Math.floor(inSeconds / step[1])} ${step[0]}`;
}
