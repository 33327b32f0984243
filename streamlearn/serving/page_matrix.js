"use strict";
// The accuracy matrix by era as a heat map: a table, so that it can be read without colours too.

import { byId, element, isNumber, share } from "./page_text.js";

const DARK = 55; // per cent of colour from which the ground is dark enough for light figures
const STEEP = 4; // what is nearly right shows its differences too

/** `rows`: accuracy by era, one row for each era's end and the newest test last. */
export function matrix(id, rows, eraRecords) {
  const table = byId(id);
  const ends = (i) => ((i + 1) * eraRecords).toLocaleString("en", { notation: "compact" });
  const widest = Math.max(0, ...rows.map((row) => row.length));
  const heads = Array.from({ length: widest }, (_, era) => element("th", { scope: "col" }, ends(era)));
  table.tHead.replaceChildren(element("tr", {}, element("th", { scope: "col" }, "after \\ era to"), ...heads));
  const made = rows.map((row, i) => {
    const name = i === rows.length - 1 ? "now" : ends(i);
    return element("tr", {}, element("th", { scope: "row" }, name), ...row.map(cell));
  });
  table.tBodies[0].replaceChildren(...made);
}

function cell(value) {
  const colour = isNumber(value) ? 100 * value ** STEEP : 0;
  const made = element("td", { class: colour > DARK ? "full" : "", title: share(value) });
  made.style.setProperty("--colour", colour.toFixed(1));
  made.append(isNumber(value) ? (100 * value).toFixed(0) : "–");
  return made;
}
