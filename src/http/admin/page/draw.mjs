// Elements, plots and the sequence diagram. Text goes in as text: nothing here reads HTML.

import { age } from './figures.mjs';
import { hasArrived, isBad, isSignal, nameOf, tell, titleOf } from './story.mjs';

const SVG = 'http://www.w3.org/2000/svg';

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** An HTML element; one of SVG. Without a style attribute: the page's policy takes none. */
export const h = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);
const s = (name, attributes = {}, ...children) => filled(document.createElementNS(SVG, name), attributes, children);

// --- plots -----------------------------------------------------------------------------------------

/** What a plot shows at most and at least, and where a line is broken, in milliseconds. */
export const SHOWN = 300_000;
const [LEAST_SHOWN, GAP] = [60_000, 10_000];
const [WIDTH, HEIGHT] = [300, 56];

/** A small plot of up to five minutes: its figures now, its lines from 0, and the highest figure. Undefined without figures. */
export function plot({ title, lines, unit }, looks) {
  const now = looks.at(-1).at;
  const shown = Math.min(SHOWN, Math.max(LEAST_SHOWN, now - looks[0].at));
  const drawn = lines.map(([name, line]) => ({ name, points: line(looks) }));
  const known = drawn.flatMap(({ points }) => points).map(({ figure }) => figure).filter((figure) => figure !== undefined);
  if (known.length === 0) return undefined;
  const most = Math.max(...known);
  const text = ({ points }) => {
    const { figure } = points.at(-1);
    return figure === undefined ? '–' : unit(figure);
  };
  const said = drawn.map((it) => `${it.name ? `${it.name} ` : ''}${text(it)}`);
  const at = ({ at, figure }) => `${(WIDTH - ((now - at) / shown) * WIDTH).toFixed(1)} ${(HEIGHT - 2 - (most ? figure / most : 0) * (HEIGHT - 6)).toFixed(1)}`;
  const path = ({ points }) => points.map((point, place) => {
    if (point.figure === undefined) return '';
    const before = points[place - 1];
    const joins = before && before.figure !== undefined && point.at - before.at < GAP;
    return `${joins ? 'L' : 'M'}${at(point)}${joins ? '' : 'h.1'}`;
  }).join('');
  return h('figure', { class: 'plot' },
    h('figcaption', {}, h('span', {}, title),
      ...drawn.map((it, place) => h('strong', { class: `line${place}` }, it.name ? h('small', {}, `${it.name} `) : '', text(it)))),
    s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${title}: ${said.join(', ')}; at most ${unit(most)} in ${age(shown / 1000)}` },
      s('path', { class: 'ground', d: `M0 ${HEIGHT - 1.5}H${WIDTH}` }),
      ...drawn.map((it, place) => s('path', { class: `line line${place}`, d: path(it) }))),
    h('span', { class: 'most' }, h('span', {}, `at most ${unit(most)}`), h('span', {}, age(shown / 1000))));
}

// --- the sequence diagram --------------------------------------------------------------------------

const [ROW, LEFT, RIGHT, HEAD] = [30, 78, 60, 40];
const [NARROWEST, WIDEST] = [168, 300];
const short = (text, most) => ([...text].length > most ? `${[...text].slice(0, most - 1).join('')}…` : text);

/** A room's timeline as it was laid out, for a place so wide: the heads of its columns, which stay in view, and the rows below them. */
export function diagram({ columns, rows }, wide) {
  const column = Math.max(NARROWEST, Math.min(WIDEST, Math.floor((wide - LEFT - RIGHT) / columns.length)));
  const middle = (place) => LEFT + column * (place + 0.5);
  const width = LEFT + column * columns.length + RIGHT;
  const height = ROW * (rows.length + 1);
  const began = rows.find(({ event }) => event)?.event.at;
  const canvas = (tall, attributes, ...children) => s('svg', { width, height: tall, viewBox: `0 0 ${width} ${tall}`, ...attributes }, ...children);
  const heads = columns.map(({ id, username, place }) => {
    const name = nameOf(id);
    const lines = username && username !== id ? [short(username, 20), short(name, 22)] : [short(name, 22)];
    return s('g', {}, s('title', {}, username ? `${id} (${username})` : id),
      s('rect', { class: 'head', x: middle(place) - column / 2 + 6, y: 2, width: column - 12, height: HEAD - 4, rx: 6 }),
      ...lines.map((line, row) => s('text', { class: `middle${row ? ' quiet' : ''}`, x: middle(place), y: lines.length > 1 ? 17 + 14 * row : 24 }, line)));
  });
  const y = (row) => ROW * (row + 0.75);
  const lives = columns.flatMap(({ place, spans }) => spans.map(({ from, until, isAway }) => s('line', {
    class: isAway ? 'life away' : 'life', x1: middle(place), x2: middle(place), y1: y(from), y2: until === undefined ? height : y(until),
  })));
  const places = new Map(columns.map(({ id, place }) => [id, place]));
  const drawn = rows.map((row, number) => drawRow(row, y(number), { places, width, began, column, middle }));
  return [
    h('div', { class: 'heads' }, canvas(HEAD, { 'aria-hidden': 'true' }, ...heads)),
    canvas(height, { role: 'img', 'aria-label': 'Sequence diagram of this room. The list of events below says the same.' }, ...lives, ...drawn),
  ];
}

function drawRow({ pause, event, count, size, hearers }, y, grid) {
  const { places, width, began, middle } = grid;
  if (pause) {
    return s('g', { class: 'pause' }, s('line', { x1: 8, x2: width - 8, y1: y - 4, y2: y - 4 }),
      s('text', { class: 'middle', x: LEFT / 2 + 4, y }, `${age(pause / 1000)} pause`));
  }
  const label = titleOf(event, count, size);
  const own = places.get(event.client_id);
  const marks = own === undefined ? acrossAll(label, y, width)
    : isSignal(event) ? arrows(event, label, y, own, grid, hearers)
      : beside(event, label, y, middle(own));
  return s('g', { class: `event ${event.type}${isBad(event) ? ' bad' : ''}${event.outcome === 'connected' ? ' good' : ''}` },
    s('title', {}, `${new Date(event.at).toISOString()} ${tell(event)}`),
    s('text', { class: 'time', x: LEFT - 10, y: y + 4 }, `+${((event.at - began) / 1000).toFixed(3)}`), ...marks);
}

function acrossAll(label, y, width) {
  return [s('line', { class: 'across', x1: LEFT, x2: width - 8, y1: y, y2: y }), s('text', { x: LEFT + 4, y: y - 6 }, label)];
}

function beside(event, label, y, x) {
  const end = s('path', { class: 'cross', d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` });
  return [event.type === 'left' || event.type === 'refused' ? end : s('circle', { cx: x, cy: y, r: 4 }), s('text', { x: x + 9, y: y + 4 }, label)];
}

/** To a peer, to all who hear it, or to nobody. */
function arrows(event, label, y, own, { places, column, middle }, hearers) {
  const from = middle(own);
  const tips = event.to === undefined ? (hearers ?? []).map(middle) : [middle(places.get(event.to))];
  if (!hasArrived(event) || tips.length === 0) {
    const to = event.to === undefined ? from + column / 3 : (from + tips[0]) / 2;
    return [s('line', { class: 'arrow', x1: from, x2: to, y1: y, y2: y }), s('path', { class: 'cross', d: `M${to - 4} ${y - 4}l8 8m0 -8l-8 8` }),
      s('text', { x: Math.min(from, to) + 6, y: y - 7 }, label)];
  }
  const [least, most] = [Math.min(from, ...tips), Math.max(from, ...tips)];
  const head = (tip) => s('path', { class: 'tip', d: tip > from ? `M${tip - 1} ${y}l-8 -4v8z` : `M${tip + 1} ${y}l8 -4v8z` });
  // Beside the sender, where an arrow crosses others' lifelines.
  const isNear = most - least <= column;
  const text = isNear ? { class: 'middle', x: (least + most) / 2 } : { x: from === most ? from - column / 2 : from + column / 2, class: 'middle' };
  return [s('line', { class: `arrow ${event.outcome}`, x1: least, x2: most, y1: y, y2: y }), ...tips.map(head), s('text', { ...text, y: y - 7 }, label)];
}
