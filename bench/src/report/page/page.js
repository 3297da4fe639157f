"use strict";
// Draws the plots of the page from the data in it: one uPlot each, drawn anew when the colours change.
(() => {
  const { plots, styles } = JSON.parse(document.getElementById("data").textContent);
  const dashes = [[], [7, 4], [2, 3]];
  const font = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
  const root = document.documentElement;
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const styleOf = (contender) => styles[contender] ?? { colour: "--muted", dash: 0, strong: false };

  // Figures, as in the tables.
  const digits = (value) => String(+value.toPrecision(3));
  const scaled = (steps) => (value) => {
    const [by, unit] = steps.find(([by]) => Math.abs(value) >= by * 0.9995) ?? steps.at(-1);
    return digits(value / by) + unit;
  };
  const forms = {
    nanos: scaled([[1e9, " s"], [1e6, " ms"], [1e3, " µs"], [1, " ns"]]),
    rate: scaled([[1e9, " G/s"], [1e6, " M/s"], [1e3, " k/s"], [1, " /s"]]),
    count: scaled([[1e9, " G"], [1e6, " M"], [1e3, " k"], [1, ""]]),
    // 100 stands for 1 in 100: 99 %.
    percentile: (x) => {
      const places = Math.max(0, Math.ceil(Math.log10(x) - 1e-9) - 1);
      return +(100 - 100 / x).toFixed(places) + " %";
    },
  };

  // Round values of a logarithmic axis, as many as there is room for.
  const logSplits = (low, high, room) => {
    const all = (mantissas) => {
      const found = [];
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
        for (const m of mantissas) {
          const value = m * 10 ** e;
          if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
        }
      return found;
    };
    const choices = [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]].map(all);
    return choices.find((choice) => choice.length <= room) ?? choices.at(-1);
  };
  const spaced = (values, position, least) => {
    let last = -Infinity;
    return values.filter((value) => {
      const at = position(value);
      if (at - last < least) return false;
      last = at;
      return true;
    });
  };

  // One column of x for all lines of a view. Between two points a line has the value that is drawn there.
  const columns = (view) => {
    const xs = [...new Set(view.series.flatMap((one) => one.points.map((point) => point[0])))].sort((a, b) => a - b);
    const fx = view.x.log ? Math.log : (x) => x;
    const fy = view.y.log ? Math.log : (y) => y;
    const back = view.y.log ? Math.exp : (y) => y;
    const ys = view.series.map(({ points }) => {
      let next = 0;
      return xs.map((x) => {
        while (next < points.length && points[next][0] < x) next++;
        if (next === points.length) return null;
        const [x1, y1] = points[next];
        if (x1 === x) return y1;
        if (next === 0) return null;
        const [x0, y0] = points[next - 1];
        return back(fy(y0) + ((fy(y1) - fy(y0)) * (fx(x) - fx(x0))) / (fx(x1) - fx(x0)));
      });
    });
    return [xs, ...ys];
  };

  const range = (view, data) => {
    const ends = view.series.flatMap((one) => one.points.flatMap((point) => point[2] ?? [point[1]]));
    const low = Math.min(...ends), high = Math.max(...ends);
    return view.y.log ? [low / 1.2, high * 1.25] : [0, high * 1.08 || 1];
  };

  // The slowest and the fastest round of each point.
  const whiskers = (view) => (u) => {
    const c = u.ctx, px = devicePixelRatio;
    c.save();
    c.lineWidth = 1.25 * px;
    view.series.forEach((one, i) => {
      if (!u.series[i + 1].show) return;
      c.strokeStyle = css(styleOf(one.contender).colour);
      for (const [x, , ends] of one.points) {
        if (!ends) continue;
        const at = u.valToPos(x, "x", true), [a, b] = ends.map((end) => u.valToPos(end, "y", true));
        c.beginPath();
        c.moveTo(at, a); c.lineTo(at, b);
        for (const end of [a, b]) { c.moveTo(at - 3 * px, end); c.lineTo(at + 3 * px, end); }
        c.stroke();
      }
    });
    c.restore();
  };

  const short = (name) => (name.length > 22 ? `${name.slice(0, 21)}…` : name);

  // Each line's name where it ends, where there is room to the right.
  const names = (view, data, wide) => (u) => {
    if (!wide) return;
    const c = u.ctx, px = devicePixelRatio, gap = 15 * px;
    const right = u.bbox.left + u.bbox.width;
    const ends = view.series.flatMap((one, i) => {
      if (!u.series[i + 1].show) return [];
      const last = data[i + 1].findLastIndex((y) => y !== null);
      return last < 0 ? [] : [{ one, y: u.valToPos(data[i + 1][last], "y", true), x: u.valToPos(data[0][last], "x", true) }];
    }).sort((a, b) => a.y - b.y);
    ends.forEach((end, i) => { end.at = Math.max(end.y, i ? ends[i - 1].at + gap : u.bbox.top); });
    let floor = u.bbox.top + u.bbox.height;
    for (const end of ends.toReversed()) { end.at = Math.min(end.at, floor); floor = end.at - gap; }
    c.save();
    c.textBaseline = "middle";
    c.textAlign = "left";
    for (const { one, x, y, at } of ends) {
      const style = styleOf(one.contender);
      c.font = `${style.strong ? 650 : 400} ${12 * px}px ${font}`;
      c.fillStyle = c.strokeStyle = css(style.colour);
      c.globalAlpha = 0.35;
      c.lineWidth = px;
      c.beginPath();
      c.moveTo(x, y); c.lineTo(right, y); c.lineTo(right + 8 * px, at);
      c.stroke();
      c.globalAlpha = 1;
      c.fillText(short(one.contender), right + 12 * px, at);
    }
    c.restore();
  };

  // The values under the pointer, largest first.
  const tooltip = (view, data) => {
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    return {
      hooks: {
        init: (u) => u.over.append(tip),
        setCursor: (u) => {
          const { idx, left, top } = u.cursor;
          const lines = idx == null || left < 0 ? [] : view.series
            .map((one, i) => ({ one, y: u.series[i + 1].show ? data[i + 1][idx] : null }))
            .filter(({ y }) => y !== null)
            .sort((a, b) => b.y - a.y);
          tip.hidden = lines.length === 0;
          if (tip.hidden) return;
          const head = document.createElement("b");
          head.textContent = `${forms[view.x.unit](data[0][idx])}${view.x.unit === "percentile" ? "" : ` ${view.x.label}`}`;
          tip.replaceChildren(head, ...lines.map(({ one, y }) => {
            const line = document.createElement("div"), dot = document.createElement("i");
            const name = document.createElement("span"), value = document.createElement("span");
            dot.className = "dot";
            dot.style.margin = "0";
            dot.style.setProperty("--c", `var(${styleOf(one.contender).colour})`);
            name.textContent = one.contender;
            const ends = one.points.find((point) => point[0] === data[0][idx])?.[2];
            value.textContent = forms[view.y.unit](y) + (ends ? ` (${ends.map(forms[view.y.unit]).join(" – ")})` : "");
            line.append(dot, name, value);
            return line;
          }));
          const width = u.over.clientWidth, w = tip.offsetWidth, h = tip.offsetHeight;
          tip.style.left = `${Math.max(Math.min(left + 14 + w > width ? left - w - 14 : left + 14, width - w), -40)}px`;
          tip.style.top = `${Math.max(0, Math.min(top - h / 2, u.over.clientHeight - h))}px`;
        },
      },
    };
  };

  const draw = (place, plot, view, width) => {
    const data = columns(view);
    const wide = width >= 620;
    const c = document.createElement("canvas").getContext("2d");
    c.font = `650 12px ${font}`;
    const room = wide ? Math.max(...view.series.map((one) => c.measureText(short(one.contender)).width)) + 20 : 22;
    const [muted, line, ground] = ["--muted", "--line", "--card"].map(css);
    const axis = { stroke: muted, font: `12px ${font}`, labelFont: `12px ${font}`, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    const xs = data[0];
    const few = view.x.unit !== "percentile" && xs.length <= 8;
    const xSplits = (u, _, low, high) => {
      let values = logSplits(low, high, 40);
      if (view.x.unit === "percentile") values = [1, 2, ...logSplits(low, high, 1).filter((x) => x > 5)].filter((x) => x <= high);
      else if (few) values = xs;
      else if (!view.x.log) values = xs;
      return spaced(values, (x) => u.valToPos(x, "x"), view.x.unit === "percentile" ? 52 : 48);
    };
    const height = wide ? 380 : 300;
    const [low, high] = range(view, data);
    return new uPlot({
      width, height,
      padding: [10, room, 0, 0],
      cursor: { drag: { x: false, y: false, setScale: false }, y: false, points: { size: 7 } },
      legend: {
        live: false,
        markers: {
          width: (u, i) => (styleOf(view.series[i - 1]?.contender).strong ? 3 : 2),
          dash: (u, i) => ["solid", "dashed", "dotted"][styleOf(view.series[i - 1]?.contender).dash],
        },
      },
      scales: {
        x: { time: false, distr: view.x.log ? 3 : 1, range: (u, a, b) => (view.x.log ? [a, a === b ? b * 10 : b * (few ? 1.08 : 1)] : [Math.min(0, a), b * 1.04]) },
        y: { distr: view.y.log ? 3 : 1, range: () => [low, high] },
      },
      axes: [
        { ...axis, label: view.x.label, labelSize: 20, size: 30, splits: xSplits, filter: (u, s) => s, values: (u, s) => s.map(forms[view.x.unit]), grid: { show: false } },
        {
          ...axis, label: view.y.label, labelSize: 20, size: 58, values: (u, s) => s.map((v) => (v === 0 ? "0" : forms[view.y.unit](v))), filter: (u, s) => s,
          ...(view.y.log ? { splits: (u, _, a, b) => logSplits(a, b, height / 40) } : { space: 44 }),
        },
      ],
      series: [
        {},
        ...view.series.map((one) => {
          const style = styleOf(one.contender), colour = css(style.colour);
          return {
            label: one.contender, stroke: colour, width: style.strong ? 3 : 1.6, dash: dashes[style.dash], spanGaps: false,
            points: {
              show: view.x.unit !== "percentile", size: style.strong ? 9 : 7, fill: style.dash ? ground : colour, stroke: colour, width: 1.6,
              // Only what was measured, not where the line meets another's x.
              filter: (u, i, show) => (show ? one.points.map(([x]) => xs.indexOf(x)) : null),
            },
          };
        }),
      ],
      hooks: { draw: [whiskers(view), names(view, data, wide)] },
      plugins: [tooltip(view, data)],
    }, data, place);
  };

  document.getElementById("plots")?.removeAttribute("hidden");
  const redraws = plots.map((plot) => {
    const figure = document.getElementById(plot.id);
    const place = document.createElement("div");
    place.className = "draw";
    let view = plot.views[0], drawn = null, width = 0;
    const redraw = () => {
      drawn?.destroy();
      width = Math.floor(place.clientWidth);
      drawn = draw(place, plot, view, width);
      drawn.ctx.canvas.setAttribute("role", "img");
      drawn.ctx.canvas.setAttribute("aria-label", `${plot.title}: ${view.name}`);
    };
    if (plot.views.length > 1) {
      const label = document.createElement("label"), select = document.createElement("select");
      label.append(plot.choice, select);
      select.append(...plot.views.map((one, i) => new Option(one.name, i)));
      select.addEventListener("change", () => { view = plot.views[select.value]; redraw(); });
      figure.append(label);
    }
    figure.append(place);
    redraw();
    new ResizeObserver(() => { if (Math.floor(place.clientWidth) !== width) redraw(); }).observe(place);
    return redraw;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((redraw) => redraw()));
})();
