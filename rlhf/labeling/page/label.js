// The page on which people judge. What a model wrote enters it as text nodes only; the server's policy forbids the rest.

const $ = (id) => document.getElementById(id);
const PLACES = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"];
const RETRY_MS = [500, 1000, 2000, 4000];

let session; // what /api/session said
let me = "";
let last = null; // id of the newest judgement, for undo
let task = null; // what is on the page: {item, id, ranks, quality, attributes, seconds}, the latter by response
let cards = []; // one a response, as shown: {id, letter, element, places, ratings, ticks}
let current = 0; // the card that keys speak of
let busy = false;

// Text, attributes and children in, an element out; nothing is ever parsed as HTML.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function newId() {
  // randomUUID is only there over https and on localhost.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const kept = {
  key: (name) => `rlhf:${session.project}:${me}:${name}`,
  read: (name) => JSON.parse(localStorage.getItem(kept.key(name)) ?? "null"),
  write: (name, value) => localStorage.setItem(kept.key(name), JSON.stringify(value)),
  drop: (name) => localStorage.removeItem(kept.key(name)),
};

function say(text) {
  $("alert").textContent = text ?? "";
  $("alert").hidden = !text;
}

class Refused extends Error {}

// Asks until there is an answer: a server that is down is waited for, one that refuses is believed.
async function ask(path, body) {
  for (let attempt = 0; ; attempt++) {
    let problem = "The server does not answer.";
    try {
      const request = body === undefined ? {} : {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      };
      const answer = await fetch(path, request);
      if (answer.ok) {
        if (attempt > 0) say(null);
        return await answer.json();
      }
      const told = (await answer.json().catch(() => ({}))).error ?? `The server answers ${answer.status}.`;
      if (answer.status < 500) throw new Refused(told);
      problem = told;
    } catch (error) {
      if (error instanceof Refused) throw error;
    }
    say(`${problem} What you have judged is kept here and goes out when it is back.`);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]));
  }
}

// One thing at a time: a second click finds the first at work.
async function alone(work) {
  if (busy) return;
  busy = true;
  paintBar();
  try {
    await work();
  } catch (error) {
    say(error instanceof Refused ? error.message : `The page has a mistake: ${error.message}`);
    if (!(error instanceof Refused)) throw error;
  } finally {
    busy = false;
    paintBar();
  }
}

function show(name) {
  for (const section of ["welcome", "work", "done"]) $(section).hidden = section !== name;
  $("top").hidden = name === "welcome";
  $("bar").hidden = name !== "work";
}

// ---- who

async function begin() {
  if (location.search) history.replaceState(null, "", "/"); // the token is in the cookie now
  session = await ask("/api/session");
  paintHelp();
  me = localStorage.getItem("rlhf:labeler") ?? "";
  if (me) await goOn();
  else welcome();
}

function welcome() {
  const name = (text) => make("button", { type: "button", onclick: () => alone(() => become(text)) }, text);
  $("known-names").replaceChildren(...session.labelers.map(name));
  $("known").hidden = session.labelers.length === 0;
  show("welcome");
  $("name").value = "";
  $("name").focus();
}

async function become(name) {
  me = name.normalize("NFC").trim().replace(/\s+/gu, " ");
  localStorage.setItem("rlhf:labeler", me);
  try {
    await goOn();
  } catch (error) {
    localStorage.removeItem("rlhf:labeler");
    throw error;
  }
}

async function goOn() {
  const unsent = kept.read("unsent");
  if (unsent) await send(unsent);
  await next();
}

// ---- the item

async function next() {
  const answer = await ask("/api/next", { labeler: me });
  take(answer, kept.read("draft"));
}

function take(answer, draft) {
  last = answer.last;
  $("me").textContent = me;
  $("count").textContent = `${answer.judged} of ${answer.total}`;
  $("progress").max = Math.max(answer.total, 1);
  $("progress").value = answer.judged;
  if (answer.item === null) finished(answer);
  else open(answer.item, draft?.item === answer.item.key ? draft : null);
}

function open(item, draft) {
  task = {
    item: item.key,
    id: draft?.id ?? newId(),
    ranks: draft?.ranks ?? {},
    quality: draft?.quality ?? {},
    attributes: draft?.attributes ?? {},
    seconds: draft?.seconds ?? 0,
  };
  const several = item.messages.length > 1;
  $("prompt").replaceChildren(...item.messages.map((message) =>
    make("div", { class: "turn" },
      make("span", { class: several || message.role !== "user" ? "role" : "role unseen" }, titled(message.role)),
      make("p", { class: "text", dir: "auto" }, message.content))));
  cards = item.responses.map((response, place) => card(response, place, item.responses.length));
  $("responses").replaceChildren(...cards.map((one) => one.element));
  show("work");
  $("prompt").scrollTop = 0;
  window.scrollTo(0, 0);
  cards.forEach(paint);
  paintBar();
  current = 0;
  focusCard(0, { preventScroll: true });
}

const titled = (word) => word.charAt(0).toUpperCase() + word.slice(1);

function card(response, place, count) {
  const letter = String.fromCharCode(65 + place);
  const one = { id: response.id, letter };
  const step = (group, label, name, onchange) => {
    const input = make("input", { type: "radio", name: `${group}-${letter}`, "aria-label": name, onchange });
    return { input, label: make("label", {}, input, label) };
  };
  one.places = PLACES.slice(0, count).map((label, rank) =>
    step("place", label, `${label} place`, () => setPlace(place, rank)));
  one.ratings = session.quality.map((rating) =>
    step("quality", String(rating), `quality ${rating}`, () => setQuality(place, rating)));
  one.ticks = session.attributes.map((attribute) => {
    const input = make("input", { type: "checkbox", onchange: () => tick(place, attribute.name) });
    return { name: attribute.name, input,
      label: make("label", { title: attribute.meaning }, input, attribute.label, make("kbd", { "aria-hidden": "true" }, attribute.key)) };
  });
  one.text = make("p", { class: response.text ? "text" : "text empty", dir: "auto" }, response.text || "(empty)");
  one.element = make("section", { class: "response", tabindex: "-1", "aria-label": `Response ${letter}`,
    onfocusin: () => makeCurrent(place),
    onclick: (event) => {
      // After the mouse the keys speak of the whole response, not of the button that was hit.
      if (event.detail > 0 && !getSelection().toString()) focusCard(place, { preventScroll: true });
    } },
  make("header", {}, make("h2", { class: "letter" }, letter),
    make("fieldset", { class: "scale" }, make("legend", { class: "unseen" }, `Place of response ${letter}`),
      make("div", { class: "steps" }, ...one.places.map((each) => each.label)))),
  one.text,
  make("div", { class: "said" },
    make("fieldset", { class: "scale" }, make("legend", {}, "Quality, 7 best"),
      make("div", { class: "steps" }, ...one.ratings.map((each) => each.label))),
    make("fieldset", {}, make("legend", { class: "unseen" }, `True of response ${letter}`),
      make("div", { class: "ticks" }, ...one.ticks.map((each) => each.label)))));
  return one;
}

function makeCurrent(place) {
  current = place;
  cards.forEach((one, index) => {
    one.element.classList.toggle("current", index === place);
    one.element.tabIndex = index === place ? 0 : -1;
  });
}

function focusCard(place, options) {
  if (place < 0 || place >= cards.length) return;
  cards[place].element.focus(options);
  if (!options) cards[place].element.scrollIntoView({ block: "nearest" });
}

function paint(one) {
  one.places.forEach(({ input }, rank) => { input.checked = task.ranks[one.id] === rank; });
  one.ratings.forEach(({ input }, index) => { input.checked = task.quality[one.id] === session.quality[index]; });
  one.ticks.forEach(({ name, input }) => { input.checked = (task.attributes[one.id] ?? []).includes(name); });
}

function changed(place) {
  say(null);
  paint(cards[place]);
  kept.write("draft", task);
  paintBar();
}

function setPlace(place, rank) {
  if (rank === null) delete task.ranks[cards[place].id];
  else task.ranks[cards[place].id] = rank;
  changed(place);
}

function setQuality(place, rating) {
  task.quality[cards[place].id] = rating;
  changed(place);
}

function tick(place, name) {
  const ticked = task.attributes[cards[place].id] ?? [];
  task.attributes[cards[place].id] = ticked.includes(name) ? ticked.filter((each) => each !== name) : [...ticked, name];
  changed(place);
}

const unplaced = () => cards.filter((one) => task.ranks[one.id] === undefined);

// "B > A = C; still to place: D"
function paintBar() {
  $("undo").disabled = busy || last === null;
  $("save").disabled = $("skip").disabled = busy;
  if (!task) return;
  const parts = [];
  for (let rank = 0; rank < cards.length; rank++) {
    const here = cards.filter((one) => task.ranks[one.id] === rank);
    if (here.length && parts.length) parts.push(make("i", { "aria-label": "is better than" }, ">"));
    here.forEach((one, index) => {
      if (index) parts.push(make("i", { "aria-label": "is as good as" }, "="));
      parts.push(make("b", {}, one.letter));
    });
  }
  const left = unplaced();
  if (left.length) {
    const letters = left.map((one) => one.letter).join(", ");
    parts.push(make("span", { class: "open" }, parts.length ? `· to place: ${letters}` : `Give ${letters} a place`));
  }
  $("order").replaceChildren(...parts);
}

// ---- what is sent

async function save(skipped) {
  const left = unplaced();
  if (!skipped && left.length) {
    say(`Give ${left.map((one) => one.letter).join(", ")} a place first.`);
    focusCard(cards.indexOf(left[0]));
    return;
  }
  say(null);
  const { seconds, ...said } = task;
  const judgement = { ...said, labeler: me, seconds: Math.round(seconds * 10) / 10, skipped };
  kept.write("unsent", judgement);
  await send(judgement);
  await next();
}

async function send(judgement) {
  let told = null;
  try {
    await ask("/api/judge", judgement);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    told = error.message;
  }
  kept.drop("unsent");
  kept.drop("draft");
  say(told);
}

async function undo() {
  if (last === null) return;
  const answer = await ask("/api/undo", { labeler: me, id: last });
  say(null);
  if (answer.item === null) {
    await next();
    return;
  }
  kept.drop("draft"); // of the item that was on the page; its turn comes again
  take(answer, { item: answer.item.key, ...answer.judgement });
  kept.write("draft", task);
}

function finished(answer) {
  task = null;
  cards = [];
  const all = answer.judged >= answer.total;
  $("done-title").textContent = all ? "All judged" : "Nothing left for now";
  $("done-text").textContent = all
    ? `You have been through all ${answer.total} prompts. Thank you.`
    : `You have been through ${answer.judged} of ${answer.total} prompts; others have the rest in hand.`;
  $("again").hidden = all;
  show("done");
  people("done-people");
}

// ---- who has done what

async function people(into) {
  const found = await ask("/api/progress");
  const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);
  const head = ["Labeler", "Judged", "Skipped", "Seconds", "Agrees"];
  const numbers = (row) => [row.judged, row.skipped,
    row.median_seconds === null ? "–" : Math.round(row.median_seconds), percent(row.agrees)];
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((text, column) => make("th", { class: column ? "number" : null }, text)))),
    make("tbody", {}, ...found.labelers.map((row) => make("tr", {}, make("td", {}, row.name),
      ...numbers(row).map((text) => make("td", { class: "number" }, String(text)))))));
  const { items, pairs, share, alpha_ranks: places, alpha_quality: quality } = found.agreement;
  const alphas = [["places", places], ["quality", quality]].filter(([, alpha]) => alpha !== null)
    .map(([what, alpha]) => `${alpha.toFixed(2)} for ${what}`).join(", ");
  const told = share === null
    ? "Agreement shows once two labelers have judged the same prompt."
    : `Of ${pairs} pairs of responses that two labelers saw a difference in, over ${items} prompts, they ordered ` +
      `${(100 * share).toFixed(1)} % alike; each labeler's share is under Agrees.` + (alphas ? ` Krippendorff's alpha: ${alphas}.` : "");
  $(into).replaceChildren(make("div", { class: "wide" }, table), make("p", {}, told));
}

// ---- keys

function paintHelp() {
  const rows = [
    [["1", "…", "9"], "place of the response: 1 is best, equal places tie; goes on to the next response"],
    [["0"], "takes its place away"],
    [["Shift+1", "…", "Shift+7"], "its quality: 7 is best"],
    [["←", "→"], "response before, response after"],
    [["PgUp", "PgDn"], "scrolls its text"],
    ...session.attributes.map((attribute) => [[attribute.key.toUpperCase()], attribute.meaning]),
    [["A"], "shows all attributes, or only those ticked"],
    [["Enter"], "saves, and goes on to the next prompt"],
    [["N"], "skips the prompt; it is not shown to you again"],
    [["U"], "undo: takes your last judgement back, to change it"],
    [["?"], "these keys"],
  ];
  $("help-keys").replaceChildren(...rows.map(([keys, text]) =>
    make("tr", {}, make("td", {}, ...keys.map((key) => make("kbd", {}, key))), make("td", {}, text))));
}

function showAttributes(all) {
  $("responses").classList.toggle("few", !all);
  $("marks").setAttribute("aria-pressed", String(all));
  localStorage.setItem("rlhf:attributes", String(all));
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const at = event.target;
  if (at instanceof HTMLInputElement && at.type !== "radio" && at.type !== "checkbox") return;
  const once = (work) => {
    event.preventDefault();
    if (!event.repeat) work();
  };
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "?") return once(() => $("help").showModal());
  if (key === "u" && !$("top").hidden) return once(() => alone(undo));
  if (!task || busy || $("work").hidden) return undefined;
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1];
  if (digit !== undefined) {
    const number = Number(digit);
    if (event.shiftKey && event.code.startsWith("Digit")) {
      return session.quality.includes(number) ? once(() => setQuality(current, number)) : undefined;
    }
    if (number > cards.length) return undefined;
    return once(() => {
      setPlace(current, number === 0 ? null : number - 1);
      if (number > 0) focusCard(Math.min(current + 1, cards.length - 1));
    });
  }
  if (key === "Enter") return at.closest("button") ? undefined : once(() => alone(() => save(false)));
  if (key === "n") return once(() => alone(() => save(true)));
  if (key === "a") return once(() => showAttributes($("responses").classList.contains("few")));
  const attribute = session.attributes.find((each) => each.key === key);
  if (attribute) return once(() => tick(current, attribute.name));
  if (at instanceof HTMLInputElement) return undefined; // arrows move within its group there
  if (key === "ArrowLeft" || key === "ArrowRight") {
    event.preventDefault();
    focusCard(current + (key === "ArrowRight" ? 1 : -1));
  }
  const text = cards[current].text;
  if ((key === "PageDown" || key === "PageUp") && at !== $("prompt") && text.scrollHeight > text.clientHeight) {
    event.preventDefault();
    text.scrollBy(0, (key === "PageDown" ? 0.9 : -0.9) * text.clientHeight);
  }
  return undefined;
}

// ---- start

// The second click of a double click is none.
const onClick = (id, work) => $(id).addEventListener("click", (event) => { if (event.detail < 2) work(); });

onClick("save", () => alone(() => save(false)));
onClick("skip", () => alone(() => save(true)));
onClick("undo", () => alone(undo));
onClick("again", () => alone(next));
onClick("me", () => { if (!busy) { localStorage.removeItem("rlhf:labeler"); location.reload(); } });
onClick("marks", () => showAttributes($("responses").classList.contains("few")));
onClick("help-button", () => $("help").showModal());
onClick("people-button", async () => { await people("people-table"); $("people").showModal(); });
$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  alone(() => become($("name").value));
});
document.addEventListener("keydown", onKey);
setInterval(() => { if (task && !document.hidden && !busy) task.seconds += 1; }, 1000);
showAttributes((localStorage.getItem("rlhf:attributes") ?? String(innerWidth > 700)) === "true");
alone(begin);
