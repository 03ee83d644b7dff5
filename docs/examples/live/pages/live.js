"use strict";
const $ = (id) => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text ?? "";
  return made;
}

async function call(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body ? { "content-type": "application/json" } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  if (answer.status === 204) return null;
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.detail || data.title);
  return data;
}

async function showNotes() {
  const notes = await call("GET", "/api/notes");
  $("notes").replaceChildren(...notes.map((note) => {
    const item = element("li");
    const remove = element("button", "quiet", "×");
    remove.ariaLabel = `Forget note ${note.id}`;
    remove.onclick = () => attempt(() => call("DELETE", `/api/notes/${note.id}`));
    const time = element("time", "", new Date(note.created).toLocaleString());
    item.append(element("span", "text", note.text), time, remove);
    return item;
  }));
}

async function attempt(action) {
  try {
    await action();
    $("note-error").textContent = "";
  } catch (error) {
    $("note-error").textContent = error.message;
  }
  await showNotes();
}

function openChat(delay = 500) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/ws/chat`);
  socket.onopen = () => { delay = 500; $("chat-state").textContent = "Connected."; };
  socket.onclose = () => {
    $("chat-state").textContent = "Disconnected; trying again…";
    setTimeout(() => openChat(Math.min(delay * 2, 10000)), delay);
  };
  socket.onmessage = (event) => {
    const line = JSON.parse(event.data);
    const item = element("li");
    item.append(element("strong", "", line.name), element("span", "text", line.text));
    $("lines").append(item);
    item.scrollIntoView({ block: "nearest" });
  };
  $("chat-form").onsubmit = (event) => {
    event.preventDefault();
    const fields = event.target.elements;
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(JSON.stringify({ name: fields.name.value, text: fields.text.value }));
    fields.text.value = "";
  };
}

async function showStatus() {
  const status = await call("GET", "/api/status");
  $("health").textContent = status.health;
  $("health").className = status.health;
  $("checks").replaceChildren(...status.checks.map((check) => {
    const row = element("tr");
    row.append(element("td", "", check.name), element("td", check.status, check.status),
      element("td", "soft", check.detail));
    return row;
  }));
  $("plugins").replaceChildren(...status.plugins.map((plugin) => {
    const row = element("tr");
    const state = element("td", plugin.status, plugin.status);
    if (plugin.reason) state.append(element("div", "soft", plugin.reason));
    row.append(element("td", "", plugin.name),
      element("td", "", `${plugin.distribution} ${plugin.version}`), state,
      element("td", "soft", String(plugin.hooks.length)));
    return row;
  }));
}

if ($("note-form")) {
  $("note-form").onsubmit = (event) => {
    event.preventDefault();
    const field = event.target.elements.text;
    attempt(async () => {
      await call("POST", "/api/notes", { text: field.value });
      field.value = "";
    });
  };
  attempt(async () => {});
  openChat();
} else {
  showStatus();
}
