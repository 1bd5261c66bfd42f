import { WebSocket } from 'undici';
import { join, url } from './room.mjs';

join(new WebSocket(url));
