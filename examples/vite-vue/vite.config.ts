import vue from "@vitejs/plugin-vue";
import { defineConfig, type Plugin } from "vite";

// In development WeChat is the sandbox, and its phone comes with Flask's client.js.
const phone: Plugin = {
  name: "wechat-phone",
  apply: "serve",
  transformIndexHtml: () => [
    { tag: "script", attrs: { src: "/wxjsapi/client.js" }, injectTo: "head-prepend" },
  ],
};

export default defineConfig({
  plugins: [vue(), phone],
  // An object, and not the URL alone: so Flask is told the host that the browser has.
  server: { proxy: { "/wxjsapi": { target: process.env.FLASK_URL ?? "http://127.0.0.1:5000" } } },
});
