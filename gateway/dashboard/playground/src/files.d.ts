declare module "*.graphql" {
  const text: string;
  export default text;
}
declare module "*.css";
declare module "monaco-graphql/esm/monaco-editor.js";
// What this page uses of noVNC, which comes without types (docs/API.md there).
declare module "@novnc/novnc" {
  export default class RFB extends EventTarget {
    constructor(target: HTMLElement, channel: WebSocket, options?: { shared?: boolean });
    scaleViewport: boolean;
    focusOnClick: boolean;
    focus(): void;
    sendCtrlAltDel(): void;
    sendKey(keysym: number, code: string | null, down?: boolean): void;
    addEventListener(kind: "desktopname", heard: (event: CustomEvent<{ name: string }>) => void): void;
    addEventListener(kind: "connect" | "disconnect" | "securityfailure", heard: () => void): void;
  }
}
