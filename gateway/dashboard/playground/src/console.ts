// A server's screen. The address holds a ticket that opens it once; it is taken out of the address bar and the history
// before anything else, and used at once. When the console ends, the page says why: only a new ticket opens it again.
import RFB from "@novnc/novnc";
import "./console.css";
import { strokes } from "./keystrokes";

const TICKET = /^[A-Za-z0-9_-]{43}$/;
const UNUSED = "Nothing was opened.";
/** Keyboards of guests hold few strokes, and emulated guests take them slowly. */
const PAUSE_MS = 20;

function part<Kind extends HTMLElement>(id: string): Kind {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no ${id}`);
  return found as Kind;
}

const name = part("name");
const status = part("status");
const keys = part("keys");
const form = part<HTMLFormElement>("text-form");
const text = part<HTMLTextAreaElement>("text");
const paste = part<HTMLButtonElement>("paste");
const screen = part("screen");

function over(why: string): void {
  keys.hidden = true;
  form.hidden = true;
  status.textContent = `${why} Ask for a new address by serverConsoleCreate to open it again.`;
}

function open(ticket: string): void {
  const address = new URL(document.documentElement.dataset.socket ?? "", location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  address.searchParams.set("ticket", ticket);
  const socket = new WebSocket(address, ["binary"]);
  socket.binaryType = "arraybuffer";
  let shown = false;
  socket.addEventListener("close", ({ reason }) => {
    over(reason ? `${reason}.`.replace(/\.\.$/, ".") : shown ? "The connection broke off." : UNUSED);
  });
  const rfb = new RFB(screen, socket, { shared: true });
  rfb.scaleViewport = true;
  rfb.focusOnClick = true;
  rfb.addEventListener("connect", () => {
    shown = true;
    status.textContent = "Connected";
    keys.hidden = false;
    rfb.focus();
  });
  rfb.addEventListener("desktopname", (event) => {
    name.textContent = event.detail.name;
    document.title = `${event.detail.name} · Stratograph`;
  });
  rfb.addEventListener("securityfailure", () => socket.close());
  part("ctrl-alt-del").addEventListener("click", () => {
    rfb.sendCtrlAltDel();
    rfb.focus();
  });
  part("full").addEventListener("click", () => void screen.requestFullscreen().then(() => rfb.focus()));
  paste.addEventListener("click", () => {
    form.hidden = !form.hidden;
    paste.setAttribute("aria-expanded", String(!form.hidden));
    if (!form.hidden) text.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void type(rfb, text.value);
    text.value = "";
    form.hidden = true;
    paste.setAttribute("aria-expanded", "false");
    rfb.focus();
  });
}

async function type(rfb: RFB, what: string): Promise<void> {
  for (const stroke of strokes(what)) {
    for (const { keysym, down } of stroke) rfb.sendKey(keysym, null, down);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

const ticket = location.hash.slice(1);
history.replaceState(null, "", location.pathname + location.search);
if (TICKET.test(ticket)) open(ticket);
else over("There is no ticket in this address.");
