// The modules of the administrator's page that compute from timelines and metrics, as plain values.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { diagnose } from '../../src/http/admin/page/diagnosis.mjs';
import { bytes, duration, formatOf, seconds } from '../../src/http/admin/page/format.mjs';
import { axisEnd } from '../../src/http/admin/page/plot.mjs';
import { linesOf, parseMetrics, plottableNames, quantile, rate, valueOf } from '../../src/http/admin/page/metrics.mjs';
import { describeEvent, displayName, layout } from '../../src/http/admin/page/timeline.mjs';

const START = 1_700_000_000_000;
const LATER = START + 60_000;

/** Events from `[milliseconds, type, client id, the rest]`. */
const timeline = (...events) => ({
  dropped: 0,
  events: events.map(([at, type, client_id, rest], place) => (
    { seq: place + 1, at: START + at, type, client_id, ...(client_id && { username: client_id.split('-')[0] }), ...rest })),
});
const joined = (at, id) => [at, 'joined', id];
const signal = (at, type, from, to, outcome = 'sent') => [at, type, from, { to, bytes: 100, outcome }];
const left = (at, id, outcome) => [at, 'left', id, { outcome }];
const report = (at, from, to, outcome, ms, path) => [at, 'call_report', from, { to, outcome, ms, path }];
const both = [joined(0, 'alice-1'), joined(100, 'bob-2')];
const offered = [...both, signal(200, 'offer', 'alice-1', 'bob-2')];
const answered = [...offered, signal(300, 'answer', 'bob-2', 'alice-1')];
const exchanged = [...answered, signal(310, 'ice_candidate', 'alice-1', 'bob-2'), signal(320, 'ice_candidate', 'bob-2', 'alice-1')];

const sentences = (events, now = LATER, failedTurnServers = []) => diagnose(timeline(...events), now, failedTurnServers).map(({ text }) => text);

describe('the diagnosis', () => {
  test('reports an offer without an answer', () => {
    assert.deepEqual(diagnose(timeline(...offered), LATER), [{ isBad: true, text: 'alice-1 offered to bob-2, and bob-2 never answered (60 s so far).' }]);
  });

  test('does not report a recent offer as unanswered', () => {
    assert.deepEqual(diagnose(timeline(...offered), START + 1_200), [{ isBad: false, text: 'alice-1 offered to bob-2: no answer yet.' }]);
  });

  test('reports how long after the offer one of the two left', () => {
    assert.deepEqual(sentences([...offered, left(500, 'bob-2', 'connection_lost')]),
      ['bob-2 left (connection_lost: its connection was lost) 300 ms after the offer of alice-1, without an answer.']);
    assert.deepEqual(sentences([...offered, left(500, 'alice-1', 'left')]),
      ['alice-1 left (left: it closed its connection) 300 ms after its offer, before bob-2 answered.']);
    assert.deepEqual(sentences([...offered, left(30_200, 'alice-1', 'left')]),
      ['alice-1 offered to bob-2, and bob-2 never answered (30 s until one left).']);
  });

  test('reports an offer that is queued for a disconnected member', () => {
    assert.match(sentences([...both, [150, 'away', 'bob-2'], signal(200, 'offer', 'alice-1', 'bob-2', 'queued')])[0], /bob-2, which is disconnected/);
  });

  test('reports missing ICE candidates', () => {
    const oneWay = [...answered, signal(310, 'ice_candidate', 'alice-1', 'bob-2')];

    assert.match(sentences(oneWay)[0], /^No ICE candidate came from bob-2: unless the SDP contained them/);
    assert.match(sentences([...oneWay, report(15_000, 'alice-1', 'bob-2', 'failed', 14_800)])[0],
      /^No ICE candidate came from bob-2, and the call between alice-1 and bob-2 failed after 15 s/);
    assert.deepEqual(sentences(answered, START + 1_000), ['alice-1 and bob-2 exchanged offer and answer; ICE candidates have not arrived yet.']);
  });

  test('refers to TURN if candidates were exchanged and the call failed, and names TURN servers that do not work', () => {
    const failed = [...exchanged, report(15_000, 'alice-1', 'bob-2', 'failed', 14_800)];

    assert.match(sentences(failed)[0], /^ICE candidates were exchanged, but the call between alice-1 and bob-2 failed after 15 s: .* check TURN\.$/);
    assert.match(sentences(failed, LATER, ['turn:a:3478'])[0], /check TURN\. turn:a:3478 does not work now\.$/);
  });

  test('attributes a failure to the only call if the peer had left before the report', () => {
    const failed = [...exchanged, left(9_000, 'bob-2', 'left'), report(15_000, 'alice-1', undefined, 'failed', 14_800)];

    assert.match(sentences(failed)[0], /the call between alice-1 and bob-2 failed/);
  });

  test('reports the path of a connected call', () => {
    const connected = [...exchanged, report(1_000, 'alice-1', 'bob-2', 'connected', 840, 'relay')];

    assert.deepEqual(diagnose(timeline(...connected), LATER), [{ isBad: false, text: 'alice-1 and bob-2 connected in 840 ms: through a TURN server.' }]);
  });

  test('handles offer collisions and renegotiations', () => {
    const glare = [...both, signal(200, 'offer', 'alice-1', 'bob-2'), signal(201, 'offer', 'bob-2', 'alice-1'), signal(300, 'answer', 'bob-2', 'alice-1'),
      signal(310, 'ice_candidate', 'alice-1', 'bob-2'), signal(320, 'ice_candidate', 'bob-2', 'alice-1')];
    const again = [signal(9_000, 'offer', 'bob-2', 'alice-1'), signal(9_100, 'answer', 'alice-1', 'bob-2')];

    for (const events of [glare, [...glare, ...again]]) assert.match(sentences(events)[0], /exchanged offer, answer and ICE candidates/);
    assert.match(sentences([...glare, again[0]])[0], /^bob-2 offered again to alice-1, and alice-1 never answered/);
  });

  test('treats an offer without a target as one to all members', () => {
    const broadcast = [...both, joined(110, 'carol-3'), signal(200, 'offer', 'alice-1', undefined), signal(300, 'answer', 'bob-2', 'alice-1')];

    assert.ok(sentences(broadcast).includes('alice-1 offered to carol-3, and carol-3 never answered (60 s so far).'));
  });

  test('explains undelivered signals, refused clients and disconnects', () => {
    const [first, second, third] = sentences([...both, signal(200, 'offer', 'alice-1', undefined, 'target_not_found'),
      [300, 'refused', 'dave-4', { outcome: 'room_full' }], left(400, 'bob-2', 'too_slow')]);

    assert.equal(first, 'An offer of alice-1 was not delivered (target_not_found: no member of the room had that client id).');
    assert.equal(second, 'dave-4 was refused (room_full: the room is at its capacity).');
    assert.equal(third, 'bob-2 was disconnected (too_slow: send queue overflow: it read too slowly).');
  });

  test('reports a member that did not reconnect in time last, and not as a failure', () => {
    const asleep = [[9_000, 'away', 'bob-2'], left(39_000, 'bob-2', 'resume_timeout')];

    assert.deepEqual(diagnose(timeline(...exchanged, ...asleep, joined(40_000, 'carol-3'), report(41_000, 'alice-1', 'bob-2', 'connected', 840, 'host')), LATER).at(-1),
      { isBad: false, text: 'bob-2 lost its connection and did not reconnect in time.' });
  });

  test('reports members that sent no offer, and a member that was alone', () => {
    assert.deepEqual(sentences(both), ['alice-1 and bob-2 were in the room together for 60 s, and neither sent an offer.']);
    assert.deepEqual(sentences([joined(0, 'alice-1')]), ['Only alice-1 was in the room: there was no peer to call.']);
  });

  test('counts repeated findings, puts failures first, and limits their number', () => {
    const loop = [0, 10_000, 20_000].flatMap((at) => [joined(at, 'bob-2'), signal(at + 100, 'offer', 'bob-2', 'alice-1'), left(at + 400, 'bob-2', 'connection_lost')]);
    const crowd = Array.from({ length: 10 }, (_, number) => joined(number, `guest-${number}`));

    assert.deepEqual(sentences([joined(0, 'alice-1'), ...loop]), ['bob-2 left (connection_lost: its connection was lost) 300 ms after its offer, before alice-1 answered. (3 times)']);
    assert.equal(sentences(crowd).length, 5);
    assert.equal(sentences(crowd)[4], 'And 41 more of this kind.');
    const mixed = diagnose(timeline(...exchanged, report(1_000, 'alice-1', 'bob-2', 'connected', 840), [2_000, 'refused', 'dave-4', { outcome: 'room_full' }]), LATER);
    assert.deepEqual(mixed.map(({ isBad }) => isBad), [true, false]);
  });

  test('infers members that joined before the first kept event', () => {
    const kept = { ...timeline(signal(0, 'offer', 'alice-1', 'bob-2')), dropped: 700 };

    assert.deepEqual(diagnose(kept, LATER).map(({ text }) => text),
      ['alice-1 offered to bob-2, and bob-2 never answered (60 s so far).', 'The first 700 events are no longer kept.']);
  });

  test('has a sentence for an empty timeline', () => {
    assert.deepEqual(sentences([]), ['The timeline contains no events of a call.']);
  });
});

describe('the layout', () => {
  const of = (...events) => layout(timeline(...events).events);

  test('gives each client a column with spans as connected and as detached member', () => {
    const { columns } = of(...both, [200, 'away', 'bob-2'], [300, 'resumed', 'bob-2', { replayed: 2 }], left(400, 'bob-2', 'left'), joined(500, 'bob-2'));

    assert.deepEqual(columns.map(({ id, index }) => [id, index]), [['alice-1', 0], ['bob-2', 1]]);
    assert.deepEqual(columns[1].spans.map(({ from, until, isDetached }) => [from, until, isDetached]), [[1, 2, false], [2, 3, true], [3, 4, false], [5, undefined, false]]);
  });

  test('gives a broadcast its receivers', () => {
    const { rows } = of(...both, joined(110, 'carol-3'), left(120, 'carol-3', 'left'), signal(200, 'message', 'alice-1', undefined),
      signal(210, 'message', 'alice-1', undefined, 'target_not_found'));

    assert.deepEqual(rows.map(({ receivers }) => receivers), [undefined, undefined, undefined, undefined, [1], undefined]);
  });

  test('inserts pauses, and makes one row of a burst of candidates in each direction', () => {
    const candidates = [0, 1, 2].flatMap((at) => [signal(310 + at, 'ice_candidate', 'alice-1', 'bob-2'), signal(310 + at, 'ice_candidate', 'bob-2', 'alice-1')]);
    const { rows } = of(...answered, ...candidates, signal(5_000, 'ice_candidate', 'alice-1', 'bob-2'));

    assert.deepEqual(rows.slice(4).map(({ pause, count, size }) => [pause, count, size]), [[undefined, 3, 300], [undefined, 3, 300], [4_688, undefined, undefined], [undefined, 1, 100]]);
  });

  test('gives a refused client a column without a span', () => {
    const { columns } = of(joined(0, 'alice-1'), [100, 'refused', 'dave-4', { outcome: 'room_full' }]);

    assert.deepEqual(columns.map(({ spans }) => spans.length), [1, 0]);
  });

  test('displays client ids, and long ones with the username', () => {
    assert.equal(displayName('alice-1', 'alice'), 'alice-1');
    assert.equal(displayName('0a1b2c3d-4e5f-6789-abcd-ef0123456789', 'alice'), 'alice 0a1b2c3d…');
  });

  test('describes event types of a newer server', () => {
    assert.equal(describeEvent({ type: 'somersault', client_id: 'alice-1', username: 'alice' }), 'alice-1 (alice): somersault');
    assert.equal(of([0, 'somersault', 'alice-1']).rows.length, 1);
  });
});

describe('the metrics', () => {
  const text = (...lines) => `# HELP a what\n# TYPE signaling_messages counter\n# TYPE signaling_routing_seconds histogram\n${lines.join('\n')}\n# EOF\n`;
  const at = (seconds, ...lines) => ({ at: START + seconds * 1000, ...parseMetrics(text(...lines)) });

  test('are parsed with any label text, and summed over labels', () => {
    const snapshot = at(0, 'signaling_messages_total{type="offer",outcome="do}ne"} 2', 'signaling_messages_total{type="a\\"b",outcome="x"} 3', 'signaling_members 7');

    assert.equal(valueOf(snapshot, 'signaling_messages_total'), 5);
    assert.equal(valueOf(snapshot, 'signaling_messages_total', 'type="offer",outcome="do}ne"'), 2);
    assert.equal(valueOf(snapshot, 'signaling_members'), 7);
    assert.equal(valueOf(snapshot, 'signaling_nothing'), undefined);
  });

  test('have rates for counters, and no rate where a new process began', () => {
    const snapshots = [10, 30, 5].map((total, place) => at(place * 2, `signaling_messages_total{type="offer"} ${total}`));

    assert.deepEqual(rate('signaling_messages_total')(snapshots).map((point) => point.value), [undefined, 10, undefined]);
  });

  test('have quantiles for histograms, as Prometheus computes them', () => {
    const buckets = (low, middle, all) => [`signaling_routing_seconds_bucket{le="0.01"} ${low}`, `signaling_routing_seconds_bucket{le="0.04"} ${middle}`, `signaling_routing_seconds_bucket{le="+Inf"} ${all}`];
    const snapshots = [at(0, ...buckets(5, 5, 5)), at(2, ...buckets(10, 10, 10)), at(4, ...buckets(10, 20, 20)), at(6, ...buckets(10, 20, 30))];
    const line = (part) => quantile('signaling_routing_seconds', part, 1)(snapshots).map((point) => point.value);

    assert.deepEqual(line(0.5).slice(0, 2), [undefined, 0.005]);
    assert.ok(Math.abs(line(0.5)[2] - 0.025) < 1e-9);
    assert.equal(line(0.99)[3], 0.04);
    assert.equal(quantile('signaling_routing_seconds', 0.5, 1)([snapshots[0], snapshots[0]])[1].value, undefined);
  });

  test('can all be plotted, a histogram as one metric', () => {
    const snapshot = at(0, 'signaling_routing_seconds_bucket{le="+Inf"} 1', 'signaling_routing_seconds_sum 1', 'signaling_routing_seconds_count 1', 'signaling_members 7',
      'signaling_messages_total{type="offer"} 2', 'signaling_messages_total{type="answer"} 3');

    assert.deepEqual(plottableNames(snapshot), ['signaling_members', 'signaling_messages_total', 'signaling_routing_seconds']);
    assert.deepEqual(linesOf('signaling_messages_total', snapshot).map(([name]) => name), ['answer', 'offer']);
    assert.deepEqual(linesOf('signaling_routing_seconds', snapshot).map(([name]) => name), ['p50', 'p99']);
  });

  test('have an axis that ends at a round value', () => {
    assert.deepEqual([0, 0.7, 1, 1.1, 3, 5, 7, 40, 420, 56_700_000].map(axisEnd), [1, 0.8, 1, 2, 4, 6, 8, 40, 600, 60_000_000]);
    assert.ok(Math.abs(axisEnd(0.000_042) - 0.000_06) < 1e-12);
  });

  test('are formatted with a suitable unit', () => {
    assert.deepEqual([seconds(0), seconds(0.000_042), seconds(0.0123), seconds(15.2), bytes(999), bytes(1_234), bytes(56_700_000)], ['0 s', '42 µs', '12 ms', '15 s', '999 B', '1.2 kB', '57 MB']);
    assert.deepEqual([duration(59), duration(3_599), duration(90_000)], ['59 s', '59 min', '1 d']);
    assert.deepEqual(['process_cpu_seconds_total', 'signaling_routing_seconds', 'signaling_sent_bytes_total', 'signaling_members'].map((name) => formatOf(name)(0.5)), ['50 %', '500 ms', '0.5 B', '0.5']);
  });
});
