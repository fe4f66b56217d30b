// Requests to the server: its key, its errors, and waiting where it is busy.

import { askForKey, currentKey } from "./key.js";

/** Where the server is: this file lies one folder below it. */
export const ROOT = new URL("../", import.meta.url);

const LONGEST_WAIT = 60; // seconds

/** What went wrong, in the server's words. `status` is 0 where it was not reached. */
export class ApiError extends Error {
  constructor(status, message, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * Send a request and return the response once it is a good one.
 *
 * 401 asks the reader for a key, 429 waits as long as the server says and tries once more; `waiting(seconds)` hears of
 * that, and `waiting(0)` of its end. Everything else that is not a success is an `ApiError`; an abort stays an
 * `AbortError`.
 */
export async function send(method, path, { body, type, signal, keepalive, waiting = () => {} } = {}) {
  for (let tries = 0; ; ) {
    const key = currentKey();
    const response = await reach(method, path, { body, type, signal, keepalive, key });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status === 401 && !keepalive) {
      if ((await askForKey(key)) === null) throw error;
    } else if (response.status === 429 && tries === 0) {
      tries += 1;
      const seconds = Math.min(Math.max(Number(response.headers.get("Retry-After")) || 1, 1), LONGEST_WAIT);
      waiting(seconds);
      await pause(seconds * 1000, signal).finally(() => waiting(0));
    } else {
      throw error;
    }
  }
}

/** Send an object as JSON; options as in `send`. */
export const sendJson = (path, value, options) =>
  send("POST", path, { ...options, body: JSON.stringify(value), type: "application/json" });

/** The models that the server has. */
export async function models() {
  return (await (await send("GET", "v1/models")).json()).data;
}

async function reach(method, path, { body, type, signal, keepalive, key }) {
  const headers = {};
  if (type) headers["Content-Type"] = type;
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    return await fetch(new URL(path, ROOT), { method, headers, body, signal, keepalive, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached. Is gar-serve still running?");
  }
}

async function errorOf(response) {
  const told = await response.json().catch(() => null);
  const message = told?.error?.message ?? `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(response.status, message, told?.error?.code ?? null);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    }, { once: true });
  });
}
