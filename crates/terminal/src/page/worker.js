// The shared worker that holds the connection of one user for all windows. Its name is the path of the user's page.

import { Connection } from './connection.js';

const connection = new Connection(self.name);
self.addEventListener('connect', ({ ports: [port] }) => connection.join(port));
