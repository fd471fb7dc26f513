// Draws every element with data-chart. The data is plain (docs/console.md, Charts); colours come from the stylesheet.
"use strict";
(() => {
  const drawn = new Map();
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const palette = () => [1, 2, 3, 4, 5, 6].map((number) => color(`chart-${number}`));

  const short = (value) => {
    const size = Math.abs(value);
    for (const [step, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (size >= step) return `${Number((value / step).toPrecision(4))}${letter}`;
    }
    return String(Number(value.toPrecision(4)));
  };
  // Figures with more digits than a chart draws come with their exact text in `exact`.
  const told = (value, unit) => `${short(value)}${unit ? `\u202f${unit}` : ""}`;

  const base = () => ({
    animation: false,
    color: palette(),
    textStyle: { color: color("muted"), fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 13 },
    aria: { enabled: true },
    grid: { left: 10, right: 12, top: 34, bottom: 4, containLabel: true },
  });

  const tooltip = (extra) => ({
    backgroundColor: color("raised"),
    borderColor: color("line"),
    textStyle: { color: color("ink") },
    confine: true,
    ...extra,
  });

  const axisLine = () => ({ lineStyle: { color: color("line-strong") } });

  // {kind: "line" | "bar" | "area", x: [..], series: [{name, data, exact?}], unit, stack}
  const series = (data) => ({
    ...base(),
    grid: { ...base().grid, top: data.series.length > 1 && data.unit ? 56 : 34 },
    legend: data.series.length > 1
      ? { top: 0, left: 0, type: "scroll", icon: "roundRect", itemWidth: 12, itemHeight: 8, textStyle: { color: color("muted") } }
      : undefined,
    tooltip: tooltip({
      trigger: "axis",
      formatter: (points) => {
        const box = document.createElement("div");
        box.append(points[0].axisValueLabel);
        for (const point of points) {
          const line = document.createElement("div");
          const exact = data.series[point.seriesIndex].exact;
          const value = exact ? `${exact[point.dataIndex]}\u202f${data.unit || ""}` : told(point.value ?? 0, data.unit);
          line.textContent = `${point.seriesName}: ${point.value == null ? "–" : value}`;
          box.append(line);
        }
        return box;
      },
    }),
    xAxis: {
      type: "category",
      data: data.x,
      axisLabel: { color: color("muted") },
      axisLine: axisLine(),
      axisTick: { show: false },
      boundaryGap: data.kind === "bar",
    },
    yAxis: {
      type: "value",
      name: data.unit || "",
      nameTextStyle: { align: "left", color: color("faint") },
      minInterval: data.whole ? 1 : undefined,
      scale: Boolean(data.scale),
      axisLabel: { formatter: short, color: color("muted") },
      splitLine: { lineStyle: { color: color("line") } },
    },
    series: data.series.map((each) => ({
      name: each.name,
      type: data.kind === "bar" ? "bar" : "line",
      data: each.data,
      stack: data.stack ? "all" : undefined,
      barMaxWidth: 34,
      showSymbol: each.data.length < 3,
      lineStyle: { width: 2 },
      areaStyle: data.kind === "area" ? { opacity: 0.22 } : undefined,
    })),
  });

  // {kind: "heatmap", x: [..], y: [..], cells: [[x, y, value]], middle, unit}: above and below the middle, in two colours
  const heatmap = (data) => {
    const values = data.cells.map((cell) => cell[2]);
    const reach = Math.max(...values.map((value) => Math.abs(value - data.middle)), data.middle * 0.1);
    return {
      ...base(),
      grid: { left: 10, right: 12, top: 8, bottom: 58, containLabel: true },
      tooltip: tooltip({
        formatter: (point) => {
          const box = document.createElement("div");
          box.textContent = `${data.y[point.value[1]]}, ${data.x[point.value[0]]}: ${told(point.value[2], data.unit)}`;
          return box;
        },
      }),
      xAxis: { type: "category", data: data.x, axisLine: axisLine(), axisTick: { show: false }, splitArea: { show: false } },
      yAxis: { type: "category", data: data.y, axisLine: axisLine(), axisTick: { show: false } },
      visualMap: {
        min: data.middle - reach,
        max: data.middle + reach,
        orient: "horizontal",
        left: "center",
        bottom: 0,
        calculable: false,
        text: ["more", "less"],
        textStyle: { color: color("muted") },
        inRange: { color: [color("chart-2"), color("sunken"), color("chart-1")] },
      },
      series: [{ type: "heatmap", data: data.cells, itemStyle: { borderColor: color("surface"), borderWidth: 1 } }],
    };
  };

  const draw = (element) => {
    const data = JSON.parse(element.dataset.chart);
    let chart = drawn.get(element);
    if (!chart) {
      chart = echarts.init(element, null, { renderer: "canvas" });
      drawn.set(element, chart);
    }
    chart.setOption(data.kind === "heatmap" ? heatmap(data) : series(data), true);
  };

  const drawAll = () => {
    for (const [element, chart] of drawn) {
      if (!element.isConnected) {
        chart.dispose();
        drawn.delete(element);
      }
    }
    document.querySelectorAll("[data-chart]").forEach(draw);
  };

  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("htmx:afterSettle", drawAll);
  document.addEventListener("htmx:sseMessage", drawAll);
  document.addEventListener("theme-changed", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => drawn.forEach((chart) => chart.resize()));
})();
