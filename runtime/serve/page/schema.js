// JSON Schemas in words.

import { element } from "./dom.js";

const BOUNDS = {
  minimum: "at least",
  exclusiveMinimum: "above",
  maximum: "at most",
  exclusiveMaximum: "below",
  minLength: "characters at least",
  maxLength: "characters at most",
  minItems: "items at least",
  maxItems: "items at most",
  pattern: "pattern",
  format: "format",
};

/** A text with what stands between backticks as code. */
export function prose(text) {
  return text.split(/`([^`]+)`/).map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

/** The id of the part that tells of a schema of the document's. */
export const anchorOf = (name) => `schema-${name}`;

/** A schema's type, as text and links to the document's schemas. */
export function typeOf(schema) {
  if (schema === true || schema === undefined || Object.keys(schema).length === 0) return ["anything"];
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return [element("a", { href: `#${anchorOf(name)}` }, name)];
  }
  const several = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (several) return joined(several.map(typeOf), schema.allOf ? " and " : " or ");
  if ("const" in schema) return [element("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) return joined(schema.enum.map((value) => [element("code", {}, JSON.stringify(value))]), " or ");
  if (schema.type === "array") return arrayOf(schema);
  if (schema.type === "object" && schema.additionalProperties && schema.additionalProperties !== true) {
    return ["object of ", ...typeOf(schema.additionalProperties)];
  }
  if (schema.properties) return fieldsOf(schema);
  return [[schema.type ?? "anything"].flat().join(" or ")];
}

/** An object's fields in one line: `{box, as_mask?}`. */
function fieldsOf({ properties, required = [] }) {
  const names = Object.keys(properties).map((name) => (required.includes(name) ? name : `${name}?`));
  return [element("code", {}, `{${names.join(", ")}}`)];
}

/** What is said of a schema beside its type: bounds, default, description. */
export function notesOf(given) {
  const others = (given.anyOf ?? []).filter(({ type }) => type !== "null");
  const schema = others.length === 1 ? { ...others[0], ...given } : given; // something, or null
  const bounds = Object.entries(BOUNDS).filter(([key]) => key in schema).map(([key, said]) => `${said} ${schema[key]}`);
  if ("default" in schema && schema.default !== null) bounds.push(`default ${JSON.stringify(schema.default)}`);
  return [schema.description, bounds.join(", ")].filter(Boolean).join(" · ");
}

/** A table of an object's properties; for another schema its type. */
export function tableOf(schema) {
  if (!schema.properties) {
    const notes = notesOf(schema);
    return element("p", {}, ...typeOf(schema), ...(notes ? [element("span", { class: "quiet" }, ` ${notes}`)] : []));
  }
  const required = new Set(schema.required);
  const rows = Object.entries(schema.properties).map(([name, one]) => rowOf(name, one, required.has(name)));
  return table(rows);
}

/** A table of parameters as OpenAPI lists them. */
export const parameterTable = (parameters) =>
  table(parameters.map(({ name, in: place, required, schema = {}, description = schema.description }) => {
    const said = [`in the ${place}`, description].filter(Boolean).join(": ");
    return rowOf(name, { ...schema, description: said }, required);
  }));

function table(rows) {
  const head = ["Name", "Type", ""].map((text) => element("th", { scope: "col" }, text));
  return element("div", { class: "scroll" }, element("table", { class: "fields-table" },
    element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
}

function rowOf(name, schema, required) {
  const needed = required ? [element("span", { class: "needed" }, " required")] : [];
  return element("tr", {},
    element("th", { scope: "row" }, element("code", {}, name), ...needed),
    element("td", {}, ...typeOf(schema)), element("td", {}, ...prose(notesOf(schema))));
}

function arrayOf({ items, prefixItems }) {
  if (prefixItems) return ["list of ", ...joined(prefixItems.map(typeOf), ", ")];
  return ["list of ", ...typeOf(items)];
}

const joined = (parts, between) => parts.flatMap((part, index) => (index === 0 ? part : [between, ...part]));
