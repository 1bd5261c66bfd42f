// The events of a room's timeline as text, and as columns and rows of a sequence diagram. Pure: no document, no clock.

import { bytes, seconds } from './format.mjs';

/** The time without events after which the diagram shows a pause, in milliseconds. */
const PAUSE = 2_000;

/** How a call goes, by the path that a client reports. */
export const PATHS = { host: 'directly', srflx: 'directly, through a NAT', relay: 'through a TURN server' };

/** The meaning of the outcomes and error codes that are not obvious. */
const MEANINGS = {
  connection_lost: 'its connection was lost', left: 'it closed its connection', resume_timeout: 'it lost its connection and did not reconnect in time',
  removed: 'by an administrator', replaced: 'by a newer connection with its client id',
  room_full: 'the room is at its capacity', room_locked: 'an administrator has locked the room', banned: 'an administrator has banned it',
  client_id_taken: 'the client id belongs to another user', too_slow: 'send queue overflow: it read too slowly',
  timeout: 'the server received nothing from it in time',
  target_not_found: 'no member of the room had that client id', target_unreachable: 'the peer is on a node that cannot be reached',
  invalid_message: 'it addressed itself', unavailable: 'Redis cannot be reached', token_expired: 'its token has expired',
  server_restarting: 'the server stopped', draining: 'the server stopped', rate_limited: 'it sent too many frames',
};

/** An outcome or error code with its meaning. */
export const explain = (code) => (MEANINGS[code] ? `${code}: ${MEANINGS[code]}` : code);

/** Whether an event is a message between members: only those have a length. */
export const isSignal = ({ bytes }) => bytes !== undefined;
export const isDelivered = ({ outcome }) => outcome === 'sent' || outcome === 'queued';

/** Whether an event is a failure. */
export function isFailure(event) {
  if (isSignal(event)) return !isDelivered(event);
  if (event.type === 'left') return event.outcome !== 'left';
  return event.type === 'refused' || event.outcome === 'failed';
}

/** A client id for display. A long one was assigned by the server: it is shortened, and the username is put before it. */
export function displayName(id, username) {
  if (id === undefined) return 'unknown client';
  return id.length > 20 ? `${username ? `${username} ` : ''}${[...id].slice(0, 8).join('')}…` : id;
}

/** The label of an event in the diagram. `count` and `size` are those of all events that the row stands for. */
export function eventLabel(event, count = 1, size = event.bytes) {
  const { type, outcome, replayed, ms, path, username } = event;
  if (isSignal(event)) {
    const signal = count > 1 ? `${count} × ${type}` : type;
    const result = { sent: '', queued: ', queued' }[outcome] ?? `: ${outcome}`;
    return `${signal} ${bytes(size ?? 0)}${result}`;
  }
  switch (type) {
    case 'opened': return 'room opened';
    case 'closed': return 'room closed';
    case 'left': return `left: ${outcome}`;
    case 'away': return 'disconnected';
    case 'resumed': return `resumed, ${replayed} replayed`;
    case 'moved': return 'moved to another node';
    case 'arrived': return 'moved here';
    case 'refused': return `${username} refused: ${outcome}`;
    case 'moderated': return `administrator: ${outcome}`;
    case 'call_report': return `call${event.to ? ` with ${displayName(event.to)}` : ''} ${outcome}${path ? ` by ${path}` : ''}, ${seconds(ms / 1000)}`;
    default: return type; // `joined`, and types of a newer server
  }
}

/** An event as a sentence. */
export function describeEvent(event) {
  const { type, client_id: id, username, to, outcome, replayed, ms, path } = event;
  const client = id === undefined ? 'An unknown client' : `${id}${username && username !== id ? ` (${username})` : ''}`;
  if (isSignal(event)) {
    const target = to ?? (isDelivered(event) ? 'every other member' : 'a client that is not in the room');
    const result = { sent: '', queued: '; queued' }[outcome] ?? `; refused (${explain(outcome)})`;
    return `${client} sent ${type}, ${bytes(event.bytes ?? 0)}, to ${target}${result}`;
  }
  switch (type) {
    case 'opened': return 'The room was opened';
    case 'closed': return 'The room was closed';
    case 'joined': return `${client} joined`;
    case 'left': return `${client} left (${explain(outcome)})`;
    case 'away': return `${client} is disconnected: its connection was lost`;
    case 'resumed': return `${client} resumed, and ${replayed} missed frames were replayed`;
    case 'moved': return `${client} moved to another node`;
    case 'arrived': return `${client} moved here from another node or process`;
    case 'refused': return `${client} was refused (${explain(outcome)})`;
    case 'moderated': return id === undefined ? `An administrator: ${outcome}` : `An administrator: ${outcome}, ${client}`;
    case 'call_report': return `${client} reported: call${to ? ` with ${to}` : ''} ${outcome}, ${PATHS[path] ?? 'path unknown'}, after ${seconds(ms / 1000)}`;
    default: return `${client}: ${type}`;
  }
}

/** Whether an event concerns a client: its own events, and the signals to it. */
export const concerns = (event, id) => event.client_id === undefined || event.client_id === id || event.to === id
  || (isSignal(event) && event.to === undefined && isDelivered(event));

/**
 * Lays out a sequence diagram: a column for each client, and a row for each event. A pause has its own row, and a burst of ICE
 * candidates from one client to another is one row. A column has the `spans` of rows in which its client was a member
 * (`isDetached` while it had no connection); a broadcast has the columns of its `receivers`.
 */
export function layout(events) {
  const [columns, rows, bursts] = [new Map(), [], new Map()];
  let last;
  const column = (id, username) => {
    if (!columns.has(id)) columns.set(id, { id, username, index: columns.size, spans: [] });
    const it = columns.get(id);
    it.username ??= username;
    return it;
  };
  const isMember = ({ spans }) => spans.length > 0 && spans.at(-1).until === undefined;
  const startSpan = (it, row, isDetached) => {
    if (isMember(it)) it.spans.at(-1).until = row;
    it.spans.push({ from: row, until: undefined, isDetached });
  };
  for (const event of events) {
    const { type, client_id: id, username, to } = event;
    if (last !== undefined && event.at - last >= PAUSE) rows.push({ pause: event.at - last });
    if (type !== 'ice_candidate' || rows.at(-1)?.pause) bursts.clear();
    last = event.at;
    const burst = JSON.stringify([id, to, event.outcome]);
    if (type === 'ice_candidate' && bursts.has(burst)) {
      const row = bursts.get(burst);
      row.count += 1;
      row.size += event.bytes;
      continue;
    }
    const row = { event, count: 1, size: event.bytes };
    const index = rows.push(row) - 1;
    if (type === 'ice_candidate') bursts.set(burst, row);
    for (const named of [id, to]) {
      if (named === undefined) continue;
      const it = column(named, named === id && type !== 'refused' ? username : undefined);
      // A client without a join in the kept events has joined before them.
      if (!['joined', 'arrived', 'refused'].includes(type) && it.spans.length === 0) startSpan(it, 0, false);
    }
    if (id === undefined) continue;
    const it = columns.get(id);
    if (['joined', 'arrived', 'resumed'].includes(type)) startSpan(it, index, false);
    if (['away', 'moved'].includes(type)) startSpan(it, index, true);
    if (type === 'left' && isMember(it)) it.spans.at(-1).until = index;
    if (isSignal(event) && to === undefined && isDelivered(event)) {
      row.receivers = [...columns.values()].filter((other) => other !== it && isMember(other)).map((other) => other.index);
    }
  }
  return { columns: [...columns.values()], rows };
}
