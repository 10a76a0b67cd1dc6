/* Keeps the open page up to date: the server says that something has changed, the page is read again, and
   the parts that differ are exchanged. A hidden page listens to nothing. Without this script every page
   works; it only has to be loaded again by hand. */
"use strict";
(() => {
  const topic = document.body.dataset.topic;
  const said = document.getElementById("live-state");
  if (!topic || !window.EventSource) return;
  const least = 2000;
  let source = null, timer = null, read = Date.now(), held = false;

  const say = (text) => { if (said && said.textContent !== text) said.textContent = text; };

  const keepOpen = (from, to) => {
    const open = [...from.querySelectorAll("details")].map((item) => item.open);
    [...to.querySelectorAll("details")].forEach((item, index) => { if (open[index]) item.open = true; });
  };

  /* what was marked or typed and not sent yet; hidden fields hold nothing of a person's */
  const entered = (part) => [...part.querySelectorAll("input:not([type=hidden]), textarea, select")].filter(
    (item) => item.type === "select-one"
      ? item.selectedIndex !== Math.max(0, [...item.options].findIndex((one) => one.defaultSelected))
      : item.checked !== item.defaultChecked || item.value !== item.defaultValue);

  const putBack = (part, items) => {
    const fields = [...part.querySelectorAll("input, textarea, select")];
    for (const item of items) {
      const box = item.type === "checkbox";
      const same = fields.find((one) => one.id === item.id && one.name === item.name && (!box || one.value === item.value));
      if (!same) continue;
      if (box) { same.checked = item.checked; continue; }
      /* an option that is there no more would leave nothing chosen */
      if (same.type === "select-one" && ![...same.options].some((one) => one.value === item.value)) continue;
      same.value = item.value;
    }
  };

  /* sections come and go with what there is to show */
  const comeAndGo = (page) => {
    const here = document.getElementById("sections"), there = page.getElementById("sections");
    if (!here || !there) return;
    for (const part of [...here.children]) if (!page.getElementById(part.id)) part.remove();
    let before = null;
    for (const part of there.children) {
      let own = document.getElementById(part.id);
      if (!own) {
        own = document.importNode(part, true);
        if (before) before.after(own); else here.prepend(own);
      }
      before = own;
    }
  };

  const exchange = (page) => {
    comeAndGo(page);
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = page.getElementById(part.id);
      if (!other) continue;
      const focus = document.activeElement;
      /* what is being used is left alone until the next change */
      if (focus && focus !== document.body && part.contains(focus)) continue;
      keepOpen(part, other);
      if (part.innerHTML === other.innerHTML) continue;
      const kept = entered(part);
      part.innerHTML = other.innerHTML;
      putBack(part, kept);
    }
    document.title = page.title;
    document.body.dataset.mark = page.body.dataset.mark;
  };

  const refresh = async () => {
    timer = null;
    /* a button that is exchanged while it is pressed would lose the click */
    if (held) { later(); return; }
    read = Date.now();
    try {
      const answer = await fetch(window.location.href, { headers: { "X-Live": "1" } });
      if (!answer.ok) { say("This is gone or cannot be read any more."); return; }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const before = document.body.dataset.state;
      if (held) { later(); return; }
      exchange(page);
      if (page.body.dataset.state !== before) {
        document.body.dataset.state = page.body.dataset.state;
        say(page.body.dataset.state ? `State: ${page.body.dataset.state}` : "");
      }
      const next = page.body.dataset.goes;
      if (next) window.location.assign(next);
    } catch (error) {
      say("The server does not answer; the page shows what was known last.");
    }
  };

  const later = () => {
    /* many pages of one job do not ask in the same moment */
    const wait = Math.max(0, read + least - Date.now()) + Math.random() * 500;
    if (timer === null) timer = window.setTimeout(refresh, wait);
  };

  const listen = () => {
    if (source || document.hidden) return;
    const seen = document.body.dataset.mark || "";
    source = new EventSource(`/events?of=${encodeURIComponent(topic)}&seen=${encodeURIComponent(seen)}`);
    source.onmessage = later;
    source.onopen = () => say("live");
    source.onerror = () => say("The server does not answer; the page shows what was known last.");
  };

  const hush = () => { if (source) { source.close(); source = null; } };

  document.addEventListener("pointerdown", () => { held = true; }, true);
  for (const end of ["pointerup", "pointercancel", "dragend"]) {
    document.addEventListener(end, () => { window.setTimeout(() => { held = false; }, 0); }, true);
  }
  document.addEventListener("visibilitychange", () => { if (document.hidden) hush(); else listen(); });
  window.addEventListener("pagehide", hush);
  window.addEventListener("pageshow", listen);
  listen();
})();
