// Draws the spectrum that the page describes, and gives it controls that work by mouse, finger and keyboard.
(() => {
  const data = document.getElementById("plot-data"), place = document.getElementById("plot");
  if (!data || !place || !window.Bokeh) return;
  const content = JSON.parse(data.textContent), box = document.getElementById("plot-box");
  const own = (tag, text, kind) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  box.hidden = false;
  Bokeh.embed.embed_item(content.item, "plot").then(() => {
    const model = (id) => Bokeh.documents.map((doc) => doc.get_model_by_id(id)).find((found) => found);
    const lines = content.series.map((series) => ({...series, model: model(series.id)}));
    const main = lines.find((line) => line.name === content.fit).model;
    const plots = Bokeh.documents[0].roots().flatMap((root) => root.children ? root.children : [root]);
    const plot = plots.map((one) => Array.isArray(one) ? one[0] : one).find((one) => one.renderers.includes(main));
    const wave = main.data_source.data.x, flux = main.data_source.data.y, whole = content.ranges[0];

    // The height follows what is in view, so that a faint line is seen when it is zoomed to.
    const fit = () => {
      const low = Math.min(plot.x_range.start, plot.x_range.end), high = Math.max(plot.x_range.start, plot.x_range.end);
      const seen = [];
      for (let i = 1; i < wave.length - 1; i++) {
        if (wave[i] < low || wave[i] > high) continue;
        const three = [flux[i - 1], flux[i], flux[i + 1]].sort((a, b) => a - b);  // what is one sample wide does not count
        if (isFinite(three[1])) seen.push(three[1]);
      }
      if (seen.length < 3) return;
      let bottom = seen.reduce((a, b) => Math.min(a, b)), top = seen.reduce((a, b) => Math.max(a, b));
      if (bottom > 0 && bottom < 0.5 * top) bottom = 0;
      const room = 0.06 * (top - bottom) || 1;
      plot.y_range.setv({start: bottom - room, end: top + room});
    };
    const said = own("p", "", "soft small");
    said.setAttribute("role", "status");
    let waiting = 0;
    const moved = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        if (document.getElementById("plot-fit").checked) fit();
        said.textContent = `${plot.x_range.start.toFixed(0)} to ${plot.x_range.end.toFixed(0)} \u00c5 in view`;
        place.dataset.start = plot.x_range.start;
        place.dataset.end = plot.x_range.end;
      }, 60);
    };
    plot.x_range.properties.start.change.connect(moved);
    plot.x_range.properties.end.change.connect(moved);
    const show = (start, end) => plot.x_range.setv({start, end});
    const zoom = (factor, move = 0) => {
      const {start, end} = plot.x_range, half = (end - start) * factor / 2, middle = (start + end) / 2 + move * (end - start);
      show(middle - half, middle + half);
    };

    const bar = document.getElementById("plot-bar");
    const button = (text, label, act) => {
      const made = own("button", text);
      made.type = "button";
      made.setAttribute("aria-label", label);
      made.addEventListener("click", act);
      bar.append(made);
    };
    for (const range of content.ranges) {
      button(range.name, `show ${range.name === "all" ? "all wavelengths" : "channel " + range.name}`, () => {
        const room = 0.01 * (range.end - range.start);
        show(range.start - room, range.end + room);
      });
    }
    button("+", "zoom in", () => zoom(0.5));
    button("\u2212", "zoom out", () => zoom(2));
    button("\u2190", "to shorter wavelengths", () => zoom(1, -0.25));
    button("\u2192", "to longer wavelengths", () => zoom(1, 0.25));
    const tick = own("label", "", "tick"), ticked = document.createElement("input");
    ticked.type = "checkbox"; ticked.checked = true; ticked.id = "plot-fit";
    ticked.addEventListener("change", moved);
    tick.append(ticked, "height follows the view");
    bar.append(tick);

    const legend = document.getElementById("plot-lines");
    for (const line of lines) {
      const label = own("label", "", "tick"), input = document.createElement("input"), swatch = own("span", "", "swatch");
      input.type = "checkbox"; input.checked = line.visible;
      swatch.style.background = line.color;
      input.addEventListener("change", () => { line.model.visible = input.checked; });
      label.append(input, swatch, line.name);
      legend.append(label);
    }
    place.after(said);
    document.documentElement.classList.add("interactive");
    const room = 0.01 * (whole.end - whole.start);
    show(whole.start - room, whole.end + room);
    place.dataset.ready = "yes";
  });
})();
