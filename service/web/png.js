// A PNG with all its bits: browsers' own decoders keep eight of sixteen.
// PNG specification (W3C), chapters 5, 7, 9 and 11; no palettes, no interlacing.

const CHANNELS = { 0: 1, 2: 3 };
const TEXT = new TextDecoder();

// {width, height, channels, samples, texts}; samples are Uint8Array or Uint16Array.
export async function decode(buffer) {
  const { header, data, texts } = chunks(new DataView(buffer));
  const width = header.getUint32(0);
  const height = header.getUint32(4);
  const bytes = header.getUint8(8) / 8;
  const channels = CHANNELS[header.getUint8(9)];
  const lines = new Uint8Array(await inflated(data));
  const raw = unfiltered(lines, height, width * channels * bytes, channels * bytes);
  return { width, height, channels, texts, samples: bytes === 2 ? wide(raw) : raw };
}

function chunks(view) {
  const data = [];
  const texts = {};
  let header;
  for (let place = 8; place < view.byteLength; ) {
    const length = view.getUint32(place);
    const kind = TEXT.decode(new Uint8Array(view.buffer, place + 4, 4));
    const body = new Uint8Array(view.buffer, place + 8, length);
    if (kind === "IHDR") header = new DataView(view.buffer, place + 8, length);
    if (kind === "IDAT") data.push(body);
    if (kind === "iTXt") {
      const [keyword, , , , , ...text] = TEXT.decode(body).split("\0");
      texts[keyword] = text.join("\0");
    }
    place += length + 12;
  }
  return { header, data, texts };
}

function inflated(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function unfiltered(lines, height, stride, step) {
  const out = new Uint8Array(height * stride);
  for (let y = 0; y < height; y++) {
    const filter = lines[y * (stride + 1)];
    const from = y * (stride + 1) + 1;
    const to = y * stride;
    for (let x = 0; x < stride; x++) {
      const left = x >= step ? out[to + x - step] : 0;
      const up = y ? out[to + x - stride] : 0;
      const corner = y && x >= step ? out[to + x - stride - step] : 0;
      out[to + x] = lines[from + x] + predicted(filter, left, up, corner);
    }
  }
  return out;
}

function predicted(filter, left, up, corner) {
  switch (filter) {
    case 0: return 0;
    case 1: return left;
    case 2: return up;
    case 3: return (left + up) >> 1;
    default: return paeth(left, up, corner);
  }
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const a = Math.abs(guess - left);
  const b = Math.abs(guess - up);
  const c = Math.abs(guess - corner);
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

function wide(raw) {
  const samples = new Uint16Array(raw.length / 2);
  for (let i = 0; i < samples.length; i++) samples[i] = (raw[2 * i] << 8) | raw[2 * i + 1];
  return samples;
}
