// One sample: its own curves, original and decoded beside each other, in 3D for clouds; and the table of all records.
const fill = (select, values) => select.replaceChildren(...values.map(v => new Option(v, v)));
const distinct = name => [...new Set(Array.from({ length: records.count }, (_, i) => records.get(name, i)))];
const inDb = { "ms-ssim-rgb": v => v < 1 ? -10 * Math.log10(1 - v) : null, "chamfer": v => v > 0 ? -10 * Math.log10(v) : null };

// Its rate and distortion -----------------------------------------------------------------------------------------------
const sample = byId("sample"), sampleMetric = byId("sample-metric");
fill(sample, distinct("image"));
sampleMetric.append(...metrics.map(m => new Option(m.short, m.key)));
const rowsOf = new Map();
for (let i = 0; i < records.count; i++) {
  const name = records.get("image", i);
  rowsOf.set(name, [...(rowsOf.get(name) ?? []), i]);
}
function samplePlot() {
  const metric = metrics.find(m => m.key === sampleMetric.value), rows = rowsOf.get(sample.value);
  const traces = curves.filter(shown).map(c => {
    const own = rows.filter(i => records.get("codec", i) === c.name).sort((i, k) => records.get("bpp", i) - records.get("bpp", k));
    const values = own.map(i => records.get(metric.key, i)).map(v => typeof v === "number" ? (inDb[metric.key]?.(v) ?? (inDb[metric.key] ? null : v)) : null);
    return line(c, own.map(i => records.get("bpp", i)), values, own.map(i => "level " + escaped(String(records.get("level", i)))), "%{y:.2f} dB at %{x:.3f} bpp, %{text}");
  }).filter(trace => trace.y.some(v => v !== null));
  draw(byId("sample-plot"), traces, layout(rateAxis(), axis(metric.label)));
}
redraws.push(samplePlot);
sample.addEventListener("change", samplePlot);
sampleMetric.addEventListener("change", samplePlot);

// Two pictures and where they meet --------------------------------------------------------------------------------------
const stage = byId("stage");
if (stage) {
  const pair = stage.querySelector(".pair"), cut = byId("cut"), real = byId("real"), left = byId("left"), right = byId("right");
  const [leftCaption, rightCaption] = byId("captions").children;
  const choices = () => report.pictures[sample.value] ?? [];
  const none = byId("no-picture");
  function setCut(percentage) {
    cut.value = Math.min(100, Math.max(0, percentage));
    pair.style.setProperty("--cut", cut.value + "%");
  }
  function choose() {
    const names = choices().map(p => p.caption), keep = [left.selectedIndex, right.selectedIndex];
    none.hidden = names.length > 0;
    byId("comparison").hidden = names.length === 0;
    fill(left, names);
    fill(right, names);
    left.selectedIndex = keep[0] >= 0 && keep[0] < names.length ? keep[0] : 0;
    right.selectedIndex = keep[1] >= 0 && keep[1] < names.length ? keep[1] : Math.min(1, names.length - 1);
    compare();
  }
  function compare() {
    [[left, leftCaption], [right, rightCaption]].forEach(([select, caption], i) => {
      const picture = choices()[select.selectedIndex];
      if (!picture) return;
      pair.children[i].src = picture.uri;
      pair.children[i].alt = sample.value + ", " + picture.caption;
      caption.textContent = picture.caption;
    });
  }
  function size() {  // one pixel of the picture on one of the screen
    stage.classList.toggle("real", real.checked);
    pair.style.setProperty("--real", pair.children[0].naturalWidth / window.devicePixelRatio + "px");
  }
  const follow = event => {
    const box = pair.getBoundingClientRect();
    setCut(100 * (event.clientX - box.left) / box.width);
  };
  pair.addEventListener("pointerdown", event => {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    event.preventDefault();
    pair.setPointerCapture(event.pointerId);
    follow(event);
  });
  pair.addEventListener("pointermove", event => { if (pair.hasPointerCapture(event.pointerId)) follow(event); });
  cut.addEventListener("input", () => setCut(Number(cut.value)));
  sample.addEventListener("change", choose);
  left.addEventListener("change", compare);
  right.addEventListener("change", compare);
  real.addEventListener("change", size);
  pair.children[0].addEventListener("load", size);
  choose();
}

// Clouds ----------------------------------------------------------------------------------------------------------------
const solids = byId("solids");
if (solids) {
  const pick = byId("solid"), views = ["left", "right"].map(side => ({ select: byId(side + "-solid"), view: byId(side + "-view") }));
  const points = cloud => {
    const bytes = Uint8Array.from(atob(cloud.data), c => c.charCodeAt(0)), values = new Uint16Array(bytes.buffer);
    return [0, 1, 2].map(a => Float32Array.from({ length: values.length / 3 }, (_, i) => cloud.low[a] + cloud.step * values[3 * i + a]));
  };
  let camera = { eye: { x: 1.2, y: -1.4, z: 0.8 } };
  // Both views have the original's box and camera: what differs is the cloud.
  function show() {
    const clouds = report.solids[pick.value], original = points(clouds.original);
    const ranges = original.map(v => v.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]));
    views.forEach(({ select, view }, place) => {
      const [x, y, z] = points(clouds[select.value]), side = extent => ({ visible: false, range: extent });
      const marker = { size: x.length > 2048 ? 1.2 : 2.2, color: z, colorscale: "Viridis", cmin: ranges[2][0], cmax: ranges[2][1] };
      const scene = { xaxis: side(ranges[0]), yaxis: side(ranges[1]), zaxis: side(ranges[2]), aspectmode: "data", camera };
      const look = { margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", scene };
      const trace = { type: "scatter3d", mode: "markers", x, y, z, marker, hoverinfo: "skip" };
      draw(view, [trace], look).then(() => {
        view.removeAllListeners("plotly_relayout");
        view.on("plotly_relayout", moved => {
          if (moved["scene.camera"] && JSON.stringify(moved["scene.camera"]) !== JSON.stringify(camera)) {
            camera = moved["scene.camera"];
            Plotly.relayout(views[1 - place].view, { "scene.camera": camera });
          }
        });
      });
    });
  }
  function chooseCloud() {
    const names = Object.keys(report.solids[pick.value]);
    views.forEach(({ select }, place) => { fill(select, names); select.value = names[Math.min(place, names.length - 1)]; });
    if (solids.open) show();
  }
  fill(pick, Object.keys(report.solids));
  chooseCloud();
  pick.addEventListener("change", chooseCloud);
  views.forEach(({ select }) => select.addEventListener("change", show));
  solids.addEventListener("toggle", () => { if (solids.open) show(); });
}

// All records -----------------------------------------------------------------------------------------------------------
const codec = byId("codec"), level = byId("level");
const picked = () => Array.from({ length: records.count }, (_, i) => i).filter(i => records.get("codec", i) === codec.value);
function table() {
  const columnsShown = report.shown.filter(([name]) => records.column(name));
  const say = (value, digits) => typeof value === "number" && digits !== null
    ? value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : value ?? missing;
  const line = i => element("tr", {}, ...columnsShown.map(([name, digits], k) =>
    element("td", { className: k ? "" : "name", textContent: say(records.get(name, i), digits) })));
  byId("images").tHead.replaceChildren(element("tr", {}, ...columnsShown.map(([name], k) =>
    element("th", { className: k ? "" : "name", scope: "col", textContent: name }))));
  byId("images").tBodies[0].replaceChildren(...picked().filter(i => String(records.get("level", i)) === level.value).map(line));
}
function levels() {
  fill(level, [...new Set(picked().map(i => records.get("level", i)))]);
  table();
}
fill(codec, distinct("codec"));
codec.addEventListener("change", levels);
level.addEventListener("change", table);
levels();

refresh();
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
