// Live parts ([data-live="<seconds>"]) refresh from their own page; without this script pages stand still.
"use strict";

let paused = false;
let pointing = false;

function fragment(part) {
  const url = new URL(location.href);
  for (const [name, value] of new URLSearchParams(part.dataset.query || "")) url.searchParams.set(name, value);
  url.searchParams.set("fragment", "1");
  return url;
}

// Not while someone works in it, and what was opened stays open.
function busy(part) {
  const active = part.contains(document.activeElement) || part.querySelector("details[open]");
  return paused || pointing || document.hidden || active;
}

async function renew(part) {
  if (busy(part)) return;
  const answer = await fetch(fragment(part), { redirect: "manual" });
  if (!answer.ok) {
    if (answer.type === "opaqueredirect") location.reload();
    return;
  }
  const text = await answer.text();
  if (busy(part)) return;
  part.innerHTML = text;
  prepare(part);
}

function pausing(button) {
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? button.dataset.off : button.dataset.on;
  });
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea"); // plain HTTP has no clipboard of its own
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

function copying(button) {
  const word = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await copy(button.dataset.copy);
    button.textContent = button.dataset.done;
    setTimeout(() => { button.textContent = word; }, 2000);
  });
}

// The values under the pointer, in words below the chart.
function plotting(svg) {
  const plot = JSON.parse(svg.dataset.plot);
  const figure = svg.closest("figure");
  const readout = figure.querySelector("[data-readout]");
  const labels = [...figure.querySelectorAll(".key")].map((key) => key.textContent);
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  svg.addEventListener("pointermove", (event) => {
    if (!plot.x.length) return;
    pointing = true;
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const near = plot.x.reduce((best, at, number) => (Math.abs(at - x) < Math.abs(plot.x[best] - x) ? number : best), 0);
    cursor.setAttribute("d", `M${plot.x[near]} 12V164`);
    const values = labels.map((label, number) => `${label} ${plot.values[number][near] ?? "–"}`);
    readout.textContent = `${plot.at[near]} · ${values.join(" · ")}`;
  });
  svg.addEventListener("pointerleave", () => {
    pointing = false;
    cursor.removeAttribute("d");
    readout.textContent = "\u00a0";
  });
}

function prepare(part) {
  part.querySelectorAll("[data-copy]").forEach(copying);
  part.querySelectorAll("[data-plot]").forEach(plotting);
}

document.addEventListener("keydown", (event) => {
  const field = document.querySelector("[data-find]");
  const typing = event.target.closest("input, textarea, select");
  const wanted = (event.key === "/" && !typing) || (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey));
  if (!field || !wanted) return;
  event.preventDefault();
  field.focus();
  field.select();
});

for (const part of document.querySelectorAll("[data-live]")) {
  setInterval(() => renew(part).catch(() => {}), Number(part.dataset.live) * 1000);
}
document.querySelectorAll("[data-pause]").forEach(pausing);
prepare(document);
