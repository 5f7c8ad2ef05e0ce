// What is marked with data-live="<seconds>" renews itself from the same page; without this script pages stand still.
"use strict";

let paused = false;

function fragment() {
  const url = new URL(location.href);
  url.searchParams.set("fragment", "1");
  return url;
}

// Not while someone works in it, and what was opened stays open.
function busy(part) {
  return paused || document.hidden || part.contains(document.activeElement) || part.querySelector("details[open]");
}

async function renew(part) {
  if (busy(part)) return;
  const answer = await fetch(fragment(), { redirect: "manual" });
  if (!answer.ok) {
    if (answer.type === "opaqueredirect") location.reload();
    return;
  }
  const text = await answer.text();
  if (!busy(part)) part.innerHTML = text;
}

function pausing(button) {
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? button.dataset.off : button.dataset.on;
  });
}

for (const part of document.querySelectorAll("[data-live]")) {
  setInterval(() => renew(part).catch(() => {}), Number(part.dataset.live) * 1000);
}
document.querySelectorAll("[data-pause]").forEach(pausing);
