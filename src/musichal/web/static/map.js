// The memory as a map: each recording a row with its level, arcs where it comes back, where the partner was, and where it is.

import { h, sharp, theme, clock } from "./dom.js";

const LEAST_ROW = 74, MOST_ROW = 190, GAP = 30, VISITED_S = 60, LEFT = 8, MOST_ROWS = 100; // a canvas can only be so high

// "0:10-20.5, 2" names stretches of recordings; all and none name no stretch.
export function regions(text) {
  return String(text || "").split(",").map((part) => /^\s*(\d+)(?::([\d.]+)-([\d.]+))?\s*$/.exec(part)).filter(Boolean)
    .map(([, row, from, to]) => ({ row: Number(row), from: from === undefined ? 0 : Number(from), to: to === undefined ? Infinity : Number(to) }));
}

export class MemoryMap {
  constructor(app) {
    this.app = app;
    this.canvas = h("canvas", { class: "map", role: "img", "aria-label": "The recordings of the memory, and where it plays" });
    this.region = null;
    this.row = LEAST_ROW;
    this.words = h("p", { class: "region", "aria-live": "polite" }, "click: hear that place · drag: choose a stretch");
    const region = (name, words) => h("button", { type: "button", class: "chip", "data-region": name, onclick: () => this.ask(name) }, words);
    this.buttons = h("div", { class: "row" }, region("use", "play only from it"), region("avoid", "avoid it"), region("all", "play from everywhere"));
    this.which = h("select", { "aria-label": "Recording", onchange: () => this.typed() });
    const number = (label) => h("input", { type: "number", min: "0", step: "0.1", "aria-label": label, onchange: () => this.typed() });
    [this.from, this.to] = [number("From second"), number("To second")];
    this.stretch = h("div", { class: "row stretch" }, this.which, h("span", {}, "from"), this.from, h("span", {}, "to"), this.to, h("span", {}, "s"));
    this.stretch.hidden = this.buttons.hidden = true;
    this.element = h("div", { class: "map-box" }, h("div", { class: "scroll" }, this.canvas), this.words, this.stretch, this.buttons);
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerup", (event) => this.up(event));
  }

  get rows() { return this.app.model.memory.rows.slice(0, MOST_ROWS); }

  remember() {
    this.back = null;
    const { memory, hello } = this.app.model, { rows } = this;
    const least = LEAST_ROW * theme().scale;
    const room = hello.partner ? (window.innerHeight - 260) / Math.max(1, rows.length) - GAP : least;
    this.row = Math.round(Math.max(least, Math.min(MOST_ROW * theme().scale, room)));
    this.canvas.style.height = `${rows.length * (this.row + GAP) + 10}px`;
    this.buttons.hidden = this.stretch.hidden = !(hello.live && this.app.model.may_play);
    this.which.replaceChildren(...rows.map((row, number) => h("option", { value: String(number) }, `${number + 1}  ${row.name}`)));
    const facts = `${memory.rows.length} recordings · ${memory.states} gestures · ${memory.total_notes} notes`;
    const more = memory.rows.length - rows.length;
    this.words.textContent = `${facts}${more ? ` · ${more} recordings more than are shown` : ""} · click: hear that place${hello.live ? " · drag: choose a stretch" : ""}`;
  }

  place(event) {
    const { memory } = this.app.model;
    if (!memory) return null;
    const row = Math.max(0, Math.min(this.rows.length - 1, Math.floor(event.offsetY / (this.row + GAP))));
    const at = ((event.offsetX - LEFT) / (this.canvas.clientWidth - 2 * LEFT)) * this.longest();
    return { row, at: Math.max(0, Math.min(memory.rows[row].duration_s, at)) };
  }

  longest() { return Math.max(...this.rows.map((r) => r.duration_s), 1); }

  down(event) {
    const place = this.place(event);
    if (!place) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { row: place.row, from: place.at, to: place.at };
  }

  move(event) {
    const place = this.place(event);
    if (!place) return;
    if (this.drag) this.drag.to = Math.min(this.app.model.memory.rows[this.drag.row].duration_s, place.at);
    else this.canvas.title = `${this.app.model.memory.rows[place.row].name} ${clock(place.at, 1)}`;
  }

  up() {
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    const [from, to] = [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)];
    if (to - from < this.longest() / 150) this.app.explain.listen(drag.row, from, 4);
    else {
      this.choose(drag.row, from, to);
    }
  }

  choose(row, from, to) {
    this.region = { row, from, to };
    this.which.value = String(row);
    this.from.value = from.toFixed(1);
    this.to.value = to.toFixed(1);
    this.words.textContent = `${this.app.model.memory.rows[row].name} ${clock(from, 1)} to ${clock(to, 1)}`;
  }

  // By keyboard, or to the tenth of a second.
  typed() {
    const row = Number(this.which.value), [from, to] = [Number(this.from.value), Number(this.to.value)];
    const { duration_s } = this.app.model.memory.rows[row];
    if (to > from && from >= 0) this.choose(row, Math.min(from, duration_s), Math.min(to, duration_s));
  }

  ask(name) {
    const { model, controls } = this.app;
    if (!model.live) return;
    const text = this.region && `${this.region.row}:${this.region.from.toFixed(1)}-${this.region.to.toFixed(1)}`;
    if (name === "all") {
      this.region = null;
      controls.send("use", ["all"]);
      controls.send("avoid", ["none"]);
    } else if (!text) controls.say("drag over a recording first", true);
    else controls.send(name, [text]);
  }

  // What does not move, drawn once.
  background(width, height) {
    const { memory } = this.app.model, colours = theme();
    if (this.back && this.back.width === width && this.back.ground === colours.ground) return this.back.canvas;
    const canvas = document.createElement("canvas");
    const ratio = Math.min(2, devicePixelRatio || 1);
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const c = canvas.getContext("2d");
    c.scale(ratio, ratio);
    const longest = this.longest(), scale = (width - 2 * LEFT) / longest;
    c.font = `${Math.min(18, 13 * colours.scale)}px ${colours.font}`;
    const { rows } = this;
    rows.forEach((row, number) => {
      const top = number * (this.row + GAP) + 22, wide = row.duration_s * scale;
      c.fillStyle = colours.panel;
      c.fillRect(LEFT, top, wide, this.row);
      c.fillStyle = colours.faint;
      row.level_db.forEach((db, i) => {
        const tall = Math.max(0, Math.min(1, (db + 60) / 60)) * this.row * 0.5;
        c.fillRect(LEFT + (i / row.level_db.length) * wide, top + this.row - tall, wide / row.level_db.length + 0.4, tall);
      });
      c.fillStyle = colours.ink;
      c.fillText(`${number + 1}  ${row.name}  ${clock(row.duration_s)}`, LEFT, top - 7);
    });
    const pitches = memory.notes.map((n) => n[3]);
    const low = pitches.reduce((a, b) => Math.min(a, b), 127), high = pitches.reduce((a, b) => Math.max(a, b), 0);
    c.fillStyle = colours["why-own"];
    c.globalAlpha = 0.55;
    for (const [r, t, d, p] of memory.notes) {
      if (r >= rows.length) continue;
      const top = r * (this.row + GAP) + 22;
      c.fillRect(LEFT + t * scale, top + this.row - 6 - ((p - low) / Math.max(1, high - low)) * (this.row - 10), Math.max(1, d * scale), 2);
    }
    c.lineWidth = 1.2;
    for (const [source, r1, a1, b1, r2, a2, b2] of memory.arcs) {
      if (Math.max(r1, r2) >= rows.length) continue;
      c.strokeStyle = source ? colours.percussive : colours.harmonic;
      c.globalAlpha = 0.28;
      const [x1, x2] = [LEFT + ((a1 + b1) / 2) * scale, LEFT + ((a2 + b2) / 2) * scale];
      const [y1, y2] = [r1 * (this.row + GAP) + 22, r2 * (this.row + GAP) + 22];
      c.beginPath();
      c.moveTo(x1, y1 + this.row);
      c.bezierCurveTo(x1, y1 + this.row * 0.2, x2, y2 + this.row * 0.2, x2, y2 + this.row);
      c.stroke();
    }
    this.back = { canvas, width, ground: colours.ground };
    return canvas;
  }

  // What it may play from, and what it keeps away from.
  inForce(c, t, width, scale, colours) {
    const { model } = this.app, { rows } = this;
    const use = regions(model.setting("use", t)), avoid = regions(model.setting("avoid", t));
    const box = (row, from, to) => [LEFT + from * scale, row * (this.row + GAP) + 22, Math.max(2, (to - from) * scale), this.row];
    if (use.length) {
      c.fillStyle = colours.ground;
      c.globalAlpha = 0.72;
      rows.forEach((row, number) => {
        let at = 0;
        for (const r of [...use.filter((u) => u.row === number).sort((a, b) => a.from - b.from), { from: row.duration_s, to: row.duration_s }]) {
          if (r.from > at) c.fillRect(...box(number, at, Math.min(r.from, row.duration_s)));
          at = Math.max(at, r.to);
        }
      });
      c.globalAlpha = 1;
      c.strokeStyle = colours.good;
      c.lineWidth = 2;
      for (const r of use) if (rows[r.row]) c.strokeRect(...box(r.row, r.from, Math.min(r.to, rows[r.row].duration_s)));
    }
    for (const r of avoid) {
      if (!rows[r.row]) continue;
      const [x, y, wide, high] = box(r.row, r.from, Math.min(r.to, rows[r.row].duration_s));
      c.fillStyle = c.strokeStyle = colours.bad;
      c.globalAlpha = 0.25;
      c.fillRect(x, y, wide, high);
      c.globalAlpha = 1;
      c.lineWidth = 2;
      c.strokeRect(x, y, wide, high);
      c.beginPath();
      c.moveTo(x, y);
      c.lineTo(x + wide, y + high);
      c.stroke();
    }
  }

  draw(t) {
    const { model } = this.app;
    if (!model.memory || !model.memory.rows.length) return;
    const { context: c, width, height } = sharp(this.canvas);
    if (!width) return;
    const colours = theme(), scale = (width - 2 * LEFT) / this.longest(), rows = this.rows.length;
    c.drawImage(this.background(width, height), 0, 0, width, height);
    for (const p of model.between(model.plays, t - VISITED_S, t + 0.2, "begin")) {
      if (p.live || p.recording >= rows) continue;
      const now = p.begin <= t && t < p.begin + p.duration_s;
      c.globalAlpha = now ? 0.9 : 0.45 * (1 - (t - p.begin) / VISITED_S);
      c.fillStyle = colours[`why-${p.why}`];
      const top = p.recording * (this.row + GAP) + 22;
      c.fillRect(LEFT + p.source_start_s * scale, top, Math.max(2, (p.duration_s / (p.stretch || 1)) * scale), this.row);
      if (now) {
        c.fillStyle = colours.now;
        c.globalAlpha = 1;
        c.fillRect(LEFT + (p.source_start_s + (t - p.begin) / (p.stretch || 1)) * scale - 1, top - 4, 3, this.row + 8);
      }
    }
    c.globalAlpha = 1;
    this.inForce(c, t, width, scale, colours);
    const shown = this.drag || this.region;
    if (shown) {
      c.strokeStyle = colours.now;
      c.lineWidth = 2;
      const from = Math.min(shown.from, shown.to), to = Math.max(shown.from, shown.to);
      c.strokeRect(LEFT + from * scale, shown.row * (this.row + GAP) + 20, (to - from) * scale, this.row + 4);
    }
  }
}
