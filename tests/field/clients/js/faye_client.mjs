import faye from 'faye-websocket';
import { join, url } from './room.mjs';

join(new faye.Client(url));
