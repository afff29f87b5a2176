// Everything the page asks of the service. An error is a Problem that carries the service's
// own sentence.

export class Problem extends Error {
  constructor(sentence, document = {}) {
    super(sentence);
    this.document = document;
    this.status = document.status;
  }
}

// Who speaks for the reader: `headers` go with every request, `refused` hears where they do not do.
let speaker = { headers: () => ({}), refused: () => {} };

export function listen(given) {
  speaker = given;
}

export async function ask(path, { headers, ...rest } = {}) {
  let response;
  try {
    response = await fetch(path, { ...rest, headers: { ...headers, ...speaker.headers() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const error = await problem(response);
  if (error.status === 401) speaker.refused(error);
  throw error;
}

export async function read(path) {
  return (await ask(path, { headers: { Accept: "application/json" } })).json();
}

export async function send(path, document) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(document) })).json();
}

// A form with an image: its file, or in JSON a reference to an instance that a PACS holds.
export function upload(path, { file, ...fields }, accept, signal) {
  if (file instanceof Blob) return ask(path, { method: "POST", headers: { Accept: accept }, body: form({ file, ...fields }), signal });
  const headers = { "Content-Type": "application/json", Accept: accept };
  return ask(path, { method: "POST", headers, body: JSON.stringify({ ...fields, ...file }), signal });
}

// The stages of a case as they end: [name, document] pairs, the last one `final`.
export async function* stages(path, fields, signal) {
  const response = await upload(path, fields, "text/event-stream", signal);
  for await (const [name, document] of events(response.body)) {
    if (name === "problem") throw new Problem(document.detail);
    yield [name, document];
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (pending + value).split("\n\n");
    pending = blocks.pop();
    for (const block of blocks) yield event(block);
  }
}

function event(block) {
  const field = (name) => block.split("\n").find((line) => line.startsWith(`${name}: `));
  return [field("event").slice(7), JSON.parse(field("data").slice(6))];
}

function form(fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of [value].flat()) if (one != null && one !== "") body.append(name, one);
  }
  return body;
}

async function problem(response) {
  try {
    const document = await response.json();
    return new Problem(document.detail, document);
  } catch {
    return new Problem(`The service answered ${response.status}.`, { status: response.status });
  }
}
