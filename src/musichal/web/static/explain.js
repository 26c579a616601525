// One decision, explained: in words, by its influences, beside the places that it nearly was; and how each of them sounds.

import { h, clock, round } from "./dom.js";
import { WHY } from "./model.js";

export class Explain {
  constructor(app) {
    this.app = app;
    this.audio = new Audio();
    this.element = h("dialog", { class: "explain", "aria-label": "Why" });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape" && this.element.open) this.element.close(); });
    this.element.addEventListener("close", () => this.audio.pause());
  }

  listen(recording, from, length) {
    this.audio.src = `sound?recording=${recording}&from=${from.toFixed(3)}&for=${Math.min(18, Math.max(0.3, length)).toFixed(3)}`;
    this.audio.play().catch(() => this.app.controls.say("there is no sound of this place", true));
  }

  hear(words, recording, from, length, live = false) {
    if (live && this.app.model.live) return null; // what you played is on the disk, if anywhere
    return h("button", { type: "button", class: "hear", onclick: () => this.listen(live ? -1 : recording, from, length) }, `▶ ${words}`);
  }

  show(decision) {
    const { model } = this.app;
    const title = decision.kind === "rest" ? "rested" : `choice ${decision.choice} · ${decision.mode || "no mode"} · ${decision.voice}`;
    const parts = [
      h("div", { class: "title" }, h("h2", {}, `${clock(decision.time_s, 2)} ${title}`),
        h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.element.close() }, "✕")),
      h("p", { class: "words" }, decision.words),
    ];
    if (decision.kind === "play") {
      const place = `${model.recording(decision.recording, decision.live)} ${clock(decision.source_start_s, 1)}`;
      parts.push(h("div", { class: "row" },
        this.hear(`the moment it comes from (${place})`, decision.recording, decision.source_start_s, decision.duration_s, decision.live),
        decision.beside ? this.hear("you then", decision.beside[0], decision.beside[1], decision.duration_s) : null));
      const shares = [...decision.influences].sort((a, b) => b.share - a.share).filter((i) => i.share > 0.001);
      const table = h("table", { class: "shares" }, h("caption", {}, "What spoke for it"));
      for (const i of shares) {
        const bar = h("i", { class: `why-${WHY[i.name] || "none"}` });
        bar.style.width = `${100 * i.share}%`;
        table.append(h("tr", {}, h("th", { scope: "row" }, i.name), h("td", { class: "bar" }, bar), h("td", {}, `${Math.round(100 * i.share)} %`)));
      }
      parts.push(table, this.others(decision));
    }
    this.element.replaceChildren(...parts);
    if (!this.element.open) this.element.show(); // not modal: pause and panic stay within reach
  }

  // The chosen place and those that came next.
  others(decision) {
    const { model } = this.app;
    const table = h("table", { class: "others" }, h("caption", {}, `The best of ${decision.candidates} places`));
    const rows = [
      { recording: decision.recording, start_s: decision.source_start_s, transposition: decision.transposition, score: decision.score, live: decision.live, chosen: true },
      ...decision.alternatives];
    const most = Math.max(...rows.map((row) => row.score), 1e-9);
    for (const row of rows) {
      const bar = h("i", { class: row.chosen ? "chosen" : "other" });
      bar.style.width = `${(100 * row.score) / most}%`;
      const place = `${model.recording(row.recording, row.live)} ${clock(row.start_s, 1)}${row.transposition ? ` ${row.transposition > 0 ? "+" : "−"}${Math.abs(row.transposition)}` : ""}`;
      table.append(h("tr", { class: row.chosen ? "chosen" : "" }, h("th", { scope: "row" }, place), h("td", { class: "bar" }, bar),
        h("td", {}, round(row.score, 2)), h("td", {}, row.live ? null : this.hear("", row.recording, row.start_s, decision.duration_s))));
    }
    return table;
  }
}
