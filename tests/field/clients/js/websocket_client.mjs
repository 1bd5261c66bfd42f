import websocket from 'websocket';
import { join, url } from './room.mjs';

join(new websocket.w3cwebsocket(url));
