// A small plot of one metric.

import { h, s } from './dom.mjs';
import { duration } from './format.mjs';

/** The longest time range of a plot, in milliseconds. */
export const MAX_RANGE = 300_000;
/** The shortest time range of a plot, and the distance of points above which a line is interrupted, in milliseconds. */
const [MIN_RANGE, GAP] = [60_000, 10_000];
const [WIDTH, HEIGHT] = [300, 64];

/** The end of an axis that begins at 0: 1, 2, 4, 6 or 8 times a power of ten, so that its half is round, too, and at least `max`; 1 for 0. */
export function axisEnd(max) {
  if (!(max > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(max));
  // The quotient is not exact: 6e-5 / 1e-5 is more than 6.
  return ([1, 2, 4, 6, 8].find((step) => step * (1 + 1e-9) >= max / power) ?? 10) * power;
}

/** A plot of up to five minutes: the current values, the lines over an axis from 0, and the time axis. Undefined without any value. */
export function plot({ title, lines, format }, snapshots) {
  const now = snapshots.at(-1).at;
  const range = Math.min(MAX_RANGE, Math.max(MIN_RANGE, now - snapshots[0].at));
  const drawn = lines.map(([name, line]) => ({ name, points: line(snapshots) }));
  const values = drawn.flatMap(({ points }) => points).map(({ value }) => value).filter((value) => value !== undefined);
  if (values.length === 0) return undefined;
  const max = Math.max(...values);
  const end = axisEnd(max);
  const current = ({ points }) => {
    const { value } = points.at(-1);
    return value === undefined ? '–' : format(value);
  };
  const texts = drawn.map((line) => `${line.name ? `${line.name} ` : ''}${current(line)}`);
  // Half a line's width of room at both ends.
  const height = (value) => (HEIGHT - 1 - (value / end) * (HEIGHT - 2)).toFixed(1);
  const position = ({ at, value }) => `${(WIDTH - ((now - at) / range) * WIDTH).toFixed(1)} ${height(value)}`;
  const path = ({ points }) => points.map((point, index) => {
    if (point.value === undefined) return '';
    const before = points[index - 1];
    const continues = before && before.value !== undefined && point.at - before.at < GAP;
    return `${continues ? 'L' : 'M'}${position(point)}${continues ? '' : 'h.1'}`;
  }).join('');
  const label = `${title}: ${texts.join(', ')}; at most ${format(max)} in ${duration(range / 1000)}`;
  return h('figure', { class: 'plot' },
    h('figcaption', {}, h('span', {}, title),
      ...drawn.map((line, index) => h('strong', { class: `line${index}` }, line.name ? h('small', {}, `${line.name} `) : '', current(line)))),
    h('div', { class: 'axes' },
      h('span', { class: 'values' }, h('span', {}, format(end)), h('span', {}, format(end / 2)), h('span', {}, format(0))),
      s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
        ...[end, end / 2, 0].map((value) => s('path', { class: 'axis', d: `M0 ${height(value)}H${WIDTH}` })),
        ...drawn.map((line, index) => s('path', { class: `line line${index}`, d: path(line) }))),
      h('span', { class: 'times' }, h('span', {}, `${duration(range / 1000)} ago`), h('span', {}, 'now'))));
}
