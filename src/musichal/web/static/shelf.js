// Sessions and partners: lists to open, two takes beside each other, and the bench where partners are trained and verified.

import { h, setText, clock } from "./dom.js";
import { Compared } from "./compare.js";

const PART = 1 << 16, MOST_WAITING = 1 << 20;

const when = (s) => s ? new Date(1000 * s).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "";
const size = (bytes) => bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

export class Shelf {
  constructor(app) {
    this.app = app;
    this.chosen = new Set();
    this.sending = [];
    this.compared = new Compared(app);
    this.list = h("div", { class: "list" });
    this.compare = h("button", { type: "button", class: "touch small", onclick: () => this.ask("compare", [...this.chosen]) }, "Compare the two");
    this.hint = h("p", { class: "hint" });
    this.sessions = h("main", { class: "shelf", hidden: true, "aria-label": "Sessions" },
      h("section", { class: "panel" }, h("h2", {}, "Sessions"), this.list, h("div", { class: "row" }, this.compare, this.hint)), this.compared.element);
    this.learned = h("div", { class: "list" });
    this.build();
  }

  build() {
    this.files = h("input", { type: "file", multiple: true, id: "files", class: "visually-hidden", onchange: () => { this.send([...this.files.files]); this.files.value = ""; } });
    this.zone = h("label", { class: "zone", for: "files" }, h("b", {}, "Drop recordings or MIDI files here"), h("span", {}, "or click to choose them; 5 to 20 minutes make a partner"));
    for (const kind of ["dragenter", "dragover"]) this.zone.addEventListener(kind, (event) => { event.preventDefault(); this.zone.classList.add("over"); });
    for (const kind of ["dragleave", "drop"]) this.zone.addEventListener(kind, () => this.zone.classList.remove("over"));
    this.zone.addEventListener("drop", (event) => { event.preventDefault(); this.send([...event.dataTransfer.files]); });
    // A file that misses the zone must not replace the page.
    for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
    this.dropped = h("ul", { class: "dropped" });
    this.name = h("input", { type: "text", maxlength: "60", value: "mine", "aria-label": "Name of the partner" });
    this.train = h("button", { type: "button", class: "touch small", onclick: () => this.ask("train", [this.name.value.trim() || "mine"]) }, "Train");
    this.bench = h("section", { class: "panel bench" }, h("h2", {}, "Train a partner"), this.zone, this.files, this.dropped,
      h("div", { class: "row" }, h("label", {}, "name ", this.name), this.train));
    this.task = h("section", { class: "panel task", hidden: true });
    this.partners = h("main", { class: "shelf", hidden: true, "aria-label": "Partners" },
      h("section", { class: "panel" }, h("h2", {}, "Partners"), this.learned), this.bench, this.task);
  }

  ask(name, values) { this.app.controls.send(name, values); }

  // A table whose first cell opens what it names.
  table(columns, rows) {
    return h("table", { class: "rows-table" }, h("thead", {}, h("tr", {}, ...columns.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, ...rows.map(({ open, cells }) => h("tr", { class: open ? "open" : "" },
        ...cells.map((cell, i) => h(i ? "td" : "th", i ? { "data-name": columns[i] } : { scope: "row" }, cell))))));
  }

  opener(kind, row) {
    if (!this.app.model.may_play) return row.name;
    return h("button", { type: "button", class: "opener", "data-open": `${kind}-${row.number}`, onclick: () => this.ask("open", [kind, row.number]) }, row.name);
  }

  show() {
    const { shelf, may_play } = this.app.model;
    if (!shelf) return;
    const sessions = shelf.sessions.map((row) => ({ open: row.open, cells: [
      this.opener("session", row), when(row.made_s), row.duration_s ? clock(row.duration_s) : "", row.partner || "", row.mode || "",
      (row.marks || []).map((text, i) => text || `mark ${i + 1}`).join(", "), row.trouble,
      may_play && row.duration_s ? h("input", { type: "checkbox", class: "choose", "aria-label": `compare ${row.name}`, checked: this.chosen.has(row.number),
        onchange: (event) => this.choose(row.number, event.target) }) : ""] }));
    const empty = (what) => h("p", { class: "empty" }, what);
    this.list.replaceChildren(sessions.length
      ? this.table(["session", "when", "length", "partner", "mode", "marks", "state", "compare"], sessions)
      : empty("There is no session here. `musichal play mine.hal --session tonight` records one."));
    this.compare.hidden = this.hint.hidden = !may_play || sessions.length < 2;
    const partners = shelf.partners.map((row) => ({ open: row.open, cells: [
      this.opener("partner", row), when(row.made_s), `${row.size_mb} MB`,
      may_play ? h("div", { class: "row" }, h("button", { type: "button", class: "chip", onclick: () => this.ask("verify", [row.number]) }, "Verify"),
        h("button", { type: "button", class: "chip", onclick: () => this.ask("verify", [row.number, "quick"]) }, "quickly")) : ""] }));
    this.learned.replaceChildren(partners.length ? this.table(["partner", "when", "size", "does it hear alike live?"], partners) : empty("There is no partner here yet."));
    this.bench.hidden = !may_play || !shelf.can_train;
    this.files.accept = (shelf.suffixes || []).join(",");
    this.chose();
    this.showDropped();
  }

  choose(number, box) {
    if (box.checked) this.chosen.add(number);
    else this.chosen.delete(number);
    // Of three, the one that was chosen first is left out.
    if (this.chosen.size > 2) { this.chosen.delete(this.chosen.values().next().value); this.show(); }
    this.chose();
  }

  chose() {
    this.compare.disabled = this.chosen.size !== 2;
    setText(this.hint, this.chosen.size === 2 ? "" : "choose two sessions to hear and see them beside each other");
  }

  // ── dropping files ─────────────────────────────────────────────────────────

  send(files) {
    const idle = !this.sending.length;
    for (const file of files) this.sending.push({ file, share: 0 });
    this.showDropped();
    if (idle) this.sendNext();
  }

  async sendNext() {
    const [first] = this.sending;
    if (!first) return;
    const trouble = await this.upload(first).catch((error) => String(error.message || error));
    this.sending.shift();
    if (trouble) this.app.controls.say(`${first.file.name}: ${trouble}`, true);
    this.showDropped();
    this.sendNext();
  }

  upload(item) {
    const { file } = item, socket = new WebSocket(new URL("upload", location.href.replace(/^http/, "ws").replace(/[?#].*$/, "")));
    return new Promise((done) => {
      let said = "it could not be sent";
      socket.onmessage = (event) => { said = JSON.parse(event.data).refused || ""; socket.close(); };
      socket.onclose = () => done(said);
      socket.onopen = async () => {
        socket.send(JSON.stringify({ name: file.name, size: file.size }));
        for (let at = 0; at < file.size && socket.readyState === WebSocket.OPEN; at += PART) {
          const part = await file.slice(at, at + PART).arrayBuffer();
          if (socket.readyState !== WebSocket.OPEN) break; // it was refused meanwhile
          socket.send(part);
          while (socket.bufferedAmount > MOST_WAITING && socket.readyState === WebSocket.OPEN) await new Promise((on) => setTimeout(on, 10));
          item.share = Math.min(1, (at + PART) / file.size);
          if (at % (PART * 32) === 0) this.showDropped();
        }
      };
    });
  }

  showDropped() {
    const { dropped } = this.app.model, files = dropped ? dropped.files : [];
    this.dropped.replaceChildren(
      ...files.map((f) => h("li", {}, h("span", {}, f.name), h("small", {}, size(f.size)),
        h("button", { type: "button", class: "chip", "aria-label": `leave out ${f.name}`, onclick: () => this.ask("drop_out", [f.number]) }, "leave out"))),
      ...this.sending.map(({ file, share }) => h("li", {}, h("span", {}, file.name), h("progress", { value: String(share), max: "1", "aria-label": `sending ${file.name}` }))));
    this.train.disabled = !files.length || this.sending.length > 0;
  }

  // ── what runs ──────────────────────────────────────────────────────────────

  showTask() {
    const { task } = this.app.model;
    this.task.hidden = !task;
    if (!task) return;
    const words = { runs: "", done: "done", failed: "failed", stopped: "stopped" }[task.state];
    const title = `${task.kind === "train" ? "Training" : "Verifying"} ${task.name}${words ? `: ${words}` : ""}`;
    const checks = task.checks || [], groups = [...new Set(checks.map((c) => c.group))];
    this.task.dataset.state = task.state;
    const isNew = this.task.dataset.name !== title;
    this.task.dataset.name = title;
    this.task.replaceChildren(...[h("h2", { role: "status" }, title),
      task.state === "runs" ? h("div", { class: "row" }, h("progress", { value: String(task.share), max: "1", "aria-label": "progress" }), h("span", { class: "what" }, task.what),
        h("button", { type: "button", class: "touch small", onclick: () => this.ask("stop", []) }, "Stop")) : null,
      task.why ? h("p", { class: "bad" }, task.why) : null,
      groups.length ? h("table", { class: "checks" }, ...groups.map((group) => {
        const own = checks.filter((c) => c.group === group && c.passed !== null), bad = own.filter((c) => !c.passed);
        return own.length && h("tr", { class: bad.length ? "failed" : "" }, h("th", { scope: "row" }, group),
          h("td", {}, bad.length ? `${bad.length} of ${own.length} failed` : `${own.length} passed`), h("td", {}, bad.map((c) => `${c.name}: ${c.found}`).join("; ")));
      }).filter(Boolean)) : null,
      h("ul", { class: "lines-list" }, ...task.lines.map(([kind, text]) => h("li", { class: kind }, text))),
      task.kind === "train" && task.state === "done" ? h("p", { class: "hint" }, `Play with it: musichal play ${task.name} --web`) : null].filter(Boolean));
    if (isNew) this.task.scrollIntoView({ block: "nearest" });
  }

  draw() { if (!this.sessions.hidden) this.compared.draw(); }
}
