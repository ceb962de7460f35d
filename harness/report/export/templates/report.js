"use strict";
// Shows the page that the fragment of the address names: it is compressed in this file.
(() => {
  const overview = document.getElementById("overview");
  const shown = document.getElementById("shown");
  const status = document.getElementById("status");
  const title = document.title;

  async function inflated(text) {
    const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // Draws a line at the divergent event of either recording.
  function marks(values) {
    return { hooks: { draw: [(plot) => values.forEach((value, number) => {
      const x = Math.round(plot.valToPos(value, "x", true));
      plot.ctx.save();
      plot.ctx.strokeStyle = colour(number ? "--b" : "--a");
      plot.ctx.setLineDash([4, 4]);
      plot.ctx.beginPath();
      plot.ctx.moveTo(x, plot.bbox.top);
      plot.ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
      plot.ctx.stroke();
      plot.ctx.restore();
    })] } };
  }

  function draw() {
    for (const place of document.querySelectorAll(".chart[data-chart]")) {
      if (typeof uPlot === "undefined") return;
      const { data, names, marks: at = [], unit = "s" } = JSON.parse(place.dataset.chart);
      const axis = { stroke: colour("--fg"), grid: { stroke: colour("--line") } };
      place.replaceChildren();
      new uPlot({
        width: Math.max(320, Math.min(place.clientWidth, 1100)), height: 220,
        scales: { x: { time: false } },
        axes: [{ ...axis, label: unit }, { ...axis, size: 70 }],
        series: [{ label: unit }, ...names.map((label, number) => ({
          label, stroke: colour(number ? "--b" : "--a"), width: 1.5, spanGaps: true,
        }))],
        plugins: [marks(at)],
      }, data, place);
    }
  }

  async function show() {
    const id = decodeURIComponent(location.hash.slice(1));
    const page = id && document.getElementById("data-" + id);
    if (!page) {
      overview.hidden = false;
      shown.hidden = true;
      document.title = title;
      const there = id && id !== "page" ? document.getElementById(id) : null;
      if (there) there.scrollIntoView();
      return;
    }
    shown.innerHTML = await inflated(page.textContent);
    shown.dataset.page = id;
    overview.hidden = true;
    shown.hidden = false;
    document.title = page.dataset.title;
    status.textContent = page.dataset.title;
    draw();
    const heading = shown.querySelector("h1");
    if (heading) heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  // One stop of the Tab key for the heat map; arrow keys move in it.
  const heat = document.getElementById("heat");
  if (heat) {
    const links = [...heat.querySelectorAll("td a")];
    links.forEach((link, number) => { link.tabIndex = number ? -1 : 0; });
    heat.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const cell = event.target.closest("td");
      if (!step || !cell) return;
      event.preventDefault();
      let row = cell.parentElement.rowIndex, column = cell.cellIndex, next = null;
      do {
        row += step[0];
        column += step[1];
        const there = heat.rows[row] && heat.rows[row].cells[column];
        if (!there || !row) return;
        next = there.tagName === "TD" ? there.querySelector("a") : null;
      } while (!next && column > 0);
      if (!next) return;
      links.forEach((link) => { link.tabIndex = -1; });
      next.tabIndex = 0;
      next.focus();
    });
  }

  const theme = document.getElementById("theme");
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const told = () => theme.setAttribute("aria-pressed", String(isDark()));
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    told();
    draw();
  });
  told();

  if (shown) {
    addEventListener("hashchange", show);
    show();
  } else {
    draw();
  }
})();
