// Monaco and its companions add <style> elements at run time. The page's policy (style-src-elem) admits only those that
// carry this page's nonce, so every <style> made by our own scripts is given it. Its own script, run before the bundle:
// a bundle's shared chunks run ahead of the module that imports them.
const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? "";
const createElement = document.createElement.bind(document);

document.createElement = ((name: string, options?: ElementCreationOptions) => {
  const element = createElement(name, options);
  if (element instanceof HTMLStyleElement) element.nonce = nonce;
  return element;
}) as typeof document.createElement;
