// The socket to the page's process: it comes back by itself, and tells what became of each command.

const AGAIN_MS = 500, LONGEST_MS = 4000;

// The first socket opens as soon as this module is there, while the others load; what it brings waits for them.
const connect = () => new WebSocket(new URL("socket", location.href.replace(/^http/, "ws").replace(/[?#].*$/, "")));
const early = [];
let first = connect();
first.onmessage = (event) => early.push(event);

export class Link {
  constructor(take) {
    this.take = take;
    this.connected = false;
    this.heard_ms = 0;
    this.wait_ms = AGAIN_MS;
    this.ids = 0;
    this.asked = new Map();
    this.open();
  }

  open() {
    const begun = first && first.readyState < WebSocket.CLOSING ? first : null;
    first = null;
    this.socket = begun || connect();
    this.socket.onopen = () => { this.connected = true; this.wait_ms = AGAIN_MS; this.heard_ms = performance.now(); };
    this.socket.onmessage = (event) => {
      this.heard_ms = performance.now();
      for (const message of JSON.parse(event.data)) {
        if (message.k === "answer") this.answered(message);
        else this.take(message, this.heard_ms);
      }
    };
    this.socket.onclose = () => {
      this.connected = false;
      setTimeout(() => this.open(), this.wait_ms);
      this.wait_ms = Math.min(LONGEST_MS, 2 * this.wait_ms);
    };
    if (!begun) return;
    if (begun.readyState === WebSocket.OPEN) begun.onopen();
    queueMicrotask(() => { for (const event of early.splice(0)) begun.onmessage(event); });
  }

  // Ask for a command; `told` gets what the engine says to it, if it says anything.
  send(name, values = [], told = null) {
    if (!this.connected) return false;
    this.ids += 1;
    if (told) {
      this.asked.set(this.ids, told);
      if (this.asked.size > 100) this.asked.delete(this.asked.keys().next().value);
    }
    this.socket.send(JSON.stringify({ id: this.ids, name, values }));
    return true;
  }

  answered({ id, text, obeyed }) {
    const told = this.asked.get(id);
    this.asked.delete(id);
    if (told) told(text, obeyed);
  }
}
