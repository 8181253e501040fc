"use strict";
// Comforts only: the page is complete without this script.  Names from the model are read and written as text, never
// as markup.
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // -- theme
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("graphlens-theme", root.dataset.theme); } catch { /* private windows keep no theme */ }
  });

  // -- deep links: open what a link points into
  const reveal = (hash = location.hash) => {
    let target = null;
    try { target = byId(decodeURIComponent(hash.slice(1))); } catch { return; }
    if (!target) return;
    const row = target.closest("#op-table tr");
    if (row && row.hidden) { filter.value = ""; applyFilter(); }
    for (let node = target; node; node = node.parentElement) if (node.localName === "details") node.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", () => reveal());
  // In the frame of a notebook a link is resolved against the notebook, which would take the report's place.
  if (location.protocol === "about:") addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (!link) return;
    event.preventDefault();
    reveal(link.getAttribute("href"));
  });

  // -- findings: open and close all
  const toggle = byId("toggle-findings");
  if (toggle) toggle.addEventListener("click", () => {
    const open = toggle.getAttribute("aria-expanded") !== "true";
    all(".finding").forEach((finding) => { finding.open = open; });
    toggle.setAttribute("aria-expanded", String(open));
    toggle.textContent = open ? "Close all" : "Open all";
  });

  // -- printing shows everything, and closes it again
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));

  // -- snippets: copy, or select where the browser gives no clipboard
  all(".copy").forEach((button) => button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {
      getSelection().selectAllChildren(code);
    }
  }));

  // -- op table: filter
  const table = byId("op-table");
  const filter = byId("filter");
  const rows = table ? [...table.tBodies[0].rows] : [];
  const scope = (table && table.dataset.scope.toLowerCase()) || "\u0000";
  // A row of a layer is found by its text, and by `layer:` and the path of its layer.
  const texts = rows.map((row) => `${row.textContent}${row.dataset.layer ? ` layer:${row.dataset.layer} ` : ""}`.toLowerCase());
  const applyFilter = () => {
    // Names leave out the scope that they share; a whole name that was pasted must still be found.
    const words = filter.value.toLowerCase().replaceAll(scope, "").split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !words.every((word) => texts[index].includes(word));
      shown += !row.hidden;
    });
    byId("filter-count").textContent = words.length ? `${shown} of ${rows.length}` : "";
  };
  if (filter) filter.addEventListener("input", applyFilter);

  all("a[data-filter]").forEach((link) => link.addEventListener("click", () => {
    filter.value = link.dataset.filter;
    applyFilter();
  }));

  // -- timeline: wider, with what is in the middle kept there
  all(".zoom button").forEach((button) => button.addEventListener("click", () => {
    const frame = byId("timeline-frame");
    const threads = frame.firstElementChild;
    const before = Number(threads.dataset.zoom);
    const zoom = Math.min(16, Math.max(1, before * Number(button.dataset.zoom)));
    const middle = (frame.scrollLeft + frame.clientWidth / 2) / frame.scrollWidth;
    threads.dataset.zoom = zoom;
    threads.style.width = `${100 * zoom}%`;
    threads.style.minWidth = `${900 * zoom}px`;
    frame.scrollLeft = middle * frame.scrollWidth - frame.clientWidth / 2;
  }));

  // -- tables: sort
  const valueOf = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent;
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  };
  // Unknown values stay last whichever way the rest is sorted.
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  };
  const sortBy = (sorted, original, header, column) => {
    const kind = header.dataset.sort;
    const before = header.getAttribute("aria-sort");
    const first = kind === "text" ? "ascending" : "descending";
    const order = before === null ? first : before === "descending" ? "ascending" : "descending";
    const keyed = original.map((row, index) => [valueOf(row, column, kind), index, row]);
    keyed.sort((a, b) => compare(a[0], b[0], order === "ascending" ? 1 : -1) || a[1] - b[1]);
    sorted.tBodies[0].append(...keyed.map((entry) => entry[2]));
    all("th[aria-sort]", sorted).forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", order);
  };
  const makeSortable = (sorted) => {
    const original = [...sorted.tBodies[0].rows];
    [...sorted.tHead.rows[0].cells].forEach((header, column) => {
      if (!header.dataset.sort) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.textContent = header.textContent;
      button.addEventListener("click", () => sortBy(sorted, original, header, column));
      header.replaceChildren(button);
    });
  };
  all("table.sortable").forEach(makeSortable);

  // -- the analysis itself, for saving and for whatever is added to this page
  const analysisText = async () => {
    const packed = Uint8Array.from(atob(byId("graphlens-document").textContent), (char) => char.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const save = byId("save-json");
  if (save) save.addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await analysisText()], { type: "application/json" }));
    link.download = "analysis.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  reveal();
  root.dataset.ready = "";
})();
