// node search.js BUILD QUERY…: what the search of a build finds, with Sphinx's own script.
const fs = require("node:fs");
const vm = require("node:vm");

const [build, ...queries] = process.argv.slice(2);
const context = vm.createContext({
  document: { getElementById: () => null },
  localStorage: { setItem() {} },
  window: {},
  SPHINX_HIGHLIGHT_ENABLED: false,
  _: (text) => text,
  _ready() {},
});
const run = (name) => vm.runInContext(fs.readFileSync(`${build}/${name}`, "utf-8"), context);
["_static/language_data.js"].forEach(run);
vm.runInContext("var Stemmer = window.Stemmer || Stemmer;", context);
run("_static/searchtools.js");
vm.runInContext("globalThis.Search = Search;", context);
run("searchindex.js");
const find = ({ Search }, query) => Search._performSearch(...Search._parseQuery(query));
const found = queries.map((query) => find(context, query).reverse().map((r) => r[0] + r[2]));
console.log(JSON.stringify(found));
