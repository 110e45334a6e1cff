// The live panel. An application needs none of this.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const panel = $("panel");
  const signed = panel.dataset.signed ? JSON.parse(panel.dataset.signed) : null;
  const ownAddress = () => location.href.split("#")[0];
  const REFRESH_PAUSE = 10; // seconds that refresh() takes between two renewals
  const say = (english, chinese) => (panel.lang === "en" ? english : chinese);
  const STATES = { fresh: "有效", stale: "待续期", invalid: "无效" };
  let ticketBorn = null; // Unix time in ms of the ticket now in use
  let waitUntil = 0;

  // Text is set only where it changes, so that a screen reader is not told the same twice.
  function put(id, text) {
    const element = $(id);
    if (element && element.textContent !== text) element.textContent = text;
  }

  function time(seconds) {
    if (seconds === null) return "–";
    if (seconds < 0) return say("past", "已过");
    const [h, m, s] = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(Math.floor);
    const two = (number) => String(number).padStart(2, "0");
    if (h) return `${h}:${two(m)}:${two(s)}`;
    const inSeconds = `${m ? two(s) : s} ${say("s", "秒")}`;
    return m ? `${m} ${say("min", "分")} ${inSeconds}` : inSeconds;
  }

  async function ask(url, body) {
    const options = { cache: "no-store", signal: AbortSignal.timeout?.(15000) };
    if (body !== undefined) {
      options.method = "POST";
      options.headers = { "Content-Type": "application/json" };
      options.body = JSON.stringify(body);
    }
    const response = await fetch(url, options);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return response.json();
  }

  // -- the ticket

  function showTicket(ticket) {
    const { state, age, refresh_in: refreshIn, expires_in: expiresIn } = ticket;
    const next = refreshIn === null ? null : Math.max(refreshIn, ticket.retry_in || 0);
    if ($("state").dataset.state !== state) {
      if ($("state").dataset.state) put("news", say(`The ticket is ${state}.`, `ticket ${STATES[state]}`));
      put("state", say(state, STATES[state]));
      $("state").dataset.state = $("life").dataset.state = state;
    }
    if (age !== null) {
      const life = age + expiresIn;
      const passed = Math.min(100, (100 * age) / life);
      const mark = (100 * (age + next)) / life;
      $("passed").style.width = `${passed}%`;
      $("life").setAttribute("aria-valuenow", Math.round(passed));
      $("mark").style.left = $("mark-label").style.left = `${mark}%`;
      $("mark-label").classList.toggle("at-end", mark > 85);
      $("mark").hidden = $("mark-label").hidden = mark > 100; // a pause may outlast the ticket
      const born = Date.now() - age * 1000;
      if (ticketBorn !== null && born - ticketBorn > 900)
        put("news", say("The ticket was renewed.", "ticket 已续期"));
      ticketBorn = born;
    }
    put("age", time(age));
    put("refresh-in", next !== null && next <= 0 ? say("due", "现在") : time(next));
    put("expires-in", time(expiresIn));
    const by = ticket.refreshed_by === "this process" ? say("this process", "本进程") : ticket.refreshed_by;
    put("refreshed-by", by || "–");
    $("error").dataset.error = ticket.last_error ? "some" : "none";
    $("last-error").lang = ticket.last_error ? "en" : panel.lang;
    put("last-error", ticket.last_error || say("None since the last renewal.", "上次续期以来没有。"));
    const pause = say(
      `WeChat is left alone for ${time(ticket.retry_in)}, unless refresh() is called.`,
      `${time(ticket.retry_in)}内不再询问微信，除非调用 refresh()。`,
    );
    put("retry", ticket.retry_in > 0 ? pause : "");
  }

  function showCalls({ calls, latest }) {
    put("token-calls", String(calls.token));
    put("ticket-calls", String(calls.ticket));
    $("calls").replaceChildren(
      ...latest.map(({ age, name, outcome }) => {
        const [when, what, how] = ["time", "code", "b"].map((tag) => document.createElement(tag));
        when.textContent = say(`${time(Math.max(0, age))} ago`, `${time(Math.max(0, age))}前`);
        what.textContent = name;
        how.textContent = outcome === 0 ? "ok" : String(outcome);
        how.className = outcome === 0 ? "ok" : "";
        const item = document.createElement("li");
        item.append(when, what, how);
        return item;
      }),
    );
  }

  // -- the verdict

  function showVerdict(errMsg, note) {
    $("verdict").dataset.verdict = !errMsg ? "wait" : errMsg === "config:ok" ? "ok" : "bad";
    put("errmsg", errMsg || say("not called", "未调用"));
    put("verdict-note", note);
  }

  let said = null; // by jweixin, to this page's wx.config
  let missing = false; // jweixin, once the page is loaded

  async function judge() {
    if (!signed)
      return showVerdict(null, say("This page was made without a ticket.", "生成本页时没有 ticket。"));
    const { appId, nonceStr, timestamp, signature } = signed;
    const url = $("address").value;
    if (url === ownAddress()) return missing ? showMissing() : said && showVerdict(said, own());
    const { errMsg } = await ask(panel.dataset.verdictUrl, {
      appId, nonceStr, timestamp, signature, url,
    });
    if (url !== $("address").value) return; // typed on meanwhile
    showVerdict(errMsg, say("This is not the address that was signed.", "签名用的不是这个网址。"));
  }

  // The page never called wx.config, so there is no verdict, whatever the sandbox would say.
  function showMissing() {
    showVerdict(null, say(
      "jweixin could not be loaded: no internet? So wx.config was not called.",
      "无法加载 jweixin（没有联网？），所以没有调用 wx.config。",
    ));
  }

  function own() {
    if (said === "config:invalid signature")
      return say(
        "The server hears one complaint in 10 minutes. Press “Refresh now”, then reload.",
        "10 分钟内只受理一次投诉：请先点“立即刷新”，再重新加载本页。",
      );
    const configs = Number(document.querySelector("wx-sandbox-phone")?.dataset.configs);
    return configs > 1
      ? say(
        "WeChat refused the first signature, and the page had itself signed again.",
        "微信拒绝了第一个签名，页面自己重新取得了签名。",
      )
      : say("Said by jweixin here; the sandbox plays the phone.", "jweixin 的回答，手机由沙箱扮演。");
  }

  function listenToPhone() {
    // wx.ready fires after wx.error as well, so what counts is whether that came.
    let failure = null;
    window.wx.error(({ errMsg }) => (failure = errMsg));
    window.wx.ready(() => {
      said = failure || "config:ok";
      if ($("address")) return judge();
      $("hint").hidden = true;
      $("verdict").hidden = false;
      return showVerdict(said, say("Said by this WeChat.", "本机微信的回答。"));
    });
  }

  // -- the buttons

  async function press(button) {
    const left = Math.ceil((waitUntil - Date.now()) / 1000);
    if (left > 0) return put("done", say(`The next renewal is granted in ${left} s.`, `${left} 秒后才能再次续期。`));
    waitUntil = Date.now() + REFRESH_PAUSE * 1000;
    showPause();
    put("done", say("Asking …", "正在询问……"));
    try {
      const { asked } = await ask(button.dataset.url, {});
      const done = say(`Done: ${asked} ${asked === 1 ? "call" : "calls"}.`, `完成：${asked} 次调用。`);
      put("done", asked ? done : say("WeChat was not asked.", "没有询问微信。"));
    } catch (error) {
      put("done", say(`That did not work: ${error.message}.`, `没有成功：${error.message}。`));
    }
    await look();
  }

  async function breakTicket(button) {
    await ask(button.dataset.url, {});
    scrollTo(0, 0); // where the verdict is
    location.reload();
  }

  function showPause() {
    const left = Math.ceil((waitUntil - Date.now()) / 1000);
    for (const button of $("buttons").querySelectorAll("button"))
      button.setAttribute("aria-disabled", String(left > 0));
  }

  // -- once a second

  async function look() {
    try {
      const { ticket, sandbox } = await ask(panel.dataset.stateUrl);
      showTicket(ticket);
      if (sandbox) {
        showCalls(sandbox);
        showPause();
      }
      panel.classList.remove("is-gone");
      $("gone").hidden = true;
    } catch {
      panel.classList.add("is-gone");
      $("gone").hidden = false;
      put("gone", say(
        "The server does not answer. Is the demo still running?", "服务器无响应，演示还在运行吗？",
      ));
    }
  }

  let timer = null;
  let looking = false;

  async function watch() {
    clearTimeout(timer);
    if (document.hidden || looking) return;
    looking = true;
    await look();
    looking = false;
    timer = setTimeout(watch, 1000);
  }

  document.addEventListener("visibilitychange", watch);
  $("language").addEventListener("click", () => {
    document.cookie = `language=${$("language").dataset.language}; path=/; SameSite=Lax`;
    location.reload();
  });
  for (const link of document.querySelectorAll(".chips a"))
    if (link.href === location.href) link.setAttribute("aria-current", "page");

  if (panel.dataset.verdictUrl) {
    $("address").value = ownAddress();
    $("address").addEventListener("input", () => judge().catch(() => {}));
    $("own-address").addEventListener("click", () => {
      $("address").value = ownAddress();
      judge().catch(() => {});
    });
    for (const button of $("buttons").querySelectorAll("button"))
      button.addEventListener("click", () => press(button));
    $("break").addEventListener("click", () => breakTicket($("break")).catch(() => {}));
  }
  window.addEventListener("load", () => {
    missing = !window.wx;
    if (!missing && signed && /MicroMessenger/i.test(navigator.userAgent)) listenToPhone();
    else if ($("address")) judge().catch(() => {});
  });
  watch();
})();
