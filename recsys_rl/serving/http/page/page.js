// The playground: each button is a real request. Texts of the data enter the page as text, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
const state = { platform: null, user: "", likes: [], answer: null, playing: null, left: [] };

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function button(text, act, className = "") {
  const made = element("button", text, className);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

async function ask(path, body) {
  const headers = { "content-type": "application/json" };
  if ($("token").value) headers.authorization = `Bearer ${$("token").value}`;
  const reply = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const found = await reply.json();
  $("problem").textContent = reply.ok ? "" : found.detail;
  if (reply.status === 401) $("token-label").hidden = false;
  if (!reply.ok) throw new Error(found.detail);
  return found;
}

const percent = (chance) => (chance === null ? "unknown" : chance < 0.0005 ? "<0.1 %" : `${(100 * chance).toFixed(1)} %`);

async function recommend() {
  const body = { user_id: state.user };
  if (state.platform.context.length) body.context = context();
  if (state.likes.length) body.likes = state.likes.map((item) => item.item_id);
  state.answer = await ask("/v1/recommend", body);
  if (state.answer.session.step === 0) state.likes.forEach((item) => (item.counts = true));
  showItems();
  showLikes();
  const [report] = await Promise.all([explain(), record()]);
  return report;
}

// The fields of the context: a number with the range of the log, a choice of texts, or a list of numbers.
function showContext() {
  $("context").replaceChildren(
    ...state.platform.context.map((piece) => {
      const input = element(piece.kind === "text" ? "select" : "input");
      input.name = piece.name;
      const range = piece.kind === "text" ? "" : ` (${short(piece.low)} to ${short(piece.high)})`;
      const texts = piece.gaps ? ["", ...piece.values] : piece.values;
      if (piece.kind === "text") input.append(...texts.map((text) => element("option", text)));
      else input.value = [piece.example].flat().map(short).join(", ");
      if (piece.kind === "number") Object.assign(input, { type: "number", step: "any" });
      input.required = !piece.gaps;
      const label = element("label", `${piece.name}${piece.kind === "list" ? `, ${piece.size} numbers` : ""}${range}`);
      label.append(input);
      return label;
    }),
  );
}

const short = (number) => String(Number(number.toPrecision(4)));

function context() {
  const found = {};
  for (const piece of state.platform.context) {
    const text = $("context").querySelector(`[name="${CSS.escape(piece.name)}"]`).value;
    const numbers = text.split(",").map((x) => (x.trim() ? Number(x) : NaN)); // the server names a field without a number
    if (piece.gaps && !text.trim()) continue;
    found[piece.name] = piece.kind === "text" ? text : piece.kind === "list" ? numbers : numbers[0];
  }
  return found;
}

// The likes of a stranger, each with a button that takes it back.
function showLikes() {
  const line = $("liked"), late = state.answer && state.likes.some((item) => !item.counts);
  line.replaceChildren(...(state.likes.length ? [element("span", "Likes: ")] : []));
  for (const item of state.likes) {
    const back = button(`${item.title} ×`, () => {
      state.likes = state.likes.filter((x) => x !== item);
      showLikes();
    });
    back.setAttribute("aria-label", `take ${item.title} back`);
    line.append(back);
  }
  if (late) line.append(element("span", "New likes count from the next session on: leave this one for that.", "soft"));
}

// Takes the text of the field as a like: one title, an id, or a text that only one title has.
async function like() {
  const text = $("likes").value.trim();
  if (!text) return;
  const { items } = await ask(`/v1/items?q=${encodeURIComponent(text)}`);
  const same = (item) => item.item_id === text || item.title.toLowerCase() === text.toLowerCase();
  const found = items.length === 1 ? items[0] : items.find(same);
  if (!found) {
    const some = items.slice(0, 3).map((item) => item.title).join("; ");
    $("problem").textContent = items.length ? `More than one title has “${text}”: pick one (${some} ...).` : `No title has “${text}”.`;
    throw new Error("no like");
  }
  if (!state.likes.some((x) => x.item_id === found.item_id)) state.likes.push(found);
  $("likes").value = "";
  showLikes();
}

// Signals of an item that was consumed by this share; extra ones, such as a like, count in full.
function signals(share, extra = []) {
  const found = {};
  for (const [name, full] of Object.entries(state.platform.full)) if (full) found[name] = share * full;
  for (const name of extra) found[name] = 1;
  return found;
}

async function tell(values, where, leave = false) {
  const decision_id = state.answer.decision_id;
  const events = Object.entries(values).map(([signal, value]) => ({ decision_id, signal, value, ...where }));
  if (leave) events.push({ decision_id, signal: "leave" });
  if (events.length) await ask("/v1/feedback", { events });
}

async function respond(place, share, words, extra) {
  const item = state.answer.items[place];
  remember(item.title, words);
  await tell(signals(share, extra), { position: place });
  await recommend();
}

// Where people leave items later (long videos), a click starts one, and it plays beside the next slate.
async function start(place) {
  const item = state.answer.items[place];
  remember(item.title, "started");
  const values = {};
  for (const name of Object.keys(state.platform.full)) if (name === "clicked") values[name] = 1;
  const before = state.playing;
  await tell(values, { position: place });
  if (before) await tell(signals(0.5), { left: before.item_id });
  state.playing = item;
  await recommend();
}

async function finish(share, words) {
  remember(state.playing.title, words);
  await tell(signals(share), { left: state.playing.item_id });
  state.playing = null;
  await recommend();
}

function showItems() {
  const list = $("items"), names = Object.keys(state.platform.full), extras = names.filter((name) => !state.platform.full[name]);
  list.replaceChildren();
  state.answer.items.forEach((item, place) => {
    const row = element("li");
    row.append(element("span", item.title, "title"));
    row.append(element("span", `drawn with probability ${percent(item.propensity)} `, "soft"));
    if (state.platform.events) row.append(button("Start", () => act(() => start(place)), "first"));
    else if (!state.platform.shares) {
      for (const name of names) row.append(button(name, () => act(() => respond(place, 0, name, [name]))));
      row.append(button("Nothing", () => act(() => respond(place, 0, "nothing", []))));
    } else {
      row.append(button("Consumed", () => act(() => respond(place, 1, "consumed", []))));
      row.append(button("Half", () => act(() => respond(place, 0.5, "half", []))));
      row.append(button("Skipped", () => act(() => respond(place, 0, "skipped", []))));
      for (const name of extras) row.append(button(`Consumed, ${name}`, () => act(() => respond(place, 1, name, [name]))));
    }
    list.append(row);
  });
  const playing = $("playing");
  playing.replaceChildren();
  playing.hidden = !state.playing;
  if (state.playing) {
    playing.append(element("span", "Playing", "soft"), element("span", state.playing.title, "title"));
    playing.append(button("Seen to its end", () => act(() => finish(1, "seen to its end"))));
    playing.append(button("Left halfway", () => act(() => finish(0.5, "left halfway"))));
  }
  $("ending").hidden = false;
  $("next").hidden = state.platform.slate_size < 2;
}

// What this session had before the page was loaded, or before another person was here.
function remind(decision, seen) {
  const single = !state.platform.events && state.platform.slate_size === 1;
  const unseen = decision.session.step - seen.titles.length;
  if (single && unseen > 0) remember(`${unseen} earlier items`, "out of the policy's sight");
  seen.titles.forEach((title, place) => {
    const values = Object.entries(seen.signals[place]).map(([name, value]) => `${name} ${Number(value.toFixed(2))}`);
    remember(title, values.join(", ") || "shown");
  });
}

function remember(title, words) {
  const row = element("li", title);
  row.append(element("span", `: ${words}`, "soft"));
  $("visit").append(row);
}

async function explain() {
  const report = await ask(`/v1/decisions/${state.answer.decision_id}`);
  const by = report.decision.policy, seen = report.seen;
  const again = report.replayed ? "drawn again from the record: the same" : "drawn again from the record: NOT the same";
  const why = report.decision.degraded ? ` (the policy failed: ${report.decision.degraded})` : "";
  $("why").textContent =
    `${by.name}, version ${by.version}${why}, saw ${seen.history.length} items of this session and excluded ${seen.excluded}; ${again}.`;
  $("likeliest").replaceChildren(
    ...report.alternatives.map((item) => {
      const row = element("tr"), chance = element("td", `${percent(item.propensity)} `), bar = element("progress");
      bar.max = report.alternatives[0].propensity;
      bar.value = item.propensity;
      bar.setAttribute("aria-label", item.title);
      chance.append(bar);
      row.append(element("td", item.title), chance, element("td", item.expected === null ? "" : item.expected.toPrecision(3)));
      return row;
    }),
  );
  return report;
}

async function record() {
  const found = await ask("/v1/decisions");
  $("unreadable").hidden = !found.unreadable.length;
  $("unreadable").textContent = `Damaged in the record: decision ${found.unreadable.join(", ")}. See recsys-rl log check.`;
  const heads = $("record").closest("table").querySelectorAll("th");
  $("record").replaceChildren(
    ...found.decisions.map((row) => {
      const line = element("tr");
      const cells = [row.decision_id, row.user_id, row.session, row.step, row.titles.join(", "), percent(row.propensity), row.events];
      line.append(...cells.map((text) => element("td", String(text))));
      [...line.children].forEach((cell, column) => (cell.dataset.name = heads[column].textContent));
      return line;
    }),
  );
}

// The items of a team's own place, each with a button that withdraws it.
async function stock() {
  $("stock").hidden = !state.platform.features;
  if (!state.platform.features) return;
  const { items } = await ask(`/v1/items?q=${encodeURIComponent($("stock-text").value.trim())}`);
  $("stock-items").replaceChildren(
    ...items.map((item) => {
      const line = element("li");
      line.append(element("span", `${item.title} `), element("span", item.available ? "" : "withdrawn", "soft"));
      const gone = () => act(() => ask("/v1/items", { withdraw: [item.item_id] }).then(stock));
      const made = button("withdraw", gone);
      made.setAttribute("aria-label", `withdraw ${item.title}`);
      const more = button("how it fared", () => act(() => fared(item).then((text) => more.replaceWith(element("span", text, "soft")))));
      more.setAttribute("aria-label", `how ${item.title} fared`);
      line.append(...(item.available ? [made] : []), more);
      return line;
    }),
  );
}

// What the record says of an item, as one line.
async function fared(item) {
  const found = await ask(`/v1/items/${encodeURIComponent(item.item_id)}`);
  const days = found.rows.map((row) => `${row.kind === "add" ? "came" : "went"} ${new Date(1000 * row.time).toISOString().slice(0, 16).replace("T", " ")}`);
  const mean = found.mean_reward === null ? "" : `, mean reward ${short(found.mean_reward)}`;
  return ` ${days.join(", ")}; shown ${found.impressions} times${mean}${found.all_read ? "" : " (still counting)"}`;
}

async function act(work) {
  document.querySelectorAll("button").forEach((x) => (x.disabled = true));
  try {
    await work();
  } catch (error) {
    if (!$("problem").textContent) $("problem").textContent = `The server gives no answer: ${error.message}`;
  } finally {
    document.querySelectorAll("button").forEach((x) => (x.disabled = false));
  }
}

async function load() {
  state.platform = await ask("/v1/platform");
  $("about").textContent = `${state.platform.name}, ${state.platform.items.toLocaleString("en")} items`;
  $("people").replaceChildren(...state.platform.people.map((name) => Object.assign(element("option"), { value: name })));
  $("likes-label").hidden = !state.platform.likes;
  showContext();
  if (!$("user").value) $("user").value = state.platform.people[0] || "somebody";
  await Promise.all([record(), release(), stock()]);
}

$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  act(async () => {
    if (!state.platform) await load();
    await like();
    state.user = $("user").value;
    state.playing = null;
    $("visit").replaceChildren();
    const report = await recommend();
    remind(report.decision, report.seen);
  });
});

$("next").addEventListener("click", () => act(recommend));
$("leave").addEventListener("click", () =>
  act(async () => {
    await tell({}, {}, true);
    remember("You left", "the next visit is a new session");
    $("items").replaceChildren();
    $("ending").hidden = true;
    state.playing = state.answer = null;
    $("playing").hidden = true;
    await record();
  }),
);

$("likes").addEventListener("input", async (event) => {
  const text = $("likes").value.trim();
  if (!text) return;
  // A pick from the list is no typing. What is typed becomes a like with the visit.
  if (!event.inputType || event.inputType === "insertReplacementText") return like().catch(() => {});
  const { items } = await ask(`/v1/items?q=${encodeURIComponent(text)}`);
  if ($("likes").value.trim() !== text) return;
  $("found").replaceChildren(...items.map((item) => Object.assign(element("option"), { value: item.title })));
});

$("stock-text").addEventListener("input", () => stock().catch(() => {}));

act(load);
