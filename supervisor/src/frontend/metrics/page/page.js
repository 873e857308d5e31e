// Shows what the server sends. All text goes into text nodes: nothing that comes can become markup.
"use strict";

const byId = (id) => document.getElementById(id);
const KEPT = 60; // points of a sparkline, two seconds each

// ---- Elements

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Puts `children` in place of what is there, unless that would look the same: whoever reads or selects
// something is not disturbed.
function fill(element, ...children) {
  const fresh = make("div", "", ...children);
  if (!sameNodes(element, fresh)) element.replaceChildren(...fresh.childNodes);
}

function sameNodes(a, b) {
  if (a.childNodes.length !== b.childNodes.length) return false;
  return Array.from(a.childNodes).every((node, i) => node.isEqualNode(b.childNodes[i]));
}

// Brings the children of `parent` in line with `items`, by key, without moving those that stay.
function keyed(parent, known, items, create, update) {
  const seen = new Set();
  let after = parent.firstElementChild;
  while (after && !after.dataset.key) after = after.nextElementSibling;
  for (const item of items) {
    seen.add(item.key);
    let entry = known.get(item.key);
    if (!entry) {
      entry = create(item);
      entry.root.dataset.key = item.key;
      known.set(item.key, entry);
    }
    if (entry.root !== after) parent.insertBefore(entry.root, after);
    else after = after.nextElementSibling;
    update(entry, item);
  }
  for (const [key, entry] of known) {
    if (!seen.has(key)) {
      entry.root.remove();
      known.delete(key);
    }
  }
}

// ---- Figures

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

function count(value) {
  if (value >= 1e6) return `${tenth.format(value / 1e6)} M`;
  return value > 0 && value < 10 ? tenth.format(value) : whole.format(value);
}

function bytes(value) {
  if (value === null || value === undefined) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 && unit > 1 ? tenth.format(value) : whole.format(value)} ${units[unit]}`;
}

function latency(us) {
  if (us === null) return "–";
  if (us < 1000) return `${us} µs`;
  const [value, unit] = us < 1e6 ? [us / 1000, "ms"] : [us / 1e6, "s"];
  return `${value < 100 ? tenth.format(value) : whole.format(value)} ${unit}`;
}

function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function ago(at) {
  const time = make("time", "", `${span(Date.now() - at)} ago`);
  time.dateTime = new Date(at).toISOString();
  time.title = new Date(at).toLocaleString();
  return time;
}

// ---- States

const WORDS = {
  READY: ["good", "Ready"], LOADING: ["busy", "Loading"], UNLOADING: ["busy", "Unloading"], UNAVAILABLE: ["bad", "Unavailable"],
  ready: ["good", "Ready"], starting: ["busy", "Starting"], reserving: ["busy", "Reserving"], draining: ["busy", "Draining"],
  stopping: ["busy", "Stopping"], backoff: ["warn", "Restarting"], quarantined: ["bad", "Quarantined"],
  resting: ["idle", "Resting"], unloaded: ["idle", "Unloaded"], not_ready: ["bad", "Not ready"],
};

function state(name) {
  const [kind, word] = WORDS[name] || ["idle", name];
  return make("span", `state ${kind}`, word);
}

// What a version is, in the one word that matters most.
function stateOf(version) {
  const states = version.instances.map((instance) => instance.state);
  if (states.includes("quarantined")) return states.includes("ready") ? "READY" : "quarantined";
  if (version.state === "LOADING" && states.includes("backoff")) return "backoff";
  if (version.state === "READY" && states.length && states.every((s) => s === "resting")) return "resting";
  if (version.state === "UNAVAILABLE" && version.reason === "unloaded") return "unloaded";
  return version.state;
}

const WANTED = ["clean", "retired"];
const restartsOf = (instance) =>
  Object.entries(instance.exits).reduce((sum, [kind, n]) => (WANTED.includes(kind) ? sum : sum + n), 0);
const sum = (list, of) => list.reduce((total, item) => total + (of(item) || 0), 0);

// ---- The page

let status = null;
const history = new Map(); // what was asked, by version: [{at, total}] and the rates in between
const rows = new Map();
const deviceRows = new Map();
const open = new Set();

function show(fresh) {
  status = fresh;
  const list = versionsOf(fresh);
  list.forEach((item) => remember(item));
  showServer(fresh.server);
  showFigures(fresh, list);
  showNotices(fresh, list);
  showModels(list);
  showDevices(fresh.devices);
  byId("main").hidden = false;
}

function versionsOf({ models }) {
  return models.flatMap((model) => {
    if (model.versions.length === 0) return [{ key: model.name, model, version: null }];
    return model.versions.map((version) => ({ key: `${model.name}/${version.version}`, model, version }));
  });
}

function remember({ key, version }) {
  const traffic = version && version.traffic;
  if (!traffic) return;
  const total = traffic.succeeded + sum(Object.values(traffic.failed), (n) => n);
  const now = Date.now();
  const past = history.get(key) || { at: now, total, rates: [] };
  if (now - past.at >= 1500) {
    past.rates.push(Math.max(0, ((total - past.total) * 1000) / (now - past.at)));
    past.rates.splice(0, past.rates.length - KEPT);
    past.at = now;
    past.total = total;
  }
  history.set(key, past);
}

function showServer(server) {
  const shown = state(server.state);
  byId("server-state").className = shown.className;
  setText(byId("server-state"), shown.textContent);
  const parts = [`version ${server.version}`, `up ${span(Date.now() - server.started_at)}`, `process ${server.pid}`];
  if (server.memory !== null) parts.push(bytes(server.memory));
  if (server.listens.http) parts.push(`HTTP ${server.listens.http}`);
  setText(byId("about"), parts.join("  ·  "));
  document.title = server.state === "ready" ? "Bulkhead" : `${shown.textContent} – Bulkhead`;
}

function showFigures({ models }, list) {
  const traffics = list.map((item) => item.version && item.version.traffic).filter(Boolean);
  const instances = list.flatMap((item) => (item.version ? item.version.instances : []));
  const ready = models.filter((m) => m.versions.some((v) => v.state === "READY")).length;
  const rate = sum(traffics, (t) => t.rate);
  const failures = sum(traffics, (t) => t.failures);
  const memory = sum(instances, (i) => i.worker && i.worker.private_memory);
  const restarts = sum(instances, restartsOf);
  const figures = [
    ["Models ready", count(ready), ` of ${models.length}`],
    ["Requests", count(rate), " / s"],
    ["Failed", count(failures), " / s", failures > 0 ? "bad" : ""],
    ["Waiting", count(sum(traffics, (t) => t.waiting)), ` + ${count(sum(traffics, (t) => t.in_flight))} in flight`],
    ["Workers’ memory", bytes(memory), ""],
    ["Restarts", count(restarts), ""],
  ];
  fill(byId("figures"), ...figures.map(([name, value, unit, kind]) =>
    make("div", "", make("dt", "", name), make("dd", kind, value, unit ? make("small", "", unit) : null))));
}

function showNotices({ server, devices }, list) {
  const notices = [];
  const add = (kind, what, text) => notices.push(make("li", kind, make("b", "", what), ` ${text}`));
  if (server.waits_for.length) add("bad", "Not ready:", `waits for ${server.waits_for.join(", ")}`);
  for (const { model, version } of list) {
    const name = version ? `${model.name} v${version.version}` : model.name;
    if (!version) {
      if (model.enabled && model.problem) add("bad", name, model.problem);
      continue;
    }
    const of = (wanted) => version.instances.filter((instance) => instance.state === wanted);
    for (const instance of of("quarantined")) {
      add("bad", name, `is quarantined until it is loaded again: ${instance.reason || lastWord(instance)}`);
    }
    for (const instance of of("backoff")) add("", name, `is being restarted: ${instance.reason || lastWord(instance)}`);
    if (version.state === "UNAVAILABLE" && version.reason !== "unloaded" && !of("quarantined").length) {
      add("bad", name, version.reason || "is unavailable");
    }
  }
  // Something of it serves, and not what somebody has wished for since.
  for (const model of new Set(list.filter(({ version }) => version).map(({ model }) => model))) {
    if (model.problem) add("", model.name, model.problem);
  }
  if (devices.driver === "silent") add("bad", "GPU driver", "does not answer");
  for (const device of devices.devices) {
    if (device.lost) add("bad", `GPU ${device.index}`, `is lost: ${device.lost}`);
    else if (device.suspect) add("bad", `GPU ${device.index}`, "keeps memory of a worker that has ended; nothing is placed there");
    else if (device.blind) add("", `GPU ${device.index}`, `does not say who uses it: ${device.blind}`);
  }
  for (const zygote of server.zygotes.filter((z) => z.state === "down")) {
    add("", zygote.program, "has no zygote at the moment: workers start more slowly");
  }
  fill(byId("notices").querySelector("ul"), ...notices);
  byId("notices").hidden = notices.length === 0;
}

const lastWord = (instance) => (instance.last_exit ? instance.last_exit.summary : "");

// ---- Models

function showModels(list) {
  byId("filter").hidden = list.length < 8;
  const wanted = byId("filter").querySelector("input").value.trim().toLowerCase();
  const shown = wanted ? list.filter(({ model }) => model.name.toLowerCase().includes(wanted)) : list;
  byId("no-models").hidden = list.length > 0;
  byId("models").hidden = list.length === 0;
  keyed(byId("models"), rows, shown, createModel, updateModel);
}

const CELLS = [
  ["State", "is"], ["", "wide"], ["p50", "number"], ["p99", "number"], ["Failed", "number"], ["In flight", "number"],
  ["Memory", "half"], ["Restarts", "half"],
];

function createModel({ key }) {
  const button = make("button", "name");
  button.type = "button";
  const id = `inside-${rows.size}-${Math.random().toString(36).slice(2, 8)}`;
  button.setAttribute("aria-controls", id);
  const why = make("p", "why");
  const head = make("th", "", button, why);
  head.scope = "row";
  const cells = CELLS.map(([name, kind]) => {
    const cell = make("td", kind);
    if (name && kind !== "is") cell.dataset.name = name;
    cell.setAttribute("role", "cell");
    return cell;
  });
  head.setAttribute("role", "rowheader");
  const row = make("tr", "row", head, ...cells);
  const inside = make("td");
  inside.colSpan = CELLS.length + 1;
  inside.setAttribute("role", "cell");
  const detail = make("tr", "inside", inside);
  detail.id = id;
  for (const line of [row, detail]) line.setAttribute("role", "row");
  const root = make("tbody", "", row, detail);
  root.setAttribute("role", "rowgroup");
  button.addEventListener("click", () => {
    if (!open.delete(key)) open.add(key);
    showModels(versionsOf(status));
  });
  return { root, button, why, cells, detail, inside };
}

function updateModel(entry, { key, model, version }) {
  const isOpen = open.has(key) && version !== null;
  entry.button.setAttribute("aria-expanded", String(isOpen));
  entry.detail.hidden = !isOpen;
  const under = version ? [`version ${version.version}`, version.platform, places(version)] : [];
  fill(entry.button, make("span", "", make("b", "", model.name),
    under.length ? make("span", "under", under.filter(Boolean).join(" · ")) : null));
  const why = version ? version.reason : model.problem;
  setText(entry.why, why === "unloaded" ? "" : why);
  entry.why.hidden = entry.why.textContent === "";
  const [is, requests, p50, p99, failed, inFlight, memory, restarts] = entry.cells;
  const name = version ? stateOf(version) : model.enabled ? "UNAVAILABLE" : "unloaded";
  fill(is, version || model.enabled ? state(name) : make("span", "state idle", "Disabled"));
  const traffic = version && version.traffic;
  // On a narrow screen there is no room for what says nothing.
  const quiet = !traffic || (traffic.rate === 0 && traffic.in_flight + traffic.waiting === 0);
  for (const cell of [requests, p50, p99, failed, inFlight]) cell.classList.toggle("bare", quiet);
  memory.classList.toggle("bare", !version || !version.instances.some((i) => i.worker));
  restarts.classList.toggle("bare", !version || sum(version.instances, restartsOf) === 0);
  fill(requests, traffic ? make("div", "chart", spark(history.get(key)), make("span", traffic.rate ? "nowrap" : "nowrap zero", count(traffic.rate), make("span", "soft", " / s"))) : none());
  fill(p50, traffic ? latency(traffic.p50_us) : none());
  fill(p99, traffic ? latency(traffic.p99_us) : none());
  fill(failed, traffic ? share(traffic) : none());
  fill(inFlight, traffic ? make("span", traffic.in_flight ? "" : "zero", count(traffic.in_flight)) : none(),
    traffic && traffic.waiting ? make("span", "under", `${count(traffic.waiting)} waiting`) : null);
  fill(memory, ...memoryOf(version));
  fill(restarts, ...exitsOf(version));
  if (isOpen) fill(entry.inside, instances(version));
}

const none = () => make("span", "zero", "–");

function places(version) {
  const devices = version.instances.flatMap((i) => (i.worker && i.worker.device ? i.worker.device.devices : []));
  const all = status.devices.devices;
  const indices = [...new Set(devices)].map((id) => {
    const found = all.find((device) => device.id === id);
    return found ? found.index : id;
  });
  const workers = version.instances.filter((i) => i.worker).length;
  const where = indices.length ? `GPU\u00a0${indices.sort().join(", ")}` : workers ? "CPU" : "";
  const many = version.instances.length > 1 ? `${version.instances.filter((i) => i.state === "ready").length} of ${version.instances.length} instances` : "";
  return [where, many].filter(Boolean).join(" · ");
}

function share({ rate, failures }) {
  if (failures === 0) return make("span", "zero", "0");
  const percent = (failures / rate) * 100;
  return make("span", "hurt", percent < 0.1 ? "< 0.1 %" : `${tenth.format(percent)} %`);
}

function memoryOf(version) {
  const workers = version ? version.instances.map((i) => i.worker).filter(Boolean) : [];
  if (workers.length === 0) return [none()];
  // What the limit is held against, where anybody but the kernel holds it.
  const held = (worker) => (worker.memory_used === null ? worker.private_memory : worker.memory_used);
  const used = workers.every((w) => held(w) === null) ? null : sum(workers, held);
  const limit = workers.every((w) => w.memory_limit !== null) ? sum(workers, (w) => w.memory_limit) : null;
  const text = used === null ? "…" : bytes(used);
  if (limit === null) return [make("span", "nowrap", text)];
  return [make("span", "nowrap", text, make("span", "soft", ` of ${bytes(limit)}`)), bar([[used || 0, ""]], limit, "memory against its limit")];
}

function exitsOf(version) {
  const list = version ? version.instances : [];
  const restarts = sum(list, restartsOf);
  const last = list.map((i) => i.last_exit).filter((exit) => exit && !WANTED.includes(exit.kind));
  if (restarts === 0) return [make("span", "zero", "0")];
  const newest = last.sort((a, b) => b.at - a.at)[0];
  return [count(restarts), newest ? make("span", "under nowrap", newest.kind, ", ", ago(newest.at)) : null];
}

function spark(past) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const rates = past ? past.rates : [];
  const most = Math.max(1, ...rates);
  svg.setAttribute("class", "spark");
  const at = (rate, i) => `${KEPT - rates.length + i} ${(19 - (rate / most) * 18).toFixed(1)}`;
  const line = `M${rates.map(at).join("L")}`;
  const path = (d, kind) => {
    const element = document.createElementNS(ns, "path");
    if (kind) element.setAttribute("class", kind);
    element.setAttribute("d", d);
    svg.append(element);
  };
  path(`M0 19.5L${KEPT - 1} 19.5`, "ground");
  if (rates.some((rate) => rate > 0)) {
    path(`${line}L${KEPT - 1} 20L${KEPT - rates.length} 20Z`, "area");
    path(line);
  }
  return svg;
}

// Parts from left to right, each on top of the one before.
function bar(parts, all, label) {
  const element = make("span", "bar");
  const first = parts[0][0];
  element.setAttribute("role", "meter");
  element.setAttribute("aria-label", label);
  element.setAttribute("aria-valuemin", "0");
  element.setAttribute("aria-valuemax", String(all));
  element.setAttribute("aria-valuenow", String(first));
  element.setAttribute("aria-valuetext", `${bytes(first)} of ${bytes(all)}`);
  for (const [value, kind] of [...parts].reverse()) {
    const part = all > 0 ? Math.min(1, value / all) : 0;
    const fillKind = kind || (part > 0.95 ? "full" : part > 0.85 ? "much" : "");
    const piece = make("i", fillKind);
    piece.style.width = `${(part * 100).toFixed(1)}%`;
    element.append(piece);
  }
  return element;
}

function instances(version) {
  const table = make("table", "instances");
  table.append(make("caption", "unseen", "Instances"));
  const names = ["Instance", "State", "Process", "Memory", "Device", "Ends", "Last end"];
  const head = make("tr", "", ...names.map((name) => {
    const cell = make("th", "", name);
    cell.scope = "col";
    return cell;
  }));
  const lines = version.instances.map((instance) => {
    const cells = [
      [String(instance.index)],
      [make("div", "", state(instance.state), instance.reason ? make("span", "under", instance.reason) : null)],
      process(instance.worker),
      instance.worker ? [make("div", "", ...memoryOf({ instances: [instance] }), heldBy(instance.worker))] : [],
      onDevice(instance.worker),
      [Object.entries(instance.exits).map(([kind, n]) => `${kind} × ${n}`).join(", ")],
      lastExit(instance.last_exit),
    ];
    return make("tr", "", ...cells.map((content, i) => {
      const cell = make("td", content.join("") === "" ? "none" : "", ...content);
      cell.dataset.name = names[i];
      return cell;
    }));
  });
  table.append(make("thead", "", head), make("tbody", "", ...lines));
  return table;
}

function process(worker) {
  if (!worker) return [];
  return [make("div", "", make("span", "mono", String(worker.pid)),
    make("span", "under", `generation ${worker.generation}, up ${span(Date.now() - worker.started_at)}`),
    worker.confinement.length ? make("span", "under", `not confined in: ${worker.confinement.map((m) => m.name).join(", ")}`) : null)];
}

function heldBy(worker) {
  const by = worker.memory_limit !== null ? worker.limits.memory : "";
  return by ? make("span", "under", `held by ${by}`) : null;
}

function onDevice(worker) {
  const on = worker && worker.device;
  if (!on) return worker ? ["CPU"] : [];
  const used = on.used === null ? "unknown" : bytes(on.used);
  return [make("div", "", make("span", "nowrap", used, make("span", "soft", ` of ${bytes(on.quota)}`)),
    bar([[on.used || 0, ""]], on.quota, "device memory against its quota"),
    make("span", "under", `held by ${on.enforcement}`))];
}

function lastExit(exit) {
  if (!exit) return [];
  const lost = exit.in_flight ? `, with ${exit.in_flight} in flight` : "";
  return [make("div", "", exit.summary, make("span", "under", ago(exit.at), ` while ${exit.during}${lost}, after ${span(exit.alive_ms)}`))];
}

// ---- Devices

function showDevices({ driver, devices }) {
  const items = devices.map((device) => ({ key: device.id, device }));
  keyed(byId("devices"), deviceRows, items, () => ({ root: make("li") }), ({ root }, { device }) => {
    const part = (kind, text, value) => make("span", "", kind === null ? null : make("span", `key ${kind}`), text, make("span", "soft", ` ${value}`));
    const all = device.total || device.grantable;
    fill(root,
      make("div", "title", make("b", "", `GPU ${device.index}`), device.name,
        device.lost ? make("span", "state bad", "Lost") : device.suspect ? make("span", "state bad", "Suspect") : device.blind ? make("span", "state warn", "Blind") : null,
        make("span", "mono soft", device.id)),
      bar([[device.used || 0, "own"], [device.granted, "lent"]], all, "memory in use"),
      make("div", "ledger",
        part("", "in use", device.used === null ? "unknown" : bytes(device.used)),
        part("lent", "granted", `${bytes(device.granted)} of ${bytes(device.grantable)}`),
        part(null, "total", bytes(device.total)),
        device.busy_percent === null ? null : part(null, "busy", `${device.busy_percent} %`)));
  });
  const known = devices.length > 0;
  setText(byId("driver"), known ? `Driver: ${driver}` : `No GPU: ${driver}`);
}

// ---- Events

let heard = 0;

function live(kind, text) {
  byId("live").className = `live ${kind}`;
  setText(byId("live"), text);
  document.body.classList.toggle("stale", kind === "off");
}

function listen() {
  const source = new EventSource("events");
  source.onmessage = (event) => {
    try {
      const picture = JSON.parse(event.data);
      // Another version of the server has another page.
      if (status && status.server.version !== picture.server.version) location.reload();
      show(picture);
      heard = Date.now();
      live("on", "live");
    } catch (error) {
      live("off", "this page does not understand the server; reload it");
      throw error;
    }
  };
  source.onerror = () => {
    live("off", "no connection, trying again");
    // A browser gives up for good when it is refused.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}

setInterval(() => {
  if (heard && Date.now() - heard > 7000) live("off", "nothing heard for some seconds");
}, 1000);
byId("filter").querySelector("input").addEventListener("input", () => showModels(versionsOf(status)));
listen();
