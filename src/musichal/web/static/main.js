// The page: it takes the event stream, keeps the time, and draws the views.

import { h, setText, setClass, clock, forgetTheme } from "./dom.js";
import { Model, WHY_WORDS } from "./model.js";
import { Link } from "./link.js";
import { Roll } from "./roll.js";
import { Controls } from "./controls.js";
import { Explain } from "./explain.js";
import { Health } from "./health.js";
import { Workshop } from "./workshop.js";
import { Shelf } from "./shelf.js";
import { Transport } from "./transport.js";

const SLEW = 0.05;
const VIEWS = ["stage", "workshop", "sessions", "partners"];

class App {
  constructor() {
    this.model = new Model();
    this.offsets = [];
    this.offset = null;
    this.view = "stage";
    this.frames = 0;
    this.controls = new Controls(this);
    this.explain = new Explain(this);
    this.transport = new Transport(this);
    this.roll = new Roll(h("canvas", { class: "roll", role: "img", "aria-label": "Notes of the last and the next eight seconds" }));
    this.health = new Health(this);
    this.workshop = new Workshop(this);
    this.shelf = new Shelf(this);
    this.shown = null;
    this.link = new Link((message, at_ms) => this.take(message, at_ms));
    this.build();
    this.roll.canvas.addEventListener("click", (event) => {
      const decision = this.roll.at(event.offsetX, event.offsetY);
      if (decision) this.explain.show(decision);
    });
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", forgetTheme);
    addEventListener("resize", forgetTheme);
    requestAnimationFrame(() => this.frame());
  }

  take(message, at_ms) {
    this.model.take(message);
    if (message.k === "hello") {
      const { live, partner, nothing, title } = message;
      const view = live || !(partner || nothing) ? "stage" : partner ? "workshop" : "sessions";
      // What is told anew after a break leaves the view, and the place, as they were.
      if (this.shown !== `${title} ${view}`) { this.view = view; this.transport.build(); }
      this.shown = `${title} ${view}`;
      this.controls.build();
      this.workshop.build();
      this.arrange();
    } else if (message.k === "memory") this.workshop.remember();
    else if (message.k === "shelf") { this.shelf.show(); this.arrange(); }
    else if (message.k === "dropped") this.shelf.showDropped();
    else if (message.k === "task") this.shelf.showTask();
    else if (message.k === "compared") { this.shelf.compared.show(); if (this.model.ready) { this.view = "sessions"; this.arrange(); } }
    else if (message.k === "controllers") this.workshop.showControllers();
    else if (message.k === "overview") this.workshop.showOverview();
    else if (message.k === "trouble") this.controls.say(message.text, true);
    else if (message.k === "entry" && this.model.ready) this.controls.realised(message);
    else if (message.k === "level") this.keepTime(message.at, at_ms);
    else if (message.k === "you") { this.offsets = []; this.offset = null; }
  }

  // The time of the stream: messages arrive late, never early, so the earliest of the last seconds tell it.
  keepTime(at, at_ms) {
    if (!this.model.ready) return;
    this.offsets.push(at_ms / 1000 - at);
    if (this.offsets.length > 100) this.offsets.shift();
    const wanted = Math.min(...this.offsets);
    this.offset = this.offset === null || Math.abs(wanted - this.offset) > 0.5 ? wanted : this.offset + SLEW * (wanted - this.offset);
  }

  now() {
    if (!this.model.live) return this.transport.now();
    if (this.offset === null) return this.model.level ? this.model.level.at : 0;
    const limit = this.model.end !== null ? this.model.end : this.model.level ? this.model.level.at + 1.5 : Infinity;
    return Math.min(limit, performance.now() / 1000 - this.offset);
  }

  build() {
    this.mode = h("h1", { class: "mode" });
    this.by = h("span", { class: "by" });
    this.state = h("strong", { class: "state", role: "status", "aria-live": "off" });
    this.until = h("span", { class: "until" });
    this.tempo = h("span", { class: "tempo" });
    this.time = h("span", { class: "time" });
    this.why = h("p", { class: "why" });
    this.where = h("p", { class: "where" });
    this.meter = h("div", { class: "meter", role: "img", "aria-label": "Level of the input" }, h("i", {}), h("b", {}));
    this.legend = h("p", { class: "legend" }, ...Object.entries(WHY_WORDS).map(([name, words]) => h("span", {}, h("i", { class: `why-${name}` }), words)));
    this.tabs = h("nav", { "aria-label": "View" }, ...VIEWS.map((name) =>
      h("button", { type: "button", class: "chip", "data-view": name, onclick: () => { this.view = name; this.arrange(); } }, name)));
    this.head = h("header", { class: "head" },
      h("div", { class: "what" }, this.mode, this.by), h("div", { class: "does" }, this.state, this.until),
      h("div", { class: "beat" }, this.tempo, this.time), h("div", { class: "side" }, this.meter, this.health.element, this.tabs));
    this.stage = h("main", { class: "stage" }, this.controls.form, this.roll.canvas, h("div", { class: "lines" }, this.why, this.where), this.legend);
    document.body.replaceChildren(this.head, this.stage, this.workshop.element, this.shelf.sessions, this.shelf.partners, this.transport.element, this.controls.element, this.controls.toast, this.explain.element);
    this.arrange();
  }

  arrange() {
    const { hello, may_play, live, shelf } = this.model;
    const partner = Boolean(hello && hello.partner), nothing = Boolean(hello && hello.nothing), quiet = partner || nothing;
    document.title = hello ? `${hello.title} · MusicHal` : "MusicHal";
    document.body.dataset.view = this.view;
    setClass(document.body, "quiet", this.isQuiet = quiet || !["stage", "workshop"].includes(this.view));
    setClass(document.body, "partner", partner);
    setClass(document.body, "shelved", Boolean(shelf) && !live);
    setClass(document.body, "look-only", Boolean(hello) && !may_play);
    this.controls.element.hidden = !(live && may_play);
    setClass(this.controls.element, "compact", this.view !== "stage");
    this.transport.element.hidden = !hello || live || quiet || !["stage", "workshop"].includes(this.view);
    this.tabs.hidden = !may_play && !shelf;
    this.stage.hidden = this.view !== "stage";
    this.workshop.element.hidden = this.view !== "workshop";
    this.shelf.sessions.hidden = this.view !== "sessions";
    this.shelf.partners.hidden = this.view !== "partners";
    const there = { stage: !quiet, workshop: !nothing, sessions: Boolean(shelf) && !live, partners: Boolean(shelf) && !live };
    for (const tab of this.tabs.children) {
      tab.hidden = !there[tab.dataset.view];
      if (tab.dataset.view === "workshop") setText(tab, partner ? "memory" : "workshop");
      setClass(tab, "on", tab.dataset.view === this.view);
      tab.setAttribute("aria-pressed", String(tab.dataset.view === this.view));
    }
    forgetTheme();
  }

  frame() {
    const { model } = this;
    if (model.hello) {
      const t = this.now();
      this.frames += 1;
      this.lines(t);
      if (this.view === "stage") this.roll.draw(model, t);
      else if (this.view === "workshop") this.workshop.draw(t);
      this.shelf.draw();
      this.controls.update(t);
      this.health.update(t);
      this.transport.update(t);
    }
    requestAnimationFrame(() => this.frame());
  }

  lines(t) {
    const { model } = this;
    const mode = model.mode(t), state = model.state(t), pulse = model.pulse(t);
    const ended = model.live && model.end !== null;
    const quiet = this.isQuiet, { partner, nothing, title } = model.hello;
    setText(this.mode, quiet ? title : mode.name);
    setText(this.by, quiet ? partner ? "what it learned" : nothing ? "sessions and partners" : "what was played" : { you: "you chose it", form: "by the form", auto: "auto" }[mode.by]);
    const input = model.live && model.staged && !model.staged.has_input;
    const words = ended ? "it has ended" : input ? "NO INPUT" : !model.listening(t) ? "NOT LISTENING" : model.muted(t) ? "is muted" : state.words;
    setText(this.state, words);
    setClass(this.state, "long", words.length > 14);
    this.state.dataset.plays = String(state.plays && !model.muted(t));
    setText(this.until, state.until !== null && !state.plays ? (state.until - t).toFixed(1) : "");
    setText(this.tempo, pulse ? `♩ ${Math.round(pulse.bpm)}` : quiet ? "" : "free");
    this.tempo.title = pulse ? `${pulse.source}, ${Math.round(100 * pulse.confidence)} % sure` : "no pulse that is gone by";
    this.tempo.style.opacity = pulse ? String(0.65 + 0.35 * pulse.confidence) : "0.65";
    setText(this.time, quiet ? "" : clock(t));
    const play = state.plays ? state.decided : model.last(model.plays, t, "t");
    const advice = model.live && model.staged ? model.staged.advice : "";
    // A rest says why in what it does, but where nothing fits.
    const known = state.decided && !state.plays && model.hello.does[state.decided.rest];
    const why = advice || (state.decided && !known ? state.decided.short : "\u00a0");
    setText(this.why, why);
    this.why.className = `why ${state.plays ? `why-${state.decided.why}` : ""}`;
    setText(this.where, play ? `${model.recording(play.recording, play.live)}  ${clock(sourceAt(play, t), 1)}${play.transposition ? `  ${play.transposition > 0 ? "+" : "−"}${Math.abs(play.transposition)}` : ""}` : "");
    const level = model.live ? model.level : null;
    this.meter.hidden = !model.live;
    if (level) {
      const part = (db) => `${100 * Math.max(0, Math.min(1, 1 + db / 60))}%`;
      this.meter.firstChild.style.width = part(level.rms_db);
      this.meter.lastChild.style.left = part(level.peak_db);
      this.meter.dataset.state = level.peak_db > -1 ? "bad" : level.peak_db > -6 ? "warn" : "good";
    }
  }
}

// Where in its take a choice is now.
function sourceAt(play, t) {
  return play.source_start_s + Math.max(0, Math.min(play.duration_s, t - play.begin)) / (play.stretch || 1);
}

window.app = new App();
