// Tables with data-sort are sorted by a click on a column's name; the one with data-filter has search, filters and a count.
(() => {
  const value = (row, index) => {
    const cell = row.cells[index];
    if (!cell) return "";
    const given = cell.dataset.value;
    return given !== undefined ? given : cell.textContent.trim();
  };
  const sort = (table, index, direction) => {
    const body = table.tBodies[0], rows = [...body.rows];
    const numbers = rows.map((row) => value(row, index)).filter((text) => text !== "");
    const numeric = numbers.length > 0 && numbers.every((text) => !isNaN(text));
    const compare = (a, b) => {
      const x = value(a, index), y = value(b, index);
      if (x === "" || y === "") return (x === "") - (y === "");  // what was not measured is last in both directions
      return direction * (numeric ? x - y : x.localeCompare(y, "en", {numeric: true}));
    };
    rows.sort((a, b) => compare(a, b) || a.dataset.order - b.dataset.order).forEach((row) => body.append(row));
    [...table.tHead.rows[0].cells].forEach((cell, i) => {
      if (i === index) cell.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
  };
  for (const table of document.querySelectorAll("table[data-sort]")) {
    [...table.tBodies[0].rows].forEach((row, i) => { row.dataset.order = i; });
    [...table.tHead.rows[0].cells].forEach((cell, index) => {
      if (cell.dataset.fixed !== undefined) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => sort(table, index, cell.getAttribute("aria-sort") === "ascending" ? -1 : 1));
    });
  }

  const table = document.querySelector("table[data-filter]"), bar = document.getElementById("controls");
  if (!table || !bar) return;
  const rows = [...table.tBodies[0].rows], status = document.getElementById("shown"), chosen = {};
  const words = document.getElementById("search"), tiles = document.querySelectorAll("button.tile");
  const apply = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.dataset.text.toLowerCase();
      const fits = wanted.every((word) => text.includes(word))
        && Object.entries(chosen).every(([name, asked]) => !asked || row.dataset[name] === asked);
      row.hidden = !fits;
      count += fits;
      const figures = document.getElementById(row.dataset.figures);
      if (figures) figures.hidden = !fits;
    }
    status.textContent = count === rows.length ? `${count} rows` : `${count} of ${rows.length} rows`;
    document.getElementById("none").hidden = count > 0;
    tiles.forEach((tile) => tile.setAttribute("aria-pressed", chosen.verdict === tile.dataset.verdict));
  };
  for (const select of bar.querySelectorAll("select[data-name]")) {
    const name = select.dataset.name, present = [...new Set(rows.map((row) => row.dataset[name]))].filter(Boolean);
    for (const one of present) select.add(new Option(one, one));
    if (present.length < 2) select.parentElement.hidden = true;
    select.addEventListener("change", () => { chosen[name] = select.value; apply(); });
  }
  tiles.forEach((tile) => tile.addEventListener("click", () => {
    const select = bar.querySelector("select[data-name=verdict]");
    chosen.verdict = chosen.verdict === tile.dataset.verdict ? "" : tile.dataset.verdict;
    if (chosen.verdict && ![...select.options].some((one) => one.value === chosen.verdict)) {
      select.add(new Option(chosen.verdict, chosen.verdict));
    }
    select.value = chosen.verdict;
    apply();
  }));
  const order = document.getElementById("order");
  [...table.tHead.rows[0].cells].forEach((cell, index) => {
    if (cell.dataset.fixed === undefined) order.add(new Option(cell.innerText.replace(/-\n/g, "").replace(/\s+/g, " ").trim(), index));
  });
  order.addEventListener("change", () => sort(table, Number(order.value), 1));
  document.getElementById("clear").addEventListener("click", () => {
    words.value = "";
    bar.querySelectorAll("select[data-name]").forEach((select) => { select.value = ""; chosen[select.dataset.name] = ""; });
    apply();
  });
  words.addEventListener("input", apply);
  bar.hidden = false;
  apply();
})();
