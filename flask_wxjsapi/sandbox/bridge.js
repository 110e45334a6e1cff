// A phone for pages in an ordinary browser: the WeixinJSBridge that WeChat's own browser has, with
// the sandbox behind it, and a card in the corner that shows what it said. Include it before
// jweixin. It works as a classic script, in a module and with another script's text behind it.
(() => {
  "use strict";
  const SANDBOX = "__SANDBOX_URL__";
  const PHONE = "__PHONE__"; // wechat or wecom
  const LATE = "__LATE__"; // milliseconds
  const MARK = Symbol.for("wxSandboxPhone");
  if (window[MARK]) return; // included twice
  window[MARK] = true;

  // What a person or a test chooses for the tab is in sessionStorage.
  const KEY = "wxSandboxPhone";
  const CARD_KEY = "wxSandboxCard";
  const BROWSERS = {
    android:
      "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) " +
      "Version/4.0 Chrome/126.0.0.0 Mobile Safari/537.36",
    ios:
      "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 " +
      "(KHTML, like Gecko) Mobile/15E148",
    desktop:
      "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) " +
      "Chrome/126.0.0.0 Safari/537.36",
  };
  const MENU = { friend: "menu:share:appmessage", moments: "menu:share:timeline" };
  // The names are those that jweixin passes on, not always those that a page calls. What needs
  // another name is of the older pair, which the phone's menu asks for.
  const SHARES = new Map([
    ["updateAppMessageShareData", { to: "friend" }],
    ["updateTimelineShareData", { to: "moments" }],
    ["sendAppMessage", { to: "friend", needs: MENU.friend }],
    ["shareTimeline", { to: "moments", needs: MENU.moments }],
  ]);
  const WITHOUT_EFFECT = new Set([
    "hideOptionMenu", "showOptionMenu", "hideMenuItems", "showMenuItems",
    "hideAllNonBaseMenuItem", "showAllNonBaseMenuItem", "closeWindow",
  ]);

  const ask = window.fetch.bind(window); // before the page puts its own in its place
  const inWeChat = /MicroMessenger/i.test(navigator.userAgent);
  const isWeCom = inWeChat ? /wxwork/i.test(navigator.userAgent) : PHONE === "wecom";
  const system = readSystem();
  const LACKING = new Set(
    isWeCom ? ["updateAppMessageShareData", "updateTimelineShareData"] : ["agentConfig"],
  );
  const late = Math.max(0, Number(stored("wxSandboxLate") ?? LATE)) || 0; // milliseconds
  const isOld = stored("wxSandboxOld") === "1";
  const isFrozen = stored("wxSandboxFrozen") === "1";
  const isFromPlainLink = stored("wxSandboxOpened") === "plain-link";
  const landing = readLanding();
  const state = { url: "", shares: {}, calls: [] };
  const config = newVerdict("config");
  const agentConfig = newVerdict("agentConfig"); // WeCom's
  const verdicts = [config, agentConfig];
  const listeners = {};

  // -- the phone

  const comparesLanding = system === "ios" && !isWeCom;
  const address = () => (comparesLanding ? landing : location.href).split("#")[0];

  function newVerdict(name) {
    return { name, errMsg: "", asking: false, asked: 0, granted: new Set(), cause: null };
  }

  function stored(key) {
    try {
      return sessionStorage.getItem(key);
    } catch {
      return null; // a page may be denied its storage
    }
  }

  function store(key, value) {
    try {
      sessionStorage.setItem(key, value);
      return true;
    } catch {
      return false;
    }
  }

  function readSystem() {
    const { userAgent } = navigator;
    if (!inWeChat) return Object.keys(BROWSERS).find((name) => name === stored(KEY)) ?? "android";
    if (/iPhone|iPad/i.test(userAgent)) return "ios";
    return /WindowsWechat|MacWechat/i.test(userAgent) ? "desktop" : "android";
  }

  function playedAgent() {
    const app = isWeCom ? "wxwork/4.1.30 MicroMessenger/7.0.1" : "MicroMessenger/8.0.50";
    const parts = [BROWSERS[system], app, ...(system === "desktop" ? ["WindowsWechat"] : [])];
    return [...parts, "wxdebugger"].join(" "); // so jweixin does not report to open.weixin.qq.com
  }

  function readLanding() {
    const [navigation] = performance.getEntriesByType("navigation");
    return navigation && /^https?:/.test(navigation.name) ? navigation.name : location.href;
  }

  function explain(what) {
    console.info(`WeChat sandbox: ${what}`);
  }

  function text(value) {
    return ["string", "number"].includes(typeof value) ? String(value) : "";
  }

  function configQuestion(args, url) {
    return {
      appId: text(args.verifyAppId), nonceStr: text(args.verifyNonceStr),
      timestamp: text(args.verifyTimestamp), signature: text(args.verifySignature), url,
    };
  }

  function agentQuestion(args, url) {
    return {
      corpid: text(args.corpid), agentid: text(args.agentid), nonceStr: text(args.nonceStr),
      timestamp: text(args.timestamp), signature: text(args.signature), url,
    };
  }

  async function judge(name, asked) {
    const body = JSON.stringify(asked);
    try {
      // A string goes without a preflight, and nothing here needs a cookie.
      const response = await ask(`${SANDBOX}/sandbox/verify`, {
        method: "POST", body, cache: "no-store", credentials: "omit",
      });
      const { errMsg } = await response.json();
      if (typeof errMsg === "string") return errMsg;
    } catch {
      // the same advice
    }
    console.error(
      `WeChat sandbox: ${SANDBOX} gave no verdict, so wx.${name} gets "${name}:fail". Does it ` +
        `still run? Does this page's Content-Security-Policy allow connect-src ${SANDBOX} ?`,
    );
    return "";
  }

  async function verify(verdict, asked, apis) {
    const { name } = verdict;
    const names = Array.isArray(apis) ? [...apis] : [];
    const turn = ++verdict.asked;
    Object.assign(verdict, { asking: true, question: { appId: asked.corpid, ...asked } });
    state.url = asked.url;
    show();
    const said = await judge(name, asked);
    const errMsg = said || `${name}:fail`;
    if (turn !== verdict.asked) return errMsg;
    const granted = new Set(errMsg === `${name}:ok` ? names : []);
    const cause = REASONS[said.slice(name.length + 1)] ?? null;
    Object.assign(verdict, { asking: false, errMsg, granted, cause });
    show();
    if (isInvalid(verdict)) findCause(verdict);
    return errMsg;
  }

  const isRefused = ({ name, errMsg }) => errMsg !== "" && errMsg !== `${name}:ok`;
  const isInvalid = ({ name, errMsg }) => errMsg === `${name}:invalid signature`;

  // Why the phone refuses what it need not compute, by what it says; "" is no answer.
  const REASONS = {
    "": {
      english: "The sandbox gave no verdict; the console says more.",
      chinese: "沙箱没有给出判定，详见控制台。",
    },
    fail: {
      english: "The sandbox has no such AppID or agent.",
      chinese: "沙箱里没有这个 AppID 或应用。",
    },
    "invalid url domain": {
      english: "The account’s domains do not include this page’s host.",
      chinese: "账号的域名列表里没有本页的域名。",
    },
  };

  // For the card alone: without an answer it still has a link to where the cause is found.
  async function findCause(verdict) {
    const turn = verdict.asked;
    const body = JSON.stringify(verdict.question);
    const headers = { "Content-Type": "application/json" };
    try {
      const options = { method: "POST", body, headers, cache: "no-store", credentials: "omit" };
      const response = await ask(`${SANDBOX}/sandbox/diagnose`, options);
      if (!response.ok || turn !== verdict.asked) return;
      verdict.cause = await response.json();
      show();
    } catch {
      // it stays unknown
    }
  }

  async function verifyConfig(args) {
    const url = address();
    const errMsg = await verify(config, configQuestion(args, url), args.verifyJsApiList);
    const isTold = errMsg === "config:invalid signature" && !isOld;
    return isTold ? { errMsg, realAuthUrl: url } : { errMsg };
  }

  async function verifyAgent(args) {
    const errMsg = await verify(agentConfig, agentQuestion(args, address()), args.jsApiList);
    return { errMsg, err_msg: errMsg };
  }

  const isGranted = (name) =>
    !LACKING.has(name) && verdicts.some(({ granted }) => granted.has(name));

  // The phone's menu asks the page only where that was allowed.
  const asksForOld = (to) => Boolean(listeners[MENU[to]]) && isGranted(MENU[to]);

  function share({ to, needs }, args) {
    const [title, desc, link] = [args.title, args.desc, args.link].map(text);
    const card = { kind: "card", title, desc, link, imgUrl: text(args.imgUrl ?? args.img_url) };
    const asLink = (why) => ({ kind: "link", why, link: location.href });
    if (isFromPlainLink) state.shares[to] = asLink("plain-link");
    else if (needs || system !== "desktop") state.shares[to] = card;
    else if (state.shares[to]?.kind !== "card") state.shares[to] = asLink("desktop");
    show();
  }

  // What a friend and Moments would get, as far as it is known before the menu asks.
  function outcomes() {
    const known = Object.entries(state.shares).filter(
      ([to, { why }]) => why !== "desktop" || !asksForOld(to),
    );
    return Object.fromEntries(known);
  }

  function checkJsApi({ jsApiList }) {
    const names = Array.isArray(jsApiList) ? jsApiList : [];
    const result = Object.fromEntries(names.map((name) => [name, isGranted(name)]));
    const isAndroid = /Android/i.test(navigator.userAgent); // as jweixin asks
    return { err_msg: "checkJsApi:ok", checkResult: isAndroid ? JSON.stringify(result) : result };
  }

  function play(name, args) {
    if (name === "checkJsApi") return checkJsApi(args);
    if (LACKING.has(name)) {
      explain(
        isWeCom ? `WeCom has no ${name}: call onMenuShareAppMessage and onMenuShareTimeline there.`
          : `only WeCom has ${name}, and that is the phone of bridge.js?phone=wecom.`,
      );
      return { err_msg: `${name}:function not exist` };
    }
    const kind = SHARES.get(name);
    if (!isGranted((kind && kind.needs) || name)) {
      explain(`${name} is in the jsApiList of no wx.config that got config:ok: permission denied.`);
      return { err_msg: `${name}:permission denied` };
    }
    if (kind) share(kind, args);
    else if (name === "getNetworkType") return { err_msg: "network_type:wifi" };
    else if (!WITHOUT_EFFECT.has(name)) {
      explain(`it does not play ${name}, which a desktop browser cannot do. The page gets a fail.`);
      return { err_msg: `${name}:fail` };
    }
    return { err_msg: `${name}:ok` };
  }

  async function result(name, args) {
    if (name === "preVerifyJSAPI") return verifyConfig(args);
    if (name === "agentConfig" && isWeCom) return verifyAgent(args);
    return play(name, args);
  }

  // Clients take nothing more from a page that has replaced these; only `invoke` may be another's.
  const isTouched = () => bridge.call !== invoke || bridge.on !== on;

  function invoke(name, args, callback) {
    if (isTouched()) {
      explain(`the page has replaced call or on of WeixinJSBridge, so ${text(name)} is ignored.`);
      return;
    }
    // As JSON, which is how a page's call reaches a client.
    const given = (typeof args === "object" && JSON.parse(JSON.stringify(args))) || {};
    result(text(name), given).then((answer) => {
      const [, said] = /:(.*)/.exec(answer.errMsg || answer.err_msg);
      state.calls.push(`${text(name)} → ${said}`);
      showCalls();
      // Apart, so that an exception in it is the page's.
      if (typeof callback === "function") setTimeout(() => callback(answer), 0);
    });
  }

  function on(event, callback) {
    if (isTouched() || typeof callback !== "function") return;
    listeners[event] = callback;
    show();
  }

  const bridge = { sandbox: SANDBOX, invoke, call: invoke, on };
  if (isFrozen) Object.freeze(bridge);

  // -- the card

  const isChinese = /^zh/i.test(navigator.language);
  const say = (english, chinese) => (isChinese ? chinese : english);

  function make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function web(address) {
    try {
      const url = new URL(address);
      return /^https?:$/.test(url.protocol) ? url : null;
    } catch {
      return null;
    }
  }

  function problems({ link, imgUrl }) {
    const page = web(link);
    const found = [];
    if (!page) found.push(say("link is no full http(s) address.", "link 不是完整网址。"));
    else if (page.hostname !== location.hostname)
      found.push(
        say(`link leads to ${page.hostname}, not to this page’s host.`, "link 与本页域名不同。"),
      );
    if (!web(imgUrl)) found.push(say("imgUrl is no full http(s) address.", "imgUrl 不是完整网址。"));
    return found.map((words) => make("p", { className: "warning" }, words));
  }

  const WHY_LINK = {
    "plain-link": say(
      "A page that was opened from a plain link is shared as one, whatever :ok says. Open it " +
        "from a QR code, the account’s menu, favourites or a card.",
      "从聊天里的普通链接打开的页面，即使返回 :ok，分享出去仍是普通链接。" +
        "请从二维码、公众号菜单、收藏或分享卡片打开。",
    ),
    desktop: say(
      "Desktop WeChat makes no card of update…ShareData: call onMenuShareAppMessage and " +
        "onMenuShareTimeline as well.",
      "电脑版微信不使用 update…ShareData，请同时调用 onMenuShareAppMessage 和 " +
        "onMenuShareTimeline。",
    ),
  };

  function linkCard(heading, { why, link }) {
    return make(
      "section", { className: "plain" }, make("h3", {}, heading),
      make("p", { className: "link" }, link),
      make("p", { className: "warning" }, WHY_LINK[why]),
    );
  }

  function shareCard(heading, share, withDescription) {
    if (share.kind === "link") return linkCard(heading, share);
    const [page, image] = [web(share.link), web(share.imgUrl)];
    const picture = make("span", { className: "picture" });
    if (image) {
      const img = make("img", { alt: "", referrerPolicy: "no-referrer", src: image.href });
      img.addEventListener("error", () => picture.replaceChildren("✕"));
      picture.append(img);
    }
    const words = make("div", {}, make("b", {}, share.title));
    if (withDescription) words.append(make("p", {}, share.desc));
    const link = page
      ? make("a", { href: page.href, title: page.href, target: "_blank", rel: "noopener" },
        share.link)
      : make("span", {}, share.link);
    return make(
      "section", {}, make("h3", {}, heading),
      make("div", { className: "share" }, words, picture),
      make("p", { className: "link" }, link), ...problems(share),
    );
  }

  // The old way to share: the phone asks the page when somebody presses the button.
  function oldButton(to, label) {
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", () => listeners[MENU[to]]({}));
    return asksForOld(to) ? [button] : [];
  }

  // The hosts that jweixin should have come from. A module loader gives it to nobody else, so
  // nothing is known where there is one.
  function missing() {
    if (document.readyState !== "complete" || config.asked || agentConfig.asked) return "";
    if (window.wx || window.jWeixin || window.define) return "";
    const sources = [...document.scripts].map((script) => script.src);
    const hosts = sources.filter((src) => /jweixin/i.test(src)).map((src) => new URL(src).host);
    return [...new Set(hosts)].join(", ");
  }

  config.line = make("p", { className: "status" });
  agentConfig.line = make("p", { className: "status", hidden: true });
  for (const { line } of verdicts) line.setAttribute("role", "status");
  const note = make("p", { className: "warning" });
  const body = make("div", { id: "body" });
  const toggle = make("button", { type: "button", className: "toggle" });
  const cause = make("p", { className: "cause" });
  const comparedUrl = make("code", {});
  const why = outside(say("Why?", "为什么？"), "");
  const compared = make(
    "div", {}, make("h3", {}, say("The phone compared", "手机比对的 URL")), comparedUrl,
  );
  const shares = make("div", {});
  const calls = make("ol", {});
  const callsTitle = make("summary", {});
  const CALLS = 8; // the last ones are shown

  function outside(label, href) {
    return make("a", { target: "_blank", rel: "noopener", href }, label);
  }

  const isKnown = ({ asked, asking }) => asked > 0 && !asking;

  function showVerdict(verdict) {
    const { name, errMsg, asking, asked, line } = verdict;
    const waiting = asking ? "…" : say(`wx.${name} not called yet`, `wx.${name} 尚未调用`);
    const words = make("span", {}, isKnown(verdict) ? errMsg : waiting);
    // Only what changes is told to a screen reader.
    if (words.textContent !== line.textContent) line.replaceChildren(words);
    line.hidden = verdict === agentConfig && !asked;
    line.dataset.verdict = !isKnown(verdict) ? "none" : errMsg === `${name}:ok` ? "ok" : "bad";
    const key = verdict === config ? "errmsg" : "agenterrmsg";
    if (isKnown(verdict)) phone.dataset[key] = errMsg;
    else delete phone.dataset[key];
  }

  function show() {
    verdicts.forEach(showVerdict);
    const host = missing();
    note.textContent = say(
      `jweixin could not be loaded from ${host}: no internet?`,
      `无法从 ${host} 加载 jweixin，没有联网？`,
    );
    note.hidden = !host;
    comparedUrl.textContent = state.url;
    compared.hidden = !state.url;
    showCause(verdicts.find((verdict) => isKnown(verdict) && isRefused(verdict)));
    Object.assign(phone.dataset, { configs: config.asked, url: state.url });
    showShares();
    fold();
  }

  function showCause(wrong) {
    cause.hidden = !wrong;
    if (!wrong) return;
    const { question, cause: found } = wrong;
    why.href = `${SANDBOX}/sandbox/?${new URLSearchParams(question)}#diagnose`;
    why.hidden = !isInvalid(wrong);
    cause.replaceChildren(found ? `${say(found.english, found.chinese)} ` : "", why);
    cause.dataset.cause = found?.cause ?? "";
  }

  function showCalls() {
    const { length } = state.calls;
    callsTitle.textContent = say(`Calls: ${length}`, `调用：${length}`);
    calls.replaceChildren(...state.calls.slice(-CALLS).map((call) => make("li", {}, call)));
    calls.start = Math.max(1, length - CALLS + 1);
  }

  let chosen = stored(CARD_KEY); // by a person, for the pages to come as well

  // It covers a part of the page, and so it is open only where something is wrong.
  function fold() {
    const isOpen = chosen ? chosen === "open" : verdicts.some(isRefused) && innerWidth >= 600;
    body.hidden = !isOpen;
    toggle.setAttribute("aria-expanded", String(isOpen));
    const label = isOpen ? say("Show less", "收起") : say("Show more", "展开");
    toggle.setAttribute("aria-label", label);
    toggle.textContent = isOpen ? "▾" : "▴";
  }

  function showShares() {
    const [made, asking] = [outcomes(), Object.keys(MENU).filter(asksForOld)];
    const known = JSON.stringify([made, asking]);
    if (shares.known === known) return; // its pictures would be loaded again
    shares.known = known;
    phone.dataset.shares = JSON.stringify(made);
    const { friend, moments } = made;
    const old = [
      ...oldButton("friend", say("Share with a friend", "分享给朋友")),
      ...oldButton("moments", say("Share to Moments", "分享到朋友圈")),
    ];
    shares.replaceChildren(
      ...(friend ? [shareCard(say("For a friend", "发送给朋友"), friend, true)] : []),
      ...(moments ? [shareCard(say("For Moments", "朋友圈"), moments, false)] : []),
      ...(old.length ? [row(say("Share", "分享"), old)] : []),
    );
  }

  function choice(label, title, isOn, key, value) {
    const button = make("button", { type: "button", title }, label);
    button.setAttribute("aria-pressed", String(isOn));
    button.addEventListener("click", () => {
      if (store(key, value)) location.reload();
      else explain("this page may store nothing, so it stays the phone it is.");
    });
    return button;
  }

  function systemChoice(name, label) {
    const title = name === "ios" && !isWeCom
      ? say("compares the address that was entered first", "比对首次进入的 URL")
      : say("compares the current address", "比对当前 URL");
    const button = choice(label, title, system === name, KEY, name);
    button.disabled = inWeChat;
    return button;
  }

  const systemChoices = () => [
    systemChoice("android", "Android"), systemChoice("ios", "iOS"),
    systemChoice("desktop", say("Desktop", "电脑版")),
  ];

  const switches = () => [
    choice(
      say("Late", "桥迟到"),
      say("WeixinJSBridge comes half a second late", "WeixinJSBridge 晚半秒才出现"),
      late > 0, "wxSandboxLate", late > 0 ? "0" : "500",
    ),
    choice(
      say("Frozen", "桥冻结"),
      say("the page cannot change WeixinJSBridge", "页面无法改写 WeixinJSBridge"),
      isFrozen, "wxSandboxFrozen", isFrozen ? "0" : "1",
    ),
    choice(
      say("Old client", "旧客户端"), say("tells no realAuthUrl", "不返回 realAuthUrl"),
      isOld, "wxSandboxOld", isOld ? "0" : "1",
    ),
    choice(
      say("Plain link", "普通链接"),
      say("opened from a plain link in a chat", "从聊天里的普通链接打开"),
      isFromPlainLink, "wxSandboxOpened", isFromPlainLink ? "card" : "plain-link",
    ),
  ];

  function row(label, buttons) {
    const group = make("div", { className: "row" }, ...buttons);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", label);
    return group;
  }

  function build() {
    const own = outside(say("The sandbox’s own page", "沙箱页面"), `${SANDBOX}/sandbox/`);
    body.append(
      cause, compared, row(say("Phone", "手机"), systemChoices()),
      row(say("What it does", "行为"), switches()), shares,
      make("footer", {}, make("details", {}, callsTitle, calls), own),
    );
    toggle.setAttribute("aria-controls", "body");
    toggle.addEventListener("click", () => {
      chosen = body.hidden ? "open" : "folded";
      store(CARD_KEY, chosen);
      fold();
    });
    const title = isWeCom ? say("Sandbox WeCom", "沙箱企业微信") : say("Sandbox", "沙箱手机");
    const lines = make("div", { className: "verdicts" }, config.line, agentConfig.line);
    // Two verdicts do not fit beside the title.
    const parts = isWeCom ? [toggle, lines] : [lines, toggle];
    const kind = isWeCom ? "wecom" : "";
    const header = make("header", { className: kind }, make("h2", {}, title), ...parts);
    const panel = make("aside", { lang: say("en", "zh-CN") }, header, note, body);
    panel.setAttribute("aria-label", say("WeChat sandbox", "微信沙箱"));
    const root = phone.attachShadow({ mode: "open" });
    try {
      const sheet = new CSSStyleSheet(); // a strict Content-Security-Policy has no say in these
      sheet.replaceSync(STYLE);
      root.adoptedStyleSheets = [sheet];
    } catch {
      root.append(make("style", {}, STYLE)); // Safari before 16.4
    }
    root.append(panel);
  }

  const STYLE = `
    :host { all: initial; position: fixed; z-index: 2147483647; right: 12px; bottom: 12px;
      width: min(340px, 100vw - 24px); color-scheme: light dark; color: var(--text);
      font: 13px/1.45 Inter, system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
        sans-serif;
      --back: #fff; --edge: #ccd6d0; --text: #15211b; --soft: #536159; --inset: #f0f4f2;
      --good: #08743c; --good-back: #e1f6ea; --bad: #b3261e; --bad-back: #fdeae8;
      --warn: #774700; --warn-back: #fdf0d5; }
    @media (prefers-color-scheme: dark) { :host {
      --back: #1b2420; --edge: #3a4740; --text: #e7efea; --soft: #a9b7af; --inset: #111814;
      --good: #4ade94; --good-back: #12321f; --bad: #ff9d94; --bad-back: #3d1b18;
      --warn: #f3bd5c; --warn-back: #382a0e; } }
    @media print { :host { display: none; } }
    * { box-sizing: border-box; margin: 0; font: inherit; overflow-wrap: anywhere; }
    [hidden] { display: none !important; }
    aside { max-height: calc(100vh - 24px); overflow: auto; border: 1px solid var(--edge);
      border-radius: 12px; background: var(--back); box-shadow: 0 6px 28px rgb(0 0 0 / 22%); }
    header { display: flex; align-items: center; gap: 8px; padding: 8px 12px; }
    h2, h3, b { font-weight: 650; }
    h3 { margin-bottom: 4px; font-size: 12px; color: var(--soft); }
    h2 { overflow: hidden; min-width: 0; text-overflow: ellipsis; white-space: nowrap; }
    code, .status { font-family: ui-monospace, Menlo, Consolas, monospace; }
    .verdicts { display: grid; gap: 4px; justify-items: end; margin-left: auto; }
    .wecom { flex-wrap: wrap; }
    .wecom h2 { flex: 1; }
    .wecom .verdicts { display: flex; flex: 1 0 100%; flex-wrap: wrap; }
    .status { padding: 2px 8px; border-radius: 99px; background: var(--inset); font-size: 12px;
      white-space: nowrap; }
    [data-verdict=ok] { background: var(--good-back); color: var(--good); font-weight: 650; }
    [data-verdict=bad] { background: var(--bad-back); color: var(--bad); font-weight: 650; }
    #body { display: grid; grid-template-columns: minmax(0, 1fr); gap: 10px;
      padding: 2px 12px 10px; }
    #body > :empty { display: none; }
    code { display: block; font-size: 12px; }
    .cause { padding: 6px 10px; border-radius: 8px; background: var(--bad-back);
      color: var(--bad); }
    .cause a { white-space: nowrap; }
    .warning { margin-top: 6px; padding: 6px 10px; border-radius: 8px; background: var(--warn-back);
      color: var(--warn); }
    aside > .warning { margin: 0 12px 10px; }
    .plain + .plain .warning { display: none; }
    section + section, section + .row { margin-top: 10px; }
    .share { display: flex; gap: 10px; justify-content: space-between; padding: 8px 10px;
      border: 1px solid var(--edge); border-radius: 8px; }
    .share p { margin-top: 2px; color: var(--soft); font-size: 12px; }
    .picture { flex: none; display: grid; place-items: center; width: 44px; height: 44px;
      background: var(--inset); }
    img { width: 44px; height: 44px; object-fit: cover; }
    .link { margin-top: 4px; overflow: hidden; color: var(--soft); font-size: 12px;
      text-overflow: ellipsis; white-space: nowrap; }
    .link :focus-visible { outline-offset: -2px; }
    a { color: inherit; }
    .row { display: flex; gap: 6px; }
    button { flex: 1 1 auto; padding: 4px 6px; border: 1px solid var(--edge); border-radius: 8px;
      background: var(--back); color: inherit; font-size: 12px; white-space: nowrap;
      cursor: pointer; }
    button[aria-pressed=true] { border-color: var(--good); background: var(--good-back);
      color: var(--good); }
    button:disabled { cursor: default; }
    button:disabled[aria-pressed=false] { opacity: 0.5; }
    .toggle { flex: none; width: 28px; height: 28px; padding: 0; }
    footer { display: flex; flex-wrap: wrap; gap: 0 10px; justify-content: space-between;
      color: var(--soft); font-size: 12px; }
    details[open] { flex: 1 0 100%; }
    footer a { margin-left: auto; }
    ol { padding-left: 3ch; margin-bottom: 4px; }
    @media (max-width: 480px) {
      :host { width: calc(100vw - 24px); }
      aside { max-height: 66vh; }
      header { padding-block: 2px; }
      .wecom { padding-bottom: 8px; }
      .toggle { width: 40px; }
      button { min-height: 40px; }
      summary, footer a { line-height: 40px; }
      .cause a { padding-block: 12px; }
      footer { margin-block: -10px; }
    }
    :focus-visible { outline: 2px solid var(--good); outline-offset: 2px; }
  `;

  const phone = document.createElement("wx-sandbox-phone");

  let hasArrived = late === 0;

  function arrive() {
    if (!hasArrived) {
      hasArrived = true;
      // A page may wait for it with a property of its own.
      if (window.WeixinJSBridge !== bridge) Reflect.set(window, "WeixinJSBridge", bridge);
    }
    document.dispatchEvent(new Event("WeixinJSBridgeReady"));
  }

  function ready() {
    // Beside the body, which a page may replace.
    document.documentElement.append(phone);
    if (late) setTimeout(arrive, late);
    else arrive();
  }

  try {
    const agent = { configurable: true, get: playedAgent };
    if (!inWeChat) Object.defineProperty(navigator, "userAgent", agent);
    // Real WeChat puts its own there, which knows nothing of a sandbox's account.
    const get = () => (hasArrived ? bridge : undefined);
    Object.defineProperty(window, "WeixinJSBridge", { configurable: true, get, set() {} });
  } catch (error) {
    console.error("WeChat sandbox: this browser cannot be made its phone.", error);
    return;
  }
  build();
  showCalls();
  show();
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else setTimeout(ready, 0);
  window.addEventListener("load", show);
  window.addEventListener("error", ({ target }) => target.tagName === "SCRIPT" && show(), true);
})();
