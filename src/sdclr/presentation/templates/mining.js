"use strict";
// The page of what mining found. It reads the JSON beside it and builds what is looked at, no more.
// N images by row, in the order of the collection. exports.py has the same writers in Python: the
// bytes are the same.
(() => {
  const PICTURES_A_STEP = 60;
  const COPIES_A_STEP = 40;
  const ROWS_A_PAGE = 50;
  const BUSY_TYPING_MS = 150;
  const COLOURS = 64;
  const REACH = 14; // pixels around the pointer in which a point of the map is found

  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  byId("data").remove();

  // ---- the collection -------------------------------------------------------------------------

  function numbers(text, kind) {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return new kind(bytes.buffer);
  }

  const names = data.names;
  const N = names.length;
  const score = numbers(data.score, Float64Array);
  const rank = numbers(data.rank, Int32Array);
  const group = numbers(data.group, Int32Array);
  const groupScore = numbers(data.groupScore, Float64Array);
  const duplicateOf = numbers(data.duplicateOf, Int32Array);
  const junk = numbers(data.junk, Int32Array);
  const sheet = numbers(data.sheet, Int32Array);
  const place = numbers(data.place, Float32Array);
  const components = data.components.map(({ name, values }) => (
    { name, values: numbers(values, Float64Array) }
  ));
  const pictures = new Map(Object.entries(data.pictures).map(([row, text]) => (
    [Number(row), `data:image/jpeg;base64,${text}`]
  )));
  for (const image of document.querySelectorAll("#sheet img")) {
    pictures.set(Number(image.closest("[data-row]").dataset.row), image.src);
  }

  const groupSize = new Int32Array(groupScore.length);
  const copies = new Map(); // row -> rows it stands for
  for (let row = 0; row < N; row++) {
    groupSize[group[row]]++;
    const original = duplicateOf[row];
    if (original === row) continue;
    if (!copies.has(original)) copies.set(original, []);
    copies.get(original).push(row);
  }
  const isPictured = new Uint8Array(N); // on the part of the sheet that is shown as pictures
  for (let i = 0; i < data.numShown; i++) isPictured[sheet[i]] = 1;
  const onSheet = new Uint8Array(N);
  for (const row of sheet) onSheet[row] = 1;

  const shownName = (row) => data.shown[row] ?? names[row];
  let searched = null; // names in small letters, once they are asked for
  const nameForSearch = (row) => {
    searched ??= names.map((_, i) => shownName(i).toLowerCase());
    return searched[row];
  };
  const shownColumns = data.columns.filter(({ isDigest }) => !isDigest);
  const digests = data.columns.find(({ isDigest }) => isDigest)?.values;
  const junkKinds = (row) => data.junkKinds.filter((_, bit) => junk[row] >> bit & 1);
  const count = (number, noun, nouns = `${noun}s`) => (
    `${number.toLocaleString("en")} ${number === 1 ? noun : nouns}`
  );

  // ---- numbers as Python writes them ------------------------------------------------------------

  function pythonNumber(value) {
    if (Number.isNaN(value)) return "nan";
    if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
    if (value === 0) return Object.is(value, -0) ? "-0.0" : "0.0";
    const [mantissa, power] = value.toExponential().split("e");
    const exponent = Number(power);
    if (exponent < -4 || exponent >= 16) {
      const size = String(Math.abs(exponent)).padStart(2, "0");
      return `${mantissa}e${exponent < 0 ? "-" : "+"}${size}`;
    }
    const plain = exponent < 0 ? value.toFixed(decimals(mantissa) - exponent) : String(value);
    return plain.includes(".") ? plain : `${plain}.0`;
  }
  const decimals = (mantissa) => (mantissa.split(".")[1] ?? "").length;
  const orDash = (text) => text === "nan" ? "–" : text;
  const shortNumber = (value) => orDash(pythonNumber(
    Math.abs(value) < 10000 ? Number(value.toPrecision(4)) : value,
  ));

  // ---- exports: the bytes of exports.py -----------------------------------------------------------

  // UTF-8, and the bytes that Python keeps of names that are not text (U+DC80 to U+DCFF)
  function toBytes(text) {
    const parts = text.split(/([\udc80-\udcff])/u);
    const encoder = new TextEncoder();
    const encoded = parts.map((part) => {
      const isByte = part.length === 1 && part >= "\udc80" && part <= "\udcff";
      return isByte ? Uint8Array.of(part.charCodeAt(0) - 0xdc00) : encoder.encode(part);
    });
    const bytes = new Uint8Array(encoded.reduce((sum, part) => sum + part.length, 0));
    let end = 0;
    for (const part of encoded) {
      bytes.set(part, end);
      end += part.length;
    }
    return bytes;
  }

  const quotedCell = (cell) => /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
  const csvLine = (cells) => `${cells.map(quotedCell).join(",")}\n`;
  // empty where nothing was said: marks that others have set since must survive the table
  const noMark = (row) => wasMarked[row] ? "removed" : "";
  const markCell = (row) => marks[row] ? String(Number(marks[row] > 0)) : noMark(row);
  const textName = (row) => data.texts[row] ?? names[row];
  const fullPath = (row) => (
    data.root ? `${data.root.replace(/\/+$/, "")}/${textName(row)}` : textName(row)
  );

  class Float {
    constructor(value) { this.value = value; }
  }

  // json.dumps(value, indent=1) of Python
  function pythonJson(value, indent = "\n") {
    if (value instanceof Float) return pythonNumber(value.value);
    if (typeof value === "string") {
      return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (sign) => (
        `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`
      ));
    }
    if (value === null || typeof value !== "object") return JSON.stringify(value);
    const inner = `${indent} `;
    const isList = Array.isArray(value);
    const parts = isList
      ? value.map((one) => pythonJson(one, inner))
      : Object.entries(value).map(([key, one]) => `${pythonJson(key)}: ${pythonJson(one, inner)}`);
    const [open, close] = isList ? "[]" : "{}";
    return parts.length ? `${open}${inner}${parts.join(`,${inner}`)}${indent}${close}` : open + close;
  }

  function csvCells(row) {
    const original = duplicateOf[row];
    const cell = (one) => data.cells[one] ?? names[one];
    return [
      cell(row), pythonNumber(score[row]), String(rank[row]),
      ...components.map(({ values }) => pythonNumber(values[row])),
      String(group[row]), String(groupSize[group[row]]),
      original === row ? "" : cell(original), junkKinds(row).join(";"),
      ...data.columns.map(({ values }) => values[row]),
      markCell(row),
    ];
  }

  function quotedPath(name) {
    return Array.from(toBytes(name), (byte) => {
      const sign = String.fromCharCode(byte);
      const stays = /[A-Za-z0-9_.~\/-]/.test(sign);
      return stays ? sign : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
    }).join("");
  }

  function labelStudioTask(row) {
    const choice = (wanted) => ({
      from_name: "wanted", to_name: "image", type: "choices",
      value: { choices: [wanted ? "wanted" : "not wanted"] },
    });
    const prediction = {
      model_version: `sdclr ${data.scoreName}`,
      score: new Float((N + 1 - rank[row]) / N),
      result: marks[row] ? [choice(marks[row] > 0)] : [],
    };
    const image = `/data/local-files/?d=${quotedPath(names[row])}`;
    const own = Number.isFinite(score[row]) ? new Float(score[row]) : null;
    return { data: { image, path: names[row], score: own }, predictions: [prediction] };
  }

  const WRITERS = {
    paths: (rows) => rows.map((row) => (
      `${names[row].replaceAll("\r", "\\r").replaceAll("\n", "\\n")}\n`
    )).join(""),
    csv: (rows) => [data.csvHeader, ...rows.map(csvCells)].map(csvLine).join(""),
    fiftyone: (rows) => {
      const header = [
        "filepath", "rarity", "rarity_rank", "rarity_group",
        ...(digests ? ["rarity_digest"] : []), "rarity_wanted",
      ];
      const cells = (row) => [
        fullPath(row), pythonNumber(score[row]), String(rank[row]), String(group[row]),
        ...(digests ? [digests[row]] : []), markCell(row),
      ];
      return [header, ...rows.map(cells)].map(csvLine).join("");
    },
    label_studio: (rows) => `${pythonJson(rows.map(labelStudioTask))}\n`,
    cvat: (rows) => {
      const files = rows.map((row) => names[row]);
      const request = { server_files: files, sorting_method: "predefined", image_quality: 70 };
      return `${pythonJson(request)}\n`;
    },
  };

  function changedNames(rows, format) {
    if (format === "paths") return rows.filter((row) => /[\r\n]/.test(names[row])).length;
    if (format !== "csv" && format !== "fiftyone") return 0;
    return rows.filter((row) => row in data.shown).length;
  }

  // ---- what the reader has done -------------------------------------------------------------------

  const chosen = new Uint8Array(N);
  const marks = new Int8Array(N); // 1 wanted, -1 not wanted
  for (const [row, wanted] of Object.entries(data.marks)) marks[row] = wanted ? 1 : -1;
  const saved = marks.slice(); // marks as scores.csv or a download has them
  const wasMarked = Uint8Array.from(marks, (mark) => mark ? 1 : 0); // ever in one of these
  const passes = new Uint8Array(N).fill(1);
  const state = { groups: [], built: 0, tray: [], trayBuilt: 0, page: 0, table: [], seen: -1, anchor: null, typing: 0, exportIsChosen: false };
  // anchor: { part, row }, where a range that is selected with shift begins

  // ---- orders ---------------------------------------------------------------------------------------

  const allRows = Array.from({ length: N }, (_, row) => row);
  const byRank = () => allRows.slice().sort((a, b) => rank[a] - rank[b]);
  const fallingNumbers = (values) => (a, b) => {
    const [lostA, lostB] = [Number.isNaN(values[a]), Number.isNaN(values[b])];
    if (lostA || lostB) return lostA - lostB || a - b;
    return values[b] - values[a] || a - b;
  };
  const bySheet = [...sheet, ...byRank().filter((row) => !onSheet[row])];
  const placeInOrder = new Int32Array(N);
  bySheet.forEach((row, i) => { placeInOrder[row] = i; });
  const ORDERS = new Map([
    ["sheet", ["order of the sheet", () => bySheet]],
    ["score", ["score, high first", byRank]],
  ]);
  components.forEach(({ name, values }, i) => {
    ORDERS.set(`component-${i}`, [
      `${name}, high first`, () => allRows.slice().sort(fallingNumbers(values)),
    ]);
  });
  ORDERS.set("path", ["path", () => allRows.slice().sort((a, b) => (
    names[a] < names[b] ? -1 : Number(names[a] > names[b])
  ))]);
  const bySize = (sign) => () => allRows.slice().sort((a, b) => (
    sign * (groupSize[group[a]] - groupSize[group[b]]) || placeInOrder[a] - placeInOrder[b]
  ));
  ORDERS.set("small", ["group size, small first", bySize(1)]);
  ORDERS.set("large", ["group size, large first", bySize(-1)]);
  ORDERS.set("collection", ["order of the collection", () => allRows]);
  const sorted = new Map();
  function order() {
    const key = byId("sort").value;
    if (!sorted.has(key)) sorted.set(key, ORDERS.get(key)[1]());
    return sorted.get(key);
  }

  // ---- small builders ----------------------------------------------------------------------------------

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in made && name !== "role") made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function markWords(row) {
    if (!marks[row]) return "";
    return marks[row] > 0 ? "wanted" : "not wanted";
  }

  function showMark(place, row) {
    place.textContent = markWords(row);
    place.className = `mark ${marks[row] > 0 ? "yes" : "no"}`;
    place.hidden = !marks[row];
  }

  function tile(row, isCopy = false) {
    const picture = pictures.get(row);
    const seen = picture
      ? element("img", { src: picture, alt: shownName(row), decoding: "async" })
      : element("span", { className: "unseen" }, shownName(row));
    const button = element(
      "button", { type: "button", className: "tile", tabIndex: -1 },
      seen, element("span", { className: "score" }, shortNumber(score[row])),
    );
    button.dataset.row = row;
    button.setAttribute("aria-pressed", Boolean(chosen[row]));
    const badge = element("span");
    badge.dataset.mark = row;
    showMark(badge, row);
    const item = element("li", { className: isCopy ? "copy" : "" }, button, badge);
    const folded = isCopy ? [] : copies.get(row) ?? [];
    if (folded.length) item.append(copiesButton(row, folded, item));
    return item;
  }

  function copiesButton(row, folded, item) {
    const words = count(folded.length, "copy", "copies");
    const button = element("button", { type: "button", className: "copies" }, `+ ${words}`);
    button.setAttribute("aria-label", `${words} of ${shownName(row)}`);
    button.setAttribute("aria-expanded", "false");
    let unfolded = [];
    button.addEventListener("click", () => {
      const open = !unfolded.length;
      button.setAttribute("aria-expanded", open);
      button.textContent = `${open ? "−" : "+"} ${words}`;
      unfolded.forEach((one) => one.remove());
      unfolded = open ? folded.slice(0, COPIES_A_STEP).map((copy) => tile(copy, true)) : [];
      item.after(...unfolded);
      if (folded.length > COPIES_A_STEP && open) {
        say(`The first ${COPIES_A_STEP} of ${words}; the table has all.`);
      }
      keepOneTabStop(button.closest("#sheet, #tray"));
    });
    return button;
  }

  function groupBox({ number, rows }) {
    const size = groupSize[number];
    const title = element("h3", { id: `group-${number}` }, `Group ${number} `, element(
      "span", {}, size > 1 ? `${size.toLocaleString("en")} images look alike` : "1 image alone",
    ));
    const select = element("button", { type: "button", className: "group-select" }, "Select");
    select.setAttribute("aria-label", `Select group ${number}, all ${count(size, "image")}`);
    select.addEventListener("click", () => chooseGroup(number));
    const here = rows.length < size ? ` · ${rows.length.toLocaleString("en")} here` : "";
    const box = element(
      "div", { className: rows.length === 1 ? "group one" : "group", role: "group" },
      title,
      ...(size > 1
        ? [element("p", { className: "muted" }, `group score ${shortNumber(groupScore[number])}${here}`, select)]
        : []),
      element("ul", { className: "tiles" }, ...rows.map((row) => tile(row))),
    );
    box.dataset.group = number;
    box.setAttribute("aria-labelledby", `group-${number}`);
    return box;
  }

  // ---- the sheet -----------------------------------------------------------------------------------

  function collectGroups() {
    const members = new Map();
    for (const row of order()) {
      if (!isPictured[row] || !passes[row]) continue;
      if (!members.has(group[row])) members.set(group[row], []);
      members.get(group[row]).push(row);
    }
    state.groups = Array.from(members, ([number, rows]) => ({ number, rows }));
    state.built = 0;
    byId("sheet").replaceChildren();
    const images = state.groups.reduce((sum, one) => sum + one.rows.length, 0);
    byId("sheet-words").textContent = images ? sheetWords(images) : noPictureWords();
    buildGroups();
  }

  function sheetWords(images) {
    const all = images === data.numShown;
    const words = all ? `first ${count(images, "image")}` : `${count(images, "image")} that pass the filters, of the first ${data.numShown.toLocaleString("en")},`;
    return `Pictures of the ${words} of the sheet, in ${count(state.groups.length, "group")}. `
      + `Sorted by ${ORDERS.get(byId("sort").value)[0]}.`;
  }

  function noPictureWords() {
    if (!data.numShown) return "The sheet is empty: each image that could be on it is a copy of another one, or suspected junk. The table lists all.";
    const words = `None of the first ${count(data.numShown, "image")} of the sheet passes the filters.`;
    const elsewhere = {
      junk: " Suspected junk is set aside, with its pictures below.",
      copies: " Copies are folded into the images that stand for them; the table lists each of them.",
    }[byId("only").value] ?? " The table lists those that pass.";
    return state.table.length ? words + elsewhere : "No image passes the filters.";
  }

  // some more groups; all groups up to the one that is asked for
  function buildGroups(asked = -1) {
    const boxes = [];
    const last = asked < 0 ? -1 : state.groups.findIndex(({ number }) => number === asked);
    let images = 0;
    while (state.built < state.groups.length && (images < PICTURES_A_STEP || state.built <= last)) {
      const next = state.groups[state.built++];
      images += next.rows.length;
      boxes.push(groupBox(next));
    }
    byId("sheet").append(...boxes);
    byId("more").hidden = state.built >= state.groups.length;
    byId("more").textContent = `Show more groups (${(state.groups.length - state.built).toLocaleString("en")} left)`;
    keepOneTabStop(byId("sheet"));
  }

  function keepOneTabStop(container, tiles = container.querySelectorAll(".tile")) {
    const current = container.querySelector('.tile[tabindex="0"]') ?? tiles[0];
    for (const one of tiles) one.tabIndex = one === current ? 0 : -1;
  }

  // built while it is open: its pictures cost time
  function collectTray() {
    if (!byId("junk")) return;
    if (byId("only").value === "junk") byId("junk").open = true;
    state.tray = order().filter((row) => junk[row] && passes[row]);
    state.trayBuilt = 0;
    const numJunk = junk.reduce((sum, kinds) => sum + (kinds ? 1 : 0), 0);
    const isAll = state.tray.length === numJunk;
    byId("junk-words").hidden = isAll;
    byId("junk-words").textContent = isAll
      ? ""
      : `${state.tray.length.toLocaleString("en")} of ${count(numJunk, "image")} ${state.tray.length === 1 ? "passes" : "pass"} the filters.`;
    byId("tray").replaceChildren(element("ul", { className: "tiles" }));
    byId("more-junk").hidden = true;
    if (byId("junk").open) buildTray();
  }

  function buildTray() {
    const rows = state.tray;
    const list = byId("tray").querySelector("ul");
    const next = rows.slice(state.trayBuilt, state.trayBuilt + PICTURES_A_STEP);
    for (const row of next) {
      const item = tile(row, true);
      item.append(element("span", { className: "muted" }, junkKinds(row).join(", ")));
      list.append(item);
    }
    state.trayBuilt += next.length;
    byId("more-junk").hidden = state.trayBuilt >= rows.length;
    keepOneTabStop(byId("tray"));
  }

  // ---- the table ---------------------------------------------------------------------------------

  function buildHeader() {
    const heads = ["Selected", "Place", "Path", "Score", ...components.map(({ name }) => name)];
    heads.push("Group", "Group size", "Copy of", "Junk", ...shownColumns.map(({ name }) => name));
    heads.push("Mark");
    const isNumber = (i) => i === 1 || (i >= 3 && i < 6 + components.length);
    byId("all").tHead.replaceChildren(element("tr", {}, ...heads.map((head, i) => (
      element("th", { scope: "col", className: isNumber(i) ? "num" : "" }, head)
    ))));
  }

  function tableRow(row) {
    const box = element("input", { type: "checkbox", className: "check", checked: Boolean(chosen[row]) });
    box.dataset.row = row;
    box.setAttribute("aria-label", `Select ${shownName(row)}`);
    const badge = element("span");
    badge.dataset.mark = row;
    showMark(badge, row);
    const cell = (text, className = "") => element("td", { className }, text);
    const original = duplicateOf[row];
    const made = element(
      "tr", { className: chosen[row] ? "chosen" : "" },
      cell(box), cell(onSheet[row] ? String(placeInOrder[row] + 1) : "–", "num"),
      cell(shownName(row), "path"), cell(shortNumber(score[row]), "num"),
      ...components.map(({ values }) => cell(shortNumber(values[row]), "num")),
      cell(String(group[row]), "num"), cell(String(groupSize[group[row]]), "num"),
      cell(original === row ? "" : shownName(original), "path"), cell(junkKinds(row).join(", ")),
      ...shownColumns.map(({ values }) => cell(values[row])),
      cell(badge),
    );
    if (original === row) made.children[6 + components.length].className = "";
    return made;
  }

  function collectTable() {
    state.table = order().filter((row) => passes[row]);
    byId("all-words").textContent = state.table.length === N
      ? `${count(N, "image")}, sorted by ${ORDERS.get(byId("sort").value)[0]}.`
      : `${count(state.table.length, "image")} of ${N.toLocaleString("en")} pass the filters.`;
    showPage(0);
  }

  function showPage(page) {
    const numPages = Math.max(1, Math.ceil(state.table.length / ROWS_A_PAGE));
    state.page = Math.min(Math.max(0, page), numPages - 1);
    const start = state.page * ROWS_A_PAGE;
    const rows = state.table.slice(start, start + ROWS_A_PAGE);
    byId("all").tBodies[0].replaceChildren(...rows.map(tableRow));
    byId("page").value = state.page + 1;
    byId("page").max = numPages;
    byId("pages").textContent = `of ${numPages.toLocaleString("en")}`;
    byId("first").disabled = byId("back").disabled = state.page === 0;
    byId("last").disabled = byId("next").disabled = state.page === numPages - 1;
  }

  // ---- filters ---------------------------------------------------------------------------------------

  const KINDS = {
    all: () => true,
    sheet: (row) => onSheet[row],
    copies: (row) => duplicateOf[row] !== row,
    junk: (row) => junk[row],
    selected: (row) => chosen[row],
    wanted: (row) => marks[row] > 0,
    unwanted: (row) => marks[row] < 0,
    unmarked: (row) => !marks[row],
  };

  function limit(id, missing) {
    const value = byId(id).valueAsNumber;
    return Number.isNaN(value) ? missing : value;
  }

  const STATE_KINDS = ["selected", "wanted", "unwanted", "unmarked"]; // they change as the reader works

  // after a selection or a mark: the same place of the page, and the focus where it was or on what came there
  function applyStateFilter() {
    if (!STATE_KINDS.includes(byId("only").value)) return;
    const [page, built, trayBuilt] = [state.page, state.built, state.trayBuilt];
    const focused = document.activeElement;
    const part = focused?.closest("#sheet, #tray, #all");
    const isControl = part && focused.matches("[data-row]");
    const place = isControl ? controlsOf(part).indexOf(focused) : -1;
    const row = focused?.dataset.row;
    applyFilters();
    while (state.built < Math.min(built, state.groups.length)) buildGroups();
    while (state.trayBuilt < Math.min(trayBuilt, state.tray.length)) buildTray();
    showPage(page);
    if (!isControl) return;
    const controls = controlsOf(part);
    const next = controls.find((one) => one.dataset.row === row)
      ?? controls[Math.min(place, controls.length - 1)];
    if (next?.classList.contains("tile")) focusTile(next);
    else next?.focus({ preventScroll: true });
  }

  const controlsOf = (part) => Array.from(part.querySelectorAll("[data-row]"));

  function applyFilters() {
    clearTimeout(state.typing);
    state.typing = 0;
    const text = byId("find").value.toLowerCase();
    const kind = KINDS[byId("only").value];
    const [smallest, largest] = [limit("size-from", -Infinity), limit("size-to", Infinity)];
    const [lowest, highest] = [limit("score-from", -Infinity), limit("score-to", Infinity)];
    const scoreCounts = lowest > -Infinity || highest < Infinity;
    for (let row = 0; row < N; row++) {
      const size = groupSize[group[row]];
      passes[row] = kind(row) && size >= smallest && size <= largest
        && (!scoreCounts || (score[row] >= lowest && score[row] <= highest))
        && (!text || nameForSearch(row).includes(text)) ? 1 : 0;
    }
    showAll();
  }

  // what was typed into the filters a moment ago, before it counts for something
  function applyTyped() {
    if (state.typing) applyFilters();
  }

  function showAll() {
    collectTable();
    collectGroups();
    collectTray();
    countChosen();
    drawMap();
  }

  // ---- selecting and marking --------------------------------------------------------------------------

  function refresh() {
    for (const one of document.querySelectorAll("[data-row]")) {
      const isChosen = Boolean(chosen[one.dataset.row]);
      if (one.type === "checkbox") {
        one.checked = isChosen;
        one.closest("tr").className = isChosen ? "chosen" : "";
      } else {
        one.setAttribute("aria-pressed", isChosen);
      }
    }
    for (const one of document.querySelectorAll("[data-mark]")) showMark(one, one.dataset.mark);
    countChosen();
    drawMap();
  }

  function countChosen() {
    const selected = chosenRows();
    const numHidden = selected.length - visibleChosenRows().length;
    const number = (value) => value.toLocaleString("en");
    const hidden = numHidden ? `, ${number(numHidden)} hidden by the filters` : "";
    byId("count").textContent = `${number(selected.length)} selected${hidden}`;
    for (const id of ["want", "refuse", "unmark"]) byId(id).disabled = selected.length === numHidden;
    byId("clear").disabled = !selected.length;
    const among = numHidden ? `, with ${number(numHidden)} that the filters hide` : "";
    scopeOption("selected").text = `selected images (${number(selected.length)}${among})`;
  }

  const scopeOption = (scope) => byId("scope").querySelector(`[value="${scope}"]`);

  function choose(rows, value) {
    for (const row of rows) chosen[row] = value;
    refresh();
    applyStateFilter();
  }

  function chooseGroup(number) {
    const rows = allRows.filter((row) => group[row] === number);
    const value = rows.every((row) => chosen[row]) ? 0 : 1;
    choose(rows, value);
    say(`${value ? "Selected" : "No longer selected"}: group ${number}, all ${count(rows.length, "image")}, copies and junk included.`);
  }

  // rows in the order of a part of the page; of the table on all of its pages
  function rowsOfPart(part) {
    if (part.id === "all") return state.table;
    return Array.from(part.querySelectorAll("[data-row]"), (one) => Number(one.dataset.row));
  }

  // with shift: everything between the last one chosen and this one, as they stand in this part
  function chooseAt(control, withShift) {
    const row = Number(control.dataset.row);
    const part = control.closest("#sheet, #tray, #all");
    if (withShift && state.anchor?.part === part) {
      const rows = rowsOfPart(part);
      const ends = [rows.indexOf(state.anchor.row), rows.indexOf(row)];
      if (!ends.includes(-1)) {
        choose(rows.slice(Math.min(...ends), Math.max(...ends) + 1), 1);
        return;
      }
    }
    choose([row], chosen[row] ? 0 : 1);
    state.anchor = { part, row };
  }

  // marks live in the page alone: an export is of them until the reader chooses another
  function offerMarks() {
    if (state.exportIsChosen || !marks.some(Boolean)) return;
    byId("scope").value = "marked";
    byId("format").value = "csv";
  }

  function chooseListed() {
    applyTyped();
    choose(state.table, 1);
    say(`Selected: ${count(state.table.length, "image")} that the filters show.`);
  }

  function mark(rows, value, remark = "") {
    if (!rows.length) {
      say("Nothing is selected: select images, then mark them.");
      return;
    }
    for (const row of rows) marks[row] = value;
    offerMarks();
    refresh();
    applyStateFilter();
    if (state.seen >= 0) showSeen(state.seen);
    say(`${count(rows.length, "image")}: ${value ? markWords(rows[0]) : "mark taken away"}.${remark} Download the CSV to keep the marks.`);
  }

  // what the filters hide is not marked: it cannot be seen
  function markChosen(value) {
    applyTyped();
    const rows = visibleChosenRows();
    const numHidden = chosenRows().length - rows.length;
    mark(rows, value, numHidden
      ? ` ${count(numHidden, "selected image")} that the filters hide ${numHidden === 1 ? "is" : "are"} left as before.`
      : "");
  }

  const chosenRows = () => bySheet.filter((row) => chosen[row]);
  const visibleChosenRows = () => chosenRows().filter((row) => passes[row]);

  // ---- details of one image ------------------------------------------------------------------------------

  function see(row) {
    if (row === state.seen) return;
    state.seen = row;
    showSeen(row);
  }

  function showSeen(row) {
    const words = [`score ${orDash(pythonNumber(score[row]))}`, `rank ${rank[row].toLocaleString("en")} of ${N.toLocaleString("en")}`];
    words.push(`group ${group[row]} of ${count(groupSize[group[row]], "image")}`);
    if (duplicateOf[row] !== row) words.push(`copy of ${shownName(duplicateOf[row])}`);
    if (copies.has(row)) words.push(count(copies.get(row).length, "copy", "copies"));
    if (junk[row]) words.push(`suspected junk: ${junkKinds(row).join(", ")}`);
    words.push(...shownColumns.map(({ name, values }) => `${name}: ${values[row]}`));
    words.push(...components.map(({ name, values }) => `${name} ${orDash(pythonNumber(values[row]))}`));
    if (marks[row]) words.push(markWords(row));
    byId("seen").replaceChildren(element("b", {}, shownName(row)), element("br"), words.join(" · "));
    const picture = pictures.get(row);
    byId("peek").hidden = !picture;
    if (picture) byId("peek").src = picture;
  }

  // ---- the map -----------------------------------------------------------------------------------------------

  // here: the image the ring shows; byKeys: the one the arrows came to, -1 before and after
  const map = { canvas: byId("map"), x: null, y: null, cells: null, size: 0, here: -1, byKeys: -1, waiting: false };
  const CELL = 16;

  function ramp(share, dark) {
    const [low, high] = dark ? [[74, 90, 112], [255, 176, 60]] : [[168, 182, 200], [196, 62, 0]];
    return `rgb(${low.map((from, i) => Math.round(from + (high[i] - from) * share)).join(" ")})`;
  }

  function layOut() {
    const { clientWidth: width, clientHeight: height } = map.canvas;
    const scale = window.devicePixelRatio || 1;
    map.canvas.width = width * scale;
    map.canvas.height = height * scale;
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let row = 0; row < N; row++) {
      const [x, y] = [place[2 * row], place[2 * row + 1]];
      if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
      left = Math.min(left, x); right = Math.max(right, x);
      low = Math.min(low, y); high = Math.max(high, y);
    }
    const margin = 14;
    const stretchX = (width - 2 * margin) / (right - left || 1);
    const stretchY = (height - 2 * margin) / (high - low || 1);
    map.x = new Float32Array(N);
    map.y = new Float32Array(N);
    map.cells = new Map();
    for (let row = 0; row < N; row++) {
      map.x[row] = margin + (place[2 * row] - left) * stretchX;
      map.y[row] = height - margin - (place[2 * row + 1] - low) * stretchY;
      if (!Number.isFinite(map.x[row] + map.y[row])) continue;
      const cell = cellOf(map.x[row], map.y[row]);
      if (!map.cells.has(cell)) map.cells.set(cell, []);
      map.cells.get(cell).push(row);
    }
    map.size = width;
  }

  function layOutIfResized() {
    if (map.size !== map.canvas.clientWidth) layOut();
  }

  const cellOf = (x, y) => Math.floor(y / CELL) * 100000 + Math.floor(x / CELL);

  function drawMap() {
    if (map.waiting) return;
    map.waiting = true;
    setTimeout(() => requestAnimationFrame(paintMap), 30); // what is read first comes first
  }

  function paintMap() {
    map.waiting = false;
    if (!map.canvas.clientWidth) return;
    layOutIfResized();
    const scale = window.devicePixelRatio || 1;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const context = map.canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, map.canvas.clientWidth, map.canvas.clientHeight);
    const side = N > 20000 ? 1.6 : N > 3000 ? 3 : 5;
    const colours = Array.from({ length: COLOURS }, (_, i) => ramp(i / (COLOURS - 1), dark));
    for (const pictured of [0, 1]) { // those with pictures on top; the others as they come
      const width = pictured ? side + 2 : side;
      for (let row = 0; row < N; row++) {
        if (isPictured[row] !== pictured) continue;
        const share = N > 1 ? (N - rank[row]) / (N - 1) : 1;
        context.fillStyle = colours[Math.round(share * (COLOURS - 1))];
        context.globalAlpha = passes[row] ? 0.9 : 0.08;
        context.fillRect(map.x[row] - width / 2, map.y[row] - width / 2, width, width);
      }
    }
    context.globalAlpha = 1;
    context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
    context.lineWidth = 1.5;
    for (let row = 0; row < N; row++) {
      if (!chosen[row]) continue;
      context.strokeRect(map.x[row] - side, map.y[row] - side, 2 * side, 2 * side);
    }
    byId("ramp").style.background = `linear-gradient(to right, ${colours.filter((_, i) => i % 9 === 0).join(", ")})`;
  }

  function nearestPoint(x, y) {
    let [best, distance] = [-1, REACH * REACH];
    for (let dy = -CELL; dy <= CELL; dy += CELL) {
      for (let dx = -CELL; dx <= CELL; dx += CELL) {
        for (const row of map.cells?.get(cellOf(x + dx, y + dy)) ?? []) {
          const here = (map.x[row] - x) ** 2 + (map.y[row] - y) ** 2;
          if (passes[row] && (here < distance || (here === distance && rank[row] < rank[best]))) {
            [best, distance] = [row, here];
          }
        }
      }
    }
    return best;
  }

  function pointAt(row) {
    map.here = row;
    byId("here").hidden = row < 0;
    if (row < 0) return;
    byId("here").style.left = `${map.x[row]}px`;
    byId("here").style.top = `${map.y[row]}px`;
    see(row);
  }

  // the nearest point within 45 degrees of an arrow
  function stepOnMap(dx, dy) {
    layOutIfResized();
    const isDrawn = (row) => Number.isFinite(map.x[row] + map.y[row]);
    const from = map.here >= 0 ? map.here : bySheet.find(isDrawn);
    if (from === undefined) return;
    let [best, distance] = [from, Infinity];
    for (let row = 0; row < N; row++) {
      const [x, y] = [map.x[row] - map.x[from], map.y[row] - map.y[from]];
      const ahead = x * dx + y * dy;
      const aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (passes[row] && ahead > 0.5 && ahead >= aside && ahead + aside < distance) {
        [best, distance] = [row, ahead + aside];
      }
    }
    map.byKeys = best;
    pointAt(best);
    say(`${shownName(best)}, score ${shortNumber(score[best])}, group ${group[best]}`);
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  // ---- going to an image -----------------------------------------------------------------------------

  function goTo(row) {
    if (!passes[row]) {
      byId("filters").reset();
      applyFilters();
      say("The filters were cleared to show it.");
    }
    if (isPictured[row]) {
      const tileOf = () => byId("sheet").querySelector(`.tile[data-row="${row}"]`);
      if (!tileOf()) buildGroups(group[row]);
      focusTile(tileOf());
      return;
    }
    showPage(Math.floor(state.table.indexOf(row) / ROWS_A_PAGE));
    const box = byId("all").querySelector(`[data-row="${row}"]`);
    box.focus({ preventScroll: true });
    box.scrollIntoView({ block: "center" });
    see(row);
  }

  function focusTile(one) {
    for (const other of one.closest("#sheet, #tray").querySelectorAll('.tile[tabindex="0"]')) {
      other.tabIndex = -1;
    }
    one.tabIndex = 0;
    one.focus({ preventScroll: true });
    one.scrollIntoView({ block: "nearest" });
  }

  function nextTile(one, key) {
    const tiles = Array.from(one.closest("#sheet, #tray").querySelectorAll(".tile"));
    const here = tiles.indexOf(one);
    if (key === "ArrowRight") return tiles[here + 1];
    if (key === "ArrowLeft") return tiles[here - 1];
    const box = one.getBoundingClientRect();
    const sign = key === "ArrowDown" ? 1 : -1;
    let [best, distance] = [undefined, Infinity];
    for (const other of tiles) {
      const there = other.getBoundingClientRect();
      const down = sign * (there.top - box.top);
      const far = down * 4 + Math.abs(there.left - box.left);
      if (down > box.height / 2 && far < distance) [best, distance] = [other, far];
    }
    return best;
  }

  // ---- leaving the page -----------------------------------------------------------------------------

  const HOLD_MARKS = ["csv", "fiftyone"]; // what sdclr mine --feedback reads

  // in these with the marks that were taken away: their cells say removed
  function markedRows(format) {
    const isLeaving = HOLD_MARKS.includes(format)
      ? (row) => marks[row] || wasMarked[row]
      : (row) => marks[row];
    return bySheet.filter(isLeaving);
  }

  function leaving() {
    applyTyped();
    const scope = byId("scope").value;
    const format = byId("format").value;
    const rows = {
      selected: chosenRows,
      marked: () => markedRows(format),
      listed: () => state.table,
    }[scope]();
    if (!rows.length) {
      say({ selected: "Nothing is selected.", marked: "Nothing is marked.", listed: "No image passes the filters." }[scope]);
      return null;
    }
    const changed = changedNames(rows, format);
    const remark = changed
      ? ` ${count(changed, "path")} of ${rows.length.toLocaleString("en")} cannot be written as they are in this format: line breaks, hidden signs or bytes that are not text are escapes there.`
      : "";
    return { rows, format, text: WRITERS[format](rows), remark };
  }

  function noteMarks({ rows, format }) {
    if (!HOLD_MARKS.includes(format)) return;
    for (const row of rows) {
      saved[row] = marks[row];
      if (marks[row]) wasMarked[row] = 1;
    }
  }

  async function copyOut() {
    const out = leaving();
    if (!out) return;
    try {
      await navigator.clipboard.writeText(out.text);
    } catch {
      byId("text").value = out.text;
      byId("by-hand").showModal();
      byId("text").select();
      return;
    }
    say(`Copied ${count(out.rows.length, "image")}.${out.remark}`);
  }

  function download() {
    const out = leaving();
    if (!out) return;
    const { file, type } = data.exports[out.format];
    const address = URL.createObjectURL(new Blob([toBytes(out.text)], { type }));
    const link = element("a", { href: address, download: file });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    noteMarks(out);
    say(`Wrote ${count(out.rows.length, "image")} to ${file}, among your downloads.${out.remark}`);
  }

  // ---- the pointer ------------------------------------------------------------------------------------------

  // a page that scrolls under a resting pointer gets the events of a moving one: keys must not lose to them
  const pointer = { x: NaN, y: NaN };
  const hasMoved = (event) => event.screenX !== pointer.x || event.screenY !== pointer.y;

  function pointerOnMap(event) {
    if (map.byKeys >= 0 && !hasMoved(event)) return;
    map.byKeys = -1;
    pointAt(nearestPoint(event.offsetX, event.offsetY));
  }

  function leftByKeys() {
    map.byKeys = -1;
    pointAt(-1);
  }

  function say(words) {
    byId("status").textContent = words;
  }

  // ---- what is listened to ------------------------------------------------------------------------------

  function listen() {
    byId("filters").addEventListener("input", () => {
      clearTimeout(state.typing);
      state.typing = setTimeout(applyFilters, BUSY_TYPING_MS);
    });
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("clear-filters").addEventListener("click", () => {
      byId("filters").reset();
      applyFilters();
    });
    byId("choose-listed").addEventListener("click", chooseListed);
    byId("more").addEventListener("click", () => buildGroups());
    byId("junk")?.addEventListener("toggle", () => {
      if (byId("junk").open && !state.trayBuilt) buildTray();
    });
    byId("more-junk")?.addEventListener("click", buildTray);
    new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting) && !byId("more").hidden) buildGroups();
    }, { rootMargin: "600px" }).observe(byId("more"));

    byId("first").addEventListener("click", () => showPage(0));
    byId("back").addEventListener("click", () => showPage(state.page - 1));
    byId("next").addEventListener("click", () => showPage(state.page + 1));
    byId("last").addEventListener("click", () => showPage(Infinity));
    byId("page").addEventListener("change", () => showPage((byId("page").valueAsNumber || 1) - 1));

    for (const id of ["sheet", "tray", "all"]) {
      const container = byId(id);
      if (!container) continue;
      container.addEventListener("click", (event) => {
        const control = event.target.closest("[data-row]");
        if (control) chooseAt(control, event.shiftKey);
      });
      for (const kind of ["pointerover", "focusin"]) {
        container.addEventListener(kind, (event) => {
          if (kind === "pointerover" && !hasMoved(event)) return;
          const control = event.target.closest("[data-row]")
            ?? event.target.closest("tr")?.querySelector("[data-row]");
          if (control) see(Number(control.dataset.row));
        });
      }
      container.addEventListener("keydown", pressed);
    }

    byId("want").addEventListener("click", () => markChosen(1));
    byId("refuse").addEventListener("click", () => markChosen(-1));
    byId("unmark").addEventListener("click", () => markChosen(0));
    byId("clear").addEventListener("click", () => choose(allRows, 0));
    for (const id of ["scope", "format"]) {
      byId(id).addEventListener("input", () => { state.exportIsChosen = true; });
    }
    byId("copy").addEventListener("click", copyOut);
    byId("download").addEventListener("click", download);
    byId("done").addEventListener("click", () => byId("by-hand").close());

    window.addEventListener("pointermove", ({ screenX, screenY }) => Object.assign(pointer, { x: screenX, y: screenY }));
    map.canvas.addEventListener("pointermove", pointerOnMap);
    map.canvas.addEventListener("pointerleave", () => pointAt(map.byKeys));
    map.canvas.addEventListener("blur", leftByKeys);
    map.canvas.addEventListener("click", (event) => {
      const row = nearestPoint(event.offsetX, event.offsetY);
      if (row >= 0) goTo(row);
    });
    map.canvas.addEventListener("keydown", (event) => {
      if (event.key in ARROWS) stepOnMap(...ARROWS[event.key]);
      else if (event.key === "Enter" && map.here >= 0) goTo(map.here);
      else return;
      event.preventDefault();
    });
    new ResizeObserver(drawMap).observe(map.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
    window.addEventListener("beforeunload", (event) => {
      if (marks.some((mark, row) => mark !== saved[row])) event.preventDefault();
    });
  }

  const KEY_MARKS = { w: 1, n: -1, u: 0 };

  function pressed(event) {
    const control = event.target.closest("[data-row]");
    if (!control || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = Number(control.dataset.row);
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in ARROWS && control.classList.contains("tile")) {
      const next = nextTile(control, key);
      if (next) {
        if (event.shiftKey) {
          choose([row, Number(next.dataset.row)], 1);
          state.anchor ??= { part: control.closest("#sheet, #tray"), row };
        }
        focusTile(next);
      }
    } else if (key in KEY_MARKS) {
      if (chosen[row] && passes[row]) markChosen(KEY_MARKS[key]);
      else mark([row], KEY_MARKS[key]);
    } else if (key === "g") chooseGroup(group[row]);
    else return;
    event.preventDefault();
  }

  function start() {
    for (const [key, [words]] of ORDERS) byId("sort").append(element("option", { value: key }, words));
    for (const option of Array.from(byId("format").options)) {
      if (!(option.value in WRITERS)) option.remove();
    }
    document.documentElement.classList.add("scripted");
    buildHeader();
    offerMarks();
    showAll();
    refresh();
    listen();
    document.documentElement.dataset.ready = "yes";
  }

  // after the first paint, which the pictures in the HTML are for
  requestAnimationFrame(() => setTimeout(start));
})();
