// node-turn on TURN_PORT of 127.0.0.1, with the authentication that TURN_AUTH names.

import Turn from 'node-turn';

const { TURN_PORT: port, TURN_AUTH: authMech } = process.env;
const server = new Turn({
  listeningPort: Number(port), listeningIps: ['127.0.0.1'], relayIps: ['127.0.0.1'], authMech, credentials: { alice: 'password' }, debugLevel: 'OFF',
});
server.start();
