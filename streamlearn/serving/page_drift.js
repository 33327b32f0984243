"use strict";
// What was noticed of drift: words for a mark, and the newest ones as a table.

import { ago, byId, element, foreign, isNumber, plain, points, share, show, signed } from "./page_text.js";

const MOST = 8; // detections shown
const NAMED = 3; // of what moved

const number = (value) => (isNumber(value) ? value.toLocaleString("en", { maximumSignificantDigits: 3 }) : "–");

/** How far a class or a feature moved: points of its error, or its standard deviations. */
export function distance({ on }, { size }) {
  const deviations = Math.abs(size) < 100 ? `${Math.abs(size).toFixed(1)} σ` : "100 σ and more"; // what stood still has no deviation
  return on === "inputs" ? signed(size, deviations) : points(size);
}

/** A mark in one sentence, for who hears it or holds the pointer over it. */
export function sentence(mark) {
  const told = (mark.moved ?? []).slice(0, NAMED).map((each) => `${plain(String(each.name))} ${distance(mark, each)}`);
  const what = mark.on ? `drift of the ${mark.on}` : "drift";
  return `${what} noticed by ${mark.detector} after ${show(mark.learned)} samples${told.length ? `: ${told.join("; ")}` : ""}`;
}

function fromTo(mark, { before, now }) {
  if (mark.on === "inputs") return ` (${number(before)} → ${number(now)})`;
  return isNumber(before) ? ` (${share(before)} wrong → ${share(now)})` : ` (new, ${share(now)} wrong)`;
}

function moved(mark) {
  const cell = element("td");
  (mark.moved ?? []).slice(0, NAMED).forEach((each, i) => {
    const about = element("span", { class: "quiet" }, fromTo(mark, each));
    cell.append(i ? "; " : "", foreign(String(each.name)), ` ${distance(mark, each)}`, about);
  });
  if (!cell.childNodes.length) cell.append("–");
  return cell;
}

/** The newest marks, newest first. */
export function drifts(marks, now_ms) {
  byId("drift-card").hidden = !marks.length;
  const made = marks.slice(-MOST).reverse().map((mark) =>
    element("tr", {}, element("td", {}, ago(mark.time_ms, now_ms)), element("td", {}, show(mark.learned)), element("td", {}, String(mark.on ?? "error")), element("td", {}, String(mark.detector)), moved(mark)));
  byId("drifts").tBodies[0].replaceChildren(...made);
}
