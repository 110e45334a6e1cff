/* Flask-WxJsApi: has this page signed by its server, and waits for WeChat's verdict.
 *
 *   wxjsapi.config({jsApiList: ["scanQRCode"], share: {title: "…", imgUrl: "…"}})
 *     .then((wx) => wx.scanQRCode({…}), (error) => console.warn(error.message));
 *
 * Call it again whenever the address changes (history.pushState). client.d.ts has the types.
 */
(function (script, jssdk) {
  "use strict";

  const PATIENCE = 10000; // milliseconds for the server, jweixin's host and WeChat to answer
  const SILENCE = 2000; // milliseconds after which no complaint is a yes, see verdict()
  const SHARE = ["updateAppMessageShareData", "updateTimelineShareData"];
  const navigation = performance.getEntriesByType && performance.getEntriesByType("navigation")[0];
  const landing = withoutHash((navigation && navigation.name) || location.href);
  const nonced = document.querySelector("script[nonce]");

  // WeChat compares the address that was loaded first on iOS, and the one shown on Android.
  // WeCom compares the one shown everywhere.
  const agent = navigator.userAgent;
  let kind = /iPhone|iPad|iPod/.test(agent) && !/wxwork/i.test(agent) ? "landing" : "current";
  let queue = Promise.resolve();

  function withoutHash(url) {
    return url.split("#")[0];
  }

  /* What a card links to: no OAuth code, which logs somebody in, and none of WeChat's notes on how
   * this visitor came. */
  function withoutTheVisitors(url) {
    const [path, query] = withoutHash(url).split(/\?(.*)/s);
    const fields = (query || "").split("&");
    const has = (name) => fields.some((field) => field.split("=")[0] === name);
    const login = has("code") && has("state") ? "|(code|state)(=.*)?" : "";
    const visitors = new RegExp("^(from=((single|group)message|timeline)|isappinstalled=\\d?" + login + ")$");
    const kept = fields.filter((field) => field && !visitors.test(field));
    return kept.length ? path + "?" + kept.join("&") : path;
  }

  function config(options) {
    // One after the other: jweixin knows one signature at a time.
    const turn = queue.then(() => configure(options || {}));
    queue = turn.catch(() => {});
    return turn;
  }

  async function configure(options) {
    if (!/MicroMessenger/i.test(navigator.userAgent))
      throw new Error("Not inside WeChat: wx.config needs WeChat's own browser.");
    const wx = await loadJweixin();
    const bridge = await findBridge();
    const urls = { landing: landing, current: withoutHash(location.href) };
    if (options.page) kind = options.page;
    const attempt = async (which, isRejected) =>
      verdict(wx, bridge, settingsFor(options, await sign(urls[which], isRejected, options.appId)));
    let errMsg = await attempt(kind, false);
    if (/invalid signature/.test(errMsg)) {
      const other = kind === "landing" ? "current" : "landing";
      errMsg = await attempt(other, true);
      if (errMsg === "config:ok" && urls[other] !== urls[kind]) kind = other;
      // The server may have another ticket by now, which the first address was not signed with.
      else if (/invalid signature/.test(errMsg) && urls[other] !== urls[kind])
        errMsg = await attempt(kind, false);
    }
    if (errMsg !== "config:ok")
      throw Object.assign(new Error("WeChat refused wx.config: " + errMsg), { errMsg: errMsg });
    if (options.share) share(wx, options.share);
    return wx;
  }

  async function sign(url, isRejected, appId) {
    let query = "?url=" + encodeURIComponent(url) + (isRejected ? "&rejected=1" : "");
    if (appId != null) query += "&app_id=" + encodeURIComponent(appId);
    const asked = fetch(new URL("config", script) + query, { cache: "no-store" }).then((response) =>
      response.json().then((answer) => [response, answer], () => [response, {}]),
    );
    const [response, answer] = await inTime((resolve, reject) => asked.then(resolve, reject));
    if (response.ok && answer.signature) return answer;
    throw new Error(answer.error || "No signature: HTTP " + response.status + ".");
  }

  function settingsFor(options, signed) {
    const names = (options.jsApiList || signed.jsApiList).concat(options.share ? SHARE : []);
    return Object.assign(signed, {
      jsApiList: Array.from(new Set(names)), // a new one: jweixin changes it in place
      openTagList: options.openTagList || signed.openTagList,
    });
  }

  function loadJweixin() {
    const load = (url) =>
      inTime((resolve, reject) => {
        const element = document.createElement("script");
        if (nonced) element.nonce = nonced.nonce;
        element.onload = resolve;
        element.onerror = () => reject(new Error("jweixin was not loaded from " + url + "."));
        element.src = url;
        document.head.appendChild(element);
      });
    if (window.wx && window.wx.config) return Promise.resolve(window.wx);
    return jssdk
      .reduce((before, url) => before.catch(() => load(url)), Promise.reject())
      .then(() => window.wx || Promise.reject(new Error("jweixin set no wx: an AMD loader?")));
  }

  function findBridge() {
    if (window.WeixinJSBridge) return Promise.resolve(window.WeixinJSBridge);
    return inTime((resolve) => {
      document.addEventListener("WeixinJSBridgeReady", () => resolve(window.WeixinJSBridge));
    });
  }

  function inTime(start) {
    return new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error("No answer within 10 seconds.")), PATIENCE);
      start(resolve, reject);
    });
  }

  /* wx.ready() is called after a failure too, and at once after the first wx.config; wx.error()
   * belongs to the page. So the answer to the call behind wx.config is read on its way. */
  function verdict(wx, bridge, settings) {
    return inTime((resolve) => {
      const invoke = bridge.invoke;
      const listening = function (name, args, callback) {
        if (name !== "preVerifyJSAPI") return invoke.apply(bridge, arguments);
        bridge.invoke = invoke;
        return invoke.call(bridge, name, args, (answer) => {
          try {
            callback(answer); // which makes errMsg of the older err_msg
          } finally {
            resolve(answer.errMsg); // a handler of the page's may have thrown
          }
        });
      };
      Reflect.set(bridge, "invoke", listening);
      if (bridge.invoke !== listening) {
        wx.error((answer) => resolve(answer.errMsg));
        wx.ready(() => setTimeout(resolve, SILENCE, "config:ok"));
      }
      wx.config(settings);
    });
  }

  function share(wx, card) {
    const absolute = (url) => new URL(url, location.href).href;
    const data = Object.assign({ desc: "", link: withoutTheVisitors(location.href) }, card);
    data.link = absolute(data.link);
    if (data.imgUrl) data.imgUrl = absolute(data.imgUrl);
    SHARE.forEach((name) => {
      wx[name](Object.assign({ fail: (answer) => console.warn(answer.errMsg) }, data));
    });
  }

  window.wxjsapi = { config: config };
})(document.currentScript.src, ["https://res.wx.qq.com/…"]);
