// The class that a runtime brings itself.
import { join, url } from './room.mjs';

join(new WebSocket(url));
