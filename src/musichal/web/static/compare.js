// Two takes beside each other: both courses at one scale, both sounds at one place, and their figures.

import { h, sharp, theme, setText, clock } from "./dom.js";

export class Compared {
  constructor(app) {
    this.app = app;
    this.element = h("section", { class: "panel compared", hidden: true });
    this.audios = [];
    this.at = 0;
    this.playing = -1;
  }

  show() {
    const { compared } = this.app.model;
    this.stop();
    this.element.hidden = !compared;
    if (!compared) return;
    this.at = 0;
    this.back = null;
    this.audios = [0, 1].map((take) => {
      const audio = new Audio();
      audio.preload = "none";
      audio.src = `whole?take=${take}`;
      audio.addEventListener("ended", () => this.stop());
      audio.addEventListener("error", () => { if (this.playing === take) { this.stop(); this.app.controls.say("this take has no sound", true); } });
      return audio;
    });
    this.longest = Math.max(...compared.takes.map((take) => take.duration_s), 1);
    this.canvases = compared.takes.map((take) => h("canvas", { class: "course", role: "img", "aria-label": `What was played in ${take.name}`,
      onclick: (event) => this.seek((event.offsetX / event.target.clientWidth) * this.longest) }));
    this.buttons = compared.takes.map((take, i) => h("button", { type: "button", class: "touch small", onclick: () => this.toggle(i) }, h("span", {}, "Play"), ` ${take.name}`));
    this.place = h("input", { type: "range", min: "0", max: String(this.longest), step: "0.1", value: "0", "aria-label": "Place in both", oninput: () => this.seek(Number(this.place.value)) });
    this.words = h("span", { class: "place" });
    this.element.replaceChildren(h("h2", {}, "Beside each other"),
      ...compared.takes.flatMap((take, i) => [h("div", { class: "row take" }, this.buttons[i], ...take.marks.map(([at, text]) =>
        h("button", { type: "button", class: "chip", onclick: () => this.seek(at - 2) }, `⚑ ${text || "mark"} ${clock(at)}`))), this.canvases[i]]),
      h("div", { class: "row" }, this.place, this.words),
      h("table", { class: "figures-table" }, h("thead", {}, h("tr", {}, h("td", {}), ...compared.takes.map((take) => h("th", { scope: "col" }, take.name)))),
        h("tbody", {}, ...compared.rows.map(([name, a, b]) => h("tr", { class: a === b ? "" : "differs" }, h("th", { scope: "row" }, name), h("td", {}, a), h("td", {}, b))))));
    this.element.scrollIntoView({ block: "nearest" });
  }

  now() {
    const audio = this.audios[this.playing];
    return audio && audio.readyState > 1 && !audio.seeking ? audio.currentTime : this.at;
  }

  stop() {
    this.at = this.now();
    for (const audio of this.audios) audio.pause();
    this.playing = -1;
  }

  // The other take goes on at the same place.
  toggle(take) {
    const again = this.playing === take;
    this.stop();
    if (again) return;
    const audio = this.audios[take];
    this.playing = take;
    this.place_at = this.at;
    const begin = () => { audio.currentTime = Math.min(this.place_at, audio.duration || 1e9); };
    if (audio.readyState > 0) begin();
    else audio.addEventListener("loadedmetadata", begin, { once: true });
    audio.play().catch(() => {});
  }

  seek(t) {
    this.at = this.place_at = Math.max(0, Math.min(this.longest, t));
    const audio = this.audios[this.playing];
    if (audio && audio.readyState > 0) audio.currentTime = this.at;
  }

  draw() {
    const { compared } = this.app.model;
    if (!compared || this.element.hidden || !this.canvases) return;
    const t = this.now(), colours = theme();
    compared.takes.forEach((take, i) => {
      const { context: c, width, height } = sharp(this.canvases[i]);
      const x = (time) => (time / this.longest) * width;
      c.fillStyle = colours.ground;
      c.fillRect(0, 0, x(take.duration_s), height);
      c.fillStyle = colours.player;
      c.globalAlpha = 0.5;
      for (const onset of take.onsets) c.fillRect(x(onset), 0, 1, height * 0.22);
      c.fillStyle = colours["why-own"];
      c.globalAlpha = 0.85;
      const low = take.notes.reduce((least, n) => Math.min(least, n[2]), 127), high = take.notes.reduce((most, n) => Math.max(most, n[2]), low + 12);
      for (const [at, lasts, pitch] of take.notes) c.fillRect(x(at), height - 5 - ((pitch - low) / (high - low)) * (height * 0.7), Math.max(1.5, x(lasts)), 3);
      c.globalAlpha = 1;
      c.fillStyle = colours.warn;
      for (const [at] of take.marks) c.fillRect(x(at), 0, 2, height);
      c.fillStyle = colours.now;
      c.fillRect(x(t), 0, 2, height);
      setText(this.buttons[i].firstChild, this.playing === i ? (this.audios[i].readyState < 2 ? "making the sound …" : "Pause") : "Play");
    });
    if (document.activeElement !== this.place || this.playing >= 0) this.place.value = String(t);
    setText(this.words, `${clock(t, 1)} / ${clock(this.longest)}`);
  }
}
