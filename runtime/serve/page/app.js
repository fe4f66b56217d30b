// The page: brings its parts together.

import { AnswerCard } from "./answers.js";
import { models } from "./api.js";
import { Asking } from "./asking.js";
import { showCards } from "./cards.js";
import { conversationAfter, isAbout } from "./conversation.js";
import { byId, element } from "./dom.js";
import { showExamples } from "./examples.js";
import { Form } from "./form.js";
import { startIntake } from "./intake.js";
import { listKeys, startKeys } from "./keys.js";
import { Names } from "./names.js";
import { Outlines } from "./outlines.js";
import { plain, readPicture } from "./picture.js";
import { Regions } from "./regions.js";
import { requestOf, Unfinished } from "./requests.js";
import { Scene } from "./scene.js";
import { Seen } from "./seen.js";
import { shapeOf } from "./shapes.js";
import { Stage } from "./stage.js";
import { startTheme } from "./theme.js";
import { TOOLS } from "./tools/all.js";
import { View } from "./view.js";

const LARGER = 1.5;

const canvas = byId("canvas");
const regions = new Regions();
const outlines = new Outlines();
const view = new View(canvas);
const form = new Form();
const asking = new Asking(showBusy);
let names = null;
let limits = null;
let scene = null;
let conversation = null;
let opening = 0; // counts pictures: of two that are read at once the later one stays

const desk = {
  regions,
  outlines,
  get width() { return scene.picture.width; },
  get height() { return scene.picture.height; },
  get scale() { return view.scale; },
  get seen() { return view.seen; },
  /** The brush's width, in pixels of the picture. */
  get brush() { return Math.max(1, byId("width").value / 200 * Math.max(scene.picture.width, scene.picture.height)); },
  get outside() { return document.querySelector("input[name=side]:checked").value === "outside"; },
  say: (text) => { byId("said").textContent = text; },
};

let drawing = false;
function redraw() {
  if (drawing || scene === null) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const { draft, tool, cursor } = stage;
    const { picture } = scene;
    view.paint({ picture, regions: regions.all, chosen: regions.chosen, outlines, draft, tool, desk, cursor });
    byId("cursor").textContent = cursor ? `x ${cursor[0]}, y ${cursor[1]}` : "";
  });
}

const stage = new Stage(canvas, desk, redraw);

// The picture.

async function open(blob, example = null) {
  const turn = ++opening;
  forget();
  let picture = await readPicture(blob, limits);
  if (turn !== opening) return;
  await leave();
  let next = new Scene(picture, { waiting });
  show(next, example);
  if (picture.note) desk.say(picture.note);
  const told = await next.told();
  if (turn !== opening) return next.leave();
  if (told.width !== picture.width || told.height !== picture.height) {
    picture = await plain(picture);
    await next.leave();
    next = scene = new Scene(picture, { waiting });
    await next.told();
  }
  if (told.warnings?.length) desk.say(told.warnings.join(" "));
}

function show(next, example) {
  asking.stop();
  scene = next;
  endConversation();
  showStart(false);
  byId("answers").replaceChildren();
  byId("answers-part").hidden = true;
  form.showReady(example?.questions ?? []);
  form.fill(example?.questions[0] ?? { mode: "ask" });
  desk.say("");
  fit(new Seen([scene.picture.width, scene.picture.height]));
  regions.start(example?.regions.map(shapeOf) ?? []);
}

/** Show where pictures are chosen, or the picture and what is asked about it. */
function showStart(empty) {
  byId("main").classList.toggle("empty", empty);
  byId("start").hidden = !empty;
  for (const id of ["canvas", "bar", "regions-part", "form"]) byId(id).hidden = empty;
}

function leave() {
  const before = scene;
  scene = null;
  return before?.leave();
}

/** Fit the picture to the room that there is. `seen`: the part of it that is to be seen. */
function fit(seen) {
  if (scene === null) return;
  const room = byId("stage").clientWidth;
  const { width, height } = scene.picture;
  view.resize(scene.picture, Math.min(room, Math.max(window.innerHeight * 0.72, 240) * width / height), seen);
  redraw();
}

const opened = (blob, example) => open(blob, example).catch(report);

function startPictures() {
  startIntake(opened, (message) => report(new Error(message)));
  byId("other").addEventListener("click", async () => {
    asking.stop();
    opening += 1;
    await leave();
    showStart(true);
    byId("choose").focus();
  });
  addEventListener("pagehide", () => scene?.leave()); // a page that is shown again sends its picture again
  new ResizeObserver(() => fit(view.seen)).observe(byId("stage"));
}

// Tools.

function startTools() {
  byId("tools").replaceChildren(...TOOLS.map((tool) => element("button", {
    type: "button", id: `tool-${tool.name}`, title: `${tool.label} (${tool.key.toUpperCase()})`,
    "aria-keyshortcuts": tool.key.toUpperCase(), onclick: () => takeTool(tool),
  }, tool.label)));
  byId("undo").addEventListener("click", () => regions.undo());
  byId("redo").addEventListener("click", () => regions.redo());
  byId("larger").addEventListener("click", () => enlarge(LARGER));
  byId("smaller").addEventListener("click", () => enlarge(1 / LARGER));
  byId("new").addEventListener("click", () => regions.choose(null));
  byId("clear").addEventListener("click", () => regions.clear());
  takeTool(TOOLS[0]);
}

function takeTool(tool) {
  stage.take(tool);
  for (const { name } of TOOLS) byId(`tool-${name}`).setAttribute("aria-pressed", String(name === tool.name));
  byId("side").hidden = tool.name !== "points";
  byId("size").hidden = !tool.sized;
  byId("hint").textContent = tool.hint;
}

function enlarge(factor) {
  if (scene === null) return;
  view.seen.enlarge(factor, stage.cursor ?? undefined);
  redraw();
}

function widen(by) {
  byId("width").value = Number(byId("width").value) + by;
  redraw();
}

/** False where no region is chosen. */
function removeChosen() {
  if (regions.chosen === null) return false;
  regions.remove(regions.chosen);
  return true;
}

// Regions and the question.

function showRegions() {
  if (scene === null || names === null) return;
  showCards({
    regions, outlines, ticks: form.ticks,
    used: (number) => form.uses(number),
    use: (number, wanted) => form.use(number, wanted),
  });
  form.showChips(regions.all);
  byId("undo").disabled = !regions.canUndo;
  byId("redo").disabled = !regions.canRedo;
  redraw();
}

function regionsChanged() {
  if (conversation && !isAbout(conversation, regions)) endConversation();
  if (scene) outlines.want(regions.all, scene);
  showRegions();
}

function endConversation() {
  conversation = null;
  form.showConversation(null);
}

function goOn(request, answer) {
  conversation = conversationAfter(request, answer, regions);
  if (!isAbout(conversation, regions)) {
    endConversation();
    desk.say("The regions have changed since: ask anew.");
    return;
  }
  form.fill({ mode: "ask" });
  form.showConversation([...conversation.assigned.keys()], endConversation);
  form.question.focus();
}

async function ask() {
  forget();
  if (asking.busy || scene === null) return;
  let request;
  try {
    const wanted = form.wanted(regions.all.map(({ number }) => number));
    request = requestOf(wanted, { regions: regions.all, names, picture: scene.picture, conversation, limits });
  } catch (error) {
    if (!(error instanceof Unfinished)) throw error;
    report(error);
    byId(error.field).focus();
    return;
  }
  const onFollow = ["ask", "chat"].includes(request.path) ? (answer) => goOn(request, answer) : null;
  const card = new AnswerCard(request, { scene, onFollow });
  byId("answers").prepend(card.element);
  byId("answers-part").hidden = false;
  desk.say("");
  await asking.run(request, scene, card);
  if (request.path === "chat" && conversation) conversationGoesOn(request, card);
}

/** The next question of a conversation follows the answer that has just come. */
function conversationGoesOn(request, card) {
  if (!card.last) return;
  conversation = conversationAfter(request, card.last, regions);
  form.question.value = "";
  form.question.focus();
}

function showBusy() {
  byId("go").hidden = asking.busy;
  byId("stop").hidden = !asking.busy;
  waiting(0);
}

// Messages.

function report(error) {
  const place = byId("problem");
  place.replaceChildren(element("span", {}, error.message),
    element("button", { type: "button", class: "plain", "aria-label": "Close this message", onclick: forget }, "×"));
  place.hidden = false;
}

function forget() {
  byId("problem").hidden = true;
}

/** Say that the server is waited for; 0: that it is not, or no longer because it is busy. */
function waiting(seconds) {
  const rest = asking.busy ? "Answering…" : "";
  byId("status").textContent = seconds ? `The server is busy; trying again in ${seconds} s.` : rest;
}

// The beginning.

const ACTIONS = [
  ...TOOLS.map((tool) => ({ key: tool.key, says: tool.label, run: () => takeTool(tool) })),
  { key: "n", says: "new region", run: () => regions.choose(null) },
  { key: "o", says: "points inside or outside", run: () => byId("side").querySelector("input:not(:checked)").click() },
  { key: "+", says: "larger; Ctrl and the wheel too", run: () => enlarge(LARGER) },
  { key: "-", says: "smaller", run: () => enlarge(1 / LARGER) },
  { key: "0", says: "all of the picture", run: () => enlarge(0) },
  { key: "[", says: "narrower brush", run: () => widen(-4) },
  { key: "]", says: "wider brush", run: () => widen(4) },
  { key: "Delete", says: "remove the chosen region", run: removeChosen },
  { key: "Backspace", run: removeChosen },
  { key: "Control+z", says: "undo", run: () => regions.undo() },
  { key: "Control+Shift+z", says: "redo", run: () => regions.redo() },
  { key: "Control+y", run: () => regions.redo() },
  { key: "/", says: "to the question", run: () => form.question.focus() },
  { key: "Escape", says: "leave off an outline, stop an answer", run: () => stage.cancel() || asking.stop() },
  { key: "?", says: "this list", run: () => byId("keys-dialog").showModal() },
];

async function start() {
  startTheme(byId("theme"));
  startTools();
  startPictures();
  startKeys(ACTIONS);
  listKeys(byId("keys"), ACTIONS);
  byId("keys-button").addEventListener("click", () => byId("keys-dialog").showModal());
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask().catch(report);
  });
  byId("stop").addEventListener("click", () => asking.stop());
  regions.addEventListener("change", regionsChanged);
  regions.addEventListener("choose", showRegions);
  outlines.addEventListener("change", showRegions);
  form.addEventListener("change", showRegions);
  const [model] = await models();
  names = new Names(model.gar.regions);
  limits = model.gar.limits;
  form.start(names, limits);
  byId("model").textContent = `${model.id}, on ${model.gar.engine}`;
  await showExamples(opened, report);
}

start().catch(report);
