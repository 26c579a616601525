// Playing a session again: its sound and its pictures in step.

import { h, setText, clock } from "./dom.js";

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
  }

  build() {
    const { hello } = this.app.model;
    if (hello.live) return;
    this.play = h("button", { type: "button", class: "touch play", onclick: () => this.toggle() }, h("span", {}, "Play"));
    this.place = h("input", { type: "range", min: "0", max: String(Math.max(0.1, hello.duration_s)), step: "0.01", value: "0", "aria-label": "Place",
      oninput: () => this.seek(Number(this.place.value)) });
    this.words = h("span", { class: "place" });
    this.rate = h("select", { "aria-label": "Speed", onchange: () => this.setSpeed(Number(this.rate.value)) },
      ...[0.25, 0.5, 1, 2, 4].map((v) => h("option", { value: String(v), selected: v === 1 }, `× ${v}`)));
    this.marks = h("div", { class: "row marks" });
    this.element.replaceChildren(this.play, this.place, this.words, this.rate, this.marks,
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
