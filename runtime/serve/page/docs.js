// The API's page, made of the server's openapi.json.

import { ROOT } from "./api.js";
import { byId, element } from "./dom.js";
import { anchorOf, parameterTable, prose, tableOf, typeOf } from "./schema.js";
import { startTheme } from "./theme.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

async function start() {
  startTheme(byId("theme"));
  const response = await fetch(new URL("openapi.json", ROOT));
  if (!response.ok) throw new Error(`openapi.json cannot be read: the server answered ${response.status}.`);
  const { info, paths, components } = await response.json();
  byId("title").textContent = info.title;
  byId("version").textContent = info.version;
  byId("description").replaceChildren(...prose(info.description ?? ""));
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => method in methods).map((method) => ({ method, path, ...methods[method] })));
  const schemas = Object.entries(components?.schemas ?? {});
  byId("operations").replaceChildren(...operations.map((one) => operationPart(one, components)));
  byId("schemas").replaceChildren(...schemas.map(schemaPart));
  byId("schemas-part").hidden = schemas.length === 0;
  byId("contents").replaceChildren(
    links(operations.map((one) => [idOf(one), nameOf(one)])), links(schemas.map(([name]) => [anchorOf(name), [name]])));
  byId(location.hash.slice(1))?.scrollIntoView(); // what it points at has only now been made
}

const links = (list) =>
  element("ul", {}, ...list.map(([id, said]) => element("li", {}, element("a", { href: `#${id}` }, ...said))));

const idOf = ({ method, path }) => `${method}${path.replace(/[^\w]+/g, "-")}`;

const nameOf = ({ method, path }) =>
  [element("span", { class: `method ${method}` }, method.toUpperCase()), element("code", {}, path)];

function operationPart(operation, components) {
  const { summary, description, parameters = [], requestBody, responses } = operation;
  const part = element("article", { class: "operation", id: idOf(operation) }, element("h2", {}, ...nameOf(operation)));
  if (summary) part.append(element("p", {}, element("b", {}, summary)));
  if (description) part.append(...paragraphs(description));
  if (parameters.length > 0) part.append(element("h3", {}, "Parameters"), parameterTable(parameters));
  for (const [type, { schema }] of Object.entries(requestBody?.content ?? {})) {
    part.append(element("h3", {}, "Body: ", element("code", {}, type)), bodyOf(schema, components));
  }
  const codes = Object.entries(responses).map(codeLine);
  part.append(element("h3", {}, "Answers"), element("ul", { class: "codes" }, ...codes));
  return part;
}

/** A body's fields, of the schema that it names. */
function bodyOf(schema, components) {
  const name = schema?.$ref?.split("/").at(-1);
  return tableOf(name ? components.schemas[name] : schema ?? {});
}

function codeLine([code, { description, content = {} }]) {
  const types = Object.entries(content).flatMap(([type, { schema }]) =>
    [" ", element("code", {}, type), ": ", ...typeOf(schema)]);
  return element("li", {}, element("b", {}, code), ` ${description ?? ""}`, ...types);
}

function schemaPart([name, schema]) {
  return element("article", { class: "operation", id: anchorOf(name) }, element("h3", {}, name),
    ...(schema.properties && schema.description ? paragraphs(schema.description) : []), tableOf(schema));
}

const paragraphs = (text) => text.split(/\n{2,}/).map((one) => element("p", { class: "prose" }, ...prose(one)));

start().catch((error) => {
  byId("problem").textContent = error.message;
  byId("problem").hidden = false;
});
