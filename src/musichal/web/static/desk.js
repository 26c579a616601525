// Beside the settings: what gives the pulse, what the MIDI controllers do, and presets.

import { h, setText, setClass, theme, sharp } from "./dom.js";

const SOURCES = { heard: "your playing", memory: "your playing, its beat by memory", tap: "your taps", midi: "MIDI clock", link: "Ableton Link", osc: "a clock by OSC", clock: "the tempo that was set" };

export class Clocks {
  constructor(app) { this.app = app; }

  build() {
    const { hello, live, may_play } = this.app.model, clocks = hello.clocks || {};
    this.canvas = h("canvas", { class: "beats", role: "img", "aria-label": "Beats, the last and the next four seconds" });
    this.words = h("p", { class: "pulse-words" });
    this.time = h("div", { class: "row", role: "group", "aria-label": "Time" }, ...["auto", "pulse", "free"].map((name) =>
      h("button", { type: "button", class: "chip", "data-time": name, disabled: !(live && may_play), onclick: () => this.app.controls.send("time", [name]) }, { auto: "as it fits", pulse: "on the pulse", free: "free" }[name])));
    this.rows = h("dl", { class: "clock-rows" });
    this.clocks = clocks;
    return h("div", {}, this.canvas, this.words, this.time, this.rows);
  }

  // Live, the engine says by which pulse it goes; of a session the decisions do.
  pulse(t) {
    const { model } = this.app, told = model.live && model.staged && model.staged.partner.pulse;
    if (told) return { bpm: 60 / told.period_s, period: told.period_s, beat: told.beat_s, source: told.source, confidence: told.confidence };
    return model.live && model.staged ? null : model.pulse(t);
  }

  draw(t) {
    if (!this.canvas) return;
    const { model } = this.app, pulse = this.pulse(t), asked = model.setting("time", t);
    for (const chip of this.time.children) {
      setClass(chip, "on", chip.dataset.time === asked);
      chip.setAttribute("aria-pressed", String(chip.dataset.time === asked));
    }
    setText(this.words, pulse ? `${pulse.bpm.toFixed(1)} BPM from ${SOURCES[pulse.source] || pulse.source}, ${Math.round(100 * pulse.confidence)} % sure` : "no pulse: it plays in free time");
    this.drawBeats(t, pulse);
    if (!model.live) return;
    const latest = (kind) => { const found = model.events.findLast((e) => e.kind === kind); return found && found.text; };
    const rows = [["tap", "t, or the button Tap"], ["MIDI clock in", this.clocks.in ? `from ${this.clocks.in}` : "none (--clock-in)"],
      ["MIDI clock out", this.clocks.out ? `to ${this.clocks.out}` : "none (--clock-out)"],
      ["Ableton Link", this.clocks.link ? (latest("link") || "waits for others").replace(/^Link: /, "") : "off (--link)"],
      ["sent ahead by", `${model.setting("latency_ms", t) ?? 0} ms`]];
    const key = rows.join("|");
    if (key === this.key && this.rows.children.length) return;
    this.key = key;
    this.rows.replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }

  drawBeats(t, pulse) {
    const { context: c, width, height } = sharp(this.canvas), colours = theme(), span = 4;
    if (!width) return;
    const x = (time) => ((time - t + span) / (2 * span)) * width;
    c.fillStyle = colours.ground;
    c.fillRect(0, 0, width, height);
    c.fillStyle = colours["why-rhythm"];
    if (pulse) {
      const first = Math.ceil((t - span - pulse.beat) / pulse.period);
      for (let k = first; k < first + 80; k++) {
        const at = pulse.beat + k * pulse.period;
        if (at > t + span) break;
        c.globalAlpha = 0.3 + 0.7 * pulse.confidence;
        c.fillRect(x(at) - 1.5, height * 0.3, 3, height * 0.7);
      }
    }
    c.globalAlpha = 1;
    c.fillStyle = colours.player;
    for (const { t: at } of this.app.model.between(this.app.model.onsets, t - span, t)) c.fillRect(x(at) - 1, 0, 2, height * 0.26);
    c.fillStyle = colours.now;
    c.fillRect(x(t) - 1, 0, 3, height);
  }
}

const place = (m) => `${m.note ? "note" : "CC"} ${m.controller}${m.channel === null ? "" : ` · channel ${m.channel + 1}`}`;

export class Controllers {
  constructor(app) { this.app = app; }

  build() {
    const { hello } = this.app.model;
    this.which = h("select", { "aria-label": "Command" }, ...Object.keys(hello.commands).filter((name) => !/_controller$|^(region|clock|quit)$/.test(name))
      .map((name) => h("option", { value: name }, name.replaceAll("_", " "))));
    this.button = h("button", { type: "button", class: "chip", onclick: () => this.learn(this.which.value) }, "Learn");
    this.state = h("p", { class: "hint", role: "status" });
    this.given = h("ul", { class: "given" });
    return h("div", {}, h("div", { class: "row" }, this.which, this.button), this.state, this.given);
  }

  // Once more, and it waits no longer.
  learn(name) {
    const { controllers } = this.app.model;
    this.app.controls.send("learn_controller", [controllers && controllers.waits_for === name ? "" : name]);
  }

  show(settings) {
    const { controllers } = this.app.model;
    if (!controllers || !this.state) return;
    const { given, waits_for, works, is_kept } = controllers;
    const waits = waits_for && `move the controller${waits_for in this.app.model.hello.commands ? ", or strike the pad," : ""} for ${waits_for.replaceAll("_", " ")} …`;
    setText(this.state, !works ? "none: --control-in names the MIDI input of your controllers" : waits || (is_kept ? "kept in the file that --map names" : "until the end: --map FILE keeps what is learned"));
    setClass(this.state, "waits", Boolean(waits_for));
    setText(this.button, waits_for && !settings.some(({ p }) => p.name === waits_for) ? "Do not wait" : "Learn");
    this.given.replaceChildren(...given.map((m) => h("li", {}, h("span", {}, m.name.replaceAll("_", " ")), h("small", {}, place(m)),
      h("button", { type: "button", class: "chip", "aria-label": `forget ${m.name}`, onclick: () => this.app.controls.send("forget_controller", [m.name]) }, "forget"))));
    for (const { p, learn } of settings) {
      if (learn.tagName !== "BUTTON") continue;
      const own = given.find((m) => m.name === p.name);
      learn.disabled = !works;
      learn.title = works ? `the next controller that moves sets ${p.name}` : "needs --control-in";
      setText(learn, waits_for === p.name ? "move it" : own ? `${own.note ? "note" : "CC"} ${own.controller}` : "MIDI");
      setClass(learn, "waits", waits_for === p.name);
      setClass(learn, "given", Boolean(own));
    }
  }
}

const STORE = "musichal-presets";

export class Presets {
  constructor(app) { this.app = app; }

  build() {
    this.name = h("input", { type: "text", maxlength: "30", placeholder: "name", "aria-label": "Name of the preset" });
    this.row = h("div", { class: "row", role: "group", "aria-label": "Presets" });
    this.show();
    return h("div", { class: "presets" }, this.row, h("div", { class: "row" }, this.name,
      h("button", { type: "button", class: "chip", onclick: () => this.save() }, "Save these"), h("button", { type: "button", class: "chip", onclick: () => this.copy() }, "Copy as --set")));
  }

  kept() {
    try { return JSON.parse(localStorage.getItem(STORE)) || {}; } catch { return {}; }
  }

  keep(presets) {
    try { localStorage.setItem(STORE, JSON.stringify(presets)); } catch { this.app.controls.say("this browser keeps nothing", true); }
    this.show();
  }

  // What differs from how a setting comes.
  changed() {
    const { model } = this.app, t = this.app.now(), found = {};
    for (const p of model.hello.parameters) {
      const value = model.setting(p.name, t);
      if (p.name !== "latency_ms" && value !== undefined && String(value) !== String(p.default)) found[p.name] = value;
    }
    return found;
  }

  show() {
    const presets = this.kept();
    const chip = (name, values) => h("button", { type: "button", class: "chip", "data-preset": name, onclick: () => this.apply(values) }, name);
    this.row.replaceChildren(chip("as it began", this.app.model.hello.settings), ...Object.entries(presets).flatMap(([name, values]) => [chip(name, values),
      h("button", { type: "button", class: "chip drop", "aria-label": `delete the preset ${name}`, onclick: () => { delete presets[name]; this.keep(presets); } }, "✕")]));
  }

  save() {
    const name = this.name.value.trim();
    if (!name) { this.app.controls.say("give it a name first", true); return; }
    this.keep({ ...this.kept(), [name]: this.changed() });
    this.name.value = "";
    this.app.controls.say(`${name} is kept in this browser`);
  }

  // A preset says how every setting stands: what it does not name goes back to how it comes.
  apply(values) {
    const { model, controls } = this.app, t = this.app.now();
    for (const p of model.hello.parameters) {
      const wanted = p.name in values ? values[p.name] : p.default;
      if (p.name !== "latency_ms" && String(wanted) !== String(model.setting(p.name, t))) controls.send(p.name, [wanted]);
    }
  }

  copy() {
    const text = Object.entries(this.changed()).map(([name, value]) => `--set '${name}=${value}'`).join(" ");
    if (!text) this.app.controls.say("all settings are as they come");
    else navigator.clipboard.writeText(text).then(() => this.app.controls.say("copied, for the command line"), () => this.app.controls.say(text));
  }
}
