// Playing a session again: its sound and its pictures in step; and a stretch of it to keep.

import { h, sharp, theme, setText, clock } from "./dom.js";
import { Roll } from "./roll.js";
import { WHY_WORDS } from "./model.js";

const PICTURE = { width: 2400, height: 1100, head: 70, foot: 50 };
const NEW_MS = 700;

export class Transport {
  constructor(app) {
    this.app = app;
    this.playing = false;
    this.at = 0;
    this.since_ms = 0;
    this.speed = 1;
    this.audio = null;
    this.silent = false;
    this.element = h("section", { class: "transport", hidden: true, "aria-label": "Playback" });
    this.strip = h("canvas", { class: "strip", role: "img", "aria-label": "The whole session: you above, the partner below; drag to choose a stretch" });
    this.strip.addEventListener("pointerdown", (event) => { this.strip.setPointerCapture(event.pointerId); this.drag = this.timeAt(event); });
    this.strip.addEventListener("pointermove", (event) => { if (this.drag !== null) this.choose(this.drag, this.timeAt(event)); });
    this.strip.addEventListener("pointerup", (event) => {
      const at = this.timeAt(event), short = this.drag !== null && Math.abs(at - this.drag) < this.app.model.duration / 150;
      if (short) { this.stretch = null; this.seek(at); this.showStretch(); }
      this.drag = null;
    });
    this.drag = null;
    this.stretch = null;
  }

  timeAt(event) {
    return Math.max(0, Math.min(1, event.offsetX / this.strip.clientWidth)) * this.app.model.duration;
  }

  choose(a, b) {
    const [from, to] = [Math.min(a, b), Math.max(a, b)];
    this.stretch = to - from > 0.05 ? { from, to } : null;
    this.showStretch();
  }

  get chosen() { return this.stretch || { from: 0, to: this.app.model.duration }; }

  showStretch() {
    const { from, to } = this.chosen;
    setText(this.chosenWords, this.stretch ? `${clock(from, 1)} to ${clock(to, 1)}` : "all of it");
    for (const [kind, link] of Object.entries(this.links)) link.href = `export?kind=${kind}&from=${from.toFixed(3)}&to=${Math.max(to, from + 0.05).toFixed(3)}`;
  }

  buildKeep() {
    this.chosenWords = h("span", { class: "chosen" });
    this.links = {};
    for (const [kind, words] of [["midi", "MIDI"], ["wav", "Sound"]]) this.links[kind] = h("a", { class: "chip keep", href: "#", download: "", "data-keep": kind }, words);
    const from = h("button", { type: "button", class: "chip", onclick: () => this.choose(this.now(), Math.max(this.now() + 0.1, this.stretch ? this.stretch.to : this.app.model.duration)) }, "from here");
    const to = h("button", { type: "button", class: "chip", onclick: () => this.choose(this.stretch ? this.stretch.from : 0, this.now()) }, "to here");
    const picture = h("button", { type: "button", class: "chip keep", "data-keep": "picture", onclick: () => this.picture() }, "Picture");
    const row = h("div", { class: "row keeping" }, h("span", { class: "dim" }, "Keep"), this.chosenWords, this.links.midi, this.links.wav, picture, h("span", { class: "gap dim" }, this.app.model.hello.title), from, to);
    this.showStretch();
    return row;
  }

  // The stretch as a picture, drawn as the stage draws it.
  picture() {
    const { from, to } = this.chosen, { model } = this.app, colours = theme(), { width, height, head, foot } = PICTURE;
    const canvas = document.createElement("canvas"), inner = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    Object.assign(inner, { width, height: height - head - foot });
    const c = canvas.getContext("2d"), roll = new Roll(inner, to - from, 0), { scale } = colours;
    colours.scale = 1.9;
    roll.draw(model, to, { context: inner.getContext("2d"), width, height: inner.height });
    colours.scale = scale;
    c.fillStyle = colours.ground;
    c.fillRect(0, 0, width, height);
    c.drawImage(inner, 0, head);
    c.fillStyle = colours.ink;
    c.font = `600 30px ${colours.font}`;
    c.fillText(`${model.hello.title}   ${clock(from, 1)} to ${clock(to, 1)}`, 16, 46);
    c.font = `24px ${colours.font}`;
    let right = width - 16;
    for (const [name, words] of Object.entries(WHY_WORDS).reverse()) {
      right -= c.measureText(words).width;
      c.fillStyle = colours.ink;
      c.fillText(words, right, 44);
      c.fillStyle = colours[`why-${name}`];
      c.fillRect(right - 30, 26, 20, 20);
      right -= 56;
    }
    c.fillStyle = colours.ink;
    const step = [1, 2, 5, 10, 30, 60, 300, 600, 1800].find((s) => (to - from) / s <= 16) || 3600;
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
      const x = ((at - from) / (to - from)) * width;
      c.fillRect(x, height - foot, 2, 10);
      c.fillText(clock(at), Math.min(x + 6, width - 90), height - 14);
    }
    canvas.toBlob((blob) => {
      const link = h("a", { href: URL.createObjectURL(blob), download: `musichal-${from.toFixed(1)}-${to.toFixed(1)}s.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    });
  }

  // The whole session in one line, drawn anew only while there is more of it than before.
  drawStrip(t) {
    const { model } = this.app, colours = theme(), { context: c, width, height } = sharp(this.strip);
    if (!width || !model.duration) return;
    const key = `${width} ${height} ${colours.ground} ${model.notes.length} ${model.levels.length}`;
    if (key !== this.stripKey && performance.now() - (this.stripMs || 0) > NEW_MS) {
      this.stripKey = key;
      this.stripMs = performance.now();
      this.back = this.course(width, height, colours);
    }
    if (this.back) c.drawImage(this.back, 0, 0, width, height);
    const x = (time) => (time / model.duration) * width;
    if (this.stretch) {
      c.fillStyle = colours.now;
      c.globalAlpha = 0.22;
      c.fillRect(x(this.stretch.from), 0, x(this.stretch.to) - x(this.stretch.from), height);
      c.globalAlpha = 1;
      for (const at of [this.stretch.from, this.stretch.to]) c.fillRect(x(at) - 1, 0, 2, height);
    }
    c.fillStyle = colours.warn;
    for (const mark of model.marks) c.fillRect(x(mark.t), 0, 2, height);
    c.fillStyle = colours.now;
    c.fillRect(x(t) - 1, 0, 3, height);
  }

  course(width, height, colours) {
    const { model } = this.app, canvas = document.createElement("canvas"), ratio = Math.min(2, devicePixelRatio || 1);
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    const c = canvas.getContext("2d"), x = (time) => (time / model.duration) * width, split = height * 0.36;
    c.scale(ratio, ratio);
    c.fillStyle = colours.panel;
    c.fillRect(0, 0, width, height);
    c.fillStyle = colours.player;
    c.globalAlpha = 0.55;
    for (const { t, db } of model.levels) {
      const tall = Math.max(0, Math.min(1, (db + 60) / 60)) * split;
      c.fillRect(x(t), split - tall, 1, tall);
    }
    c.globalAlpha = 0.9;
    const pitched = model.notes.filter((n) => !n.drum && !n.dropped);
    const low = pitched.reduce((least, n) => Math.min(least, n.p), 127), high = pitched.reduce((most, n) => Math.max(most, n.p), low + 12);
    for (const n of pitched) {
      c.fillStyle = colours[`why-${n.by.why}`];
      c.fillRect(x(n.t), height - 5 - ((n.p - low) / (high - low)) * (height - split - 9), Math.max(1.5, x(n.d)), 3);
    }
    return canvas;
  }

  build() {
    const { hello } = this.app.model;
    if (this.audio) this.audio.pause();
    Object.assign(this, { playing: false, at: 0, audio: null, silent: false, stretch: null, back: null, stripKey: "" });
    if (hello.live || hello.partner || hello.nothing) return;
    this.play = h("button", { type: "button", class: "touch play", onclick: () => this.toggle() }, h("span", {}, "Play"));
    this.place = h("input", { type: "range", min: "0", max: String(Math.max(0.1, hello.duration_s)), step: "0.01", value: "0", "aria-label": "Place",
      oninput: () => this.seek(Number(this.place.value)) });
    this.words = h("span", { class: "place" });
    this.rate = h("select", { "aria-label": "Speed", onchange: () => this.setSpeed(Number(this.rate.value)) },
      ...[0.25, 0.5, 1, 2, 4].map((v) => h("option", { value: String(v), selected: v === 1 }, `× ${v}`)));
    this.marks = h("div", { class: "row marks" });
    this.element.replaceChildren(this.strip, this.play, this.place, this.words, this.rate, this.marks, this.buildKeep(),
      ...hello.recovered && hello.recovered.length ? [h("p", { class: "recovered" }, hello.recovered.join("; "))] : []);
    if (!this.keys) {
      this.keys = true;
      document.addEventListener("keydown", (event) => {
        if (this.element.hidden || /^(INPUT|SELECT|BUTTON|SUMMARY)$/.test(event.target.tagName)) return;
        if (event.key === " ") { this.toggle(); event.preventDefault(); }
        if (event.key === "ArrowLeft") this.seek(this.now() - 5);
        if (event.key === "ArrowRight") this.seek(this.now() + 5);
      });
    }
  }

  now() {
    if (!this.playing) return this.at;
    if (!this.silent) return this.audio.readyState > 1 && !this.audio.seeking ? this.audio.currentTime : this.at;
    return Math.min(this.app.model.duration, this.at + ((performance.now() - this.since_ms) / 1000) * this.speed);
  }

  toggle() {
    this.at = this.now();
    this.since_ms = performance.now();
    this.playing = !this.playing;
    if (this.at >= this.app.model.duration - 0.05) this.at = 0;
    if (!this.audio) {
      // The sound of a long session takes a while to be made: the picture waits for it. Where there is none, it goes on alone.
      this.audio = new Audio("whole");
      this.audio.addEventListener("loadedmetadata", () => { this.audio.currentTime = this.at; });
      this.audio.addEventListener("error", () => {
        this.silent = true;
        this.since_ms = performance.now();
        this.app.controls.say("playing without sound", true);
      });
    }
    this.audio.playbackRate = this.speed;
    if (this.playing) {
      if (this.audio.readyState > 0) this.audio.currentTime = this.at;
      this.audio.play().catch(() => {});
    } else this.audio.pause();
  }

  seek(t) {
    this.at = Math.max(0, Math.min(this.app.model.duration, t));
    this.since_ms = performance.now();
    if (this.audio && this.audio.readyState > 0) this.audio.currentTime = this.at;
  }

  setSpeed(speed) {
    this.at = this.now();
    this.since_ms = performance.now();
    this.speed = speed;
    if (this.audio) this.audio.playbackRate = speed;
  }

  update(t) {
    if (this.element.hidden || !this.play) return;
    this.drawStrip(t);
    if (this.playing && t >= this.app.model.duration - 0.01) this.toggle();
    setText(this.play.firstChild, this.playing ? "Pause" : "Play");
    if (document.activeElement !== this.place || this.playing) this.place.value = String(t);
    const waits = this.playing && !this.silent && this.audio.readyState < 2;
    setText(this.words, waits ? "making the sound …" : `${clock(t, 1)} / ${clock(this.app.model.duration)}`);
    const { marks } = this.app.model;
    if (this.marks.children.length !== marks.length) {
      this.marks.replaceChildren(...marks.map((m, i) => h("button", { type: "button", class: "chip", onclick: () => this.seek(m.t - 2) }, `⚑ ${m.text || i + 1} ${clock(m.t)}`)));
    }
  }
}
