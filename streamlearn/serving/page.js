"use strict";
// The page: asks for /status.json once a second and draws it.

import { askWith } from "./page_ask.js";
import { Chart } from "./page_chart.js";
import { drifts } from "./page_drift.js";
import { matrix } from "./page_matrix.js";
import { ago, badge, byId, bytes, element, figure, foreign, isNumber, points, put, share, show } from "./page_text.js";

const EVERY_MS = 1000;
const STALE_MS = 5000;
const NAMES = {
  gradient_alignment: "Gradient alignment, new and replayed",
  gradient_alignment_age_chunks: "Chunks since it was measured",
  step_size_mean: "Step size, mean",
  step_size_zero_ratio: "Step sizes at zero",
  update_norm: "Norm of an update",
  answered_from_past_ratio: "Answered from the past",
};
const MEMBER = "member_weight/";

// tables

/** `about`: what to say of a row beside its figure, if anything is to be said of any. */
function bars(id, rows, most, format, about = null) {
  const made = rows.map(([label, value, ...others]) => {
    const bar = element("div", { class: "bar" });
    bar.style.width = (most ? 100 * Math.max(0, Math.min(1, (value ?? 0) / most)) : 0) + "%";
    const name = element("th", { scope: "row" }, foreign(String(label)));
    const beside = about ? [element("td", { class: "about quiet" }, about(value, ...others))] : [];
    return element("tr", { class: label === "other" ? "rest" : "" }, name, element("td", {}, bar), element("td", { class: "figure" }, format(value)), ...beside);
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
  CHARTS.accuracy = new Chart("accuracy-chart", "Accuracy over time", [{ name: "windowed", kind: "second", ...ratio }, { name: "fading", kind: "first", ...ratio }], { top: 1 });
  CHARTS.throughput = new Chart("throughput-chart", "Throughput", [{ name: "records/s", kind: "first", filled: true, ...count }]);
  CHARTS.lag = new Chart("lag-chart", "Lag", [{ name: "records", kind: "first", filled: true, ...count }]);
  const plain = { tick: figure, format: figure };
  const cosine = { name: "gradient alignment", kind: "first", tick: (value) => value.toFixed(1), format: figure };
  CHARTS.steps = new Chart("steps-chart", "Step sizes, mean", [{ name: "mean", kind: "first", filled: true, ...plain }]);
  CHARTS.signs = new Chart("signs-chart", "Signs of trouble", [cosine, { name: "step sizes at zero", kind: "second", format: share }], { top: 1, bottom: -1 });
}

function render(status, now_ms) {
  const { accuracy = {}, history = {}, drift = [], lag = {}, measures = {}, memory = [], recall = [], sets = [] } = status;
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
  const ofInputs = drift.filter(({ on }) => on === "inputs").length;
  put("drift-count", drift.length - ofInputs ? `${drift.length - ofInputs} ×` : "never");
  put("input-drift-count", ofInputs ? `${ofInputs} ×` : "never");
  drifts(drift, now_ms);
  renderAlerts(status);
  CHARTS.accuracy.show(times, [history.windowed ?? [], history.accuracy ?? []], drift);
  CHARTS.throughput.show(times, [history.throughput ?? []]);
  CHARTS.lag.show(times, [history.lag ?? []]);
  renderLearning(times, history, drift);
  renderKnown(status);
  renderVisits(status);
  askWith(String(status.name), sets.map(([coverage]) => coverage));
  byId("sets-card").hidden = !sets.some(([, held]) => isNumber(held));
  facts("sets", sets.map(([coverage, held, size]) => [`promised ${share(coverage)}`, `held ${share(held)} · ${isNumber(size) ? size.toFixed(2) : "–"} labels`]));
  const partitions = Object.entries(lag);
  put("lag-partitions", partitions.length > 1 ? partitions.slice(0, 12).map(([name, records]) => `${name} ${show(records)}`).join(" · ") : "Records upstream that were not read yet");
  const kept = memory.reduce((sum, [, rows]) => sum + rows, 0);
  put("memory-note", kept ? `${show(kept)} samples kept, by label` : "Samples kept, by label; this learner keeps none yet");
  bars("memory", memory, Math.max(...memory.map(([, rows]) => rows), 0), (rows) => show(rows));
  bars("recall", recall, 1, share);
  const members = Object.entries(measures).filter(([name]) => name.startsWith(MEMBER)).map(([name, weight]) => [name.slice(MEMBER.length), weight]);
  byId("members-card").hidden = !members.length;
  bars("members", members.sort(([, a], [, b]) => b - a), Math.max(...members.map(([, weight]) => weight), 0), (weight) => (isNumber(weight) ? weight.toFixed(2) : "–"));
  const told = Object.entries(measures).filter(([name]) => !name.startsWith(MEMBER));
  facts("measures", told.length ? told.map(([name, value]) => [NAMES[name] ?? name, name.endsWith("_ratio") ? share(value) : figure(value)]) : [["nothing measured yet", ""]]);
  facts("state", stateRows(status, now_ms));
  rejected(status.rejected ?? [], now_ms);
  put("started", `started ${ago(status.started_ms, now_ms)}`);
}

function renderLearning(times, history, drift) {
  const [steps, zero, alignment] = ["step_size_mean", "step_size_zero_ratio", "gradient_alignment"].map((name) => history[name] ?? []);
  byId("steps-card").hidden = !steps.some(isNumber);
  byId("signs-card").hidden = ![...zero, ...alignment].some(isNumber);
  CHARTS.steps.show(times, [steps]);
  CHARTS.signs.show(times, [alignment, zero], drift);
}

function renderKnown({ eras = {}, probe = {}, classes = [] }) {
  const known = isNumber(probe["retention/auto"]);
  byId("known-card").hidden = byId("classes-card").hidden = !known;
  if (!known) return;
  const figures = [["retention", "retention"], ["forgetting", "forgetting"], ["backward transfer", "backward_transfer"]];
  const told = figures.map(([name, key]) => `${name} ${share(probe[`${key}/auto`])}`);
  put("known-note", [...told, `tested on ${show(probe.rows)} records that are never trained on`].join(" · "));
  matrix("known", eras);
  bars("classes", classes, 1, share, fallen);
}

/** How far a label is below its best, and when that was. */
function fallen(value, best, at) {
  if (!isNumber(best) || !isNumber(value) || best - value < 0.005) return "";
  return `was ${share(best)} after ${show(at)}, ${points(value - best)}`;
}

function renderVisits({ contexts = {} }) {
  byId("visits-card").hidden = !contexts.contexts;
  const took = (records) => (isNumber(records) ? `${show(records)} records` : "not known yet");
  const { forward_transfer: forward } = contexts;
  facts("visits", [
    ["Contexts met", show(contexts.contexts)],
    ["Visits", `${show(contexts.visits)}, of which ${show(contexts.given_up)} ended too soon`],
    ["Newest return: to nine tenths of its own best", took(contexts.regained)],
    ["Newest new one: to nine tenths of the best of all", took(contexts.reached)],
    ["Carried over to new ones", isNumber(forward) ? points(forward) : "not known yet"],
  ]);
}

function renderAlerts({ alerts = {}, faster = 1, kept = [] }) {
  const alarmed = Object.keys(alerts).filter((signal) => alerts[signal]);
  badge("alert", alarmed.length ? `drift of the ${alarmed.join(" and the ")}` : "", "bad");
  const told = [faster > 1 ? `step sizes are ${figure(faster)} times what they were` : "", kept.length ? `kept for it: ${kept.map((name) => `checkpoint ${name}`).join(", ")}` : ""];
  put("drift-note", told.filter(Boolean).join(" · ") || "What moved most at each detection, newest first");
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
