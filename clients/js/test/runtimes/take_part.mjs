// What a member does in the runtime that is to be tested, whichever that is: enters `room` twice, and tells what the first of the two
// notices. A page gets its text, so that it uses nothing from outside.

export async function takePart(connect, { url, room, token, WebSocket }, tell) {
  const enter = (clientId, onState) => connect({ url, room, token, clientId, WebSocket, onState });
  const first = await enter('first', ({ state, code }) => tell([state, code ?? null]));
  const second = await enter('second');
  first.on('error', ({ error }) => tell(['error', error.code]));
  first.on('message', ({ data }) => tell(['message', data]));
  let count = 0;
  setInterval(() => { if (second.state === 'connected') second.send((count += 1)); }, 200);
  try {
    second.send('x'.repeat(70_000));
  } catch (error) {
    tell(['refused', error.code]);
  }
}
