"use strict";
// Every section whose text has changed is exchanged for the server's; focus, open details and scrolling stay.

const PAUSE = 2000; // milliseconds between the end of one look and the next; the server says less often what costs more
const PATIENCE = 30000;
const connection = document.getElementById("connection");
const shown = new Map();
let waiting = 0;

for (const section of document.querySelectorAll("section[id]")) shown.set(section.id, section.innerHTML);

function isBeingRead(section) {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && selection.intersectsNode(section);
}

function focusAgain(section, focused) {
  if (focused === null) return;
  const again = [...section.querySelectorAll("a, summary, [tabindex]")];
  const found = again.find((one) => one.outerHTML === focused.html) ?? again[focused.place];
  if (found) found.focus({ preventScroll: true });
}

function exchange(section, fresh) {
  const within = [...section.querySelectorAll("a, summary, [tabindex]")];
  const place = within.indexOf(document.activeElement);
  const focused = place < 0 ? null : { place, html: within[place].outerHTML };
  const open = new Set([...section.querySelectorAll("details[open]")].map((one) => one.dataset.name));
  const scrolled = [...section.querySelectorAll(".scroll, pre")].map((one) => [one.scrollLeft, one.scrollTop]);
  section.replaceChildren(...fresh.childNodes);
  for (const one of section.querySelectorAll("details")) one.open = one.open || open.has(one.dataset.name);
  [...section.querySelectorAll(".scroll, pre")].forEach((one, at) => {
    if (scrolled[at]) [one.scrollLeft, one.scrollTop] = scrolled[at];
  });
  focusAgain(section, focused);
}

function say(text, lost) {
  connection.textContent = text;
  connection.classList.toggle("lost", lost);
}

async function look() {
  // Not the document's own address: it may hold a login, and no request may be made of such a one.
  const answer = await fetch(location.origin + location.pathname + location.search, {
    cache: "no-cache",
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (answer.status === 401) return say("The login has changed: load this page again.", true);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!page.querySelector("section[id]")) return say(`${page.body.textContent.trim()}`, true);
  document.title = page.title;
  for (const fresh of page.querySelectorAll("section[id]")) {
    const section = document.getElementById(fresh.id);
    const html = fresh.innerHTML;
    if (section && html !== shown.get(fresh.id) && !isBeingRead(section)) {
      shown.set(fresh.id, html);
      exchange(section, fresh);
    }
  }
  return say(`as of ${new Date().toLocaleTimeString()}`, false);
}

async function follow() {
  clearTimeout(waiting);
  if (!document.hidden) {
    try {
      await look();
    } catch {
      say("lhcq does not answer: was the command that shows this page ended?", true);
    }
  }
  clearTimeout(waiting);
  waiting = setTimeout(follow, PAUSE);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) follow(); });
waiting = setTimeout(follow, PAUSE);
