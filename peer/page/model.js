// What the page knows, made of the documents that the stats endpoint serves. No drawing here,
// so that it runs without a browser too.

const kept = 300; // samples in the charts: five minutes of a small cluster

export const number = (v) => (typeof v === "number" && Number.isFinite(v) ? v : 0);

// at follows a path of names into a document; what is missing counts as 0.
const at = (doc, path) => number(path.split(".").reduce((d, name) => (d && typeof d === "object" ? d[name] : undefined), doc));

// The counters of a namespace whose rates are shown, by the name that they have here.
const counters = {
  near: "near", owned: "owned", fill: "fill", errors: "errors", stale: "stale", rescued: "rescued", left: "left",
  loads: "loads", shed: "shed", served: "callers_by_fills", loadSeconds: "load_seconds", invalidated: "invalidated",
  unreachable: "unreachable", doomed: "ledger.doomed", retries: "ledger.retries",
};

export class Model {
  constructor() {
    this.last = new Map(); // counters of the newest document, by member, its start, and name
    this.at = 0;
    this.spaces = new Map(); // namespace -> its history
  }

  // rise is by how much a counter of one member rose since the last document. A member that is
  // new, or has started again, counts from now on.
  rise(next, id, value) {
    next.set(id, value);
    const was = this.last.get(id);
    return was === undefined || value < was ? 0 : value - was;
  }

  // take reads a ClusterStats document and returns what the page shows of it.
  take(doc) {
    const time = Date.parse(doc.at) / 1000 || Date.now() / 1000;
    const span = this.at && time > this.at ? time - this.at : 0;
    const next = new Map();
    const rate = (id, value) => (span ? this.rise(next, id, value) / span : (next.set(id, value), 0));
    const answers = doc.members || [];
    const own = (answers.find((m) => m.name === doc.by) || answers[0] || {}).stats || {};
    const view = {
      time, by: doc.by, cluster: own.node?.cluster || "", version: own.node?.version || "",
      missing: doc.missing || [], members: this.members(doc, own, rate),
      events: mergeEvents(answers.map((m) => m.stats?.events || [])),
      fingerprints: new Set(answers.map((m) => m.stats?.view?.fingerprint)).size,
      differing: answers.filter((m) => m.stats?.view?.differing?.length).map((m) => ({ name: m.name, than: m.stats.view.differing })),
      spaces: [],
    };
    const names = new Set(answers.flatMap((m) => Object.keys(m.stats?.namespaces || {})));
    for (const name of [...names].sort()) view.spaces.push(this.space(name, answers, rate, time, span));
    for (const name of this.spaces.keys()) if (!names.has(name)) this.spaces.delete(name);
    this.last = next;
    this.at = time;
    return view;
  }

  members(doc, own, rate) {
    const seen = new Map((own.view?.members || []).map((m) => [m.name, m]));
    const out = [];
    for (const m of doc.members || []) {
      const node = m.stats?.node || {}, known = seen.get(m.name) || {};
      const id = `${m.name}/${node.incarnation}`;
      let inFlight = 0, calls = 0, errors = 0, bytes = 0;
      for (const c of m.stats?.connections || []) {
        inFlight += number(c.in_flight);
        calls += rate(`${id}/calls/${c.name}`, number(c.calls));
        errors += rate(`${id}/errors/${c.name}`, number(c.errors));
        bytes += rate(`${id}/bytes/${c.name}`, number(c.bytes_received) + number(c.bytes_sent));
      }
      out.push({
        name: m.name, addr: node.addr || known.addr || "", zone: known.zone || "", state: known.state || "alive", share: number(known.share), ready: !!node.ready,
        reason: node.reason || "", rtt: m.name === doc.by ? null : number(m.rtt_seconds), self: m.name === doc.by,
        inFlight, calls, errors, bytes, uptime: number(node.uptime_seconds), answers: true,
      });
    }
    for (const m of doc.missing || []) {
      out.push({ name: m.name, addr: m.addr, state: m.state, share: number(seen.get(m.name)?.share), reason: m.reason, answers: false });
    }
    return out.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  space(name, answers, rate, time, span) {
    let s = this.spaces.get(name);
    if (!s) this.spaces.set(name, (s = { history: [] }));
    const r = { time };
    const sum = { flights: 0, running: 0, waiting: 0, share: 0, limit: 0, inUse: 0, loads: 0, returned: 0, loadSeconds: 0, nearBytes: 0, ownedBytes: 0, entries: 0, rescued: 0 };
    const causes = {}, results = {}, steps = {}, contracts = new Set(), breakers = new Set(), projections = [], ages = [];
    for (const key of Object.keys(counters)) r[key] = 0;
    r.causes = {};
    for (const m of answers) {
      const d = m.stats?.namespaces?.[name];
      if (!d) continue;
      const id = `${m.name}/${m.stats.node?.incarnation}/${name}`;
      for (const [key, path] of Object.entries(counters)) r[key] += rate(`${id}/${path}`, at(d, path));
      for (const [cause, n] of Object.entries(d.loads_by_cause || {})) {
        causes[cause] = (causes[cause] || 0) + number(n);
        r.causes[cause] = (r.causes[cause] || 0) + rate(`${id}/cause/${cause}`, number(n));
      }
      for (const [result, n] of Object.entries(d.loads_by_result || {})) {
        results[result] = (results[result] || 0) + number(n);
        if (result !== "fenced") sum.returned += number(n);
      }
      for (const [step, v] of Object.entries(d.steps || {})) {
        const t = (steps[step] ||= { calls: 0, seconds: 0, max: 0, errors: 0, rate: 0 });
        t.calls += number(v.calls);
        t.seconds += number(v.seconds);
        t.errors += number(v.errors);
        t.max = Math.max(t.max, number(v.max_seconds));
        t.rate += rate(`${id}/step/${step}`, number(v.calls));
      }
      contracts.add(d.contract || "");
      if (d.governor?.breaker) breakers.add(d.governor.breaker);
      if (d.projection) projections.push(d.projection);
      if (d.ages) ages.push({ member: m.name, ages: d.ages });
      sum.flights += number(d.flights);
      sum.running += number(d.running);
      sum.waiting += at(d, "governor.waiting");
      sum.share += at(d, "governor.share");
      sum.limit += d.governor?.limit === undefined ? at(d, "governor.share") : at(d, "governor.limit");
      sum.inUse += at(d, "governor.in_use");
      sum.loads += number(d.loads);
      sum.loadSeconds += number(d.load_seconds);
      sum.rescued += number(d.rescued);
      sum.nearBytes += number(d.near_bytes);
      sum.ownedBytes += number(d.owned_bytes);
      sum.entries += number(d.owned_entries);
    }
    r.reads = r.near + r.owned + r.fill + r.errors;
    r.inUse = sum.inUse;
    r.waiting = sum.waiting;
    r.limit = sum.limit;
    if (span) s.history.push(r);
    if (s.history.length > kept) s.history.shift();
    const recent = mean(s.history.slice(-10));
    return {
      name, sum, causes, results, steps, recent, history: s.history, contract: [...contracts].join(" | "), mixed: contracts.size > 1,
      breakers: [...breakers], ages, hottest: hottest(projections), margin: margin(sum, recent, projections),
    };
  }
}

// mean is the mean of the samples' numbers.
function mean(samples) {
  const out = { causes: {} };
  const add = (into, from) => {
    for (const [k, v] of Object.entries(from)) if (typeof v === "number") into[k] = (into[k] || 0) + v / samples.length;
  };
  for (const s of samples) {
    add(out, s);
    add(out.causes, s.causes);
  }
  return out;
}

// margin compares what reaches the origin now with what would, and with what it bears. Each
// member's projection is for the whole cluster; the most pessimistic one counts. Where there is
// none yet, every read counts as one that would reach the origin.
export function margin(sum, recent, projections) {
  const cost = sum.returned ? sum.loadSeconds / sum.returned : 0;
  const out = { now: number(recent.loads), reads: number(recent.reads), projected: false, bears: cost ? sum.share / cost : 0, warm: 0, keys: 0 };
  out.without = out.reads;
  const worst = projections.filter((p) => number(p.loads_a_second) > 0).sort((a, b) => number(b.loads_a_second) - number(a.loads_a_second))[0];
  if (worst) {
    out.projected = true;
    out.without = number(worst.loads_a_second);
    out.bears = number(worst.capacity) || out.bears;
    out.warm = number(worst.seconds_to_warm);
    out.keys = number(worst.keys);
  }
  out.ratio = out.without ? out.bears / out.without : 0;
  return out;
}

function hottest(projections) {
  const by = new Map();
  for (const p of projections) {
    for (const k of p.hottest || []) {
      const was = by.get(k.hash) || { key: k.key, hash: k.hash, rate: 0, cost: 0, busy: 0 };
      was.rate += number(k.reads_a_second);
      was.cost = Math.max(was.cost, number(k.seconds_a_load));
      was.busy += number(k.busy);
      by.set(k.hash, was);
    }
  }
  return [...by.values()].sort((a, b) => b.busy - a.busy).slice(0, 10);
}

// mergeEvents puts the members' lists together, newest first. What several saw at about the
// same time is shown once, with all who saw it.
export function mergeEvents(lists) {
  const all = lists.flat().map((e) => ({ ...e, time: Date.parse(e.at) || 0, by: [e.node] }));
  all.sort((a, b) => b.time - a.time);
  const out = [];
  for (const e of all) {
    const same = e.member && out.find((o) => o.name === e.name && o.member === e.member && o.time - e.time < 10000 && !o.by.includes(e.node));
    if (same) same.by.push(e.node);
    else out.push(e);
  }
  return out.slice(0, 100);
}

const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (v) => (Math.abs(v) >= 100 ? whole.format(v) : digits.format(v));
export const perSecond = (v) => `${count(v)}/s`;
export const percent = (v) => `${(100 * v).toFixed(1)} %`;
export function seconds(v) {
  if (!v) return "0";
  if (v < 1e-3) return `${count(v * 1e6)} µs`;
  if (v < 1) return `${count(v * 1e3)} ms`;
  if (v < 120) return `${count(v)} s`;
  if (v < 7200) return `${Math.floor(v / 60)} min`;
  if (v < 172800) return `${Math.floor(v / 3600)} h`;
  return `${Math.floor(v / 86400)} d`;
}
export function bytes(v) {
  let i = 0;
  for (; v >= 1024 && i < 5; i++) v /= 1024;
  return `${count(v)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][i]}`;
}
