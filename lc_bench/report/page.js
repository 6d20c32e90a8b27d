// Curves, ranking, speed: one set of hidden curves acts on everything. What samples show is in samples.js.
"use strict";
const report = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const curves = report.curves, metrics = report.metrics, main = metrics[0];
const hidden = new Set();
const redraws = [];  // what to call when curves are shown or hidden, or colours change
const missing = "–";

// element("td", { textContent: "x" }, child, ...): attributes with a dash in their names are set as such.
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "for" || key === "style") made.setAttribute(key, value); else made[key] = value;
  }
  made.append(...children);
  return made;
}
const fixed = (value, digits) => value === null ? missing : value.toFixed(digits);
const percent = value => value === null ? missing : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1) + " %";
const signed = value => value === null ? missing : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
const mean = values => {
  const known = values.filter(v => v !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
};
function range(values, digits) {
  const known = values.filter(v => v !== null);
  if (!known.length) return missing;
  const low = Math.min(...known).toFixed(digits), high = Math.max(...known).toFixed(digits);
  return low === high ? low : low + " … " + high;
}
// Black and the anchor's grey would vanish in the dark.
const colour = curve => curve.colour === "#000000" ? ink("--ink") : curve.colour;
const shown = curve => !hidden.has(curve.name);

function toggle(name) {
  if (!hidden.delete(name)) hidden.add(name);
  refresh();
}
function refresh() {
  for (const redraw of redraws) redraw();
}

// Plots -----------------------------------------------------------------------------------------------------------------
const DASH = { learned: "solid", anchor: "dash", published: "dot" };
const axis = (text, type) => ({ title: { text, standoff: 8 }, type, gridcolor: ink("--line"), zeroline: false, linecolor: ink("--line"), automargin: true });
// Powers of ten with 2 and 5 between: few enough for a phone.
const logAxis = text => ({ ...axis(text, "log"), dtick: "D2", exponentformat: "none", tickformat: ".3~g" });
function layout(x, y) {
  return {
    margin: { l: 52, r: 12, t: 16, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink("--ink"), size: 12 },
    xaxis: x, yaxis: y, hovermode: "closest", showlegend: false,
    hoverlabel: { bgcolor: ink("--panel"), bordercolor: ink("--line"), font: { color: ink("--ink") } },
  };
}
const draw = (place, traces, look) => Plotly.react(place, traces, look, { responsive: true, displayModeBar: false });
function line(curve, x, y, text, template) {
  return {
    x, y, text, name: curve.name, mode: "lines+markers", connectgaps: false,
    line: { color: colour(curve), dash: DASH[curve.kind], width: curve.kind === "learned" ? 3 : 1.5 },
    marker: { color: colour(curve), symbol: curve.symbol, size: curve.kind === "learned" ? 8 : 6 },
    hovertemplate: template + "<extra>" + escaped(curve.name) + "</extra>",
  };
}
const escaped = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
// A line between two points is bent where the rate is logarithmic: it is drawn in steps.
function hullLine(curve, metric) {
  const at = curve.hull[metric], x = [], y = [], steps = 16;
  for (let i = 0; i + 1 < at.length; i++) {
    for (let k = i ? 1 : 0; k <= steps; k++) {
      const share = k / steps, mix = values => (1 - share) * values[at[i]] + share * values[at[i + 1]];
      x.push(mix(curve.bpp));
      y.push(mix(curve.values[metric]));
    }
  }
  return {
    x, y, name: curve.name + ", hull", mode: "lines", hoverinfo: "skip", fill: "none",
    line: { color: colour(curve), width: curve.kind === "learned" ? 9 : 6 }, opacity: 0.3,
  };
}
function rateAxis() {
  const text = "bits per " + report.unit;
  return byId("log-rate").checked ? logAxis(text) : { ...axis(text), rangemode: "tozero" };
}
const levelOf = curve => curve.levels.map(level => curve.kind === "published" ? "" : ", level " + escaped(String(level)));

for (const metric of metrics) {
  const place = element("div", { className: "plot", id: "plot-" + metric.key, role: "img", "aria-label": metric.label + " over rate" });
  byId("rd").append(place);
  redraws.push(() => {
    const traces = [], known = curves.filter(c => shown(c) && c.values[metric.key].some(v => v !== null));
    if (byId("hull").checked) traces.push(...known.map(c => hullLine(c, metric.key)));
    traces.push(...known.map(c => line(c, c.bpp, c.values[metric.key], levelOf(c), "%{y:.2f} dB at %{x:.3f} bpp%{text}")));
    draw(place, traces, layout(rateAxis(), axis(metric.label)));
  });
}
byId("hull").addEventListener("change", refresh);
byId("log-rate").addEventListener("change", refresh);
byId("all").addEventListener("click", () => { hidden.clear(); refresh(); });
byId("none").addEventListener("click", () => { curves.forEach(c => hidden.add(c.name)); refresh(); });

for (const curve of curves) {
  const swatch = element("span", { className: "swatch " + curve.kind });
  const chip = element("button", { type: "button", className: "chip", title: curve.note }, swatch, curve.name);
  chip.addEventListener("click", () => toggle(curve.name));
  byId("chips").append(chip);
  redraws.push(() => {
    swatch.style.setProperty("--colour", colour(curve));
    chip.setAttribute("aria-pressed", shown(curve));
  });
}

// Ranking ---------------------------------------------------------------------------------------------------------------
const delta = (pair, say) => [element("span", { textContent: say(pair[0]) }), element("small", { textContent: pair[1] })];
const costOf = (curve, side) => curve.costs[side + "_kmacs_px"] ?? curve.costs[side + "_kmacs_point"] ?? null;
// heading, what it is sorted by, what the cell shows, what the CSV says
const columns = [
  ["codec", c => c.name, null, c => c.name],
  ...metrics.map(m => ["BD-rate, " + m.short, c => c.bd[m.key][0], c => delta(c.bd[m.key], percent), c => c.bd[m.key][0], c => c.bd[m.key][1]]),
  ["BD-" + main.short + " (dB)", c => c.quality[0], c => delta(c.quality, signed), c => c.quality[0], c => c.quality[1]],
  ["bpp", c => mean(c.bpp), c => [range(c.bpp, 3)], c => mean(c.bpp)],
  [main.label, c => mean(c.values[main.key]), c => [range(c.values[main.key], 2)], c => mean(c.values[main.key])],
  ["encode (s)", c => mean(c.encode_s), c => [range(c.encode_s, 3)], c => mean(c.encode_s)],
  ["decode (s)", c => mean(c.decode_s), c => [range(c.decode_s, 3)], c => mean(c.decode_s)],
  ["kMACs/" + report.unit, c => costOf(c, "decoder"), c => [fixed(costOf(c, "decoder"), 1)], c => costOf(c, "decoder")],
];
const order = { column: null, falling: false };

function rankingRow(curve) {
  const box = element("input", { type: "checkbox", checked: shown(curve) });
  box.addEventListener("change", () => toggle(curve.name));
  const swatch = element("span", { className: "swatch " + curve.kind });
  swatch.style.setProperty("--colour", colour(curve));
  const name = element("td", { className: "name", title: curve.note }, element("label", {}, box, swatch, curve.name));
  const cells = columns.slice(1).map(([, , cell]) => element("td", {}, ...cell(curve)));
  return element("tr", { className: curve.kind + (shown(curve) ? "" : " hidden"), "data-codec": curve.name }, name, ...cells);
}
function sorted() {
  if (order.column === null) return curves;
  const by = columns[order.column][1], way = order.falling ? -1 : 1;
  return [...curves].sort((a, b) => {
    const [x, y] = [by(a), by(b)];
    if (x === null || y === null) return (x === null) - (y === null);  // what there is none of comes last, either way
    return way * (typeof x === "string" ? x.localeCompare(y) : x - y);
  });
}
function ranking() {
  const held = document.activeElement?.closest?.("#ranking tr")?.dataset.codec;
  byId("ranking").tBodies[0].replaceChildren(...sorted().map(rankingRow));
  if (held) [...byId("ranking").tBodies[0].rows].find(row => row.dataset.codec === held)?.querySelector("input").focus();
  [...byId("ranking").tHead.rows[0].cells].forEach((head, i) =>
    head.setAttribute("aria-sort", i === order.column ? (order.falling ? "descending" : "ascending") : "none"));
}
byId("ranking").tHead.append(element("tr", {}, ...columns.map(([heading], i) => {
  const button = element("button", { type: "button", textContent: heading });
  button.addEventListener("click", () => {
    order.falling = order.column === i && !order.falling;
    order.column = i;
    ranking();
  });
  return element("th", { className: i ? "" : "name", scope: "col" }, button);
})));
redraws.push(ranking);

// Speed and complexity --------------------------------------------------------------------------------------------------
const many = report.unit === "pixel" ? ["megapixels per second", 1e6] : ["thousand points per second", 1e3];
byId("speed-as").append(new Option("seconds per sample", "s"), new Option(many[0], "many"));
function speedPlot(place, side) {
  const perSample = byId("speed-as").value === "s", overRate = byId("speed-against").value === "bpp", key = side + "_s";
  const value = (curve, seconds) => seconds === null || seconds <= 0 ? null : perSample ? seconds : curve.units / many[1] / seconds;
  const timed = curves.filter(c => shown(c) && c[key].some(v => v !== null) && (perSample || c.units));
  const traces = timed.filter(c => overRate || c.bd[main.key][0] !== null).map(c => {
    const y = overRate ? c[key].map(v => value(c, v)) : [value(c, mean(c[key]))];
    const x = overRate ? c.bpp : [c.bd[main.key][0]];
    return { ...line(c, x, y, levelOf(c), overRate ? "%{y:.3~g} at %{x:.3f} bpp%{text}" : "%{y:.3~g} at %{x:.1f} %"), ...(overRate ? {} : { mode: "markers" }) };
  });
  const word = side === "encode" ? "Encoding" : "Decoding";
  const x = overRate ? rateAxis() : axis("BD-rate, " + main.short + " (%)");
  draw(place, traces, layout(x, logAxis(word + (perSample ? " (seconds per sample)" : " (" + many[0] + ")"))));
}
function complexityPlot(place) {
  const counted = curves.filter(c => costOf(c, "decoder") && c.bd[main.key][0] !== null);
  const most = Math.max(...counted.map(c => c.costs.parameters ?? 0), 1);
  const traces = counted.filter(shown).map(c => ({
    x: [costOf(c, "decoder")], y: [c.bd[main.key][0]], name: c.name, mode: "markers+text", text: [escaped(c.name)], textposition: "top center", cliponaxis: false,
    marker: { color: colour(c), size: 12 + 28 * Math.sqrt((c.costs.parameters ?? 0) / most), opacity: 0.75, line: { color: ink("--page"), width: 1 } },
    hovertemplate: `%{x:.1f} kMACs/${report.unit} (encoder ${fixed(costOf(c, "encoder"), 1)}), %{y:.1f} %, ` +
      `${((c.costs.parameters ?? 0) / 1e6).toFixed(1)} M parameters<extra>${escaped(c.name)}</extra>`,
  }));
  const look = layout(logAxis("decoder kMACs per " + report.unit), { ...axis("BD-rate, " + main.short + " (%)"), rangemode: "tozero" });
  const costs = counted.map(c => Math.log10(costOf(c, "decoder")));
  if (costs.length) look.xaxis.range = [Math.min(...costs) - 0.5, Math.max(...costs) + 0.5];
  else {
    look.xaxis.visible = look.yaxis.visible = false;
    look.annotations = [{ text: "no codec here has both<br>operations counted and a BD-rate", showarrow: false, x: 0.5, y: 0.5, xref: "paper", yref: "paper" }];
  }
  draw(place, traces, look);
}
for (const [id, label, plot] of [
  ["plot-encode", "Encoding speed", place => speedPlot(place, "encode")],
  ["plot-decode", "Decoding speed", place => speedPlot(place, "decode")],
  ["plot-complexity", "BD-rate over complexity of the decoder; area: parameters", complexityPlot],
]) {
  const place = element("div", { className: "plot", id, role: "img", "aria-label": label });
  byId("speed").append(place);
  redraws.push(() => plot(place));
}
byId("speed-as").addEventListener("change", refresh);
byId("speed-against").addEventListener("change", refresh);
const uncounted = curves.filter(c => costOf(c, "decoder") === null).map(c => c.name);
byId("uncounted").textContent = "The area of a bubble is the number of parameters." +
  (uncounted.length ? " Operations are not counted for " + uncounted.join(", ") + "." : "");
byId("uncounted").hidden = false;

const places = new Set(curves.filter(c => c.kind !== "published").flatMap(c => c.stamps));
if (places.size > 1) {
  byId("machines").textContent = "Seconds were measured on different machines or versions and do not compare: see below which.";
  byId("machines").hidden = false;
}
byId("made").tHead.append(element("tr", {}, ...["codec", "machine and torch", "version, source"].map(t => element("th", { className: "name", scope: "col", textContent: t }))));
byId("made").tBodies[0].append(...curves.map(c => element("tr", {},
  element("td", { className: "name", textContent: c.name }),
  element("td", { className: "name wide", textContent: c.stamps.join("; ") || (c.kind === "published" ? "as published" : missing) }),
  element("td", { className: "name wide", textContent: c.note }))));

// CSV: every digit, as the records have it ------------------------------------------------------------------------------
const field = value => value === null ? "" : /[",\n\r]/.test(String(value)) ? '"' + String(value).replaceAll('"', '""') + '"' : String(value);
function save(name, rows) {
  const blob = new Blob([rows.map(row => row.map(field).join(",") + "\n").join("")], { type: "text/csv" });
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
const records = {
  names: report.records.columns.map(c => c.name), count: report.records.count,
  column: name => report.records.columns.find(c => c.name === name),
  at: (column, i) => column.choices ? column.choices[column.values[i]] : column.values[i],
  get: (name, i) => { const c = records.column(name); return c ? records.at(c, i) : null; },
};
byId("save-records").addEventListener("click", () => {
  const all = report.records.columns;
  save("records.csv", [records.names, ...Array.from({ length: records.count }, (_, i) => all.map(c => records.at(c, i)))]);
});
byId("save-ranking").addEventListener("click", () => {
  const heads = columns.flatMap(([heading, , , , interval]) => interval ? [heading, heading + ", interval"] : [heading]);
  const row = c => columns.flatMap(([, , , value, interval]) => interval ? [value(c), interval(c)] : [value(c)]);
  save("ranking.csv", [heads, ...sorted().map(row)]);
});
