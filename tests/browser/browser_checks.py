"""What can be measured on a page in a browser: overflow, contrast, the order of headings, names of controls."""

from __future__ import annotations

from playwright.sync_api import Page

_OVERFLOW = """() => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > width + 1) {
    for (const one of document.querySelectorAll("body *")) {
      const box = one.getBoundingClientRect();
      if (box.width && box.right > width + 1 && !one.closest(".scroll, pre")) found.push(one.tagName + "." + one.className);
    }
    found.push(`page ${document.documentElement.scrollWidth} of ${width}`);
  }
  return found.slice(0, 8);
}"""
_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const color = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return {rgb: [r, g, b], a: a / 255};
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const made = color(getComputedStyle(at).backgroundColor);
      if (made.a > 0.9) return made.rgb;
    }
    return [255, 255, 255];
  };
  const found = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const one = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !one.checkVisibility() || one.closest("svg, script, style")) continue;
    const style = getComputedStyle(one), a = light(color(style.color).rgb), b = light(ground(one));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) found.add(`${one.tagName}.${one.className} ${ratio.toFixed(2)}`);
  }
  return [...found].slice(0, 8);
}"""
_HEADINGS = """() => {
  const found = [];
  let last = 0;
  for (const one of document.querySelectorAll("h1, h2, h3, h4")) {
    const level = Number(one.tagName[1]);
    if (level > last + 1) found.push(`h${level} after h${last}: ${one.textContent.trim()}`);
    last = level;
  }
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  return found;
}"""
_NAMELESS = """() => {
  const found = [];
  for (const one of document.querySelectorAll("img")) if (!one.alt) found.push("img " + one.src.slice(0, 60));
  for (const one of document.querySelectorAll("button, a[href], summary")) {
    const alt = [...one.querySelectorAll("img, [aria-label]")].some((inner) => inner.alt || inner.ariaLabel);
    if (!one.textContent.trim() && !one.ariaLabel && !alt && !one.closest(".plot")) found.push(one.outerHTML.slice(0, 80));
  }
  for (const one of document.querySelectorAll("input, select")) {
    if (!one.labels.length && !one.ariaLabel) found.push(one.outerHTML.slice(0, 80));
  }
  return found.slice(0, 8);
}"""


def overflow(page: Page) -> list[str]:
    """Elements that make the page wider than the window."""
    return page.evaluate(_OVERFLOW)


def contrast(page: Page) -> list[str]:
    """Texts with less contrast than WCAG AA asks for."""
    return page.evaluate(_CONTRAST)


def headings(page: Page) -> list[str]:
    """Headings that leave out a level."""
    return page.evaluate(_HEADINGS)


def nameless(page: Page) -> list[str]:
    """Images without alternative text and controls without a name."""
    return page.evaluate(_NAMELESS)
