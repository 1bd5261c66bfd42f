import WebSocket from 'ws-7';
import { join, url } from './room.mjs';

join(new WebSocket(url));
