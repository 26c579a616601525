// The workshop: what it hears, what speaks for its choices, its memory, its settings.

import { h, sharp, theme, setText, setClass, clock, round, pitchClass, noteName } from "./dom.js";
import { WHY, after } from "./model.js";
import { MemoryMap } from "./map.js";
import { Clocks, Controllers, Presets } from "./desk.js";

const RIBBON_S = 12, MINUTE_S = 60;

export class Workshop {
  constructor(app) {
    this.app = app;
    this.element = h("main", { class: "workshop", hidden: true });
    this.map = new MemoryMap(app);
    this.clocks = new Clocks(app);
    this.presets = new Presets(app);
    this.controllers = new Controllers(app);
    this.told = -1;
    this.shown_ms = 0;
  }

  build() {
    const { model } = this.app;
    this.ribbons = h("canvas", { class: "ribbons", role: "img", "aria-label": "What it heard in the last twelve seconds: sounds, chroma and onsets" });
    this.harmony = h("p", { class: "harmony" });
    this.shares = h("table", { class: "shares" });
    this.last = h("div", { class: "last" });
    this.figures = h("dl", { class: "figures" });
    this.events = h("ol", { class: "events" });
    const panel = (title, name, ...content) => h("section", { class: `panel ${name}` }, h("h2", {}, title), ...content);
    this.overview = h("div", { class: "overview" });
    const playing = model.live && model.may_play;
    const settings = panel("Settings", "settings", playing ? this.presets.build() : null, this.buildSettings());
    if (model.hello.partner) this.element.replaceChildren(panel("What it learned", "memory", this.overview, this.map.element));
    else {
      this.element.replaceChildren(
        h("div", { class: "column" }, panel("What it hears", "hears", this.ribbons, this.harmony), panel("Its memory", "memory", this.map.element),
          panel("Pulse and clocks", "clocks", this.clocks.build()), playing ? panel("MIDI controllers", "controllers", this.controllers.build()) : null,
          panel("Figures", "numbers", this.figures), panel("What happened", "happened", this.events)),
        h("div", { class: "column" }, panel("What speaks for its choices", "speaks", this.shares), panel("The last choice", "choice", this.last), settings));
    }
    this.showControllers();
  }

  showControllers() { if (this.settings && this.app.model.live) this.controllers.show(this.settings); }

  showOverview() {
    const { overview } = this.app.model;
    if (!overview || !this.overview) return;
    const note = (pitch) => pitch === null ? "" : noteName(pitch);
    this.overview.replaceChildren(h("p", { class: "enough" }, overview.enough),
      h("table", { class: "rows-table" }, h("thead", {}, h("tr", {}, ...["take", "length", "of memory", "key", "tempo", "notes", "a second"].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, ...overview.takes.slice(0, 40).map((take) => h("tr", {}, h("th", { scope: "row" }, take.name),
          ...[clock(take.duration_s), `${Math.round(100 * take.of_memory)} %`, take.key || "–", take.bpm ? `${Math.round(take.bpm)} BPM` : "free",
            take.lowest === null ? "none" : `${note(take.lowest)} to ${note(take.highest)}`, take.notes_per_s.toFixed(1)].map((text) => h("td", {}, text)))))),
      h("ul", {}, ...overview.suits.map((text) => h("li", {}, `It suits ${text}.`)), ...overview.lacks.map((text) => h("li", { class: "warn" }, `Mind: ${text}.`))));
  }

  remember() { this.map.remember(); }

  buildSettings() {
    const { model } = this.app;
    this.settings = [];
    const filter = h("input", { type: "search", placeholder: "find a setting", "aria-label": "Find a setting", oninput: () => this.find(filter.value) });
    const list = h("div", { class: "list" });
    this.groups = new Map();
    for (const p of model.hello.parameters) {
      if (!this.groups.has(p.group)) {
        this.groups.set(p.group, h("div", { class: "group" }, h("h3", {}, p.group)));
        list.append(this.groups.get(p.group));
      }
      const realised = h("output", {});
      const words = p.kind === "words", ends = p.ends.map(Number);
      const input = words
        ? h("input", { type: "text", value: String(model.hello.settings[p.name] ?? p.default), "aria-label": p.name, maxlength: "200" })
        : h("input", { type: "range", min: String(Math.min(...ends)), max: String(Math.max(...ends)), "aria-label": p.name,
          step: p.kind === "integer" ? "1" : String((Math.max(...ends) - Math.min(...ends)) / 200), value: String(model.hello.settings[p.name]) });
      input.disabled = !(model.live && model.may_play);
      input.addEventListener("change", () => this.app.controls.send(p.name, [words ? input.value : Number(input.value)]));
      if (!words) input.addEventListener("input", () => { target.textContent = round(input.value); });
      const target = h("span", { class: "target" }, words ? "" : round(model.hello.settings[p.name]));
      const learn = model.live && model.may_play ? h("button", { type: "button", class: "learn", onclick: (event) => { event.preventDefault(); this.controllers.learn(p.name); } }, "MIDI") : h("span", {});
      const row = h("label", { class: "setting", title: p.help }, h("span", { class: "name" }, p.name.replaceAll("_", " ")), input, target, realised, learn, h("small", {}, `${p.help}${p.unit ? ` (${p.unit})` : ""}`));
      row.dataset.words = `${p.name} ${p.help} ${p.group}`.toLowerCase();
      this.settings.push({ p, row, input, target, realised, learn });
      this.groups.get(p.group).append(row);
    }
    return h("div", { class: "settings-box" }, filter, list);
  }

  find(text) {
    const wanted = text.toLowerCase().replaceAll(" ", "_").trim();
    for (const { row } of this.settings) row.hidden = !(row.dataset.words.includes(wanted) || row.dataset.words.includes(text.toLowerCase()));
    for (const group of this.groups.values()) group.hidden = [...group.children].slice(1).every((row) => row.hidden);
  }

  draw(t) {
    const { model } = this.app;
    this.map.draw(t);
    if (model.hello.partner) return;
    this.drawRibbons(t);
    if (performance.now() - this.shown_ms < 200) return;
    this.shown_ms = performance.now();
    this.drawShares(t);
    this.drawSettings(t);
    this.drawLast(t);
    this.drawFigures();
    this.drawEvents(t);
    this.clocks.draw(t);
  }

  drawRibbons(t) {
    const { model } = this.app, colours = theme();
    const { context: c, width, height } = sharp(this.ribbons);
    if (!width) return;
    const x = (time) => ((time - t + RIBBON_S) / RIBBON_S) * width;
    const s = colours.scale, row = 34 * s, top = 22 * s, chromaTop = top + 2 * row + 10 * s, chromaHigh = height - chromaTop - 26 * s;
    c.font = `${12 * s}px ${colours.font}`;
    c.textBaseline = "middle";
    for (const p of model.between(model.percepts, t - RIBBON_S - 1, t)) {
      p.tokens.forEach((tokens, source) => {
        const wide = (x(p.t + p.length_s) - x(p.t)) / Math.max(1, tokens.length);
        let from = 0;
        for (let i = 1; i <= tokens.length; i++) {
          if (i < tokens.length && tokens[i] === tokens[from]) continue;
          const token = tokens[from];
          if (token >= 0) {
            c.fillStyle = `hsl(${((token * 222.5) % 360).toFixed(0)} ${source ? 58 : 62}% ${source ? 60 : 52}%)`;
            c.fillRect(x(p.t) + from * wide, top + source * row, Math.max(1, (i - from) * wide + 0.5), row - 3);
            if ((i - from) * wide > 22 * s) {
              c.fillStyle = "#111";
              c.fillText(String(token), x(p.t) + from * wide + 3, top + source * row + row / 2);
            }
          }
          from = i;
        }
      });
      const most = Math.max(...p.chroma, 1e-9);
      const high = chromaHigh / 12;
      c.fillStyle = colours.harmonic;
      p.chroma.forEach((value, pitch) => {
        c.globalAlpha = 0.9 * (value / most) ** 2;
        c.fillRect(x(p.t), chromaTop + (11 - pitch) * high, x(p.t + p.length_s) - x(p.t) - 1, high - 1);
      });
      c.globalAlpha = 1;
    }
    c.fillStyle = colours.ink;
    for (const { t: onset } of model.between(model.onsets, t - RIBBON_S, t)) c.fillRect(x(onset), height - 18 * s, 2 * s, 16 * s);
    c.fillStyle = colours.panel;
    c.fillRect(0, height - 18 * s, 48 * s, 18 * s);
    c.fillStyle = colours.dim;
    c.fillText("harmonic and percussive sounds by number", 4, 10 * s);
    for (const pitch of [0, 4, 7, 11]) c.fillText(pitchClass(pitch), 4, chromaTop + (11.5 - pitch) * (chromaHigh / 12));
    c.fillText("onsets", 4, height - 10 * s);
    const play = model.last(model.plays, t, "t");
    const use = play && play.harmony;
    setText(this.harmony, use ? `${use.chord} in ${use.key} (${Math.round(100 * Math.min(use.chord_chance, use.key_chance))} % sure); memory expects ${use.expected} (${Math.round(100 * use.expected_chance)} %)` : "no harmony yet");
  }

  drawShares(t) {
    const { model } = this.app;
    const play = model.last(model.plays, t, "t");
    if (!play) return;
    const sums = {};
    const recent = model.between(model.plays, t - MINUTE_S, t, "begin");
    for (const p of recent) for (const i of p.influences) sums[i.name] = (sums[i.name] || 0) + i.share / recent.length;
    if (!this.rows || this.rows.size !== play.influences.length) {
      this.rows = new Map();
      this.shares.replaceChildren(h("tr", {}, h("td", {}, ""), h("th", {}, "now"), h("th", {}, "match"), h("th", {}, "over a minute")));
      for (const i of play.influences) {
        const cells = { now: h("i", { class: `why-${WHY[i.name] || "none"}` }), match: h("td", { class: "count" }), minute: h("i", { class: `why-${WHY[i.name] || "none"}` }) };
        this.rows.set(i.name, cells);
        this.shares.append(h("tr", {}, h("th", { scope: "row" }, i.name), h("td", { class: "bar" }, cells.now), cells.match, h("td", { class: "bar" }, cells.minute)));
      }
    }
    for (const i of play.influences) {
      const cells = this.rows.get(i.name);
      if (!cells) { this.rows = null; return; }
      cells.now.style.width = `${100 * i.share}%`;
      cells.minute.style.width = `${100 * (sums[i.name] || 0)}%`;
      const context = play.contexts.find((c) => c.source === i.name);
      setText(cells.match, context ? context.tokens.length ? String(context.tokens.length) : context.strength.toFixed(2) : "–");
    }
  }

  drawSettings(t) {
    const { model } = this.app;
    for (const { p, input, target, realised } of this.settings) {
      const value = model.setting(p.name, t);
      const words = p.kind === "words";
      setText(realised, value === undefined ? "" : words ? String(value) : round(value));
      setClass(realised, "changed", value !== undefined && String(value) !== String(p.default));
      if (document.activeElement !== input && value !== undefined) {
        if (!words) { input.value = String(value); setText(target, ""); }
      }
    }
  }

  drawLast(t) {
    const { model } = this.app;
    const play = model.last(model.plays, t, "t");
    if (!play || play.number === this.told) return;
    this.told = play.number;
    this.last.replaceChildren(h("p", { class: "words" }, play.words), this.app.explain.others(play));
  }

  drawFigures() {
    const { statistics } = this.app.model;
    if (!statistics || statistics === this.figured) return;
    this.figured = statistics;
    this.figures.replaceChildren(...Object.entries(statistics).filter(([name, value]) => name !== "k" && typeof value !== "object")
      .flatMap(([name, value]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, String(value))]));
  }

  drawEvents(t) {
    const { model } = this.app;
    const end = after(model.events, t, "t");
    const latest = model.events.slice(Math.max(0, end - 12), end).reverse();
    const key = latest.map((e) => e.t + e.text).join("|");
    if (key === this.happened) return;
    this.happened = key;
    this.events.replaceChildren(...latest.map((e) => h("li", {}, h("time", {}, clock(e.t)), ` ${e.text}`)));
  }
}
