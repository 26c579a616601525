// The roll: eight seconds back, eight ahead. The player above, the partner below; what is decided is solid, what is only
// likely translucent, and a rest that is meant has its name.

import { sharp, theme } from "./dom.js";
import { after } from "./model.js";

const BACK_S = 8, AHEAD_S = 8;

export class Roll {
  constructor(canvas, back = BACK_S, ahead = AHEAD_S) {
    this.canvas = canvas;
    this.back = back;
    this.ahead = ahead;
    this.drawn = [];
    this.ranges = { heard: null, notes: null };
  }

  // The decision of the note, or of the rest, at a place of the canvas.
  at(x, y) {
    const near = (r, d) => x >= r.x - d && x <= r.x + r.w + d && y >= r.y - d && y <= r.y + r.h + d;
    for (let i = this.drawn.length - 1; i >= 0; i--) if (near(this.drawn[i], 5)) return this.drawn[i].by;
    return null;
  }

  draw(model, t, surface = sharp(this.canvas)) {
    const { context: c, width, height } = surface;
    const colours = theme();
    this.drawn = [];
    this.canvas.latest = 0;
    if (!width || !model.hello) return;
    const split = Math.round(height * 0.36);
    const drums = 20;
    const x = (time) => ((time - t + this.back) / (this.back + this.ahead)) * width;
    const from = t - this.back, to = t + this.ahead;
    c.fillStyle = colours.panel;
    c.fillRect(0, 0, width, height);
    this.beats(c, model, t, x, height, colours);
    this.level(c, model, from, t, x, split, colours);
    c.fillStyle = colours.line;
    c.fillRect(0, split, width, 1);
    this.onsets(c, model, from, t, x, split, colours);
    this.heard(c, model, from, to, t, x, split, colours);
    this.rests(c, model, t, from, x, split, height, colours);
    this.answer(c, model, t, from, to, x, split + 6, height - drums, height, colours);
    this.sections(c, model, from, to, x, height, colours);
    c.fillStyle = colours.now;
    if (this.ahead) c.fillRect(Math.round(x(t)) - 1, 0, 3, height);
    c.font = `600 ${14 * colours.scale}px ${colours.font}`;
    c.textBaseline = "top";
    c.fillStyle = colours.dim;
    c.fillText("you", 10, 8);
    c.fillText("partner", 10, split + 8);
    c.textAlign = "right";
    if (this.ahead) c.fillText(`${this.ahead} s ahead`, width - 10, 8);
    c.textAlign = "left";
  }

  beats(c, model, t, x, height, colours) {
    const pulse = model.pulse(t);
    if (!pulse) return;
    const first = Math.ceil((t - this.back - pulse.beat) / pulse.period);
    const last = Math.floor((t + this.ahead - pulse.beat) / pulse.period);
    c.fillStyle = colours.line;
    for (let beat = first; beat <= last && beat - first < 100; beat++) {
      const time = pulse.beat + beat * pulse.period;
      // A grid that reaches far from where it was seen is less sure.
      const sure = pulse.confidence * Math.max(0.25, 1 - Math.abs(time - pulse.at) / 12);
      c.globalAlpha = 0.35 + 0.65 * sure;
      c.fillRect(Math.round(x(time)), 0, sure > 0.5 ? 2 : 1, height);
    }
    c.globalAlpha = 1;
  }

  level(c, model, from, t, x, split, colours) {
    const levels = model.between(model.levels, from - 0.2, t);
    if (levels.length < 2) return;
    c.beginPath();
    c.moveTo(x(levels[0].t), split);
    for (const { t: time, db } of levels) c.lineTo(x(time), split - Math.max(0, Math.min(1, (db + 60) / 60)) * split * 0.8);
    c.lineTo(x(levels[levels.length - 1].t), split);
    c.closePath();
    c.globalAlpha = 0.16;
    c.fillStyle = colours.player;
    c.fill();
    c.globalAlpha = 1;
  }

  onsets(c, model, from, to, x, split, colours) {
    c.fillStyle = colours.player;
    for (const { t } of model.between(model.onsets, from, to)) c.fillRect(Math.round(x(t)) - 1, split - 14, 3, 14);
  }

  range(name, notes, least) {
    const [low, high] = this.ranges[name] || [52, 76];
    let [lowest, highest] = [low + 2, high - 2];
    if (notes.length) {
      lowest = Infinity; highest = -Infinity;
      for (const note of notes) { lowest = Math.min(lowest, note.p); highest = Math.max(highest, note.p); }
    }
    const middle = (lowest + highest) / 2, half = Math.max(least / 2, (highest - lowest) / 2 + 2);
    // The picture follows slowly, so that it does not jump under the eye; only for what would not be seen it hurries.
    const follow = (from, to, hurry) => from + (to - from) * (!this.ranges[name] ? 1 : hurry ? 0.3 : 0.05);
    const range = [follow(low, middle - half, lowest < low + 1), follow(high, middle + half, highest > high - 1)];
    if (notes.length) this.ranges[name] = range;
    return range;
  }

  heard(c, model, from, to, now, x, split, colours) {
    const notes = model.between(model.heard, from - model.longest, Math.min(to, now)).filter((n) => n.t + n.d > from);
    const [low, high] = this.range("heard", notes, 22);
    const tall = Math.max(6 * colours.scale, Math.min(13 * colours.scale, (split - 36) / (high - low)));
    c.fillStyle = colours.player;
    for (const n of notes) {
      const y = split - 18 - ((n.p - low) / (high - low)) * (split - 36 - tall) - tall;
      c.globalAlpha = 0.5 + 0.5 * (n.v / 127);
      bar(c, x(n.t), y, Math.max(4, x(Math.min(now, n.t + n.d)) - x(n.t) - 1), tall);
    }
    c.globalAlpha = 1;
  }

  rests(c, model, t, from, x, split, height, colours) {
    const list = model.decisions;
    for (let i = Math.max(0, after(list, from - 30, "t")); i < list.length && list[i].t <= t; i++) {
      const rest = list[i];
      if (rest.kind !== "rest") continue;
      const next = list.slice(i + 1).find((d) => d.t <= t && (d.kind === "play" || d.rest !== rest.rest));
      if (i && list[i - 1].kind === "rest" && list[i - 1].rest === rest.rest && list[i - 1].t > from - 29) continue; // one gap
      const expected = rest.expected_s ? rest.t + rest.expected_s : t;
      const until = next ? (next.kind === "play" ? next.begin : next.t) : Math.max(t, expected);
      if (until < from || until - rest.t < 0.5) continue;
      const left = Math.max(-8, x(rest.t)), wide = x(until) - left, top = split + 30, tall = height - split - 60;
      c.strokeStyle = colours.faint;
      c.setLineDash([6, 6]);
      c.lineWidth = 1.5;
      c.strokeRect(left + 2, top, Math.max(2, wide - 4), tall);
      c.setLineDash([]);
      const words = model.does(rest.rest);
      c.textBaseline = "middle";
      c.fillStyle = colours.dim;
      const shown = Math.min(wide, x(t + this.ahead) - left);
      const size = [22, 18, 15, 13].find((px) => { c.font = `600 ${px * colours.scale}px ${colours.font}`; return c.measureText(words).width < shown - 14; });
      if (size) {
        c.textAlign = "center";
        c.fillText(words, Math.max(left, 0) + (left + shown - Math.max(left, 0)) / 2, top + tall / 2);
        c.textAlign = "left";
      }
      this.drawn.push({ x: left, y: top, w: wide, h: tall, by: rest });
    }
  }

  answer(c, model, t, from, to, x, top, bottom, height, colours) {
    const all = model.between(model.notes, from - model.longest, to).filter((n) => n.t + n.d > from && n.by.t <= t + 0.3 && !n.dropped);
    const likely = model.muted(t) || !model.state(t).plays ? [] : model.likely(t, this.ahead);
    const [low, high] = this.range("notes", all.filter((n) => !n.drum).concat(likely.filter((n) => n.t < t + 3)), 24);
    const tall = Math.max(9 * colours.scale, Math.min(20 * colours.scale, (bottom - top) / (high - low)));
    const y = (pitch) => bottom - ((pitch - low) / (high - low)) * (bottom - top - tall) - tall;
    const now = model.last(model.plays, t + 0.3, "begin");
    for (const n of likely) {
      if (n.p < low - 1 || n.p > high + 1) continue;
      c.fillStyle = colours[`why-${now.why}`];
      c.globalAlpha = 0.30 * Math.max(0.2, 1 - (n.t - t) / AHEAD_S);
      bar(c, x(n.t), y(n.p), Math.max(4, x(n.t + n.d) - x(n.t) - 1), tall);
    }
    for (const n of all) {
      const colour = colours[`why-${n.by.why}`];
      const silent = model.muted(n.t);
      const left = x(n.t), wide = Math.max(5, x(n.t + n.d) - left - 1);
      c.globalAlpha = silent ? 0.35 : n.t + n.d < t ? 0.72 : 1;
      c.fillStyle = colour;
      const sounding = n.t <= t && t < n.t + n.d && !silent;
      if (n.drum) {
        c.fillRect(left - 2, height - 16, 5, 12);
        this.drawn.push({ x: left - 2, y: height - 16, w: 5, h: 12, by: n.by });
        continue;
      }
      bar(c, left, y(n.p), wide, tall);
      if (sounding) {
        c.globalAlpha = 1;
        c.strokeStyle = colours.ink;
        c.lineWidth = 2;
        c.strokeRect(left, y(n.p), wide, tall);
      }
      this.drawn.push({ x: left, y: y(n.p), w: wide, h: tall, by: n.by });
    }
    c.globalAlpha = 1;
    if (all.length) this.canvas.latest = all[all.length - 1].by.number;
  }

  sections(c, model, from, to, x, height, colours) {
    const course = model.course((from + to) / 2), moved = course.at - (from + to) / 2;
    const ahead = course.paused || course.held ? [] : model.hello.form.sections.map((s) => ({ t: s.start_s - moved, text: s.name }));
    const marks = [...ahead, ...model.marks.map((m) => ({ t: m.t, text: `⚑ ${m.text}` }))];
    c.font = `600 ${15 * colours.scale}px ${colours.font}`;
    c.textBaseline = "bottom";
    for (const { t, text } of marks) {
      if (t < from || t > to || t <= 0) continue;
      c.fillStyle = colours.ink;
      c.fillRect(Math.round(x(t)), 0, 2, height);
      c.fillText(text, x(t) + 6, height - 6);
    }
  }
}

function bar(c, x, y, w, h) {
  c.beginPath();
  c.roundRect(x, y, w, h, Math.min(4, h / 2, w / 2));
  c.fill();
}
