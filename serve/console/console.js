// The console: what the API offers, in a page. Everything that was stored is put into the page as text, never as HTML.

const SESSIONS_A_PAGE = 50;
const MESSAGES_A_PAGE = 50;
const LOOK_EVERY_MS = 3000;

const el = (id) => document.getElementById(id);
const made = (tag, text = "", className = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
};

const state = { view: "chat", session: null, lastSession: null, firstMessage: null, answering: null, following: null };

// -- the API ----------------------------------------------------------------------------------------------------

class Refused extends Error {}

const headers = () => {
  const key = sessionStorage.getItem("key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
};

async function ask(method, path, { query = {}, body, signal } = {}) {
  const given = Object.entries(query).filter(([, value]) => value != null);
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(path + search, { method, headers: headers(), body: sent, signal });
  if (!response.ok && !(response.status === 503 && path === "/ready")) {
    throw new Refused(await reason(response));
  }
  return response;
}

async function reason(response) {
  const text = await response.text();
  try {
    const { message, request_id: id } = JSON.parse(text).error;
    return `${message} (${id})`;
  } catch {
    return `the server answered ${response.status}`;
  }
}

const get = async (path, query) => (await ask("GET", path, { query })).json();
const post = async (path, body) => (await ask("POST", path, { body })).json();
const sessionPath = (id, rest = "") => `/v1/sessions/${encodeURIComponent(id)}${rest}`;

// Events of a stream, as {name, data}. Closing the iteration closes the connection, which ends the work behind it.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n");
        const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
        const name = lines.find((line) => line.startsWith("event: "))?.slice(7) ?? "message";
        if (data) yield { name, data: JSON.parse(data) };
      }
    }
  } finally {
    await reader.cancel();
  }
}

// -- notices and questions --------------------------------------------------------------------------------------

function notice(text = "") {
  el("notice").textContent = text;
  el("notice").hidden = !text;
}

const guarded = (work) => async (...args) => {
  notice();
  try {
    await work(...args);
  } catch (error) {
    if (error.name === "AbortError") return;
    notice(error instanceof Refused ? error.message : `the server cannot be reached: ${error.message}`);
  }
};

function question(text, value) {
  const dialog = el("ask");
  el("ask-text").textContent = text;
  el("ask-value").hidden = value === undefined;
  el("ask-value").value = value ?? "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "ok" ? (value === undefined ? true : el("ask-value").value) : null);
  });
}

// -- sessions ---------------------------------------------------------------------------------------------------

const user = () => el("user").value.trim();

async function showSessions(isMore = false) {
  if (!user()) return;
  const after = isMore ? state.lastSession : null;
  const page = await get("/v1/sessions", { user_id: user(), order: "desc", limit: SESSIONS_A_PAGE, after });
  const rows = page.data.map((session) => {
    const button = made("button");
    button.type = "button";
    button.append(made("span", session.title, "title"));
    button.append(made("span", `${session.message_count} messages, ${when(session.updated_at)}`, "about"));
    button.setAttribute("aria-current", String(session.id === state.session?.id));
    button.onclick = guarded(() => openSession(session));
    const row = made("li");
    row.append(button);
    return row;
  });
  if (isMore) el("sessions").append(...rows);
  else el("sessions").replaceChildren(...rows);
  state.lastSession = page.last_id;
  el("more-sessions").hidden = !page.has_more;
}

const when = (text) => {
  const moment = new Date(text);
  return Number.isNaN(moment.valueOf()) ? text : moment.toLocaleString();
};

async function openSession(session) {
  state.answering?.abort();
  state.session = session;
  el("session-title").textContent = session?.title ?? "No session";
  el("session-actions").hidden = !session;
  el("messages").replaceChildren();
  el("earlier").hidden = true;
  state.firstMessage = null;
  if (session) await showMessages();
  await showSessions();
}

async function showMessages() {
  const query = { user_id: state.session.user_id, order: "desc", limit: MESSAGES_A_PAGE, after: state.firstMessage };
  const page = await get(sessionPath(state.session.id, "/messages"), query);
  const list = el("messages");
  const height = list.scrollHeight;
  list.prepend(...page.data.reverse().map(messageRow));
  list.scrollTop = list.scrollHeight - (state.firstMessage ? height : 0);
  state.firstMessage = page.data.length ? page.data[0].id : state.firstMessage;
  el("earlier").hidden = !page.has_more;
}

function messageRow({ role, content, timestamp = "", status = "complete" }) {
  const row = made("li", "", role);
  const note = status === "complete" ? "" : ` · ${status}`;
  row.append(made("div", `${role}${timestamp ? ` · ${when(timestamp)}` : ""}${note}`, "role"), made("div", content, "said"));
  return row;
}

async function newSession(title) {
  const session = await post("/v1/sessions", { user_id: user(), ...(title ? { title } : {}) });
  await openSession(session);
}

// -- the conversation -------------------------------------------------------------------------------------------

async function send(content) {
  if (!state.session) await newSession(content.slice(0, 60));
  const { id, user_id: owner } = state.session;
  state.answering = new AbortController();
  el("content").value = "";
  el("send").hidden = true;
  el("stop").hidden = false;
  const answer = messageRow({ role: "assistant", content: "" });
  answer.classList.add("pending");
  const list = el("messages");
  list.append(messageRow({ role: "user", content }), answer);
  list.scrollTop = list.scrollHeight;
  try {
    const body = { user_id: owner, content, stream: true };
    const response = await ask("POST", sessionPath(id, "/messages"), { body, signal: state.answering.signal });
    for await (const { name, data } of events(response)) {
      if (name === "delta") answer.lastChild.textContent += data.text;
      if (name === "ended" && data.message) answer.replaceChildren(...messageRow(data.message).childNodes);
      if (name === "error") throw new Refused(`${data.error.message} (${data.error.request_id})`);
      list.scrollTop = list.scrollHeight;
    }
  } finally {
    answer.classList.remove("pending");
    state.answering = null;
    el("send").hidden = false;
    el("stop").hidden = true;
    await showSessions();
  }
}

// -- modules and migrations -------------------------------------------------------------------------------------

async function showModules() {
  const readiness = await get("/ready");
  const missing = readiness.missing.length ? `; needed and not healthy: ${readiness.missing.join(", ")}` : "";
  el("readiness").textContent = `The platform is ${readiness.status.replace("_", " ")}${missing}.`;
  const names = Object.keys(readiness.modules);
  const rows = await Promise.all(names.map(async (name) => {
    const row = made("tr");
    const state_of = readiness.modules[name];
    row.append(made("td", name), made("td", state_of.replace("_", " "), `state ${state_of}`));
    const hosts = state_of === "not_loaded" ? [] : (await moduleHealth(name)).hosts;
    row.append(made("td", hosts.map((host) => `${host.shard}: ${host.reason ?? host.state}`).join(", ")));
    return row;
  }));
  el("module-rows").replaceChildren(...rows);
}

async function moduleHealth(name) {
  const response = await fetch(`/health/modules/${encodeURIComponent(name)}`);
  return response.ok || response.status === 503 ? response.json() : { hosts: [] };
}

async function showMigrations() {
  const page = await get("/v1/migrations", { order: "desc", limit: 20 });
  const cards = page.data.map(migrationCard);
  el("migration-list").replaceChildren(...(cards.length ? cards : [made("p", "No migration has been run into this directory.", "quiet")]));
  const running = page.data.find((run) => run.state === "running");
  if (running) await followMigration(running.id);
}

async function followMigration(id) {
  state.following?.abort();
  state.following = new AbortController();
  const response = await ask("GET", `/v1/migrations/${id}/events`, { signal: state.following.signal });
  for await (const { data } of events(response)) {
    if (data.error) throw new Refused(data.error.message);
    el("migration-list").firstChild?.replaceWith(migrationCard(data));
  }
}

function migrationCard(run) {
  const card = made("div", "", "run");
  const head = made("div", "", "row");
  head.append(made("h2", run.id), made("span", run.paused ? "paused" : run.state, `state ${run.state}`));
  card.append(head, made("p", `${run.source ?? "unknown source"} → ${run.target}`, "quiet"));
  if (run.progress.users_total) {
    const bar = made("progress");
    bar.max = run.progress.users_total;
    bar.value = run.progress.users;
    card.append(bar);
  }
  const figures = run.report ?? run.progress;
  const shown = ["users", "sessions", "messages", "documents", "quarantined"].filter((name) => figures[name] != null);
  card.append(made("p", shown.map((name) => `${name} ${figures[name].toLocaleString()}`).join(" · ")));
  for (const line of run.report?.notices ?? []) card.append(made("p", line, "quiet"));
  if (run.progress.line) card.append(made("p", run.progress.line, "quiet"));
  return card;
}

// -- views ------------------------------------------------------------------------------------------------------

const VIEWS = { chat: showSessions, modules: showModules, migrations: showMigrations };

const show = guarded(async (view) => {
  state.view = view;
  state.following?.abort();
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  for (const main of document.querySelectorAll(".view")) main.hidden = main.id !== view;
  location.hash = view;
  await VIEWS[view]();
});

function listen() {
  for (const button of document.querySelectorAll("[data-view]")) button.onclick = () => show(button.dataset.view);
  el("who").onsubmit = (submitted) => {
    submitted.preventDefault();
    sessionStorage.setItem("user", user());
    sessionStorage.setItem("key", el("key").value);
    guarded(() => openSession(null))();
  };
  el("new-session").onclick = guarded(() => newSession());
  el("more-sessions").onclick = guarded(() => showSessions(true));
  el("earlier").onclick = guarded(showMessages);
  el("stop").onclick = () => state.answering?.abort();
  el("composer").onsubmit = guarded(async (submitted) => {
    submitted.preventDefault();
    const content = el("content").value;
    if (content.trim() && !state.answering) await send(content);
  });
  el("content").onkeydown = (pressed) => {
    if (pressed.key === "Enter" && !pressed.shiftKey && !pressed.isComposing) {
      pressed.preventDefault();
      el("composer").requestSubmit();
    }
  };
  el("rename").onclick = guarded(async () => {
    const title = await question("New title", state.session.title);
    if (!title) return;
    const body = { user_id: state.session.user_id, title };
    await openSession(await (await ask("PATCH", sessionPath(state.session.id), { body })).json());
  });
  el("fork").onclick = guarded(async () => {
    await openSession(await post(sessionPath(state.session.id, "/fork"), { user_id: state.session.user_id }));
  });
  el("delete").onclick = guarded(async () => {
    if (!(await question(`Delete “${state.session.title}” with all its messages, for good?`))) return;
    await ask("DELETE", sessionPath(state.session.id), { query: { user_id: state.session.user_id } });
    await openSession(null);
  });
  setInterval(() => {
    if (state.view === "modules" && !document.hidden) guarded(showModules)();
  }, LOOK_EVERY_MS);
}

el("user").value = sessionStorage.getItem("user") ?? "me";
el("key").value = sessionStorage.getItem("key") ?? "";
listen();
show(location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "chat");
