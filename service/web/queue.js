// The worklist as it was last shown, so that a reader can go on to the next case.

let waiting = [];

export function remember(ids) {
  waiting = ids;
}

export function nextAfter(id) {
  const rest = waiting.filter((one) => one !== id);
  const place = waiting.indexOf(id);
  waiting = rest;
  return place < 0 ? null : rest[place] ?? rest[0] ?? null;
}
