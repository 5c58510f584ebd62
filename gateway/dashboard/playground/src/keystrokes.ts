// A text as the keys of a US keyboard: what a screen without a clipboard can be given.

export interface Press {
  readonly keysym: number;
  readonly down: boolean;
}

const SHIFT = 0xffe1;
const ENTER = 0xff0d;
const TAB = 0xff09;
const SHIFTED = new Set('ABCDEFGHIJKLMNOPQRSTUVWXYZ~!@#$%^&*()_+{}|:"<>?');

/** For each character the presses that make it: keysyms of Latin-1 are its codes, others say that they are Unicode. */
export function* strokes(text: string): Generator<readonly Press[]> {
  for (const character of text.replace(/\r\n?/g, "\n")) {
    const code = character.codePointAt(0) ?? 0;
    const keysym = keysymOf(character, code);
    if (keysym === null) continue;
    const stroke = [
      { keysym, down: true },
      { keysym, down: false },
    ];
    yield SHIFTED.has(character) ? [{ keysym: SHIFT, down: true }, ...stroke, { keysym: SHIFT, down: false }] : stroke;
  }
}

function keysymOf(character: string, code: number): number | null {
  if (character === "\n") return ENTER;
  if (character === "\t") return TAB;
  if (code < 0x20 || (code >= 0x7f && code < 0xa0)) return null;
  return code <= 0xff ? code : 0x01000000 | code;
}
