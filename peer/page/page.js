import { Model, bytes, count, number, percent, perSecond, seconds } from "./model.js";

const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const e = Object.assign(document.createElement(tag), props);
  e.append(...children);
  return e;
};
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const palette = ["--c1", "--c2", "--c3", "--c5", "--c7", "--c8", "--c4", "--c6"];

let model = new Model();
let newest = null; // the newest view
let paused = false;
const cards = new Map(); // namespace -> its part of the page

// --- live ---------------------------------------------------------------------------------

let source = null, polling = 0;

function listen() {
  source = new EventSource("events");
  source.addEventListener("stats", (e) => {
    connected("live");
    take(JSON.parse(e.data));
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) poll(); // refused: ask instead
    else connected("lost");
  };
}

// poll asks every two seconds where there is no stream to be had, and tries for one now and then.
async function poll() {
  source.close();
  clearTimeout(polling);
  for (let i = 0; i < 15; i++) {
    try {
      const r = await fetch("stats?cluster=1", { cache: "no-store" });
      if (!r.ok) throw new Error(r.statusText);
      take(await r.json());
      connected("polling");
    } catch {
      connected("lost");
    }
    await new Promise((done) => (polling = setTimeout(done, 2000)));
  }
  listen();
}

let link = "";
function connected(how) {
  if (link === how) return;
  link = how;
  state();
}

function take(doc) {
  const view = model.take(doc);
  newest = view;
  if (!paused) show(view);
}

// --- the head -----------------------------------------------------------------------------

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function state() {
  const v = newest;
  if (link === "lost") {
    $("dot").className = "dot bad";
    say($("state-text"), "no connection to the node; trying again");
    return;
  }
  if (!v) return;
  const all = v.members.length, ok = v.members.filter((m) => m.answers && m.ready).length;
  let text = `${ok} of ${all} members answer and are ready`, level = ok === all ? "good" : "bad";
  if (v.fingerprints > 1) {
    text += "; they do not agree on the view";
    if (level === "good") level = "warn";
  }
  for (const d of v.differing.slice(0, 3)) {
    text += `; ${d.name} has had another view than ${d.than.join(", ")} for more than ten seconds`;
    level = "bad";
  }
  $("dot").className = "dot " + level;
  say($("state-text"), `${text} · seen from ${v.by}${link === "polling" ? " · polling" : ""}${paused ? " · paused" : ""}`);
}

function show(v) {
  say($("cluster"), v.cluster);
  say($("version"), v.version ? "weir " + v.version : "");
  document.title = `weir ${v.cluster}: ${v.members.filter((m) => m.answers).length} of ${v.members.length}`;
  state();
  const lines = v.missing.map((m) => `No answer from ${m.name} (${m.addr}): ${m.reason}.`);
  if ($("missing").dataset.text !== lines.join("\n")) {
    $("missing").dataset.text = lines.join("\n");
    $("missing").replaceChildren(...lines.map((t) => make("p", { textContent: t })));
  }
  members(v);
  for (const s of v.spaces) space(s);
  for (const [name, card] of cards) {
    if (!v.spaces.some((s) => s.name === name)) {
      card.root.remove();
      cards.delete(name);
    }
  }
  events(v);
}

// --- members ------------------------------------------------------------------------------

const stateClass = { alive: "good", leaving: "warn", lost: "bad", refused: "bad" };

function members(v) {
  const rows = v.members.map((m, i) => {
    const state = !m.answers && m.state === "alive" ? "no answer" : m.answers && !m.ready ? "not ready" : m.state;
    const name = make("td", {}, make("span", { className: "key" }), m.name + (m.self ? " (this one)" : ""));
    name.firstChild.style.background = m.answers ? `var(${palette[i % palette.length]})` : "var(--line)";
    name.title = m.zone ? `${m.addr}, zone ${m.zone}` : m.addr;
    const cells = m.answers
      ? [percent(m.share), m.rtt === null ? "–" : seconds(m.rtt), count(m.inFlight), count(m.calls), count(m.errors), bytes(m.bytes) + "/s", seconds(m.uptime)]
      : [m.share ? percent(m.share) : "–", "–", "–", "–", "–", "–", "–"];
    return make("tr", {}, name,
      make("td", { className: "state-" + (state === m.state ? stateClass[m.state] || "bad" : "bad"), textContent: state, title: m.reason || "" }),
      ...cells.map((c) => make("td", { className: "n", textContent: c })));
  });
  document.querySelector("#members tbody").replaceChildren(...rows);
  ring(v);
}

const svg = (tag, attributes, text) => {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, value] of Object.entries(attributes)) e.setAttribute(k, value);
  if (text !== undefined) e.textContent = text;
  return e;
};

// ring draws each member's share of the keys.
function ring(v) {
  const root = svg("svg", { viewBox: "-50 -50 100 100", role: "img" });
  const parts = v.members.filter((m) => m.share > 0);
  const words = parts.map((m) => `${m.name} ${percent(m.share)}${m.answers ? "" : ", which does not answer"}`).join("; ");
  root.append(svg("title", {}, "Shares of the keys: " + words));
  let from = 0;
  const gap = parts.length > 1 ? 0.012 : 0, r = 40, length = 2 * Math.PI * r;
  for (const m of parts) {
    const c = svg("circle", {
      r, fill: "none", "stroke-width": 13, "stroke-dasharray": `${Math.max(m.share - gap, 0.002) * length} ${length}`,
      "stroke-dashoffset": -from * length, transform: "rotate(-90)",
    });
    c.style.stroke = m.answers ? `var(${palette[v.members.indexOf(m) % palette.length]})` : "var(--line)";
    root.append(c);
    from += m.share;
  }
  const answer = v.members.filter((m) => m.answers).length;
  root.append(svg("text", { y: 2 }, `${answer} of ${v.members.length}`), svg("text", { y: 13, class: "dim" }, "answer"));
  $("ring").replaceChildren(root);
}

// --- a namespace --------------------------------------------------------------------------

const causeColours = {
  cold: "--c1", expired: "--c2", refresh_ahead: "--c3", owner_lost: "--c4", evicted: "--c5", drill: "--c6", moved: "--c7", fenced: "--c8", isolated: "--text",
};
const charts = {
  reads: { series: () => [["near", "near"], ["owned", "owned"], ["fill", "waited for a load"], ["errors", "error"]], colours: ["--c1", "--c2", "--c3", "--c4"], stacked: true },
  loads: { series: (s) => Object.keys(s.causes).sort().map((c) => [c, c.replaceAll("_", " ")]), value: (r, key) => r.causes[key] || 0, colourOf: (key) => causeColours[key] },
  governor: { series: () => [["inUse", "running"], ["waiting", "waiting"], ["limit", "limit"]], colours: ["--c2", "--c3", "--c6"] },
};

function space(s) {
  let card = cards.get(s.name);
  if (!card) {
    const root = $("space").content.firstElementChild.cloneNode(true);
    root.dataset.namespace = s.name;
    root.querySelector("h2").textContent = s.name;
    root.open = cards.size < 3;
    root.addEventListener("toggle", () => newest && show(newest));
    card = { root, plots: {} };
    cards.set(s.name, card);
    $("spaces").append(root);
  }
  const root = card.root, r = s.recent;
  const hits = r.reads ? (number(r.near) + number(r.owned)) / r.reads : 0;
  say(root.querySelector(".short"), `${perSecond(number(r.reads))} reads, ${percent(hits)} without waiting, ${perSecond(number(r.loads))} loads`);
  if (!root.open) return;
  say(root.querySelector(".contract"), s.contract + (s.mixed ? " The members do not have the same contract." : ""));
  verdict(root, s);
  tiles(root, s);
  for (const figure of root.querySelectorAll("figure")) chart(card, figure, s);
  tables(root, s);
}

function verdict(root, s) {
  const m = s.margin, p = root.querySelector(".verdict");
  const would = m.projected ? "the origin would be asked" : "the origin would be asked at most";
  let level = "good", head = "It would hold.", text;
  if (!m.bears) {
    [level, head, text] = ["warn", "Not known yet:", "no load has returned, so what the origin bears cannot be told."];
  } else if (m.without < 0.5) {
    [level, head, text] = ["good", "Idle.", `Hardly anybody reads; the origin bears ${perSecond(m.bears)}.`];
  } else {
    text = `If every copy were lost now, ${would} ${count(m.without)} times a second; it bears ${count(m.bears)} at what a load costs now: a margin of ${count(m.ratio)}.`;
    if (m.ratio < 1) [level, head] = m.projected ? ["bad", "It would not hold."] : ["warn", "It might not hold."];
    else if (m.ratio < 2) [level, head] = ["warn", "It would just hold."];
    if (m.ratio < 1) text += ` ${m.projected ? "" : "Up to "}${percent(1 - m.ratio)} of those loads would be refused or wait.`;
    if (m.warm) text += ` The ${count(m.keys)} keys in use would be back after ${seconds(m.warm)}.`;
  }
  if (s.breakers.some((b) => b !== "closed")) {
    [level, head] = ["bad", "The origin's breaker is open."];
  }
  p.replaceChildren(make("strong", { className: level, textContent: head }), " " + text);
  const most = Math.max(m.now, m.without, m.bears, 1e-9);
  const bars = [
    ["now", "reaches the origin now", m.now],
    ["without", m.projected ? "would, with empty caches" : "would at most, without caches", m.without],
    ["bears", "the origin bears", m.bears],
  ];
  const box = root.querySelector(".bars");
  if (!box.children.length) {
    for (const [kind] of bars) {
      box.append(make("div", { className: "bar" }, make("span", { className: "label" }),
        make("div", { className: "track" }, make("div", { className: "fill " + kind })), make("span", { className: "value" })));
    }
  }
  bars.forEach(([, label, value], i) => {
    const [name, track, number] = box.children[i].children;
    say(name, label);
    track.firstChild.style.width = `${(100 * value) / most}%`;
    say(number, value || i !== 2 ? perSecond(value) : "not known");
  });
}

function tiles(root, s) {
  const r = s.recent, cost = s.sum.returned ? s.sum.loadSeconds / s.sum.returned : 0;
  const tile = (name, value, small = "", level = "") => [name, value, small, level];
  const list = [
    tile("Reads", perSecond(number(r.reads))),
    tile("Loads", perSecond(number(r.loads)), r.loads ? `1 for ${count(number(r.reads) / r.loads)} reads` : ""),
    tile("A load takes", cost ? seconds(cost) : "–", "mean"),
    tile("Loads running", count(s.sum.inUse), `of ${count(s.sum.limit)}`, s.sum.limit && s.sum.inUse >= s.sum.limit ? "warn" : ""),
    tile("Waiting", count(s.sum.waiting), "for a permit", s.sum.waiting ? "warn" : ""),
    tile("Refused", perSecond(number(r.shed)), "by the governor", r.shed ? "bad" : ""),
    tile("Rescued", perSecond(number(r.rescued)), "stale for an error", r.rescued ? "warn" : ""),
    tile("Stale", r.reads ? percent(number(r.stale) / r.reads) : "–", "of reads"),
    tile("Errors", perSecond(number(r.errors)), "", r.errors ? "bad" : ""),
    tile("Invalidated", perSecond(number(r.invalidated)), "keys"),
    tile("Owned", count(s.sum.entries), `entries, ${bytes(s.sum.ownedBytes)}`),
    tile("Near", bytes(s.sum.nearBytes)),
  ];
  for (const b of s.breakers) list.push(tile("Breaker", b.replace("_", " "), "", b === "closed" ? "" : "bad"));
  root.querySelector(".tiles").replaceChildren(...list.map(([name, value, small, level]) =>
    make("div", { className: level }, make("dt", { textContent: name }), make("dd", {}, value + " ", make("small", { textContent: small })))));
}

function table(title, heads, rows) {
  return make("div", {}, make("h3", { textContent: title }), make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: title },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((h, i) => make("th", { scope: "col", textContent: h, className: i ? "n" : "" })))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((c, i) => make("td", { textContent: c, className: i ? "n" : "" }))))))));
}

function tables(root, s) {
  const box = root.querySelector(".tables");
  if (box.contains(document.activeElement)) return; // somebody scrolls
  const out = [];
  const words = (name) => name.replaceAll("_", " ");
  const rate = (c) => perSecond(number(s.recent.causes[c]));
  out.push(table("Why the origin was asked", ["Cause", "Lately", "In all"], Object.keys(s.causes).filter((c) => s.causes[c]).sort((a, b) => s.causes[b] - s.causes[a] || (a < b ? -1 : 1)).map((c) => [words(c), rate(c), count(s.causes[c])])));
  const steps = Object.entries(s.steps).sort((a, b) => b[1].seconds - a[1].seconds);
  if (steps.length) {
    out.push(table("What a miss touches", ["Dependency", "Calls", "Mean", "Longest", "Errors"],
      steps.map(([name, t]) => [name, perSecond(t.rate), t.calls ? seconds(t.seconds / t.calls) : "–", seconds(t.max), count(t.errors)])));
  }
  out.push(table("How loads ended", ["Result", "In all"], Object.entries(s.results).filter(([, n]) => n).sort((a, b) => b[1] - a[1]).map(([k, n]) => [words(k), count(n)])));
  const ages = s.ages.flatMap(({ member, ages }) => Object.entries(ages).filter(([, a]) => a && typeof a === "object" && "p99_seconds" in a)
    .map(([source, a]) => [`${source}, ${member}`, seconds(number(a.p50_seconds)), seconds(number(a.p99_seconds)), seconds(number(a.max_seconds))]));
  if (ages.length) out.push(table("Ages served", ["Source", "p50", "p99", "Oldest"], ages));
  if (s.hottest.length) {
    out.push(table("What a loss would cost most", ["Key", "Reads", "A load takes", "Spared"],
      s.hottest.map((k) => [k.key || `#${k.hash.length > 9 ? k.hash.slice(0, 8) + "…" : k.hash}`, perSecond(k.rate), seconds(k.cost), `${count(k.busy)} s/s`])));
  }
  box.replaceChildren(...out);
}

// chart draws one figure of a namespace with uPlot.
function chart(card, figure, s) {
  const kind = figure.dataset.chart, def = charts[kind], box = figure.querySelector(".plot");
  let series = def.series(s);
  const value = def.value || ((r, key) => number(r[key]));
  const colourOf = new Map(series.map(([key], i) => [key, def.colourOf?.(key) || (def.colours || palette)[i % (def.colours || palette).length]]));
  if (kind !== "governor") series = series.filter(([key], i) => (i === 0 && def.stacked) || s.history.some((r) => value(r, key) > 0));
  const colours = series.map(([key]) => colourOf.get(key));
  const data = [s.history.map((r) => r.time)];
  const plain = series.map(([key]) => s.history.map((r) => value(r, key)));
  const shown = def.stacked ? plain.map((_, i) => s.history.map((_, t) => plain.slice(0, i + 1).reduce((sum, p) => sum + p[t], 0))) : plain;
  data.push(...shown);

  const words = series.map(([, label], i) => `${label} ${count(plain[i].at(-1) || 0)}`);
  figure.querySelector(".legend").replaceChildren(...words.map((w, i) => {
    const mark = make("span", { className: "key" });
    mark.style.background = `var(${colours[i]})`;
    return make("span", {}, mark, w);
  }));
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", `${figure.querySelector("figcaption").textContent}: ${words.join(", ") || "nothing yet"}`);

  const width = Math.floor(box.clientWidth), id = series.map(([key]) => key).join() + document.documentElement.dataset.theme + matchMedia("(prefers-color-scheme: dark)").matches;
  const old = card.plots[kind];
  if (old && old.id === id) {
    if (old.plot.width !== width && width > 0) old.plot.setSize({ width, height: 170 });
    old.plot.setData(data);
    return;
  }
  old?.plot.destroy();
  if (width <= 0) return;
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "11px system-ui, sans-serif" };
  const plot = new uPlot({
    width, height: 170, legend: { show: false }, cursor: { show: false }, padding: [8, 8, 0, 0],
    scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1) * 1.1] } },
    axes: [{ ...axis, space: 70, values: (_, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString([], { hour12: false })) }, { ...axis, size: 52, values: (_, ticks) => ticks.map((t) => count(t)) }],
    bands: def.stacked ? series.slice(1).map((_, i) => ({ series: [i + 2, i + 1] })) : [],
    series: [{}, ...series.map(([, label], i) => ({
      label, stroke: colour(colours[i]), width: 1.5, points: { show: false },
      fill: def.stacked ? colour(colours[i]) + "55" : undefined,
      dash: kind === "governor" && i === 2 ? [4, 4] : undefined,
    }))],
  }, data, box);
  card.plots[kind] = { plot, id };
}

// --- events -------------------------------------------------------------------------------

function events(v) {
  const box = $("events"), id = v.events.map((e) => e.at + e.node + e.by.length).join();
  if (box.dataset.id === id) return;
  box.dataset.id = id;
  const level = { WARN: "warn", ERROR: "bad" };
  box.replaceChildren(...v.events.map((e) => make("li", {},
    make("time", { dateTime: e.at, textContent: new Date(e.time).toLocaleTimeString([], { hour12: false }), title: e.at }),
    make("span", { className: "name state-" + (level[e.level] || ""), textContent: e.name.replaceAll("_", " ") }),
    make("span", { className: "text", textContent: `${e.text} (seen by ${e.by.join(", ")})` }))));
  if (!v.events.length) box.replaceChildren(make("li", { textContent: "nothing yet" }));
}

// --- buttons ------------------------------------------------------------------------------

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (newest && !paused) show(newest);
  state();
});

const themes = ["auto", "light", "dark"];
function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").textContent = "Theme: " + name;
  if (newest) show(newest);
}
const remembered = () => {
  try {
    return themes.includes(localStorage.getItem("weir-theme")) ? localStorage.getItem("weir-theme") : "auto";
  } catch {
    return "auto"; // storage is not to be had
  }
};
$("theme").addEventListener("click", () => {
  const next = themes[(themes.indexOf($("theme").textContent.slice(7)) + 1) % themes.length];
  try {
    localStorage.setItem("weir-theme", next);
  } catch {
    // then not
  }
  theme(next);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => newest && show(newest));
addEventListener("resize", () => newest && !paused && show(newest));

theme(remembered());
listen();
