// Small helpers: elements, times, numbers. All text is set as text, never as markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setClass(element, name, on) {
  if (element.classList.contains(name) !== on) element.classList.toggle(name, on);
}

export function clock(seconds, decimals = 0) {
  const whole = Math.max(0, seconds);
  const minutes = Math.floor(whole / 60 + 1e-9);
  const rest = (decimals ? whole - 60 * minutes : Math.floor(whole - 60 * minutes + 1e-9)).toFixed(decimals);
  return `${minutes}:${rest.padStart(decimals ? 3 + decimals : 2, "0")}`;
}

export function round(value, digits = 3) {
  return Number.parseFloat(Number(value).toPrecision(digits)).toString();
}

const NOTES = ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"];
export const noteName = (pitch) => `${NOTES[((pitch % 12) + 12) % 12]}${Math.floor(pitch / 12) - 1}`;
export const pitchClass = (number) => NOTES[number];

// A canvas that is as sharp as the screen; returns its context and its size in CSS pixels.
export function sharp(canvas) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const wide = Math.round(width * ratio), high = Math.round(height * ratio);
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

let colours = null;
export function theme() {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    const names = ["ground", "panel", "ink", "dim", "faint", "line", "player", "now", "good", "warn", "bad",
      "why-like", "why-harmony", "why-rhythm", "why-own", "why-asked", "why-none", "harmonic", "percussive"];
    colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    colours.scale = Number.parseFloat(style.fontSize) / 16; // large on a large screen
    colours.font = style.getPropertyValue("--font").trim();
  }
  return colours;
}
export const forgetTheme = () => { colours = null; };
