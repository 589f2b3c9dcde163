"use strict";
(async () => {
  const places = [...document.querySelectorAll(".chart")];
  const figures = JSON.parse(document.getElementById("figures").textContent);
  if (!places.length) return;
  try {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
  } catch (error) {
    for (const place of places) place.outerHTML = '<p class="problem">This browser is too old to draw the charts.</p>';
    return;
  }
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const themed = (value) => {
    if (typeof value === "string") return value.startsWith("var(") ? colour(value.slice(4, -1)) : value;
    if (Array.isArray(value)) return value.map(themed);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, themed(each)]));
  };
  const axis = (given) => ({
    automargin: true, gridcolor: "var(--grid)", linecolor: "var(--rule)", zerolinecolor: "var(--rule)",
    ...given, title: { font: { size: 12 }, standoff: 8, ...given.title },
  });
  const layout = (given) => ({
    ...given, xaxis: axis(given.xaxis), yaxis: axis(given.yaxis), autosize: true,
    margin: { l: 8, r: 12, t: 12, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: "var(--ink)", family: "system-ui, sans-serif", size: 12 },
    legend: { orientation: "h", y: -0.25, yanchor: "top", x: 0, xanchor: "left" },
    hoverlabel: { bgcolor: "var(--paper)", bordercolor: "var(--rule)", font: { color: "var(--ink)" } },
  });
  const draw = () => places.forEach((place, index) =>
    Plotly.react(place, themed(figures[index].data), themed(layout(figures[index].layout)),
      { responsive: true, displaylogo: false, displayModeBar: false }));
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
