// An image that answers: where it was clicked, what was painted on it, which arrow key was pressed.
function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "panacea-canvas";
  box.tabIndex = 0;
  Object.assign(box.style, { position: "relative", display: "inline-block", lineHeight: 0, cursor: "crosshair", touchAction: "none" });
  const image = document.createElement("img");
  image.draggable = false;
  image.style.maxWidth = "100%";
  const ink = document.createElement("canvas");
  Object.assign(ink.style, { position: "absolute", inset: 0, width: "100%", height: "100%", pointerEvents: "none" });
  box.append(image, ink);
  el.append(box);

  let url = null;
  const show = () => {
    const old = url;
    url = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
    image.onload = () => {
      ink.width = image.naturalWidth;
      ink.height = image.naturalHeight;
      if (old) URL.revokeObjectURL(old);
    };
    image.src = url;
  };
  const say = () => {
    image.alt = model.get("alt");
    box.setAttribute("aria-label", model.get("label"));
  };
  let count = 0;
  const send = (event) => {
    count += 1;
    model.set("event", { ...event, count });
    model.save_changes();
  };
  const place = (event) => {
    const frame = image.getBoundingClientRect();
    return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
  };
  let stroke = null;
  const draw = () => {
    const pen = ink.getContext("2d");
    pen.lineWidth = 6;
    pen.lineCap = "round";
    pen.strokeStyle = "rgba(213, 94, 0, 0.8)";
    pen.beginPath();
    stroke.forEach(([x, y], k) => pen[k ? "lineTo" : "moveTo"](x * ink.width, y * ink.height));
    pen.stroke();
  };
  box.addEventListener("pointerdown", (event) => {
    stroke = [place(event)];
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    stroke.push(place(event));
    draw();
  });
  box.addEventListener("pointerup", () => {
    if (stroke) send({ points: stroke });
    stroke = null;
  });
  box.addEventListener("pointercancel", () => { stroke = null; });
  box.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    event.stopPropagation();
    send({ key: event.key, points: [] });
  });
  model.on("change:png", show);
  model.on("change:alt", say);
  show();
  say();
  return () => { if (url) URL.revokeObjectURL(url); };
}

export default { render };
