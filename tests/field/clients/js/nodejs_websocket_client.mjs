import websocket from 'nodejs-websocket';
import { reply, url } from './room.mjs';

const connection = websocket.connect(url);
connection.on('text', (text) => {
  const answer = reply(text);
  if (answer) connection.sendText(answer);
});
connection.on('error', (error) => console.log('error', error.message));
connection.on('close', (code, reason) => console.log('closed', code, reason));
