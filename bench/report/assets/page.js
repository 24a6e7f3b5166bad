"use strict";
(() => {
  const grey = "#888";
  const width = () => document.getElementById("time").clientWidth;
  const plots = [];
  const axis = (label, more) => Object.assign({ label, stroke: grey, grid: { stroke: "#8883" }, ticks: { stroke: "#8883" } }, more);

  // Faults as upright lines, with what they are.
  const marks = (list) => ({
    hooks: {
      draw: [(u) => {
        const c = u.ctx;
        c.save();
        c.textAlign = "left";
        c.font = `${11 * devicePixelRatio}px sans-serif`;
        (list || []).forEach((m, i) => {
          const at = seconds(m.at), x = u.valToPos(at, "x", true);
          if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) return;
          c.strokeStyle = c.fillStyle = m.error ? grey : "#d62728";
          c.beginPath(); c.moveTo(x, u.bbox.top); c.lineTo(x, u.bbox.top + u.bbox.height); c.stroke();
          const text = m.what + (m.error ? " (" + m.error + ")" : ""), wide = c.measureText(text).width, gap = 3 * devicePixelRatio;
          const left = x + gap + wide > u.bbox.left + u.bbox.width ? Math.max(u.bbox.left, x - gap - wide) : x + gap;
          c.fillText(text, left, u.bbox.top + (12 + 12 * (i % 4)) * devicePixelRatio);
        });
        c.restore();
      }],
    },
  });

  // A Go duration in seconds.
  function seconds(s) {
    let sum = 0;
    for (const [, n, unit] of String(s).matchAll(/([\d.]+)(h|ms|m|µs|us|ns|s)/g)) {
      sum += n * { h: 3600, m: 60, s: 1, ms: 1e-3, "µs": 1e-6, us: 1e-6, ns: 1e-9 }[unit];
    }
    return sum;
  }

  function plot(into, title, series, values, faults, scales, axes) {
    const div = document.createElement("div");
    div.className = "plot";
    document.getElementById(into).append(div);
    const u = new uPlot({
      title, width: width(), height: 260, plugins: [marks(faults)], scales,
      series: [{ label: axes[0].label }, ...series], axes: axes.map((a, i) => axis(a.label, i ? Object.assign({ size: 62 }, a) : a)),
    }, values, div);
    plots.push(u);
  }

  // All systems share their times; a system that has fewer points ends early.
  const longest = data.systems.reduce((a, s) => (s.timeline.length > a.length ? s.timeline : a), []);
  const t = longest.map((p) => p.t);
  const column = (s, of) => t.map((_, i) => (i < s.timeline.length ? of(s.timeline[i]) : null));
  const line = (label, i, more) => Object.assign({ label, stroke: data.systems[i].colour, width: i ? 1.5 : 2.5 }, more);
  // Each fault once, whichever system it met first, unless that one could not do it and another could.
  const faults = new Map();
  data.systems.forEach((s) => {
    const times = {};
    (s.marks || []).forEach((m) => {
      const k = m.what + "/" + (times[m.what] = (times[m.what] || 0) + 1);
      if (!faults.has(k) || faults.get(k).error && !m.error) faults.set(k, m);
    });
  });
  const allMarks = [...faults.values()].sort((a, b) => seconds(a.at) - seconds(b.at));
  const time = { x: { time: false } };
  const over = (title, unit, of) => plot("time", title, data.systems.map((s, i) => line(s.name, i)),
    [t, ...data.systems.map((s) => column(s, of))], allMarks, time, [{ label: "seconds" }, { label: unit }]);
  if (t.length) {
    const loads = data.systems.map((s, i) => line(s.name + ", answered", i));
    plot("time", "Load: offered and answered", [{ label: "offered", stroke: grey, width: 1.5, dash: [6, 4] }, ...loads],
      [t, longest.map((p) => p.offered), ...data.systems.map((s) => column(s, (p) => p.answered))], allMarks, time, [{ label: "seconds" }, { label: "a second" }]);
    over("Origin: calls", "a second", (p) => p.origin);
    over("Origin: loads at once", "loads", (p) => p.origin_peak);
    const log = { x: { time: false }, y: { distr: 3 } };
    // A storm's answers stand alone, with nothing before and after: they are joined, or nothing would be seen of them.
    plot("time", "Latency, p99", data.systems.map((s, i) => line(s.name, i, { spanGaps: true })),
      [t, ...data.systems.map((s) => column(s, (p) => p.p99_ms || null))], allMarks, log, [{ label: "seconds" }, { label: "ms" }]);
    if (data.systems.some((s) => s.timeline.some((p) => p.errors))) over("Errors", "a second", (p) => p.errors);
    if (data.systems.some((s) => s.timeline.some((p) => p.stale))) over("Stale answers", "a second", (p) => p.stale);
  }

  // Percentiles: nines on the x axis, evenly apart.
  const first = data.systems.find((s) => s.latency && s.latency.length);
  if (first) {
    const nines = (q) => -Math.log10(1 - Math.min(q, 0.99999));
    const x = first.latency.map((l) => nines(l.q));
    plot("percentiles", "Latency that so many reads did not exceed",
      data.systems.map((s, i) => line(s.name, i, { points: { show: true, size: 5 } })),
      [x, ...data.systems.map((s) => first.latency.map((_, i) => (s.latency && s.latency[i] ? s.latency[i].ms || null : null)))],
      [], { x: { time: false }, y: { distr: 3 } },
      [{ label: "percentile", splits: () => [0.301, 1, 2, 3, 4, 5], values: () => ["50", "90", "99", "99.9", "99.99", "slowest"] }, { label: "ms" }]);
  }

  addEventListener("resize", () => plots.forEach((u) => u.setSize({ width: width(), height: 260 })));
})();
