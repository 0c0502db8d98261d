// Bars by hour on a canvas, by uPlot.

const COLOURS = { provisional: "#7a8699", final: "#1c5fb0", restated: "#b4500b" };
const STACK = ["final", "restated", "provisional"]; // from the ground up
const HEIGHT = 280;

// Of an axis: the day at midnight, else the hour.
function tick(seconds) {
  const text = new Date(seconds * 1000).toISOString();
  return text.slice(11, 16) === "00:00" ? text.slice(5, 10) : text.slice(11, 16);
}

// Stripes: what may still change, and what did, is told from what stands without its colour, too.
function stripes(colour, slope) {
  const tile = document.createElement("canvas");
  const scale = devicePixelRatio || 1;
  tile.width = tile.height = 8 * scale;
  const c = tile.getContext("2d");
  c.fillStyle = "#fff";
  c.fillRect(0, 0, tile.width, tile.height);
  c.strokeStyle = colour;
  c.lineWidth = (slope ? 3 : 2) * scale;
  for (const at of [-8, 0, 8]) {
    c.beginPath();
    c.moveTo(at * scale, slope ? 8 * scale : 0);
    c.lineTo((at + 8) * scale, slope ? 0 : 8 * scale);
    c.stroke();
  }
  return c.createPattern(tile, "repeat");
}

// all: [{at (ms), row or null, open}], a row with `parts`: by status its figures; a bar is its parts one on the other. until, to: ms.
// `point` hears of the hour under the pointer, or null. Returns what takes the chart away.
export function bars(place, all, metric, until, to, point) {
  const seconds = all.map((h) => h.at / 1000);
  const upTo = (i) => all.map((h) => h.row && STACK.slice(0, i + 1).reduce((sum, name) => sum + (h.row.parts[name]?.[metric] ?? 0), 0));
  const drawn = [2, 1, 0]; // the whole bar first, what lies below over it
  const path = uPlot.paths.bars({ size: [0.84, 60], align: 1 });
  const fill = { provisional: stripes(COLOURS.provisional, false), final: COLOURS.final, restated: stripes(COLOURS.restated, true) };
  const axis = { stroke: "#33415c", grid: { stroke: "#e3e8ef", width: 1 }, font: "13px system-ui, sans-serif" };
  const open = (u) => {
    const left = Math.max(u.bbox.left, u.valToPos(until / 1000, "x", true));
    const right = u.bbox.left + u.bbox.width;
    if (left >= right) return;
    u.ctx.save();
    u.ctx.fillStyle = "#f4f1e6";
    u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
    u.ctx.fillStyle = "#5b5540";
    u.ctx.font = `${13 * devicePixelRatio}px system-ui, sans-serif`;
    if (u.ctx.measureText(" not complete ").width < right - left) u.ctx.fillText("not complete", left + 6, u.bbox.top + 16 * devicePixelRatio);
    u.ctx.restore();
  };
  const chart = new uPlot({
    width: Math.max(280, place.clientWidth), height: HEIGHT, tzDate: (s) => uPlot.tzDate(new Date(s * 1000), "UTC"),
    legend: { show: false }, cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: { x: { range: () => [seconds[0], to / 1000] }, y: { range: (u, low, high) => [0, Math.max(1, high) * 1.05] } },
    axes: [{ ...axis, space: 64, values: (u, ticks) => ticks.map(tick) }, { ...axis, size: 72, values: (u, ticks) => ticks.map((n) => (Number.isInteger(n) ? n.toLocaleString("en") : "")) }],
    series: [{}, ...drawn.map((i) => ({ stroke: COLOURS[STACK[i]], width: 1, fill: () => fill[STACK[i]], paths: path, points: { show: false } }))],
    hooks: {
      drawClear: [open],
      setCursor: [(u) => point(u.cursor.idx === null || u.cursor.idx === undefined || u.cursor.left < 0 ? null : under(u))],
    },
  }, [seconds, ...drawn.map(upTo)], place);

  // A bar begins at its hour: the pointer is in the last that has begun, not the nearest.
  function under(u) {
    const at = u.posToVal(u.cursor.left, "x");
    let i = u.cursor.idx;
    if (seconds[i] > at) i -= 1;
    return all[Math.max(0, i)];
  }

  const resized = new ResizeObserver(() => chart.setSize({ width: Math.max(280, place.clientWidth), height: HEIGHT }));
  resized.observe(place);
  return () => {
    resized.disconnect();
    chart.destroy();
  };
}
