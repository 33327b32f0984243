"use strict";
// Curves over time, drawn anew whenever the figures or the width change; read by pointer, by arrow keys and by screen readers.

import { sentence } from "./page_drift.js";
import { byId, drawn, element, isNumber } from "./page_text.js";

const MARGIN = { top: 12, right: 12, bottom: 22, left: 46 };

/** A round step of which at most `most` fit into `span`. */
function roundStep(span, most) {
  const raw = span / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw * 0.999);
}

function ticks(bottom, top, most) {
  const step = roundStep(top - bottom, most);
  const first = Math.ceil(bottom / step - 0.001);
  return Array.from({ length: Math.floor(top / step + 0.001) - first + 1 }, (_, i) => (first + i) * step);
}

function clockLabel(time_ms, span_ms) {
  const time = new Date(time_ms);
  if (span_ms > 2 * 86400e3) return time.toLocaleDateString("en", { month: "short", day: "numeric" });
  const seconds = span_ms < 600e3 ? { second: "2-digit" } : {};
  return time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...seconds });
}

/** Pieces of a curve, cut where a value is missing or the process stood still. */
function pieces(times, values, x, y) {
  const steps = times.slice(1).map((time, i) => time - times[i]).sort((a, b) => a - b);
  const longest = 10 * (steps[steps.length >> 1] || 1);
  const found = [];
  let open = false;
  values.forEach((value, i) => {
    if (!isNumber(value)) { open = false; return; }
    if (!open || times[i] - times[i - 1] > longest) found.push([]);
    found[found.length - 1].push([x(times[i]), y(value)]);
    open = true;
  });
  return found;
}

const path = (points) => points.map(([x, y], i) => (i ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1)).join("");

export class Chart {
  /** `curves`: [{name, kind, tick, format}]; `top`: fixed upper end, or null for that of the values. */
  constructor(id, title, curves, { top = null, bottom = 0 } = {}) {
    this.where = byId(id);
    this.title = title;
    this.curves = curves;
    this.top = top;
    this.bottom = bottom;
    this.times = [];
    this.columns = curves.map(() => []);
    this.marks = [];
    this.svg = drawn("svg", { role: "img", tabindex: "0" });
    this.hint = element("div", { class: "hint", role: "status" }); // stays in the tree, empty, so that what it comes to say is read out
    this.where.append(this.svg, this.hint);
    this.at = null;
    this.svg.addEventListener("pointermove", (event) => this.point(event.clientX - this.svg.getBoundingClientRect().left));
    this.svg.addEventListener("pointerleave", () => this.choose(null));
    this.svg.addEventListener("blur", () => this.choose(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.where);
    this.draw();
  }

  show(times, columns, marks = []) {
    this.times = times;
    this.columns = columns;
    this.marks = marks;
    this.draw();
  }

  draw() {
    const width = this.where.clientWidth, height = this.where.clientHeight;
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", this.summary());
    const known = this.columns.flat().filter(isNumber);
    if (width < 80 || !known.length) {
      this.svg.append(drawn("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "empty" }, "nothing measured yet"));
      return;
    }
    const first = this.times[0], span = Math.max(1, this.times[this.times.length - 1] - first);
    const top = this.top ?? (Math.max(...known) * 1.08 || 1);
    this.x = (time) => MARGIN.left + ((time - first) / span) * (width - MARGIN.left - MARGIN.right);
    this.y = (value) => height - MARGIN.bottom - ((value - this.bottom) / (top - this.bottom)) * (height - MARGIN.top - MARGIN.bottom);
    this.drawGrid(width, height, top, first, span);
    this.drawCurves(height);
    this.drawMarks(height, first, span);
    this.drawCursor(height);
  }

  drawGrid(width, height, top, first, span) {
    for (const value of ticks(this.bottom, top, height > 220 ? 5 : 4)) {
      const y = this.y(value);
      this.svg.append(drawn("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y, class: value ? "grid" : "axis" }));
      this.svg.append(drawn("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, this.curves[0].tick(value)));
    }
    const count = Math.max(2, Math.min(6, Math.floor(width / 130)));
    for (let i = 0; i < count; i++) {
      const time = first + (span * i) / (count - 1);
      const anchor = i === 0 ? "start" : i === count - 1 ? "end" : "middle";
      this.svg.append(drawn("text", { x: this.x(time), y: height - 5, "text-anchor": anchor }, clockLabel(time, span)));
    }
  }

  drawCurves(height) {
    this.curves.forEach(({ kind, filled }, i) => {
      for (const points of pieces(this.times, this.columns[i], this.x, this.y)) {
        const d = points.length > 1 ? path(points) : path(points) + "h0.1";
        if (filled) {
          const [start, end] = [points[0][0], points[points.length - 1][0]];
          this.svg.append(drawn("path", { class: "area", d: `${path(points)}L${end} ${height - MARGIN.bottom}L${start} ${height - MARGIN.bottom}Z` }));
        }
        this.svg.append(drawn("path", { class: "curve " + kind, d }));
      }
    });
  }

  drawMarks(height, first, span) {
    for (const mark of this.marks) {
      if (!isNumber(mark.time_ms) || mark.time_ms < first || mark.time_ms > first + span) continue;
      const x = this.x(mark.time_ms);
      const kind = mark.on === "inputs" ? " inputs" : "";
      const line = drawn("line", { x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom, class: "mark" + kind });
      line.append(drawn("title", {}, sentence(mark)));
      const head = drawn("path", { class: "mark-head" + kind, d: `M${x - 4} ${MARGIN.top - 6}h8l-4 7z` });
      head.append(drawn("title", {}, sentence(mark)));
      this.svg.append(line, head);
    }
  }

  drawCursor(height) {
    if (this.at === null || this.at >= this.times.length) return this.tell("");
    const x = this.x(this.times[this.at]);
    this.svg.append(drawn("line", { x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom, class: "cursor" }));
    const lines = this.curves.map(({ name, format }, i) => `${name}  ${format(this.columns[i][this.at])}`);
    lines.push(...this.near().map(sentence));
    this.tell([clockLabel(this.times[this.at], 0), ...lines].join("\n"));
    const left = x + 12 + this.hint.offsetWidth > this.where.clientWidth ? x - 12 - this.hint.offsetWidth : x + 12;
    this.hint.style.left = Math.max(0, left) + "px";
  }

  /** Into the hint; the same words once more are not read out. */
  tell(text) {
    if (this.hint.textContent !== text) this.hint.textContent = text;
  }

  /** Marks nearer to the chosen point than to the ones beside it. */
  near() {
    const [before, at, after] = [-1, 0, 1].map((step) => this.times[this.at + step] ?? this.times[this.at]);
    return this.marks.filter(({ time_ms }) => time_ms > (before + at) / 2 - 1 && time_ms <= (at + after) / 2);
  }

  point(x) {
    if (!this.times.length || !this.x) return;
    const gaps = this.times.map((time) => Math.abs(this.x(time) - x));
    this.choose(gaps.indexOf(Math.min(...gaps)));
  }

  key(event) {
    const last = this.times.length - 1, at = this.at ?? last + 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.choose(Math.min(last, Math.max(0, to)));
  }

  choose(at) {
    this.at = at;
    this.draw();
  }

  summary() {
    const last = this.curves.map(({ name, format }, i) => `${name} ${format(this.columns[i].findLast(isNumber))}`);
    return `${this.title}; now ${last.join(", ")}${this.marks.length ? `; drift noticed ${this.marks.length} times` : ""}`;
  }
}
