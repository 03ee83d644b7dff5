// Shows an OpenAPI document, and sends requests to what it describes. Whatever the document
// says becomes text, never markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];
const MOST_SHOWN = 1 << 20;
const root = new URL(document.body.dataset.root, location.href);
const source = new URL(document.body.dataset.document, location.href);
let api = {};

/** Make an element. Children are elements or text; attributes with a false value are left out. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === undefined || value === "") continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Paragraphs and `code` of a description. */
function prose(text) {
  return (text || "").split(/\n\s*\n/).filter((part) => part.trim()).map((part) =>
    make("p", {}, part.split(/(`[^`]+`)/).map((piece) =>
      piece.length > 2 && piece.startsWith("`") ? make("code", {}, piece.slice(1, -1)) : piece)));
}

// Schemas.

const nameOf = (reference) => decodeURIComponent(reference.split("/").pop()).replaceAll("~1", "/").replaceAll("~0", "~");

function resolve(item) {
  let found = item;
  for (let depth = 0; found && found.$ref && depth < 20; depth++) {
    if (!found.$ref.startsWith("#/")) return {};
    found = found.$ref.slice(2).split("/").reduce(
      (at, key) => at && at[decodeURIComponent(key).replaceAll("~1", "/").replaceAll("~0", "~")], api);
  }
  return found || {};
}

/** What stands beside a reference counts more than what it leads to. */
const said = (item, key) => item && key in item ? item[key] : resolve(item)[key];

const LIMITS = { minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<", minLength: "length ≥", maxLength: "length ≤", pattern: "matching", multipleOf: "multiple of", minItems: "items ≥", maxItems: "items ≤" };

/** What a schema is, in a few words. */
function typeOf(schema, depth = 0) {
  if (!schema || depth > 6) return "…";
  if (schema.$ref) return nameOf(schema.$ref);
  const options = schema.anyOf || schema.oneOf;
  if (options) return [...new Set(options.map((option) => typeOf(option, depth + 1)))].join(" or ");
  if (schema.allOf) return schema.allOf.map((part) => typeOf(part, depth + 1)).join(" and ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  const types = [].concat(schema.type || (schema.properties ? "object" : "any"));
  const named = types.map((type) => {
    if (type === "array") return schema.items ? `array of ${typeOf(schema.items, depth + 1)}` : "array";
    if (type === "object" && schema.additionalProperties && schema.additionalProperties !== true) {
      return `object of ${typeOf(schema.additionalProperties, depth + 1)}`;
    }
    return schema.format ? `${type} (${schema.format})` : type;
  });
  const limits = Object.entries(LIMITS).filter(([key]) => key in schema).map(([key, word]) => `${word} ${schema[key]}`);
  return [named.join(" or "), ...limits].join(", ");
}

/** Every property of a schema that is an object, those of what it is made of included. */
function propertiesOf(schema, seen = []) {
  const plain = resolve(schema);
  if (seen.includes(plain)) return [];
  const within = [...seen, plain];
  const required = new Set(plain.required || []);
  const own = Object.entries(plain.properties || {}).map(([name, property]) => ({ name, property, required: required.has(name) }));
  return [...(plain.allOf || []).flatMap((part) => propertiesOf(part, within)), ...own];
}

/** The schema whose properties are worth showing: of an array its items', of a choice each. */
function partsOf(schema) {
  const plain = resolve(schema);
  if (plain.items) return partsOf(plain.items);
  const options = plain.anyOf || plain.oneOf;
  if (options) return options.flatMap(partsOf);
  return propertiesOf(plain).length ? [schema] : [];
}

function tree(schema, depth = 0) {
  return partsOf(schema).map((part) => make("ul", { class: "properties" },
    propertiesOf(part).map(({ name, property, required }) => {
      const given = said(property, "default");
      const line = [make("code", {}, name), " ", make("span", { class: "type" }, typeOf(property))];
      if (required) line.push(" ", make("span", { class: "required" }, "required"));
      if (given !== undefined) line.push(" ", make("span", { class: "type" }, `default ${JSON.stringify(given)}`));
      const below = depth < 5 && partsOf(property).length
        ? make("details", {}, make("summary", { class: "type" }, "its properties"), tree(property, depth + 1)) : null;
      return make("li", {}, line, prose(said(property, "description")), below);
    })));
}

const SAMPLES = { date: "2026-01-31", "date-time": "2026-01-31T12:00:00Z", time: "12:00:00Z", uuid: "00000000-0000-4000-8000-000000000000", duration: "PT1H", email: "ada@example.com", uri: "https://example.com/" };

/** A value that fits a schema, to begin with. */
function sample(schema, seen = []) {
  const plain = resolve(schema);
  if (seen.includes(plain) || seen.length > 8) return null;
  const within = [...seen, plain];
  for (const key of ["example", "default", "const"]) if (said(schema, key) !== undefined) return said(schema, key);
  if (plain.examples?.length) return plain.examples[0];
  if (plain.enum) return plain.enum[0];
  const options = plain.anyOf || plain.oneOf;
  if (options) return sample(options.find((option) => option.type !== "null") || options[0], within);
  const properties = propertiesOf(plain);
  if (properties.length) return Object.fromEntries(properties.map(({ name, property }) => [name, sample(property, within)]));
  switch ([].concat(plain.type)[0]) {
    case "array": return plain.items && plain.minItems ? [sample(plain.items, within)] : [];
    case "object": return {};
    case "integer": case "number": return plain.minimum ?? (plain.exclusiveMinimum !== undefined ? plain.exclusiveMinimum + 1 : 0);
    case "boolean": return false;
    case "string": return SAMPLES[plain.format] ?? "x".repeat(plain.minLength || 0);
    default: return null;
  }
}

// Inputs: each is an element and a function that reads its values, none of which is none.

function input(schema, identifier, disabled = false) {
  const plain = resolve(schema);
  const single = plain.anyOf ? plain.anyOf.map(resolve).find((option) => option.type !== "null") || plain : plain;
  const given = said(schema, "default") ?? single.default;
  if (single.type === "string" && single.format === "binary") {
    const element = make("input", { type: "file", id: identifier });
    return { element, values: () => [...element.files] };
  }
  if (single.type === "array") {
    const item = resolve(single.items || {});
    if (item.format === "binary") {
      const element = make("input", { type: "file", multiple: true, id: identifier });
      return { element, values: () => [...element.files] };
    }
    const element = make("textarea", { rows: 2, id: identifier, placeholder: "one a line", disabled, spellcheck: "false" });
    element.value = (given || []).join("\n");
    return { element, values: () => element.value.split("\n").filter((line) => line !== "") };
  }
  const choices = single.enum || (single.type === "boolean" ? [true, false] : null);
  if (choices) {
    const element = make("select", { id: identifier, disabled }, make("option", { value: "-1" }, "not sent"),
      choices.map((choice, index) => make("option", { value: String(index) }, String(choice))));
    element.value = String(given === undefined ? -1 : choices.indexOf(given));
    return { element, values: () => element.value === "-1" ? [] : [String(choices[Number(element.value)])] };
  }
  const element = make("input", { id: identifier, disabled, autocomplete: "off", spellcheck: "false", placeholder: typeOf(single) });
  if (given !== undefined && given !== null) element.value = String(given);
  return { element, values: () => element.value === "" ? [] : [element.value] };
}

function field(identifier, name, schema, { place = "", required = false, description = "", disabled = false } = {}) {
  const made = input(schema, identifier, disabled);
  const label = make("label", { for: identifier }, make("span", { class: "name" }, name), required ? make("span", { class: "required", title: "required" }, " *") : "",
    make("br"), make("span", { class: "type" }, typeOf(schema)), place ? make("span", { class: "place" }, ` · ${place}`) : "");
  const note = disabled ? "The browser decides on this one." : description;
  return { ...made, row: make("div", { class: "field" }, label, make("div", {}, made.element, note ? make("div", { class: "note" }, note) : "")) };
}

// A request's body: chosen by media type, each with an editor of its own.

function bodyEditor(identifier, media, content) {
  const schema = content.schema || {};
  if (media === "multipart/form-data" || media === "application/x-www-form-urlencoded") {
    const fields = propertiesOf(schema).map(({ name, property, required }) =>
      [name, field(`${identifier}-${name}`, name, property, { required, description: said(property, "description") })]);
    const body = () => {
      const form = media === "multipart/form-data" ? new FormData() : new URLSearchParams();
      for (const [name, each] of fields) for (const value of each.values()) form.append(name, value);
      return { body: form };
    };
    return { element: make("div", { class: "fields" }, fields.map(([, each]) => each.row)), body };
  }
  if (media === "application/octet-stream") {
    const element = make("input", { type: "file", id: identifier, "aria-label": "Body" });
    return { element, body: () => ({ body: element.files[0] ?? new Blob(), type: media }) };
  }
  const element = make("textarea", { rows: 8, id: identifier, spellcheck: "false", "aria-label": "Body" });
  const value = content.example ?? sample(schema);
  element.value = media.includes("json") ? JSON.stringify(value, null, 2) : String(value ?? "");
  element.rows = Math.min(Math.max(element.value.split("\n").length, 3), 20);
  return { element, body: () => ({ body: element.value, type: media }) };
}

// Sending.

function sharedFields() {
  return document.getElementById("fields").value.split("\n").map((line) => line.split(/:(.*)/s))
    .filter(([name, value]) => name.trim() && value !== undefined).map(([name, value]) => [name.trim(), value.trim()]);
}

function address(path, parameters) {
  const filled = path.replace(/\{([^}]+)\}/g, (_, name) => {
    const found = parameters.find((each) => each.in === "path" && each.name === name);
    const text = encodeURIComponent(found?.values()[0] ?? "");
    return found?.slashes ? text.replaceAll("%2F", "/") : text;
  });
  const server = api.servers?.[0]?.url;
  const base = server ? new URL(server.replace(/\/?$/, "/"), source) : root;
  const url = new URL(filled.replace(/^\//, ""), base);
  for (const each of parameters) if (each.in === "query") for (const value of each.values()) url.searchParams.append(each.name, value);
  return url;
}

const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

function asCurl(method, url, headers, sent) {
  const parts = ["curl", ...(method === "GET" ? [] : ["-X", method]), quoted(url)];
  for (const [name, value] of headers) parts.push("-H", quoted(`${name}: ${value}`));
  if (sent?.body instanceof FormData) {
    for (const [name, value] of sent.body) parts.push("-F", quoted(`${name}=${value instanceof File ? `@${value.name}` : value}`));
  } else if (sent?.body instanceof URLSearchParams) {
    for (const [name, value] of sent.body) parts.push("--data-urlencode", quoted(`${name}=${value}`));
  } else if (sent?.body instanceof Blob) {
    parts.push("--data-binary", quoted(`@${sent.body.name ?? "file"}`));
  } else if (sent) parts.push("--data-raw", quoted(sent.body));
  return parts.join(" ");
}

/** Show text as it comes, which for a stream of events is for ever. */
async function readText(response, shown) {
  const reader = response.body?.getReader();
  if (!reader) return "";
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    text += decoder.decode(value, { stream: !done });
    if (done || text.length > MOST_SHOWN) break;
    shown.textContent = text;
  }
  if (text.length > MOST_SHOWN) {
    reader.cancel();
    return `${text.slice(0, MOST_SHOWN)}\n… and more`;
  }
  return text;
}

function pretty(text, type) {
  // A number with many digits would come out as another one.
  if (!/json/.test(type) || /\d{16}/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function send(request, answer, control) {
  const began = performance.now();
  const state = make("p", {}, make("span", {}, "Waiting …"));
  const shown = make("pre", { tabindex: "0" });
  answer.replaceChildren(state, shown);
  answer.hidden = false;
  try {
    const response = await fetch(request.url, { ...request.options, signal: control.signal, redirect: "follow" });
    const type = response.headers.get("content-type") || "";
    const milliseconds = Math.round(performance.now() - began);
    state.replaceChildren(
      make("span", { class: `status ${response.ok ? "good" : "bad"}` }, `${response.status} ${response.statusText}`),
      make("span", {}, `${milliseconds} ms`), make("span", {}, type));
    answer.append(make("details", {}, make("summary", {}, "Header fields"),
      make("pre", {}, [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n"))));
    answer.append(make("details", {}, make("summary", {}, "As a command"), make("pre", {}, request.curl)));
    if (/^(text\/|application\/(.*[+])?(json|xml|yaml|javascript|x-ndjson))/.test(type) || !type) {
      const text = await readText(response, shown);
      shown.textContent = pretty(text, type) || "(no content)";
    } else {
      const blob = await response.blob();
      const link = make("a", { href: URL.createObjectURL(blob), download: request.url.pathname.split("/").pop() || "content" }, `Save ${blob.size} bytes`);
      shown.replaceChildren(link);
    }
  } catch (error) {
    if (error.name === "AbortError") state.append(make("span", {}, "Stopped."));
    else state.replaceChildren(make("span", { class: "status bad" }, "No answer"), make("span", {}, error.message));
  }
}

function tryOut(identifier, path, method, parameters, bodies, required) {
  const answer = make("div", { class: "answer", hidden: true, "aria-live": "polite" });
  const button = make("button", { class: "send", type: "submit" }, "Send");
  const stop = make("button", { type: "button", hidden: true }, "Stop");
  const rows = parameters.map((each) => each.row);
  const choice = bodies.length > 1 ? make("select", { "aria-label": "Media type of the body" },
    bodies.map((each, index) => make("option", { value: String(index) }, each.media))) : null;
  const place = make("div", {}, bodies[0]?.editor.element ?? "");
  choice?.addEventListener("change", () => place.replaceChildren(bodies[Number(choice.value)].editor.element));
  const form = make("form", {},
    rows.length ? [make("h3", {}, "Parameters"), make("div", { class: "fields" }, rows)] : [],
    bodies.length ? [make("h3", {}, `Body${required ? " (required)" : ""}`), choice ?? make("p", { class: "type" }, bodies[0].media), place] : [],
    make("div", { class: "actions" }, button, stop));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const control = new AbortController();
    const sent = bodies.length ? bodies[Number(choice?.value ?? 0)].editor.body() : null;
    const headers = [...sharedFields(), ...parameters.filter((each) => each.in === "header" && !each.element.disabled)
      .flatMap((each) => each.values().map((value) => [each.name, value]))];
    if (sent?.type) headers.push(["content-type", sent.type]);
    const url = address(path, parameters);
    const options = { method: method.toUpperCase(), body: sent?.body };
    try {
      options.headers = new Headers(headers);
    } catch (error) {
      answer.replaceChildren(make("p", {}, make("span", { class: "status bad" }, "Not sent"), error.message));
      answer.hidden = false;
      return;
    }
    stop.onclick = () => control.abort();
    button.disabled = true;
    stop.hidden = false;
    await send({ url, options, curl: asCurl(options.method, url, headers, sent) }, answer, control);
    button.disabled = false;
    stop.hidden = true;
  });
  return [form, answer];
}

// The page.

const FORBIDDEN = /^(accept-charset|accept-encoding|connection|content-length|cookie|date|expect|host|keep-alive|origin|referer|te|trailer|transfer-encoding|upgrade|user-agent|via|proxy-.*|sec-.*)$/i;

function responseRows(responses) {
  return Object.entries(responses || {}).map(([status, given]) => {
    const response = resolve(given);
    const kinds = Object.entries(response.content || {}).map(([media, content]) =>
      make("div", {}, make("span", { class: "type" }, `${media}: ${typeOf(content.schema)}`),
        partsOf(content.schema).length ? make("details", {}, make("summary", { class: "type" }, "its properties"), tree(content.schema)) : ""));
    return make("tr", {}, make("td", {}, status), make("td", {}, response.description || "", kinds));
  });
}

function operationElement(path, method, operation, common, identifier) {
  const inside = make("div", { class: "inside" });
  const element = make("details", { class: `operation ${method}${operation.deprecated ? " deprecated" : ""}`, id: identifier },
    make("summary", {}, make("span", { class: "method" }, method.toUpperCase()), make("span", { class: "path" }, path),
      make("span", { class: "brief" }, operation.summary || "", operation.deprecated ? " (deprecated)" : "")), inside);
  const fill = () => {
    if (!element.open || inside.hasChildNodes()) return;
    const given = [...common, ...(operation.parameters || [])].map(resolve);
    const parameters = given.filter((each, index) => index === given.findLastIndex((other) => other.name === each.name && other.in === each.in)).map((each) => ({
      name: each.name, in: each.in, slashes: each["x-flowcoro-slashes"],
      ...field(`${identifier}-${each.in}-${each.name}`, each.name, each.schema || {}, {
        place: each.in, required: each.required, description: each.description,
        disabled: each.in === "cookie" || (each.in === "header" && FORBIDDEN.test(each.name)),
      }),
    }));
    const body = resolve(operation.requestBody);
    const bodies = Object.entries(body.content || {}).map(([media, content], index) =>
      ({ media, content, editor: bodyEditor(`${identifier}-body-${index}`, media, content) }));
    const described = bodies.find((each) => each.media.includes("json"));
    inside.append(...prose(operation.description), ...tryOut(identifier, path, method, parameters, bodies, body.required));
    if (described && partsOf(described.content.schema).length) {
      inside.append(make("h3", {}, "The body's properties"), ...tree(described.content.schema));
    }
    inside.append(make("h3", {}, "Responses"), make("table", { class: "responses" }, make("tbody", {}, responseRows(operation.responses))));
  };
  element.addEventListener("toggle", fill);
  return { element, fill };
}

function groups() {
  const found = new Map((api.tags || []).map((tag) => [tag.name, []]));
  for (const [path, given] of Object.entries(api.paths || {})) {
    const item = resolve(given);
    for (const method of METHODS.filter((name) => item[name])) {
      for (const tag of item[method].tags?.length ? item[method].tags : [""]) {
        if (!found.has(tag)) found.set(tag, []);
        found.get(tag).push({ path, method, operation: item[method], common: item.parameters || [] });
      }
    }
  }
  return [...found].filter(([, operations]) => operations.length);
}

function show() {
  const about = document.getElementById("about");
  document.title = api.info?.title || document.title;
  about.replaceChildren(
    make("h1", {}, api.info?.title || "API", " ", make("span", { class: "version" }, api.info?.version || "")),
    ...prose(api.info?.description), make("p", {}, make("a", { href: source.href }, "OpenAPI document")));
  const contents = document.getElementById("contents");
  const operations = document.getElementById("operations");
  const entries = [];
  for (const [tag, list] of groups()) {
    const links = make("ul");
    const title = make("h2", {}, tag || "Operations");
    const section = make("section", {}, title);
    for (const { path, method, operation, common } of list) {
      const identifier = `${tag}-${method}-${path}`.replace(/[^\w-]+/g, "_");
      const { element, fill } = operationElement(path, method, operation, common, identifier);
      const link = make("li", {}, make("a", { href: `#${identifier}`, class: method, onclick: () => { element.open = true; fill(); } },
        make("span", { class: "method" }, method.toUpperCase()), make("span", {}, path)));
      section.append(element);
      links.append(link);
      entries.push({ words: `${method} ${path} ${operation.summary || ""} ${tag}`.toLowerCase(), element, link });
    }
    contents.append(make("h2", {}, tag || "Operations"), links);
    operations.append(section);
  }
  const schemas = Object.entries(api.components?.schemas || {});
  document.getElementById("schemas").hidden = !schemas.length;
  document.getElementById("schemas").append(...schemas.map(([name, schema]) =>
    make("details", { class: "schema" }, make("summary", {}, name, " ", make("span", { class: "type" }, typeOf(schema))), ...prose(schema.description), ...tree(schema))));
  document.getElementById("filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    for (const entry of entries) entry.element.hidden = entry.link.hidden = !words.every((word) => entry.words.includes(word));
    for (const part of document.querySelectorAll("#operations > section, #contents > ul")) {
      const none = ![...part.querySelectorAll(".operation, li")].some((each) => !each.hidden);
      part.hidden = none;
      if (part.tagName === "UL") part.previousElementSibling.hidden = none;
    }
  });
  const opened = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (opened?.classList.contains("operation")) {
    opened.open = true;
    opened.scrollIntoView();
  }
}

async function start() {
  try {
    const response = await fetch(source);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    api = await response.json();
  } catch (error) {
    document.getElementById("state").textContent = `The document at ${source.pathname} cannot be read: ${error.message}`;
    return;
  }
  show();
}

start();
