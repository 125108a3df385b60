"use strict";
// The held-out embeddings: points on a canvas that can be pointed at, zoomed and moved.
(() => {
  const points = document.getElementById("points");
  if (!points) return;
  const data = JSON.parse(points.textContent);
  const plot = document.getElementById("plot");
  const canvas = plot.querySelector("canvas");
  const tip = document.getElementById("tip");
  const pick = document.getElementById("pick");
  const sprite = document.getElementById("sprite");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const n = data.x.length;
  const ZOOM = 60, EDGE = 16, FEW = 60, SIDE = 34;
  const low = [Math.min(...data.x), Math.min(...data.y)];
  const high = [Math.max(...data.x), Math.max(...data.y)];
  let view = { zoom: 1, x: 0, y: 0 };  // of the middle, in pixels at zoom 1
  let hovered = -1, chosen = -1, waiting = false, asPictures = false;

  data.names.forEach((name, c) => {
    const option = document.createElement("option");
    option.value = c;
    option.textContent = name;
    pick.append(option);
  });

  const size = () => [canvas.clientWidth, canvas.clientHeight];

  function placeOf(i) {
    const [w, h] = size();
    const room = (k, full) => (full - 2 * EDGE) / Math.max(high[k] - low[k], 1);
    const scale = Math.min(room(0, w), room(1, h));
    const x = (data.x[i] - (low[0] + high[0]) / 2) * scale;
    const y = ((low[1] + high[1]) / 2 - data.y[i]) * scale;
    return [w / 2 + (x - view.x) * view.zoom, h / 2 + (y - view.y) * view.zoom];
  }

  // Neighbouring numbers get colours far apart: the golden angle.
  const colourOf = (c) => `hsl(${(c * 137.508 + 205) % 360} 68% ${dark.matches ? 66 : 42}%)`;

  function draw() {
    waiting = false;
    const [w, h] = size(), ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--text");
    const radius = Math.min(3 + Math.log2(view.zoom), 6);
    const shown = [];
    for (let i = 0; i < n; i++) {
      const [x, y] = placeOf(i);
      if (x > -40 && y > -40 && x < w + 40 && y < h + 40) shown.push([i, x, y]);
    }
    const picked = chosen >= 0 ? chosen : hovered >= 0 ? data.of[hovered] : -1;
    asPictures = sprite !== null && view.zoom > 1 && shown.length <= FEW;
    pen.lineWidth = 1.2;
    for (const [i, x, y] of shown) {
      const isFaint = picked >= 0 && data.of[i] !== picked;
      pen.globalAlpha = isFaint ? 0.18 : 0.9;
      pen.fillStyle = colourOf(data.of[i]);
      if (asPictures) {
        const most = Math.max(data.cell[1], data.cell[2]);
        const pw = (SIDE * data.cell[1]) / most, ph = (SIDE * data.cell[2]) / most;
        pen.fillRect(x - pw / 2 - 2, y - ph / 2 - 2, pw + 4, ph + 4);
        if (!isFaint) pen.globalAlpha = 1;
        paste(pen, i, x - pw / 2, y - ph / 2, pw, ph);
      } else {
        pen.beginPath();
        pen.arc(x, y, radius, 0, 7);
        pen.fill();
      }
      if (data.wrong[i] && !isFaint) {
        pen.strokeStyle = ink;
        pen.beginPath();
        pen.arc(x, y, asPictures ? 26 : radius + 1, 0, 7);
        pen.stroke();
      }
    }
    if (hovered >= 0) {
      const [x, y] = placeOf(hovered);
      pen.globalAlpha = 1;
      pen.lineWidth = 2.5;
      pen.strokeStyle = ink;
      pen.beginPath();
      pen.arc(x, y, asPictures ? 27 : radius + 4, 0, 7);
      pen.stroke();
    }
  }

  function paste(pen, i, x, y, w, h) {
    const [columns, cw, ch] = data.cell;
    const left = (i % columns) * cw, top = Math.floor(i / columns) * ch;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(sprite, left, top, cw, ch, x, y, w, h);
  }

  function redraw() {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(draw);
    }
  }

  function nearest(x, y, reach) {
    let best = -1, least = reach * reach;
    for (let i = 0; i < n; i++) {
      if (chosen >= 0 && data.of[i] !== chosen) continue;
      const [px, py] = placeOf(i);
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }

  function show(i) {
    if (i === hovered) return;
    hovered = i;
    tip.hidden = i < 0;
    redraw();
    if (i < 0) return;
    tip.dataset.row = data.row[i];
    tip.replaceChildren();
    if (sprite) {
      const picture = document.createElement("canvas");
      [picture.width, picture.height] = data.cell.slice(1);
      paste(picture.getContext("2d"), i, 0, 0, picture.width, picture.height);
      tip.append(picture);
    }
    const name = document.createElement("b");
    name.textContent = data.names[data.of[i]];
    const more = document.createElement("div");
    const called = data.called ? data.called[i] : `row ${data.row[i]}`;
    more.textContent = `${called}, nearest: ${data.nearest[data.wrong[i]]}`;
    tip.append(name, more);
    const [x, y] = placeOf(i), [w, h] = size();
    tip.dataset.place = `${x} ${y}`;
    const left = x + 14 + tip.offsetWidth < w ? x + 14 : x - 14 - tip.offsetWidth;
    const top = Math.min(Math.max(y - tip.offsetHeight / 2, 4), h - tip.offsetHeight - 4);
    tip.style.transform = `translate(${Math.max(left, 4)}px, ${Math.max(top, 4)}px)`;
  }

  function choose(c) {
    chosen = c;
    pick.value = c;
    show(-1);
    redraw();
  }

  // What lies under (x, y) stays there.
  function zoomAt(x, y, factor) {
    const [w, h] = size();
    const zoom = Math.min(Math.max(view.zoom * factor, 1), ZOOM);
    const change = 1 / view.zoom - 1 / zoom;
    move((x - w / 2) * change, (y - h / 2) * change, zoom);
  }

  function move(dx, dy, zoom = view.zoom) {
    const [w, h] = size();
    const bound = (v, full) => Math.min(Math.max(v, -full / 2), full / 2) * (zoom > 1);
    view = { zoom, x: bound(view.x + dx, w), y: bound(view.y + dy, h) };
    plot.dataset.zoom = zoom;
    show(-1);
    redraw();
  }

  const spotOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const held = new Map();
  let moved = 0;

  canvas.addEventListener("wheel", (event) => {
    const isOut = event.deltaY > 0;
    // At either end the wheel scrolls the page, which otherwise could not go on.
    if ((isOut && view.zoom <= 1) || (!isOut && view.zoom >= ZOOM)) return;
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode ? 30 : 1);
    zoomAt(...spotOf(event), Math.exp(-0.002 * pixels));
  }, { passive: false });

  canvas.addEventListener("pointerdown", (event) => {
    held.set(event.pointerId, spotOf(event));
    if (held.size === 1) moved = 0;
    if (event.pointerType !== "touch") canvas.setPointerCapture(event.pointerId);
  });

  canvas.addEventListener("pointermove", (event) => {
    const spot = spotOf(event), before = held.get(event.pointerId);
    if (!before) {
      show(nearest(...spot, asPictures ? SIDE / 2 + 4 : 14));
      return;
    }
    const [dx, dy] = [spot[0] - before[0], spot[1] - before[1]];
    moved += Math.abs(dx) + Math.abs(dy);
    if (held.size === 2) {
      const [other] = [...held].filter(([id]) => id !== event.pointerId)[0].slice(1);
      const gap = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      const middle = [(spot[0] + other[0]) / 2, (spot[1] + other[1]) / 2];
      zoomAt(...middle, gap(spot) / Math.max(gap(before), 1));
      move(-dx / 2 / view.zoom, -dy / 2 / view.zoom);
    } else if (moved > 4) {
      move(-dx / view.zoom, -dy / view.zoom);
    }
    held.set(event.pointerId, spot);
  });

  canvas.addEventListener("pointerup", (event) => {
    const isTouch = event.pointerType === "touch";
    if (held.size === 1 && moved <= 8) {
      const i = nearest(...spotOf(event), isTouch ? 26 : asPictures ? SIDE / 2 + 4 : 14);
      if (isTouch) show(i);
      else choose(i >= 0 && data.of[i] !== chosen ? data.of[i] : -1);
    }
    held.delete(event.pointerId);
  });
  canvas.addEventListener("pointercancel", (event) => held.delete(event.pointerId));
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") show(-1);
    else if (moved > 8) held.delete(event.pointerId);
  });

  const middle = () => size().map((full) => full / 2);
  const press = (id, act) => document.getElementById(id).addEventListener("click", act);
  press("closer", () => zoomAt(...middle(), 1.6));
  press("farther", () => zoomAt(...middle(), 1 / 1.6));
  press("whole", () => { choose(-1); view = { zoom: 1, x: 0, y: 0 }; move(0, 0); });
  pick.addEventListener("change", () => choose(Number(pick.value)));
  dark.addEventListener("change", redraw);
  new ResizeObserver(() => { show(-1); redraw(); }).observe(canvas);
  if (sprite) sprite.addEventListener("load", redraw);
  plot.dataset.zoom = 1;
  redraw();
})();
