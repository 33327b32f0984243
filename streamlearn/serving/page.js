"use strict";
// The page: asks for /status.json once a second and draws it. Whatever came from the stream (labels, places, reasons) is
// written as text, never as markup.

const EVERY_MS = 1000;
const STALE_MS = 5000;
const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { top: 12, right: 12, bottom: 22, left: 46 };
const NAMES = {
  gradient_alignment: "Gradient alignment, new and replayed",
  step_size_mean: "Step size, mean",
  step_size_zero_ratio: "Step sizes at zero",
  update_norm: "Norm of an update",
};

const byId = (id) => document.getElementById(id);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const show = (value, digits) =>
  isNumber(value) ? value.toLocaleString("en", { maximumFractionDigits: digits ?? 0 }) : "–";
const share = (value) => (isNumber(value) ? (100 * value).toFixed(1) + " %" : "–");
const figure = (value) =>
  !isNumber(value) ? "–" : value === 0 || Math.abs(value) >= 0.001 ? Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 }) : value.toExponential(2);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// control characters would hide or turn what stands beside them
const plain = (text) => text.replace(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (c) => "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));
const foreign = (text) => element("bdi", { title: plain(text) }, plain(text));

function put(id, text) {
  const where = byId(id);
  if (where.textContent !== text) where.textContent = text;
}

function badge(id, text, kind) {
  const where = byId(id);
  where.hidden = !text;
  where.className = "badge " + kind;
  where.title = text;
  put(id, text);
}

function ago(time_ms, now_ms) {
  const seconds = Math.max(0, Math.round((now_ms - time_ms) / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 120) return seconds + " s ago";
  if (seconds < 7200) return Math.round(seconds / 60) + " min ago";
  return seconds < 172800 ? Math.round(seconds / 3600) + " h ago" : Math.round(seconds / 86400) + " days ago";
}

function bytes(size) {
  if (!isNumber(size)) return "–";
  const power = Math.min(4, Math.floor(Math.log(Math.max(size, 1)) / Math.log(1000)));
  return show(size / 1000 ** power, power ? 1 : 0) + " " + ["B", "kB", "MB", "GB", "TB"][power];
}

// charts

/** A round step of which at most `most` fit into `span`. */
function roundStep(span, most) {
  const raw = span / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw * 0.999);
}

function ticks(top, most) {
  const step = roundStep(top, most);
  return Array.from({ length: Math.floor(top / step + 1.001) }, (_, i) => i * step);
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

class Chart {
  /** `curves`: [{name, kind, format}]; `top`: fixed upper end, or null for that of the values. */
  constructor(id, title, curves, top = null) {
    this.where = byId(id);
    this.title = title;
    this.curves = curves;
    this.top = top;
    this.times = [];
    this.columns = curves.map(() => []);
    this.marks = [];
    this.svg = drawn("svg", { role: "img", tabindex: "0" });
    this.hint = element("div", { class: "hint", hidden: "" });
    this.where.append(this.svg, this.hint);
    this.at = null;
    this.svg.addEventListener("pointermove", (event) => this.point(event.clientX - this.svg.getBoundingClientRect().left));
    this.svg.addEventListener("pointerleave", () => this.choose(null));
    this.svg.addEventListener("blur", () => this.choose(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.where);
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
    this.y = (value) => height - MARGIN.bottom - (value / top) * (height - MARGIN.top - MARGIN.bottom);
    this.drawGrid(width, height, top, first, span);
    this.drawCurves(height);
    this.drawMarks(height, first, span);
    this.drawCursor(height);
  }

  drawGrid(width, height, top, first, span) {
    for (const value of ticks(top, height > 220 ? 5 : 3)) {
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
      const line = drawn("line", { x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom, class: "mark" });
      line.append(drawn("title", {}, `drift noticed by ${mark.detector} after ${show(mark.learned)} samples`));
      this.svg.append(line, drawn("path", { class: "mark-head", d: `M${x - 4} ${MARGIN.top - 6}h8l-4 7z` }));
    }
  }

  drawCursor(height) {
    this.hint.hidden = this.at === null || this.at >= this.times.length;
    if (this.hint.hidden) return;
    const x = this.x(this.times[this.at]);
    this.svg.append(drawn("line", { x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom, class: "cursor" }));
    const lines = this.curves.map(({ name, format }, i) => `${name}  ${format(this.columns[i][this.at])}`);
    this.hint.textContent = [clockLabel(this.times[this.at], 0), ...lines].join("\n");
    const left = x + 12 + this.hint.offsetWidth > this.where.clientWidth ? x - 12 - this.hint.offsetWidth : x + 12;
    this.hint.style.left = Math.max(0, left) + "px";
  }

  point(x) {
    if (!this.times.length || !this.x) return;
    const gaps = this.times.map((time) => Math.abs(this.x(time) - x));
    this.choose(gaps.indexOf(Math.min(...gaps)));
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.times.length) return;
    event.preventDefault();
    this.choose(Math.min(this.times.length - 1, Math.max(0, (this.at ?? this.times.length) + step)));
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

// tables

function bars(id, rows, most, format) {
  const made = rows.map(([label, value]) => {
    const bar = element("div", { class: "bar" });
    bar.style.width = (most ? 100 * Math.min(1, (value ?? 0) / most) : 0) + "%";
    const name = element("th", { scope: "row" }, foreign(String(label)));
    return element("tr", { class: label === "other" ? "rest" : "" }, name, element("td", {}, bar), element("td", { class: "figure" }, format(value)));
  });
  byId(id).tBodies[0].replaceChildren(...(made.length ? made : [element("tr", {}, element("td", { class: "quiet" }, "nothing yet"))]));
}

function facts(id, rows) {
  const made = rows.map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)));
  byId(id).tBodies[0].replaceChildren(...made);
}

function rejected(rows, now_ms) {
  byId("rejected").hidden = !rows.length;
  byId("rejected-note").hidden = rows.length > 0;
  const made = [...rows].reverse().map(({ time_ms, place, stage, reason }) =>
    element("tr", {}, element("td", {}, ago(time_ms, now_ms)), element("td", {}, foreign(String(place))), element("td", {}, String(stage ?? "")), element("td", {}, foreign(String(reason)))));
  byId("rejected").tBodies[0].replaceChildren(...made);
}

// the whole

const CHARTS = {};

function charts() {
  const ratio = { tick: (value) => Math.round(100 * value) + " %", format: share };
  const count = { tick: (value) => (value >= 10000 ? bytes(value).replace(/ ?B$|(?<=[kMGT])B$/, "") : figure(value)), format: (value) => show(value, 1) };
  CHARTS.accuracy = new Chart("accuracy-chart", "Accuracy over time", [{ name: "windowed", kind: "second", ...ratio }, { name: "fading", kind: "first", ...ratio }], 1);
  CHARTS.throughput = new Chart("throughput-chart", "Throughput", [{ name: "records/s", kind: "first", filled: true, ...count }]);
  CHARTS.lag = new Chart("lag-chart", "Lag", [{ name: "records", kind: "first", filled: true, ...count }]);
}

function render(status, now_ms) {
  const { accuracy = {}, history = {}, drift = [], lag = {}, measures = {}, memory = [], recall = [] } = status;
  const times = history.time_ms ?? [];
  document.title = `${status.name} · streamlearn`;
  put("name", String(status.name));
  put("what", [status.learner, status.model, status.source_type].filter(Boolean).join(" · "));
  renderState(status, now_ms);
  put("accuracy", share(accuracy.accuracy));
  put("accuracy-note", `test, then train · log loss ${figure(accuracy.log_loss)}`);
  put("windowed", share(accuracy.windowed_accuracy));
  put("kappa-note", `kappa ${figure(accuracy.kappa)}`);
  const learned = (history.learned ?? []).findLast(isNumber);
  put("learned", show(learned));
  put("learned-note", `samples, ${show(status.labels)} labels`);
  put("throughput", show(status.records_per_second, status.records_per_second < 10 ? 1 : 0));
  put("lag", show(Object.values(lag).filter(isNumber).reduce((sum, each) => sum + each, 0)));
  put("accuracy-now", share(accuracy.accuracy));
  put("windowed-now", share(accuracy.windowed_accuracy));
  put("drift-count", drift.length ? `${drift.length} ×` : "never");
  CHARTS.accuracy.show(times, [history.windowed ?? [], history.accuracy ?? []], drift);
  CHARTS.throughput.show(times, [history.throughput ?? []]);
  CHARTS.lag.show(times, [history.lag ?? []]);
  const partitions = Object.entries(lag);
  put("lag-partitions", partitions.length > 1 ? partitions.slice(0, 12).map(([name, records]) => `${name} ${show(records)}`).join(" · ") : "Records upstream that were not read yet");
  const kept = memory.reduce((sum, [, rows]) => sum + rows, 0);
  put("memory-note", kept ? `${show(kept)} samples kept, by label` : "Samples kept, by label; this learner keeps none yet");
  bars("memory", memory, Math.max(...memory.map(([, rows]) => rows), 0), (rows) => show(rows));
  bars("recall", recall, 1, share);
  const told = Object.entries(measures);
  facts("measures", told.length ? told.map(([name, value]) => [NAMES[name] ?? name, name.endsWith("_ratio") ? share(value) : figure(value)]) : [["nothing measured yet", ""]]);
  facts("state", stateRows(status, now_ms));
  rejected(status.rejected ?? [], now_ms);
  put("started", `started ${ago(status.started_ms, now_ms)}`);
}

function renderState(status, now_ms) {
  badge("phase", String(status.phase), status.phase === "running" ? "good" : "");
  const source = status.source ?? { ok: true };
  badge("source", source.ok ? "source connected" : `source lost: ${source.message}`, source.ok ? "good" : "bad");
  const silent = now_ms - status.updated_ms > STALE_MS;
  badge("fresh", silent ? `figures of ${ago(status.updated_ms, now_ms)}` : "live", silent ? "bad" : "good");
  put("number", show(status.snapshot?.number));
  put("snapshot-note", status.snapshot ? `snapshot, ${ago(status.snapshot.time_ms, now_ms)}` : "no snapshot yet");
}

function stateRows({ number, snapshot, checkpoint, pending, outcomes = {} }, now_ms) {
  return [
    ["Model now", show(number)],
    ["Snapshot served", snapshot ? `${show(snapshot.number)}, ${ago(snapshot.time_ms, now_ms)}` : "none yet"],
    ["Checkpoint", checkpoint ? `${checkpoint.name ?? checkpoint.number}, ${ago(checkpoint.time_ms, now_ms)}` : "none yet"],
    ["Checkpoint holds model", show(checkpoint?.number)],
    ["Checkpoint size", bytes(checkpoint?.size_bytes)],
    ["Checkpoint took", isNumber(checkpoint?.duration_s) ? figure(checkpoint.duration_s * 1000) + " ms" : "–"],
    ["Waiting for a full chunk", show(pending)],
    ...Object.entries(outcomes).map(([outcome, records]) => [`Records ${outcome}`, show(records)]),
  ];
}

let asked = false;

async function look() {
  if (asked || document.hidden) return;
  asked = true;
  try {
    const answer = await fetch("/status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.json()).error);
    render(await answer.json(), Date.now());
    document.body.dataset.shown = String(Number(document.body.dataset.shown ?? 0) + 1);
  } catch (error) {
    badge("fresh", error instanceof TypeError ? "the server does not answer" : String(error.message), "bad");
  } finally {
    asked = false;
  }
}

charts();
look();
setInterval(look, EVERY_MS);
document.addEventListener("visibilitychange", look);
