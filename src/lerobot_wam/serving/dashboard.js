// The live page. Whatever comes from a robot is inserted as text, never as markup.
"use strict";

const PATIENCE_MS = 4000; // news comes five times a second
const byId = (id) => document.getElementById(id);
let socket, heard, tries = 0;

// ---- the feed

function connect() {
  const url = new URL("dashboard/feed", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  heard = performance.now();
  socket.onopen = ({target}) => target.send(JSON.stringify({token: sessionStorage.getItem("token") ?? ""}));
  socket.onmessage = ({data}) => {
    heard = performance.now();
    tries = 0;
    say("live", true);
    const message = JSON.parse(data);
    message.type === "news" ? showNews(message) : showPicture(message);
  };
  socket.onclose = ({code, reason}) => (code === 4401 ? askToken(reason) : lose(reason));
}

function lose(reason) {
  abandon();
  tries += 1;
  say(`${reason || "feed lost"}: what you see is old; trying again (${tries})`, false);
  setTimeout(connect, Math.min(5000, 250 * 2 ** tries));
}

function askToken(reason) {
  abandon();
  say(reason, false);
  byId("refused").textContent = sessionStorage.getItem("token") ? "The server refused this token." : "";
  sessionStorage.removeItem("token");
  byId("ask").hidden = false;
  byId("token").focus();
}

function abandon() {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close();
  heard = undefined;
}

function say(text, live) {
  document.body.classList.toggle("lost", !live);
  if (byId("feed").textContent !== text) byId("feed").textContent = text;
}

byId("ask").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  byId("token").value = "";
  byId("ask").hidden = true;
  connect();
};

setInterval(() => heard !== undefined && performance.now() - heard > PATIENCE_MS && lose("no news"), 1000);

// ---- what it says

const cards = new Map(); // robots in the list, whose elements stay: one of them may have the keyboard's focus
let shown = null;

function showNews(news) {
  document.title = [news.title, "lerobot_wam"].filter(Boolean).join(" · ");
  byId("title").textContent = news.title;
  byId("approximations").textContent = news.approximations.length ? `Approximate: ${news.approximations.join("; ")}` : "";
  if (news.shown !== shown) [byId("camera"), byId("dream")].forEach((picture) => (picture.hidden = true));
  shown = news.shown;
  showRobots(news.robots);
  showCounts("errors", news.errors.map(({code, count, ago_s}) => [code, count, `last ${ago(ago_s)}`]));
  const robot = news.robots.find(({name}) => name === shown);
  byId("nobody").hidden = Boolean(robot);
  byId("robot").hidden = !robot;
  if (robot) showRobot(robot, news.detail);
}

function showRobots(robots) {
  for (const [name, card] of cards) {
    if (!robots.some((robot) => robot.name === name)) {
      card.item.remove();
      cards.delete(name);
    }
  }
  for (const robot of robots) {
    const card = cards.get(robot.name) ?? addCard(robot.name);
    card.button.setAttribute("aria-current", robot.name === shown);
    card.button.className = robot.state;
    card.button.classList.toggle("surprised", robot.surprise > 1);
    const state = robot.state === "driving" ? "driving" : `${robot.state}, ${ago(robot.silent_s)}`;
    const notes = [state, robot.surprise > 1 && "surprised", robot.errors && `errors: ${robot.errors}`];
    card.notes.textContent = notes.filter(Boolean).join(" · ");
    card.robot.textContent = robot.robot;
  }
}

function addCard(name) {
  const card = {item: make("li"), button: make("button"), picture: make("img"), notes: make("small"), robot: make("small")};
  card.picture.alt = "";
  card.picture.hidden = true;
  card.button.append(card.picture, make("b", {}, name), card.notes, card.robot);
  card.button.onclick = () => socket.send(JSON.stringify({show: name}));
  card.item.append(card.button);
  byId("robots").append(card.item);
  cards.set(name, card);
  return card;
}

function showRobot(robot, detail) {
  byId("name").textContent = robot.name;
  byId("state").textContent = `${robot.robot} · ${robot.state} · ${robot.frames} frames · ${robot.plans} chunks`;
  byId("task").textContent = robot.task ? `“${robot.task}”` : "";
  const newest = detail.surprise.at(-1) ?? null;
  const known = detail.surprise.some((value) => value !== null);
  byId("surprise").textContent =
    newest !== null ? `${newest.toFixed(2)} × threshold${newest > 1 ? ", above" : ""}` : known ? "" : "not calibrated";
  byId("surprise").classList.toggle("alarm", newest > 1);
  drawSurprise(byId("surprises"), detail);
  const {p50, p95} = detail.latency;
  byId("latency").textContent = p50 === null ? "" : `p50 ${milliseconds(p50)}, p95 ${milliseconds(p95)}`;
  drawLatency(byId("latencies"), detail);
  drawJoints(byId("joints"), detail);
  showCounts("clips", Object.entries(detail.clips));
  showCounts("faults", Object.entries(detail.errors));
}

function showPicture({name, camera, dream}) {
  const card = cards.get(name);
  if (card) setPicture(card.picture, camera);
  if (name !== shown) return;
  setPicture(byId("camera"), camera);
  byId("dreamless").hidden = Boolean(dream);
  if (dream) setPicture(byId("dream"), dream);
  else byId("dream").hidden = true;
}

function setPicture(element, data) {
  element.src = data;
  element.hidden = false;
}

function showCounts(id, rows) {
  byId(id).hidden = rows.length === 0;
  const items = rows.map(([name, count, note = ""]) => make("li", {}, make("b", {}, count), ` ${name} `, make("small", {}, note)));
  byId(id).querySelector("ul").replaceChildren(...items);
}

// ---- drawings

function drawSurprise(place, {surprise, starts_window}) {
  const top = Math.max(1.6, 1.1 * Math.max(...surprise.filter((value) => value !== null)));
  const plot = axes(place, surprise.length, 0, top);
  plot.line("threshold", [[-0.5, 1], [surprise.length - 0.5, 1]]);
  plot.text(4, plot.y(1) - 4, "threshold");
  starts_window.forEach((starts, i) => starts && plot.line("restart", [[i, 0], [i, top * 0.06]]));
  plot.runs("curve", surprise);
  surprise.forEach((value, i) => value > 1 && plot.dot("alarm", i, value));
  plot.show();
}

function drawLatency(place, {queue_ms, compute_ms}) {
  const sums = queue_ms.map((wait, i) => wait + compute_ms[i]);
  const top = Math.max(1, ...sums) * 1.1;
  const plot = axes(place, sums.length, 0, top);
  sums.forEach((sum, i) => {
    plot.bar("wait", i, sum);
    plot.bar("compute", i, compute_ms[i]);
  });
  plot.text(4, 12, milliseconds(top / 1.1));
  plot.show();
}

function drawJoints(place, {names, executed, actions, execute, step, clips}) {
  const now = Math.min(step, execute - 1);
  const plots = names.map(() => make("div", {class: "plot"}));
  place.replaceChildren(...names.map((name, j) => {
    const value = actions[now][j] === null ? "not finite" : actions[now][j].toFixed(3);
    const title = make(clips[name] ? "em" : "b", {}, name);
    return make("figure", {}, make("figcaption", {}, title, ` ${value}`), plots[j]);
  }));
  const past = executed.length;
  names.forEach((_, j) => {
    const values = [...executed, ...actions].map((row) => row[j]);
    const finite = values.filter((value) => value !== null);
    const [low, high] = finite.length ? [Math.min(...finite), Math.max(...finite)] : [0, 0];
    const margin = Math.max(0.1 * (high - low), 1e-3);
    const plot = axes(plots[j], values.length, low - margin, high + margin);
    plot.runs("done", values.slice(0, past));
    plot.runs("next", values.slice(Math.max(past - 1, 0), past + execute), Math.max(past - 1, 0));
    plot.runs("rest", values.slice(past + execute - 1), past + execute - 1);
    plot.line("now", [[past + now, low - margin], [past + now, high + margin]]);
    plot.show();
  });
}

/** A plot of `count` places side by side, as wide as the element is; y from `low` to `high`. */
function axes(place, count, low, high) {
  const width = place.clientWidth, height = place.clientHeight, parts = [];
  const x = (i) => 3 + ((width - 6) * (i + 0.5)) / Math.max(count, 1);
  const y = (value) => height - 2 - ((height - 4) * (value - low)) / (high - low);
  const draw = (tag, kind, attributes) => parts.push(make(tag, {class: kind, ...attributes}));
  const line = (kind, points) => draw("polyline", kind, {points: points.map(([i, v]) => `${x(i)},${y(v)}`).join(" ")});
  return {
    y, line,
    text: (left, top, words) => parts.push(make("text", {x: left, y: top}, words)),
    bar: (kind, i, value) => draw("rect", kind, {x: x(i - 0.35), y: y(value), width: x(0.7) - x(0), height: height - y(value)}),
    dot: (kind, i, value) => draw("circle", kind, {cx: x(i), cy: y(value), r: 3.5}),
    /** Draw values from place `first` on; the line breaks where one is missing. */
    runs(kind, values, first = 0) {
      let run = [];
      values.forEach((value, i) => {
        if (value !== null) run.push([first + i, value]);
        if (run.length && (value === null || i === values.length - 1)) {
          line(kind, run.length > 1 ? run : [run[0], [run[0][0] + 0.3, run[0][1]]]);
          run = [];
        }
      });
    },
    show: () => place.replaceChildren(make("svg", {viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"}, ...parts)),
  };
}

/** An element with attributes and children; children that are no elements become text. */
function make(tag, attributes = {}, ...children) {
  const drawn = ["svg", "polyline", "rect", "circle", "text"].includes(tag);
  const element = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const ago = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 60)} min ago`);
const milliseconds = (value) => (value < 1000 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(2)} s`);

connect();
