// A room's timeline: in words, as columns and rows of a sequence diagram, and what it says about why a call failed.
// Pure: no document, no clock.

import { bytes, seconds } from './figures.mjs';

/** A silence that is marked, and a wait that says something, in milliseconds. */
const PAUSE = 2_000;
const PATIENCE = 5_000;

const SIGNALS = ['offer', 'answer', 'ice_candidate', 'message'];
const PATHS = { host: 'directly', srflx: 'directly, through a NAT', relay: 'through a relay' };

/** What our words mean, where they do not say it. */
const MEANINGS = {
  gone: 'its connection broke', left: 'it said so', removed: 'by an administrator', replaced: 'by a newer connection with its client id',
  room_full: 'the room holds no more', room_locked: 'an administrator has locked the room', banned: 'an administrator keeps it out',
  client_id_taken: "the client id is another user's", too_slow: 'it did not read what was sent to it', timeout: 'nothing was heard of it',
  target_not_found: 'nobody with the client id that it named was in the room', target_unreachable: 'the peer is on a server that cannot be reached',
  invalid_message: 'it named itself', unavailable: 'Redis cannot be reached', token_expired: 'its token ran out',
  server_restarting: 'the server stopped', draining: 'the server stopped', rate_limited: 'it sent too much',
};

const meant = (word) => (MEANINGS[word] ? `${word}: ${MEANINGS[word]}` : word);

export const isSignal = ({ type }) => SIGNALS.includes(type);
export const hasArrived = ({ outcome }) => outcome === 'sent' || outcome === 'queued';

/** Whether something went wrong in an event. */
export function isBad(event) {
  if (isSignal(event)) return !hasArrived(event);
  if (event.type === 'left') return event.outcome !== 'left';
  return event.type === 'refused' || event.outcome === 'failed';
}

/** A client id as it is shown: a long one, which nobody has chosen, after its user's name. */
export function nameOf(id, username) {
  if (id === undefined) return 'somebody';
  return id.length > 20 ? `${username ? `${username} ` : ''}${[...id].slice(0, 8).join('')}…` : id;
}

/** What an event is called beside its lifeline or arrow. `count` and `size` are of all that it stands for. */
export function titleOf(event, count = 1, size = event.bytes) {
  const { type, outcome, replayed, ms, path, username } = event;
  if (isSignal(event)) {
    const what = count > 1 ? `${count} × ${type}` : type;
    const fate = { sent: '', queued: ', waits' }[outcome] ?? `: ${outcome}`;
    return `${what} ${bytes(size ?? 0)}${fate}`;
  }
  switch (type) {
    case 'opened': return 'room opened';
    case 'closed': return 'room closed';
    case 'left': return `left: ${outcome}`;
    case 'away': return 'away: connection gone';
    case 'resumed': return `back, ${replayed} missed`;
    case 'moved': return 'moved to another server';
    case 'arrived': return 'moved here';
    case 'refused': return `${username} refused: ${outcome}`;
    case 'moderated': return `administrator: ${outcome}`;
    case 'call_report': return `call${event.to ? ` with ${nameOf(event.to)}` : ''} ${outcome}${path ? ` by ${path}` : ''}, ${seconds(ms / 1000)}`;
    default: return type; // `joined`, and what a newer server knows
  }
}

/** An event as a sentence: what the diagram says to whoever does not see it. */
export function tell(event) {
  const { type, client_id: id, username, to, outcome, replayed, ms, path } = event;
  const who = id === undefined ? 'Somebody' : `${id}${username && username !== id ? ` (${username})` : ''}`;
  if (isSignal(event)) {
    const whom = to ?? (hasArrived(event) ? 'everybody else' : 'somebody who is not here');
    const fate = { sent: '', queued: '; it waits there' }[outcome] ?? `; refused (${meant(outcome)})`;
    return `${who} sent ${type}, ${bytes(event.bytes ?? 0)}, to ${whom}${fate}`;
  }
  switch (type) {
    case 'opened': return 'The room was opened';
    case 'closed': return 'The room was closed';
    case 'joined': return `${who} joined`;
    case 'left': return `${who} left (${meant(outcome)})`;
    case 'away': return `${who} is away: its connection is gone`;
    case 'resumed': return `${who} is back and got ${replayed} frames that it had missed`;
    case 'moved': return `${who} moved to another server`;
    case 'arrived': return `${who} moved here from another server`;
    case 'refused': return `${who} was not let in (${meant(outcome)})`;
    case 'moderated': return id === undefined ? `An administrator: ${outcome}` : `An administrator: ${outcome}, ${who}`;
    case 'call_report': return `${who} says: call${to ? ` with ${to}` : ''} ${outcome}, ${PATHS[path] ?? 'way unknown'}, after ${seconds(ms / 1000)}`;
    default: return `${who}: ${type}`;
  }
}

/** Whether an event is about a client: what it did, and what it was sent. */
export const isAbout = (event, id) => event.client_id === undefined || event.client_id === id || event.to === id
  || (isSignal(event) && event.to === undefined && hasArrived(event));

/**
 * Columns, one for each client, and rows, one for each event; a pause has a row of its own, and what one sends of ICE
 * candidates to another in a burst is one row. A column has the `spans` of rows in which its client was there (`isAway`
 * while its connection was not), a broadcast its `hearers`.
 */
export function layout(events) {
  const [columns, rows, bursts] = [new Map(), [], new Map()];
  let last;
  const column = (id, username) => {
    // Who is there before the first event that is kept, is there from the beginning.
    if (!columns.has(id)) columns.set(id, { id, username, place: columns.size, spans: [] });
    const it = columns.get(id);
    it.username ??= username;
    return it;
  };
  const isHere = ({ spans }) => spans.length > 0 && spans.at(-1).until === undefined;
  const begin = (it, row, isAway) => {
    if (isHere(it)) it.spans.at(-1).until = row;
    it.spans.push({ from: row, until: undefined, isAway });
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
    const place = rows.push(row) - 1;
    if (type === 'ice_candidate') bursts.set(burst, row);
    for (const named of [id, to]) {
      if (named === undefined) continue;
      const it = column(named, named === id && type !== 'refused' ? username : undefined);
      if (!['joined', 'arrived', 'refused'].includes(type) && it.spans.length === 0) begin(it, 0, false);
    }
    if (id === undefined) continue;
    const it = columns.get(id);
    if (['joined', 'arrived', 'resumed'].includes(type)) begin(it, place, false);
    if (['away', 'moved'].includes(type)) begin(it, place, true);
    if (type === 'left' && isHere(it)) it.spans.at(-1).until = place;
    if (isSignal(event) && to === undefined && hasArrived(event)) {
      row.hearers = [...columns.values()].filter((other) => other !== it && isHere(other)).map((other) => other.place);
    }
  }
  return { columns: [...columns.values()], rows };
}

/**
 * Why a call failed, as far as the events say it: sentences, the bad ones first. `now` is the server's time in
 * milliseconds since the Unix epoch, `deadRelays` the TURN servers that do not work now.
 */
export function diagnose({ events, dropped }, now, deadRelays = []) {
  const [people, pairs, found] = [new Map(), [], new Map()];
  const say = (kind, isBad, text) => {
    if (!found.has(kind)) found.set(kind, { isBad, times: new Map() });
    const { times } = found.get(kind);
    times.set(text, (times.get(text) ?? 0) + 1);
  };
  const person = (id, username) => {
    if (!people.has(id)) people.set(id, { id, isHere: false, wasHere: false });
    const it = people.get(id);
    it.name = nameOf(id, username ?? it.username);
    it.username = username ?? it.username;
    return it;
  };
  const meet = (one, other, at) => {
    const pair = { one, other, since: at, candidates: new Map(), reports: new Map() };
    pairs.push(pair);
    return pair;
  };
  const pairOf = (one, other, at) => {
    const is = (it) => (it.one === one && it.other === other) || (it.one === other && it.other === one);
    return pairs.findLast((it) => is(it) && !it.end) ?? meet(one, other, at);
  };
  const others = (it) => [...people.values()].filter((other) => other !== it && other.isHere);
  const comes = (it, at) => {
    if (it.isHere) return;
    for (const other of others(it)) meet(other, it, at);
    it.isHere = it.wasHere = true;
  };

  for (const event of events) {
    const { type, at, client_id: id, username, to, outcome } = event;
    if (id === undefined) continue;
    if (type === 'refused') {
      say('refused', true, `${nameOf(id, username)} was not let in (${meant(outcome)}).`);
      continue;
    }
    const it = person(id, username);
    if (type === 'left') {
      for (const pair of pairs) if (!pair.end && (pair.one === it || pair.other === it)) pair.end = { who: it, at, why: outcome };
      it.isHere = it.isAway = false;
      if (!['left', 'gone'].includes(outcome)) say('put out', true, `${it.name} was put out (${meant(outcome)}).`);
      continue;
    }
    comes(it, at);
    if (type === 'away') it.isAway = true;
    if (['resumed', 'joined', 'arrived'].includes(type)) it.isAway = false;
    if (type === 'call_report') {
      // Without `to` its peer had left before.
      const own = pairs.filter((pair) => pair.one === it || pair.other === it);
      const pair = to === undefined ? own.length === 1 && own[0] : pairOf(it, person(to), at);
      if (pair) pair.reports.set(it, event);
    }
    if (isSignal(event) && !hasArrived(event)) {
      say('refused signal', true, `${type === 'message' ? 'A' : 'An'} ${type} of ${it.name} reached nobody (${meant(outcome)}).`);
    }
    if (!isSignal(event) || !hasArrived(event)) continue;
    for (const peer of to === undefined ? others(it) : [person(to)]) {
      comes(peer, at);
      const pair = pairOf(it, peer, at);
      if (type === 'offer' && (!pair.offer || pair.answer)) Object.assign(pair, { offer: { by: it, to: peer, at, isAgain: Boolean(pair.answer) }, answer: undefined });
      if (type === 'answer' && pair.offer) pair.answer = { at };
      if (type === 'ice_candidate') pair.candidates.set(it, at);
    }
  }

  if (dropped > 0) say('dropped', false, `The first ${dropped} events are no longer kept.`);
  const here = [...people.values()].filter(({ wasHere }) => wasHere);
  if (here.length === 1) say('alone', false, `Only ${here[0].name} was here: there was nobody to call.`);
  for (const pair of pairs) {
    const [kind, isBad, text] = verdict(pair, now, deadRelays);
    if (text) say(kind, isBad, text);
  }
  const sentences = [...found.values()].sort((one, other) => other.isBad - one.isBad).flatMap(({ isBad, times }) => {
    const all = [...times].map(([text, count]) => ({ isBad, text: count > 1 ? `${text} (${count} times)` : text }));
    const more = all.length - 4;
    return more > 1 ? [...all.slice(0, 4), { isBad, text: `And ${more} more like these.` }] : all;
  });
  return sentences.length ? sentences : [{ isBad: false, text: 'Nothing that a call consists of has happened here.' }];
}

/** What became of a call between two: a kind, whether it is bad, and a sentence. */
function verdict({ one, other, since, offer, answer, candidates, reports, end }, now, deadRelays) {
  const until = end?.at ?? now;
  const wait = (from) => seconds(Math.max(0, until - from) / 1000);
  const both = `${one.name} and ${other.name}`;
  const failed = [...reports.values()].find(({ outcome }) => outcome === 'failed');
  const connected = [...reports.values()].find(({ outcome }) => outcome === 'connected');
  const silent = [one, other].filter((it) => !candidates.has(it)).map(({ name }) => name);
  if (offer && !answer) {
    const { by, to, at, isAgain } = offer;
    const offered = `${by.name} offered ${isAgain ? 'again ' : ''}to ${to.name}`;
    if (end?.who === to) return ['left', true, `${to.name} left (${meant(end.why)}) ${wait(at)} after the offer of ${by.name}, without an answer.`];
    if (end && until - at < PATIENCE) return ['left', true, `${by.name} left (${meant(end.why)}) ${wait(at)} after its offer, before ${to.name} answered.`];
    if (to.isAway) return ['away', true, `${offered}, whose connection is gone: it hears the offer if it comes back.`];
    if (until - at < PATIENCE) return ['waits', false, `${offered}: no answer yet.`];
    return ['no answer', true, `${offered}, who never answered (${wait(at)} ${end ? 'until one left' : 'so far'}).`];
  }
  if (failed) {
    const after = `the call between ${both} failed after ${seconds(failed.ms / 1000)}`;
    if (!offer) return ['failed', true, `${after.replace('the', 'The')}, and no offer went between them.`];
    if (silent.length) return ['failed', true, `No ICE candidate came from ${silent.join(' or ')}, and ${after}: unless the SDP held them, there was nothing to connect to.`];
    const dead = deadRelays.length ? ` Now ${deadRelays.join(' and ')} ${deadRelays.length > 1 ? 'do' : 'does'} not work.` : '';
    return ['failed', true, `ICE candidates were exchanged, but ${after}: no way was found between their networks, and no relay was used; look at TURN.${dead}`];
  }
  if (connected) return ['connected', false, `${both} connected in ${seconds(connected.ms / 1000)}: ${PATHS[connected.path] ?? 'way unknown'}.`];
  if (!offer) {
    return until - since < PATIENCE ? [] : ['no offer', true, `${both} were in the room together for ${wait(since)}, and neither offered.`];
  }
  if (silent.length) {
    if (until - answer.at < PATIENCE) return ['waits', false, `${both} exchanged offer and answer; ICE candidates have not come yet.`];
    return ['silent', true, `No ICE candidate came from ${silent.join(' or ')}: unless the SDP held them, there is nothing to connect to.`];
  }
  return ['unreported', false, `${both} exchanged offer, answer and ICE candidates; neither reported how the call went.`];
}
