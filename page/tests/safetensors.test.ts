import { describe, expect, test } from "vitest";
import { floats, FormatError, parseSafetensors } from "../src/lib/safetensors.ts";

/** A file as the format describes it, written by hand. */
function fileOf(header: object, body: Uint8Array): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + body.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  file.set(body, 8 + text.length);
  return file.buffer;
}

const bytes = (array: ArrayBufferView): Uint8Array => new Uint8Array(array.buffer);

describe("safetensors", () => {
  test("floats and integers come out with their shapes, at any alignment", () => {
    const floats32 = Float32Array.of(1.5, -2, 3e-9);
    const ints = Int32Array.of(7, -8);
    const header = {
      __metadata__: { model: "baby" },
      a: { dtype: "F32", shape: [1, 3], data_offsets: [1, 13] }, // an odd address
      b: { dtype: "I32", shape: [2], data_offsets: [13, 21] },
    };
    const body = new Uint8Array([0, ...bytes(floats32), ...bytes(ints)]);
    const file = parseSafetensors(fileOf(header, body));
    expect(file.metadata).toEqual({ model: "baby" });
    expect(file.tensors.a.shape).toEqual([1, 3]);
    expect([...floats(file, "a")]).toEqual([...floats32]);
    expect([...file.tensors.b.data]).toEqual([7, -8]);
  });

  test("half precision is read, subnormal numbers and infinity included", () => {
    const halves = Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7c00, 0x3555);
    const header = { h: { dtype: "F16", shape: [5], data_offsets: [0, 10] } };
    const [one, minusTwo, tiny, infinite, third] = floats(parseSafetensors(fileOf(header, bytes(halves))), "h");
    expect([one, minusTwo, tiny, infinite]).toEqual([1, -2, 2 ** -24, Infinity]);
    expect(third).toBeCloseTo(1 / 3, 3);
  });

  test.each([
    ["too short for a length", new ArrayBuffer(4)],
    ["a header longer than the file", new Uint8Array([255, 255, 0, 0, 0, 0, 0, 0, 1]).buffer],
    ["a tensor beyond the end", fileOf({ a: { dtype: "F32", shape: [4], data_offsets: [0, 16] } }, new Uint8Array(8))],
    ["a shape that is not its bytes", fileOf({ a: { dtype: "F32", shape: [3], data_offsets: [0, 8] } }, new Uint8Array(8))],
    ["a negative offset", fileOf({ a: { dtype: "U8", shape: [4], data_offsets: [-4, 0] } }, new Uint8Array(8))],
    ["a type that is not read", fileOf({ a: { dtype: "F8", shape: [1], data_offsets: [0, 1] } }, new Uint8Array(1))],
  ])("%s is refused", (_, file) => {
    expect(() => parseSafetensors(file as ArrayBuffer)).toThrow(FormatError);
  });

  test("a tensor that is not there is named, with those that are", () => {
    const file = parseSafetensors(fileOf({ a: { dtype: "U8", shape: [1], data_offsets: [0, 1] } }, new Uint8Array(1)));
    expect(() => floats(file, "logits")).toThrow(/"logits".*holds a/);
  });
});
