// A small plot of one metric.

import { h, s } from './dom.mjs';
import { duration } from './format.mjs';

/** The longest time range of a plot, in milliseconds. */
export const MAX_RANGE = 300_000;
/** The shortest time range of a plot, and the distance of points above which a line is interrupted, in milliseconds. */
const [MIN_RANGE, GAP] = [60_000, 10_000];
const [WIDTH, HEIGHT] = [300, 56];

/** A plot of up to five minutes: the current values, the lines from 0, and the maximum. Undefined without any value. */
export function plot({ title, lines, format }, snapshots) {
  const now = snapshots.at(-1).at;
  const range = Math.min(MAX_RANGE, Math.max(MIN_RANGE, now - snapshots[0].at));
  const drawn = lines.map(([name, line]) => ({ name, points: line(snapshots) }));
  const values = drawn.flatMap(({ points }) => points).map(({ value }) => value).filter((value) => value !== undefined);
  if (values.length === 0) return undefined;
  const max = Math.max(...values);
  const current = ({ points }) => {
    const { value } = points.at(-1);
    return value === undefined ? '–' : format(value);
  };
  const texts = drawn.map((line) => `${line.name ? `${line.name} ` : ''}${current(line)}`);
  const position = ({ at, value }) => `${(WIDTH - ((now - at) / range) * WIDTH).toFixed(1)} ${(HEIGHT - 2 - (max ? value / max : 0) * (HEIGHT - 6)).toFixed(1)}`;
  const path = ({ points }) => points.map((point, index) => {
    if (point.value === undefined) return '';
    const before = points[index - 1];
    const continues = before && before.value !== undefined && point.at - before.at < GAP;
    return `${continues ? 'L' : 'M'}${position(point)}${continues ? '' : 'h.1'}`;
  }).join('');
  return h('figure', { class: 'plot' },
    h('figcaption', {}, h('span', {}, title),
      ...drawn.map((line, index) => h('strong', { class: `line${index}` }, line.name ? h('small', {}, `${line.name} `) : '', current(line)))),
    s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${title}: ${texts.join(', ')}; at most ${format(max)} in ${duration(range / 1000)}` },
      s('path', { class: 'axis', d: `M0 ${HEIGHT - 1.5}H${WIDTH}` }),
      ...drawn.map((line, index) => s('path', { class: `line line${index}`, d: path(line) }))),
    h('span', { class: 'range' }, h('span', {}, `at most ${format(max)}`), h('span', {}, duration(range / 1000))));
}
