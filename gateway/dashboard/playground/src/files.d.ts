declare module "*.graphql" {
  const text: string;
  export default text;
}
declare module "*.css";
declare module "monaco-graphql/esm/monaco-editor.js";
