// Makes a readable page of /openapi.json. Whatever comes from the document becomes text, never markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
/** More members than these are told in one sentence if they are all of one kind. */
const ALIKE_MIN = 20;
/** Longer examples wait until somebody opens them. */
const EXAMPLE_LINES = 20;
let api;

// ---------------------------------------------------------------- elements

/** An element with attributes and children. Texts become text nodes; nothing is parsed as HTML. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A closed section whose inside is made when it is first opened. */
function fold(summary, fill, open = false) {
  const details = make("details", {}, make("summary", {}, summary));
  const once = () => {
    if (details.open && details.childElementCount === 1) details.append(...[fill()].flat(Infinity));
  };
  details.addEventListener("toggle", once);
  if (open) {
    details.open = true;
    once();
  }
  return details;
}

/** A code block that can be scrolled by keyboard, and copied where the browser lets us. */
function sample(text, json = false) {
  const code = make("code", {}, json ? coloured(text) : text);
  const box = make("div", { class: "sample" }, make("pre", { tabindex: "0" }, code));
  if (navigator.clipboard) {
    const button = make("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    box.append(button);
  }
  return box;
}

/** JSON with its texts, numbers and words told apart. */
function coloured(text) {
  const token = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g;
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(token)) {
    parts.push(text.slice(end, found.index));
    end = found.index + found[0].length;
    if (found[2] !== undefined) parts.push(found[0]);
    else parts.push(make("span", { class: found[1] ? "s" : found[3] ? "n" : "w" }, found[0]));
  }
  parts.push(text.slice(end));
  return parts;
}

/** A text as the end of an address. */
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-");

// ---------------------------------------------------------------- prose

/** The part of Markdown that the document uses: headings, paragraphs, lists, tables, code. */
function prose(text, heading = "h4") {
  const out = [];
  const lines = (text || "").split("\n");
  while (lines.length) {
    const line = lines.shift();
    if (!line.trim()) continue;
    if (line.startsWith("```")) {
      const end = lines.findIndex((other) => other.startsWith("```"));
      const code = lines.splice(0, end < 0 ? lines.length : end);
      lines.shift();
      out.push(sample(code.join("\n"), line.includes("json")));
    } else if (line.startsWith("#")) {
      const title = line.replace(/^#+\s*/, "");
      out.push(make(heading, { id: slug(title) }, inline(title)));
    } else if (line.startsWith("|")) {
      out.push(table([line, ...take(lines, (other) => other.startsWith("|"))]));
    } else if (line.startsWith("- ")) {
      out.push(list([line, ...take(lines, (other) => other.trim())]));
    } else {
      const more = take(lines, (other) => other.trim() && !/^(```|#|\||- )/.test(other));
      out.push(make("p", {}, inline([line, ...more].join(" "))));
    }
  }
  return out;
}

/** Takes lines off the front as long as `wanted` likes them. */
function take(lines, wanted) {
  const end = lines.findIndex((line) => !wanted(line));
  return lines.splice(0, end < 0 ? lines.length : end);
}

function list(lines) {
  const items = [];
  for (const line of lines) {
    if (line.startsWith("- ")) items.push(line.slice(2));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  return make("ul", {}, items.map((item) => make("li", {}, inline(item))));
}

function table(lines) {
  const rows = lines.map((line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim()));
  const [head, , ...body] = rows;
  const row = (cells, name) => make("tr", {}, cells.map((cell) => make(name, name === "th" ? { scope: "col" } : {}, inline(cell))));
  return make("div", { class: "scroll" },
    make("table", {}, make("thead", {}, row(head, "th")), make("tbody", {}, body.map((cells) => row(cells, "td")))));
}

/** `code`, **strong**, *emphasis* and [links](https://…) within a line. */
function inline(text) {
  const mark = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https:\/\/[^)\s]+|#[^)\s]*)\)/g;
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(mark)) {
    parts.push(text.slice(end, found.index));
    end = found.index + found[0].length;
    const [, code, strong, emphasis, label, target] = found;
    if (code) parts.push(make("code", {}, code));
    else if (strong) parts.push(make("strong", {}, strong));
    else if (emphasis) parts.push(make("em", {}, emphasis));
    else parts.push(make("a", { href: target, rel: "noreferrer" }, label));
  }
  parts.push(text.slice(end));
  return parts;
}

// ---------------------------------------------------------------- schemas

/** What a reference points to, with what stands beside the reference laid over it. */
function resolve(value) {
  const seen = new Set();
  while (value && typeof value.$ref === "string" && !seen.has(value.$ref)) {
    seen.add(value.$ref);
    const { $ref, ...beside } = value;
    const target = $ref.replace(/^#\//, "").split("/").reduce((at, part) => at?.[part.replace(/~1/g, "/").replace(/~0/g, "~")], api);
    value = { ...target, ...beside };
  }
  return value || {};
}

const isNull = (schema) => schema.type === "null";

/** The ways a schema can be met, without null, and whether null is one of them. */
function choices(schema) {
  const all = (schema.anyOf || schema.oneOf || []).map(resolve).map(plain);
  const types = [schema.type].flat();
  const nullable = all.some(isNull) || types.includes("null") || (schema.enum || []).includes(null);
  return { all: all.filter((one) => !isNull(one)), nullable };
}

/** `this, or null` as this one, which may then be null. */
function plain(schema) {
  const { anyOf, ...beside } = schema;
  const all = (anyOf || []).map(resolve).filter((one) => !isNull(one));
  if (all.length !== 1 || anyOf.length !== 2) return schema;
  const only = plain(all[0]);
  const type = only.type ? [only.type, "null"].flat() : undefined;
  return type ? { ...only, ...beside, type } : { ...only, ...beside, anyOf: [...(only.anyOf || []), { type: "null" }] };
}

/** A schema in a few words: `array of string, or null`. */
function kind(schema) {
  const { all, nullable } = choices(schema);
  const types = [schema.type].flat().filter((type) => type && type !== "null");
  let words;
  if (types[0] === "array") words = `array of ${schema.items ? kind(resolve(schema.items)) : "anything"}`;
  else if (types.length) words = types.join(" or ");
  else if (schema.const !== undefined) words = JSON.stringify(schema.const);
  else if (schema.allOf) words = "object";
  else if (all.length) words = [...new Set(all.map(kind))].join(" or ");
  else if (schema.enum) words = "value";
  else words = schema.properties ? "object" : "anything";
  if (schema.format === "date-time") words = "time (RFC 3339)";
  return nullable ? `${words}, or null` : words;
}

/** Defaults, limits and allowed values. */
function bounds(schema) {
  const said = [];
  const say = (label, value) => value !== undefined && said.push(`${label} ${typeof value === "string" ? value : JSON.stringify(value)}`);
  if (schema.enum) said.push(`one of ${schema.enum.map((value) => JSON.stringify(value)).join(", ")}`);
  if (schema.const !== undefined && schema.type) say("always", JSON.stringify(schema.const));
  if (schema.default !== undefined) say("default", JSON.stringify(schema.default));
  say("at least", schema.minimum);
  say("above", schema.exclusiveMinimum);
  // The largest 64-bit number is no limit that anybody wants to read.
  if (schema.maximum < 1e18) say("at most", schema.maximum);
  if (schema.minLength > 1) say("shortest", schema.minLength);
  say("longest", schema.maxLength);
  const entry = resolve(schema.items);
  if (entry.enum) said.push(`each one of ${entry.enum.join(", ")}`);
  say("fewest entries", schema.minItems);
  say("most entries", schema.maxItems);
  if (schema.uniqueItems) said.push("nothing twice");
  // Patterns that only programs can read are left to them; descriptions say it in words.
  if (schema.pattern && schema.pattern.length < 40 && !schema.pattern.includes("\\")) said.push(`matches ${schema.pattern}`);
  return said.length ? make("p", { class: "bounds" }, said.join(" · ")) : null;
}

/** The members of an object, those of all its parts together. */
function members(schema) {
  const properties = { ...schema.properties };
  const required = new Set(schema.required || []);
  for (const part of (schema.allOf || []).map(resolve)) {
    Object.assign(properties, members(part).properties);
    (part.required || []).forEach((name) => required.add(name));
  }
  return { properties, required };
}

/** What is inside a schema: members, entries, alternatives. Empty for plain values. */
function inside(schema) {
  const out = [];
  const { properties, required } = members(schema);
  const names = Object.keys(properties);
  if (names.length > ALIKE_MIN && names.every((name) => properties[name].$ref === properties[names[0]].$ref)) {
    const one = resolve(properties[names[0]]);
    out.push(make("p", {}, `Any of these, each a ${kind(one)}: `, names.flatMap((name) => [make("code", {}, name), " "])), ...prose(one.description), bounds(one));
  } else if (names.length) {
    out.push(make("ul", { class: "members" }, names.map((name) => member(name, plain(resolve(properties[name])), required.has(name)))));
  }
  if (schema.items) out.push(...inside(resolve(schema.items)));
  if (schema.additionalProperties && typeof schema.additionalProperties === "object") {
    out.push(make("p", { class: "bounds" }, `any name: ${kind(resolve(schema.additionalProperties))}`));
  }
  const { all } = choices(schema);
  const telling = all.filter((one) => one.title || inside(one).length);
  if (all.length === 1) out.push(...inside(all[0]));
  else if (telling.length) out.push(make("ul", { class: "members" }, telling.map((one) => alternative(one))));
  return out;
}

function alternative(schema) {
  const name = schema.title || kind(schema);
  return make("li", {}, make("span", { class: "kind" }, "either: "), make("strong", {}, name), prose(schema.description), bounds(schema), nested(schema));
}

function member(name, schema, required) {
  return make("li", {},
    make("span", { class: "name" }, name),
    make("span", { class: "kind" }, kind(schema)),
    required ? make("span", { class: "required" }, "required") : null,
    prose(schema.description), bounds(schema), nested(schema));
}

/** Members of members stay folded, which also ends schemas that hold themselves. */
function nested(schema) {
  const deep = (at) => members(at).required.size || Object.keys(members(at).properties).length
    || (at.items && deep(resolve(at.items))) || choices(at).all.some((one) => one.title || deep(one));
  return deep(schema) ? fold(make("span", { class: "soft" }, "members"), () => inside(schema)) : null;
}

// ---------------------------------------------------------------- operations

function examplesOf(media) {
  if (media.example !== undefined) return [{ summary: "Example", value: media.example }];
  return Object.entries(media.examples || {}).map(([name, example]) => ({ summary: name, ...resolve(example) }));
}

function showExamples(media, type) {
  return examplesOf(media).map((example, index) => {
    const json = typeof example.value !== "string";
    const text = json ? JSON.stringify(example.value, null, 2) : example.value;
    const short = text.split("\n").length <= EXAMPLE_LINES;
    return fold(`Example: ${example.summary}`, () => sample(text, json && type.includes("json")), index === 0 && short);
  });
}

function parametersOf(item, operation) {
  return [...(item.parameters || []), ...(operation.parameters || [])].map(resolve);
}

function showParameters(parameters) {
  if (!parameters.length) return null;
  const rows = parameters.map((parameter) => {
    const schema = resolve(parameter.schema);
    return make("tr", {},
      make("td", {}, make("code", {}, parameter.name), parameter.required ? make("span", { class: "required" }, "required") : null),
      make("td", {}, parameter.in),
      make("td", {}, kind(schema)),
      make("td", {}, prose(parameter.description), bounds(schema)));
  });
  const head = ["Parameter", "In", "Kind", "Meaning"].map((name) => make("th", { scope: "col" }, name));
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows)));
}

function showBody(body) {
  const [type, media] = Object.entries(resolve(body).content)[0];
  const schema = resolve(media.schema);
  return [make("h4", {}, "Body ", make("span", { class: "kind" }, type)), prose(schema.description),
    fold("Members", () => inside(schema), true), ...showExamples(media, type)];
}

function showResponse(status, response) {
  const content = Object.entries(response.content || {})[0];
  const words = (response.description || "").trim().split("\n\n")[0].replace(/\n/g, " ");
  const title = make("span", {}, make("span", { class: "status" }, status), " ", inline(words));
  return fold(title, () => {
    const out = [];
    const headers = Object.entries(response.headers || {});
    if (headers.length) {
      out.push(make("ul", {}, headers.map(([name, header]) => make("li", {}, "header ", make("code", {}, name), ": ", inline(resolve(header).description || "")))));
    }
    if (content) {
      const [type, media] = content;
      const schema = resolve(media.schema);
      const parts = inside(schema);
      if (parts.length) out.push(fold("Members", () => parts));
      out.push(...showExamples(media, type));
    }
    return out;
  }, status.startsWith("2"));
}

/** How the caller proves who it is, in words and as a header of curl. */
function securityOf(operation) {
  const wanted = operation.security || api.security || [];
  const names = wanted.flatMap((one) => Object.keys(one));
  if (!names.length) return { words: "open to everybody", header: null };
  const first = resolve(api.components.securitySchemes[names[0]]);
  const admin = names[0].startsWith("Admin");
  const header = first.type === "apiKey" ? `${first.name}: $TOLLGATE_VIRTUAL_KEY` : "Authorization: Bearer $TOLLGATE_ADMIN_TOKEN";
  return { words: admin ? "admin token" : "virtual key", header };
}

function curl(path, method, parameters, operation) {
  const quote = (text) => `'${text.replace(/'/g, "'\\''")}'`;
  const value = (parameter) => encodeURIComponent(parameter.example ?? Object.values(parameter.examples || {})[0]?.value ?? parameter.name);
  const url = parameters.filter((one) => one.in === "path").reduce((at, one) => at.replace(`{${one.name}}`, value(one)), path);
  const lines = [`curl${method === "get" ? "" : ` -X ${method.toUpperCase()}`} ${quote(location.origin + url)}`];
  const { header } = securityOf(operation);
  // Double quotes, so that the shell puts the secret in its place.
  if (header) lines.push(`  -H "${header}"`);
  const media = resolve(operation.requestBody).content?.["application/json"];
  if (media) {
    lines.push("  -H 'Content-Type: application/json'");
    lines.push(`  -d ${quote(JSON.stringify(examplesOf(media)[0].value))}`);
  }
  return lines.join(" \\\n");
}

function showOperation(entry) {
  const { path, method, operation, item } = entry;
  const parameters = parametersOf(item, operation);
  const article = make("article", { id: operation.operationId, "aria-labelledby": `${operation.operationId}-title` },
    make("div", { class: "head" },
      make("h3", { id: `${operation.operationId}-title` }, operation.summary, " ",
        make("a", { class: "mark", href: `#${operation.operationId}`, "aria-label": `Link to ${operation.summary}` }, "#")),
      make("span", { class: `method ${method}` }, method.toUpperCase()),
      make("span", { class: "path" }, path),
      make("span", { class: "tag" }, securityOf(operation).words)),
    make("div", { class: "body" },
      prose(operation.description),
      showParameters(parameters),
      operation.requestBody ? showBody(operation.requestBody) : null,
      make("h4", {}, "Answers"),
      Object.entries(operation.responses).map(([status, response]) => showResponse(status, resolve(response))),
      fold("As a command", () => sample(curl(path, method, parameters, operation)))));
  return article;
}

// ---------------------------------------------------------------- the page

/** All operations, by tag, in the document's order. */
function operationsByTag() {
  const tags = new Map(api.tags.map((tag) => [tag.name, { tag, operations: [] }]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const operation = item[method];
      tags.get(operation.tags[0])?.operations.push({ path, method, operation, item });
    }
  }
  return tags;
}

function showIndex(tags, about) {
  const index = document.getElementById("index");
  const chapters = [...about.querySelectorAll("h2")].map((title) =>
    make("li", {}, make("a", { href: `#${title.id}` }, title.textContent)));
  index.append(make("h2", {}, "First"), make("ul", {}, chapters));
  const groups = api["x-tagGroups"] || [{ name: "Operations", tags: [...tags.keys()] }];
  for (const group of groups) {
    index.append(make("h2", {}, group.name));
    for (const name of group.tags) {
      const { operations } = tags.get(name);
      const links = operations.map(({ path, method, operation }) =>
        make("li", { "data-find": `${method} ${path} ${operation.summary} ${operation.operationId}`.toLowerCase() },
          make("a", { href: `#${operation.operationId}` },
            make("span", { class: `method ${method}` }, method.toUpperCase()), make("span", {}, operation.summary))));
      index.append(make("details", {}, make("summary", {}, name), make("ul", {}, links)));
    }
  }
}

/** Narrows the index to what holds all of the words. */
function watchFilter(count) {
  const filter = document.getElementById("filter");
  const found = document.getElementById("found");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const details of document.querySelectorAll("#index details")) {
      let here = 0;
      for (const line of details.querySelectorAll("li")) {
        line.hidden = !words.every((word) => line.dataset.find.includes(word));
        here += line.hidden ? 0 : 1;
      }
      details.hidden = here === 0;
      details.open = words.length > 0 && here > 0;
      shown += here;
    }
    found.textContent = words.length ? `${shown} of ${count} operations` : "";
  });
}

function showPage() {
  document.title = api.info.title;
  document.getElementById("tagline").textContent = api.info.summary || "";
  const main = document.getElementById("content");
  const tags = operationsByTag();
  const about = make("section", { class: "about", "aria-label": "About this API" }, make("h1", {}, api.info.title), prose(api.info.description, "h2"));
  const parts = [...tags.values()].map(({ tag, operations }) =>
    make("section", { "aria-labelledby": slug(tag.name) },
      make("h2", { id: slug(tag.name) }, tag.name), prose(tag.description), operations.map(showOperation)));
  main.replaceChildren(about, ...parts);
  showIndex(tags, about);
  watchFilter([...tags.values()].reduce((sum, { operations }) => sum + operations.length, 0));
  // The place that the address names exists only now.
  const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (place) place.scrollIntoView({ behavior: "instant" });
}

async function start() {
  const state = document.getElementById("state");
  try {
    const answer = await fetch("/openapi.json", { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`the answer was ${answer.status}`);
    api = await answer.json();
    showPage();
  } catch (error) {
    state.textContent = `The description of the API could not be loaded: ${error.message}.`;
  }
}

start();
