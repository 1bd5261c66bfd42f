// What the administrator's page makes of a timeline and of metrics, as plain values.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { age, bytes, figure, linesOf, names, quantile, rate, read, seconds, unitOf } from '../../src/http/admin/page/figures.mjs';
import { diagnose, layout, nameOf, tell } from '../../src/http/admin/page/story.mjs';

const BEGAN = 1_700_000_000_000;
const LATER = BEGAN + 60_000;

/** Events from `[milliseconds, type, client id, the rest]`. */
const story = (...events) => ({
  dropped: 0,
  events: events.map(([at, type, client_id, rest], place) => (
    { seq: place + 1, at: BEGAN + at, type, client_id, ...(client_id && { username: client_id.split('-')[0] }), ...rest })),
});
const joined = (at, id) => [at, 'joined', id];
const said = (at, type, from, to, outcome = 'sent') => [at, type, from, { to, bytes: 100, outcome }];
const left = (at, id, outcome) => [at, 'left', id, { outcome }];
const report = (at, from, to, outcome, ms, path) => [at, 'call_report', from, { to, outcome, ms, path }];
const both = [joined(0, 'alice-1'), joined(100, 'bob-2')];
const offered = [...both, said(200, 'offer', 'alice-1', 'bob-2')];
const answered = [...offered, said(300, 'answer', 'bob-2', 'alice-1')];
const exchanged = [...answered, said(310, 'ice_candidate', 'alice-1', 'bob-2'), said(320, 'ice_candidate', 'bob-2', 'alice-1')];

const says = (events, now = LATER, relays = []) => diagnose(story(...events), now, relays).map(({ text }) => text);

describe('the diagnosis', () => {
  test('names who never answered', () => {
    assert.deepEqual(diagnose(story(...offered), LATER), [{ isBad: true, text: 'alice-1 offered to bob-2, who never answered (60 s so far).' }]);
  });

  test('does not call an offer unanswered that was made just now', () => {
    assert.deepEqual(diagnose(story(...offered), BEGAN + 1_200), [{ isBad: false, text: 'alice-1 offered to bob-2: no answer yet.' }]);
  });

  test('says who left how long after the offer', () => {
    assert.deepEqual(says([...offered, left(500, 'bob-2', 'gone')]),
      ['bob-2 left (gone: its connection broke) 300 ms after the offer of alice-1, without an answer.']);
    assert.deepEqual(says([...offered, left(500, 'alice-1', 'left')]),
      ['alice-1 left (left: it said so) 300 ms after its offer, before bob-2 answered.']);
    assert.deepEqual(says([...offered, left(30_200, 'alice-1', 'left')]),
      ['alice-1 offered to bob-2, who never answered (30 s until one left).']);
  });

  test('says that an offer waits for somebody whose connection is gone', () => {
    assert.match(says([...both, [150, 'away', 'bob-2'], said(200, 'offer', 'alice-1', 'bob-2', 'queued')])[0], /bob-2, whose connection is gone/);
  });

  test('names whose ICE candidates are missing', () => {
    const oneWay = [...answered, said(310, 'ice_candidate', 'alice-1', 'bob-2')];

    assert.match(says(oneWay)[0], /^No ICE candidate came from bob-2: unless the SDP held them/);
    assert.match(says([...oneWay, report(15_000, 'alice-1', 'bob-2', 'failed', 14_800)])[0],
      /^No ICE candidate came from bob-2, and the call between alice-1 and bob-2 failed after 15 s/);
    assert.deepEqual(says(answered, BEGAN + 1_000), ['alice-1 and bob-2 exchanged offer and answer; ICE candidates have not come yet.']);
  });

  test('looks at TURN where candidates were exchanged and the call failed, and names relays that are down', () => {
    const failed = [...exchanged, report(15_000, 'alice-1', 'bob-2', 'failed', 14_800)];

    assert.match(says(failed)[0], /^ICE candidates were exchanged, but the call between alice-1 and bob-2 failed after 15 s: .* look at TURN\.$/);
    assert.match(says(failed, LATER, ['turn:a:3478'])[0], /look at TURN\. Now turn:a:3478 does not work\.$/);
  });

  test('attributes a failure to the one call there was, when the peer had left before it was reported', () => {
    const failed = [...exchanged, left(9_000, 'bob-2', 'left'), report(15_000, 'alice-1', undefined, 'failed', 14_800)];

    assert.match(says(failed)[0], /the call between alice-1 and bob-2 failed/);
  });

  test('says by which way a call connected', () => {
    const connected = [...exchanged, report(1_000, 'alice-1', 'bob-2', 'connected', 840, 'relay')];

    assert.deepEqual(diagnose(story(...connected), LATER), [{ isBad: false, text: 'alice-1 and bob-2 connected in 840 ms: through a relay.' }]);
  });

  test('is not misled by both offering at once, nor by a later offer that is answered', () => {
    const glare = [...both, said(200, 'offer', 'alice-1', 'bob-2'), said(201, 'offer', 'bob-2', 'alice-1'), said(300, 'answer', 'bob-2', 'alice-1'),
      said(310, 'ice_candidate', 'alice-1', 'bob-2'), said(320, 'ice_candidate', 'bob-2', 'alice-1')];
    const again = [said(9_000, 'offer', 'bob-2', 'alice-1'), said(9_100, 'answer', 'alice-1', 'bob-2')];

    for (const events of [glare, [...glare, ...again]]) assert.match(says(events)[0], /exchanged offer, answer and ICE candidates/);
    assert.match(says([...glare, again[0]])[0], /^bob-2 offered again to alice-1, who never answered/);
  });

  test('takes an offer without an addressee for one to everybody', () => {
    const broadcast = [...both, joined(110, 'carol-3'), said(200, 'offer', 'alice-1', undefined), said(300, 'answer', 'bob-2', 'alice-1')];

    assert.ok(says(broadcast).includes('alice-1 offered to carol-3, who never answered (60 s so far).'));
  });

  test('explains a message that reached nobody, and who was not let in or put out', () => {
    const [first, second, third] = says([...both, said(200, 'offer', 'alice-1', undefined, 'target_not_found'),
      [300, 'refused', 'dave-4', { outcome: 'room_full' }], left(400, 'bob-2', 'too_slow')]);

    assert.equal(first, 'An offer of alice-1 reached nobody (target_not_found: nobody with the client id that it named was in the room).');
    assert.equal(second, 'dave-4 was not let in (room_full: the room holds no more).');
    assert.equal(third, 'bob-2 was put out (too_slow: it did not read what was sent to it).');
  });

  test('says that nobody offered, and that somebody was alone', () => {
    assert.deepEqual(says(both), ['alice-1 and bob-2 were in the room together for 60 s, and neither offered.']);
    assert.deepEqual(says([joined(0, 'alice-1')]), ['Only alice-1 was here: there was nobody to call.']);
  });

  test('counts what happens again and again, puts failures first, and stays short for a crowd', () => {
    const loop = [0, 10_000, 20_000].flatMap((at) => [joined(at, 'bob-2'), said(at + 100, 'offer', 'bob-2', 'alice-1'), left(at + 400, 'bob-2', 'gone')]);
    const crowd = Array.from({ length: 10 }, (_, number) => joined(number, `guest-${number}`));

    assert.deepEqual(says([joined(0, 'alice-1'), ...loop]), ['bob-2 left (gone: its connection broke) 300 ms after its offer, before alice-1 answered. (3 times)']);
    assert.equal(says(crowd).length, 5);
    assert.equal(says(crowd)[4], 'And 41 more like these.');
    const mixed = diagnose(story(...exchanged, report(1_000, 'alice-1', 'bob-2', 'connected', 840), [2_000, 'refused', 'dave-4', { outcome: 'room_full' }]), LATER);
    assert.deepEqual(mixed.map(({ isBad }) => isBad), [true, false]);
  });

  test('knows of those who came before the first event that is kept', () => {
    const kept = { ...story(said(0, 'offer', 'alice-1', 'bob-2')), dropped: 700 };

    assert.deepEqual(diagnose(kept, LATER).map(({ text }) => text),
      ['alice-1 offered to bob-2, who never answered (60 s so far).', 'The first 700 events are no longer kept.']);
  });

  test('has a sentence for no events at all', () => {
    assert.deepEqual(says([]), ['Nothing that a call consists of has happened here.']);
  });
});

describe('the layout', () => {
  const of = (...events) => layout(story(...events).events);

  test('gives each client a column in which it is there, away, and gone', () => {
    const { columns } = of(...both, [200, 'away', 'bob-2'], [300, 'resumed', 'bob-2', { replayed: 2 }], left(400, 'bob-2', 'left'), joined(500, 'bob-2'));

    assert.deepEqual(columns.map(({ id, place }) => [id, place]), [['alice-1', 0], ['bob-2', 1]]);
    assert.deepEqual(columns[1].spans.map(({ from, until, isAway }) => [from, until, isAway]), [[1, 2, false], [2, 3, true], [3, 4, false], [5, undefined, false]]);
  });

  test('tells a broadcast apart, with those who heard it', () => {
    const { rows } = of(...both, joined(110, 'carol-3'), left(120, 'carol-3', 'left'), said(200, 'message', 'alice-1', undefined),
      said(210, 'message', 'alice-1', undefined, 'target_not_found'));

    assert.deepEqual(rows.map(({ hearers }) => hearers), [undefined, undefined, undefined, undefined, [1], undefined]);
  });

  test('marks pauses, and makes one row of a burst of candidates each way', () => {
    const candidates = [0, 1, 2].flatMap((at) => [said(310 + at, 'ice_candidate', 'alice-1', 'bob-2'), said(310 + at, 'ice_candidate', 'bob-2', 'alice-1')]);
    const { rows } = of(...answered, ...candidates, said(5_000, 'ice_candidate', 'alice-1', 'bob-2'));

    assert.deepEqual(rows.slice(4).map(({ pause, count, size }) => [pause, count, size]), [[undefined, 3, 300], [undefined, 3, 300], [4_688, undefined, undefined], [undefined, 1, 100]]);
  });

  test('gives whoever was refused a column, and no life', () => {
    const { columns } = of(joined(0, 'alice-1'), [100, 'refused', 'dave-4', { outcome: 'room_full' }]);

    assert.deepEqual(columns.map(({ spans }) => spans.length), [1, 0]);
  });

  test('names clients by their ids, and long ids by their user', () => {
    assert.equal(nameOf('alice-1', 'alice'), 'alice-1');
    assert.equal(nameOf('0a1b2c3d-4e5f-6789-abcd-ef0123456789', 'alice'), 'alice 0a1b2c3d…');
  });

  test('has words for events that a newer server may tell of', () => {
    assert.equal(tell({ type: 'somersault', client_id: 'alice-1', username: 'alice' }), 'alice-1 (alice): somersault');
    assert.equal(of([0, 'somersault', 'alice-1']).rows.length, 1);
  });
});

describe('the figures', () => {
  const text = (...lines) => `# HELP a what\n# TYPE signaling_messages counter\n# TYPE signaling_routing_seconds histogram\n${lines.join('\n')}\n# EOF\n`;
  const at = (seconds, ...lines) => ({ at: BEGAN + seconds * 1000, ...read(text(...lines)) });

  test('are read with labels of any text, and summed over them', () => {
    const look = at(0, 'signaling_messages_total{type="offer",outcome="do}ne"} 2', 'signaling_messages_total{type="a\\"b",outcome="x"} 3', 'signaling_members 7');

    assert.equal(figure(look, 'signaling_messages_total'), 5);
    assert.equal(figure(look, 'signaling_messages_total', 'type="offer",outcome="do}ne"'), 2);
    assert.equal(figure(look, 'signaling_members'), 7);
    assert.equal(figure(look, 'signaling_nothing'), undefined);
  });

  test('are rates where they count, and nothing where a new process began', () => {
    const looks = [10, 30, 5].map((total, place) => at(place * 2, `signaling_messages_total{type="offer"} ${total}`));

    assert.deepEqual(rate('signaling_messages_total')(looks).map((point) => point.figure), [undefined, 10, undefined]);
  });

  test('are quantiles where they are spread, as Prometheus makes them', () => {
    const buckets = (low, middle, all) => [`signaling_routing_seconds_bucket{le="0.01"} ${low}`, `signaling_routing_seconds_bucket{le="0.04"} ${middle}`, `signaling_routing_seconds_bucket{le="+Inf"} ${all}`];
    const looks = [at(0, ...buckets(5, 5, 5)), at(2, ...buckets(10, 10, 10)), at(4, ...buckets(10, 20, 20)), at(6, ...buckets(10, 20, 30))];
    const line = (part) => quantile('signaling_routing_seconds', part, 1)(looks).map((point) => point.figure);

    assert.deepEqual(line(0.5).slice(0, 2), [undefined, 0.005]);
    assert.ok(Math.abs(line(0.5)[2] - 0.025) < 1e-9);
    assert.equal(line(0.99)[3], 0.04);
    assert.equal(quantile('signaling_routing_seconds', 0.5, 1)([looks[0], looks[0]])[1].figure, undefined);
  });

  test('can all be plotted, a histogram as one', () => {
    const look = at(0, 'signaling_routing_seconds_bucket{le="+Inf"} 1', 'signaling_routing_seconds_sum 1', 'signaling_routing_seconds_count 1', 'signaling_members 7',
      'signaling_messages_total{type="offer"} 2', 'signaling_messages_total{type="answer"} 3');

    assert.deepEqual(names(look), ['signaling_members', 'signaling_messages_total', 'signaling_routing_seconds']);
    assert.deepEqual(linesOf('signaling_messages_total', look).map(([name]) => name), ['answer', 'offer']);
    assert.deepEqual(linesOf('signaling_routing_seconds', look).map(([name]) => name), ['p50', 'p99']);
  });

  test('are said in units that fit them', () => {
    assert.deepEqual([seconds(0), seconds(0.000_042), seconds(0.0123), seconds(15.2), bytes(999), bytes(1_234), bytes(56_700_000)], ['0 s', '42 µs', '12 ms', '15 s', '999 B', '1.2 kB', '57 MB']);
    assert.deepEqual([age(59), age(3_599), age(90_000)], ['59 s', '59 min', '1 d']);
    assert.deepEqual(['process_cpu_seconds_total', 'signaling_routing_seconds', 'signaling_sent_bytes_total', 'signaling_members'].map((name) => unitOf(name)(0.5)), ['50 %', '500 ms', '0.5 B', '0.5']);
  });
});
