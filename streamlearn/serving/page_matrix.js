"use strict";
// The accuracy matrix by era as a heat map: a table, so that it can be read without colours too.

import { byId, element, isNumber, share } from "./page_text.js";

const STEEP = 4; // what is nearly right shows its differences too

/** `rows`: accuracy by era, one row for each era's end and the newest test last; `bestAt`: records at each era's best. */
export function matrix(id, { matrix: rows = [], era_records: eraRecords, best_at: bestAt = [] }) {
  const table = byId(id);
  const ends = (i) => ((i + 1) * eraRecords).toLocaleString("en", { notation: "compact" });
  const widest = Math.max(0, ...rows.map((row) => row.length));
  const heads = Array.from({ length: widest }, (_, era) => element("th", { scope: "col" }, ends(era)));
  table.tHead.replaceChildren(element("tr", {}, element("th", { scope: "col" }, "after \\ era to"), ...heads));
  const made = rows.map((row, i) => {
    const name = i === rows.length - 1 ? "now" : ends(i);
    const isBest = (era) => i < rows.length - 1 && bestAt[era] === (i + 1) * eraRecords;
    return element("tr", {}, element("th", { scope: "row" }, name), ...row.map((value, era) => cell(value, isBest(era))));
  });
  table.tBodies[0].replaceChildren(...made);
}

function cell(value, isBest) {
  const colour = isNumber(value) ? 100 * value ** STEEP : 0;
  const made = element("td", { class: isBest ? "best" : "", title: share(value) + (isBest ? ", the best of this era" : "") });
  made.style.setProperty("--colour", colour.toFixed(1));
  made.append(isNumber(value) ? (100 * value).toFixed(0) : "–", ...(isBest ? [element("span", { class: "unseen" }, " best")] : []));
  return made;
}
