/* Flask-WxJsApi: configures WeChat's JS-SDK on this page, hears what WeChat says of the signature,
 * and has the page signed again by its server where WeChat calls it invalid.
 *
 *   wxjsapi.config({jsApiList: ["scanQRCode"], share: {title: "…", imgUrl: "…"}})
 *     .then((wx) => wx.scanQRCode({…}), (error) => console.warn(error.message));
 *
 * Call it again whenever the address changes (history.pushState). client.d.ts has the types.
 * wx_script() calls wxjsapi.push() with a page that the server has signed already.
 */
(function (own, jssdk) {
  "use strict";

  const PATIENCE = 10000; // milliseconds for the server, jweixin's host and WeChat to answer
  const UNANSWERED = "WeChat did not answer";
  const SILENCE = 2000; // milliseconds after which no complaint is a yes, see listen()
  const OLDER = {
    updateAppMessageShareData: "onMenuShareAppMessage",
    updateTimelineShareData: "onMenuShareTimeline",
  };

  const isOnPage = typeof document === "object"; // and not in Node, which renders pages
  const agent = isOnPage ? navigator.userAgent : "";
  const isInWeChat = /MicroMessenger/i.test(agent);
  let queue = Promise.resolve();
  if (!isOnPage) return { config: config };

  const home = own ? new URL(".", own).href : null; // the endpoint is beside this script
  const earlier = window.wxjsapi;
  const has = (name) => earlier && typeof earlier[name] === "function";
  if (has("config") && has("push")) // one queue for the page; that of 0.1 had no push()
    return { config: (options) => earlier.config(Object.assign({ endpoint: home }, options)) };

  const isWeCom = /wxwork/i.test(agent);
  // WeCom has the older calls alone; WeChat on a desktop heeds them, and has the newer ones.
  const isOnDesktop = !isWeCom && /WindowsWechat|MacWechat/i.test(agent);
  const SHARE = isWeCom ? Object.values(OLDER) : withOlder(Object.keys(OLDER));
  // WeChat compares the address that was loaded first on iOS, and the one shown on Android.
  // WeCom compares the one shown everywhere.
  let kind = /iPhone|iPad|iPod/.test(agent) && !isWeCom ? "landing" : "current";
  const navigation = performance.getEntriesByType && performance.getEntriesByType("navigation")[0];
  const landing = withoutHash((navigation && navigation.name) || location.href);
  const holds = new Map(); // by JS-SDK, see holdReady()
  let policy = null;

  function addresses() {
    return { landing: landing, current: withoutHash(location.href) };
  }

  function withoutHash(url) {
    return url.split("#")[0];
  }

  /* A property of the document itself: <img name="currentScript"> puts itself before it. */
  function ofDocument(name) {
    return Reflect.get(Document.prototype, name, document);
  }

  // -- the two ways in

  function config(options) {
    return inTurn(() => configure(options || {}));
  }

  function push(page) {
    const wx = isInWeChat && findJweixin();
    const work = async () => {
      // Where WeChat does not come, nobody waits for this page's turn.
      const bridge = isInWeChat ? await findBridge() : null;
      await inTurn(() => configurePage(page, bridge));
    };
    // From now on: what follows in this page is not about the verdict on the one before.
    (wx ? holdReady(wx, work) : work()).catch(() => null); // inTurn() has said it
  }

  /* One after the other: jweixin knows one signature at a time. */
  function inTurn(start) {
    const turn = queue.then(start);
    // Said here, since a router's hook looks at no promise. Outside WeChat it is no news.
    queue = turn.catch((error) => isInWeChat && console.warn("wxjsapi: " + error.message));
    return turn;
  }

  async function configure(options) {
    if (!isInWeChat) throw new Error("Not inside WeChat: wx.config needs WeChat's own browser.");
    const endpoint = options.endpoint || home;
    if (!endpoint)
      throw new Error('endpoint is missing: config({endpoint: "/wxjsapi"}), as in URL_PREFIX.');
    if (options.page) kind = options.page;
    const wx = options.wx || (await loadJweixin());
    return holdReady(wx, async (ready) => {
      const bridge = await inTime(findBridge(), "WeChat's bridge did not come");
      const url = addresses()[kind];
      const sign = (url, refused) => ask(endpoint, url, options.appId, refused);
      const signed = await sign(url);
      const names = (options.jsApiList || signed.jsApiList).concat(options.share ? SHARE : []);
      const settings = Object.assign(signed, {
        jsApiList: Array.from(new Set(names)), // a new one: jweixin changes it in place
        openTagList: options.openTagList || signed.openTagList,
      });
      await inTime(verdict(wx, bridge, settings, healer(settings, url, sign), ready), UNANSWERED);
      if (options.share) share(wx, options.share);
      return wx;
    });
  }

  /* page.run(wx) calls wx.config and wx.ready; it was signed for page.url. What the page's own
   * scripts said to wx.ready() and wx.error() before there was a wx is in page.early. */
  async function configurePage(page, bridge) {
    const wx = await loadJweixin();
    if (!bridge) return page.run(wx);
    return holdReady(wx, async (ready) => {
      page.early.forEach(([name, callback]) => wx[name](callback));
      const [settings, callbacks] = read(wx, page);
      const sign = page.endpoint
        ? (url, refused) => ask(page.endpoint, url, settings.appId, refused)
        : null;
      let url = page.url;
      const wanted = addresses()[kind];
      // It is of a fragment, or a script has changed the address before WeChat was there.
      if (sign && url !== wanted) {
        const signed = await sign(wanted).catch((error) => console.warn(error.message));
        url = signed ? wanted : url;
        Object.assign(settings, signed && signatureIn(signed));
      }
      const accepted = verdict(wx, bridge, settings, healer(settings, url, sign), ready);
      // However late that is; the next page does not wait for it.
      await inTime(accepted.then(() => callbacks.forEach((callback) => callback())), UNANSWERED);
    });
  }

  /* What a page's own statements say, without their effect. */
  function read(wx, page) {
    let settings;
    const callbacks = [];
    const reader = Object.assign(Object.create(wx), {
      config: (given) => (settings = given),
      ready: (callback) => callbacks.push(callback),
    });
    Object.keys(OLDER).forEach((name) => {
      const calls = withOlder([name]);
      reader[name] = (card) => calls.forEach((each) => wx[each](Object.assign({}, card)));
    });
    page.run(reader);
    settings.jsApiList = withOlder(settings.jsApiList);
    return [settings, callbacks];
  }

  function withOlder(names) {
    return isOnDesktop ? names.concat(names.map((name) => OLDER[name]).filter(Boolean)) : names;
  }

  // -- WeChat's verdict

  /* Resolves when WeChat has accepted the settings. wx.ready() is called after a failure too, and
   * wx.error() belongs to the page. So the answer to the call behind wx.config is read on its way,
   * and as long as it can be healed jweixin does not hear of it. */
  async function verdict(wx, bridge, settings, heal, ready) {
    const verified = new Promise((resolve) => {
      const invoke = bridge.invoke;
      const listening = function (name, args, callback) {
        if (name !== "preVerifyJSAPI") return invoke.apply(bridge, arguments);
        bridge.invoke = invoke;
        const submit = () =>
          invoke.call(bridge, name, args, async (answer) => {
            if (await heal(answer)) return submit(Object.assign(args, signatureFor(settings)));
            try {
              callback(answer);
            } finally {
              resolve(answer.errMsg || answer.err_msg); // a handler of the page's may have thrown
            }
          });
        return submit();
      };
      Reflect.set(bridge, "invoke", listening);
      if (bridge.invoke === listening) wx.config(settings);
      else listen(wx, settings, heal, ready, resolve);
    });
    const errMsg = await verified;
    if (errMsg !== "config:ok") throw refusal(errMsg, heal.why);
  }

  /* Where the bridge lets nobody listen the page's handlers have to do. */
  function listen(wx, settings, heal, ready, resolve) {
    let isRefused = false;
    wx.error(async (answer) => {
      isRefused = true;
      if (await heal(answer)) listen(wx, settings, heal, ready, resolve);
      else resolve(answer.errMsg);
    });
    wx.config(settings);
    ready(() => setTimeout(() => isRefused || resolve("config:ok"), SILENCE));
  }

  function refusal(errMsg, why) {
    const error = new Error("WeChat refused wx.config: " + errMsg + (why ? ". " + why : ""));
    return Object.assign(error, { errMsg: errMsg });
  }

  /* A function that takes WeChat's answer and, where another signature may be the right one, puts
   * that into the settings and returns true. Each address is tried again once. */
  function healer(settings, first, sign) {
    const refused = {};
    let [url, left] = [first, null];

    async function heal(answer) {
      const errMsg = answer.errMsg || answer.err_msg;
      if (errMsg === "config:ok") learn();
      if (!/invalid signature/.test(errMsg)) return false;
      const [real] = [].concat(answer.realAuthUrl || []); // nobody documents it
      const compared = typeof real === "string" && withoutHash(real);
      if (!sign) heal.why = reason(first, compared || addresses()[kind]);
      left = left || candidates(compared);
      refused[url] = signatureIn(settings);
      if (!sign || !left.length) return false;
      url = left.shift();
      try {
        // A complaint where this very address was refused: then the ticket may be the cause.
        Object.assign(settings, signatureIn(await sign(url, refused[url])));
        return true;
      } catch (error) {
        heal.why = error.message;
        return false;
      }
    }

    function candidates(compared) {
      if (compared) return [compared];
      const { [kind]: wanted, [otherKind()]: other } = addresses();
      if (url !== wanted) return [wanted];
      return wanted === other ? [wanted] : [other, wanted];
    }

    function learn() {
      const { [kind]: wanted, [otherKind()]: other } = addresses();
      if (url === other && url !== wanted) kind = otherKind();
    }

    return heal;
  }

  function otherKind() {
    return kind === "landing" ? "current" : "landing";
  }

  function reason(signed, compared) {
    const addresses = "It was signed for " + signed + ", and WeChat compared " + compared + ". ";
    const advice = "With WXJSAPI_URL_PREFIX set, this page would have itself signed again.";
    return (signed === compared ? "" : addresses) + advice;
  }

  function signatureIn(given) {
    const { appId, timestamp, nonceStr, signature } = given;
    return { appId, timestamp, nonceStr, signature };
  }

  /* The same, as jweixin hands it to the bridge. */
  function signatureFor(settings) {
    return {
      appId: settings.appId,
      verifyAppId: settings.appId,
      verifyTimestamp: String(settings.timestamp),
      verifyNonceStr: settings.nonceStr,
      verifySignature: settings.signature,
    };
  }

  /* After a first wx.config jweixin calls what wx.ready() is given at once; until WeChat has
   * accepted this one it is kept. */
  async function holdReady(wx, work) {
    const held = holds.get(wx) || { ready: wx.ready, kept: [], by: 0 };
    holds.set(wx, held);
    held.by += 1;
    wx.ready = (callback) => held.kept.push(callback);
    try {
      return await work((callback) => held.ready.call(wx, callback));
    } finally {
      held.by -= 1;
      if (!held.by) release(wx, held);
    }
  }

  function release(wx, held) {
    holds.delete(wx);
    wx.ready = held.ready;
    held.kept.forEach((callback) => {
      try {
        wx.ready(callback);
      } catch (error) {
        setTimeout(() => {
          throw error; // the page's own, and it stops no other handler
        });
      }
    });
  }

  // -- the server, the script and the bridge

  async function ask(endpoint, url, appId, refused) {
    const query = new URLSearchParams();
    query.set("url", url); // and not as an argument, which Chrome 57 cannot read
    if (appId != null) query.set("app_id", appId);
    if (refused) {
      const { timestamp, nonceStr, signature } = refused;
      const complaint = { rejected: "1", timestamp, nonceStr, signature };
      Object.keys(complaint).forEach((name) => query.set(name, complaint[name]));
    }
    const base = new URL(endpoint.replace(/\/*$/, "/"), location.href);
    const asked = fetch(new URL("config?" + query, base), { cache: "no-store" }).then(
      (response) => response.json().then((answer) => [response, answer], () => [response, {}]),
      (error) => Promise.reject(new Error("No signature from " + base.host + ": " + error.message))
    );
    const [response, answer] = await inTime(asked, base.host + " did not answer");
    if (response.ok && answer.signature) return answer;
    throw new Error(answer.error || "No signature: HTTP " + response.status + ".");
  }

  function findJweixin() {
    return [window.wx, window.jWeixin].find((sdk) => sdk && typeof sdk.config === "function");
  }

  async function loadJweixin() {
    for (let index = 0; !findJweixin() && index < jssdk.length; index += 1)
      await load(jssdk[index]).catch((error) => {
        if (index === jssdk.length - 1) throw error;
      });
    const wx = findJweixin();
    if (wx) return wx;
    throw new Error("WeChat's script set no wx: an AMD loader took it. Load it before that one.");
  }

  function load(url) {
    const loaded = new Promise((resolve, reject) => {
      const element = ofDocument("createElement").call(document, "script");
      const nonced = ofDocument("querySelector").call(document, "script[nonce]");
      if (nonced) element.nonce = nonced.nonce;
      element.onload = resolve;
      const text = "WeChat's script could not be loaded from " + url + ".";
      element.onerror = () => reject(new Error(text));
      element.src = trusted(url);
      ofDocument("head").appendChild(element);
    });
    return inTime(loaded, "WeChat's script did not come from " + url);
  }

  /* For a page with Trusted Types; its policy has to name wxjsapi. */
  function trusted(url) {
    if (!window.trustedTypes) return url;
    policy = policy || trustedTypes.createPolicy("wxjsapi", { createScriptURL: (known) => known });
    return policy.createScriptURL(url);
  }

  function findBridge() {
    const here = () => window.WeixinJSBridge && typeof window.WeixinJSBridge.invoke === "function";
    return new Promise((resolve) => {
      const look = () => here() && resolve(window.WeixinJSBridge);
      if (!look()) ofDocument("addEventListener").call(document, "WeixinJSBridgeReady", look);
    });
  }

  function inTime(promise, what) {
    return new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(what + " within 10 seconds.")), PATIENCE);
      promise.then(resolve, reject);
    });
  }

  // -- the card

  function share(wx, card) {
    const absolute = (url) => new URL(url, location.href).href;
    const data = Object.assign({ desc: "", link: withoutTheVisitors(location.href) }, card);
    data.link = absolute(data.link);
    if (data.imgUrl) data.imgUrl = absolute(data.imgUrl);
    SHARE.forEach((name) => {
      wx[name](Object.assign({ fail: (answer) => console.warn(answer.errMsg) }, data));
    });
  }

  /* What a card links to: no OAuth code, which logs somebody in, and none of WeChat's notes on how
   * this visitor came. */
  function withoutTheVisitors(url) {
    const [path, ...rest] = withoutHash(url).split("?");
    const fields = rest.join("?").split("&");
    const has = (name) => fields.some((field) => field.split("=")[0] === name);
    const login = has("code") && has("state") ? "|(code|state)(=.*)?" : "";
    const visit = "from=((single|group)message|timeline)|isappinstalled=\\d?";
    const visitors = new RegExp("^(" + visit + login + ")$");
    const kept = fields.filter((field) => field && !visitors.test(field));
    return kept.length ? path + "?" + kept.join("&") : path;
  }

  const waiting = Array.isArray(earlier) ? earlier : []; // pages that came before this script
  window.wxjsapi = { config: config, push: push };
  waiting.forEach(push);
  return window.wxjsapi;
})((Reflect.get(Document.prototype, "currentScript", document) || {}).src, ["https://res.wx.qq.com/…"]);
