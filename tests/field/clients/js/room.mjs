// What all clients in JavaScript share: where the room is, and what they answer there.

export const url = process.env.ROOM_URL;

/** Prints a message, and returns the answer to it if it wants one. */
export function reply(text) {
  console.log(text);
  const message = JSON.parse(text);
  if (message.type === 'auth_required') return JSON.stringify({ type: 'auth_token', token: process.env.TOKEN });
  if (message.type === 'offer') return JSON.stringify({ type: 'answer', answer: {}, to: message.from });
  return undefined;
}

/** Takes part with a socket that has the interface of browsers. */
export function join(socket) {
  socket.onmessage = ({ data }) => {
    const answer = reply(data);
    if (answer) socket.send(answer);
  };
  socket.onerror = (event) => console.log('error', event.message ?? event.error ?? '');
  socket.onclose = ({ code, reason }) => console.log('closed', code, reason);
}
