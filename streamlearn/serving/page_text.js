"use strict";
// Words and elements of the page. Whatever came from the stream is written as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);
export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
export const show = (value, digits) =>
  isNumber(value) ? value.toLocaleString("en", { maximumFractionDigits: digits ?? 0 }) : "–";
export const share = (value) => (isNumber(value) ? (100 * value).toFixed(1) + " %" : "–");
export const signed = (value, text) => (value > 0 ? "+" : value < 0 ? "−" : "") + text;
export const points = (value) => signed(value, `${(100 * Math.abs(value)).toFixed(0)} points`);
export const figure = (value) =>
  !isNumber(value) ? "–" : value === 0 || Math.abs(value) >= 0.001 ? Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 }) : value.toExponential(2);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// control characters would hide or turn what stands beside them
export const plain = (text) => text.replace(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (c) => "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));
export const foreign = (text) => element("bdi", { title: plain(text) }, plain(text));

export function put(id, text) {
  const where = byId(id);
  if (where.textContent !== text) where.textContent = text;
}

export function badge(id, text, kind) {
  const where = byId(id);
  where.hidden = !text;
  where.className = "badge " + kind;
  where.title = text;
  put(id, text);
}

export function ago(time_ms, now_ms) {
  const seconds = Math.max(0, Math.round((now_ms - time_ms) / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 120) return seconds + " s ago";
  if (seconds < 7200) return Math.round(seconds / 60) + " min ago";
  return seconds < 172800 ? Math.round(seconds / 3600) + " h ago" : Math.round(seconds / 86400) + " days ago";
}

export function bytes(size) {
  if (!isNumber(size)) return "–";
  const power = Math.min(4, Math.floor(Math.log(Math.max(size, 1)) / Math.log(1000)));
  return show(size / 1000 ** power, power ? 1 : 0) + " " + ["B", "kB", "MB", "GB", "TB"][power];
}
