// Makes the package's files of those that Flask serves; npm runs it before it packs them.
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";

const here = (name) => new URL(name, import.meta.url);
const served = "../flask_wxjsapi/_page/";
const jssdk = "wx.qq.com/open/js/jweixin-1.6.0.js";

function replace(text, part, replacement) {
  if (text.split(part).length !== 2) throw new Error(`client.js has not one ${part}`);
  return text.replace(part, () => replacement);
}

let text = readFileSync(here(`${served}client.js`), "utf8");
text = replace(text, "\n(function (own", "\nexport const { config } = (function (own");
text = replace(text, '["https://res.wx.qq.com/…"]', `["https://res.${jssdk}", "https://res2.${jssdk}"]`);
// A bundle has no address beside which the endpoint would be.
text = replace(text, '(Reflect.get(Document.prototype, "currentScript", document) || {}).src', "null");
writeFileSync(here("index.js"), text);
copyFileSync(here(`${served}client.d.ts`), here("index.d.ts"));
copyFileSync(here("../LICENSE"), here("LICENSE"));
