// The release under way: who serves, and the band of the canary, which narrows as sessions mature.
"use strict";

const SECONDS = 5; // between two looks

async function release() {
  const token = $("token").value;
  const reply = await fetch("/v1/release", token ? { headers: { authorization: `Bearer ${token}` } } : {});
  if (!reply.ok) return;
  const found = await reply.json();
  $("release").hidden = !found.champion;
  if (found.challenger) showRelease(found);
  else $("release-words").textContent = `${found.champion.slice(0, 12)} answers everybody.`;
  $("arms").closest("div").hidden = $("canary").hidden = !found.challenger;
  if (!found.challenger) $("band").hidden = true;
}

function showRelease(found) {
  const since = new Date(1000 * found.since).toLocaleString("en-GB");
  const why = found.why_frozen ? ` (${found.why_frozen})` : "";
  const frozen = found.frozen ? `; frozen${why}: new sessions have the champion` : "";
  $("release-words").textContent = `A release since ${since}, by ${found.unit}${frozen}.`;
  const share = { champion: 1 - found.share, challenger: found.share };
  $("arms").replaceChildren(
    ...["champion", "challenger"].map((arm) => {
      const line = element("tr"), count = found.counts[arm];
      const cells = [arm, found[arm].slice(0, 12), percent(share[arm]), count.sessions.toLocaleString("en")];
      cells.push(count.sessions ? count.mean.toFixed(3) : "");
      const names = ["arm", "version", "share", "sessions", "mean return"];
      line.append(...cells.map((text) => element("td", String(text))));
      [...line.cells].forEach((cell, at) => (cell.dataset.name = names[at]));
      return line;
    }),
  );
  const { difference, low, high, sessions, answer, doubt } = found.canary;
  const bounds = low === null ? "no bound yet" : `${signed(difference)}, from ${signed(low)} to ${signed(high)}`;
  $("canary").textContent = `Canary: ${answer}${doubt ? ` (${doubt})` : ""}. Challenger minus champion, of ${sessions.toLocaleString("en")} sessions: ${bounds}.`;
  $("band").hidden = found.band.length < 2;
  if (found.band.length > 1) drawBand(found.band);
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

// The chart of (sessions, low, high). Its scale leaves out the first points, whose bounds are wide.
function drawBand(points) {
  const width = 640, height = 180, edge = 44, foot = 22;
  const most = points[points.length - 1][0], later = points.slice(Math.floor(points.length / 4));
  const reach = Math.max(...later.flatMap(([, low, high]) => [Math.abs(low), Math.abs(high)]));
  const x = (sessions) => edge + ((width - edge - 8) * sessions) / most;
  const y = (value) => (height - foot) / 2 - ((height - foot - 16) / 2) * Math.min(1, Math.max(-1, value / reach));
  const at = (pick) => points.map((point) => `${x(point[0]).toFixed(1)},${y(point[pick]).toFixed(1)}`);
  const chart = $("band").querySelector("svg");
  chart.replaceChildren(drawn("polygon", { points: [...at(2), ...at(1).reverse()].join(" "), class: "band" }));
  chart.append(drawn("line", { x1: edge, x2: width - 8, y1: y(0), y2: y(0), class: "zero" }));
  for (const value of [reach, 0, -reach]) chart.append(drawn("text", { x: edge - 6, y: y(value) + 4, "text-anchor": "end" }, value ? signed(value) : "0"));
  for (const part of [0, 0.5, 1]) {
    const anchor = ["start", "middle", "end"][2 * part], words = Math.round(part * most).toLocaleString("en");
    chart.append(drawn("text", { x: x(part * most), y: height - 4, "text-anchor": anchor }, words));
  }
}

function drawn(name, attributes, text = "") {
  const made = document.createElementNS($("band").querySelector("svg").namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

async function look() {
  if (!document.hidden && state.platform) await release().catch(() => {}); // the next look may have an answer
  setTimeout(look, 1000 * SECONDS);
}

setTimeout(look, 1000 * SECONDS);
