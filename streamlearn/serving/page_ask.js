"use strict";
// A box to ask the served model: one sample in, its most probable labels and the version that answered out. A link that ends
// with #ask= and a sample asks it at once.

import { byId, element, foreign, put, share } from "./page_text.js";

const ARRAY = "features";
const LINK = "#ask=";
const OUTPUTS = ["top_labels", "top_probabilities"];

let model = null;
let inputs = null; // as the model's metadata tells them
let coverages = []; // of the sets that are promised

/** Which model is asked, and which sets of labels it promises. */
export function askWith(name, promised) {
  coverages = promised;
  if (name === model) return;
  model = name;
  byId("ask").addEventListener("click", ask);
  byId("example").addEventListener("click", example);
  byId("question").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(); });
  if (location.hash.startsWith(LINK)) {
    byId("question").value = decodeURIComponent(location.hash.slice(LINK.length));
    ask();
  }
}

async function call(path, body) {
  const token = byId("token").value;
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const options = body ? { method: "POST", body: JSON.stringify(body), headers } : { headers };
  const answer = await fetch(`/v2/models/${encodeURIComponent(model)}${path}`, options);
  const told = await answer.json();
  if (answer.status === 401 || answer.status === 403) byId("token-label").hidden = false;
  if (!answer.ok) throw new Error(told.error ?? `status ${answer.status}`);
  return told;
}

async function known() {
  inputs ??= (await call("")).inputs;
  const named = inputs.length !== 1 || inputs[0].name !== ARRAY;
  put("ask-note", named ? "One sample as a JSON object of its columns; a column may be left out" : `One sample as a JSON array of ${inputs[0].shape.slice(1).join(" × ")} numbers`);
  return named;
}

/** The tensors of a sample. Errors: Error, with what was found and expected. */
function tensors(sample, named) {
  if (!named) {
    const data = [sample?.[ARRAY] ?? sample].flat(Infinity);
    const [, ...shape] = inputs[0].shape;
    const expected = shape.reduce((product, side) => product * side, 1);
    if (data.length !== expected || !data.every((value) => typeof value === "number")) {
      throw new Error(`found ${data.length} values, expected ${expected} numbers (${shape.join(" × ")})`);
    }
    return [{ name: ARRAY, datatype: "FP32", shape: [1, ...shape], data }];
  }
  if (typeof sample !== "object" || sample === null || Array.isArray(sample)) throw new Error("expected an object: {column: value}");
  const datatype = (name) => inputs.find((input) => input.name === name)?.datatype ?? "FP32";
  return Object.entries(sample).map(([name, value]) => ({ name, datatype: datatype(name), shape: [1], data: [value] }));
}

async function ask() {
  byId("answer").hidden = true;
  put("answer-set", "");
  put("answer-note", "asking …");
  try {
    const named = await known();
    let sample;
    try {
      sample = JSON.parse(byId("question").value);
    } catch (error) {
      throw new Error(`this is not JSON: ${error.message}`);
    }
    const began = performance.now();
    const asked = { inputs: tensors(sample, named), outputs: OUTPUTS.map((name) => ({ name })) };
    const coverage = coverages.length ? Math.min(...coverages) : null;
    if (coverage !== null) asked.parameters = { sets: coverage };
    const told = await call("/infer", asked);
    answered(told, performance.now() - began, coverage);
  } catch (error) {
    put("answer-note", String(error.message));
  }
}

function answered({ model_version: version, outputs }, took_ms, coverage) {
  const [labels, probabilities] = OUTPUTS.map((name) => outputs.find((output) => output.name === name).data);
  const rows = labels.map((label, i) => {
    const bar = element("div", { class: "bar" });
    bar.style.width = 100 * probabilities[i] + "%";
    return element("tr", {}, element("th", { scope: "row" }, foreign(String(label))), element("td", {}, bar), element("td", { class: "figure" }, share(probabilities[i])));
  });
  byId("answer").tBodies[0].replaceChildren(...rows);
  byId("answer").hidden = false;
  const size = outputs.find(({ name }) => name === "set_sizes")?.data[0];
  const members = outputs.find(({ name }) => name === "set_labels")?.data.slice(0, size) ?? [];
  byId("answer-set").replaceChildren(...(size === undefined ? [] : set(members, coverage)));
  byId("answer-note").replaceChildren("The answer is ", element("b", {}, foreign(String(labels[0]))), `, by version ${version}, in ${took_ms.toFixed(1)} ms.`);
}

/** The set of labels that holds the true one as often as promised. */
function set(labels, coverage) {
  const promise = `The true label is in this set ${share(coverage)} of the time: `;
  if (!labels.length) return [`No label is probable enough for a set of ${share(coverage)}.`];
  return [promise, ...labels.flatMap((label, i) => (i ? [", ", foreign(String(label))] : [foreign(String(label))])), "."];
}

async function example() {
  try {
    const zeros = (shape) => (shape.length ? Array(shape[0]).fill(zeros(shape.slice(1))) : 0);
    const named = await known();
    const empty = named ? Object.fromEntries(inputs.map(({ name, datatype }) => [name, datatype === "BYTES" ? "" : 0])) : zeros(inputs[0].shape.slice(1));
    byId("question").value = JSON.stringify(empty);
  } catch (error) {
    put("answer-note", String(error.message));
  }
}
