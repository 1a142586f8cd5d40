/** How numbers are written: a probability above 0 is never shown as 0, and one below 1 never as 1. */

/** The logarithm above which a tenth of a percent would be rounded to 100%. */
const NEARLY = Math.log(0.9995);
/** What a logarithm this side of 0 can still say of how much is missing to 1. */
const SMALLEST = 1e-300;

/** A probability in whole percent, as the figures have it: 79%, <1%, >99%. */
export function percent(probability: number): string {
  return guarded(probability, (100 * probability).toFixed(0));
}

/** A probability in percent to `digits` after the point, for tables. */
export function finePercent(probability: number, digits = 1): string {
  return guarded(probability, (100 * probability).toFixed(digits));
}

/** To a tenth of a percent, and to a hundredth below one percent: for bars of any size. */
export function barPercent(probability: number): string {
  return finePercent(probability, probability < 0.01 ? 2 : 1);
}

function guarded(probability: number, rounded: string): string {
  const step = rounded.includes(".") ? `.${"0".repeat(rounded.split(".")[1].length - 1)}1` : "1";
  if (Number(rounded) === 0 && probability > 0) return `<${step.replace(/^\./, "0.")}%`;
  if (Number(rounded) === 100 && probability < 1) return step === "1" ? ">99%" : `>99${".9".padEnd(step.length, "9")}%`;
  return Number(rounded) === 100 ? "100%" : Number(rounded) === 0 ? "0%" : `${rounded}%`;
}

/** A probability of any size from its natural logarithm: 12.3%, 4.1e-7, 2e-2041, 1 - 3e-150; exactly 0 and 1 as such. */
export function fromLog(log: number): string {
  if (log === -Infinity) return "0";
  if (log === 0) return "100%";
  if (log > -SMALLEST) return `>1 − ${SMALLEST}`.replace("e-", "e−");
  if (log > NEARLY) return `1 − ${fromLog(Math.log(-Math.expm1(log)))}`;
  if (log > Math.log(0.001)) return finePercent(Math.exp(log));
  const log10 = log / Math.LN10;
  let power = Math.floor(log10);
  let mantissa = (10 ** (log10 - power)).toFixed(1);
  if (mantissa === "10.0") [mantissa, power] = ["1.0", power + 1];
  return minus(`${mantissa}e${power}`);
}

/** A whole number in groups of three digits: 12,656. Intl writes the same, and takes 20 ms to begin. */
export function grouped(whole: number): string {
  return String(whole).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** 12,656 or 1.3 × 10⁴⁸¹³: a whole number given by its decimal logarithm where it is too large. */
export function power10(log10: number): string {
  if (log10 < 9) return grouped(Math.round(10 ** log10));
  let power = Math.floor(log10);
  let mantissa = (10 ** (log10 - power)).toFixed(1);
  if (mantissa === "10.0") [mantissa, power] = ["1.0", power + 1];
  return `${mantissa} × 10${raised(power)}`;
}

/** A whole number as an exponent: ⁹⁶⁰⁹. */
export function raised(power: number): string {
  return [...String(power)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)] ?? "⁻").join("");
}

/** With the sign that is as wide as a plus, in place of a hyphen. */
export const minus = (value: number | string): string => String(value).replace("-", "−");

export function signed(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : value < 0 ? `−${text}` : `+${text}`;
}

/** The difference of two probabilities given by their natural logarithms, in percentage points, however small. */
export function pointsBetween(logP: number, logQ: number): string {
  if (logP === logQ) return "0";
  const [high, low] = logP > logQ ? [logP, logQ] : [logQ, logP];
  const log = high + Math.log(-Math.expm1(low - high)) + Math.log(100);
  const size = log >= 0 ? Math.exp(log).toFixed(1) : log > Math.log(0.001) ? Math.exp(log).toPrecision(2) : fromLog(log);
  return `${logP > logQ ? "+" : "−"}${size}`;
}

export const bits = (nats: number): number => nats / Math.LN2;

/** Round numbers, about `count` of them, from `low` to `high`: the ticks of an axis. */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999)!;
  const result: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) result.push(Number((i * step).toPrecision(12)));
  return result;
}

/** The ticks of an axis of powers of ten: whole powers; 1, 2 and 5 within them where the axis is short; or even steps. */
export function powerTicks(low: number, high: number, count: number): number[] {
  if (high - low < 0.7) return ticks(10 ** low, 10 ** high, count).filter((value) => value > 0).map(Math.log10);
  if (high - low > 2.2) return ticks(low, high, count).filter(Number.isInteger);
  const result: number[] = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const factor of [1, 2, 5]) result.push(power + Math.log10(factor));
  }
  return result.filter((tick) => tick >= low - 1e-9 && tick <= high + 1e-9);
}

/** A power of ten as an axis writes it: 100%, 2%, 10⁻⁹; to more than `digits` = 1 where its ticks lie close together. */
export function powerLabel(log10: number, digits = 1): string {
  if (log10 > -3.5) return `${Number((100 * 10 ** log10).toPrecision(Math.max(2, digits)))}%`;
  const power = Math.floor(log10 + 1e-9);
  const factor = Number((10 ** (log10 - power)).toPrecision(digits));
  return `${factor === 1 ? "" : `${factor}·`}10${raised(power)}`;
}
