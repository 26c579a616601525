// What can be touched: only what OSC can say too. A control that this MusicHal does not know is not shown.

import { h, setClass, setText, clock } from "./dom.js";

const BUTTONS = [
  ["change", "Change"], ["go_back", "Back"], ["more_like_this", "More of this"], ["less_like_this", "Less of this"],
  ["tap", "Tap"], ["mark", "Mark"],
];
const KEY_NAMES = { " ": "space", "\n": "Enter", "\r": "Enter", "\u007f": "⌫", "\b": "⌫", "\u001b": "Esc" };
const KEY_CODES = { Enter: "\n", Backspace: "\u007f", Escape: "\u001b" };
const SHOWN_MS = 900, ERROR_MS = 6000;

export class Controls {
  constructor(app) {
    this.app = app;
    this.buttons = new Map();
    this.element = h("section", { class: "controls", "aria-label": "Controls" });
    this.toast = h("p", { class: "toast", role: "status", "aria-live": "polite" });
    this.form = h("div", { class: "form", hidden: true });
    document.addEventListener("keydown", (event) => this.key(event));
  }

  knows(name) {
    const hello = this.app.model.hello;
    return Boolean(hello && (name in hello.commands || hello.parameters.some((p) => p.name === name)));
  }

  send(name, values = [], button = null) {
    const sent = this.app.link.send(name, values, (text, obeyed) => this.told(text, obeyed, button));
    if (!sent) this.say("not connected: this was not sent", true);
    else if (button) {
      button.classList.add("asked");
      setTimeout(() => button.classList.remove("asked"), SHOWN_MS);
    }
  }

  told(text, obeyed, button) {
    if (button && !obeyed) button.classList.remove("asked");
    this.say(text, !obeyed);
  }

  say(text, bad = false) {
    setText(this.toast, text);
    setClass(this.toast, "bad", bad);
    this.toast.classList.add("shown");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.toast.classList.remove("shown"), bad ? ERROR_MS : 2500);
  }

  // An entry of the event log: the engine has really done it.
  realised(entry) {
    for (const name of entry.change ? Object.keys(entry.change) : [entry.mark !== undefined ? "mark" : entry.stage]) {
      const button = this.buttons.get({ unmute: "mute", deaf: "listen" }[name] || name);
      if (!button) continue;
      button.classList.remove("asked");
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), SHOWN_MS);
    }
  }

  button(name, words, more = "") {
    const key = Object.keys(this.app.model.hello.keys).find((own) => this.app.model.hello.keys[own] === name);
    const button = h("button", { type: "button", class: `touch ${more}`, "data-command": name, title: this.app.model.hello.commands[name] || "", onclick: () => this.send(name, [], button) },
      h("span", {}, words), key ? h("kbd", { "aria-hidden": "true" }, KEY_NAMES[key] || key) : null);
    this.buttons.set(name, button);
    return button;
  }

  build() {
    const { hello } = this.app.model;
    this.buttons.clear();
    const main = h("div", { class: "row main" });
    for (const [name, words] of BUTTONS) if (this.knows(name)) main.append(this.button(name, words));
    this.pause = this.knows("pause") ? "pause" : "mute";
    const stop = this.button(this.pause, "Pause", "pause");
    const panic = this.button("panic", "Panic", "panic");
    this.modes = h("div", { class: "row modes", role: "group", "aria-label": "Mode" });
    for (const [place, { name, about }] of [{ name: "auto", about: "the partner changes modes" }, ...hello.modes].entries()) {
      const choose = h("button", { type: "button", class: "chip", title: about, "data-mode": name,
        onclick: () => this.send("mode", [name]) }, name, place < 10 ? h("kbd", { "aria-hidden": "true" }, String(place)) : null);
      this.modes.append(choose);
    }
    this.voices = h("div", { class: "row voices", role: "group", "aria-label": "Voices" });
    const all = [...new Set([...hello.voices, ...hello.all_voices])];
    for (const name of all) {
      const own = h("button", { type: "button", class: "chip", "data-voice": name, title: "on or off; twice quickly: alone",
        onclick: () => this.voice(name, false), ondblclick: () => this.voice(name, true) }, name);
      this.voices.append(own);
    }
    this.intensity = null;
    if (this.knows("intensity")) {
      this.intensity = h("input", { type: "range", min: "0", max: "1", step: "0.01", value: "0.5", "aria-label": "Intensity",
        title: `${hello.commands.intensity}; twice quickly: auto`, ondblclick: () => this.send("intensity", ["auto"]),
        oninput: () => this.send("intensity", [Number(this.intensity.value)]) });
    }
    const sliders = this.intensity ? h("label", { class: "slider" }, "intensity", this.intensity) : null;
    this.form.hidden = !hello.form.sections.length;
    this.element.replaceChildren(
      h("div", { class: "rows" }, this.modes, h("div", { class: "row" }, this.voices, sliders), main), h("div", { class: "ends" }, stop, panic));
    this.buildForm(hello.form);
  }

  buildForm(form) {
    this.bars = form.sections.map((section) => {
      const bar = h("div", { class: "section" }, h("b", {}, section.name || section.mode || (section.silence ? "silence" : "free")), h("i", {}));
      bar.style.flexGrow = String(Math.max(1, Math.min(section.end_s, 3600) - section.start_s));
      return { section, bar };
    });
    this.left = h("span", { class: "left" });
    const buttons = [["next_section", "Next"], ["hold_section", "Hold"], ["end", "End"]].filter(([name]) => this.knows(name));
    const { live, may_play } = this.app.model;
    if (!live || !may_play) buttons.length = 0;
    this.form.replaceChildren(...this.bars.map(({ bar }) => bar), this.left,
      ...buttons.map(([name, words]) => this.button(name, words, "small")));
  }

  voice(name, alone) {
    const chosen = this.chosen();
    let wanted = alone ? [name] : chosen.includes(name) ? chosen.filter((v) => v !== name) : [...chosen, name];
    if (!alone && name === "all") wanted = ["all"];
    else if (!alone) wanted = wanted.filter((v) => v !== "all");
    if (!wanted.length) this.say("one voice must stay: pause it instead", true);
    else this.send("voices", [wanted.join(", ")]);
  }

  chosen() {
    return String(this.app.model.setting("voices", this.app.now()) || "").split(",").map((v) => v.trim()).filter(Boolean);
  }

  update(t) {
    const { model } = this.app;
    if (!model.hello || !this.modes) return;
    const chosen = this.chosen();
    for (const chip of this.voices.children) {
      setClass(chip, "on", chosen.includes(chip.dataset.voice));
      chip.setAttribute("aria-pressed", String(chosen.includes(chip.dataset.voice)));
    }
    const intensity = model.setting("intensity", t);
    if (this.intensity && intensity !== undefined && document.activeElement !== this.intensity) {
      this.intensity.value = intensity === "auto" ? 0.5 : intensity;
    }
    const asked = model.setting("mode", t) || model.hello.mode, mode = model.mode(t);
    for (const chip of this.modes.children) {
      setClass(chip, "on", chip.dataset.mode === asked);
      setClass(chip, "now", chip.dataset.mode === mode.name);
      chip.setAttribute("aria-pressed", String(chip.dataset.mode === asked));
    }
    const course = model.course(t);
    const paused = this.pause === "pause" ? course.paused : model.muted(t);
    const pause = this.buttons.get(this.pause);
    setText(pause.firstChild, paused ? "Go on" : "Pause");
    setClass(pause, "held", paused);
    for (const { section, bar } of this.bars) {
      const part = Math.max(0, Math.min(1, (course.at - section.start_s) / (Math.min(section.end_s, 3600) - section.start_s)));
      bar.lastChild.style.width = `${100 * part}%`;
      setClass(bar, "here", section.start_s <= course.at && course.at < section.end_s);
    }
    const here = model.section(t);
    const end = here ? here.end_s : model.hello.form.end_s;
    const left = course.held || course.paused ? "held" : end && end < 3600 * 24 && end > course.at ? `${clock(end - course.at)} left` : "";
    setText(this.left, course.end !== null ? "ends" : this.bars.length ? left : "");
    const hold = this.buttons.get("hold_section");
    if (hold) {
      setText(hold.firstChild, course.held ? "Go on" : "Hold");
      setClass(hold, "held", course.held);
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !this.app.model.may_play || !this.app.model.live) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (/^\d$/.test(event.key)) {
      const chip = this.modes && this.modes.children[Number(event.key)];
      if (chip) chip.click();
      return;
    }
    const key = KEY_CODES[event.key] || event.key.toLowerCase();
    if (event.target.tagName === "BUTTON" && (key === " " || key === "\n")) return; // it presses that button
    const name = this.app.model.hello.keys[key];
    if (!name || name === "quit") return;
    const button = this.buttons.get(name);
    if (button) button.click();
    else this.send(name);
    event.preventDefault();
  }
}
