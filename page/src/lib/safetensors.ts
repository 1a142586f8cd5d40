/**
 * Reads safetensors: eight bytes of header length, a JSON header, raw little-endian numbers.
 *
 * The bytes come from elsewhere (a server, a file dropped on the page), so every size is checked before it is used.
 */

export type Numbers = Float32Array | Float64Array | Int32Array | Uint8Array;

export interface Tensor {
  shape: number[];
  data: Numbers;
}

export interface Tensors {
  tensors: Record<string, Tensor>;
  metadata: Record<string, string>;
}

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const LONGEST_HEADER = 10_000_000;

const BYTES: Record<string, number> = { F64: 8, F32: 4, F16: 2, I32: 4, I64: 8, U8: 1, BOOL: 1 };

export class FormatError extends Error {}

export function parseSafetensors(buffer: ArrayBuffer): Tensors {
  const [header, start] = readHeader(buffer);
  const { __metadata__: metadata = {}, ...entries } = header as Record<string, unknown>;
  const tensors: Record<string, Tensor> = {};
  for (const [name, entry] of Object.entries(entries)) {
    tensors[name] = readTensor(name, entry as Entry, buffer, start);
  }
  return { tensors, metadata: metadata as Record<string, string> };
}

/** The tensor of that name as 32-bit floats, or an error that says what the file holds instead. */
export function floats(file: Tensors, name: string): Float32Array {
  const tensor = file.tensors[name];
  if (tensor === undefined) {
    throw new FormatError(`expected a tensor "${name}"; the file holds ${Object.keys(file.tensors).join(", ") || "none"}`);
  }
  return tensor.data instanceof Float32Array ? tensor.data : Float32Array.from(tensor.data);
}

function readHeader(buffer: ArrayBuffer): [object, number] {
  if (buffer.byteLength < 8) throw new FormatError(`expected a safetensors file, got ${buffer.byteLength} bytes`);
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (length > LONGEST_HEADER || 8 + length > buffer.byteLength) {
    throw new FormatError(`a header of ${length} bytes doesn't fit in a file of ${buffer.byteLength}`);
  }
  const text = new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, length));
  const header: unknown = JSON.parse(text);
  if (typeof header !== "object" || header === null) throw new FormatError("the header is no JSON object");
  return [header, 8 + length];
}

function readTensor(name: string, entry: Entry, buffer: ArrayBuffer, start: number): Tensor {
  const { dtype, shape, data_offsets: offsets } = entry;
  const width = BYTES[dtype];
  if (width === undefined) throw new FormatError(`tensor "${name}" has the type ${dtype}, which the page doesn't read`);
  const count = shape.reduce((product, size) => product * size, 1);
  const [from, to] = offsets;
  const isWhole = shape.every((size) => Number.isSafeInteger(size) && size >= 0) && to - from === count * width;
  if (!isWhole || from < 0 || start + to > buffer.byteLength) {
    throw new FormatError(`tensor "${name}" of shape [${shape}] doesn't fit its bytes ${from} to ${to}`);
  }
  // A copy, since numbers may only be viewed where their address is a multiple of their width.
  const bytes = buffer.slice(start + from, start + to);
  return { shape, data: numbersOf(dtype, bytes, count) };
}

function numbersOf(dtype: string, bytes: ArrayBuffer, count: number): Numbers {
  if (dtype === "F64") return new Float64Array(bytes);
  if (dtype === "F32") return new Float32Array(bytes);
  if (dtype === "I32") return new Int32Array(bytes);
  if (dtype === "I64") return Int32Array.from(new BigInt64Array(bytes), Number);
  if (dtype === "F16") return halves(new Uint16Array(bytes), count);
  return new Uint8Array(bytes);
}

/** IEEE 754 half precision: a sign, five bits of exponent, ten of fraction. */
function halves(bits: Uint16Array, count: number): Float32Array {
  const result = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const half = bits[i];
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    const size =
      exponent === 0
        ? fraction * 2 ** -24
        : exponent === 31
          ? fraction ? NaN : Infinity
          : (1 + fraction / 1024) * 2 ** (exponent - 15);
    result[i] = half & 0x8000 ? -size : size;
  }
  return result;
}
