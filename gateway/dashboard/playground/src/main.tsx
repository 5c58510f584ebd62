import "./workers";
import "monaco-graphql/esm/monaco-editor.js"; // loaded statically, so that its style sheet is part of playground.css
import "@graphiql/react/style.css";
import "@graphiql/plugin-doc-explorer/style.css";
import "@graphiql/plugin-history/style.css";
import "graphiql/graphiql.css";
import "./playground.css";
import { createRoot } from "react-dom/client";
import { App } from "./App";

const place = document.getElementById("playground");
if (!place) throw new Error("the page has no #playground element");
createRoot(place).render(<App />);
