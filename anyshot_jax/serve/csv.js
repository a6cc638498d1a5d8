// Tables for spreadsheets, as safe and as strict as the commands' own.

const FORMULA = '=+-@\t\r\n|%\uff1d\uff0b\uff0d\uff20';  // what a cell of a spreadsheet runs by

// What moves a cursor, colours a terminal or turns a text round; halves of characters.
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu;

// A text that is no formula, with control characters written out.
export function harmless(text, before = "'") {
  const first = [...text.replace(/^ +/, '')][0];
  const escaped = text.replace(CONTROL, written);
  return first && FORMULA.includes(first) ? before + escaped : escaped;
}

function written(character) {
  if (character === '\r') return '\\r';
  const code = character.codePointAt(0);
  const hex = (digits) => code.toString(16).padStart(digits, '0');
  return code < 256 ? `\\x${hex(2)}` : `\\u${hex(4)}`;
}

// Lines of cells: numbers are bare, texts are quoted.
export const table = (rows) => rows.map((row) => row.map((cell) => (
  typeof cell === 'number' ? String(cell) : `"${String(cell).replaceAll('"', '""')}"`
)).join(',')).join('\n') + '\n';

// Hands the file to the browser, which keeps it where downloads go.
export function download(called, text) {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/csv' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = called;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
