// The sequence diagram of a room's timeline.

import { h, s } from './dom.mjs';
import { duration } from './format.mjs';
import { describeEvent, displayName, eventLabel, isDelivered, isFailure, isSignal } from './timeline.mjs';

// In pixels.
const [ROW_HEIGHT, LEFT, RIGHT, HEAD_HEIGHT] = [30, 78, 60, 40];
const [MIN_COLUMN, MAX_COLUMN] = [168, 300];

const shorten = (text, maxLength) => ([...text].length > maxLength ? `${[...text].slice(0, maxLength - 1).join('')}…` : text);

/** Draws a laid out timeline in `availableWidth` pixels: the column heads, which stay in view, and the rows below them. */
export function drawDiagram({ columns, rows }, availableWidth) {
  const columnWidth = Math.max(MIN_COLUMN, Math.min(MAX_COLUMN, Math.floor((availableWidth - LEFT - RIGHT) / columns.length)));
  const centre = (index) => LEFT + columnWidth * (index + 0.5);
  const width = LEFT + columnWidth * columns.length + RIGHT;
  const height = ROW_HEIGHT * (rows.length + 1);
  const start = rows.find(({ event }) => event)?.event.at;
  const canvas = (canvasHeight, attributes, ...children) => s('svg', { width, height: canvasHeight, viewBox: `0 0 ${width} ${canvasHeight}`, ...attributes }, ...children);
  const heads = columns.map(({ id, username, index }) => {
    const name = displayName(id);
    const lines = username && username !== id ? [shorten(username, 20), shorten(name, 22)] : [shorten(name, 22)];
    return s('g', {}, s('title', {}, username ? `${id} (${username})` : id),
      s('rect', { class: 'head', x: centre(index) - columnWidth / 2 + 6, y: 2, width: columnWidth - 12, height: HEAD_HEIGHT - 4, rx: 6 }),
      ...lines.map((line, row) => s('text', { class: `middle${row ? ' quiet' : ''}`, x: centre(index), y: lines.length > 1 ? 17 + 14 * row : 24 }, line)));
  });
  const y = (row) => ROW_HEIGHT * (row + 0.75);
  const lifelines = columns.flatMap(({ index, spans }) => spans.map(({ from, until, isDetached }) => s('line', {
    class: isDetached ? 'life detached' : 'life', x1: centre(index), x2: centre(index), y1: y(from), y2: until === undefined ? height : y(until),
  })));
  const columnOf = new Map(columns.map(({ id, index }) => [id, index]));
  const drawn = rows.map((row, number) => drawRow(row, y(number), { columnOf, width, start, columnWidth, centre }));
  return [
    h('div', { class: 'heads' }, canvas(HEAD_HEIGHT, { 'aria-hidden': 'true' }, ...heads)),
    canvas(height, { role: 'img', 'aria-label': 'Sequence diagram of this room. The list of events below contains the same information.' }, ...lifelines, ...drawn),
  ];
}

function drawRow({ pause, event, count, size, receivers }, y, grid) {
  const { columnOf, width, start, centre } = grid;
  if (pause) {
    return s('g', { class: 'pause' }, s('line', { x1: 8, x2: width - 8, y1: y - 4, y2: y - 4 }),
      s('text', { class: 'middle', x: LEFT / 2 + 4, y }, `${duration(pause / 1000)} pause`));
  }
  const label = eventLabel(event, count, size);
  const own = columnOf.get(event.client_id);
  const marks = own === undefined ? drawRoomEvent(label, y, width)
    : isSignal(event) ? drawArrows(event, label, y, own, grid, receivers)
      : drawClientEvent(event, label, y, centre(own));
  return s('g', { class: `event ${event.type}${isFailure(event) ? ' bad' : ''}${event.outcome === 'connected' ? ' good' : ''}` },
    s('title', {}, `${new Date(event.at).toISOString()} ${describeEvent(event)}`),
    s('text', { class: 'time', x: LEFT - 10, y: y + 4 }, `+${((event.at - start) / 1000).toFixed(3)}`), ...marks);
}

function drawRoomEvent(label, y, width) {
  return [s('line', { class: 'across', x1: LEFT, x2: width - 8, y1: y, y2: y }), s('text', { x: LEFT + 4, y: y - 6 }, label)];
}

function drawClientEvent(event, label, y, x) {
  const cross = s('path', { class: 'cross', d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` });
  return [event.type === 'left' || event.type === 'refused' ? cross : s('circle', { cx: x, cy: y, r: 4 }), s('text', { x: x + 9, y: y + 4 }, label)];
}

/** Arrows to a peer or to all receivers; a cross where the signal was not delivered. */
function drawArrows(event, label, y, own, { columnOf, columnWidth, centre }, receivers) {
  const from = centre(own);
  const tips = event.to === undefined ? (receivers ?? []).map(centre) : [centre(columnOf.get(event.to))];
  if (!isDelivered(event) || tips.length === 0) {
    const to = event.to === undefined ? from + columnWidth / 3 : (from + tips[0]) / 2;
    return [s('line', { class: 'arrow', x1: from, x2: to, y1: y, y2: y }), s('path', { class: 'cross', d: `M${to - 4} ${y - 4}l8 8m0 -8l-8 8` }),
      s('text', { x: Math.min(from, to) + 6, y: y - 7 }, label)];
  }
  const [leftmost, rightmost] = [Math.min(from, ...tips), Math.max(from, ...tips)];
  const head = (tip) => s('path', { class: 'tip', d: tip > from ? `M${tip - 1} ${y}l-8 -4v8z` : `M${tip + 1} ${y}l8 -4v8z` });
  // A long arrow crosses other lifelines, so its label is beside the sender.
  const isShort = rightmost - leftmost <= columnWidth;
  const text = isShort ? { class: 'middle', x: (leftmost + rightmost) / 2 } : { x: from === rightmost ? from - columnWidth / 2 : from + columnWidth / 2, class: 'middle' };
  return [s('line', { class: `arrow ${event.outcome}`, x1: leftmost, x2: rightmost, y1: y, y2: y }), ...tips.map(head), s('text', { ...text, y: y - 7 }, label)];
}
