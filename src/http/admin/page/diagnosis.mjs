// Derives from a room's timeline why a call failed. Pure: no document, no clock.

import { seconds } from './format.mjs';
import { displayName, explain, isDelivered, isSignal, PATHS } from './timeline.mjs';

/** How long an answer or a candidate may take before its absence is a finding, in milliseconds. */
const RESPONSE_TIMEOUT = 5_000;

/** How many sentences of one kind are shown. */
const MAX_OF_A_KIND = 4;

/**
 * Returns what the events tell about the calls in the room: sentences, failures first. `now` is the server's time in
 * milliseconds since the Unix epoch, `failedTurnServers` the TURN servers that do not work now.
 */
export function diagnose({ events, dropped }, now, failedTurnServers = []) {
  const findings = new Findings();
  const { clients, pairs } = analyse(events, findings);
  if (dropped > 0) findings.add('dropped', false, `The first ${dropped} events are no longer kept.`);
  const members = clients.filter(({ wasMember }) => wasMember);
  if (members.length === 1) findings.add('alone', false, `Only ${members[0].name} was in the room: there was no peer to call.`);
  for (const pair of pairs) {
    const [kind, isBad, text] = judgeCall(pair, now, failedTurnServers);
    if (text) findings.add(kind, isBad, text);
  }
  const sentences = findings.sentences();
  return sentences.length ? sentences : [{ isBad: false, text: 'The timeline contains no events of a call.' }];
}

/** Sentences by kind; equal ones are counted. */
class Findings {
  #kinds = new Map();

  add(kind, isBad, text) {
    if (!this.#kinds.has(kind)) this.#kinds.set(kind, { isBad, counts: new Map() });
    const { counts } = this.#kinds.get(kind);
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }

  sentences() {
    // Failures first. Clients that went to sleep are last: that is no failure of a call.
    const rank = ([kind, { isBad }]) => (isBad ? 0 : kind === 'not resumed' ? 2 : 1);
    return [...this.#kinds].sort((one, other) => rank(one) - rank(other)).flatMap(([, { isBad, counts }]) => {
      const all = [...counts].map(([text, count]) => ({ isBad, text: count > 1 ? `${text} (${count} times)` : text }));
      const rest = all.length - MAX_OF_A_KIND;
      return rest > 1 ? [...all.slice(0, MAX_OF_A_KIND), { isBad, text: `And ${rest} more of this kind.` }] : all;
    });
  }
}

/** Goes through the events: the clients, and the pairs of members with the offers, answers, candidates and reports between them. */
function analyse(events, findings) {
  const [clients, pairs] = [new Map(), []];
  const client = (id, username) => {
    if (!clients.has(id)) clients.set(id, { id, isMember: false, wasMember: false });
    const it = clients.get(id);
    it.name = displayName(id, username ?? it.username);
    it.username = username ?? it.username;
    return it;
  };
  const addPair = (one, other, at) => {
    const pair = { one, other, since: at, candidates: new Map(), reports: new Map() };
    pairs.push(pair);
    return pair;
  };
  const pairOf = (one, other, at) => {
    const matches = (it) => (it.one === one && it.other === other) || (it.one === other && it.other === one);
    return pairs.findLast((it) => matches(it) && !it.end) ?? addPair(one, other, at);
  };
  const others = (it) => [...clients.values()].filter((other) => other !== it && other.isMember);
  const join = (it, at) => {
    if (it.isMember) return;
    for (const other of others(it)) addPair(other, it, at);
    it.isMember = it.wasMember = true;
  };

  for (const event of events) {
    const { type, at, client_id: id, username, to, outcome } = event;
    if (id === undefined) continue;
    if (type === 'refused') {
      findings.add('refused', true, `${displayName(id, username)} was refused (${explain(outcome)}).`);
      continue;
    }
    const it = client(id, username);
    if (type === 'left') {
      for (const pair of pairs) if (!pair.end && (pair.one === it || pair.other === it)) pair.end = { by: it, at, reason: outcome };
      it.isMember = it.isDetached = false;
      if (outcome === 'resume_timeout') findings.add('not resumed', false, `${it.name} lost its connection and did not reconnect in time.`);
      else if (!['left', 'connection_lost'].includes(outcome)) findings.add('disconnected', true, `${it.name} was disconnected (${explain(outcome)}).`);
      continue;
    }
    join(it, at);
    if (type === 'away') it.isDetached = true;
    if (['resumed', 'joined', 'arrived'].includes(type)) it.isDetached = false;
    if (type === 'call_report') {
      // Without `to` the peer had left before the report.
      const own = pairs.filter((pair) => pair.one === it || pair.other === it);
      const pair = to === undefined ? own.length === 1 && own[0] : pairOf(it, client(to), at);
      if (pair) pair.reports.set(it, event);
    }
    if (isSignal(event) && !isDelivered(event)) {
      findings.add('refused signal', true, `${type === 'message' ? 'A' : 'An'} ${type} of ${it.name} was not delivered (${explain(outcome)}).`);
    }
    if (!isSignal(event) || !isDelivered(event)) continue;
    for (const peer of to === undefined ? others(it) : [client(to)]) {
      join(peer, at);
      const pair = pairOf(it, peer, at);
      if (type === 'offer' && (!pair.offer || pair.answer)) Object.assign(pair, { offer: { by: it, to: peer, at, isAgain: Boolean(pair.answer) }, answer: undefined });
      if (type === 'answer' && pair.offer) pair.answer = { at };
      if (type === 'ice_candidate') pair.candidates.set(it, at);
    }
  }
  return { clients: [...clients.values()], pairs };
}

/** The finding on the call of a pair: a kind, whether it is a failure, and a sentence; empty if there is none. */
function judgeCall(pair, now, failedTurnServers) {
  const { one, other, since, offer, answer, candidates, reports, end } = pair;
  const until = end?.at ?? now;
  const elapsed = (from) => seconds(Math.max(0, until - from) / 1000);
  const both = `${one.name} and ${other.name}`;
  if (offer && !answer) return judgeOffer(pair, until, elapsed);
  const failed = [...reports.values()].find(({ outcome }) => outcome === 'failed');
  const connected = [...reports.values()].find(({ outcome }) => outcome === 'connected');
  const silent = [one, other].filter((it) => !candidates.has(it)).map(({ name }) => name);
  if (failed) {
    const failure = `the call between ${both} failed after ${seconds(failed.ms / 1000)}`;
    if (!offer) return ['failed', true, `${failure.replace('the', 'The')}, and no offer was sent between them.`];
    if (silent.length) return ['failed', true, `No ICE candidate came from ${silent.join(' or ')}, and ${failure}: unless the SDP contained them, there was nothing to connect to.`];
    const turn = failedTurnServers.length ? ` ${failedTurnServers.join(' and ')} ${failedTurnServers.length > 1 ? 'do' : 'does'} not work now.` : '';
    return ['failed', true, `ICE candidates were exchanged, but ${failure}: no path was found between their networks, and no TURN server was used; check TURN.${turn}`];
  }
  if (connected) return ['connected', false, `${both} connected in ${seconds(connected.ms / 1000)}: ${PATHS[connected.path] ?? 'path unknown'}.`];
  if (!offer) {
    return until - since < RESPONSE_TIMEOUT ? [] : ['no offer', true, `${both} were in the room together for ${elapsed(since)}, and neither sent an offer.`];
  }
  if (silent.length) {
    if (until - answer.at < RESPONSE_TIMEOUT) return ['waiting', false, `${both} exchanged offer and answer; ICE candidates have not arrived yet.`];
    return ['silent', true, `No ICE candidate came from ${silent.join(' or ')}: unless the SDP contained them, there is nothing to connect to.`];
  }
  return ['unreported', false, `${both} exchanged offer, answer and ICE candidates; neither reported the outcome of the call.`];
}

/** The finding on an offer without an answer. */
function judgeOffer({ offer: { by, to, at, isAgain }, end }, until, elapsed) {
  const offered = `${by.name} offered ${isAgain ? 'again ' : ''}to ${to.name}`;
  if (end?.by === to) return ['left', true, `${to.name} left (${explain(end.reason)}) ${elapsed(at)} after the offer of ${by.name}, without an answer.`];
  if (end && until - at < RESPONSE_TIMEOUT) return ['left', true, `${by.name} left (${explain(end.reason)}) ${elapsed(at)} after its offer, before ${to.name} answered.`];
  if (to.isDetached) return ['detached', true, `${offered}, which is disconnected: it receives the offer when it resumes.`];
  if (until - at < RESPONSE_TIMEOUT) return ['waiting', false, `${offered}: no answer yet.`];
  return ['no answer', true, `${offered}, and ${to.name} never answered (${elapsed(at)} ${end ? 'until one left' : 'so far'}).`];
}
