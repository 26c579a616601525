// What the page knows: a fold of the event stream. Live, messages come one by one, and what is long past after the present; of a
// session all are there. Whatever is drawn is a function of this and of one time, so live, replay and explanation are one page.

const KEPT_S = 900, MOST = 2000;
const PULSE_TRUSTED_S = 12;

const NOTHING_FITS = "rests: nothing fits";
const BETWEEN_S = 2; // so long a rest between two notes is still playing
const CUTS = ["panic", "pause", "mute"];
const COURSE = ["pause", "hold_section", "next_section", "end"];

// Influences, by what they mean to a player; each has a colour.
export const WHY = {
  pairs: "like", likeness: "like", harmonic: "harmony", chroma: "harmony", percussive: "rhythm", rhythm: "rhythm",
  loudness: "rhythm", own: "own", continuity: "own",
};
export const WHY_WORDS = {
  like: "like you", harmony: "your harmony", rhythm: "your rhythm", own: "goes on", asked: "comes back", none: "free",
};

export function whyOf(decision) {
  if (decision.returns || decision.answers || decision.scenario) return "asked";
  let best = null;
  for (const influence of decision.influences) if (influence.share > 0 && (!best || influence.share > best.share)) best = influence;
  return best ? WHY[best.name] || "none" : "none";
}

// The first place in a list, in order of `key`, whose key is above a value.
export function after(list, value, key) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle][key] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function insert(list, item, key) {
  let place = list.length;
  while (place && list[place - 1][key] > item[key]) place--;
  if (place === list.length) list.push(item);
  else list.splice(place, 0, item);
}

export class Model {
  constructor() {
    this.hello = null;
    Object.assign(this, { shelf: null, task: null, dropped: null, compared: null, controllers: null });
    this.forget();
  }

  forget() {
    Object.assign(this, {
      onsets: [], heard: [], levels: [], percepts: [], decisions: [], plays: [], notes: [], changes: new Map(), stages: [], events: [],
      marks: [], wishes: [], alarms: [], staged: null, statistics: null, level: null, end: null, lost: [], longest: 0,
      ready: false, may_play: false, page: 0, pruned: 0, memory: null, overview: null,
    });
  }

  get live() {
    return Boolean(this.hello && this.hello.live);
  }

  take(m) {
    switch (m.k) {
      case "hello": this.hello = m; break;
      case "you": this.forget(); this.may_play = m.may_play; this.page = m.page; break;
      case "shelf": case "task": case "dropped": case "compared": case "controllers": case "overview": this[m.k] = m; break;
      case "ready": this.ready = true; break;
      case "memory": this.memory = ordered(m); break;
      case "level":
        this.level = m;
        this.levels.push({ t: m.at, db: m.rms_db });
        this.prune(m.at);
        break;
      case "stage": this.staged = m; break;
      case "statistics": this.statistics = m; break;
      case "percept": this.percept(m); break;
      case "decision": this.decision(m); break;
      case "entry": this.entry(m); break;
      case "drift": insert(this.alarms, { t: m.time_s, ...m }, "t"); break;
      case "event": insert(this.events, { t: m.at_s, kind: m.kind, text: m.text }, "t"); break;
    }
  }

  percept(m) {
    m.t = m.at;
    insert(this.percepts, m, "t");
    for (const [t, d, p, v] of m.notes) {
      insert(this.heard, { t, d, p, v }, "t");
      this.longest = Math.max(this.longest, Math.min(d, 20));
    }
    if (!this.live) {
      const count = m.level_db.length;
      for (let i = 0; i < count; i += 4) this.levels.push({ t: m.at + (i / count) * m.length_s, db: m.level_db[i] });
    }
  }

  decision(m) {
    m.t = m.time_s;
    m.begin = m.start_s === null || m.start_s === undefined ? m.time_s : m.start_s;
    insert(this.decisions, m, "t");
    if (m.kind !== "play") return;
    m.why = whyOf(m);
    insert(this.plays, m, "begin");
    for (const n of m.notes) {
      const note = { t: n.onset_s, d: n.duration_s, p: n.pitch, v: n.velocity, drum: n.channel === 9, by: m };
      this.cutBefore(note);
      insert(this.notes, note, "t");
      this.longest = Math.max(this.longest, Math.min(note.d, 20));
    }
  }

  entry(m) {
    m.t = m.at;
    if ("onset" in m) insert(this.onsets, { t: m.onset }, "t");
    else if (m.stage) {
      this.stages.push(m);
      if (CUTS.includes(m.stage)) this.cut(m.at);
    }
    else if (m.change) {
      for (const [name, value] of Object.entries(m.change)) {
        if (!this.changes.has(name)) this.changes.set(name, []);
        insert(this.changes.get(name), { t: m.at, value }, "t");
      }
      if (COURSE.some((name) => name in m.change)) this.wishes.push(m);
    } else if (m.mark !== undefined) this.marks.push({ t: m.at, text: String(m.mark || "") });
    else if (m.lost) insert(this.lost, m, "t");
    else if (m.end) this.end = m.at;
  }

  // What sounds ends here, and what was decided before does not come.
  cut(at) {
    for (let i = after(this.notes, at - this.longest, "t"); i < this.notes.length; i++) {
      const note = this.notes[i];
      if (note.by.t > at) continue;
      if (note.t > at) note.dropped = true;
      else note.d = Math.max(0.01, Math.min(note.d, at - note.t));
    }
  }

  // A page that was opened later hears of a panic before it hears of the notes that it ended.
  cutBefore(note) {
    for (let i = this.stages.length - 1; i >= 0 && this.stages[i].t > note.by.t; i--) {
      const { stage, t } = this.stages[i];
      if (!CUTS.includes(stage)) continue;
      if (note.t > t) note.dropped = true;
      else note.d = Math.max(0.01, Math.min(note.d, t - note.t));
    }
  }

  // Forget what is long past, so that a page that stays open for a night does not grow.
  prune(now) {
    if (now < (this.pruned || 0) + 10) return;
    this.pruned = now;
    for (const name of ["onsets", "heard", "levels", "percepts", "decisions", "plays", "notes", "events", "lost"]) {
      const list = this[name], key = name === "plays" ? "begin" : "t";
      const gone = after(list, now - KEPT_S, key);
      if (gone > 200) list.splice(0, gone);
    }
    for (const name of ["alarms", "stages", "marks"]) if (this[name].length > MOST) this[name].splice(0, this[name].length - MOST);
    for (const list of this.changes.values()) {
      const gone = after(list, now - KEPT_S, "t") - 1; // the last of them still holds
      if (gone > 0) list.splice(0, gone);
    }
  }

  last(list, t, key = "t") {
    const place = after(list, t, key);
    return place ? list[place - 1] : null;
  }

  between(list, from, to, key = "t") {
    return list.slice(after(list, from, key), after(list, to, key));
  }

  setting(name, t) {
    const changed = this.last(this.changes.get(name) || [], t);
    if (changed) return changed.value;
    return this.hello ? this.hello.settings[name] : undefined;
  }

  muted(t) {
    const place = after(this.stages, t, "t");
    for (let i = place - 1; i >= 0; i--) {
      if (this.stages[i].stage === "mute") return true;
      if (this.stages[i].stage === "unmute") return false;
    }
    return false;
  }

  listening(t) {
    for (let i = after(this.stages, t, "t") - 1; i >= 0; i--) {
      if (this.stages[i].stage === "deaf") return false;
      if (this.stages[i].stage === "listen") return true;
    }
    return true;
  }

  // The mode, and who chose it.
  mode(t) {
    const asked = this.setting("mode", t) || (this.hello ? this.hello.mode : "auto");
    const decided = this.last(this.decisions, t);
    const now = (decided && decided.mode) || (asked === "auto" ? "" : asked);
    const section = this.section(t);
    const by = asked !== "auto" ? "you" : section && section.mode ? "form" : "auto";
    return { name: now || asked, by };
  }

  // Where the form is. Live, the engine says so; of a session it follows from what the player asked for.
  course(t) {
    const asked = this.courseAsked(t), place = this.live && this.staged && this.staged.partner.form;
    if (!place) return asked;
    const { held } = place, { paused } = this.staged.partner, section = this.hello.form.sections[place.number - 1];
    let { at } = asked;
    if (section && place.left_s !== null) at = section.end_s - place.left_s + (paused ? 0 : Math.max(0, t - this.staged.at));
    if (section) at = Math.max(section.start_s, Math.min(at, section.end_s - 1e-6));
    return { at, paused, held, end: place.closing || place.has_ended ? this.staged.at : null };
  }

  // It waits while it is paused or held, and jumps to the next section when it is asked to.
  courseAsked(t) {
    let later = 0, stands = null, paused = false, held = false, end = null;
    const place = (now) => (stands === null ? now : stands) - later;
    const go = (at, now) => { stands = paused || held ? now : null; later = now - at; };
    const over = (now, wanted) => (wanted === null || wanted === undefined ? !now : Boolean(wanted));
    for (const { t: now, change } of this.wishes) {
      if (now > t) break;
      const at = place(now);
      if ("pause" in change) paused = over(paused, change.pause);
      if ("hold_section" in change) held = over(held, change.hold_section);
      if ("pause" in change || "hold_section" in change) go(at, now);
      if (change.next_section) {
        const next = this.hello.form.sections.find((s) => s.start_s > at);
        held = false;
        if (next) go(next.start_s + 1e-6, now);
      }
      if (change.end) end = now;
    }
    return { at: place(t), paused, held, end };
  }

  section(t) {
    if (!this.hello) return null;
    const { at } = this.course(t);
    return this.hello.form.sections.find((s) => s.start_s <= at && at < s.end_s) || null;
  }

  // Until when what was played by a time lasts.
  playedUntil(t) {
    let until = -1;
    const end = after(this.plays, t + 0.3, "begin");
    for (let i = Math.max(0, end - 8); i < end; i++) if (this.plays[i].t <= t) until = Math.max(until, this.plays[i].begin + this.plays[i].duration_s);
    return until;
  }

  does(reason) {
    return (this.hello && this.hello.does[reason]) || NOTHING_FITS;
  }

  // What it does at a time, and until when where that is known.
  state(t) {
    const decided = this.last(this.decisions, t);
    if (!decided) return { words: this.hello && this.hello.partner ? "" : this.does("waiting"), until: null, plays: false, decided: null };
    if (this.course(t).paused) return { words: this.does("paused"), until: null, plays: false, decided };
    const played = this.playedUntil(t);
    const between = ["next note", "beat"].includes(decided.rest) && t - played < BETWEEN_S;
    if (decided.kind === "rest" && t >= played && !between) {
      const until = decided.expected_s === null || decided.expected_s === undefined ? null : decided.time_s + decided.expected_s;
      return { words: this.does(decided.rest), until: until > t ? until : null, plays: false, decided };
    }
    const last = this.last(this.plays, t + 0.3, "begin");
    return { words: "plays", until: null, plays: true, decided: last && last.t <= t ? last : this.last(this.plays, t, "t") || decided };
  }

  pulse(t) {
    for (let i = after(this.plays, t + 2, "begin") - 1; i >= 0; i--) {
      const play = this.plays[i];
      if (play.t > t) continue;
      if (t - play.begin > PULSE_TRUSTED_S) return null;
      if (play.pulse && play.tempo_bpm) {
        const period = 60 / play.tempo_bpm;
        return { bpm: play.tempo_bpm, period, beat: play.begin - play.pulse.got * period, source: play.pulse.source,
          confidence: play.pulse.confidence, at: play.begin };
      }
      if (play.free) return null;
    }
    return null;
  }

  // What memory would go on with, after the last choice: a guess, not a plan.
  likely(t, ahead) {
    const decided = this.last(this.plays, t + 0.3, "begin");
    if (!decided || !this.memory || decided.live || decided.recording === null) return [];
    const end = decided.begin + decided.duration_s;
    if (end < t - 0.5) return [];
    const list = this.memory.by[decided.recording] || [];
    const from = decided.source_start_s + decided.duration_s / (decided.stretch || 1);
    const moved = decided.transposition + 12 * decided.octaves, stretch = decided.stretch || 1;
    const found = [];
    for (let i = after(list, from - 0.02, "t"); i < list.length && found.length < 120; i++) {
      const at = end + (list[i].t - from) * stretch;
      if (at > t + ahead) break;
      found.push({ t: at, d: list[i].d * stretch, p: list[i].p + moved, v: 70 });
    }
    return found;
  }

  recording(number, live) {
    if (live) return "your own phrase";
    const known = this.hello && this.hello.recordings[number];
    return known ? known.name : `recording ${number + 1}`;
  }

  alarm(t) {
    const latest = this.last(this.alarms, t);
    return latest && latest.event === "raised" ? latest : null;
  }

  get duration() {
    return (this.hello && this.hello.duration_s) || this.end || 0;
  }
}

function ordered(memory) {
  memory.by = memory.rows.map(() => []);
  for (const [r, t, d, p] of memory.notes) if (memory.by[r]) memory.by[r].push({ t, d, p });
  for (const list of memory.by) list.sort((a, b) => a.t - b.t);
  return memory;
}
