// Numbers for people.

const STEPS = ["", "k", "M", "G", "T", "P"];

function scaled(value, unit) {
  let step = 0;
  while (value >= 999.5 && step < STEPS.length - 1) {
    value /= 1000;
    step += 1;
  }
  const digits = value >= 99.5 || (step === 0 && Number.isInteger(value)) ? 0 : value >= 9.95 ? 1 : 2;
  return `${value.toFixed(value === 0 ? 0 : digits)} ${STEPS[step]}${unit}`.trim();
}

const UNKNOWN = "–";
const known = (value) => value !== null && value !== undefined;

export const count = (value) => (known(value) ? value.toLocaleString("en") : UNKNOWN);
export const bytes = (perSecond) => (known(perSecond) ? scaled(perSecond, "B/s") : UNKNOWN);
export const perSecond = (value) => (known(value) ? `${scaled(value, "")}/s` : UNKNOWN);
export const millis = (value) => {
  if (!known(value)) return UNKNOWN;
  return value < 1 ? `${Math.round(value * 1000)} µs` : `${value.toFixed(value < 10 ? 1 : 0)} ms`;
};
export const traffic = (rates) => (rates ? bytes(rates.bytes_in + rates.bytes_out) : UNKNOWN);
export const drops = (rates) => (rates ? perSecond(rates.drops) : UNKNOWN);

export function clock(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  const pad = (number) => String(number).padStart(2, "0");
  const hours = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return today ? hours : `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${hours}`;
}

export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
