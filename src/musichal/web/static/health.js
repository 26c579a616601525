// One light, and what is behind it.

import { h, setText, clock } from "./dom.js";

export function health(model, t, link) {
  const items = [];
  const add = (name, value, state = "good", advice = "") => items.push({ name, value, state, advice });
  const s = model.statistics || {};
  if (model.live) {
    const silent_s = (performance.now() - link.heard_ms) / 1000;
    if (!link.connected) add("connection", "lost", "bad", "MusicHal has ended, or this page is no longer reached; it tries again");
    else if (silent_s > 1.5) add("connection", `nothing for ${silent_s.toFixed(0)} s`, "bad", "the engine stands still");
    else add("connection", "good");
    if (!model.level || t - model.level.at > 1.5) add("input", "NO INPUT", "bad", "the input is away: is the card plugged in?");
    else {
      const peak = Math.max(-120, ...model.between(model.levels, t - 4, t).map((l) => l.db));
      if (model.level.peak_db > -0.5) add("input", "clipping", "bad", "turn the input down");
      else if (peak < -55) add("input", "very quiet", "warn", "turn the input up, or play");
      else add("input", `${model.level.peak_db.toFixed(0)} dBFS`);
    }
    if (s.midi_lateness_p99_ms !== undefined && s.midi_lateness_p99_ms !== null) {
      const late = Number(s.midi_lateness_p99_ms);
      add("notes late", `${late.toFixed(1)} ms`, late > 20 ? "bad" : late > 8 ? "warn" : "good", late > 8 ? "close other programs" : "");
    }
    if (s.percept_p99_ms !== undefined) add("heard after", `${Math.round(s.percept_p99_ms)} ms`, s.percept_p99_ms > 400 ? "warn" : "good");
    if (s.hearing_p99_ms !== undefined) add("hearing takes", `${Math.round(s.hearing_p99_ms)} ms`);
    const lost = model.between(model.lost, t - 60, t).reduce((sum, l) => sum + l.lost, 0);
    add("lost", lost ? `lost ${lost} samples` : "nothing",  lost > 5000 ? "bad" : lost ? "warn" : "good", lost ? "raise the period of the sound card" : "");
    if (s.skipped) add("segments not heard", String(s.skipped), "warn", "this machine is too slow for the encoder");
  }
  const alarm = model.alarm(t);
  if (alarm) add("sound", alarm.cause, "warn", alarm.text);
  else if (model.live) add("sound", "as in training");
  const trouble = model.between(model.events, t - 20, t).filter((e) => ["session", "port", "observer", "analysis", "overload"].includes(e.kind) && !/^plays to/.test(e.text));
  for (const e of trouble.slice(-2)) add(e.kind, e.text, "warn", `at ${clock(e.t)}`);
  const worst = items.some((i) => i.state === "bad") ? "bad" : items.some((i) => i.state === "warn") ? "warn" : "good";
  return { worst, items };
}

export class Health {
  constructor(app) {
    this.app = app;
    this.list = h("dl", { class: "health-list" });
    this.words = h("span", {});
    this.element = h("details", { class: "health" }, h("summary", { "aria-label": "Health" }, h("i", { class: "light" }), this.words), this.list);
    this.shown_ms = 0;
  }

  update(t) {
    const { worst, items } = health(this.app.model, t, this.app.link);
    const first = items.find((i) => i.state === worst) || { name: "", value: "" };
    const words = worst === "good" ? "all well" : ["input", "sound", "lost"].includes(first.name) ? first.value : `${first.name}: ${first.value}`;
    if (this.element.dataset.state !== worst) this.element.dataset.state = worst;
    setText(this.words, words);
    if (!this.element.open || performance.now() - this.shown_ms < 500) return;
    this.shown_ms = performance.now();
    this.list.replaceChildren(...items.flatMap((i) => [h("dt", {}, i.name), h("dd", { "data-state": i.state }, i.value, i.advice ? h("small", {}, ` ${i.advice}`) : null)]));
  }
}
